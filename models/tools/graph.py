"""Writes ONNX graphs of plain convolutional networks from named weights.

The layouts are ONNX's own (batch, channels, rows, columns). Batch normalisation is folded into the
convolution before it, in float32 and in the order of operations of PyTorch's exporter: most folded
weights come out bit for bit as in a file that PyTorch exported, the others one unit in the last
place off. Only correctly rounded operations are used, so the same weights give the same bytes on
every machine (with the library versions of `requirements.txt`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from problems import Problem
from weights import Weights

# What the other files of the packs use; ONNX Runtime 1.17 and later read it.
OPSET = 13
IR_VERSION = 7
PRODUCER = "facelatch models/tools"

Shape = Sequence[int | str]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Window:
    """How a convolution moves; `padding` is the same on all four sides."""

    stride: int = 1
    padding: int = 0
    group: int = 1


class Graph:
    """A network under construction: methods add a node and answer the name of its output."""

    def __init__(self, weights: Weights, epsilon: float = 1e-5) -> None:
        self.weights = weights
        self.epsilon = np.float32(epsilon)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def take(self, name: str) -> np.ndarray:
        """The weight of that name; a missing one is a sign of another architecture."""
        if name not in self.weights:
            raise Problem(f"the weight file has no `{name}`: it is of another network")
        return self.weights[name]

    def constant(self, values: np.ndarray, name: str | None = None) -> str:
        """Stores an array in the file."""
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add_node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Any node with one output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def convolve(self, x: str, weight: np.ndarray, bias: np.ndarray, window: Window) -> str:
        """A convolution with square stride and padding."""
        inputs = [x, self.constant(weight), self.constant(bias)]
        return self.add_node(
            "Conv",
            inputs,
            kernel_shape=list(weight.shape[2:]),
            strides=[window.stride] * 2,
            pads=[window.padding] * 4,
            group=window.group,
        )

    def conv(self, x: str, name: str, window: Window = Window()) -> str:
        """A convolution with the weight and the bias of that name."""
        return self.convolve(x, self.take(f"{name}.weight"), self.take(f"{name}.bias"), window)

    def conv_norm(self, x: str, conv: str, norm: str, window: Window = Window()) -> str:
        """A convolution followed by batch normalisation, as one node."""
        scale, shift = self.normalisation(norm)
        weight = self.take(f"{conv}.weight")
        bias = self.weights.get(f"{conv}.bias", np.zeros(len(weight), np.float32))
        mean = self.take(f"{norm}.running_mean")
        folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        return self.convolve(x, folded, (bias - mean) * scale + shift, window)

    def normalisation(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Factor and summand of a batch normalisation; the mean is subtracted before them."""
        spread = np.sqrt(self.take(f"{name}.running_var") + self.epsilon)
        return self.take(f"{name}.weight") / spread, self.take(f"{name}.bias")

    def prelu(self, x: str, name: str) -> str:
        """A rectifier with a learnt slope per channel."""
        return self.add_node("PRelu", [x, self.constant(self.take(name).reshape(-1, 1, 1))])

    def relu6(self, x: str) -> str:
        """A rectifier that ends at 6."""
        return self.add_node("Clip", [x, self._scalar("zero", 0.0), self._scalar("six", 6.0)])

    def relu(self, x: str) -> str:
        """A rectifier."""
        return self.add_node("Relu", [x])

    def add(self, a: str, b: str) -> str:
        """A sum."""
        return self.add_node("Add", [a, b])

    def _scalar(self, name: str, value: float) -> str:
        if all(known.name != name for known in self.initializers):
            self.constant(np.array(value, np.float32), name)
        return name

    def name_output(self, x: str, name: str) -> None:
        """Gives the output of a node, not read by another one, its public name."""
        for node in self.nodes:
            if x in node.output:
                node.output[list(node.output).index(x)] = name


def float_value(name: str, shape: Shape) -> onnx.ValueInfoProto:
    """The declaration of an input or output; a text in the shape is a free dimension."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def save(graph: Graph, title: str, inputs: Shapes, outputs: Shapes, to: Path) -> None:
    """Checks the finished graph and writes it."""
    made = helper.make_graph(
        graph.nodes,
        title,
        [float_value(name, shape) for name, shape in inputs.items()],
        [float_value(name, shape) for name, shape in outputs.items()],
        graph.initializers,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    model.producer_name = PRODUCER
    onnx.checker.check_model(model, full_check=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(model.SerializeToString(deterministic=True))
