"""Makes what the replayed camera sees, one folder a scene: pictures.py OUT NAME=PICTURE...

Each scene has files of the same names, so that a scene can be exchanged under a running camera, and
each of them another picture: a still one would be no motion. `nobody` is made without a picture.
Runs with Home Assistant's Python, for Pillow.
"""

import os
import sys

from PIL import Image, ImageEnhance

SIZE_PX = (640, 480)
# Wide enough for the door's least face, narrow enough to move about.
FACE_PICTURE_PX = 420
# Where the picture stands, in pixels from the middle, and how bright it is: a person who moves a little.
STEPS = [(0, 0, 1.0), (4, 2, 1.03), (9, 3, 1.0), (12, 0, 0.97), (8, -3, 1.0), (3, -4, 1.04), (-3, -2, 1.0), (-5, 1, 0.96)]


def background(step):
    grey = 118 + step % 2
    return Image.new("RGB", SIZE_PX, (grey, grey, grey + 4))


def main():
    out = sys.argv[1]
    scenes = {"nobody": None}
    scenes.update(argument.split("=", 1) for argument in sys.argv[2:])
    for name, picture in scenes.items():
        os.makedirs(os.path.join(out, name))
        face = picture and Image.open(picture).convert("RGB").resize((FACE_PICTURE_PX, FACE_PICTURE_PX), Image.Resampling.LANCZOS)
        for number, (right, down, light) in enumerate(STEPS):
            frame = background(number)
            if face:
                left, top = ((whole - FACE_PICTURE_PX) // 2 for whole in SIZE_PX)
                frame.paste(ImageEnhance.Brightness(face).enhance(light), (left + right, top + down))
            frame.save(os.path.join(out, name, f"{number}.jpg"), quality=92)


main()
