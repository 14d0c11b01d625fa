#!/bin/bash
# Runs build.sh in a chroot of Debian 12 below target/cross, made at the first run by debootstrap and
# setup.sh: chroot.sh amd64|arm64... Needs root or sudo for chroot and mounts, and 4 GB of disk. What
# was interrupted goes on where it stopped. The environment variables are those of build.sh.
#
#   MIRROR=URL       another Debian mirror than the one in the sources of apt
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
WORK=$PWD/target/cross
ROOT=$WORK/root

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo --preserve-env)
export PATH="$PATH:/usr/sbin:/sbin"

[ "$(uname -m)" = x86_64 ] || die "the build system is for x86_64; on another machine: cargo build --release, for itself"
mirror=${MIRROR:-$( (cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true) |
    sed -n 's,^\(URIs:\|deb\) *\(\[[^]]*\] *\)\?\(http[^ ]*/debian\)/\?\( .*\)\?$,\3,p' | sed -n 1p)}
[ -n "$mirror" ] || die "no Debian mirror in the sources of apt; set MIRROR=URL, or use cross/Containerfile"
mkdir -p "$WORK/cargo/registry"
models=${MODELS:+$(realpath -e -- "$MODELS")}

# in_root COMMAND...: in the chroot, with the source tree at /src. The mounts live in a name space of
# their own, so that nothing stays mounted however the command ends; it dies with the caller. What
# cargo has downloaded for this user is used and added to.
in_root() {
    local registry=${CARGO_HOME:-$HOME/.cargo}/registry
    [ -d "$registry" ] || registry=$WORK/cargo/registry
    # shellcheck disable=SC2016
    "${as_root[@]}" unshare --mount --propagation private -- /bin/sh -c '
        root=$1 source=$2 registry=$3 models=$4; shift 4
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mkdir -p "$root/src" "$root/cargo/registry"
        mount --bind "$source" "$root/src"
        mount --bind "$registry" "$root/cargo/registry"
        [ -z "$models" ] || { mkdir -p "$root/models" && mount --bind "$models" "$root/models"; }
        exec setpriv --pdeathsig KILL chroot "$root" env -u RUSTFLAGS -u CARGO_TARGET_DIR HOME=/root \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 CARGO_HOME=/cargo "$@"' \
        sh "$ROOT" "$PWD" "$registry" "$models" "$@"
}

# The ways of this machine to the network hold in the chroot too: names, certificate authorities.
network() {
    local file
    for file in /etc/resolv.conf /etc/hosts; do
        [ ! -e "$file" ] || "${as_root[@]}" cp -L "$file" "$ROOT$file"
    done
    environment=()
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] && return
    "${as_root[@]}" mkdir -p "$ROOT/etc/ssl/certs"
    "${as_root[@]}" cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/host.crt"
    environment=(CARGO_HTTP_CAINFO=/etc/ssl/certs/host.crt)
}

if [ ! -e "$ROOT/bootstrapped" ]; then
    say "Debian 12 from $mirror into target/cross/root"
    "${as_root[@]}" rm -rf "$ROOT"
    "${as_root[@]}" debootstrap --variant=minbase bookworm "$ROOT" "$mirror" >"$WORK/debootstrap.log" 2>&1 ||
        die "debootstrap failed, see target/cross/debootstrap.log"
    # The compiler comes with the security updates.
    printf 'deb %s bookworm main\ndeb %s-security bookworm-security main\n' "$mirror" "$mirror" |
        "${as_root[@]}" tee "$ROOT/etc/apt/sources.list" >/dev/null
    "${as_root[@]}" touch "$ROOT/bootstrapped"
fi
network
in_root env "${environment[@]}" TOOLS_TARGET=/src/target/cross/tools STAGE="${STAGE:-}" bash /src/cross/setup.sh
in_root env "${environment[@]}" MODELS="${models:+/models}" MODELS_MAY_LACK="${MODELS_MAY_LACK:-}" STAGE="${STAGE:-}" \
    bash /src/cross/build.sh "$@"
[ ${#as_root[@]} = 0 ] || "${as_root[@]}" chown -R "$(id -u):$(id -g)" target/package
