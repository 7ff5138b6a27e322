"""Images of more than 8 bits to a color, of which Pillow keeps only a part."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lifeiqa_plugin.images import tiff
from lifeiqa_plugin.images.kinds import UnsupportedError

Array = NDArray[Any]

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


def in_range(values: Array, problem: type[ValueError] = ValueError) -> Array:
    """Return floating-point values in [0, 1] as float32; ``problem`` is raised for others."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise problem(f"float pixels must lie in [0, 1], got {low:.4g} to {high:.4g}")
    return values.astype(np.float32)


def read_gray(image: Image.Image, raw_mode: str) -> Array:
    """Return pixels of mode I;16, I or F as (H, W, 3) in [0, 1].

    Raises:
        UnsupportedError: values without a known white, or outside [0, 1].
    """
    values = np.asarray(image)
    if image.mode == "F":
        gray = in_range(values, UnsupportedError)
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # these have 16 bits
        what = "signed" if raw_mode in ("I;16S", "I;16BS") else "32-bit integers"
        raise UnsupportedError(f"pixels are {what}, whose white is not known")
    else:
        gray = values.astype(np.float32) / WHITE.get(raw_mode, 65535)
    if image.format == "TIFF" and image.tag_v2.get(tiff.PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        gray = 1 - gray  # its white is 0
    return np.repeat(gray[..., None], 3, axis=2)


def read_colors(image: Image.Image, raw_mode: str, reopen: Reopen) -> tuple[Array, Array | None]:
    """Return colors of a raw mode in ``DEEP`` as (H, W, 3) in [0, 1], and their alpha; Pillow keeps the upper bytes.

    The lower bytes are what a second reading gives that takes the file for one of the other byte order.
    """
    name, order = raw_mode.split(";16")
    order = sys.byteorder[0].upper() if order == "N" else order
    other = "B" if order == "L" else "L"
    is_premultiplied = name == "RGBa"
    name = "RGBA" if is_premultiplied else name
    high = _read_as(reopen, f"{name};16{order}") if is_premultiplied else np.asarray(image)
    values = (high.astype(np.float32) * 256 + _read_as(reopen, f"{name};16{other}")) / 65535
    alpha = values[..., 3] if values.shape[2] == 4 else None
    colors = values[..., :3]
    if is_premultiplied and alpha is not None:
        colors = (colors / alpha[..., None].clip(1 / 65535)).clip(0, 1)
    return colors, alpha


def read_gray_alpha(reopen: Reopen) -> tuple[Array, Array]:
    """Return 16-bit gray and alpha, whose four bytes Pillow can read as four colors."""
    parts = _read_as(reopen, "RGBA", "RGBA").astype(np.float32)
    values = (parts[..., ::2] * 256 + parts[..., 1::2]) / 65535
    return np.repeat(values[..., :1], 3, axis=2), values[..., 1]


def _read_as(reopen: Reopen, raw_mode: str, mode: str | None = None) -> Array:
    """Read the pixels of a file once more, as if they were stored in another way."""

    def change(tile: Any) -> Any:
        is_tuple = isinstance(tile.args, tuple)
        return tile._replace(args=(raw_mode, *tile.args[1:]) if is_tuple else raw_mode)

    again: Any
    with reopen() as again:
        again.tile = list(map(change, again.tile))
        again._mode = mode or again._mode
        again.load()
        return np.asarray(again)
