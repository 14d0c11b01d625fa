#!/bin/busybox sh
# First process of the virtual machine of door.sh: the door's story, watched at the wires. Tells the
# key for enrolment over the second serial port, then /tmp/out as a base64 tar.
. /guest.sh
mkdir -p out store /dev/shm
note "started"

# ------------------------------------------------------------------ wires

insert configfs
insmod /mods/irq_sim.ko && insmod /mods/gpio-sim.ko
mkdir -p /config; mount -t configfs config /config
sim=/config/gpio-sim/door
mkdir -p $sim/bank0
echo 32 >$sim/bank0/num_lines; echo door-sim >$sim/bank0/label
for line in 17:relay 22:exit 23:tamper 27:contact; do
    mkdir $sim/bank0/line${line%:*}; echo ${line#*:} >$sim/bank0/line${line%:*}/name
done
echo 1 >$sim/live
find_lines() { lines=/sys/devices/platform/$(cat $sim/dev_name)/$(cat $sim/bank0/chip_name); }
find_lines
check "the simulated chip is there" [ -e "$lines/sim_gpio17/value" ]

# A closed circuit pulls its line to ground. The simulated chip keeps one pull for each line, so what
# the daemon asks for when it requests an input (a pull-up) opens every circuit: `rest` closes them again.
closed() { echo pull-down >$lines/sim_gpio$1/pull; }
opened() { echo pull-up >$lines/sim_gpio$1/pull; }
rest() { opened 22; closed 23; closed 27; }
rest
check "a line follows its pull" [ "$(cat $lines/sim_gpio22/value)$(cat $lines/sim_gpio27/value)" = 10 ]

watch_relay() { line_watch $lines/sim_gpio17/value 1 >>out/relay.log 2>&1 & watcher=$!; }
watch_relay
relay() { cat $lines/sim_gpio17/value; }
is() { [ "$(relay)" = "$1" ]; }
changes() { wc -l <out/relay.log; }
# opened_once SINCE: one rise and one fall since the mark, and the time between within the limits.
opened_once() {
    tail -n +$(($1 + 1)) out/relay.log
    tail -n +$(($1 + 1)) out/relay.log | awk '
        $2 == 1 { rises++; at = $1 } $2 == 0 { falls++; held = $1 - at; printf "energised for %.3f s\n", held }
        END { exit !(rises == 1 && falls == 1 && held >= 0.9 && held <= 3.1) }'
}
held() { # SINCE: how long the last opening lasted
    tail -n +$(($1 + 1)) out/relay.log | awk '$2 == 1 { at = $1 } $2 == 0 { printf "%.3f s", $1 - at }'
}
quiet() { # SINCE: the relay did not move
    tail -n +$(($1 + 1)) out/relay.log
    [ "$(changes)" = "$1" ] && is 0
}

# ------------------------------------------------------------------ camera

scenes=0; [ -d /scenes/person ] && scenes=1
scene() { ln -sfn "/scenes/$1" /tmp/scene.new; mv -T /tmp/scene.new /tmp/scene 2>/dev/null || ln -sfn "/scenes/$1" /tmp/scene; }
insert videodev
insmod /mods/v4l2loopback.ko devices=1 video_nr=9 exclusive_caps=0 card_label=loop max_buffers=4
scene nobody
camera_feed /dev/video9 640x480 3 100000 /tmp/scene >out/feed.log 2>&1 &

# ------------------------------------------------------------------ broker

insert virtio_net
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
route add default gw 10.0.2.2
printf 'listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_type error\nlog_type warning\nlog_type notice\n' >/etc/mosquitto.conf
mosquitto -c /etc/mosquitto.conf >out/mosquitto.log 2>&1 &
eventually 20 mosquitto_pub -h 127.0.0.1 -t test/here -m 1 2>/dev/null
mosquitto_sub -h 127.0.0.1 -V mqttv5 -t 'facelatch/#' -F '%r %t %p' >out/messages.log 2>&1 &

# count KIND: how many door events of this type have come.
count() { grep -c "/door/1/event .*\"event_type\":\"$1\"" out/messages.log; }
came() { [ "$(count "$1")" -gt "$2" ]; }
# told: how many messages have come, the regular snapshots left out.
told() { grep -cv '^. facelatch/[^/]*/state ' out/messages.log; }

# ------------------------------------------------------------------ daemon

daemon=
# The circuits are closed again as soon as the lines are requested, well within the debounce time.
start() {
    ( while [ ! -e /tmp/serving ]; do rest; usleep 5000; done ) &
    holder=$!
    facelatch run --config /etc/facelatch.toml >>out/facelatch.log 2>&1 &
    daemon=$!
    eventually 60 wget -q -O out/ready.json http://127.0.0.1:8080/ready 2>/dev/null
    status=$?
    sleep 1; touch /tmp/serving; wait $holder; rm /tmp/serving
    return $status
}
start; check "the daemon serves" [ $? = 0 ]
cat out/ready.json; echo
check "starting does not energise" [ "$(changes)" = 1 ]
device=$(sed -n 's,^. facelatch/\([0-9a-f]*\)/status online,\1,p' out/messages.log | head -n 1)
check "the device is online at the broker" [ -n "$device" ]
topic=facelatch/$device/door/1
facelatch check --config /etc/facelatch.toml >out/check.log 2>&1
facelatch doctor --config /etc/facelatch.toml >out/doctor.log 2>&1
key=$(facelatch key add --config /etc/facelatch.toml --name test --scope admin)
echo "KEY $key" >/dev/ttyS1
mosquitto_sub -h 127.0.0.1 -V mqttv5 -t test/enrolled -C 1 -W 120 >/dev/null
check "enrolled from outside" [ $? = 0 ]
check "the leaf is closed at the beginning" eventually 5 has "^. $topic/contact OFF" out/messages.log

if [ $scenes = 1 ]; then
    note "a face arrives"
    mark=$(changes); before=$(count granted)
    scene person
    check "a known face opens" eventually 20 is 1
    scene nobody
    check "the relay falls again" eventually 6 is 0
    sleep 3
    check "one opening, in time ($(held "$mark"))" opened_once "$mark"
    check "granted is published" came granted "$before"
    grep '/match .*"event_type":"granted"' out/messages.log | tail -n 1 | cut -d' ' -f3- >out/granted.json
    check "granted has the time of the relay" not has '"t_relay":null' out/granted.json
    echo "## latency in the guest: $(sed 's/.*"latency_ms":\([0-9]*\).*/\1/' out/granted.json) ms"

    note "a stranger"
    mark=$(changes); before=$(grep -c '/match .*unknown_face\|/match .*"denied"' out/messages.log)
    denied() { [ "$(grep -c '/match .*unknown_face\|/match .*"denied"' out/messages.log)" -gt "$before" ]; }
    scene stranger
    check "a stranger is reported" eventually 20 denied
    sleep 2; scene nobody; sleep 2
    check "a stranger does not open" quiet "$mark"

    note "the camera freezes on a picture of the person"
    mark=$(changes)
    scene frozen; sleep 8
    check "a frozen camera does not open" quiet "$mark"
    scene nobody; sleep 3
else
    echo "SKIPPED faces, frozen camera: there are no pictures"
fi

# ------------------------------------------------------------------ inputs

note "exit button"
mark=$(changes); before=$(count exit_request)
closed 22; sleep 0.5; opened 22
check "the exit button opens" eventually 3 is 1
check "the relay falls after it" eventually 6 is 0
check "one opening by the button, in time ($(held "$mark"))" opened_once "$mark"
check "exit_request is published" eventually 5 came exit_request "$before"
mark=$(changes); before=$(count exit_request)
closed 22; sleep 0.05; opened 22; sleep 2
check "a press of 50 ms is no exit request" quiet "$mark"
check "and no event" not came exit_request "$before"
mark=$(changes)
closed 22; sleep 8
check "a jammed exit button cannot hold the relay" is 0
opened 22; sleep 1
check "one opening by the jammed button ($(held "$mark"))" opened_once "$mark"

note "contact"
mark=$(changes); before=$(count forced_open)
opened 27
check "forced_open is published" eventually 5 came forced_open "$before"
check "the alarm is on" eventually 5 has "^. $topic/forced ON" out/messages.log
check "the lock shows the open leaf" eventually 5 has "^. $topic/lock OPEN" out/messages.log
closed 27; sleep 1
check "a forced leaf does not energise" quiet "$mark"

mark=$(changes); before=$(told)
i=0; while [ $i -lt 10000 ]; do opened 27; closed 27; i=$((i + 1)); done
sleep 2
after=$(told)
check "10000 bounces of the contact cause at most 20 messages ($((after - before)))" [ $((after - before)) -le 20 ]
check "bouncing does not energise" quiet "$mark"

note "tamper"
before=$(count tamper); mark=$(changes)
opened 23
check "tamper is published" eventually 5 came tamper "$before"
check "the tamper state is on" eventually 5 has "^. facelatch/$device/tamper ON" out/messages.log
closed 23; sleep 1
check "tampering does not energise" quiet "$mark"

# ------------------------------------------------------------------ commands

# command CMD SECONDS NONCE [CODE]: a command that is good for so many seconds.
command() {
    exp=$(date -u -d "@$(($(date +%s) + $2))" +%Y-%m-%dT%H:%M:%SZ)
    printf '{"cmd":"%s","exp":"%s","nonce":"%s"%s}' "$1" "$exp" "$3" "${4:+,\"code\":\"$4\"}"
}
tell() { mosquitto_pub -h 127.0.0.1 -V mqttv5 -q 1 "$@"; }
refused() { # NAME PAYLOAD [OPTIONS]
    name=$1; payload=$2; shift 2
    mark=$(changes)
    tell -t $topic/lock/set -m "$payload" "$@"
    sleep 1.5
    check "$name" quiet "$mark"
}
note "remote commands"
mark=$(changes); before=$(count remote_unlock)
good=$(command UNLOCK 5 first 4711)
tell -t $topic/lock/set -m "$good"
check "a good command opens" eventually 3 is 1
check "the relay falls after the command" eventually 6 is 0
check "one opening by the command, in time ($(held "$mark"))" opened_once "$mark"
check "remote_unlock is published" eventually 5 came remote_unlock "$before"
refused "a repeated command is refused" "$good"
refused "a wrong PIN is refused" "$(command UNLOCK 5 second 4712)"
refused "a missing PIN is refused" "$(command UNLOCK 5 third)"
refused "an expired command is refused" "$(command UNLOCK -2 fourth 4711)"
refused "a command from the far future is refused" "$(command UNLOCK 60 fifth 4711)"
refused "a bare command is refused" UNLOCK
refused "garbage is refused" '{"cmd":'
refused "a retained command is refused" "$(command UNLOCK 5 sixth 4711)" -r
tell -t $topic/lock/set -r -n

note "lockdown"
tell -t $topic/mode/set -m lockdown
check "the mode is lockdown" eventually 5 has "^. $topic/mode lockdown" out/messages.log
refused "a good command is refused in lockdown" "$(command UNLOCK 5 lockdown 4711)"
mark=$(changes)
closed 22; sleep 0.5; opened 22
check "the exit button opens in lockdown" eventually 3 is 1
check "and the relay falls" eventually 6 is 0
tell -t $topic/mode/set -m normal
check "the mode is normal again" eventually 5 eval '[ "$(grep "^. $topic/mode " out/messages.log | tail -n 1 | cut -d" " -f3)" = normal ]'

# ------------------------------------------------------------------ death

note "killed while the relay is energised"
mark=$(changes)
tell -t $topic/lock/set -m "$(command UNLOCK 5 seventh 4711)"
check "energised before the kill" eventually 3 is 1
kill -KILL $daemon; killed=$(up)
wait $daemon 2>/dev/null
check "the kernel releases the line" eventually 1 is 0
tail -n +$((mark + 1)) out/relay.log | awk -v killed="$killed" '
    $2 == 1 { at = $1 } $2 == 0 { printf "## the line fell %.3f s after it rose, %.0f ms after the kill\n", $1 - at, ($1 - killed) * 1000 }'

note "restarted, with a good command waiting at the broker as a retained message"
# The relay must not move from here on, whatever the broker holds.
mark=$(changes)
tell -t $topic/lock/set -r -m "$(command UNLOCK 10 eighth 4711)"
asked=$(date +%s)
start; check "the daemon serves again" [ $? = 0 ]
check "the device is online again" eventually 5 eval '[ "$(grep -c "/status online" out/messages.log)" -ge 2 ]'
late=$(($(date +%s) - asked))
check "the retained command was delivered while it was good ($late of 10 s)" [ $late -lt 10 ]
sleep 3
check "neither the start nor the retained command energises" quiet "$mark"
tell -t $topic/lock/set -r -n

note "the chip goes away and comes back"
echo 0 >$sim/live
check "the lock is jammed" eventually 10 has "^. $topic/lock JAMMED" out/messages.log
sleep 1
echo 1 >$sim/live
kill $watcher; wait $watcher 2>/dev/null
find_lines; rest; watch_relay
eventually 2 eval '[ "$(tail -n 1 out/relay.log | cut -d" " -f2)" = 0 ]'
mark=$(changes)
jammed() { [ "$(grep "^. $topic/lock " out/messages.log | tail -n 1 | cut -d' ' -f3)" = JAMMED ]; }
check "the lock is known again" eventually 40 not jammed
rest; sleep 1
check "the chip's return does not energise" quiet "$mark"
closed 22; sleep 0.5; opened 22
check "the exit button opens again" eventually 3 is 1
check "the relay falls after it" eventually 6 is 0

note "stopped while the relay is energised"
mark=$(changes)
tell -t $topic/lock/set -m "$(command UNLOCK 5 ninth 4711)"
check "energised before the stop" eventually 3 is 1
kill -TERM $daemon; killed=$(up)
check "the stop releases the line" eventually 3 is 0
wait $daemon; check "the daemon ended well" [ $? = 0 ]
sleep 1
check "and the relay stays released (energised for $(held "$mark"))" is 0

# ------------------------------------------------------------------ all of it

cat out/relay.log
check "the relay was never energised longer than max_energised_s" awk '
    $2 == 1 { at = $1 } $2 == 0 && at { if ($1 - at > 3.1) { print $0; bad = 1 } at = 0 } END { exit bad || at }' out/relay.log
check "no panic" not grep -i panicked out/facelatch.log
awk 'NR > 1 && $3 > late { late = $3 } END { print "## the line was looked at every", late, "ms or more often at its changes" }' out/relay.log
grep -E ' (WARN|ERROR) ' out/facelatch.log | sed 's/^[^ ]* *//' | sort | uniq -c | sort -rn | head -n 20

note "end"
stty raw </dev/ttyS1
tar -c -C /tmp/out . | base64 >/dev/ttyS1
sync; sleep 1
poweroff -f
