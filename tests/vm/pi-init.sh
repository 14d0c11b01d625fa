#!/bin/busybox sh
# First process of the virtual machine of pi.sh: the relay's pin of two back ends, seen and moved by
# the registers of the GPIO controller.
. /guest.sh
mkdir -p store
dmesg -n 1
ifconfig lo 127.0.0.1 up
insert bcm2835_wdt
note "started on $(tr -d '\0' </proc/device-tree/model)"

# ------------------------------------------------------------------ pins

# BCM2835 ARM Peripherals, chapter 6; on a Raspberry Pi 3 the block lies at 0x3f200000. The emulated
# controller lets the level of an input be set like that of an output, which plays the switches.
FSEL1=0x3f200004 SET0=0x3f20001c CLEAR0=0x3f200028 LEVEL0=0x3f200034
relay() { echo $((($(devmem $LEVEL0 32) >> 17) & 1)); }
mode() { echo $((($(devmem $FSEL1 32) >> 21) & 7)); } # 0: input, 1: output
is() { [ "$(relay)" = "$1" ]; }
closed() { devmem $CLEAR0 32 $((1 << $1)); }
opened() { devmem $SET0 32 $((1 << $1)); }
released_as() { # MODE: released, and the pin is an input or an output
    echo "mode $(mode), level $(relay)"
    is 0 && [ "$(mode)" = "$1" ]
}
press() { closed 22; sleep 0.4; opened 22; }
opened 22; closed 27
check "the relay's pin is an input at power-on" released_as 0

# ------------------------------------------------------------------ daemon

start() { # BACKEND
    FACELATCH_DOOR__BACKEND=$1 facelatch run --config /etc/facelatch.toml >daemon.log 2>&1 &
    daemon=$!
    eventually 60 wget -q -O - http://127.0.0.1:8080/health >/dev/null 2>&1
    status=$?
    # The service answers a moment before the door's thread looks at the buttons.
    eventually 30 has 'daemon: ready' daemon.log
    # The pull-up of an input moves the emulated level; the switches are where they were.
    opened 22; closed 27
    # Longer than a button is debounced: it is pressed next.
    usleep 500000
    return $status
}
stop() { kill -$1 $daemon; wait $daemon; }
no_rise() { # SECONDS: the relay stays released for so long
    until=$(($(cut -d. -f1 /proc/uptime) + $1))
    while [ "$(cut -d. -f1 /proc/uptime)" -lt $until ]; do is 0 || return 1; done
}

# story BACKEND AFTER_STOP: AFTER_STOP is the mode in which a stop leaves the pin.
story() {
    note "$1"
    start "$1"; check "$1: the daemon serves" [ $? = 0 ]
    grep -i 'relay at' daemon.log | tail -n 1
    check "$1: the pin is an output with the safe level" released_as 1
    check "$1: starting does not energise" no_rise 3
    press
    check "$1: the exit button energises" eventually 5 is 1
    from=$(up)
    check "$1: the relay falls" eventually 6 is 0
    echo "## $1: released $(up) s, seen energised $from s"
    press; eventually 5 is 1
    stop TERM
    check "$1: a stop while it is energised releases" released_as "$2"
    start "$1"
    press; check "$1: energised before the kill" eventually 5 is 1
    stop KILL 2>/dev/null
    sleep 1
    echo "## $1: a second after SIGKILL the pin has mode $(mode), level $(relay)"
}

story rppal 1
check "rppal: a killed daemon leaves the pin energised, as the documentation says" [ "$(mode)$(relay)" = 11 ]
facelatch door release --config /etc/facelatch.toml -h >/dev/null 2>&1 && {
    FACELATCH_DOOR__BACKEND=rppal facelatch door release --config /etc/facelatch.toml
    check "rppal: \`door release\` releases it" is 0
    start rppal
    press; eventually 5 is 1
    stop KILL 2>/dev/null
}
# Whoever starts the daemon again releases it.
FACELATCH_DOOR__BACKEND=rppal facelatch run --config /etc/facelatch.toml >daemon.log 2>&1 &
daemon=$!
check "rppal: the next start releases it" eventually 30 is 0
eventually 60 wget -q -O - http://127.0.0.1:8080/health >/dev/null 2>&1
opened 22; closed 27
check "rppal: and does not energise" no_rise 3
stop TERM
if facelatch door test -h >/dev/null 2>&1; then
    note "door test"
    FACELATCH_DOOR__BACKEND=rppal facelatch door test --config /etc/facelatch.toml --seconds 2 >test.log 2>&1 &
    check "door test energises" eventually 10 is 1
    check "door test releases" eventually 6 is 0
    wait $!; check "door test ends well" [ $? = 0 ]
    cat test.log
fi

story chardev 0
# An input drives nothing; the level is then the pull resistor's, which the emulator does not have.
check "chardev: the kernel makes the pin of a killed daemon an input" [ "$(mode)" = 0 ]

note "auto"
start auto; check "auto: the daemon serves" [ $? = 0 ]
grep -i 'relay at' daemon.log | tail -n 1
check "auto takes rppal on a Raspberry Pi" has "rppal" daemon.log
stop TERM

note "end"
sync; sleep 1
reboot -f
