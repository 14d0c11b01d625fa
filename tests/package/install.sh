#!/bin/bash
# Installs the packages of target/package into small Debian systems and lives through their life:
# first start, enrolment, search, upgrade, remove, reinstall, purge. Writes target/package/report.md.
#
#   SYSTEMS="amd64-bookworm arm64-bookworm amd64-bullseye"   which; bullseye has the oldest glibc promised
#   PICTURES=folder    folder/<person>/*.jpg (default: ../shared/faces/lfw/people); without them nobody
#                      is enrolled, and that part is SKIPPED
#
# Needs root or sudo and a network. The systems stay in target/package-test for the next time.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
. tests/package/lib.sh

SYSTEMS=${SYSTEMS:-amd64-bookworm arm64-bookworm amd64-bullseye}
PICTURES=${PICTURES:-../shared/faces/lfw/people}
PACKAGES=target/package
# A daemon under emulation may start for minutes; this only ends a test that hangs.
START_TIMEOUT_S=600
SEARCHES=10

mkdir -p "$PKG/share"
host_tool debootstrap debootstrap
host_tool curl curl

failures=0
pass() { printf '  ok      %s\n' "$*"; }
fail() { printf '  FAILED  %s\n' "$*"; failures=$((failures + 1)); }
expect() { # DESCRIPTION COMMAND...
    local what=$1; shift
    if "$@" >"$PKG/last.log" 2>&1; then pass "$what"; else fail "$what"; sed 's/^/            /' "$PKG/last.log" | tail -15; fi
}
refuse() { # DESCRIPTION COMMAND...: the command has to fail
    local what=$1; shift
    if "$@" >"$PKG/last.log" 2>&1; then fail "$what"; else pass "$what"; fi
}
deb_of() { ls "$PACKAGES"/facelatch_*_"$1".deb 2>/dev/null | tail -1; }

# ------------------------------------------------------------------ lintian

# lintian brings more than a hundred packages: they go into a system of their own.
lint_system() {
    base amd64 bookworm
    ROOT=$PKG/lintian
    [ -e "$ROOT/with-lintian" ] && return
    say "lintian into target/package-test/lintian"
    "${as_root[@]}" rm -rf "$ROOT"
    "${as_root[@]}" cp -a "$PKG/amd64-bookworm.base" "$ROOT"
    "${as_root[@]}" cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
    { apt_inside update && apt_inside install lintian; } >"$PKG/lintian.log" 2>&1 ||
        die "lintian cannot be installed, see target/package-test/lintian.log"
    "${as_root[@]}" touch "$ROOT/with-lintian"
}

lint() { # DEB
    local log=$PACKAGES/lintian-$(basename "$1" .deb).log
    cp "$1" "$PKG/share/"
    if inside lintian --no-cfg --fail-on error "/mnt/$(basename "$1")" >"$log" 2>&1; then
        pass "lintian: $(basename "$1"): no errors, $(grep -c '^W:' "$log" || true) warnings"
    else
        fail "lintian: $(basename "$1")"
        grep -v '^[WIPN]:' "$log" | head -20 | sed 's/^/            /'
    fi
}

# ------------------------------------------------------------------ the daemon

daemon_pid=""
daemon_start() { # as the unit does, but by hand: there is no systemd here
    port=$(free_port)
    inside env FACELATCH_HTTP__LISTEN="127.0.0.1:$port" FACELATCH_LOG__FORMAT=text \
        setpriv --reuid facelatch --regid facelatch --init-groups facelatch run >"$PKG/daemon.log" 2>&1 &
    daemon_pid=$!
}
answers() { curl -ksf -m 20 --noproxy '*' "https://127.0.0.1:$port$1" >/dev/null; }
daemon_wait() { # PATH
    local until=$((SECONDS + START_TIMEOUT_S))
    while ! answers "$1"; do
        [ -d "/proc/$daemon_pid" ] || return 1
        [ $SECONDS -lt $until ] || return 1
        sleep 0.3
    done
}
# The innermost of the processes that lead into the chroot: each is the only child of the one before.
daemon_process() {
    local pid=$daemon_pid child
    while child=$(pgrep -P "$pid" | head -1) && [ -n "$child" ]; do pid=$child; done
    echo "$pid"
}
daemon_memory() { awk '/^VmRSS/ { printf "%.0f", $2 * 1.024 / 1000 }' "/proc/$(daemon_process)/status"; }
daemon_stop() {
    local status=0
    "${as_root[@]}" kill -TERM "$(daemon_process)"
    wait "$daemon_pid" || status=$?
    return $status
}
trap '[ -z "$daemon_pid" ] || "${as_root[@]}" kill "$(daemon_process)" 2>/dev/null || true' EXIT

