#!/usr/bin/env python3
"""Writes the picture files that the tests of src/picture.rs decode (Pillow 12, numpy 2).

Every file shows the same 24x16 pixels: red, green, blue and white quarters. The tests know the
colours; these files are the forms that the Rust encoders of the project cannot write.
"""
import pathlib

import numpy
from PIL import Image

HERE = pathlib.Path(__file__).parent

pixels = numpy.zeros((16, 24, 3), numpy.uint8)
pixels[:8, :12] = (255, 0, 0)
pixels[:8, 12:] = (0, 255, 0)
pixels[8:, :12] = (0, 0, 255)
pixels[8:, 12:] = (255, 255, 255)
picture = Image.fromarray(pixels)

picture.save(HERE / "progressive.jpg", quality=95, progressive=True, subsampling=0)
picture.convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
picture.convert("L").save(HERE / "grey.jpg", quality=95)
palette = picture.quantize(4)
palette.save(HERE / "palette.png")
blue = [i for i in range(4) if tuple(palette.getpalette()[3 * i : 3 * i + 3]) == (0, 0, 255)][0]
palette.save(HERE / "palette_transparent.png", transparency=blue)
picture.convert("1", dither=Image.Dither.NONE).save(HERE / "bilevel.png")
