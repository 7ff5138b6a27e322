"""At which size an image is scored, and where its crops lie: numbers only, no torch."""

from __future__ import annotations

import math

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


def _even_offsets(length: int, crop_size: int, count: int) -> list[int]:
    """Return ``count`` different positions from one edge to the other, or the middle if there is only one."""
    room = length - crop_size
    count = min(count, room + 1)
    if count == 1:
        return [room // 2]
    return [round(i * room / (count - 1)) for i in range(count)]


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


def _even_grid(height: int, width: int, num_crops: int) -> tuple[int, int]:
    """Return the (rows, cols) with at most ``num_crops`` cells.

    Cells less than twice as long as wide come first, then most cells, then squarest cells.
    """

    def rank(grid: tuple[int, int]) -> tuple[bool, int, float]:
        rows, cols = grid
        unevenness = abs(math.log(height * cols / (width * rows)))
        return unevenness > math.log(2), -rows * cols, unevenness

    grids = [(rows, num_crops // rows) for rows in range(1, num_crops + 1)]
    return min(grids, key=rank)
