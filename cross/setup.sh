#!/bin/bash
# Makes a build system of a bare Debian 12 (amd64): run as root inside of it, once. `chroot.sh` does
# so in a chroot, `Containerfile` in an image; what comes out is the same.
#
# Both targets are built alike, with Debian's rustc-web and one GCC each. What decides how old a
# system the binaries run on is the C library they are linked against (its symbol versions), so that
# comes from Debian 11, as a sysroot: glibc 2.31, the one of JetPack 5. The compilers are newer and
# leave no trace in the binaries; build.sh checks that.
set -euo pipefail

# cargo-deb makes the packages, cargo-cyclonedx the bill of materials. Their own Cargo.lock pins the rest.
CARGO_DEB=3.8.0
CARGO_CYCLONEDX=0.5.9

SYSROOTS=/usr/local/lib/facelatch-cross
LISTS=/var/cache/facelatch-cross

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ "$(dpkg --print-architecture)" = amd64 ] || die "this recipe is for a build system of the architecture amd64"
grep -q '^VERSION_CODENAME=bookworm' /etc/os-release || die "this recipe is for Debian 12 (bookworm)"
export DEBIAN_FRONTEND=noninteractive
# apt's own user cannot write where a chroot has no accounts of its own.
apt=(apt-get -qq -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root -o APT::Install-Recommends=false)

if [ ! -e "$SYSROOTS/packages" ]; then
    say "compilers for arm64 and amd64"
    dpkg --add-architecture arm64
    "${apt[@]}" update
    # Neither libc6-dev for arm64 nor its cross package: the linker would find them before the sysroot.
    "${apt[@]}" install -y ca-certificates rustc-web cargo-web libstd-rust-web-dev libstd-rust-web-dev:arm64 \
        gcc libc6-dev gcc-aarch64-linux-gnu libclang-dev binutils python3 xz-utils dpkg-dev >/dev/null
    [ ! -e /usr/aarch64-linux-gnu/lib/libc.so ] || die "libc6-dev-arm64-cross must not be installed"
    mkdir -p "$SYSROOTS"
    touch "$SYSROOTS/packages"
fi

# The mirror that this system was made from; the archive of old releases once Debian 11 has moved there.
mirror=${OLD_MIRROR:-$( (cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true) |
    sed -n 's,^\(URIs:\|deb\) *\(\[[^]]*\] *\)\?\(http[^ ]*/debian\)/\?\( .*\)\?$,\3,p' | sed -n 1p)}
[ -n "$mirror" ] || die "no Debian mirror in the sources of apt; set OLD_MIRROR=URL"

# sysroot ARCH TRIPLE: Debian 11's C library and headers for ARCH, and a compiler that uses them.
sysroot() {
    local arch=$1 triple=$2 root=$SYSROOTS/$1 debs link to
    if [ ! -e "$root/complete" ]; then
        say "the C library of Debian 11 for $arch"
        rm -rf "$root" && mkdir -p "$root" "$LISTS/$arch/lists/partial" "$LISTS/$arch/debs"
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s bullseye main\n' "$mirror" \
            >"$LISTS/$arch/sources.list"
        local old=("${apt[@]}" -o APT::Architecture="$arch" -o APT::Architectures="$arch"
            -o Dir::Etc::sourcelist="$LISTS/$arch/sources.list" -o Dir::Etc::sourceparts=-
            -o Dir::State::lists="$LISTS/$arch/lists" -o Dir::Cache="$LISTS/$arch" -o Dir::State::status=/dev/null)
        "${old[@]}" update || die "no package lists of Debian 11 from $mirror; set OLD_MIRROR=URL"
        (cd "$LISTS/$arch/debs" && "${old[@]}" download libc6 libc6-dev libcrypt1 linux-libc-dev libgcc-s1)
        debs=("$LISTS/$arch/debs"/*.deb)
        for deb in "${debs[@]}"; do dpkg-deb -x "$deb" "$root"; done
        # Debian's links between /usr/lib and /lib are absolute and would leave the sysroot.
        find "$root" -type l | while read -r link; do
            to=$(readlink "$link")
            case $to in /*) ln -sfnr "$root$to" "$link" ;; esac
        done
        touch "$root/complete"
    fi
    # The sysroot's start files and libraries go first: GCC also looks in places that belong to the build system.
    cat >"/usr/local/bin/$triple-facelatch-cc" <<SH
#!/bin/sh
exec $triple-gcc --sysroot=$root -B$root/usr/lib/$triple/ -L$root/usr/lib/$triple -L$root/lib/$triple "\$@"
SH
    chmod 755 "/usr/local/bin/$triple-facelatch-cc"
}
sysroot arm64 aarch64-linux-gnu
sysroot amd64 x86_64-linux-gnu

# To see whether it builds, no packages are made.
[ "${STAGE:-}" != check ] || exit 0

# tool CRATE VERSION: without optimisation, since building it takes longer than all that it does.
tool() {
    [ "$(cat "$SYSROOTS/$1.version" 2>/dev/null)" = "$2" ] && return
    say "$1 $2"
    CARGO_TARGET_DIR=${TOOLS_TARGET:-/tmp/tools} CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \
        cargo install --quiet --locked --debug --root /usr/local "$1@$2"
    echo "$2" >"$SYSROOTS/$1.version"
}
tool cargo-deb "$CARGO_DEB"
tool cargo-cyclonedx "$CARGO_CYCLONEDX"
say "the build system is complete"
