"""Images of any size to the crops that the network sees: no random numbers, no pixel left out.

An image is first brought to its working size, then cut into equal squares on an even grid that touches all four edges.
Shapes and corners are plain numbers: runtimes without torch ask for them, so torch is imported where it cuts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_ASPECT = 8
"""Images more elongated than 8:1 are squeezed to 8:1, so that a 1 x 10,000 strip stays a bounded amount of work."""


def working_shape(height: int, width: int, crop_size: int, working_size: int) -> tuple[int, int]:
    """Return the (height, width) at which an image is scored.

    The shorter side is brought into ``crop_size .. working_size`` by the smallest change that does it, the longer one
    follows in proportion; an image that fits already keeps its size.
    """
    short = min(height, width)
    long = max(height, width)
    new_short = min(max(short, crop_size), working_size)
    in_proportion = round(long * new_short / short)
    longest = MAX_ASPECT * new_short
    new_long = min(max(in_proportion, new_short), longest)
    if height > width:
        return new_long, new_short
    return new_short, new_long


def to_working_size(x: Tensor, crop_size: int, working_size: int) -> Tensor:
    """Resize (B, C, H, W) to its working shape, bicubic and antialiased; an image that fits is returned untouched."""
    import torch.nn.functional as F

    height, width = x.shape[-2:]
    shape = working_shape(height, width, crop_size, working_size)
    if shape == (height, width):
        return x
    resized = F.interpolate(x, shape, mode="bicubic", antialias=True)
    return resized.clamp(0.0, 1.0)  # bicubic overshoots


def crop_offsets(
    height: int, width: int, crop_size: int, num_crops: int | None = None
) -> list[tuple[int, int]]:
    """Return the (top, left) corners of the crops, row by row.

    Args:
        height: of the image, at least ``crop_size``.
        width: of the image, at least ``crop_size``.
        crop_size: side of a crop.
        num_crops: None for the fewest that cover every pixel; a number for the evenest grid of at most that many.

    Raises:
        ValueError: the image is smaller than a crop, or ``num_crops`` is below 1.
    """
    if min(height, width) < crop_size:
        raise ValueError(
            f"image must be at least {crop_size} x {crop_size}, got {height} x {width}; resize it first"
        )
    if num_crops is None:
        rows = math.ceil(height / crop_size)
        cols = math.ceil(width / crop_size)
    elif num_crops < 1:
        raise ValueError(f"num_crops must be None or at least 1, got {num_crops}")
    else:
        rows, cols = _even_grid(height, width, num_crops)
    tops = _even_offsets(height, crop_size, rows)
    lefts = _even_offsets(width, crop_size, cols)
    return [(top, left) for top in tops for left in lefts]


def cut_crops(x: Tensor, offsets: list[tuple[int, int]], crop_size: int) -> Tensor:
    """Cut (B, C, H, W) into (B * N, C, crop_size, crop_size), the N crops of an image next to each other."""
    import torch

    crops = []
    for top, left in offsets:
        crops.append(x[..., top : top + crop_size, left : left + crop_size])  # (B, C, S, S)
    together = torch.stack(crops, dim=1)  # (B, N, C, S, S)
    return together.flatten(0, 1)


def _even_offsets(length: int, crop_size: int, count: int) -> list[int]:
    """Return ``count`` different positions from one edge to the other, or the middle if there is only one."""
    room = length - crop_size
    count = min(count, room + 1)
    if count == 1:
        return [room // 2]
    return [round(i * room / (count - 1)) for i in range(count)]


def _even_grid(height: int, width: int, num_crops: int) -> tuple[int, int]:
    """Return the (rows, cols) with at most ``num_crops`` cells.

    Cells less than twice as long as wide come first, then most cells, then squarest cells.
    """

    # False sorts before True, and less unevenness before more
    def rank(grid: tuple[int, int]) -> tuple[bool, int, float]:
        rows, cols = grid
        unevenness = abs(math.log(height * cols / (width * rows)))
        return unevenness > math.log(2), -rows * cols, unevenness

    grids = [(rows, num_crops // rows) for rows in range(1, num_crops + 1)]
    return min(grids, key=rank)
