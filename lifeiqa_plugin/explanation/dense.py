"""The network's own opinion of every part of an image, and how its maps come back to pixels.

A convolutional backbone runs over the whole image at two sizes; the decoder, which costs next to nothing beside it,
then judges overlapping windows of the two feature maps. A backbone of fixed input size runs on overlapping crops
instead.

Letters in shapes: R and S rows and columns of windows, D distortions, E experts; H and W the image at its working size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lifeiqa_plugin.network.backbone import preprocessing_of
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.words import Floats


class WindowSize(NamedTuple):
    """How large the windows of one pass are."""

    scale: float  # of the image, 1 is its working size
    cells: int  # side in cells of the last stage
    weight: float = 1.0  # in the maps


WINDOW_SIZES = (WindowSize(1.0, 5, 3.0), WindowSize(1.5, 3, 1.0))
"""Windows of 160 and of 64 pixels of the working size, where a cell is 32. The large ones follow the score, but alone
miss what is distorted in the middle of a photo; the small ones find it, but alone take calm places for bad ones."""

FLAW_WEIGHT = 0.2
"""What a distortion named with certainty in one place only takes off the map there."""

OVERLAP = 4
"""Crops of a backbone of fixed size begin a quarter of their side apart."""


class WindowOutputs(NamedTuple):
    """What the decoder says of each window of one image."""

    scores: Floats  # (R, S)
    distortions: Floats  # (R, S, D), strengths in 0 .. 1
    gates: Floats  # (R, S, E), mean over the queries
    tops: list[int]  # R, in pixels
    lefts: list[int]  # S, in pixels
    shape: tuple[int, int]  # (height, width) of a window in pixels
    weight: float = 1.0  # in the maps


@torch.no_grad()
def score_all_windows(
    network: LifeIQA, x: Tensor, sizes: Sequence[WindowSize] = WINDOW_SIZES
) -> list[WindowOutputs]:
    """Score an image (1, 3, H, W) of working size in windows; ``network`` is in evaluation mode."""
    if preprocessing_of(network.config["backbone"]).is_fixed:
        return [_score_crops(network, x)]
    return [score_windows(network, x, size) for size in sizes]


@torch.no_grad()
def score_windows(network: LifeIQA, x: Tensor, size: WindowSize) -> WindowOutputs:
    """Score overlapping windows of one size of the features of an image (1, 3, H, W)."""
    shape = x.shape[-2:]
    if size.scale != 1:
        enlarged = [round(size.scale * length) for length in shape]
        x = F.interpolate(x, enlarged, mode="bicubic", antialias=True).clamp(0, 1)
    stages = network.stages_of(network.normalize(x))
    # A window begins at every cell of the last stage: R x S of them, in pixels by the size of a cell.
    rows, columns = stages[-1].shape[-2:]
    height, width = min(size.cells, rows), min(size.cells, columns)
    tops = list(range(rows - height + 1))
    lefts = list(range(columns - width + 1))
    said = _decode(network, [_cut_windows(stage, tops, lefts, height, width) for stage in stages])
    cell_height, cell_width = shape[0] / rows, shape[1] / columns
    return WindowOutputs(
        *_lay_out(said, len(tops), len(lefts)),
        [round(top * cell_height) for top in tops],
        [round(left * cell_width) for left in lefts],
        (round(height * cell_height), round(width * cell_width)),
        size.weight,
    )


def _lay_out(values: Iterable[Floats], rows: int, columns: int) -> tuple[Floats, Floats, Floats]:
    """Lay out what :func:`_decode` returns of R * S windows as these lie in the image, (R, S, ...)."""
    scores, distortions, gates = (each.reshape(rows, columns, *each.shape[1:]) for each in values)
    return scores, distortions, gates


def _cut_windows(
    stage: Tensor, tops: Sequence[int], lefts: Sequence[int], height: int, width: int
) -> Tensor:
    """Cut (1, C, H, W) into windows, (R * S, C, h, w); places and sizes are in cells of stage4."""
    scale = round(stage.shape[-1] / (lefts[-1] + width))  # 2 for stage3, as a rule
    high, wide = scale * height, scale * width
    windows = []
    for top in tops:
        for left in lefts:
            # Where a stage has a few cells less than that, the last window moves inside by so many.
            first = max(0, min(scale * top, stage.shape[-2] - high))
            begin = max(0, min(scale * left, stage.shape[-1] - wide))
            windows.append(stage[0, :, first : first + high, begin : begin + wide])
    return torch.stack(windows)


def _score_crops(network: LifeIQA, x: Tensor) -> WindowOutputs:
    side = network.crop_size
    tops = _even_steps(x.shape[-2] - side, side // OVERLAP)
    lefts = _even_steps(x.shape[-1] - side, side // OVERLAP)
    outputs = []
    for top in tops:
        row = torch.cat([x[..., top : top + side, left : left + side] for left in lefts])
        for chunk in row.split(network.chunk_size):
            outputs.append(_decode(network, network.stages_of(network.normalize(chunk))))
    said = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    return WindowOutputs(*_lay_out(said, len(tops), len(lefts)), tops, lefts, (side, side))


def _even_steps(room: int, step: int) -> list[int]:
    """Return positions from 0 to ``room``, evenly spaced and at most ``step`` apart."""
    count = math.ceil(room / step)
    return [round(i * room / max(count, 1)) for i in range(count + 1)]


def _decode(network: LifeIQA, stages: Sequence[Tensor]) -> tuple[Floats, Floats, Floats]:
    """Return the scores (N,), distortions (N, D) and gates (N, E) of N windows."""
    output = network.decoder(*stages)
    scores = network.to_range(output.query_scores.float().mean(1))
    distortions = output.distortion_logits.float().sigmoid()
    gates = output.routing.gates.mean(1)
    return scores.numpy(force=True), distortions.numpy(force=True), gates.numpy(force=True)


def distortion_maps(passes: Sequence[WindowOutputs], height: int, width: int) -> Floats:
    """Return how firmly each distortion is named at each place, (D, H, W) in 0 .. 1."""
    return _mean(passes, [to_map(each, each.distortions, height, width) for each in passes])


def quality_map(
    passes: Sequence[WindowOutputs], distortions: Floats, height: int, width: int
) -> Floats:
    """Return the quality (H, W) of each place, in units of the score.

    It is the mean score of the windows, lower by up to ``FLAW_WEIGHT`` where a distortion is named more firmly than on
    average over the image, and higher where less. So a flaw of the whole image changes nothing, and the mean stays that
    of the scores.

    Args:
        passes: what :func:`score_all_windows` gives of the image.
        distortions: what :func:`distortion_maps` gives of them, (D, H, W).
        height: of the image.
        width: of the image.
    """
    quality = _mean(passes, [to_map(each, each.scores, height, width) for each in passes])
    if len(distortions):
        flaw = distortions.max(0)
        quality -= np.float32(FLAW_WEIGHT) * (flaw - flaw.mean())
    return quality


def _mean(passes: Sequence[WindowOutputs], maps: list[Floats]) -> Floats:
    mean: Floats = np.average(maps, axis=0, weights=[each.weight for each in passes])
    return mean.astype(np.float32)


def to_map(windows: WindowOutputs, values: Floats, height: int, width: int) -> Floats:
    """Lay values (R, S, ...) of windows over the image: at each pixel the mean over the windows that cover it.

    Windows count most in their middle (a Hann window), so that the map has no steps.

    Returns:
        (..., H, W), within the range of the values.
    """
    # Weighted sum of what covers a pixel over the sum of the weights there.
    weight = _hann(windows.shape[0])[:, None] * _hann(windows.shape[1])
    total = np.zeros((*values.shape[2:], height, width), dtype=np.float32)
    weights = np.zeros((height, width), dtype=np.float32)
    for i, top in enumerate(windows.tops):
        for j, left in enumerate(windows.lefts):
            place = np.s_[..., top : top + windows.shape[0], left : left + windows.shape[1]]
            fitting = weight[: height - top, : width - left]
            total[place] += values[i, j][..., None, None] * fitting
            weights[place] += fitting
    return (total / weights).astype(np.float32, copy=False)


def _hann(length: int) -> Floats:
    """Return a bell of (length,) that is above zero at its ends too."""
    middles = (np.arange(length, dtype=np.float32) + 0.5) / length
    bell: Floats = np.sin(np.pi * middles) ** 2 + np.float32(1e-3)
    return bell


def attention_to_pixels(
    attention: Tensor,
    offsets: list[tuple[int, int]],
    crop_shape: tuple[int, int],
    shape: tuple[int, int],
) -> Floats:
    """Lay the attention (N, L, Q, M) of N crops over the image.

    Returns:
        (L, Q, H, W); 1 where a query looks as much as it would if it looked everywhere alike.
    """
    crops, layers, queries, tokens = attention.shape
    grid = math.isqrt(tokens)
    # Attention sums to 1 over the tokens, so times their number an even one is 1.
    even = attention.reshape(crops, layers * queries, grid, grid) * tokens
    enlarged = F.interpolate(even, crop_shape, mode="bilinear").numpy(force=True)
    total = np.zeros((layers * queries, *shape), dtype=np.float32)
    covered = np.zeros(shape, dtype=np.float32)
    for crop, (top, left) in zip(enlarged, offsets, strict=True):
        place = np.s_[..., top : top + crop_shape[0], left : left + crop_shape[1]]
        total[place] += crop
        covered[place] += 1
    return (total / covered).reshape(layers, queries, *shape)
