"""Turns the TFLite networks inside MediaPipe's `face_landmarker.task` into ONNX.

Covers the operations that those two networks use and refuses any other. TFLite keeps channels last
and ONNX convolutions want them first: a value stays in the layout that made it (`Value.first`), and
a transposition is written only where the next operation needs the other one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite

from graph import Graph, save
from problems import Problem

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
# An entry of the bundle is below 3 MB; a zip bomb is not a network.
MEMBER_BYTES_MAX = 64 * 1024 * 1024

DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
OPERATIONS = {code: name for name, code in vars(tflite.BuiltinOperator).items() if name.isupper()}
ELEMENTWISE = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}
UNARY = {"LOGISTIC": "Sigmoid", "NEG": "Neg", "SQRT": "Sqrt"}


@dataclass(frozen=True)
class Value:
    """An intermediate result; `first` tells that it has four dimensions, channels first."""

    name: str
    first: bool = False


@dataclass(frozen=True)
class Step:
    """One operation of the TFLite graph: indices of its tensors and its settings."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    operator: tflite.Operator

    def settings(self, kind: Any) -> Any:
        """The settings table of that type."""
        table = self.operator.BuiltinOptions()
        if table is None:
            raise Problem(f"an operation {self.kind} of the bundle has no settings")
        settings = kind()
        settings.Init(table.Bytes, table.Pos)
        return settings


