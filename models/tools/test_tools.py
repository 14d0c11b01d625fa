"""Tests of the tools that need no model file: `python -m unittest test_tools`."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tempfile
import unittest
from collections import OrderedDict
from pathlib import Path

import numpy as np

import compare
import faces
import pack
from graph import Graph, Window, save
from problems import Problem
from weights import MAGIC, PROTOCOL, read_weights


class _Named:
    """Pickles as a call of a named function, without that function being importable here."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.called = (module, name, arguments)


class _Storage:
    def __init__(self, pid: tuple[object, ...]) -> None:
        self.pid = pid


class _Writer(pickle._Pickler):  # noqa: SLF001
    """PyTorch's side of the old format, as far as the tests need it."""

    def persistent_id(self, obj: object) -> object:
        return obj.pid if isinstance(obj, _Storage) else None

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if not isinstance(obj, _Named):
            super().save(obj, save_persistent_id)
            return
        module, name, arguments = obj.called
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        if arguments:
            super().save(arguments)
            self.write(pickle.REDUCE)


def weight_file(root: object, storages: dict[str, np.ndarray]) -> bytes:
    """A weight file as PyTorch wrote it before 1.6."""
    out = io.BytesIO()
    for part in (MAGIC, PROTOCOL, {"little_endian": True}, root, list(storages)):
        _Writer(out, 2).dump(part)
    for numbers in storages.values():
        out.write(struct.pack("<q", len(numbers)) + numbers.tobytes())
    return out.getvalue()


def tensor(
    key: str, length: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> _Named:
    """A float tensor over the storage `key`."""
    kind = _Named("torch", "FloatStorage")
    storage = _Storage(("storage", kind, key, "cpu", length, None))
    return _Named(
        "torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, OrderedDict()
    )


class Files(unittest.TestCase):
    """Gives each test a folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def written(self, content: bytes) -> Path:
        path = self.folder / "weights.pth"
        path.write_bytes(content)
        return path


class WeightFiles(Files):
    numbers = np.arange(6, dtype="<f4")

    def file_with(self, view: _Named) -> bytes:
        return weight_file(OrderedDict(w=view), {"0": self.numbers})

    def test_a_strided_view_is_read_in_its_own_order(self) -> None:
        path = self.written(self.file_with(tensor("0", 6, 1, (2, 2), (1, 2))))
        self.assertEqual(read_weights(path)["w"].tolist(), [[1, 3], [2, 4]])

    def test_a_view_beyond_its_storage_is_damage(self) -> None:
        for view in (tensor("0", 6, 3, (4,), (1,)), tensor("0", 6, -1, (2,), (1,))):
            with self.assertRaisesRegex(Problem, "outside its storage"):
                read_weights(self.written(self.file_with(view)))

    def test_nothing_that_the_file_names_is_run(self) -> None:
        mark = self.folder / "mark"
        for call in (
            _Named("os", "mkdir", str(mark)),
            _Named("posix", "mkdir", str(mark)),
            _Named("builtins", "eval", f"__import__('os').mkdir({str(mark)!r})"),
        ):
            content = weight_file(OrderedDict(w=call), {})
            with self.assertRaisesRegex(Problem, "nothing of it was run"):
                read_weights(self.written(content))
        self.assertFalse(mark.exists())
        # The same bytes do make the folder when they are read without the allow-list.
        stream = io.BytesIO(weight_file(_Named("os", "mkdir", str(mark)), {}))
        for _ in range(4):
            pickle.load(stream)
        self.assertTrue(os.path.isdir(mark))

    def test_every_cut_is_told_as_damage(self) -> None:
        whole = self.file_with(tensor("0", 6, 0, (6,), (1,)))
        for length in range(len(whole)):
            with self.assertRaises(Problem, msg=f"cut at {length}"):
                read_weights(self.written(whole[:length]))


class Geometry(unittest.TestCase):
    def test_a_known_similarity_is_found(self) -> None:
        template = np.array(pack.entry("mobilefacenet").embedding["template"])
        turn, scale, shift = 0.4, 1.7, np.array([13.0, -5.0])
        linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = faces.similarity(template, template @ linear.T + shift)
        np.testing.assert_allclose(matrix, np.column_stack([linear, shift]), atol=1e-9)

    def test_a_mirrored_face_is_not_mirrored_back(self) -> None:
        template = np.array(pack.entry("mobilefacenet").embedding["template"])
        matrix = faces.similarity(template * [-1, 1], template)
        self.assertGreater(np.linalg.det(matrix[:, :2]), 0)

    def test_a_warp_moves_pixels_and_fills_with_black(self) -> None:
        pixels = np.random.default_rng(0).uniform(1, 255, (9, 9, 3)).astype(np.float32)
        moved = faces.warp(pixels, np.array([[1.0, 0, 2], [0, 1, 3]]), 9)
        np.testing.assert_allclose(moved[3:, 2:], pixels[:6, :7], rtol=1e-5)
        self.assertEqual(float(np.abs(moved[:3]).max()), 0.0)
        self.assertEqual(float(np.abs(moved[:, :2]).max()), 0.0)

    def test_the_two_halves_share_no_picture(self) -> None:
        for pictures in (512, 513, 5373):
            first, second = faces.split(pictures, 256)
            taken = [set(range(c.start, pictures, c.step)) for c in (first, second)]
            self.assertTrue(taken[0].isdisjoint(taken[1]))
            self.assertGreaterEqual(min(map(len, taken)), 256)
        with self.assertRaises(Problem):
            faces.split(511, 256)


class Comparison(Files):
    """On a network of one convolution with the input and output of the liveness models."""

    model = pack.entry("minifasnet-v2")

    def network(self, name: str, factor: float) -> Path:
        weight = np.full((3, 3, 80, 80), factor, np.float32)
        graph = Graph({"w.weight": weight, "w.bias": np.arange(3, dtype=np.float32)})
        graph.name_output(graph.add_node("Flatten", [graph.conv("input", "w", Window())]), "logits")
        to = self.folder / name
        save(graph, "test", {"input": ["batch", 3, 80, 80]}, {"logits": ["batch", 3]}, to)
        return to

    def difference(self, factor: float) -> compare.Difference:
        inputs = compare.inputs_for(self.model.input, 5, [])
        files = self.network("a.onnx", 1e-4 * factor), self.network("b.onnx", 1e-4)
        (found,) = compare.differences(self.model, *files, inputs)
        return found

    def test_equal_files_have_no_difference_and_the_same_bytes(self) -> None:
        found = self.difference(1.0)
        self.assertEqual((found.inputs, found.absolute, found.relative), (10, 0.0, 0.0))
        self.assertEqual(
            (self.folder / "a.onnx").read_bytes(), (self.folder / "b.onnx").read_bytes()
        )

    def test_a_thousandth_is_seen(self) -> None:
        self.assertAlmostEqual(self.difference(1.001).relative, 1e-3, delta=3e-4)

    def test_inputs_are_the_same_every_time(self) -> None:
        for name in ("minifasnet-v2", "facemesh", "blendshapes"):
            given = pack.entry(name).input
            twice = [list(compare.inputs_for(given, 4, [])) for _ in range(2)]
            self.assertEqual(twice[0][0].shape, given.shape)
            np.testing.assert_array_equal(*twice)
            self.assertEqual(len({array.tobytes() for array in twice[0]}), 8)


if __name__ == "__main__":
    unittest.main()
