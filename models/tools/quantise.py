"""Static int8 quantisation of MobileFaceNet (QDQ), with calibration on pictures of faces.

Activations uint8 with a zero point, weights int8 with one scale a channel, ranges from the least
and greatest value seen: what the file of the pack shows. Its calibration pictures are not known, so
the ranges differ a little and so do the files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from faces import tensor_of
from pack import Entry
from problems import Problem


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, tensors: Iterable[np.ndarray]) -> None:
        self.name = name
        self.tensors = iter(tensors)

    def get_next(self) -> dict[str, np.ndarray] | None:
        tensor = next(self.tensors, None)
        return None if tensor is None else {self.name: tensor}


def quantise(model: Entry, floating: Path, faces: list[np.ndarray], to: Path) -> None:
    """Writes the int8 form of a float model; `faces` are aligned RGB pictures."""
    if not faces:
        raise Problem("no face was found in the calibration pictures")
    to.parent.mkdir(parents=True, exist_ok=True)
    # It advises to fold batch normalisation beforehand; `networks.py` has done so.
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        str(floating),
        str(to),
        _Reader(model.input.name, (tensor_of(face, model.input) for face in faces)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod.MinMax,
    )
