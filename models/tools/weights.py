"""Reads PyTorch's weight files without PyTorch, and without running what they contain.

A `.pth` file is a pickle, and an ordinary unpickler calls whatever function the file names. The
reader here knows the few names that weight files need, gives each a harmless stand-in, and refuses
every other one. It reads the format that PyTorch wrote before 1.6 (all upstream files of
this project are that old): four pickles, the list of storages, then their numbers, little-endian.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from problems import Problem

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# The greatest file here has 1.1 million numbers; a length beyond this is damage, not a network.
STORAGE_NUMBERS_MAX = 64_000_000

Weights = dict[str, np.ndarray]


@dataclass
class Storage:
    """A run of numbers that tensors are views of; its content comes last in the file."""

    # As a text: a file may ask to alter any object that it was given, and a text cannot be altered.
    kind: str
    length: int
    numbers: np.ndarray | None = None


@dataclass
class Tensor:
    """A view of a storage: offset and strides in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The view as an array of its own; a view that leaves its storage is an error."""
        reach = self.offset + sum(
            (n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)
        )
        numbers = self.storage.numbers
        inside = self.offset >= 0 and min(self.strides, default=0) >= 0
        if numbers is None or not inside or (0 not in self.shape and reach >= len(numbers)):
            raise Problem("a tensor reaches outside its storage: the weight file is damaged")
        step = numbers.itemsize
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, [s * step for s in self.strides]
        ).copy()


@dataclass
class Module:
    """A stand-in for any pickled layer: only its parameters and its children count."""

    state: dict[str, Any] = field(default_factory=dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


def _rebuild_tensor(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> Tensor:
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.nn.modules.conv", "Conv2d"): Module,
    ("torch.nn.modules.batchnorm", "BatchNorm2d"): Module,
    ("MainModel", "KitModel"): Module,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows the names in `ALLOWED` and no other."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[(module, name)]
        except KeyError:
            raise Problem(
                f"the weight file asks for {module}.{name}, which no weight file of this project "
                "needs: it is not the upstream file, and nothing of it was run"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":
            return pid[1]
        _, kind, key, _, length, view = pid
        if view is not None or not 0 <= length <= STORAGE_NUMBERS_MAX:
            raise Problem(f"storage {key} of {length} numbers: the weight file is damaged")
        return self.storages.setdefault(key, Storage(kind, length))


def _pickled(file: BinaryIO) -> Any:
    """The next plain pickle of the file (numbers, texts and lists only)."""
    return _Reader(file).load()


def _read_storages(file: BinaryIO, storages: dict[str, Storage]) -> None:
    for key in _pickled(file):
        storage = storages[key]
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            raise Problem(f"storage {key} has {length} numbers, {storage.length} were announced")
        dtype = np.dtype(storage.kind)
        raw = file.read(length * dtype.itemsize)
        storage.numbers = np.frombuffer(raw, dtype, count=length)


def _flatten(module: Module, prefix: str) -> Weights:
    """The state dictionary that a pickled module would answer: `child.parameter` names."""
    found: Weights = {}
    for group in ("_parameters", "_buffers"):
        for name, tensor in module.state.get(group, {}).items():
            if tensor is not None:
                found[prefix + name] = tensor.array()
    for name, child in module.state.get("_modules", {}).items():
        found |= _flatten(child, f"{prefix}{name}.")
    return found


# What an unpickler and the checks above raise on a damaged file.
DAMAGE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    struct.error,
)


def read_weights(path: Path) -> Weights:
    """The named arrays of a PyTorch weight file (state dictionary or whole module)."""
    file = io.BytesIO(path.read_bytes())
    try:
        if _pickled(file) != MAGIC or _pickled(file) != PROTOCOL:
            raise Problem(f"{path} is not a weight file of PyTorch before 1.6")
        _pickled(file)
        reader = _Reader(file)
        root = reader.load()
        _read_storages(file, reader.storages)
    except DAMAGE as err:
        raise Problem(f"{path} cannot be read as PyTorch weights: {err}") from err
    if isinstance(root, Module):
        return _flatten(root, "")
    return {name: tensor.array() for name, tensor in root.items()}
