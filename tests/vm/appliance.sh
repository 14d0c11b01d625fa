#!/bin/bash
# An appliance without a board: installs the package for arm64 into a Debian 13 root file system,
# boots it in QEMU with systemd as first process, and tells its story (appliance_story.py): boot,
# sandbox, enrolment, a face, the relay's line, a lost camera, watchdog, read-only root, power cuts.
#
#   FACELATCH_DEB=FILE tests/vm/appliance.sh     default: target/package/*arm64*.deb
#   FACELATCH=program for this machine, EXAMPLES=folder, PICTURES=folder, PACK=builtin|standard,
#   MODELS=folder                                as for tests/vm/door.sh
#   PARTS="boot face …"                          parts of the story, by default all (see there)
#   CUTS=12, REPLAYS=200                         how many power cuts, of either kind
#
# Needs root: the package is installed by dpkg in a chroot under user emulation. Downloads about
# 330 MB into target/vm at the first run. Leaves target/vm/appliance/ (console, line, messages, log)
# and the summary target/vm/appliance.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/vm/lib.sh

MODELS=${MODELS:-var/models}
PICTURES=${PICTURES:-../shared/faces/lfw/people}
RUNTIME=${RUNTIME:-vendor/onnxruntime/x86_64/libonnxruntime.so}
PACK=${PACK:-builtin}
DISK_MB=900
DATA_MB=96
# What comes on top of Debian's essential packages; the package's own dependencies are found by apt.
GUEST_PACKAGES=systemd,systemd-sysv,udev,kmod,python3-minimal,libgcc-s1,procps,adduser
export QEMU_CPU=cortex-a72

mkdir -p "$VM/appliance"
if [ -z "${FACELATCH_DEB:-}" ]; then
    FACELATCH_DEB=$(find target/package -name '*arm64*.deb' 2>/dev/null | sort | tail -n 1 || true)
fi
[ -e "$FACELATCH_DEB" ] || die "no package for arm64: ./dev package makes it, or FACELATCH_DEB=FILE names it"
if [ -z "${FACELATCH:-}" ]; then
    say "building target/debug/facelatch"
    cargo build --locked --bin facelatch --example camera_walk
    FACELATCH=target/debug/facelatch
elif [ -z "${EXAMPLES:-}" ]; then
    cargo build --locked --quiet --example camera_walk
fi
EXAMPLES=${EXAMPLES:-target/debug/examples}
for program in mosquitto mosquitto_sub mosquitto_pub python3 debugfs mke2fs; do
    PATH=$PATH:/usr/sbin:/sbin command -v $program >/dev/null || die "$program is missing; ./dev setup installs it"
done
[ "$(id -u)" = 0 ] || die "root is needed: dpkg installs the package in a chroot"
vm_host_tools
vm_cross_tools
vm_arm64
vm_arm64_loopback

