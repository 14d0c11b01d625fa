#!/usr/bin/env bash
# The units under a real systemd, which is the first process of a small Debian in namespaces of its own: no container engine and
# no virtual machine, half a minute once the root file system is there. Root, debootstrap, a release or debug build, the models.
#   tests/systemd/sandbox.sh
#     SUITE=trixie         another Debian, for another systemd (default bookworm: 252)
#     BIN=, MODELS=        the program and its models (default target/release/facelatch, var/models)
# What cannot be tried here: cameras and GPIO lines (this machine's kernel has neither), memory limits where control groups of
# version 1 hold the controllers.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
SUITE=${SUITE:-bookworm}
BIN=$(readlink -m "${BIN:-target/release/facelatch}")
MODELS=$(readlink -m "${MODELS:-var/models}")
RUNTIME=vendor/onnxruntime/$(uname -m)/libonnxruntime.so
ROOT=$PWD/target/systemd/$SUITE
CGROUP_ROOT=/sys/fs/cgroup
[ -d /sys/fs/cgroup/unified ] && CGROUP_ROOT=/sys/fs/cgroup/unified
CGROUP=$CGROUP_ROOT/facelatch-sandbox-$$

fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }
say() { printf '\033[1m== %s\033[0m\n' "$*"; }
[ "$(id -u)" = 0 ] || fail "needs root"
[ -x "$BIN" ] || fail "$BIN is not there: cargo build --release --locked, or BIN=FILE"
[ -f "$RUNTIME" ] || fail "$RUNTIME is not there: ./dev setup"

if [ ! -e "$ROOT/.ready" ]; then
  say "a small Debian in $ROOT"
  # The mirror that this machine takes its own packages from.
  mirror=${MIRROR:-$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null)}
  mkdir -p "$ROOT"
  debootstrap --variant=minbase --include=systemd,systemd-sysv,kmod,procps,curl,iproute2 "$SUITE" "$ROOT" "$mirror" > "$ROOT.log" 2>&1 \
    || fail "debootstrap: see $ROOT.log"
  : > "$ROOT/.ready"
fi

say "facelatch as its package installs it"
install -D -m 755 "$BIN" "$ROOT/usr/bin/facelatch"
install -D -m 644 "$RUNTIME" "$ROOT/usr/lib/facelatch/libonnxruntime.so"
rm -rf "$ROOT/usr/share/facelatch/models" "$ROOT/var/lib/facelatch" "$ROOT/etc/credstore" "$ROOT/etc/credstore.encrypted" "$ROOT/var/log/journal" \
  "$ROOT/etc/systemd/system"
mkdir -p "$ROOT/usr/share/facelatch" "$ROOT/etc/systemd/system" "$ROOT/usr/lib/systemd/system/facelatch.service.d"
cp -rL "$MODELS" "$ROOT/usr/share/facelatch/models"
install -D -m 644 -t "$ROOT/usr/lib/systemd/system" systemd/facelatch.service systemd/facelatch-maintenance.service systemd/facelatch-maintenance.timer
install -D -m 644 systemd/10-backoff.conf "$ROOT/usr/lib/systemd/system/facelatch.service.d/10-backoff.conf"
install -D -m 644 systemd/facelatch.sysusers "$ROOT/usr/lib/sysusers.d/facelatch.conf"
install -D -m 644 systemd/60-facelatch.rules "$ROOT/usr/lib/udev/rules.d/60-facelatch.rules"
unshare --mount --propagation private sh -euc 'mount -t proc proc "$1/proc"; chroot "$1" systemd-sysusers facelatch.conf' sh "$ROOT" 2> "$ROOT.out" \
  || fail "the user cannot be made: $(tail -n 1 "$ROOT.out")"
# A camera that shows a picture of nobody: the packs, the frame loop and the event log run as at a door.
mkdir -p "$ROOT/usr/share/facelatch/replay" "$ROOT/etc/facelatch"
cp tests/golden/cartoon.png "$ROOT/usr/share/facelatch/replay/0.png"
cat > "$ROOT/etc/facelatch/facelatch.toml" <<'TOML'
[door]
backend = "simulated"
[[camera]]
name = "front"
source = "replay:/usr/share/facelatch/replay"
TOML
# Nothing of a whole system is wanted but the journal.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service systemd-timesyncd.service systemd-logind.service \
    systemd-resolved.service console-getty.service getty@.service getty-static.service systemd-remount-fs.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer modprobe@.service; do
  ln -sf /dev/null "$ROOT/etc/systemd/system/$unit"
done
chroot "$ROOT" systemctl --root=/ enable facelatch.service facelatch-maintenance.timer > /dev/null 2>&1 || fail "the units cannot be enabled"

