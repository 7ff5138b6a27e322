"""Pixels that are made a few rows at a time, so that no array is as large as the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

ROWS = 64
"""Rows that are made at a time where all are wanted."""


class Strips:
    """An array whose rows are made whenever they are asked for.

    Args:
        make: rows of each source, an image of a Pillow image -> these rows (N, W) or (N, W, 3).
        sources: of one height.
    """

    def __init__(self, make: Callable[..., Array], *sources: Pixels) -> None:
        self._make, self._sources = make, sources
        first = make(*(cut(source, 0, 1) for source in sources))
        self.shape = (shape_of(sources[0])[0], *first.shape[1:])
        self.dtype = first.dtype

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(self.shape[0])
        return self._make(*(cut(source, start, stop) for source in self._sources))

    def parts(self) -> Iterator[Array]:
        """Yield all rows, ``ROWS`` at a time."""
        for start in range(0, self.shape[0], ROWS):
            yield self[start : start + ROWS]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        whole = np.empty(self.shape, dtype or self.dtype)
        for start, part in zip(range(0, self.shape[0], ROWS), self.parts(), strict=True):
            whole[start : start + ROWS] = part
        return whole


Pixels: TypeAlias = "Array | Image.Image | Strips"
"""(H, W, 3) uint8, or float32 in [0, 1]; or a Pillow image of mode RGB, which is never copied as a whole."""


def shape_of(pixels: Pixels) -> tuple[int, int]:
    """Return (height, width)."""
    if isinstance(pixels, Image.Image):
        return pixels.height, pixels.width
    return pixels.shape[0], pixels.shape[1]


def cut(pixels: Pixels, start: int, stop: int) -> Array | Image.Image:
    """Return some rows; of a Pillow image they are one too."""
    if isinstance(pixels, Image.Image):
        return pixels.crop((0, start, pixels.width, stop))
    return pixels[start:stop]


def as_array(pixels: Pixels) -> Array:
    """Return all rows; Pillow itself would hold them twice meanwhile."""
    return np.asarray(Strips(np.asarray, pixels) if isinstance(pixels, Image.Image) else pixels)