work=$(mktemp -d)
finish() {
    umount -l "$work/root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT

# ------------------------------------------------------------------ Debian

base=$VM/appliance/base.tar
wanted="$GUEST_PACKAGES $(dpkg-deb -f "$FACELATCH_DEB" Depends)"
if [ ! -e "$base" ] || [ "$(cat "$base.for" 2>/dev/null)" != "$wanted" ]; then
    say "Debian 13 for arm64 (two to three minutes)"
    vm_lists
    # The package's dependencies: those that Debian has under the names that it gives.
    depends=$(dpkg-deb -f "$FACELATCH_DEB" Depends | tr ',' '\n' | sed 's/(.*//; s/|.*//; s/ //g' | grep -v '^$' | paste -sd,)
    mmdebstrap --quiet --architectures=arm64 --variant=essential --mode=root \
        --aptopt='APT::Install-Recommends "false"' --include="$GUEST_PACKAGES${depends:+,$depends}" \
        trixie "$base" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR trixie main" \
        >"$VM/appliance/debian.log" 2>&1 || die "no Debian root file system, see $VM/appliance/debian.log"
    echo "$wanted" >"$base.for"
fi

root=$work/root
mkdir -p "$root"
tar -xf "$base" -C "$root"

# ------------------------------------------------------------------ the package

say "installing $(basename "$FACELATCH_DEB")"
mount -t proc proc "$root/proc"
cp "$FACELATCH_DEB" "$root/tmp/facelatch.deb"
chroot "$root" dpkg --install /tmp/facelatch.deb >"$VM/appliance/dpkg.log" 2>&1 ||
    { cat "$VM/appliance/dpkg.log"; die "dpkg does not install the package"; }
chroot "$root" systemctl enable facelatch.service >>"$VM/appliance/dpkg.log" 2>&1 || true
package=$(dpkg-deb -f "$FACELATCH_DEB" Package)
chroot "$root" dpkg --verify "$package" || die "what is installed is not what the package holds"
installed_kb=$(chroot "$root" dpkg -L "$package" | while read -r path; do
    if [ -f "$root$path" ] && [ ! -L "$root$path" ]; then stat -c %s "$root$path"; fi
done | awk '{ sum += $1 } END { print int(sum / 1024) }')
rm "$root/tmp/facelatch.deb"
# The next version is the same files under a higher number: what the upgrade is tried with.
rm -rf "$work/next"
dpkg-deb -R "$FACELATCH_DEB" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -b "$work/next" "$root/opt/next.deb" >/dev/null

# ------------------------------------------------------------------ configuration

liveness=false
[ "$PACK" = builtin ] || liveness=true
mkdir -p "$root/etc/facelatch"
cat >"$root/etc/facelatch/facelatch.toml" <<TOML
[device]
name = "Emulated"
[http]
listen = "0.0.0.0:8443"
[models]
pack = "$PACK"
# Nobody stands before the emulated line.
allow_builtin_pack_on_door = true
[[camera]]
name = "front"
source = "v4l2:/dev/video9"
size = [640, 480]
fps = 3
collection = "staff"
cooldown_s = 2
[liveness]
required = $liveness
[door]
backend = "chardev"
chip = "9030000.pl061"
relay_line = 0
active = "high"
unlock_s = 2
max_energised_s = 3
relock = "timeout"
contact = "nc"
contact_line = 1
TOML
# The unit asks for credentials of this name.
install -d -m 700 "$root/etc/credstore"
install -m 600 /dev/stdin "$root/etc/credstore/door.pin" <<<4711
if [ "$PACK" != builtin ]; then
    mkdir -p "$root/usr/share/facelatch/models"
    cp -rL "$MODELS/$PACK" "$root/usr/share/facelatch/models/$PACK"
fi
printf 'LABEL=facelatch /var/lib/facelatch ext4 noatime 0 0\n' >"$root/etc/fstab"
echo appliance >"$root/etc/hostname"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
printf '[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$root/etc/systemd/network/wired.network"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf"
echo v4l2loopback >"$root/etc/modules-load.d/camera.conf"
echo 'options v4l2loopback devices=1 video_nr=9 exclusive_caps=0 card_label=loop max_buffers=4' >"$root/etc/modprobe.d/camera.conf"
echo 'options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0' >>"$root/etc/modprobe.d/camera.conf"
install -m 755 tests/vm/appliance-agent.sh "$root/usr/local/lib/appliance-agent"
install -m 644 tests/vm/appliance_feed.py "$root/usr/local/lib/appliance_feed.py"
cat >"$root/etc/systemd/system/appliance-agent.service" <<'UNIT'
[Service]
ExecStart=/usr/local/lib/appliance-agent
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
cat >"$root/etc/systemd/system/appliance-camera.service" <<'UNIT'
[Unit]
After=systemd-modules-load.service
[Service]
ExecStartPre=/bin/sh -c 'test -e /run/scene || ln -s /opt/scenes/nobody /run/scene'
ExecStart=/usr/bin/python3 /usr/local/lib/appliance_feed.py /dev/video9 640 480 3 /run/scene
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable systemd-networkd.service appliance-agent.service appliance-camera.service
# Nobody logs in; what nobody here needs costs seconds of emulation at each boot.
chroot "$root" systemctl --quiet mask getty.target serial-getty@.service systemd-networkd-wait-online.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service modprobe@configfs.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount systemd-binfmt.service systemd-rfkill.socket systemd-hostnamed.socket \
    systemd-creds.socket systemd-sysext.socket systemd-user-sessions.service systemd-networkd-persistent-storage.service \
    systemd-tmpfiles-clean.timer systemd-tmpfiles-setup-dev-early.service systemd-udev-load-credentials.service
umount "$root/proc"

# ------------------------------------------------------------------ people, kernel, disks

vm_cast "$PACK" "$root/opt/scenes" "$work" || say "SKIPPED faces: no suitable pictures of a person and a stranger in $PICTURES"
mkdir -p "$VM/appliance/people"
rm -f "$VM"/appliance/people/*
[ ! -e "$work/person.jpg" ] || cp "$work/person.jpg" "$VM/appliance/people/"
find -L "$PICTURES" -mindepth 2 -maxdepth 2 -name '*.jp*g' 2>/dev/null | sort | awk 'NR % 97 == 0' | head -n 24 |
    while read -r file; do cp "$file" "$VM/appliance/people/other-$(basename "$file")"; done

say "disks"
# Of the kernel's modules those that this machine has a use for: each look into the index of all costs a second.
rm -rf "$root/usr/lib/modules"
mkdir -p "$root/usr/lib/modules/$KERNEL/extra"
cp "$ROOT/usr/lib/modules/$KERNEL"/modules.{builtin,builtin.modinfo,order} "$root/usr/lib/modules/$KERNEL/"
for module in virtio_mmio virtio_blk virtio_net virtio_console virtio_rng ext4 gpio_pl061 rtc_pl031 videodev vivid; do
    PATH=$PATH:/sbin modprobe -d "$ROOT/usr" -S "$KERNEL" --show-depends "$module" | sed -n 's,^insmod [^ ]*/\(lib/modules/[^ ]*\).*,\1,p'
done | sort -u | while read -r module; do install -D -m 644 "$ROOT/usr/$module" "$root/usr/$module"; done
aarch64-linux-gnu-strip --strip-debug -o "$root/usr/lib/modules/$KERNEL/extra/v4l2loopback.ko" "$LOOPBACK"
PATH=$PATH:/sbin depmod -b "$root/usr" "$KERNEL"
# As systemd does after an update: at the first boot nothing is rebuilt.
touch "$root/etc/.updated" "$root/var/.updated"
rm -f "$VM"/appliance/{root,data}.img
PATH=$PATH:/sbin mke2fs -q -t ext4 -L appliance -d "$root" "$VM/appliance/root.img" "${DISK_MB}M" >"$VM/appliance/disks.log"
PATH=$PATH:/sbin mke2fs -q -t ext4 -L facelatch "$VM/appliance/data.img" "${DATA_MB}M" >>"$VM/appliance/disks.log"
vm_guest "$work/start"
cp "$ROOT/usr/bin/busybox" "$work/start/bin/"
vm_modules "$work/start" virtio_mmio virtio_blk ext4
cp tests/vm/appliance-init.sh "$work/start/init"
chmod +x "$work/start/init"
vm_pack "$work/start" "$VM/appliance/start.cpio.gz"

# ------------------------------------------------------------------ the story

export APPLIANCE=$VM/appliance APPLIANCE_KERNEL=$ROOT/boot/vmlinuz-$KERNEL APPLIANCE_SUMMARY=$VM/appliance.md
export APPLIANCE_PROGRAM=$FACELATCH APPLIANCE_RUNTIME=$RUNTIME APPLIANCE_PACK=$PACK
export APPLIANCE_DEB_KB=$(($(stat -c %s "$FACELATCH_DEB") / 1024)) APPLIANCE_INSTALLED_KB=$installed_kb
python3 tests/vm/appliance_story.py ${PARTS:-}