first=
cleanup() {
  [ -z "$first" ] || kill -KILL "$first" 2>/dev/null || true
  wait 2>/dev/null || true
  local tries=50
  while [ $tries -gt 0 ] && [ -d "$CGROUP" ]; do
    find "$CGROUP" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    tries=$((tries - 1)); sleep 0.1
  done
}
trap cleanup EXIT

say "systemd as the first process"
mkdir "$CGROUP"
cat > "$ROOT.boot.sh" <<'SH'
set -eu
root=$1; cgroup=$2
echo $$ > "$cgroup/cgroup.procs"
exec unshare --mount --pid --fork --cgroup --uts --ipc --net --propagation private --kill-child sh -euc '
  root=$1
  mount --bind "$root" "$root"
  cd "$root"
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs dev
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "video0 81 0" "loop-control 10 237"; do
    set -- $node; mknod -m 666 dev/$1 c $2 $3
  done
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs tmpfs tmp
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  hostname door
  # Not chroot alone: the kernel refuses user namespaces to whoever is in one.
  mkdir -p .outside
  pivot_root . .outside
  umount -l .outside
  # As systemd itself does outside a container: credentials are mounted in a namespace of their own and must show here.
  mount --make-rshared /
  # A network of its own: nobody is there.
  chroot . ip link set lo up
  chroot . ip link add lan type veth peer name wall
  chroot . ip address add 192.168.7.7/24 dev lan
  chroot . ip link set lan up
  chroot . ip link set wall up
  exec env -i container=namespaces PATH=/usr/sbin:/usr/bin chroot . /lib/systemd/systemd --show-status=no --log-target=journal
' sh "$root"
SH
sh "$ROOT.boot.sh" "$ROOT" "$CGROUP" > "$ROOT.console.log" 2>&1 &
shell=$!
tries=300
until first=$(pgrep -P "$shell" | head -1) && [ -n "$first" ] && [ "$(cat "/proc/$first/comm" 2>/dev/null)" = systemd ]; do
  tries=$((tries - 1)); [ $tries -gt 0 ] || { cat "$ROOT.console.log" >&2; fail "systemd does not start"; }
  sleep 0.1
