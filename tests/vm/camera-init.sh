#!/bin/busybox sh
# First process of the virtual machine of camera.sh. Prints `CHECK NAME ok` or `CHECK NAME FAIL …`
# for each check and sends /tmp/out as a base64 tar over the second serial port.
/bin/busybox --install -s /bin
export PATH=/bin LD_LIBRARY_PATH=/lib RUST_BACKTRACE=1
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
mkdir -p /tmp/out /dev/v4l/by-id
cd /tmp

up() { cut -d' ' -f1 /proc/uptime; }
check() { # NAME COMMAND...: the command's success, with the output of the last step on failure
    name=$1; shift
    if "$@" >/tmp/check.log 2>&1; then echo "CHECK $name ok ($(up) s)"
    else echo "CHECK $name FAIL ($(up) s)"; cat /tmp/check.log /tmp/last; fi
}
has() { grep -q -- "$1" "$2"; }
field() { sed -n "\$s/.*\"$1\":\\([0-9]*\\).*/\\1/p" "$2"; }
more() { [ "$(field "$1" "$2")" -ge "$3" ]; }
exactly() { [ "$(field "$1" "$2")" -eq "$3" ]; }

insert() { # MODULE PARAMETERS...: with what it depends on, in order
    module=$1; shift
    while read -r file wanted; do
        [ "$wanted" = "$module" ] || continue
        if [ "$file" = "$module.ko" ]; then insmod "/mods/$file" "$@"; else insmod "/mods/$file" 2>/dev/null; fi
    done </mods/order
}
plug_vivid() {
    insert vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0 multiplanar=1
    ln -sf ../../video0 /dev/v4l/by-id/usb-vivid-index0
}
V="--source v4l2:/dev/v4l/by-id/usb-vivid-index0"

echo "## no camera ($(up) s)"
facelatch camera list >last 2>&1; check "no camera is said" has "no camera found" last
facelatch camera snapshot -o x.jpg $V >last 2>&1
check "an absent device is named with a remedy" has "no such device: plug it in" last

echo "## vivid"
plug_vivid
facelatch camera list >last 2>&1; cat last
check "list shows the device" has "^/dev/video0  vivid" last
check "list shows the stable link" has "v4l2:/dev/v4l/by-id/usb-vivid-index0" last
check "list shows the formats" has "YUYV" last
facelatch camera list --json >last 2>&1; check "list as JSON" has '"path": "/dev/video0"' last

facelatch camera snapshot -o out/yuyv.ppm --size 640x480 $V >last 2>&1; cat last
check "snapshot by the stable link is YUYV 640x480" has "YUYV 640x480" last
check "snapshot has every pixel" [ "$(wc -c <out/yuyv.ppm)" = 921615 ]
colours=$(tail -c +16 out/yuyv.ppm | od -An -v -tx1 -w3 | sort -u | wc -l)
echo "$colours colours" >last; cat last
check "snapshot is not uniform" [ "$colours" -ge 8 ]
check "no warning of an even picture" has colours last
facelatch camera snapshot -o out/yuyv.jpg --size 1280x720 $V >last 2>&1; cat last
check "snapshot at 1280x720" has "1280x720" last
facelatch camera snapshot -o out/asked-mjpeg.jpg --format mjpeg --size 640x480 $V >last 2>&1; cat last
check "MJPEG asked of vivid becomes YUYV" has "YUYV 640x480" last
facelatch camera watch --seconds 4 --format mjpeg --size 640x480 --fps 10 $V >last 2>watch.log
tail -n 1 last
check "MJPEG asked of vivid: frames come" more decoded last 5
check "MJPEG asked of vivid: none is corrupt" exactly undecodable last 0

echo "## unplug and replug while streaming ($(up) s)"
facelatch camera watch --seconds 24 --size 640x480 --fps 10 $V >watch.out 2>watch.log &
watch=$!
sleep 5; before=$(field decoded watch.out)
echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
sleep 3; cp watch.out last; tail -n 1 last
check "unplugged is noticed" has '"state":"lost"' last
rmmod vivid; check "the driver can be removed: the device was closed" [ ! -d /sys/module/vivid ]
sleep 2; plug_vivid
wait $watch; cp watch.out last; cat watch.log; tail -n 1 last
after=$(field decoded last)
check "frames before ($before) and after ($after) the replug" [ "$after" -gt $((before + 10)) ]
check "reopened once" exactly reopened last 1
check "none is corrupt" exactly undecodable last 0
check "streaming again at the end" has '"state":"streaming"' last
check "one line in the log for each change" [ "$(grep -c 'camera is streaming' watch.log)" = 2 ]
cp watch.out out/replug.jsonl

echo "## the stream of a device that is in use"
facelatch camera watch --seconds 6 --size 640x480 $V >/dev/null 2>&1 &
watch=$!
sleep 3; facelatch camera snapshot -o x.jpg --timeout 3 $V >last 2>&1; cat last
check "in use is said" has "in use by another program" last
wait $watch

echo "## v4l2loopback ($(up) s)"
insmod /mods/v4l2loopback.ko devices=1 video_nr=9 exclusive_caps=0 card_label=loop max_buffers=4
if [ ! -e /pictures/1.jpg ]; then
    mkdir -p /pictures
    for n in 1 2 3 4; do facelatch camera snapshot -o /pictures/$n.jpg --size 640x480 $V >/dev/null 2>&1; done
fi
sha256sum /pictures/*.jpg | tee out/fed.sha256
L="--source v4l2:/dev/video9 --size 640x480"
camera_feed /dev/video9 640x480 15 20 /pictures/*.jpg >feed.log 2>&1 &
feed=$!
sleep 2
for n in 1 2 3; do
    facelatch camera snapshot -o out/loop$n.jpg $L >last 2>&1; cat last
    check "MJPEG is agreed on ($n)" has "MJPEG 640x480" last
    sum=$(sha256sum <out/loop$n.jpg | cut -d" " -f1)
    check "the picture comes back byte for byte ($n)" has "${sum:-no picture}" out/fed.sha256
done
facelatch camera watch --seconds 5 $L >last 2>watch.log; cat watch.log; tail -n 1 last
check "MJPEG frames come" more decoded last 10
check "MJPEG frames decode" exactly undecodable last 0
cp last out/loopback.jsonl
wait $feed; cat feed.log

echo "## end ($(up) s)"
stty raw </dev/ttyS1
tar -c -C /tmp/out . | base64 >/dev/ttyS1
sync; sleep 1
poweroff -f
