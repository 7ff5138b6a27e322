"""Convolutions in 8 bits: less than half of the time, for scores that differ by some .00x.

Static quantization in ONNX's own notation: ``QuantizeLinear`` and ``DequantizeLinear`` around a convolution, which
runtimes turn into integer arithmetic. Weights have a scale for each channel, activations one for each tensor, from
the least to the largest value that the calibration images bring about. What stays float32: the first convolutions,
which see the pixels, and the decoder.

Rounding shifts the mean of every channel, and such shifts add up over sixty layers. So each bias is corrected by the
shift that its layer shows on the calibration images, from the first layer to the last, in one pass.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, 4.2.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from lifeiqa_plugin.correlation import correlations
from lifeiqa_plugin.export.onnx_file import PREFIXES
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.resizing import resize
from lifeiqa_plugin.images.stream import Named, Recipe
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.runtimes import Engine
from lifeiqa_plugin.runtimes.onnxruntime_engine import OnnxRuntimeEngine
from lifeiqa_plugin.runtimes.torch_engine import TorchEngine

FLOAT_CONVOLUTIONS = 2
"""At the beginning; half of the error would be that of the second one, the first on each channel by itself."""

LARGEST_WEIGHT = 127
"""Of a channel, as int8."""

STEPS = 255
"""Between the ends of an activation's range, as uint8."""

MAX_MEDIAN = 0.02
"""By which scores may differ, as far as a file is written at all."""

LARGEST_BIAS = 2**30
"""As int32, whose step is that of the input times that of the weights."""


class Range(NamedTuple):
    """Between which values a tensor lies; 0 is one of them, since padding has to be exact."""

    low: float
    high: float

    @property
    def step(self) -> float:
        """How far two neighbouring 8-bit values are apart."""
        return max(self.high - self.low, 1e-6) / STEPS

    @property
    def zero(self) -> int:
        """The 8-bit value that stands for 0."""
        return round(-self.low / self.step)


class Layer(NamedTuple):
    """A convolution that is quantized, and its tensors by their names in the graph."""

    name: str  # in the backbone
    made: str  # what the convolution returns
    input: str
    output: str  # what is quantized: ``made``, or what a clip makes of it


@dataclass
class Calibration:
    """What calibration images say: ranges by tensor, corrected biases by layer."""

    ranges: dict[str, Range]
    biases: dict[str, NDArray[np.float32]]


def quantize(model: onnx.ModelProto, network: LifeIQA, images: Tensor) -> None:
    """Quantize the convolutions of a graph in place.

    Args:
        model: what :func:`~lifeiqa_plugin.export.onnx_file.build_onnx` made of ``network``.
        network: with BatchNorm folded into its convolutions.
        images: (B, 3, H, W) in [0, 1] of all kinds, for calibration.

    Raises:
        ValueError: there are no convolutions but the first.
    """
    layers = _find_layers(model.graph)[FLOAT_CONVOLUTIONS:]
    if not layers:
        raise ValueError("int8 is for backbones of convolutions, and this one has none to quantize")
    _rewrite(model.graph, layers, calibrate(layers, network, images))


def _find_layers(graph: onnx.GraphProto) -> list[Layer]:
    """Return all convolutions, in the order in which they run."""
    convs = [node for node in graph.node if node.op_type == "Conv"]
    inputs = {conv.input[0] for conv in convs}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    layers = []
    for conv in convs:
        (output,) = conv.output
        after = users[output]
        if (
            len(after) == 1
            and after[0].op_type in ("Clip", "Relu")
            and after[0].output[0] in inputs
        ):
            output = after[0].output[0]
        name = conv.input[1].removeprefix(PREFIXES[0][0]).removesuffix(".weight")
        layers.append(Layer(name, conv.output[0], conv.input[0], output))
    return layers


def load_crops(paths: list[str], side: int) -> Tensor:
    """Return the squares in the middle of images as (B, 3, side, side).

    Raises:
        ImageError: one cannot be read.
    """
    crops = []
    for path in paths:
        pixels = decode(path).pixels
        height, width = pixels.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        crops.append(resize(pixels[top : top + short, left : left + short], (side, side)))
    return torch.from_numpy(np.stack(crops))


class Differences(NamedTuple):
    """How far scores are from those of float32."""

    photos: int
    median: float
    largest: float
    srcc: float

    def __str__(self) -> str:
        return (
            f"scores of {self.photos} other photos differ from float32 by a median of {self.median:.4f}, "
            f"at most {self.largest:.4f}; SRCC {self.srcc:.4f}"
        )


def find_differences(network: LifeIQA, path: Path, photos: list[str]) -> Differences:
    """Compare a file with the network on photos that it was not calibrated with.

    Raises:
        ValueError: it is so far off that something is wrong.
    """
    engines: tuple[Engine, ...] = TorchEngine(network), OnnxRuntimeEngine(path, "cpu")
    recipe = Recipe(engines[0].working_shape)
    scores: list[list[float]] = [[], []]
    for photo in photos:
        prepared = recipe(Named(photo, photo))
        if prepared.image is None:
            raise ValueError(f"{photo}: {prepared.error}")
        for engine, found in zip(engines, scores, strict=True):
            found.append(float(engine.score(prepared.image[None]).score[0]))
    exact, rounded = map(np.array, scores)
    error = np.abs(exact - rounded)
    srcc = correlations(rounded, exact)["srcc"]
    differences = Differences(len(photos), float(np.median(error)), float(error.max()), srcc)
    if not differences.median <= MAX_MEDIAN:
        raise ValueError(f"this network cannot be quantized so: {differences}")
    return differences


