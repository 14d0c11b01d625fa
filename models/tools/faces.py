"""Faces for calibration and comparison: found by YuNet, aligned to the template of the manifest.

The same rules as in the daemon (decoding, Umeyama's similarity, bilinear, border 0), kept short:
one face a picture, no tiles. The quantiser needs typical inputs from it, not exact ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Read when the library is loaded: nothing is sent to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
from PIL import Image, UnidentifiedImageError

from pack import Entry, Input
from problems import Problem

SUFFIXES = {".jpg", ".jpeg", ".png"}
STRIDES = (8, 16, 32)
# The detector's input is square; pictures are scaled to fit and padded at the right and bottom.
DETECTOR_SIDE = 320


@dataclass(frozen=True)
class Choice:
    """Which pictures of a folder are taken: every `step`th of the sorted list, from `start` on."""

    start: int
    step: int


def session(path: Path) -> onnxruntime.InferenceSession:
    """A session on one thread, so that figures do not depend on the machine's cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def list_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path."""
    if not folder.is_dir():
        raise Problem(f"{folder} is no folder: give one with pictures of faces, in any sub-folders")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise Problem(f"{folder} has no .jpg, .jpeg or .png picture")
    return found


def split(pictures: int, wanted: int) -> tuple[Choice, Choice]:
    """Two evenly spread choices without a picture in common: to calibrate and to measure."""
    step = pictures // wanted
    if step < 2:
        raise Problem(f"{pictures} pictures are too few for two sets of {wanted}")
    return Choice(0, step), Choice(step // 2, step)


class Aligner:
    """Cuts the most certain face of a picture out, upright."""

    def __init__(self, detector: Entry, detector_file: Path, model: Entry) -> None:
        if model.embedding is None:
            raise Problem(f"`{model.name}` has no alignment template in the manifest")
        self.detector = session(detector_file)
        self.outputs = detector.outputs
        self.input_name = detector.input.name
        self.confidence_min = detector.confidence_min
        self.template = np.array(model.embedding["template"], np.float64)
        self.side = int(model.embedding["side"])

    def aligned(self, pictures: list[Path], choice: Choice, wanted: int) -> Iterator[np.ndarray]:
        """Up to `wanted` aligned RGB faces (rows, columns, 3; 0..255); faceless pictures drop."""
        for path in pictures[choice.start :: choice.step][:wanted]:
            try:
                with Image.open(path) as opened:
                    picture = opened.convert("RGB")
            except (UnidentifiedImageError, OSError) as err:
                raise Problem(f"{path} cannot be read as a picture: {err}") from err
            points = self.landmarks(picture)
            if points is not None:
                pixels = np.asarray(picture, np.float32)
                yield warp(pixels, similarity(points, self.template), self.side)

    def landmarks(self, picture: Image.Image) -> np.ndarray | None:
        """The five points of the most certain face, in pixels of the picture."""
        scale = min(DETECTOR_SIDE / picture.width, DETECTOR_SIDE / picture.height)
        size = (round(picture.width * scale), round(picture.height * scale))
        board = np.zeros((DETECTOR_SIDE, DETECTOR_SIDE, 3), np.float32)
        board[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
        tensor = board[None, :, :, ::-1].transpose(0, 3, 1, 2)
        answers = self.detector.run(self.outputs, {self.input_name: np.ascontiguousarray(tensor)})
        best = max(
            self._best(dict(zip(self.outputs, answers, strict=True)), stride) for stride in STRIDES
        )
        score, points = best
        if score < (self.confidence_min or 0.0):
            return None
        return np.array(points).reshape(5, 2) / scale

    @staticmethod
    def _best(answers: dict[str, np.ndarray], stride: int) -> tuple[float, list[float]]:
        score = np.sqrt(
            np.clip(answers[f"cls_{stride}"], 0, 1) * np.clip(answers[f"obj_{stride}"], 0, 1)
        ).ravel()
        i = int(score.argmax())
        row, column = divmod(i, DETECTOR_SIDE // stride)
        cell = np.array([column, row] * 5, np.float64)
        return float(score[i]), ((answers[f"kps_{stride}"][0, i] + cell) * stride).tolist()


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama's least-squares similarity from source to target points, as a 2 by 3 matrix."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    left, sizes, right = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    spread = ((source - source_mean) ** 2).sum() / len(source)
    linear = (left * signs) @ right * (sizes @ signs) / spread
    return np.column_stack([linear, target_mean - linear @ source_mean])


def warp(pixels: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """The square that the matrix maps the picture to: bilinear, 0 outside the picture."""
    back = np.linalg.inv(matrix[:, :2])
    rows, columns = np.mgrid[0:side, 0:side]
    at = (np.stack([columns, rows], -1) - matrix[:, 2]) @ back.T
    corner = np.floor(at).astype(int)
    share = at - corner
    out = np.zeros((side, side, 3))
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = corner[..., 0] + dx, corner[..., 1] + dy
        inside = (x >= 0) & (y >= 0) & (x < pixels.shape[1]) & (y < pixels.shape[0])
        weight = np.abs(1 - dx - share[..., 0]) * np.abs(1 - dy - share[..., 1]) * inside
        nearest = pixels[y.clip(0, pixels.shape[0] - 1), x.clip(0, pixels.shape[1] - 1)]
        out += weight[..., None] * nearest
    return out.astype(np.float32)


def tensor_of(picture: np.ndarray, given: Input) -> np.ndarray:
    """An RGB picture of 0..255 as the network wants it, scaled to its size if need be."""
    rows, columns = given.shape[1:3] if given.channels_last else given.shape[2:]
    if picture.shape[:2] != (rows, columns):
        small = Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))
        picture = np.asarray(small.resize((columns, rows), Image.Resampling.BILINEAR), np.float32)
    ordered = picture[:, :, ::-1] if given.order == "bgr" else picture
    normal = ((ordered - given.mean) / given.std).astype(np.float32)
    batch = normal[None] if given.channels_last else normal.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(batch)