as_facelatch() { inside setpriv --reuid facelatch --regid facelatch --init-groups "$@"; }

# ------------------------------------------------------------------ one system

newer() { # DEB: the same package with a higher version, as PKG/share/newer.deb
    local work=$PKG/newer
    rm -rf "$work"
    dpkg-deb -R "$1" "$work"
    sed -i 's/^Version: .*/&+newer/' "$work/DEBIAN/control"
    # Unpacking and packing as this user loses the owners; the package has root's only.
    dpkg-deb --root-owner-group -Zgzip -z1 -b "$work" "$PKG/share/newer.deb" >/dev/null
}

check_files() {
    local path
    for path in /usr/bin/facelatch /usr/lib/facelatch/libonnxruntime.so /etc/facelatch/facelatch.toml \
        /usr/lib/systemd/system/facelatch.service /usr/lib/systemd/system/facelatch-maintenance.timer \
        /usr/lib/udev/rules.d/60-facelatch.rules /usr/lib/sysusers.d/facelatch.conf \
        /usr/share/man/man1/facelatch.1.gz /usr/share/man/man1/facelatch-door.1.gz \
        /usr/share/bash-completion/completions/facelatch /usr/share/zsh/vendor-completions/_facelatch \
        /usr/share/fish/vendor_completions.d/facelatch.fish /usr/share/facelatch/profiles/generic.toml \
        /usr/share/doc/facelatch/copyright /usr/share/doc/facelatch/facelatch.cdx.json \
        /usr/share/doc/facelatch/licences-of-crates.txt /usr/share/doc/facelatch/onnxruntime-licence.txt; do
        [ -s "$ROOT$path" ] || { echo "$path is missing or empty"; return 1; }
    done
}
check_user() {
    inside id facelatch && inside id -nG facelatch | grep -w video | grep -qw gpio &&
        [ "$(inside stat -c '%a %U' /var/lib/facelatch)" = "700 facelatch" ]
}
check_enabled() { [ -L "$ROOT/etc/systemd/system/multi-user.target.wants/facelatch.service" ]; }
check_doctor() { # any state, but an answer
    inside facelatch doctor --json >"$PKG/doctor.json" || [ $? = 1 ]
    python3 - "$PKG/doctor.json" <<'PYTHON'
import json, sys
checks = {check["name"]: check["state"] for check in json.load(open(sys.argv[1]))["checks"]}
sys.exit(0 if checks else 1)
PYTHON
}
check_runtime() { "${as_root[@]}" grep -q '/usr/lib/facelatch/libonnxruntime.so' "/proc/$(daemon_process)/maps"; }
check_found() { # the person of the pictures is found, by name
    as_facelatch facelatch search --collection staff --min-score 0.4 --json "$@" | grep -q '"visitor"'
}
check_listed() { as_facelatch facelatch person list --collection staff --json | grep -q '"visitor"'; }
key_of() { inside sha256sum /var/lib/facelatch/store.key | cut -d' ' -f1; }

