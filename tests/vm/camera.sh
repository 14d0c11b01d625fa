#!/bin/bash
# Cameras of a real kernel without a camera: boots a Debian 13 kernel in QEMU (plain emulation),
# with the virtual camera `vivid` and a `v4l2loopback` device, and runs `facelatch camera` in it.
#
#   tests/vm/camera.sh                       builds and tests target/debug/facelatch
#   FACELATCH=path/to/facelatch tests/vm/camera.sh
#   PICTURES=folder tests/vm/camera.sh       feeds the first .jpg files of the folder to the
#                                            loopback instead of snapshots of vivid
#
# Checks: enumeration, negotiation, snapshots, the format that comes back instead of the one that
# was asked for, MJPEG byte for byte, a device in use, unplug and replug while streaming.
# Downloads about 130 MB into target/vm at the first run, from the Debian mirror that the system
# uses (or MIRROR=URL); installs qemu-system-x86, kmod, cpio and busybox-static when missing, which
# needs root. Leaves the console in target/vm/camera.log and the pictures in target/vm/camera/.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/vm/lib.sh

TIMEOUT_S=${TIMEOUT_S:-400}
PICTURES_MAX=4

mkdir -p "$VM"
if [ -z "${FACELATCH:-}" ]; then
    say "building target/debug/facelatch"
    cargo build --locked --bin facelatch
    FACELATCH=target/debug/facelatch
fi
[ -x "$FACELATCH" ] || die "$FACELATCH is no program"
cargo build --locked --quiet --example camera_feed
vm_host_tools
vm_kernel
vm_v4l2loopback

say "initial file system"
guest=$(mktemp -d)
trap 'rm -rf "$guest"' EXIT
mkdir -p "$guest"/{bin,dev,proc,sys,lib,lib64,mods,tmp}
cp /bin/busybox "$guest/bin/"
cp "$FACELATCH" "$guest/bin/facelatch"
cp target/debug/examples/camera_feed "$guest/bin/camera_feed"
strip "$guest/bin/facelatch" "$guest/bin/camera_feed"
vm_libraries "$guest" "$guest/bin/facelatch" "$guest/bin/camera_feed"
vm_modules "$guest" vivid videodev
cp "$LOOPBACK" "$guest/mods/"
strip --strip-debug "$guest/mods/v4l2loopback.ko"
if [ -n "${PICTURES:-}" ]; then
    mkdir "$guest/pictures"
    number=0
    while read -r picture && [ $number -lt $PICTURES_MAX ]; do
        number=$((number + 1))
        cp "$picture" "$guest/pictures/$number.jpg"
    done < <(find -L "$PICTURES" -name '*.jpg' -size -1000k | sort)
    [ $number -gt 0 ] || die "no .jpg file in $PICTURES"
fi
cp tests/vm/camera-init.sh "$guest/init"
chmod +x "$guest/init"
(cd "$guest" && find . | cpio -o -H newc --quiet | gzip -1) >"$VM/camera.cpio.gz"

say "booting (at most $TIMEOUT_S s)"
started=$(date +%s)
rm -rf "$VM/camera" "$VM/camera.out"
mkdir -p "$VM/camera"
timeout "$TIMEOUT_S" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 \
    -display none -no-reboot -nic none -serial "file:$VM/camera.log" -serial "file:$VM/camera.out" \
    -kernel "$VM/kernel/boot/vmlinuz-$KERNEL" -initrd "$VM/camera.cpio.gz" \
    -append "console=ttyS0 quiet panic=-1" || die "QEMU ended with $?, see $VM/camera.log"
base64 -di <"$VM/camera.out" | tar -x -C "$VM/camera" || true

passed=$(grep -c '^CHECK .* ok' "$VM/camera.log" || true)
failed=$(grep -c '^CHECK .* FAIL' "$VM/camera.log" || true)
grep -E '^(##|CHECK)' "$VM/camera.log" | tr -d '\r'
say "$passed passed, $failed failed in $(($(date +%s) - started)) s; console: $VM/camera.log"
grep -q '^## end' "$VM/camera.log" || die "the virtual machine did not reach its end"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
