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
    vm_qemu x86_64 x86 "${as_root[@]}"
}

# vm_qemu PROGRAM PACKAGE [sudo]: the emulator qemu-system-PROGRAM out of the package qemu-system-PACKAGE.
vm_qemu() {
    local program=qemu-system-$1 package=qemu-system-$2
    shift 2
    command -v "$program" >/dev/null && return
    say "installing $package"
    # A machine that already has qemu parts from the backports needs the rest from there too.
    local suite=("$package")
    case $(dpkg-query -W -f '${Version}' qemu-utils qemu-system-common 2>/dev/null) in
    *bpo12*) suite=({$package,qemu-system-common,qemu-system-data,seabios}/bookworm-backports) ;;
    esac
    vm_install_qemu "$@" -- "${suite[@]}"
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

# vm_runnable PROGRAM: a program of Debian 13 that needs a newer libc than the host's runs with
# Debian 13's own. The wrapper is written anew each time: a copied cache lies at another path.
vm_runnable() {
    if [ ! -e "$1.real" ]; then
        "$1" --help >"$VM/runnable.log" 2>&1 || true
        grep -q 'GLIBC_.*not found' "$VM/runnable.log" || return 0
        mv "$1" "$1.real"
    fi
    local libraries=$VM/libc/usr/lib/x86_64-linux-gnu
    if [ ! -e "$libraries/libc.so.6" ]; then
        vm_lists
        mkdir -p "$VM/libc-debs" "$VM/libc"
        (cd "$VM/libc-debs" && apt_vm apt-get -qq download libc6 libelf1t64 zlib1g libzstd1) ||
            die "Debian 13's libc cannot be downloaded"
        local deb
        for deb in "$VM"/libc-debs/*.deb; do dpkg -x "$deb" "$VM/libc"; done
    fi
    printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' \
        "$libraries/ld-linux-x86-64.so.2" "$libraries" "$1.real" >"$1"
    chmod +x "$1"
}

# vm_build DIR: builds the modules in DIR against the kernel's headers.
vm_build() { vm_make "$1" tools/objtool/objtool.real-x86 CC=gcc CROSS_COMPILE=; }

# vm_make DIR TOOL ASSIGNMENT...: builds them with these variables of make; TOOL, which may be empty,
# is one more program of the kernel's that the build runs.
vm_make() {
    local dir=$1 tool=$2 headers=$ROOT/usr/src/linux-headers-$KERNEL tools program
    shift 2
    # The packages name their files by where they would be installed.
    sed -i "s,^include .*/usr/src/,include $ROOT/usr/src/," "$headers/Makefile"
    tools=$(dirname "$(readlink -f "$headers/scripts")")
    for program in $tool scripts/mod/modpost.real-lsb-64 scripts/basic/fixdep; do
        vm_runnable "$tools/$program"
    done
    # Debian 13's compiler knows flags that Debian 12's does not; they concern live patching and
    # what a debugger reads.
    make -C "$headers" M="$dir" "$@" \
        CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT= CONFIG_DEBUG_INFO_BTF_MODULES= modules \
        >"$dir.log" 2>&1 || die "$(basename "$dir") does not build, see $dir.log"
}

# vm_v4l2loopback: builds the module, which Debian ships as source only; sets LOOPBACK.
vm_v4l2loopback() {
    LOOPBACK=$VM/v4l2loopback/v4l2loopback.ko
    [ -e "$LOOPBACK" ] && [ "$LOOPBACK" -nt "$ROOT/version" ] && return
    say "building v4l2loopback for $KERNEL"
    rm -rf "$VM/v4l2loopback"
    cp -r "$ROOT"/usr/src/v4l2loopback-* "$VM/v4l2loopback"
    vm_build "$VM/v4l2loopback"
}

