"""The architectures behind the upstream `.pth` and `.pt` files, in our own words.

Read from the names and shapes of the weights and from the papers; checked by comparing outputs with
the files of the packs (`convert.py compare`), which PyTorch exported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graph import Graph, Shapes, Window, save
from weights import Weights

THREE_BY_THREE = Window(padding=1)


# ------------------------------------------------------------------------------- MobileFaceNet

# foamliu's variant of Chen et al. 2018, arXiv 1804.07573, table 1: the stride of each bottleneck.
# It rectifies with ReLU6 where the paper has PReLU.
MOBILEFACENET_STRIDES = (2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1)


def mobilefacenet(weights: Weights, to: Path) -> None:
    """`input` [N,3,112,112] to `embedding` [N,128], not normalised."""
    graph = Graph(weights)
    x = graph.relu6(graph.conv_norm("input", "conv1.0", "conv1.1", Window(stride=2, padding=1)))
    channels = len(graph.take("dw_conv.depthwise.weight"))
    depthwise = Window(padding=1, group=channels)
    x = graph.relu(graph.conv_norm(x, "dw_conv.depthwise", "dw_conv.bn1", depthwise))
    x = graph.relu(graph.conv_norm(x, "dw_conv.pointwise", "dw_conv.bn2"))
    for number, stride in enumerate(MOBILEFACENET_STRIDES):
        x = _bottleneck(graph, x, f"features.{number}.conv", stride)
    x = graph.relu6(graph.conv_norm(x, "conv2.0", "conv2.1"))
    whole_map = Window(group=len(graph.take("gdconv.depthwise.weight")))
    x = graph.conv_norm(x, "gdconv.depthwise", "gdconv.bn", whole_map)
    x = graph.conv_norm(x, "conv3", "bn")
    graph.name_output(graph.add_node("Flatten", [x]), "embedding")
    inputs: Shapes = {"input": ["batch", 3, 112, 112]}
    outputs: Shapes = {"embedding": ["batch", 128]}
    save(graph, "mobilefacenet", inputs, outputs, to)


def _bottleneck(graph: Graph, x: str, name: str, stride: int) -> str:
    """Widen, filter each channel, narrow; with a short cut where nothing changes size."""
    wide = graph.relu6(graph.conv_norm(x, f"{name}.0.0", f"{name}.0.1"))
    channels = len(graph.take(f"{name}.1.0.weight"))
    window = Window(stride, 1, channels)
    filtered = graph.relu6(graph.conv_norm(wide, f"{name}.1.0", f"{name}.1.1", window))
    narrow = graph.conv_norm(filtered, f"{name}.2", f"{name}.3")
    return graph.add(x, narrow) if stride == 1 else narrow


# ---------------------------------------------------------------------------------- MiniFASNet


def minifasnet(weights: Weights, to: Path) -> None:
    """`input` [N,3,80,80] to `logits` [N,3], for V2 and V1SE.

    V1SE has squeeze-and-excitation in the last block of each stage; the weights tell which.
    """
    graph = Graph({name.removeprefix("module."): array for name, array in weights.items()})
    x = _conv_block(graph, "input", "conv1", Window(stride=2, padding=1))
    x = _conv_block(graph, x, "conv2_dw", Window(padding=1, group=32))
    for entry, stage in (("conv_23", "conv_3"), ("conv_34", "conv_4"), ("conv_45", "conv_5")):
        x = _inverted(graph, x, entry, stride=2)
        x = _stage(graph, x, f"{stage}.model")
    x = _conv_block(graph, x, "conv_6_sep", Window())
    channels = len(graph.take("conv_6_dw.conv.weight"))
    x = graph.conv_norm(x, "conv_6_dw.conv", "conv_6_dw.bn", Window(group=channels))
    graph.name_output(_classify(graph, graph.add_node("Flatten", [x])), "logits")
    save(graph, "minifasnet", {"input": ["batch", 3, 80, 80]}, {"logits": ["batch", 3]}, to)


def _conv_block(graph: Graph, x: str, name: str, window: Window) -> str:
    normed = graph.conv_norm(x, f"{name}.conv", f"{name}.bn", window)
    return graph.prelu(normed, f"{name}.prelu.weight")


def _inverted(graph: Graph, x: str, name: str, stride: int) -> str:
    wide = _conv_block(graph, x, f"{name}.conv", Window())
    channels = len(graph.take(f"{name}.conv_dw.conv.weight"))
    filtered = _conv_block(graph, wide, f"{name}.conv_dw", Window(stride, 1, channels))
    return graph.conv_norm(filtered, f"{name}.project.conv", f"{name}.project.bn")


def _stage(graph: Graph, x: str, name: str) -> str:
    number = 0
    while f"{name}.{number}.conv.conv.weight" in graph.weights:
        block = f"{name}.{number}"
        y = _inverted(graph, x, block, stride=1)
        if f"{block}.se_module.fc1.weight" in graph.weights:
            y = _excite(graph, y, f"{block}.se_module")
        x = graph.add(x, y)
        number += 1
    return x


def _excite(graph: Graph, x: str, name: str) -> str:
    """Squeeze and excitation: each channel is weighed by what the whole map shows."""
    mean = graph.add_node("GlobalAveragePool", [x])
    few = graph.relu(graph.conv_norm(mean, f"{name}.fc1", f"{name}.bn1"))
    gate = graph.add_node("Sigmoid", [graph.conv_norm(few, f"{name}.fc2", f"{name}.bn2")])
    return graph.add_node("Mul", [x, gate])


def _classify(graph: Graph, x: str) -> str:
    """Two layers without bias, with batch normalisation between them."""
    x = graph.add_node("MatMul", [x, graph.constant(graph.take("linear.weight").T)])
    scale, shift = graph.normalisation("bn")
    x = graph.add_node("Sub", [x, graph.constant(graph.take("bn.running_mean"))])
    x = graph.add_node("Mul", [x, graph.constant(scale)])
    x = graph.add_node("Add", [x, graph.constant(shift)])
    return graph.add_node("MatMul", [x, graph.constant(graph.take("prob.weight").T)])


# ---------------------------------------------------------------------------------- AIZOO mask

# Keras' batch normalisation, from which these weights came, has this epsilon.
AIZOO_EPSILON = 1e-3
# Maps of 33, 17, 9, 5 and 3 cells a side, 4 anchors a cell.
AIZOO_ANCHORS = 4 * (33**2 + 17**2 + 9**2 + 5**2 + 3**2)


def aizoo_mask(weights: Weights, to: Path) -> None:
    """`input` [1,3,260,260] to `loc` [1,5972,4] and `conf` [1,5972,2] (sigmoid applied)."""
    graph = Graph(weights, AIZOO_EPSILON)
    maps = _aizoo_maps(graph)
    loc = [_aizoo_head(graph, x, f"loc_{i}", values=4) for i, x in enumerate(maps)]
    conf = [_aizoo_head(graph, x, f"cls_{i}", values=2) for i, x in enumerate(maps)]
    graph.name_output(graph.add_node("Concat", loc, axis=1), "loc")
    scores = graph.add_node("Sigmoid", [graph.add_node("Concat", conf, axis=1)])
    graph.name_output(scores, "conf")
    outputs = {"loc": [1, AIZOO_ANCHORS, 4], "conf": [1, AIZOO_ANCHORS, 2]}
    save(graph, "aizoo_mask", {"input": [1, 3, 260, 260]}, outputs, to)


def _aizoo_maps(graph: Graph) -> list[str]:
    """The five feature maps, from fine to coarse."""
    x, maps = "input", []
    for number in range(8):
        # The last layer alone has no padding: 5 cells become 3.
        window = THREE_BY_THREE if number < 7 else Window()
        x = graph.relu(graph.conv_norm(x, f"conv2d_{number}", f"conv2d_{number}_bn", window))
        if number >= 3:
            maps.append(x)
        if number < 6:
            x = _halve(graph, x, odd=number >= 2)
    return maps


def _halve(graph: Graph, x: str, odd: bool) -> str:
    """The maximum of 2 by 2 cells; a map of odd size counts its last row and column alone."""
    end = 1 if odd else 0
    return graph.add_node(
        "MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, end, end]
    )


def _aizoo_head(graph: Graph, x: str, name: str, values: int) -> str:
    """`values` numbers for each anchor of each cell, cells row by row."""
    inner = f"{name}_insert_conv2d"
    x = graph.relu(graph.conv_norm(x, inner, f"{inner}_bn", THREE_BY_THREE))
    x = graph.conv(x, f"{name}_conv", THREE_BY_THREE)
    x = graph.add_node("Transpose", [x], perm=[0, 2, 3, 1])
    shape = graph.constant(np.array([1, -1, values], np.int64))
    return graph.add_node("Reshape", [x, shape])
