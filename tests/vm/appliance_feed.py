"""In the guest of appliance.sh: feeds the pictures of a folder to a v4l2loopback device as MJPEG
frames, as examples/camera_feed.rs does: `appliance_feed.py DEVICE WIDTH HEIGHT FPS FOLDER`. The
folder is looked up anew for each frame: when it is a link, another scene is on with the next one."""

import fcntl
import os
import struct
import sys
import time

# include/uapi/linux/videodev2.h, on 64 bits: struct v4l2_format is 208 bytes, its union begins at 8.
VIDIOC_S_FMT = 0xC0D05605
BUF_TYPE_VIDEO_OUTPUT = 2
FIELD_NONE = 1

device, width, height, fps, folder = sys.argv[1:]
camera = os.open(device, os.O_RDWR)
pixels = struct.pack("<II4sIII", int(width), int(height), b"MJPG", FIELD_NONE, 0, int(width) * int(height) * 2)
answer = fcntl.ioctl(camera, VIDIOC_S_FMT, struct.pack("<II", BUF_TYPE_VIDEO_OUTPUT, 0) + pixels.ljust(200, b"\0"))
if answer[16:20] != b"MJPG":
    sys.exit(f"the device took {answer[16:20]} instead of MJPG")
number = 0
while True:
    pictures = sorted(name for name in os.listdir(folder) if name.endswith(".jpg"))
    with open(os.path.join(folder, pictures[number % len(pictures)]), "rb") as file:
        os.write(camera, file.read())
    number += 1
    time.sleep(1 / int(fps))