# vm_gpio_sim: builds the simulated GPIO chip, which Debian's kernel leaves out, from the kernel's
# own source; sets GPIO_SIM to its two modules.
vm_gpio_sim() {
    local dir=$VM/gpio-sim
    GPIO_SIM="$dir/irq_sim.ko $dir/gpio-sim.ko"
    [ -e "$dir/gpio-sim.ko" ] && [ "$dir/gpio-sim.ko" -nt "$ROOT/version" ] && return
    say "building gpio-sim for $KERNEL"
    rm -rf "$dir"; mkdir -p "$dir"
    local source=linux-source-${KERNEL%.*}
    vm_lists
    (cd "$VM/debs" && apt_vm apt-get -qq download "$source") || die "$source cannot be downloaded"
    # tar ends as soon as it has both files, which the programs before it take for an error.
    { dpkg-deb --fsys-tarfile "$VM/debs/$source"_*.deb | tar -xO "./usr/src/$source.tar.xz" |
        tar -xJ -C "$dir" --strip-components=3 --occurrence=1 \
            "$source/drivers/gpio/gpio-sim.c" "$source/kernel/irq/irq_sim.c"; } 2>"$VM/gpio-sim.log" || true
    rm -f "$VM/debs/$source"_*.deb
    [ -s "$dir/gpio-sim.c" ] && [ -s "$dir/irq_sim.c" ] || die "$source lacks gpio-sim.c or irq_sim.c"
    # A module may not name the table of interrupts; this call looks the number up by itself.
    sed -i 's/handle_simple_irq(irq_to_desc(irqnum))/generic_handle_irq(irqnum)/' "$dir/irq_sim.c"
    sed -i '$a MODULE_LICENSE("GPL");' "$dir/irq_sim.c"
    echo 'obj-m := irq_sim.o gpio-sim.o' >"$dir/Makefile"
    vm_build "$dir"
}

# vm_libraries DIR PROGRAM...: copies the shared libraries of the programs into an initial file system.
vm_libraries() {
    local into=$1 program library
    shift
    for program in "$@"; do
        ldd "$program" | grep -o '/[^ ]*\.so[^ ]*' | while read -r library; do
            case $library in
            */ld-linux*) cp -L "$library" "$into/lib64/" ;;
            *) cp -L "$library" "$into/lib/" ;;
            esac
        done
    done
}

# vm_modules DIR MODULE...: the modules with what they need, and their order in DIR/mods/order.
vm_modules() {
    local into=$1 module file name
    shift
    : >"$into/mods/order"
    for module in "$@"; do
        PATH=$PATH:/sbin modprobe -d "$ROOT/usr" -S "$KERNEL" --show-depends "$module" |
            sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r file; do
            name=$(basename "$file" .xz)
            [ -e "$into/mods/$name" ] || xz -dc "$file" >"$into/mods/$name"
            echo "$name $module" >>"$into/mods/order"
        done
    done
}

# vm_guest DIR: the skeleton of an initial file system.
vm_guest() {
    mkdir -p "$1"/{bin,dev,etc,lib,lib64,mods,proc,run,sys,tmp}
    cp /bin/busybox "$1/bin/"
    cp tests/vm/guest.sh "$1/guest.sh"
    # The program's name for a user is asked for by more than one daemon.
    echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
    echo 'root:x:0:' >"$1/etc/group"
}

# vm_program DIR PROGRAM [NAME]: a program with its shared libraries, without debug information.
vm_program() {
    local into=$1/bin/${3:-$(basename "$2")}
    cp -L "$2" "$into"
    strip "$into"
    vm_libraries "$1" "$2"
}

# vm_pack DIR FILE: the initial file system as one file.
vm_pack() { (cd "$1" && find . | cpio -o -H newc --quiet | gzip -1) >"$2"; }

