"""The network's own opinion of every part of an image, and how its maps come back to pixels.

A convolutional backbone runs once over the whole image; the decoder, which costs next to nothing beside it, then judges
overlapping windows of the two feature maps. A backbone of fixed input size runs on overlapping crops instead.

Letters in shapes: R and S rows and columns of windows, D distortions, E experts; H and W the image at its working size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lifeiqa_plugin.network.backbone import preprocessing_of
from lifeiqa_plugin.network.lifeiqa import LifeIQA

Floats = NDArray[np.float32]

WINDOW = 5
"""Side of a window in cells of the last stage: 160 pixels where a cell is 32. Smaller windows follow the score less
well, larger ones blur the map (``measurements/explanations.py``)."""

OVERLAP = 4
"""Crops of a backbone of fixed size begin a quarter of their side apart."""


class Windows(NamedTuple):
    """What the decoder says of each window of one image."""

    scores: Floats  # (R, S)
    gates: Floats  # (R, S, E), mean over the queries
    tops: list[int]  # R, in pixels
    lefts: list[int]  # S, in pixels
    shape: tuple[int, int]  # (height, width) of a window in pixels


@torch.no_grad()
def score_windows(network: LifeIQA, x: Tensor, window: int = WINDOW) -> Windows:
    """Judge overlapping windows of an image (1, 3, H, W) at its working size; ``network`` is in evaluation mode."""
    if preprocessing_of(network.config["backbone"]).is_fixed:
        return _score_crops(network, x)
    return _score_cells(network, x, window)


def _score_cells(network: LifeIQA, x: Tensor, window: int) -> Windows:
    stage3, stage4 = _features(network, x)
    rows, columns = stage4.shape[-2:]
    scale = round(stage3.shape[-1] / columns)  # cells of stage3 in one of stage4, 2 as a rule
    height, width = min(window, rows), min(window, columns)
    tops = list(range(rows - height + 1))
    lefts = list(range(columns - width + 1))
    near, deep = [], []
    for top in tops:
        for left in lefts:
            # Where stage3 has an odd number of cells, the last window moves inside by one.
            top3 = max(0, min(scale * top, stage3.shape[-2] - scale * height))
            left3 = max(0, min(scale * left, stage3.shape[-1] - scale * width))
            near.append(stage3[0, :, top3 : top3 + scale * height, left3 : left3 + scale * width])
            deep.append(stage4[0, :, top : top + height, left : left + width])
    scores, gates = _decode(network, torch.stack(near), torch.stack(deep))
    cell_height, cell_width = x.shape[-2] / rows, x.shape[-1] / columns
    return Windows(
        scores.reshape(len(tops), len(lefts)),
        gates.reshape(len(tops), len(lefts), -1),
        [round(top * cell_height) for top in tops],
        [round(left * cell_width) for left in lefts],
        (round(height * cell_height), round(width * cell_width)),
    )


def _score_crops(network: LifeIQA, x: Tensor) -> Windows:
    side = network.crop_size
    tops = _even_steps(x.shape[-2] - side, side // OVERLAP)
    lefts = _even_steps(x.shape[-1] - side, side // OVERLAP)
    scores, gates = [], []
    for top in tops:
        row = torch.cat([x[..., top : top + side, left : left + side] for left in lefts])
        for chunk in row.split(network.chunk_size):
            score, gate = _decode(network, *_features(network, chunk))
            scores.append(score)
            gates.append(gate)
    shape = (len(tops), len(lefts))
    return Windows(
        np.concatenate(scores).reshape(shape),
        np.concatenate(gates).reshape(*shape, -1),
        tops,
        lefts,
        (side, side),
    )


def _even_steps(room: int, step: int) -> list[int]:
    """Return positions from 0 to ``room``, evenly spaced and at most ``step`` apart."""
    count = math.ceil(room / step)
    return [round(i * room / max(count, 1)) for i in range(count + 1)]


def _features(network: LifeIQA, x: Tensor) -> tuple[Tensor, Tensor]:
    x = ((x - network.mean) / network.std).contiguous(memory_format=torch.channels_last)
    stage3, stage4 = network.backbone(x)
    if getattr(network.backbone, "output_fmt", None) == "NHWC":
        return stage3.permute(0, 3, 1, 2), stage4.permute(0, 3, 1, 2)
    return stage3, stage4


def _decode(network: LifeIQA, stage3: Tensor, stage4: Tensor) -> tuple[Floats, Floats]:
    """Return the scores (N,) and gates (N, E) of N windows."""
    output = network.decoder(stage3, stage4)
    scores = network.to_range(output.query_scores.float().mean(1))
    return scores.numpy(force=True), output.routing.gates.mean(1).numpy(force=True)


def spread(windows: Windows, values: Floats, height: int, width: int) -> Floats:
    """Lay values (R, S, ...) of windows over the image: at each pixel the mean over the windows that cover it.

    Windows count most in their middle (a Hann window), so that the map has no steps.

    Returns:
        (..., H, W), within the range of the values.
    """
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
    even = attention.reshape(crops, layers * queries, grid, grid) * tokens
    enlarged = F.interpolate(even, crop_shape, mode="bilinear").numpy(force=True)
    total = np.zeros((layers * queries, *shape), dtype=np.float32)
    covered = np.zeros(shape, dtype=np.float32)
    for crop, (top, left) in zip(enlarged, offsets, strict=True):
        place = np.s_[..., top : top + crop_shape[0], left : left + crop_shape[1]]
        total[place] += crop
        covered[place] += 1
    return (total / covered).reshape(layers, queries, *shape)
