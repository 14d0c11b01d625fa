#!/bin/bash
# A door without hardware: boots a Debian 13 kernel in QEMU with a simulated GPIO chip and a camera
# that is fed with pictures, runs the daemon there, and watches the relay's line from outside.
#
#   tests/vm/door.sh                       builds and tests target/debug/facelatch
#   FACELATCH=path/to/facelatch tests/vm/door.sh
#   EXAMPLES=folder                        camera_feed and camera_walk are there already
#   PICTURES=folder                        folder/<person>/*.jpg, two pictures of a person at least
#                                          (default: ../shared/faces/lfw/people); without them no
#                                          face comes, and what needs one is SKIPPED
#   PACK=standard                          liveness is required; default: the embedded pack without
#                                          liveness, which is faster. MODELS=folder has it (default:
#                                          var/models)
#
# Emulation is 5 to 20 times slower than the machine, and a grant that is 800 ms old is refused. So
# time in the guest is counted in instructions (one a nanosecond, `-icount`) while it works, and
# passes as outside while it waits. Whatever has a time limit lives in the guest for that reason, the
# broker included; outside there are an HTTP client that enrols and a subscriber to all messages.
#
# Downloads about 280 MB into target/vm at the first run, as camera.sh does; needs root when programs
# are missing. Leaves target/vm/door.log (console), door/ (configuration, logs, messages, levels).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/vm/lib.sh

TIMEOUT_S=${TIMEOUT_S:-900}
MODELS=${MODELS:-var/models}
PICTURES=${PICTURES:-../shared/faces/lfw/people}
RUNTIME=${RUNTIME:-vendor/onnxruntime/x86_64/libonnxruntime.so}
FPS=3

mkdir -p "$VM"
# One build for all three: separate ones differ in the features of what they depend on.
if [ -z "${FACELATCH:-}" ]; then
    say "building target/debug/facelatch"
    cargo build --locked --bin facelatch --example camera_feed --example camera_walk
    FACELATCH=target/debug/facelatch
elif [ -z "${EXAMPLES:-}" ]; then
    cargo build --locked --quiet --example camera_feed --example camera_walk
fi
EXAMPLES=${EXAMPLES:-target/debug/examples}
[ -x "$FACELATCH" ] || die "$FACELATCH is no program"
[ -e "$RUNTIME" ] || die "there is no ONNX Runtime at $RUNTIME; ./dev setup fetches it, or set RUNTIME=FILE"
for program in mosquitto mosquitto_sub mosquitto_pub curl; do
    command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || die "$program is missing; ./dev setup installs it"
done
vm_host_tools
vm_kernel
vm_v4l2loopback
vm_gpio_sim
rustc --edition 2024 -C opt-level=2 -o "$VM/line_watch" tests/vm/line_watch.rs

started=$(date +%s)
work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
guest=$work/guest
vm_guest "$guest"

# ------------------------------------------------------------------ people

pack=${PACK:-builtin}
liveness=false
[ "$pack" = builtin ] || liveness=true
vm_cast "$pack" "$guest/scenes" "$work" ||
    say "SKIPPED faces: no suitable pictures of a person and a stranger in $PICTURES"

# ------------------------------------------------------------------ guest

say "initial file system"
vm_program "$guest" "$FACELATCH" facelatch
vm_program "$guest" "$EXAMPLES/camera_feed"
vm_program "$guest" "$VM/line_watch"
vm_program "$guest" "$(PATH=$PATH:/usr/sbin command -v mosquitto)"
vm_program "$guest" "$(command -v mosquitto_sub)"
vm_program "$guest" "$(command -v mosquitto_pub)"
cp -L "$RUNTIME" "$guest/lib/libonnxruntime.so"
vm_libraries "$guest" "$RUNTIME"
if [ "$pack" != builtin ]; then
    mkdir -p "$guest/models"
    cp -rL "$MODELS/standard" "$guest/models/standard"
