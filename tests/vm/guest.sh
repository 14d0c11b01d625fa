# Sourced by the first process of a virtual machine: programs, file systems, and checks that print
# `CHECK NAME ok` or `CHECK NAME FAIL`.
/bin/busybox --install -s /bin
export PATH=/bin LD_LIBRARY_PATH=/lib RUST_BACKTRACE=1
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
cd /tmp

up() { cut -d' ' -f1 /proc/uptime; }
note() { echo "## $* ($(up) s)"; }
check() { # NAME COMMAND...: the command's success; its output on failure
    name=$1; shift
    if "$@" >/tmp/check.log 2>&1; then echo "CHECK $name ok ($(up) s)"
    else echo "CHECK $name FAIL ($(up) s): $*"; tail -n 20 /tmp/check.log; fi
}
not() { ! "$@"; }
has() { grep -q -- "$1" "$2"; }
eventually() { # SECONDS COMMAND...: whether the command succeeds within that time
    until=$(($(cut -d. -f1 /proc/uptime) + $1)); shift
    until "$@"; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt "$until" ] || return 1
        usleep 100000
    done
}
insert() { # MODULE PARAMETERS...: with what it depends on, in order
    module=$1; shift
    while read -r file wanted; do
        [ "$wanted" = "$module" ] || continue
        if [ "$file" = "$module.ko" ]; then insmod "/mods/$file" "$@"; else insmod "/mods/$file" 2>/dev/null; fi
    done </mods/order
}