done
inside() { nsenter -t "$first" -m -p -n -u -i -C -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
tries=300
until inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; do
  tries=$((tries - 1)); [ $tries -gt 0 ] || { inside systemctl list-jobs || true; inside journalctl -b --no-pager -n 50 || true; fail "the system does not come up"; }
  sleep 0.2
done
inside systemctl --version | head -1

problems=0
check() { # check WHAT COMMAND...
  local what=$1; shift
  if "$@" > "$ROOT.out" 2>&1; then printf '   ok      %s\n' "$what"
  else printf '   FAILED  %s\n' "$what"; sed 's/^/           /' "$ROOT.out" | tail -15; problems=$((problems + 1)); fi
}
wait_for() { local tries=$(( $1 * 5 )); shift; until "$@"; do tries=$((tries - 1)); [ $tries -gt 0 ] || return 1; sleep 0.2; done; }
refused() { ! "$@"; }
pid() { inside systemctl show -P MainPID facelatch; }
is() { [ "$(inside systemctl show -P "$1" facelatch)" = "$2" ]; }
journal() { inside journalctl -b --no-pager -o short > "$ROOT.journal.log" || true; }
log() { inside journalctl -u facelatch --no-pager -o cat; }
log_has() { log | grep -q -- "$1"; }

# ---------------------------------------------------------------- the sandbox, from inside

# The daemon's unit with another program in it, which tries what the daemon must not be able to do.
sed -e 's#^ExecStart=.*#ExecStart=/usr/bin/perl /usr/share/facelatch/probe.pl#' -e 's/^Type=.*/Type=oneshot/' \
    -e '/^ExecStopPost=/d; /^Restart/d; /^WatchdogSec=/d; /^WantedBy=/d; /^SystemCallErrorNumber=/d' \
    systemd/facelatch.service > "$ROOT/usr/lib/systemd/system/facelatch-probe.service"
sed -i 's/^SystemCallArchitectures=.*/&\nSystemCallErrorNumber=EPERM/' "$ROOT/usr/lib/systemd/system/facelatch-probe.service"
cat > "$ROOT/usr/share/facelatch/probe.pl" <<'PERL'
use strict; use Socket qw(:DEFAULT inet_pton); use POSIX ();
$| = 1;
sub told { printf "PROBE %s: %s\n", @_ }
sub opened { my ($how, $path) = @_; open(my $file, $how, $path) ? "done" : "refused" }
told("write into the store", opened(">", "/var/lib/facelatch/probe"));
told("write into /etc/facelatch", opened(">", "/etc/facelatch/probe"));
told("write into /usr", opened(">", "/usr/probe"));
told("write into /var/log", opened(">", "/var/log/probe"));
my $home;
told("read /root", opendir($home, "/root") && grep({ !/^\.\.?$/ } readdir $home) ? "done" : "refused");
told("use /dev/null", opened("+<", "/dev/null"));
told("use another device", opened("+<", "/dev/loop-control"));
system("cp /usr/bin/true /var/lib/facelatch/probe-program");
told("execute what it wrote", system("/var/lib/facelatch/probe-program 2>/dev/null") == 0 ? "done" : "refused");
# mmap(0, 4096, read|write|execute, private|anonymous), and the numbers of x86_64 and aarch64.
my %calls = `uname -m` =~ /x86_64/ ? (mmap => 9, mount => 165, unshare => 272, setpriority => 141, bpf => 321)
                                   : (mmap => 222, mount => 40, unshare => 97, setpriority => 140, bpf => 280);
sub called { syscall(@_) == -1 ? "refused" : "done" }
told("memory that is written and executed", called($calls{mmap}, 0, 4096, 7, 0x22, -1, 0));
told("mount", called($calls{mount}, my $a = "tmpfs", my $b = "/tmp", my $c = "tmpfs", 0, 0));
told("a namespace", called($calls{unshare}, 0x10000000));
told("bpf", called($calls{bpf}, 0, 0, 0));
sub reached {
  my ($family, $address) = @_;
  socket(my $socket, $family, SOCK_STREAM, 0) or return "refused";
  my $name = $family == AF_INET ? pack_sockaddr_in(9, inet_pton(AF_INET, $address)) : pack_sockaddr_in6(9, inet_pton(AF_INET6, $address));
  # A filtered connection does not fail: its packets vanish, and it would be tried for minutes.
  my $answered = eval { local $SIG{ALRM} = sub { die }; alarm 2; my $done = connect($socket, $name) || $! == POSIX::ECONNREFUSED; alarm 0; $done };
  $answered ? "done" : "refused";
}
# Nobody listens there; a connection that is refused by the other side has left this machine's filter.
told("reach this machine", reached(AF_INET, "127.0.0.1"));
told("reach the own network", reached(AF_INET, "192.168.7.7"));
told("reach the internet", reached(AF_INET, "203.0.113.7"));
told("reach the internet by IPv6", reached(AF_INET6, "2001:db8::7"));
told("a raw packet socket", socket(my $packet, 17, SOCK_RAW, 0) ? "done" : "refused");
opendir(my $proc, "/proc"); my @others = grep { /^\d+$/ && -e "/proc/$_/exe" && $_ != $$ } readdir $proc;
told("see other processes", grep({ $_ == 1 } @others) ? "done" : "refused");
told("read /proc/cpuinfo", opened("<", "/proc/cpuinfo"));
told("write a kernel setting", opened(">", "/proc/sys/kernel/hostname"));
told("credentials", join(" ", map { s#.*/##r } glob("$ENV{CREDENTIALS_DIRECTORY}/*")) || "none");
PERL

say "the daemon"
check "is ready, and says so to systemd" wait_for 60 is ActiveState active
is ActiveState active || { journal; fail "without it nothing else can be tried; the journal is in $ROOT.journal.log"; }
check "loaded its models under MemoryDenyWriteExecute and the filter of system calls" log_has models_loaded
check "answers over TLS" wait_for 10 inside curl -skf https://127.0.0.1:8443/ready
check "announces itself by multicast, through the filter of addresses" wait_for 20 log_has '^announced$'
check "runs as its own user" test "$(inside stat -c %U "/proc/$(pid)")" = facelatch
check "has no privilege and a filter" awk '/^CapBnd:\t0000000000000000$/ { bound = 1 } /^Seccomp:\t2$/ { filter = 1 } END { exit !(bound && filter) }' < <(inside cat "/proc/$(pid)/status")
check "was refused nothing that it asked for" sh -c '! grep -iE "not permitted|denied|refused"' < <(log)

say "the sandbox"
inside ip route add 203.0.113.0/24 dev lo
inside ip -6 route add 2001:db8::/32 dev lo 2>/dev/null || true
inside ip address add 203.0.113.7/24 dev lo; inside ip -6 address add 2001:db8::7/128 dev lo nodad
printf 'another secret' > "$ROOT/etc/unread-secret"
inside systemctl daemon-reload
check "the probe ran" inside systemctl start facelatch-probe
inside journalctl -u facelatch-probe --no-pager -o cat | sed -n 's/^PROBE //p' > "$ROOT.probes"
while IFS='|' read -r what wanted; do
  check "$what: $wanted" grep -qx "$what: $wanted" "$ROOT.probes"
done <<'TABLE'
write into the store|done
write into /etc/facelatch|refused
write into /usr|refused
write into /var/log|refused
read /root|refused
use /dev/null|done
use another device|refused
execute what it wrote|refused
memory that is written and executed|refused
mount|refused
a namespace|refused
bpf|refused
reach this machine|done
reach the own network|done
reach the internet|refused
reach the internet by IPv6|refused
a raw packet socket|refused
see other processes|refused
read /proc/cpuinfo|done
write a kernel setting|refused
credentials|none
TABLE

say "how it ends and comes back"
before=$(pid)
kill_and_return() { inside systemctl kill -s KILL --kill-who=main facelatch && wait_for 60 another_pid && wait_for 60 is ActiveState active; }
another_pid() { local now; now=$(pid); [ "$now" != 0 ] && [ "$now" != "$before" ]; }
check "a killed daemon is started again" kill_and_return
check "the relay was released in between, under the same sandbox" log_has 'released$'
mkdir -p "$ROOT/etc/systemd/system/facelatch.service.d"
printf '[Service]\nWatchdogSec=4\n' > "$ROOT/etc/systemd/system/facelatch.service.d/test.conf"
inside systemctl daemon-reload; inside systemctl restart facelatch; wait_for 60 is ActiveState active
before=$(pid)
stop_and_return() { inside systemctl kill -s STOP --kill-who=main facelatch && wait_for 60 another_pid && wait_for 60 is ActiveState active; }
check "a daemon that hangs is killed by the watchdog and started again" stop_and_return
check "the journal names the watchdog" grep -qi watchdog < <(inside journalctl -u facelatch --no-pager -o cat)

say "credentials"
credentials() { inside systemctl start facelatch-probe; inside journalctl -u facelatch-probe --no-pager -o cat | sed -n 's/^PROBE credentials: //p' | tail -n 1; }
inside systemctl stop facelatch
printf '%064d\n' 7 > "$ROOT/key"; rm -rf "$ROOT/var/lib/facelatch"
install -D -m 600 "$ROOT/key" "$ROOT/etc/credstore/store.key"
check "a file in /etc/credstore reaches the program" test "$(credentials)" = store.key
inside systemctl start facelatch
check "a key in /etc/credstore is taken" is ActiveState active
check "and no other is made" test ! -e "$ROOT/var/lib/facelatch/store.key"
inside systemctl stop facelatch
printf '%064d\n' 8 > "$ROOT/etc/credstore/store.key"
inside systemctl start facelatch || true
check "another key is refused" wait_for 5 log_has 'does not open the store'
inside systemctl stop facelatch; rm "$ROOT/etc/credstore/store.key"
inside systemctl reset-failed facelatch
mkdir -p "$ROOT/etc/credstore.encrypted"
if inside systemd-creds encrypt --with-key=host --name=store.key /key /etc/credstore.encrypted/store.key > "$ROOT.out" 2>&1; then
  printf '[Service]\nLoadCredentialEncrypted=store.key\n' > "$ROOT/etc/systemd/system/facelatch.service.d/encrypted.conf"
  inside systemctl daemon-reload
  inside systemctl start facelatch || true
  check "a key that is sealed by this machine opens the store" is ActiveState active
  inside systemctl stop facelatch
  rm "$ROOT/etc/systemd/system/facelatch.service.d/encrypted.conf"; inside systemctl daemon-reload
else
  printf '   SKIPPED a sealed key: %s\n' "$(tail -1 "$ROOT.out")"
fi
rm -rf "$ROOT/etc/credstore.encrypted" "$ROOT/var/lib/facelatch"

say "what cannot be meant"
echo 'port = 1' > "$ROOT/etc/facelatch/facelatch.toml"
inside systemctl start facelatch || true
check "a wrong configuration ends with 64" is ExecMainStatus 64
check "and is not tried again" is ActiveState failed
: > "$ROOT/etc/facelatch/facelatch.toml"
inside systemctl reset-failed facelatch

say "maintenance"
inside systemctl start facelatch
if inside facelatch store maintain --help > /dev/null 2>&1; then
  check "runs beside the daemon" inside systemctl start facelatch-maintenance
  inside systemctl stop facelatch
  check "does not run without it: it would keep the store from a daemon that starts" refused inside systemctl start facelatch-maintenance
else
  printf '   SKIPPED maintenance: this program has no `store maintain`\n'
fi
check "its timer waits for the night" grep -q facelatch-maintenance < <(inside systemctl list-timers --no-pager)

say "a stop"
inside systemctl start facelatch; inside systemctl stop facelatch
check "ends well" is Result success
[ -z "${STAY:-}" ] || { echo "nsenter -t $first -m -p -n -u -i -C -r -w"; sleep "$STAY"; }
[ $problems = 0 ] || { journal; fail "$problems checks; the journal is in $ROOT.journal.log"; }
say "all checks passed"
