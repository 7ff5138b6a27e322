"""Images of more than 8 bits to a color, of which Pillow keeps only a part."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from PIL import Image

from lifeiqa_plugin.images import tiff
from lifeiqa_plugin.images.kinds import UnsupportedError
from lifeiqa_plugin.images.strips import Array, Strips

Reopen = Callable[[], AbstractContextManager[Image.Image]]

WHITE = {"I;12": 4095}
"""Largest value of a raw mode of gray pixels, where it is not that of 16 bits."""

DEEP = re.compile(r"(RGB|RGBA|RGBX|RGBa);16([LBN])")
"""Raw modes of which Pillow keeps the upper bytes, and whose other byte order it reads too."""


def raw_mode_of(image: Image.Image) -> str:
    """Return how the file stores its pixels; empty if they are loaded already."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0].args
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw_mode if isinstance(raw_mode, str) else ""


def check_range(parts: Iterable[Array], problem: type[ValueError] = ValueError) -> None:
    """Raise ``problem`` if floating-point values do not lie in [0, 1]."""
    lows, highs = zip(*((part.min(), part.max()) for part in parts), strict=True)
    low, high = np.min(lows), np.max(highs)
    if not (low >= 0 and high <= 1):
        raise problem(f"float pixels must lie in [0, 1], got {low:.4g} to {high:.4g}")


def read_gray(image: Image.Image, raw_mode: str) -> Strips:
    """Return pixels of mode I;16, I or F as (H, W, 3) in [0, 1].

    Raises:
        UnsupportedError: values without a known white, or outside [0, 1].
    """
    white = WHITE.get(raw_mode, 65535)
    if image.mode == "F":
        white = 1
        check_range(Strips(np.asarray, image).parts(), UnsupportedError)
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # these have 16 bits
        what = "signed" if raw_mode in ("I;16S", "I;16BS") else "32-bit integers"
        raise UnsupportedError(f"pixels are {what}, whose white is not known")
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(tiff.PHOTOMETRIC) == 0  # type: ignore[attr-defined]

    def convert(strip: Image.Image) -> Array:
        gray = np.asarray(strip).astype(np.float32) / white
        return np.repeat((1 - gray if white_is_zero else gray)[..., None], 3, axis=2)

    return Strips(convert, image)


def read_colors(image: Image.Image, raw_mode: str, reopen: Reopen) -> tuple[Strips, Strips | None]:
    """Return colors of a raw mode in ``DEEP`` as (H, W, 3) in [0, 1], and their alpha; Pillow keeps the upper bytes.

    The lower bytes are what a second reading gives that takes the file for one of the other byte order.
    """
    name, order = raw_mode.split(";16")
    order = sys.byteorder[0].upper() if order == "N" else order
    other = "B" if order == "L" else "L"
    is_premultiplied = name == "RGBa"
    name = "RGBA" if is_premultiplied else name
    high = _read_as(reopen, f"{name};16{order}") if is_premultiplied else image
    low = _read_as(reopen, f"{name};16{other}")

    def join(high: Image.Image, low: Image.Image) -> Array:
        values: Array = (np.asarray(high).astype(np.float32) * 256 + np.asarray(low)) / 65535
        return values

    def colors(values: Array) -> Array:
        found = values[..., :3]
        if is_premultiplied:
            found = (found / values[..., 3:].clip(1 / 65535)).clip(0, 1)
        return found

    values = Strips(join, high, low)
    return Strips(colors, values), _alpha(values) if values.shape[2] == 4 else None


def read_gray_alpha(reopen: Reopen) -> tuple[Strips, Strips]:
    """Return 16-bit gray and alpha, whose four bytes Pillow can read as four colors."""

    def join(strip: Image.Image) -> Array:
        parts = np.asarray(strip).astype(np.float32)
        return ((parts[..., ::2] * 256 + parts[..., 1::2]) / 65535).repeat((3, 1), axis=2)

    values = Strips(join, _read_as(reopen, "RGBA", "RGBA"))
    return Strips(lambda strip: strip[..., :3], values), _alpha(values)


def _alpha(values: Strips) -> Strips:
    return Strips(lambda strip: strip[..., 3], values)


def _read_as(reopen: Reopen, raw_mode: str, mode: str | None = None) -> Image.Image:
    """Read the pixels of a file once more, as if they were stored in another way."""

    def change(tile: Any) -> Any:
        is_tuple = isinstance(tile.args, tuple)
        return tile._replace(args=(raw_mode, *tile.args[1:]) if is_tuple else raw_mode)

    with reopen() as again:
        again.tile = list(map(change, again.tile))  # type: ignore[attr-defined]
        again._mode = mode or again._mode
        again.load()
        return again