# vm_cast PACK SCENES WORK: the pictures of a play, in folders that a camera is fed from. SCENES/person
# is the first person whose frames all are found under WORK/person.jpg, live too unless the pack is the
# embedded one, with which liveness is off here; SCENES/stranger is the first one who is not found; nobody and frozen have one still picture.
# The caller has set FACELATCH, EXAMPLES, MODELS, RUNTIME and PICTURES. Fails without suitable people.
PEOPLE_TRIED_MAX=60
FRAMES=8
vm_cast() {
    local pack=$1 scenes=$2 work=$3 folder tried=0
    mkdir -p "$scenes" "$work/store"
    # An empty room is one still picture: looking at it again and again costs most of the time of a run.
    "$EXAMPLES/camera_walk" 640x480 1 "$scenes/nobody"
    [ -d "$PICTURES" ] || return 1
    vm_here collection create staff >/dev/null
    while read -r folder; do
        [ $tried -lt $PEOPLE_TRIED_MAX ] || break
        [ -n "$(vm_picture "$folder" 2)" ] || continue
        tried=$((tried + 1))
        rm -rf "$work/frames"
        "$EXAMPLES/camera_walk" 640x480 "$FRAMES" "$work/frames" "$(vm_picture "$folder" 2)"
        if [ ! -e "$work/person.jpg" ]; then
            vm_here person enrol --collection staff --id one "$(vm_picture "$folder" 1)" >/dev/null || continue
            if [ "$(vm_searched | grep -c '^0\.[89]\|^1\.')" = "$FRAMES" ]; then
                cp "$(vm_picture "$folder" 1)" "$work/person.jpg"
                cp -r "$work/frames" "$scenes/person"
            else
                vm_here person delete --collection staff --id one >/dev/null
            fi
        elif [ "$(vm_searched | grep -c '^nobody')" = "$FRAMES" ]; then
            cp -r "$work/frames" "$scenes/stranger"
            mkdir "$scenes/frozen"
            cp "$scenes/person/001.jpg" "$scenes/frozen/"
            return 0
        fi
    done < <(find -L "$PICTURES" -mindepth 1 -maxdepth 1 -type d | sort)
    rm -rf "$scenes/person" "$work/person.jpg"
    return 1
}
# The rest are parts of vm_cast, whose variables they read: facelatch on this machine, the picture of
# that number, and score and person of every frame, liveness included unless the pack is the embedded one.
vm_here() {
    FACELATCH_LOG__LEVEL=error FACELATCH_STORE__DIR=$work/store FACELATCH_MODELS__DIR=$MODELS \
        FACELATCH_MODELS__PACK=$pack FACELATCH_MODELS__RUNTIME=$RUNTIME "$FACELATCH" "$@" 2>>"$work/here.log"
}
vm_picture() { find -L "$1" -maxdepth 1 -name '*.jp*g' | sort | sed -n "$2p"; }
vm_searched() {
    local live=()
    [ "$pack" = builtin ] || live=(--liveness)
    vm_here search --collection staff "${live[@]}" "$work"/frames/*.jpg | sed 's/^[^ ]*: //' || true
}

# vm_free_port: a TCP port that nobody listens at.
vm_free_port() {
    local port
    while port=$((20000 + RANDOM % 30000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# vm_summary STARTED LOG...: the checks in the logs, counted; fails when one failed or there is none.
vm_summary() {
    local started=$1 passed failed
    shift
    grep -hE '^(##|CHECK|SKIPPED)' "$@" | tr -d '\r' || true
    passed=$(cat "$@" | grep -c '^CHECK .* ok' || true)
    failed=$(cat "$@" | grep -c '^CHECK .* FAIL' || true)
    say "$passed passed, $failed failed in $(($(date +%s) - started)) s; console: $1"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

# vm_arm64: unpacks a kernel for ARM with its device trees, busybox and the C library, all into
# ROOT; sets KERNEL and ROOT as vm_kernel does.
vm_arm64() {
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    vm_qemu aarch64 arm "${as_root[@]}"
    ROOT=$VM/arm64
    if [ ! -e "$ROOT/version" ]; then
        vm_lists
        local lists=$VM/apt/lists-arm64 image deb
        local arm=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$lists")
        mkdir -p "$lists/partial" "$VM/debs-arm64"
        apt_vm apt-get "${arm[@]}" -qq update || die "no package lists for arm64 from $MIRROR"
        image=$(apt_vm apt-cache "${arm[@]}" depends linux-image-arm64 |
            sed -n 's/.*Depends: \(linux-image-6\.12[^ ]*\).*/\1/p' | head -n 1)
        [ -n "$image" ] || die "no linux-image-6.12 for arm64 in the lists of Debian 13"
        say "kernel ${image#linux-image-}"
        (cd "$VM/debs-arm64" && apt_vm apt-get "${arm[@]}" -qq download "$image" busybox-static libc6 libgcc-s1) ||
            die "the packages for arm64 cannot be downloaded"
        rm -rf "$ROOT"; mkdir -p "$ROOT"
        for deb in "$VM"/debs-arm64/*.deb; do dpkg -x "$deb" "$ROOT"; done
        PATH=$PATH:/sbin depmod -b "$ROOT/usr" "${image#linux-image-}"
        echo "${image#linux-image-}" >"$ROOT/version"
    fi
    KERNEL=$(cat "$ROOT/version")
}

# vm_cross_tools: programs for ARM run here (user emulation), and a compiler for ARM; root once.
vm_cross_tools() {
    local as_root=() rule=/proc/sys/fs/binfmt_misc
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    local missing=()
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
    command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        # See vm_qemu: parts of QEMU from the backports want all of it from there.
        case $(dpkg-query -W -f '${Version}' qemu-utils qemu-system-common 2>/dev/null) in
        *bpo12*) missing=("${missing[@]/qemu-user-static/qemu-user-static/bookworm-backports}") ;;
        esac
        vm_install_qemu "${as_root[@]}" -- "${missing[@]}"
    fi
    # Without systemd nobody registers what the package brings.
    [ -e "$rule/register" ] || "${as_root[@]}" mount -t binfmt_misc binfmt_misc "$rule"
    [ -e "$rule/qemu-aarch64" ] ||
        "${as_root[@]}" sh -c "cat /usr/lib/binfmt.d/qemu-aarch64*.conf | grep ':qemu-aarch64:' >$rule/register"
}

# vm_arm64_loopback: builds v4l2loopback for vm_arm64's kernel: the headers for ARM beside the build
# programs for this machine; sets LOOPBACK.
vm_arm64_loopback() {
    LOOPBACK=$VM/v4l2loopback-arm64/v4l2loopback.ko
    [ -e "$LOOPBACK" ] && [ "$LOOPBACK" -nt "$ROOT/version" ] && return
    local deb debs=$VM/debs-arm64-build version=${KERNEL%-arm64}
    local arm=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::lists=$VM/apt/lists-arm64")
    if [ ! -e "$ROOT/usr/src/linux-headers-$KERNEL/Makefile" ]; then
        vm_lists
        mkdir -p "$debs"
        (cd "$debs" && apt_vm apt-get "${arm[@]}" -qq download "linux-headers-$KERNEL" "linux-headers-$version-common" v4l2loopback-dkms &&
            apt_vm apt-get -qq download "linux-kbuild-$version:amd64") || die "the kernel's headers for arm64 cannot be downloaded"
        for deb in "$debs"/*.deb; do dpkg -x "$deb" "$ROOT"; done
    fi
    say "building v4l2loopback for $KERNEL"
    rm -rf "$VM/v4l2loopback-arm64"
    cp -r "$ROOT"/usr/src/v4l2loopback-* "$VM/v4l2loopback-arm64"
    vm_make "$VM/v4l2loopback-arm64" "" ARCH=arm64 CC=aarch64-linux-gnu-gcc CROSS_COMPILE=aarch64-linux-gnu-
}
