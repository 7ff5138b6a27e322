"""ONNX: what our operators are there, weights as float16 where that loses nothing, and the description inside."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import opset18, optimizer

from lifeiqa_plugin.export.graph import AnySizeGraph, export_program
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.runtimes.metadata import KEY, Metadata

op: Any = opset18  # its types are those of eager numbers, and here it records a graph

EXAMPLE = (384, 512)
"""Height and width that are traced; no operation keeps them."""

LARGEST_FOLDED = 256
"""Bytes of a constant up to which operations on it are done beforehand."""

PREFIXES = ("network.backbone.inner.", "backbone."), ("network.", "")
"""What the names of weights begin with in the graph, and in a checkpoint."""


def build_onnx(network: LifeIQA, outputs: tuple[str, ...], metadata: Metadata) -> onnx.ModelProto:
    """Return the graph with all weights inside, as float32: (B, 3, H, W) images -> ``outputs``, every B, H and W."""
    program = export_program(AnySizeGraph(network, outputs), torch.rand(2, 3, *EXAMPLE))
    exported = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=list(outputs),
        custom_translation_table=TRANSLATIONS,
        optimize=False,  # would compute with the example's size
        verbose=False,
    )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: onnx.ModelProto = exported.model_proto
    _resolve_types(model.graph)
    _forget_the_example(model)
    model = _simplify(model)
    set_metadata(model, metadata)
    model.producer_name, model.producer_version = "lifeiqa", metadata.version
    return model


def set_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Put the description into the file, in place of one that is there."""
    del model.metadata_props[:]
    helper.set_model_props(model, {KEY: metadata.to_json()})


def _resolve_types(graph: onnx.GraphProto) -> None:
    """Take out what keeps ONNX Runtime from folding BatchNorm and clipping into convolutions: half of its time.

    The exporter casts each bound of a clip to the type that the network computes, and gives a convolution without bias
    one that is expanded from such a 0. Both are made constants, the type being known.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "CastLike":
            to = types.get(node.input[1], TensorProto.FLOAT)
            node.CopyFrom(helper.make_node("Cast", node.input[:1], node.output, node.name, to=to))
        elif node.op_type == "Conv" and len(node.input) == 3:
            maker = makers.get(node.input[2])
            if maker is not None and maker.op_type == "Expand":  # of 0; a true one is a weight
                del node.input[2]


def _simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold small constants: what the exporter left open, while weights stay what they are in the checkpoint."""
    graph = onnx_ir.from_proto(model)
    optimizer.fold_constants(graph, input_size_limit=LARGEST_FOLDED)
    optimizer.remove_unused_nodes(graph)
    simplified: onnx.ModelProto = onnx_ir.to_proto(graph)
    _forget_the_example(simplified)
    return simplified


def _forget_the_example(model: onnx.ModelProto) -> None:
    """Take out shapes of the example, and the tracer's notes, which hold paths of this machine."""
    graph = model.graph
    del graph.value_info[:]
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
        graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for output in graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "batch"


def halve_where_exact(model: onnx.ModelProto) -> None:
    """Keep weights as float16, and widen them in the graph, where each number is one of float16."""
    widened = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 2:
            continue
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        widened.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def link_weights(model: onnx.ModelProto, checkpoint: Path) -> None:
    """Replace each weight that ``checkpoint``, a safetensors file, holds byte for byte by a reference to it.

    The file that is written must lie in the checkpoint's folder, and both together are the model.

    Raises:
        ValueError: no weight is the same in both.
    """
    content = checkpoint.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + length])
    linked = 0
    for tensor in model.graph.initializer:
        name = tensor.name.removesuffix(".half")
        for prefix, own in PREFIXES:
            if name.startswith(prefix):
                name = own + name.removeprefix(prefix)
        if name not in entries:
            continue
        begin, end = (8 + length + offset for offset in entries[name]["data_offsets"])
        if content[begin:end] != numpy_helper.to_array(tensor).tobytes():
            continue
        onnx.external_data_helper.set_external_data(tensor, checkpoint.name, begin, end - begin)
        tensor.ClearField("raw_data")
        linked += 1
    if not linked:
        raise ValueError(f"{checkpoint}: no safetensors file with the weights of this network")


def _same_conv(x: Any, weight: Any, bias: Any, stride: Any, dilation: Any, groups: int) -> Any:
    return op.Conv(
        x, weight, bias, auto_pad="SAME_UPPER", strides=stride, dilations=dilation, group=groups
    )


def _pool_to_grid(x: Any, grid: int) -> Any:
    rows, cols = _cells(x, 2, grid), _cells(x, 3, grid)
    return op.MatMul(op.MatMul(rows, x), op.Transpose(cols, perm=[1, 0]))


def _cells(x: Any, axis: int, grid: int) -> Any:
    """(grid, length of the axis): row i averages from floor(i L / grid) to ceil((i + 1) L / grid), as torch does."""
    length = op.Shape(x, start=axis, end=axis + 1)
    begin = _ints(*range(grid)) * length / _ints(grid)
    end = (_ints(*range(1, grid + 1)) * length + _ints(grid - 1)) / _ints(grid)
    place = op.Range(_int(0), op.Squeeze(length), _int(1))
    after = op.GreaterOrEqual(place, op.Unsqueeze(begin, _ints(1)))
    before = op.Less(place, op.Unsqueeze(end, _ints(1)))
    inside = op.Cast(op.And(after, before), to=TensorProto.FLOAT)
    return inside / op.ReduceSum(inside, _ints(1), keepdims=1)


def _cut_crops(images: Any, size: int) -> Any:
    down, across = _even_places(images, 2, size), _even_places(images, 3, size)
    crops = op.Gather(
        op.Gather(images, down, axis=2), across, axis=4
    )  # (B, C, rows, size, cols, size)
    crops = op.Transpose(crops, perm=[0, 2, 4, 1, 3, 5])
    shape = op.Concat(_ints(-1), op.Shape(images, start=1, end=2), _ints(size, size), axis=0)
    return op.Reshape(crops, shape)


def _even_places(images: Any, axis: int, size: int) -> Any:
    """(crops along the axis, size): which pixels each crop takes, as ``crop_offsets`` says."""
    length = op.Shape(images, start=axis, end=axis + 1)
    count = (length + _ints(size - 1)) / _ints(size)
    gaps = op.Cast(op.Max(count - _ints(1), _ints(1)), to=TensorProto.FLOAT)
    room = op.Cast(length - _ints(size), to=TensorProto.FLOAT)
    number = op.Cast(op.Range(_int(0), op.Squeeze(count), _int(1)), to=TensorProto.FLOAT)
    offsets = op.Cast(op.Round(number * room / gaps), to=TensorProto.INT64)
    return op.Unsqueeze(offsets, _ints(1)) + _ints(*range(size))


def _per_image(x: Any, images: Any) -> Any:
    batch = op.Shape(images, start=0, end=1)
    channels = op.Shape(x, start=1, end=2)
    return op.Reshape(x, op.Concat(batch, _ints(-1), channels, axis=0))


def _int(value: int) -> Any:
    return op.Constant(value_int=value)


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.lifeiqa.same_conv.default: _same_conv,
    torch.ops.lifeiqa.pool_to_grid.default: _pool_to_grid,
    torch.ops.lifeiqa.cut_crops.default: _cut_crops,
    torch.ops.lifeiqa.per_image.default: _per_image,
}
