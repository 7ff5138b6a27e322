"""One of many images to the size at which it is scored; one that cannot be read is an item like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.images.folders import note_pair
from lifeiqa_plugin.images.reading import MAX_PIXELS, Source, decode_resized
from lifeiqa_plugin.images.refusals import ImageError

MIN_SIDE = 64
"""Pixels of the shorter side of an image below which nothing can be said of its quality."""

TOO_SMALL = "too small to judge"


class Named(NamedTuple):
    """An image and what it is called.

    Attributes:
        name: its path, or the archive's and what it is called there, or any other.
        source: the image, or an error if it is known not to be readable.
        size: of its file in bytes; None if that is not known.
        mtime: when the file that holds it was changed, in seconds since 1970; None if that is not known.
        key: what an image of an archive is called there: WebDataset's key, or what names the row of a table.
    """

    name: str
    source: Source | ImageError
    size: int | None = None
    mtime: float | None = None
    key: str | None = None


class Prepared(NamedTuple):
    """An image at its working size, or the reason why there is none; width, height and notes are the file's."""

    name: str
    width: int = 0
    height: int = 0
    image: NDArray[np.float32] | None = None  # (3, h, w) in [0, 1]
    error: str | None = None
    notes: tuple[str, ...] = ()
    part: NDArray[np.float32] | None = None  # (3, s, s), of a large image


@dataclass(frozen=True)
class Recipe:
    """How an image is made ready.

    Attributes:
        working_shape: (height, width) of an image -> the shape at which it is scored.
        shrink_to: times the working size that a JPEG keeps at least where its decoder may shrink it; None for all.
        max_pixels: images with more are refused.
        detail: whether the part of a large image that has most detail is cut out, too.
        max_memory: images for which a process would take more bytes are refused; None for no limit.
    """

    working_shape: Callable[[int, int], tuple[int, int]]
    shrink_to: float | None = None
    max_pixels: int = MAX_PIXELS
    detail: bool = False
    max_memory: int | None = None

    def __call__(self, named: Named) -> Prepared:
        """Decode and resize; never raises for a bad image."""
        name, source = named.name, named.source
        try:
            if isinstance(source, ImageError):
                raise source
            ready = decode_resized(
                source,
                self.working_shape,
                at_least=self.at_least,
                max_pixels=self.max_pixels,
                max_memory=self.max_memory,
                part_size=self.working_size if self.detail else 0,
            )
        except ImageError as error:
            return Prepared(name, error=error.reason or str(error))
        except MemoryError:
            return Prepared(name, error="not enough memory to decode it")
        except TypeError as error:
            return Prepared(name, error=str(error))
        notes = ready.notes + note_pair(source)
        if min(ready.width, ready.height) < MIN_SIDE:
            notes += (TOO_SMALL,)
        return Prepared(name, ready.width, ready.height, ready.pixels, None, notes, ready.part)

    @property
    def working_size(self) -> int:
        """Shorter side to which large images are reduced."""
        return min(self.working_shape(100_000, 100_000))

    @property
    def at_least(self) -> int | None:
        """Pixels of the shorter side that a JPEG decoder leaves; None for all."""
        if self.shrink_to is None:
            return None
        return round(self.shrink_to * self.working_size)
