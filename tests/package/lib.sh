# Small Debian systems to install packages into: made once by debootstrap, copied for every test.
#
# Sourced by bash with `set -euo pipefail`, from the project's root. Needs root or sudo for chroot and
# mounts. Systems for arm64 run under qemu's user emulation as a Cortex-A72, the core of a Raspberry
# Pi 4: qemu's default, the greatest processor that it knows, takes ten times longer for inference.

PKG=$PWD/target/package-test
export QEMU_CPU=${QEMU_CPU:-cortex-a72}
MIRROR=${MIRROR:-$( (cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true) |
    sed -n 's,^\(URIs:\|deb\) *\(\[[^]]*\] *\)\?\(http[^ ]*/debian\)/\?\( .*\)\?$,\3,p' | sed -n 1p)}
[ -n "$MIRROR" ] || { echo "error: no Debian mirror in the sources of apt; set MIRROR=URL" >&2; exit 1; }

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo --preserve-env)
export PATH="$PATH:/usr/sbin:/sbin"
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# host_tool PROGRAM PACKAGE: installs what is missing.
host_tool() {
    command -v "$1" >/dev/null && return
    say "installing $2"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$2" </dev/null >"$PKG/apt-install.log" 2>&1 ||
        die "apt-get install $2 failed, see target/package-test/apt-install.log"
}

# emulation: programs for arm64 run on this machine. qemu comes from the backports, without being
# installed: Debian 12's own 7.2 fails on some of what newer programs do.
emulation() {
    [ "$(uname -m)" = aarch64 ] && return
    local table=/proc/sys/fs/binfmt_misc qemu=$PKG/qemu/usr/bin/qemu-aarch64-static
    [ -e "$table/register" ] || "${as_root[@]}" mount -t binfmt_misc binfmt_misc "$table" ||
        die "binfmt_misc cannot be mounted: no programs for arm64 here"
    grep -qs '^enabled' "$table/qemu-aarch64" && return
    if [ ! -x "$qemu" ]; then
        say "qemu-user-static from the backports"
        local lists=$PKG/qemu-lists
        mkdir -p "$lists/lists/partial" "$lists/debs"
        printf 'deb [signed-by=%s] %s bookworm-backports main\n' "$KEYRING" "$MIRROR" >"$lists/sources.list"
        local apt=(apt-get -qq -o Dir::Etc::sourcelist="$lists/sources.list" -o Dir::Etc::sourceparts=-
            -o Dir::State::lists="$lists/lists" -o Dir::Cache="$lists" -o APT::Sandbox::User=root)
        "${apt[@]}" update && (cd "$lists/debs" && "${apt[@]}" download qemu-user-static) ||
            die "qemu-user-static cannot be downloaded from the backports"
        mkdir -p "$PKG/qemu" && dpkg -x "$lists"/debs/qemu-user-static_*.deb "$PKG/qemu"
    fi
    # F: the kernel opens the emulator now, so that it works in a chroot. It stays until the next start of this machine.
    printf '%s' ":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$qemu:OF" |
        "${as_root[@]}" tee "$table/register" >/dev/null || die "binfmt_misc takes no emulator for arm64"
}

# base ARCH SUITE: a minimal system in target/package-test/ARCH-SUITE.base.
base() {
    local base=$PKG/$1-$2.base
    [ -e "$base/complete" ] && return
    say "Debian $2 for $1 from $MIRROR"
    "${as_root[@]}" rm -rf "$base"
    "${as_root[@]}" debootstrap --arch="$1" --variant=minbase "$2" "$base" "$MIRROR" >"$PKG/$1-$2.debootstrap.log" 2>&1 ||
        die "debootstrap failed, see target/package-test/$1-$2.debootstrap.log"
    # Nothing is started in a chroot.
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$base/usr/sbin/policy-rc.d" >/dev/null
    "${as_root[@]}" chmod 755 "$base/usr/sbin/policy-rc.d"
    "${as_root[@]}" touch "$base/complete"
}

# fresh ARCH SUITE: sets ROOT to a new copy of the base.
fresh() {
    ROOT=$PKG/$1-$2
    "${as_root[@]}" rm -rf "$ROOT"
    "${as_root[@]}" cp -a "$PKG/$1-$2.base" "$ROOT"
    "${as_root[@]}" cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
}

# inside COMMAND...: in the system at ROOT. Mounts live in a name space of their own; what the caller
# has put into target/package-test/share is at /mnt, the machine's network is shared.
inside() {
    # shellcheck disable=SC2016
    "${as_root[@]}" unshare --mount --propagation private -- /bin/sh -c '
        root=$1 share=$2; shift 2
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind "$share" "$root/mnt"
        exec setpriv --pdeathsig KILL chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive QEMU_CPU="$QEMU_CPU" "$@"' \
        sh "$ROOT" "$PKG/share" "$@"
}

apt_inside() { inside apt-get -y -qq -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root -o APT::Install-Recommends=false "$@"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
