# Shared by the tests that run in a virtual machine: host tools, a Debian 13 kernel, v4l2loopback.
#
# Everything is cached below target/vm; a second run downloads nothing. The package lists of
# Debian 13 live in target/vm too, so the system's own sources are not changed. Plain emulation:
# no KVM, no network in the guest.
#
# Sourced by bash with `set -euo pipefail`, from the project's root.

VM=$PWD/target/vm
MIRROR=${MIRROR:-$( (cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true) |
    sed -n 's,^\(URIs:\|deb\) *\(http[^ ]*/debian\)/\?\( .*\)\?$,\2,p' | sed -n 1p)}
[ -n "$MIRROR" ] || { echo "error: no Debian mirror in the sources of apt; set MIRROR=URL" >&2; exit 1; }

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# apt_vm COMMAND...: apt with the lists of Debian 13 and of Debian 12's backports.
apt_vm() {
    local tool=$1; shift
    "$tool" -o Dir::Etc::sourcelist="$VM/apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$VM/apt/lists" -o Dir::Cache="$VM/apt" -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root "$@"
}

vm_lists() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$VM/apt/lists/done" ] && return
    say "package lists of Debian 13 from $MIRROR"
    mkdir -p "$VM/apt/lists/partial" "$VM/apt/archives/partial"
    printf 'deb [signed-by=%s] %s %s main\n' "$key" "$MIRROR" trixie \
        "$key" "$MIRROR-security" trixie-security "$key" "$MIRROR" bookworm-backports \
        >"$VM/apt/sources.list"
    apt_vm apt-get -qq update || die "no package lists from $MIRROR; set MIRROR=URL"
    touch "$VM/apt/lists/done"
}

# vm_host_tools: qemu, kmod, cpio, busybox, a compiler; installs what is missing (needs root).
vm_host_tools() {
    local missing=() as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    command -v modprobe >/dev/null || [ -x /sbin/modprobe ] || missing+=(kmod)
    command -v cpio >/dev/null || missing+=(cpio)
    [ -x /bin/busybox ] || missing+=(busybox-static)
    command -v xz >/dev/null || missing+=(xz-utils)
    command -v make >/dev/null || missing+=(make)
    command -v gcc >/dev/null || missing+=(gcc)
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "${missing[@]}" >"$VM/apt-install.log" 2>&1 ||
            die "apt-get install ${missing[*]} failed, see $VM/apt-install.log"
    fi
    command -v qemu-system-x86_64 >/dev/null && return
    say "installing qemu-system-x86"
    # A machine that already has qemu parts from the backports needs the rest from there too.
    local suite=()
    case $(dpkg-query -W -f '${Version}' qemu-utils qemu-system-common 2>/dev/null) in
    *bpo12*) suite=({qemu-system-x86,qemu-system-common,qemu-system-data,seabios}/bookworm-backports) ;;
    *) suite=(qemu-system-x86) ;;
    esac
    vm_install_qemu "${as_root[@]}" -- "${suite[@]}"
}

# vm_install_qemu [sudo] -- PACKAGES: the system's own lists plus the backports, if needed.
vm_install_qemu() {
    local as_root=()
    while [ "$1" != -- ]; do as_root+=("$1"); shift; done
    shift
    local lists=$VM/apt-system
    mkdir -p "$lists/lists/partial" "$lists/parts"
    cp -f /etc/apt/sources.list.d/debian.sources "$lists/parts/" 2>/dev/null || true
    [ -e /etc/apt/sources.list ] && cp -f /etc/apt/sources.list "$lists/parts/system.list"
    case $* in
    *bookworm-backports*)
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
            "$MIRROR" bookworm-backports >"$lists/parts/backports.list" ;;
    esac
    local options=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$lists/parts"
        -o Dir::State::lists="$lists/lists" -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root)
    "${as_root[@]}" apt-get "${options[@]}" -qq update &&
        "${as_root[@]}" apt-get "${options[@]}" install -y -qq --no-install-recommends "$@" \
            >"$VM/apt-install.log" 2>&1 || die "installing $* failed, see $VM/apt-install.log"
}

# vm_kernel: unpacks the kernel, its headers and v4l2loopback's source; sets KERNEL and ROOT.
vm_kernel() {
    ROOT=$VM/kernel
    if [ ! -e "$ROOT/version" ]; then
        vm_lists
        local image
        image=$(apt_vm apt-cache depends linux-image-amd64 |
            sed -n 's/.*Depends: \(linux-image-6\.12[^ ]*\).*/\1/p' | head -n 1)
        [ -n "$image" ] || die "no linux-image-6.12 in the lists of Debian 13"
        local version=${image#linux-image-}
        say "kernel $version"
        local packages=("$image" "linux-headers-$version"
            "linux-headers-${version%-amd64}-common" "linux-kbuild-${version%-amd64}"
            v4l2loopback-dkms)
        mkdir -p "$VM/debs"
        (cd "$VM/debs" && apt_vm apt-get -qq download "${packages[@]}") ||
            die "the packages ${packages[*]} cannot be downloaded"
        rm -rf "$ROOT"; mkdir -p "$ROOT"
        local deb
        for deb in "$VM"/debs/*.deb; do dpkg -x "$deb" "$ROOT"; done
        PATH=$PATH:/sbin depmod -b "$ROOT/usr" "$version" 2>/dev/null ||
            PATH=$PATH:/sbin depmod -b "$ROOT" "$version"
        echo "$version" >"$ROOT/version"
    fi
    KERNEL=$(cat "$ROOT/version")
}