def read_member(bundle: Path, member: str) -> bytes:
    """One file of the `.task` bundle, which is a zip archive."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            if archive.getinfo(member).file_size > MEMBER_BYTES_MAX:
                raise Problem(f"{member} in {bundle} is over {MEMBER_BYTES_MAX} bytes")
            return archive.read(member)
    except (zipfile.BadZipFile, KeyError) as err:
        raise Problem(f"{bundle} has no readable {member}: {err}") from err


def convert(bundle: Path, member: str, title: str, to: Path) -> None:
    """Converts one network of the bundle; the names of inputs and outputs are kept."""
    _Converter(read_member(bundle, member)).run(title, to)


class _Converter:
    def __init__(self, content: bytes) -> None:
        self.model = tflite.Model.GetRootAs(content, 0)
        self.tensors = self.model.Subgraphs(0)
        self.graph = Graph({})
        self.values: dict[int, Value] = {}
        self.arrays: dict[int, np.ndarray] = {}
        self.turned: dict[tuple[str, bool], str] = {}

    def run(self, title: str, to: Path) -> None:
        """Converts every operation in order and writes the file."""
        inputs, outputs = self.tensors.InputsAsNumpy(), self.tensors.OutputsAsNumpy()
        for index in inputs:
            self.values[index] = Value(self.name(index))
        for number in range(self.tensors.OperatorsLength()):
            self.convert(self.step(number))
        for index in outputs:
            last = self.graph.add_node("Identity", [self.last(index)])
            self.graph.name_output(last, self.name(index))
        save(
            self.graph,
            title,
            {self.name(i): self.shape(i) for i in inputs},
            {self.name(i): self.shape(i) for i in outputs},
            to,
        )

    # ------------------------------------------------------------------- reading the TFLite side

    def step(self, number: int) -> Step:
        operator = self.tensors.Operators(number)
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        kind = OPERATIONS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")
        inputs = tuple(int(i) for i in operator.InputsAsNumpy())
        return Step(kind, inputs, int(operator.Outputs(0)), operator)

    def name(self, index: int) -> str:
        return self.tensors.Tensors(index).Name().decode()

    def shape(self, index: int) -> list[int]:
        tensor = self.tensors.Tensors(index)
        return [tensor.Shape(i) for i in range(tensor.ShapeLength())]

    def array(self, index: int) -> np.ndarray:
        """A constant; half precision is widened, which loses nothing."""
        if index not in self.arrays:
            self.arrays[index] = self.stored(index)
        return self.arrays[index]

    def stored(self, index: int) -> np.ndarray:
        tensor = self.tensors.Tensors(index)
        raw = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if tensor.Type() not in DTYPES or isinstance(raw, int):
            raise Problem(f"tensor {self.name(index)} of the bundle is no constant of a known type")
        array = np.frombuffer(raw.tobytes(), DTYPES[tensor.Type()]).reshape(self.shape(index))
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def is_constant(self, index: int) -> bool:
        return index not in self.values

    # ------------------------------------------------------------------------------- the layouts

    def last(self, index: int) -> str:
        """The value in TFLite's own layout."""
        if self.is_constant(index):
            return self.graph.constant(self.array(index))
        return self.turn(self.values[index], first=False)

    def first(self, index: int) -> str:
        """A value of four dimensions with its channels first."""
        if self.is_constant(index):
            return self.graph.constant(_channels_first(self.array(index)))
        return self.turn(self.values[index], first=True)

    def turn(self, value: Value, first: bool) -> str:
        if value.first == first:
            return value.name
        key = (value.name, first)
        if key not in self.turned:
            perm = TO_FIRST if first else TO_LAST
            self.turned[key] = self.graph.add_node("Transpose", [value.name], perm=perm)
        return self.turned[key]

    # ---------------------------------------------------------------------------- the operations

    def convert(self, step: Step) -> None:
        if step.kind == "DEQUANTIZE":
            self.arrays[step.output] = self.array(step.inputs[0])
            return
        known: dict[str, Callable[[Step], Value]] = {
            "CONV_2D": self.convolution,
            "DEPTHWISE_CONV_2D": self.depthwise,
            "MAX_POOL_2D": self.max_pool,
            "PAD": self.pad,
            "PRELU": self.elementwise,
            "SQUARED_DIFFERENCE": self.squared_difference,
            "RSQRT": self.reciprocal_root,
            "MEAN": self.reduce,
            "SUM": self.reduce,
            "RESHAPE": self.reshape,
            "TRANSPOSE": self.transpose,
            "STRIDED_SLICE": self.strided_slice,
            "CONCATENATION": self.concatenation,
        }
        known |= {kind: self.elementwise for kind in ELEMENTWISE}
        known |= {kind: self.unary for kind in UNARY}
        if step.kind not in known:
            raise Problem(f"the bundle uses {step.kind}, which these tools do not convert")
        self.values[step.output] = known[step.kind](step)

    def convolution(self, step: Step) -> Value:
        options = step.settings(tflite.Conv2DOptions)
        return self.filtered(step, options, self.array(step.inputs[1]).transpose(0, 3, 1, 2), 1)

    def depthwise(self, step: Step) -> Value:
        options = step.settings(tflite.DepthwiseConv2DOptions)
        weight = self.array(step.inputs[1]).transpose(3, 0, 1, 2)
        return self.filtered(step, options, weight, self.shape(step.inputs[0])[3])

    def filtered(self, step: Step, options: Any, weight: np.ndarray, group: int) -> Value:
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            raise Problem("the bundle has a dilated convolution, which these tools do not convert")
        kernel, strides = list(weight.shape[2:]), [options.StrideH(), options.StrideW()]
        inputs = [self.first(step.inputs[0]), self.graph.constant(weight)]
        inputs.append(self.graph.constant(self.array(step.inputs[2])))
        pads = self.pads(step, options.Padding(), kernel, strides)
        made = self.graph.add_node(
            "Conv", inputs, kernel_shape=kernel, strides=strides, pads=pads, group=group
        )
        return Value(self.activated(made, options.FusedActivationFunction()), first=True)

    def pads(self, step: Step, padding: int, kernel: list[int], strides: list[int]) -> list[int]:
        """TFLite's SAME: the odd cell goes to the end; the beginnings come first in ONNX."""
        if padding == tflite.Padding.VALID:
            return [0, 0, 0, 0]
        before, after = self.shape(step.inputs[0])[1:3], self.shape(step.output)[1:3]
        sizes = zip(before, after, kernel, strides, strict=True)
        sums = [max((out - 1) * stride + k - size, 0) for size, out, k, stride in sizes]
        return [n // 2 for n in sums] + [n - n // 2 for n in sums]

    def activated(self, x: str, activation: int) -> str:
        if activation == tflite.ActivationFunctionType.NONE:
            return x
        if activation == tflite.ActivationFunctionType.RELU:
            return self.graph.relu(x)
        raise Problem(f"the bundle has activation {activation}, which these tools do not convert")

    def max_pool(self, step: Step) -> Value:
        options = step.settings(tflite.Pool2DOptions)
        kernel = [options.FilterHeight(), options.FilterWidth()]
        strides = [options.StrideH(), options.StrideW()]
        pads = self.pads(step, options.Padding(), kernel, strides)
        x = self.first(step.inputs[0])
        made = self.graph.add_node("MaxPool", [x], kernel_shape=kernel, strides=strides, pads=pads)
        return Value(self.activated(made, options.FusedActivationFunction()), first=True)

    def pad(self, step: Step) -> Value:
        around = self.array(step.inputs[1])[TO_FIRST].T.astype(np.int64).ravel()
        inputs = [self.first(step.inputs[0]), self.graph.constant(around)]
        return Value(self.graph.add_node("Pad", inputs), first=True)

    def elementwise(self, step: Step) -> Value:
        """Stays channels first where every computed input is; constants follow."""
        computed = [i for i in step.inputs if not self.is_constant(i)]
        first = all(self.values[i].first for i in computed)
        inputs = [self.first(i) if first else self.last(i) for i in step.inputs]
        kind = ELEMENTWISE.get(step.kind, "PRelu")
        return Value(self.activated(self.graph.add_node(kind, inputs), _activation(step)), first)

    def unary(self, step: Step) -> Value:
        value = self.values[step.inputs[0]]
        return Value(self.graph.add_node(UNARY[step.kind], [value.name]), value.first)

    def squared_difference(self, step: Step) -> Value:
        difference = self.graph.add_node("Sub", [self.last(i) for i in step.inputs])
        return Value(self.graph.add_node("Mul", [difference, difference]))

    def reciprocal_root(self, step: Step) -> Value:
        root = self.graph.add_node("Sqrt", [self.last(step.inputs[0])])
        return Value(self.graph.add_node("Reciprocal", [root]))

    def reduce(self, step: Step) -> Value:
        keep = int(step.settings(tflite.ReducerOptions).KeepDims())
        x, axes = self.last(step.inputs[0]), self.array(step.inputs[1]).ravel().astype(np.int64)
        if step.kind == "SUM":
            inputs = [x, self.graph.constant(axes)]
            return Value(self.graph.add_node("ReduceSum", inputs, keepdims=keep))
        return Value(self.graph.add_node("ReduceMean", [x], axes=axes.tolist(), keepdims=keep))

    def reshape(self, step: Step) -> Value:
        shape = np.array(self.shape(step.output), np.int64)
        inputs = [self.last(step.inputs[0]), self.graph.constant(shape)]
        return Value(self.graph.add_node("Reshape", inputs))

    def transpose(self, step: Step) -> Value:
        perm = self.array(step.inputs[1]).tolist()
        return Value(self.graph.add_node("Transpose", [self.last(step.inputs[0])], perm=perm))

    def concatenation(self, step: Step) -> Value:
        axis = step.settings(tflite.ConcatenationOptions).Axis()
        inputs = [self.last(i) for i in step.inputs]
        return Value(self.graph.add_node("Concat", inputs, axis=axis))

    def strided_slice(self, step: Step) -> Value:
        options = step.settings(tflite.StridedSliceOptions)
        if options.EllipsisMask() or options.NewAxisMask():
            raise Problem("the bundle has a slice with ellipsis or new axis: not converted")
        begin, end, stride = (self.array(i).astype(np.int64) for i in step.inputs[1:])
        begin = np.where(_bits(options.BeginMask(), len(begin)), 0, begin)
        end = np.where(_bits(options.EndMask(), len(end)), np.iinfo(np.int64).max, end)
        dropped = _bits(options.ShrinkAxisMask(), len(begin))
        # A dropped axis means one cell, whatever its end says; the last cell has no cell after it.
        after = np.where(begin == -1, np.iinfo(np.int64).max, begin + 1)
        end = np.where(dropped, after, end)
        parts = [begin, end, np.arange(len(begin)), stride]
        inputs = [self.last(step.inputs[0])] + [self.graph.constant(part) for part in parts]
        x = self.graph.add_node("Slice", inputs)
        if dropped.any():
            x = self.graph.add_node("Squeeze", [x, self.graph.constant(np.flatnonzero(dropped))])
        return Value(x)


def _channels_first(array: np.ndarray) -> np.ndarray:
    """A constant that is combined with a channels-first value: widened to 4 dimensions."""
    return array.reshape([1] * (4 - array.ndim) + list(array.shape)).transpose(TO_FIRST)


def _activation(step: Step) -> int:
    kinds = {
        "ADD": tflite.AddOptions,
        "SUB": tflite.SubOptions,
        "MUL": tflite.MulOptions,
        "DIV": tflite.DivOptions,
    }
    if step.kind not in kinds:
        return tflite.ActivationFunctionType.NONE
    return step.settings(kinds[step.kind]).FusedActivationFunction()


def _bits(mask: int, count: int) -> np.ndarray:
    return np.array([mask >> i & 1 for i in range(count)], bool)
