#!/bin/bash
# The pins of a Raspberry Pi without a Raspberry Pi: boots a Debian 13 kernel on QEMU's Raspberry Pi
# 3 B, runs the daemon there with the door back ends `rppal` and `chardev`, and watches and moves the
# pins by the registers of the GPIO controller, beside the daemon.
#
#   FACELATCH=path/to/facelatch-for-aarch64 tests/vm/pi.sh
#
# No camera, no models, no network: the exit button opens. Plain emulation in real time. Downloads
# about 110 MB into target/vm at the first run; installs qemu-system-arm when missing, which needs
# root. Leaves the console in target/vm/pi.log.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/vm/lib.sh

TIMEOUT_S=${TIMEOUT_S:-240}

mkdir -p "$VM"
[ -x "${FACELATCH:-}" ] || die "FACELATCH=FILE names the program for aarch64"
# Bytes 18 and 19 of an ELF file name the processor; 183 is aarch64.
[ "$(od -An -tu2 -j18 -N2 "$FACELATCH" | tr -d ' ')" = 183 ] || die "$FACELATCH is not for aarch64"
vm_host_tools
vm_arm64

started=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
vm_guest "$work"
cp "$ROOT/usr/bin/busybox" "$work/bin/"
cp "$FACELATCH" "$work/bin/facelatch"
chmod +x "$work/bin/facelatch"
cp -L "$ROOT/usr/lib/ld-linux-aarch64.so.1" "$work/lib/"
cp -L "$ROOT"/usr/lib/aarch64-linux-gnu/{libc,libm,libgcc_s,libdl,libpthread,librt}.so.[0-9]* "$work/lib/"
vm_modules "$work" bcm2835_wdt
cat >"$work/etc/facelatch.toml" <<'TOML'
[http]
listen = "127.0.0.1:8080"
tls = false
[store]
dir = "/tmp/store"
[models]
dir = "/models"
pack = "builtin"
# Nobody stands before the emulated pin.
allow_builtin_pack_on_door = true
[door]
relay_line = 17
active = "high"
unlock_s = 2
max_energised_s = 3
relock = "timeout"
contact = "nc"
contact_line = 27
rex = "unlock"
rex_line = 22
[log]
format = "text"
TOML
cp tests/vm/pi-init.sh "$work/init"
chmod +x "$work/init"
vm_pack "$work" "$VM/pi.cpio.gz"

say "booting (at most $TIMEOUT_S s)"
timeout "$TIMEOUT_S" qemu-system-aarch64 -M raspi3b -smp 4 -m 1G -display none -no-reboot \
    -serial "file:$VM/pi.log" -kernel "$ROOT/boot/vmlinuz-$KERNEL" -initrd "$VM/pi.cpio.gz" \
    -dtb "$ROOT/usr/lib/linux-image-$KERNEL/broadcom/bcm2837-rpi-3-b.dtb" \
    -append "console=ttyAMA0,115200 quiet panic=-1 iomem=relaxed" || true
grep -q '^## end' "$VM/pi.log" || { vm_summary "$started" "$VM/pi.log" || true; die "the virtual machine did not reach its end, see $VM/pi.log"; }
vm_summary "$started" "$VM/pi.log"
