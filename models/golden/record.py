#!/usr/bin/env python3
"""Records what Python's onnxruntime answers, for the tests of the Rust adapter to agree with.

    pip install onnxruntime==1.32.0 numpy
    python models/golden/record.py --standard DIR > models/golden/outputs.toml

DIR holds the packs as the manifest lays them out. Value i of every input is
offset + scale * ((i * 7919) mod 256) / 255, in f32: unlike a constant it tells planes, rows and
columns apart.
"""
import argparse
import os
import pathlib
import tomllib

import numpy

# Read when the library is loaded: nothing is sent to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

SAMPLES = 8


def ramp(shape, scale, offset):
    index = numpy.arange(int(numpy.prod(shape)), dtype=numpy.int64)
    level = ((index * 7919) % 256).astype(numpy.float32) / numpy.float32(255)
    return (numpy.float32(offset) + numpy.float32(scale) * level).reshape(shape)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--standard", type=pathlib.Path, required=True)
    installed = arguments.parse_args().standard
    here = pathlib.Path(__file__).resolve().parent.parent
    manifest = tomllib.loads((here / "manifest.toml").read_text())
    print("# Recorded by models/golden/record.py with Python's onnxruntime", onnxruntime.__version__)
    for name, model in manifest["model"].items():
        own = model["file"].startswith("builtin/")
        path = (here if own else installed) / model["file"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"])
        entry = model["input"]
        # Pixels as the network sees them: 0..255 where it takes raw values, -2..2 where it does not.
        std = entry.get("std", [1.0])[0]
        scale, offset = (255.0, 0.0) if std == 1.0 else (255.0 / std, -entry["mean"][0] / std)
        values = session.run(model["outputs"], {entry["name"]: ramp(entry["shape"], scale, offset)})
        print(f"\n[{name}]\nscale = {float(numpy.float32(scale))!r}\noffset = {float(numpy.float32(offset))!r}")
        for output, value in zip(model["outputs"], values):
            flat = value.astype(numpy.float32).ravel()
            at = [int(i) for i in numpy.linspace(0, flat.size - 1, min(SAMPLES, flat.size))]
            print(f"[[{name}.output]]\nname = \"{output}\"\nshape = {list(value.shape)}")
            print(f"mean_magnitude = {float(numpy.abs(flat).mean()):.9g}")
            print(f"at = {at}\nvalues = {[float(f'{flat[i]:.9g}') for i in at]}")


main()