fi
vm_modules "$guest" videodev virtio_net configfs
cp "$LOOPBACK" $GPIO_SIM "$guest/mods/"
strip --strip-debug "$guest"/mods/*.ko
echo "0123456789abcdef0123456789abcdef" >"$guest/etc/machine-id"
cat >"$guest/etc/facelatch.toml" <<TOML
[device]
name = "Emulated"
[http]
listen = "0.0.0.0:8080"
tls = false
[store]
dir = "/tmp/store"
[models]
dir = "/models"
pack = "$pack"
runtime = "/lib/libonnxruntime.so"
# Nobody stands before the simulated line.
allow_builtin_pack_on_door = true
[[camera]]
name = "front"
source = "v4l2:/dev/video9"
size = [640, 480]
fps = $FPS
collection = "staff"
cooldown_s = 2
[liveness]
required = $liveness
[mqtt]
url = "mqtt://127.0.0.1:1883"
[door]
backend = "chardev"
chip = "door-sim"
relay_line = 17
active = "high"
unlock_s = 2
max_energised_s = 3
relock = "timeout"
contact = "nc"
contact_line = 27
rex = "unlock"
rex_line = 22
tamper = "nc"
tamper_line = 23
pin_file = "/etc/pin"
[log]
format = "text"
level = "info"
TOML
printf '4711\n' >"$guest/etc/pin"
chmod 600 "$guest/etc/pin"
cp tests/vm/door-init.sh "$guest/init"
chmod +x "$guest/init"
vm_pack "$guest" "$VM/door.cpio.gz"

# ------------------------------------------------------------------ run

http=$(vm_free_port)
broker=$(vm_free_port)
say "booting (at most $TIMEOUT_S s): HTTP at $http, broker at $broker, pack $pack, liveness required: $liveness"
rm -rf "$VM/door" "$VM/door.out" "$VM/door-host.log"
mkdir -p "$VM/door"
touch "$VM/door.out" "$VM/door-host.log"
timeout "$TIMEOUT_S" qemu-system-x86_64 -machine q35 -accel tcg,thread=single -icount shift=0 -rtc clock=vm \
    -cpu max -smp 1 -m 1536 -display none -no-reboot -serial "file:$VM/door.log" -serial "file:$VM/door.out" \
    -nic "user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:$http-:8080,hostfwd=tcp:127.0.0.1:$broker-:1883" \
    -kernel "$VM/kernel/boot/vmlinuz-$KERNEL" -initrd "$VM/door.cpio.gz" \
    -append "console=ttyS0 quiet panic=-1" &
qemu=$!
pids+=("$qemu")

# The guest tells a key as soon as the daemon serves; the person is enrolled with it.
until grep -q '^KEY' "$VM/door.out"; do
    sleep 1
    kill -0 "$qemu" 2>/dev/null ||
        { grep -E '^(##|CHECK)' "$VM/door.log"; tail -n 20 "$VM/door.log"; die "the daemon in the guest did not become ready, see $VM/door.log"; }
done
key=$(sed -n 's/^KEY *//p' "$VM/door.out" | tr -d '\r' | sed -n 1p)
# No keep-alive: by this clock the broker answers late.
mosquitto_sub -h 127.0.0.1 -p "$broker" -k 65535 -V mqttv5 -t 'facelatch/#' -F '%r %t %p' >"$VM/door/outside.log" &
pids+=($!)
answer() { # METHOD PATH: the JSON of standard input
    curl -sS --noproxy '*' -o "$work/answer" -w '%{http_code}' -X "$1" -H "x-api-key: $key" \
        -H 'content-type: application/json' --data-binary @- "http://127.0.0.1:$http$2"
}
outside_check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then echo "CHECK $name ok"; else
        echo "CHECK $name FAIL: $*"
        head -c 600 "$work/answer" 2>/dev/null || true
    fi >>"$VM/door-host.log"
}
status=$(printf '{"name":"staff"}' | answer POST /collection)
outside_check "outside: a collection is made over HTTP" [ "$status" = 200 ]
if [ -e "$work/person.jpg" ]; then
    status=$(printf '{"collection_name":"staff","person_id":"one","person_name":"One","face_storage_type":"StoreThumbnails","face_base_64":"%s"}' \
        "$(base64 -w0 "$work/person.jpg")" | answer PUT /person)
    outside_check "outside: a person is enrolled over HTTP" [ "$status" = 200 ]
fi
mosquitto_pub -h 127.0.0.1 -p "$broker" -V mqttv5 -r -t test/enrolled -m "$status"

wait "$qemu" || die "QEMU ended with $?, see $VM/door.log"
sed '/^KEY/d' "$VM/door.out" | base64 -di | tar -x -C "$VM/door" || true

# ------------------------------------------------------------------ what was seen from outside

# kinds: event types in the order in which the messages of one topic came to the subscriber here.
kinds() { sed -n "s,^0 facelatch/[^/]*/$1 .*\"event_type\":\"\\([a-z_]*\\)\".*,\\1,p" "$VM/door/outside.log"; }
had() { kinds "$1" | grep -qx "$2"; }
one_after_another() { # numbers of the log grow by one from event to event
    sed -n 's/.*"event_type".*"seq":\([0-9]*\).*/\1/p' "$VM/door/outside.log" | sort -n | uniq |
        awk 'NR > 1 && $1 != last + 1 { print "after", last, "comes", $1; bad = 1 } { last = $1 } END { exit bad || !NR }'
}
if [ -e "$work/person.jpg" ]; then outside_check "outside: granted arrives" had door/1/event granted; fi
outside_check "outside: exit_request arrives" had door/1/event exit_request
outside_check "outside: forced_open arrives" had door/1/event forced_open
outside_check "outside: remote_unlock arrives" had door/1/event remote_unlock
outside_check "outside: no number of the event log is missing" one_after_another

grep -q '^## end' "$VM/door.log" || { vm_summary "$started" "$VM/door.log" "$VM/door-host.log" || true; die "the virtual machine did not reach its end"; }
vm_summary "$started" "$VM/door.log" "$VM/door-host.log"
