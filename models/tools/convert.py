#!/usr/bin/env python3
"""Converts upstream weight files into the ONNX files of the packs, and compares the results.

Sub-commands are named as the models in models/manifest.toml. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import compare
import faces
import networks
import pack
import quantise
import tflite_graph
from problems import Problem
from weights import read_weights

# Float files made of the same weights: what the order of summation may change, and no more.
RELATIVE_DIFFERENCE_MAX = 1e-4
# Two int8 files differ by their calibration pictures; below this mean cosine between their
# embeddings something else differs.
COSINE_MEAN_MIN = 0.98
CALIBRATION_PICTURES = 256
HELD_OUT_PICTURES = 256

FLOATING: dict[str, Callable[[Path, Path], None]] = {
    "minifasnet-v2": lambda source, to: networks.minifasnet(read_weights(source), to),
    "minifasnet-v1se": lambda source, to: networks.minifasnet(read_weights(source), to),
    "mobilefacenet": lambda source, to: networks.mobilefacenet(read_weights(source), to),
    "aizoo-mask": lambda source, to: networks.aizoo_mask(read_weights(source), to),
    "facemesh": lambda source, to: tflite_graph.convert(
        source, "face_landmarks_detector.tflite", "facemesh", to
    ),
    "blendshapes": lambda source, to: tflite_graph.convert(
        source, "face_blendshapes.tflite", "blendshapes", to
    ),
}
INT8, INT8_OF = "mobilefacenet-int8", "mobilefacenet"


@dataclass(frozen=True)
class Pictures:
    """Aligned faces of one folder in two halves that share no picture."""

    calibration: list[np.ndarray]
    held_out: list[np.ndarray]


def read_pictures(folder: Path, detector_file: Path | None, reference: Path | None) -> Pictures:
    """Finds and aligns the faces of both halves."""
    detector = pack.entry("yunet")
    if detector_file is None:
        if reference is None:
            raise Problem("give the detector: --yunet FILE, or --reference DIR of the pack")
        detector_file = pack.pack_file(detector, reference)
    if pack.sha256_of(detector_file) != detector.sha256:
        raise Problem(f"{detector_file} is not the detector of the manifest (SHA-256 differs)")
    found = faces.list_pictures(folder)
    first, second = faces.split(len(found), max(CALIBRATION_PICTURES, HELD_OUT_PICTURES))
    aligner = faces.Aligner(detector, detector_file, pack.entry(INT8))
    return Pictures(
        list(aligner.aligned(found, first, CALIBRATION_PICTURES)),
        list(aligner.aligned(found, second, HELD_OUT_PICTURES)),
    )


def make(name: str, upstream: Path, out: Path) -> Path:
    """Converts one float model."""
    model = pack.entry(name)
    to = out / model.file
    FLOATING[name](pack.upstream_file(model, upstream), to)
    report_made(model, to)
    return to


def report_made(model: pack.Entry, to: Path) -> None:
    """Says what was written and whether facelatch would take it."""
    digest = pack.sha256_of(to)
    print(f"{model.name}: {to}, {to.stat().st_size} bytes, SHA-256 {digest}")
    if digest in model.alternates:
        print("  an alternate of the manifest: facelatch accepts it")
    elif digest != model.sha256:
        print("  not among the files of the manifest: facelatch refuses it (see README.md)")


def make_int8(args: argparse.Namespace) -> None:
    """Quantises the float MobileFaceNet, which is converted first."""
    if args.calibration is None:
        raise Problem("int8 needs pictures of faces: --calibration DIR")
    pictures = read_pictures(args.calibration, args.yunet, args.reference)
    written = args.command == "all"
    floating_file = args.out / pack.entry(INT8_OF).file
    floating = floating_file if written else make(INT8_OF, args.upstream, args.out)
    model = pack.entry(INT8)
    to = args.out / model.file
    quantise.quantise(model, floating, pictures.calibration, to)
    print(f"calibrated on {len(pictures.calibration)} faces")
    report_made(model, to)


def run_make(args: argparse.Namespace) -> bool:
    """The sub-commands that write files."""
    if args.command == INT8:
        make_int8(args)
        return True
    for name in FLOATING if args.command == "all" else [args.command]:
        make(name, args.upstream, args.out)
    if args.command == "all" and args.calibration is not None:
        make_int8(args)
    return True


def run_compare(args: argparse.Namespace) -> bool:
    """Compares files made here with files of the pack; false if one is too far off."""
    needs_faces = args.calibration is not None
    pictures = read_pictures(args.calibration, args.yunet, args.reference) if needs_faces else None
    held_out = pictures.held_out if pictures else []
    names = args.models or list(FLOATING)
    near = [
        compare_int8(args, held_out) if name == INT8 else compare_float(name, args, held_out)
        for name in names
    ]
    return all(near)


def compare_float(name: str, args: argparse.Namespace, held_out: list[np.ndarray]) -> bool:
    """One line an output: the greatest differences over all inputs."""
    model = pack.entry(name)
    made, reference = (pack.pack_file(model, folder) for folder in (args.made, args.reference))
    inputs = compare.inputs_for(model.input, args.inputs, held_out[: args.inputs])
    near = True
    for difference in compare.differences(model, made, reference, inputs):
        good = difference.relative <= args.tolerance
        near &= good
        print(
            f"{name} {difference.output}: {difference.inputs} inputs, "
            f"max absolute {difference.absolute:.3g}, max relative {difference.relative:.3g}, "
            f"{'ok' if good else f'FAILED (over {args.tolerance:g})'}"
        )
    return near


def compare_int8(args: argparse.Namespace, held_out: list[np.ndarray]) -> bool:
    """Cosines between embeddings of held-out faces, and of each file with its float form."""
    if not held_out:
        raise Problem("int8 files are compared on pictures of faces: --calibration DIR")
    model, floating = pack.entry(INT8), pack.entry(INT8_OF)
    made, reference = (pack.pack_file(model, folder) for folder in (args.made, args.reference))
    float_reference = pack.pack_file(floating, args.reference)
    between = compare.cosines(model, made, reference, held_out)
    print_cosines("made int8 and the pack's int8", between)
    print_cosines("made int8 and float", compare.cosines(model, made, float_reference, held_out))
    print_cosines(
        "the pack's int8 and float", compare.cosines(model, reference, float_reference, held_out)
    )
    good = bool(between.mean() >= COSINE_MEAN_MIN)
    print(f"{INT8}: {'ok' if good else f'FAILED (mean below {COSINE_MEAN_MIN})'}")
    return good


def print_cosines(title: str, found: np.ndarray) -> None:
    """Count, mean, the fifth percentile and the least."""
    low = float(np.percentile(found, 5))
    print(
        f"{INT8} cosine between {title}: {len(found)} faces, mean {found.mean():.4f}, "
        f"5 % {low:.4f}, least {found.min():.4f}"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True)
    for name in [*FLOATING, INT8, "all"]:
        add_make(commands, name)
    add_compare(commands)
    return top


def add_make(commands: argparse._SubParsersAction, name: str) -> None:
    """A sub-command that writes one model, or all."""
    text = "every model; the int8 one with --calibration" if name == "all" else f"make {name}"
    one = commands.add_parser(name, help=text, description=text)
    one.add_argument("--upstream", type=Path, required=True, help="folder of the upstream files")
    one.add_argument("--out", type=Path, required=True, help="folder to write standard/*.onnx into")
    one.set_defaults(run=run_make)
    add_pictures(one)


def add_compare(commands: argparse._SubParsersAction) -> None:
    """The sub-command that compares."""
    text = "compare files made here with the pack's; status 1 if one is too far off"
    one = commands.add_parser("compare", help=text, description=text)
    one.add_argument("models", nargs="*", metavar="MODEL", help="default: every float model")
    one.add_argument("--made", type=Path, required=True, help="folder that --out wrote")
    one.add_argument("--inputs", type=int, default=32, help="inputs of each kind (default 32)")
    one.add_argument(
        "--tolerance",
        type=float,
        default=RELATIVE_DIFFERENCE_MAX,
        help=f"greatest relative difference (default {RELATIVE_DIFFERENCE_MAX:g})",
    )
    one.set_defaults(run=run_compare)
    add_pictures(one, reference_needed=True)


def add_pictures(one: argparse.ArgumentParser, reference_needed: bool = False) -> None:
    """What finds the faces; `--reference` also holds the files to equal."""
    one.add_argument("--calibration", type=Path, help="folder of pictures, one person each")
    one.add_argument("--yunet", type=Path, help="yunet_n_dynamic.onnx (default: in --reference)")
    one.add_argument(
        "--reference", type=Path, required=reference_needed, help="folder of the installed packs"
    )


def main() -> int:
    """Runs one sub-command; a problem is one sentence and status 1."""
    args = parser().parse_args()
    try:
        return 0 if args.run(args) else 1
    except (Problem, OSError) as err:
        print(f"convert.py: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