system() { # ARCH-SUITE
    local arch=${1%%-*} suite=${1#*-} deb key started path
    deb=$(deb_of "$arch")
    [ -n "$deb" ] || { fail "$1: there is no package for $arch in $PACKAGES; ./dev package makes it"; return; }
    echo "$1"
    [ "$arch" = amd64 ] || emulation
    base "$arch" "$suite"
    fresh "$arch" "$suite"
    rm -rf "$PKG/share" && mkdir -p "$PKG/share"
    cp "$deb" "$PKG/share/facelatch.deb"
    newer "$deb"
    local person pictures=no
    person=$(people_first)
    if [ -n "$person" ]; then
        pictures=yes
        cp -L "$(find -L "$person" -name '*.jp*g' | sort | sed -n 1p)" "$PKG/share/first.jpg"
        cp -L "$(find -L "$person" -name '*.jp*g' | sort | sed -n 2p)" "$PKG/share/second.jpg"
    fi
    apt_inside update >"$PKG/last.log" 2>&1 || { fail "$1: apt-get update"; return; }

    expect "installs, with what it depends on" apt_inside install /mnt/facelatch.deb
    expect "every file is in its place" check_files
    expect "the user facelatch, in video and gpio; its directory, 0700" check_user
    expect "the unit is enabled" check_enabled
    expect "facelatch --version" inside facelatch --version
    expect "facelatch check" inside facelatch check
    expect "facelatch doctor --json" check_doctor

    started=$SECONDS
    daemon_start
    for path in /health /ready; do
        if daemon_wait $path; then pass "first start: $path answers"; else fail "first start: $path"; tail -15 "$PKG/daemon.log"; return; fi
    done
    expect "ONNX Runtime of the package is the one that is loaded" check_runtime
    local ready_s=$((SECONDS - started)) loaded_mb searched_mb="-" search_s="-"
    loaded_mb=$(daemon_memory)
    if [ $pictures = yes ]; then
        expect "a collection" as_facelatch facelatch collection create staff
        expect "a person is enrolled" as_facelatch facelatch person enrol --collection staff --id visitor --name Visitor /mnt/first.jpg
        started=$SECONDS
        local images=() number
        for number in $(seq $SEARCHES); do images+=(/mnt/second.jpg); done
        expect "another picture of the person finds it, $SEARCHES times" check_found "${images[@]}"
        search_s=$(awk -v s=$((SECONDS - started)) -v n=$SEARCHES 'BEGIN { printf "%.1f", s / n }')
        searched_mb=$(daemon_memory)
    else
        printf '  SKIPPED enrolment and search: no pictures in %s\n' "$PICTURES"
    fi
    expect "the daemon stops on SIGTERM with status 0" daemon_stop
    daemon_pid=""

    key=$(key_of)
    echo '# an administrator was here' | "${as_root[@]}" tee -a "$ROOT/etc/facelatch/facelatch.toml" >/dev/null
    same_data() { [ "$(key_of)" = "$key" ] && { [ $pictures = no ] || check_listed; }; }
    expect "upgrades" apt_inside install /mnt/newer.deb
    expect "upgrade keeps people and key" same_data
    expect "upgrade keeps a changed configuration" inside grep -q 'administrator was here' /etc/facelatch/facelatch.toml
    expect "removes" apt_inside remove facelatch
    expect "remove keeps the data" inside test -s /var/lib/facelatch/store.key
    refuse "remove takes the program" inside test -e /usr/bin/facelatch
    expect "installs again" apt_inside install /mnt/facelatch.deb
    expect "the people and the key are still there" same_data

    answer() { echo "facelatch facelatch/purge-data boolean $1" | inside debconf-set-selections; }
    expect "the answer for purge can be set before" answer false
    expect "purges" apt_inside purge facelatch
    expect "purge keeps the data when the answer is no" inside test -s /var/lib/facelatch/store.key
    expect "installs again after a purge" apt_inside install /mnt/facelatch.deb
    expect "the kept data is in use again" same_data
    expect "purges, nobody there to be asked" apt_inside purge facelatch
    refuse "purge takes the data" inside test -e /var/lib/facelatch
    refuse "purge takes the configuration" inside test -e /etc/facelatch/facelatch.toml
    refuse "purge leaves no unit enabled" check_enabled
    expect "installs again, from nothing" apt_inside install /mnt/facelatch.deb

    printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$1" "$(megabytes "$deb")" \
        "$(dpkg-deb -f "$deb" Installed-Size | awk '{ printf "%.1f", $1 * 1.024 / 1000 }')" \
        "$ready_s" "$loaded_mb" "$searched_mb" "$search_s" >>"$PACKAGES/report.rows"
}
megabytes() { awk -v bytes="$(stat -c %s "$1")" 'BEGIN { printf "%.1f", bytes / 1e6 }'; }
people_first() { # the first person with two pictures
    [ -d "$PICTURES" ] || return 0
    local folder
    for folder in "$PICTURES"/*/; do
        [ "$(find -L "$folder" -name '*.jp*g' | wc -l)" -lt 2 ] || { echo "$folder"; return; }
    done
}

: >"$PACKAGES/report.rows"
echo "packages"
lint_system
for deb in "$PACKAGES"/*.deb; do lint "$deb"; done
for name in $SYSTEMS; do system "$name"; done

{
    printf '# Packages, installed\n\nMeasured by `./dev package-test`, %s. The daemon runs as installed, with the models built in,\n' "$(date -u +%F)"
    printf 'no camera and no broker. Systems for arm64 run under emulation (qemu %s, %s): times are no board'"'"'s, and\n' \
        "$(qemu-aarch64-static --version 2>/dev/null | sed -n '1s/.*version \([0-9.]*\).*/\1/p')" "$QEMU_CPU"
    printf 'resident memory includes the emulator with the code it has translated.\n\n'
    printf '| system | package MB | installed MB | start to /ready s | resident MB, loaded | after %s searches | s a search |\n' "$SEARCHES"
    printf '|---|---|---|---|---|---|---|\n'
    cat "$PACKAGES/report.rows"
} >"$PACKAGES/report.md"
rm -f "$PACKAGES/report.rows"
cat "$PACKAGES/report.md"
[ $failures = 0 ] || { echo "$failures FAILED"; exit 1; }
echo "all passed"
