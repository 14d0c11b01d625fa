"""Runs two files of one network on the same inputs and tells how far their outputs are apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faces import session, tensor_of
from pack import Entry, Input
from problems import Problem

SEED = 20240229
# The points that blendshapes take lie in a picture of this many pixels a side.
POINTS_PICTURE_SIDE = 640.0
# Below this an output counts as 0, and the difference is not divided by it.
MAGNITUDE_MIN = 1e-6


@dataclass
class Difference:
    """The worst case of one output over all inputs."""

    output: str
    inputs: int = 0
    absolute: float = 0.0
    # The absolute difference over the greatest magnitude of the reference's output.
    relative: float = 0.0

    def take(self, made: np.ndarray, reference: np.ndarray) -> None:
        """Counts one more input."""
        if made.shape != reference.shape:
            raise Problem(f"`{self.output}` has shape {made.shape}, not {reference.shape}")
        if not np.isfinite(made).all():
            raise Problem(f"`{self.output}` has a value that is not finite")
        absolute = float(np.abs(made.astype(np.float64) - reference).max())
        magnitude = max(float(np.abs(reference).max()), MAGNITUDE_MIN)
        self.inputs += 1
        self.absolute = max(self.absolute, absolute)
        self.relative = max(self.relative, absolute / magnitude)


def inputs_for(given: Input, count: int, faces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """`count` seeded random inputs, `count` structured ones, then the faces (RGB, 0..255)."""
    random = np.random.default_rng(SEED)
    if given.mean is None:
        for number in range(2 * count):
            yield _points(random, given.shape, structured=number >= count)
        return
    rows, columns = given.shape[1:3] if given.channels_last else given.shape[2:]
    for _ in range(count):
        yield tensor_of(random.uniform(0, 255, (rows, columns, 3)).astype(np.float32), given)
    for number in range(count):
        yield tensor_of(_pattern(random, number, rows, columns), given)
    for face in faces:
        yield tensor_of(face, given)


def _points(random: np.random.Generator, shape: tuple[int, ...], structured: bool) -> np.ndarray:
    """Points anywhere in a picture, or on a turned ellipse of a face's proportions."""
    if not structured:
        return random.uniform(0, POINTS_PICTURE_SIDE, shape).astype(np.float32)
    angles = np.linspace(0, 6 * np.pi, shape[1])
    radii = np.linspace(0.2, 1.0, shape[1]) * random.uniform(20, 200)
    across = np.stack([np.cos(angles) * radii * 0.7, np.sin(angles) * radii], -1)
    turn = random.uniform(-0.5, 0.5)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (across @ matrix + POINTS_PICTURE_SIDE / 2).reshape(shape).astype(np.float32)


def _pattern(random: np.random.Generator, number: int, rows: int, columns: int) -> np.ndarray:
    """In turn: one colour, a gradient, a checkerboard, waves, a disc; colours are random."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    cell = int(random.integers(1, 24))
    radius = np.hypot(y - rows / 2, x - columns / 2)
    shares = (
        np.zeros((rows, columns)),
        (x / columns + y / rows) / 2,
        ((x // cell + y // cell) % 2),
        (np.sin(x / cell) * np.cos(y / cell) + 1) / 2,
        (radius < rows * random.uniform(0.1, 0.5)).astype(np.float64),
    )
    share = shares[number % len(shares)][..., None]
    low, high = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
    return (low + (high - low) * share).astype(np.float32)


def differences(
    model: Entry, made: Path, reference: Path, inputs: Iterable[np.ndarray]
) -> list[Difference]:
    """The worst difference of each output of the manifest."""
    first, second = session(made), session(reference)
    found = [Difference(output) for output in model.outputs]
    for tensor in inputs:
        feed = {model.input.name: tensor}
        answers = first.run(model.outputs, feed), second.run(model.outputs, feed)
        for difference, one, other in zip(found, *answers, strict=True):
            difference.take(one, other)
    return found


def cosines(model: Entry, one: Path, other: Path, faces: Iterable[np.ndarray]) -> np.ndarray:
    """For each face, the cosine between the embeddings that two files give it."""
    sessions = [session(path) for path in (one, other)]
    found = []
    for face in faces:
        feed = {model.input.name: tensor_of(face, model.input)}
        a, b = (run.run(model.outputs, feed)[0].ravel() for run in sessions)
        found.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return np.array(found)