@torch.no_grad()
def calibrate(layers: list[Layer], network: LifeIQA, images: Tensor) -> Calibration:
    """Find the ranges, and the biases with which each channel of each layer keeps its mean over the images."""
    found = Calibration({}, {})
    means: dict[str, Tensor] = {}

    def watch(layer: Layer, _: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        means[layer.name] = _channel_means(out)
        found.ranges[layer.input] = _range_of(inputs[0])
        if layer.output == layer.made:
            found.ranges[layer.output] = _range_of(out)

    def imitate(layer: Layer, conv: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        steps = _weight_steps(conv.weight)
        conv.weight.copy_((conv.weight / steps).round() * steps)
        return (_round(inputs[0], found.ranges[layer.input]),)

    def correct(layer: Layer, conv: Any, _: tuple[Tensor, ...], out: Tensor) -> Tensor:
        shift = means[layer.name] - _channel_means(out)
        found.biases[layer.name] = (conv.bias + shift).numpy()
        out += shift[:, None, None]
        return _round(out, found.ranges[layer.output]) if layer.output == layer.made else out

    network = copy.deepcopy(network)
    convs: dict[str, Any] = dict(network.backbone.named_modules())
    watching = [convs[layer.name].register_forward_hook(partial(watch, layer)) for layer in layers]
    # Once in float32, to see ranges and means; then once rounded, each layer corrected before the next one runs.
    network.forward_crops(images)
    for handle in watching:
        handle.remove()
    for layer in layers:
        convs[layer.name].register_forward_pre_hook(partial(imitate, layer))
        convs[layer.name].register_forward_hook(partial(correct, layer))
    network.forward_crops(images)
    return found


def _channel_means(x: Tensor) -> Tensor:
    return x.mean((0, 2, 3))


def _range_of(x: Tensor) -> Range:
    low, high = x.aminmax()
    return Range(min(low.item(), 0.0), max(high.item(), 0.0))


def _round(x: Tensor, span: Range) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, span.step, span.zero, 0, STEPS)


def _weight_steps(weight: Tensor) -> Tensor:
    """(C', C, H, W) -> (C', 1, 1, 1)."""
    return weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-9) / LARGEST_WEIGHT


def _rewrite(graph: onnx.GraphProto, layers: list[Layer], found: Calibration) -> None:
    """Put the 8-bit weights into the graph, and a rounding behind each tensor that convolutions read or write."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    by_output = {layer.made: layer for layer in layers}
    clips = {layer.output for layer in layers} - by_output.keys()
    nodes = []
    for node in graph.node:
        (first, *_) = node.output
        layer = by_output.get(first)
        if layer is not None:
            weight = numpy_helper.to_array(weights[node.input[1]])
            constants, inputs = _round_layer(layer, weight, found)
            graph.initializer.extend(constants)
            nodes += inputs
            del node.input[1:]
            node.input.extend(made.output[0] for made in inputs)
        # What reads a rounded tensor reads it after its rounding.
        for i, name in enumerate(node.input):
            if name in found.ranges:
                node.input[i] = f"{name}.rounded"
        if first not in clips:  # the rounding clips
            nodes.append(node)
        if first in found.ranges:
            graph.initializer.extend(_constants_of(first, found.ranges[first]))
            source = node.input[0] if first in clips else first
            nodes += _round_nodes(first, source)
    # Copied, since protobuf frees what is deleted from a graph.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _constants_of(name: str, span: Range) -> list[onnx.TensorProto]:
    values = {"step": np.float32(span.step), "zero": np.uint8(span.zero)}
    return [numpy_helper.from_array(np.array(v), f"{name}.{k}") for k, v in values.items()]


def _round_nodes(name: str, source: str) -> list[onnx.NodeProto]:
    scale = [f"{name}.step", f"{name}.zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *scale], [f"{name}.8bit"]),
        helper.make_node("DequantizeLinear", [f"{name}.8bit", *scale], [f"{name}.rounded"]),
    ]


def _round_layer(
    layer: Layer, weight: NDArray[np.float32], found: Calibration
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Return a layer's weights as constants, and the nodes that make a weight and a bias of them."""
    bias, step = found.biases[layer.name], found.ranges[layer.input].step
    steps = _weight_steps(torch.tensor(weight)).numpy()[:, 0, 0, 0]
    # A bias has the step of input times weight; where that is too small for int32, the weight's is widened.
    steps = np.maximum(steps, np.abs(bias) / (LARGEST_BIAS * step)).astype(np.float32)
    rounded = np.round(weight / steps[:, None, None, None]).astype(np.int8)
    bias_steps = (steps * np.float32(step)).astype(np.float32)
    rounded_bias = np.round(bias / bias_steps).astype(np.int32)
    constants, nodes = [], []
    for kind, values, scale in (("weight", rounded, steps), ("bias", rounded_bias, bias_steps)):
        name = f"{layer.name}.{kind}"
        zeros = np.zeros(len(values), values.dtype)
        for suffix, array in {"8bit": values, "step": scale, "zero": zeros}.items():
            constants.append(numpy_helper.from_array(array, f"{name}.{suffix}"))
        inputs = [constant.name for constant in constants[-3:]]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.rounded"], axis=0))
    return constants, nodes
