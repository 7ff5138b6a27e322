"""To the working size without torch, and without rounding to 8 bits, which alone moves scores by up to .07."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lifeiqa_plugin.images.strips import Pixels, cut, shape_of

STRIP = 32
"""Rows that are made floating point at a time: few enough for a core's cache."""

ALONE = 2**18
"""Products of two numbers below which OpenBLAS does not share the work among threads."""

HALVED = (-0.0278, 0.0640, 0.9276, 0.0640, -0.0278)
"""What takes libjpeg's half size to that of :func:`resize`: fitted to the spectra of eight photos."""


def resize(pixels: Pixels, shape: tuple[int, int], shrunk: int = 1) -> NDArray[np.float32]:
    """Resize by antialiased bicubic interpolation, to the numbers of torch's float64 within 1e-6.

    Args:
        pixels: see ``Pixels``.
        shape: (height, width); the pixels are not touched if they have it already.
        shrunk: how many pixels to a side a JPEG decoder has averaged for each; what that blurs is made up for.

    Returns:
        (3, height, width) float32 in [0, 1].
    """
    height, width = shape
    rows, columns = shape_of(pixels)
    if (rows, columns) == shape:
        planes = np.asarray(pixels).transpose(2, 0, 1)
    else:
        low = _resample(lambda a, b: np.asarray(cut(pixels, a, b)), rows, height, shrunk)
        low = low.reshape(height, columns, 3)
        small = _resample(lambda a, b: low[:, a:b].transpose(1, 2, 0), columns, width, shrunk)
        planes = small.reshape(width, 3, height).transpose(1, 2, 0)
    ready = np.array(planes, np.float32, order="C")
    if isinstance(pixels, Image.Image) or pixels.dtype == np.uint8:
        ready /= 255
    return ready.clip(0, 1, out=ready)


def soften(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur (C, H, W) that a JPEG decoder has halved, which leaves it sharper than :func:`resize` would."""
    for axis in (1, 2):
        room = [(0, 0), (0, 0), (0, 0)]
        room[axis] = (len(HALVED) // 2,) * 2
        wide = np.moveaxis(np.pad(planes, room, mode="edge"), axis, 0)
        length = planes.shape[axis]
        taps = (weight * wide[i : i + length] for i, weight in enumerate(HALVED))
        planes = np.moveaxis(sum(taps, start=np.float32(0)), 0, axis)
    return planes.clip(0, 1)


def _resample(
    read: Callable[[int, int], NDArray[Any]], length: int, new_length: int, shrunk: int
) -> NDArray[np.float32]:
    """Resample along one axis, as products of matrices.

    Args:
        read: (start, stop) -> that part of the axis, which comes first.
        length: of the axis.
        new_length: the same, afterwards.
        shrunk: as :func:`resize`.

    Returns:
        (new_length, N), where N is the product of the other axes.
    """
    resampled = np.zeros((new_length, 0), np.float32)
    for part in _parts(length, new_length, shrunk, STRIP):
        strip = np.ascontiguousarray(read(part.start, part.stop), np.float32)
        strip = strip.reshape(part.stop - part.start, -1)
        if part.start == 0:
            resampled = np.zeros((new_length, strip.shape[1]), np.float32)
        resampled[part.first : part.last] += _multiply(part.weights, strip)
    return resampled


def _multiply(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply matrices in this thread: those of BLAS would hold up every thread of a caller's."""
    product = np.empty((len(a), b.shape[1]), np.float32)
    width = max(ALONE // a.size, 16) // 16 * 16
    for start in range(0, b.shape[1], width):
        piece = slice(start, start + width)
        np.matmul(a, b[:, piece], out=product[:, piece])
    return product


class Part(NamedTuple):
    """A stretch of an axis, and what it adds to the stretch of the new axis that it reaches."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]  # (last - first, stop - start)


@functools.lru_cache(maxsize=16)
def _parts(length: int, new_length: int, shrunk: int, size: int) -> list[Part]:
    """Cut an axis into parts; the photos of a camera share them."""
    scale = length / new_length
    stretch = max(scale, 1.0)
    reach = 2 * stretch + (shrunk > 1)  # of the kernel, to either side
    centers = (np.arange(new_length) + 0.5) * scale - 0.5
    taps = np.floor(centers - reach)[:, None] + np.arange(2 * reach + 2)  # (new_length, T)
    inside = (taps >= 0) & (taps < length)
    totals = (_kernel(taps - centers[:, None], stretch, shrunk) * inside).sum(1, keepdims=True)
    parts = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        first, last = map(int, np.searchsorted(centers, (start - reach, stop + reach)))
        offsets = np.arange(start, stop) - centers[first:last, None]
        weights = _kernel(offsets, stretch, shrunk) / totals[first:last]
        parts.append(Part(start, stop, first, last, weights.astype(np.float32)))
    return parts


def _kernel(offsets: NDArray[np.float64], stretch: float, shrunk: int) -> NDArray[np.float64]:
    """Keys's cubic, of pixels that are ``offsets`` away; sharper by what the mean of n pixels blurs.

    That mean lets a frequency of f cycles a (shrunk) pixel pass by 1 - (1 - 1 / n^2) (pi f)^2 / 6 to second order,
    which a second difference of the kernel turns back into 1.
    """
    kernel = _cubic(offsets / stretch)
    share = (1 - 1 / shrunk**2) / 24
    if share:
        beside = _cubic((offsets - 1) / stretch) + _cubic((offsets + 1) / stretch)
        kernel = kernel + share * (2 * kernel - beside)
    return kernel


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys's kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((2.5 - 0.5 * x) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
