"""The network from images to scores as one module of tensors only, fit for ``torch.export``.

ONNX files take images of any size. Four steps depend on that size; as ordinary tensor operations they would either be
frozen at the size of the example or lead the symbolic shapes of ``torch.export`` into minutes of algebra. Here each of
them is one operator of our own, and ``onnx_file.py`` says what it is in ONNX.

Letters in shapes: B images, N crops of each, Q queries, D distortions.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from lifeiqa_plugin.network.backbone import run_backbone
from lifeiqa_plugin.network.crops import crop_offsets, cut_crops
from lifeiqa_plugin.network.decoder import pool_to_grid
from lifeiqa_plugin.network.lifeiqa import LifeIQA


class ScoringGraph(nn.Module):
    """Images (B, 3, H, W) in [0, 1] at their working size -> score (B,), std (B,), distortions (B, D), as asked for.

    Args:
        network: is used as it is, in evaluation mode.
        outputs: some of ``OUTPUTS``, in any order.
    """

    def __init__(self, network: LifeIQA, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network.eval()
        self.outputs = outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Score the images; they are not checked."""
        crops = images if self.network.whole_image else self.cut(images)
        output = self.network.forward_crops(crops)
        query_scores = self.per_image(output.query_scores, images)  # (B, N, Q)
        spread = self.network.to_range(query_scores).std((1, 2), correction=0)  # (B,)
        offset, slope = self.network.std_calibration or (math.nan, math.nan)
        values = {
            "score": self.network.to_range(query_scores.mean(2)).mean(1),
            "std": offset + slope * spread,
        }
        if "distortions" in self.outputs:
            logits = self.per_image(output.distortion_logits, images)  # (B, N, D)
            values["distortions"] = logits.sigmoid().mean(1)
        return tuple(values[name] for name in self.outputs)

    def cut(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B * N, 3, crop_size, crop_size)."""
        height, width = images.shape[2:]
        size = self.network.crop_size
        return cut_crops(images, crop_offsets(height, width, size), size)

    def per_image(self, x: Tensor, images: Tensor) -> Tensor:
        """(B * N, C) -> (B, N, C)."""
        values: Tensor = x.unflatten(0, (images.shape[0], -1))
        return values


def export_program(graph: ScoringGraph, images: Tensor) -> torch.export.ExportedProgram:
    """Trace a graph with two images or more (B, 3, H, W); the program takes any B."""
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        return torch.export.export(
            graph, (images,), dynamic_shapes={"images": {0: batch}}, strict=False
        )


class AnySizeGraph(ScoringGraph):
    """The same for any H and W, by means of our operators; holds a copy of the network."""

    def __init__(self, network: LifeIQA, outputs: tuple[str, ...]) -> None:
        network = copy.deepcopy(network).cpu().float()
        for module in list(network.backbone.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Conv2dSame):
                    setattr(module, name, SameConv(child))
        network.backbone = PooledBackbone(network.backbone, network.decoder.config.memory_grid)
        super().__init__(network, outputs)

    def cut(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B * N, 3, crop_size, crop_size)."""
        crops: Tensor = cut_crops_op(images, self.network.crop_size)
        torch._check(crops.shape[0] > 1)  # for the tracer, which must not take it for 0 or 1
        return crops

    def per_image(self, x: Tensor, images: Tensor) -> Tensor:
        """(B * N, C) -> (B, N, C)."""
        values: Tensor = per_image_op(x, images)
        return values


class SameConv(nn.Module):
    """A convolution whose padding depends on the size, as ``padding="same"`` of TensorFlow."""

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        out: Tensor = same_conv_op(
            x, self.weight, self.bias, self.stride, self.dilation, self.groups
        )
        return out


class PooledBackbone(nn.Module):
    """A backbone whose stage 3 is on the decoder's grid already, where the decoder's own pooling changes nothing."""

    def __init__(self, inner: nn.Module, grid: int) -> None:
        super().__init__()
        self.inner = inner
        self.grid = grid

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the stages, (B, C3, grid, grid) and (B, C4, H4, W4) last."""
        *lower, stage3, stage4 = run_backbone(self.inner, x)
        return [*lower, pool_op(stage3, self.grid), stage4]


@torch.library.custom_op("lifeiqa::same_conv", mutates_args=())
def same_conv_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
    padded = pad_same(x, list(weight.shape[2:]), stride, dilation)
    return F.conv2d(padded, weight, bias, stride, 0, dilation, groups)


@same_conv_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    height, width = (-(-length // step) for length, step in zip(x.shape[2:], stride, strict=True))
    return x.new_empty(x.shape[0], weight.shape[0], height, width)


@torch.library.custom_op("lifeiqa::pool_to_grid", mutates_args=())
def pool_op(x: Tensor, grid: int) -> Tensor:
    """(B, C, H, W) -> (B, C, grid, grid)."""
    return pool_to_grid(x, grid)


@pool_op.register_fake
def _(x: Tensor, grid: int) -> Tensor:
    return x.new_empty(*x.shape[:2], grid, grid)


@torch.library.custom_op("lifeiqa::cut_crops", mutates_args=())
def cut_crops_op(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) -> (B * N, 3, size, size)."""
    height, width = images.shape[2:]
    return cut_crops(images, crop_offsets(height, width, size), size)


@cut_crops_op.register_fake
def _(images: Tensor, size: int) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()  # not to be derived from B and the example
    return images.new_empty(count, images.shape[1], size, size)


@torch.library.custom_op("lifeiqa::per_image", mutates_args=())
def per_image_op(x: Tensor, images: Tensor) -> Tensor:
    """(B * N, C) -> (B, N, C)."""
    values: Tensor = x.unflatten(0, (images.shape[0], -1)).clone()
    return values


@per_image_op.register_fake
def _(x: Tensor, images: Tensor) -> Tensor:
    batch = images.shape[0]
    return x.new_empty(batch, x.shape[0] // batch, x.shape[1])
