#!/bin/busybox sh
# Initial file system of appliance.sh: loads what the disk needs, mounts it as the kernel's command
# line says (`ro` or `rw`), and hands over to systemd.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
while read -r file _; do insmod "/mods/$file" 2>/dev/null; done </mods/order
mode=rw
grep -qw ro /proc/cmdline && mode=ro
# Of two disks it is not said which is found first.
until root=$(findfs LABEL=appliance) 2>/dev/null; do usleep 20000; done
mkdir -p /root
mount -t ext4 -o "$mode,noatime" "$root" /root || { echo "the root file system cannot be mounted"; poweroff -f; }
umount /proc /sys
exec switch_root /root /sbin/init
