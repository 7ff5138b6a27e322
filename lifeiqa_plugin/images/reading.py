"""From whatever holds an image to its sRGB pixels, by one set of decode rules; ``docs/decoding.md`` lists them.

Everything of this package that looks at an image comes through here. Importing this module does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lifeiqa_plugin.images.memory import PROCESS, bytes_needed, true_size
from lifeiqa_plugin.images.opening import Content, Opened, open_image
from lifeiqa_plugin.images.orientation import TRANSPOSED, orient, orientation_of
from lifeiqa_plugin.images.pixels import JPEGS, from_array, to_srgb
from lifeiqa_plugin.images.refusals import name_of, refuse, reporting
from lifeiqa_plugin.images.resizing import resize, soften
from lifeiqa_plugin.images.strips import Pixels, as_array, cut, shape_of
from lifeiqa_plugin.network.detail import SHRUNK, find_part, is_large
from lifeiqa_plugin.pyiqa_compat import own_pillow_rules, quiet_libtiff

if TYPE_CHECKING:
    import torch

Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | torch.Tensor"
)
"""A path, the bytes of a file, an open file, a Pillow image, an array (H, W[, 3 or 4]) or a tensor (3 or 1, H, W)."""

DECODING = 3
"""Version of the rules that turn a file into pixels; raised when a file gets other pixels, and so another score."""

MAX_PIXELS = 250_000_000
"""Images that have more are refused: 22 kB of PNG can hold 177 million, and each takes 3 to 16 bytes of memory."""

SEVERAL = ("AVIF", "GIF", "HEIF", "MPO", "PNG", "TIFF", "WEBP")
"""Formats that may hold frames or pages, of which the first is taken."""


class Decoded(NamedTuple):
    """Pixels as they are looked at, and the size of the image.

    Attributes:
        pixels: (H, W, 3) sRGB, uint8, or float32 in [0, 1] if there is more than 8 bits can hold.
        height: of the image; more than H if the decoder was allowed to shrink.
        width: the same.
        notes: what was assumed or left out, a few words each, such as ``first of 12 frames``.
        part: (3, s, s) float32, the part of a large image that has most detail, if that was asked for.
    """

    pixels: NDArray[Any]
    height: int
    width: int
    notes: tuple[str, ...] = ()
    part: NDArray[np.float32] | None = None


def decode(source: Source, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image; ``docs/decoding.md`` says how each kind is treated.

    Args:
        source: see ``Source``. A file is read from where it stands.
        at_least: let the JPEG decoder shrink the image as long as its shorter side has so many pixels; None for never.
        max_pixels: files that hold more are refused, however small the decoder would make them.

    Raises:
        ImageError: an ``OSError`` that names the file: it is not there, no regular file, not an image, damaged, cut
            off, too large, or has values outside of the range of its type.
        TypeError: not a ``Source``.
    """
    loaded = _load(source, at_least, max_pixels, None)
    pixels = orient(as_array(loaded.pixels), loaded.orientation)
    return Decoded(pixels, loaded.height, loaded.width, loaded.notes)


def decode_resized(
    source: Source,
    working_shape: Callable[[int, int], tuple[int, int]],
    *,
    at_least: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
    part_size: int = 0,
) -> Decoded:
    """Decode an image and resize it, a few rows at a time, so that no array is as large as the image.

    Args:
        source: as :func:`decode`.
        working_shape: (height, width) of the image -> those that it shall have.
        at_least: as :func:`decode`.
        max_pixels: the same.
        part_size: the working size for which the ``part`` of a large image is cut out; 0 for none.
        max_memory: bytes that the process may take; images that would need more are refused. None for no limit.

    Returns:
        ``pixels`` are (3, h, w) float32 in [0, 1].

    Raises:
        ImageError, TypeError: as :func:`decode`.
    """
    loaded = _load(source, at_least, max_pixels, max_memory, part_size)
    height, width = working_shape(loaded.height, loaded.width)
    stored = (width, height) if loaded.orientation >= TRANSPOSED else (height, width)
    planes = _resize(loaded, loaded.pixels, stored)
    part = None
    if part_size and is_large(loaded.height, loaded.width, part_size):
        part = _resize(loaded, _cut_part(loaded, planes, part_size), (part_size, part_size))
        part = part if loaded.shrunk == 1 else soften(part)
    return Decoded(planes, loaded.height, loaded.width, loaded.notes, part)


def _resize(loaded: _Loaded, pixels: Pixels, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize pixels as they are stored, and turn them."""
    planes = resize(pixels, shape, loaded.shrunk)
    turned = orient(planes.transpose(1, 2, 0), loaded.orientation).transpose(2, 0, 1)
    return np.ascontiguousarray(turned)


def _cut_part(loaded: _Loaded, planes: NDArray[np.float32], size: int) -> Pixels:
    """Return the part with most detail of an image, as its pixels are stored."""
    top, left = find_part(planes, loaded.height, loaded.width, size)
    stored = (loaded.height, loaded.width)
    if loaded.orientation >= TRANSPOSED:
        stored = stored[::-1]
    across = slice(top, top + SHRUNK * size), slice(left, left + SHRUNK * size)
    rows, columns = (  # where each pixel of the part is stored; views, which take no memory
        orient(np.broadcast_to(places, stored), loaded.orientation)[across].min() // loaded.shrunk
        for places in np.ogrid[: stored[0], : stored[1]]
    )
    side = SHRUNK * size // loaded.shrunk
    return np.asarray(cut(loaded.pixels, rows, rows + side))[:, columns : columns + side]


class _Loaded(NamedTuple):
    """An image in memory, as its file has it; height and width are those of the image as it is looked at."""

    pixels: Pixels
    orientation: int
    height: int
    width: int
    shrunk: int = 1  # how many of the file's pixels, to a side, the decoder made one of
    notes: tuple[str, ...] = ()


def _load(
    source: Source,
    at_least: int | None,
    max_pixels: int,
    max_memory: int | None,
    part_size: int = 0,
) -> _Loaded:
    if isinstance(source, np.ndarray) or hasattr(source, "cpu"):
        with reporting(name_of(source)):
            array = from_array(source)
        return _Loaded(array, 1, *array.shape[:2])
    if isinstance(source, str | os.PathLike | bytes | Image.Image):
        name = name_of(source)
        return _load_image(source, name, at_least, max_pixels, max_memory, part_size)
    if hasattr(source, "read"):
        content, name = source.read(), name_of(source)
        return _load_image(content, name, at_least, max_pixels, max_memory, part_size)
    raise TypeError(
        f"an image must be a path, bytes, an open file, a Pillow image, an array or a tensor, "
        f"got {type(source).__name__}"
    )


def _load_image(
    source: Content | Image.Image,
    name: str,
    at_least: int | None,
    max_pixels: int,
    max_memory: int | None,
    part_size: int,
) -> _Loaded:
    with own_pillow_rules(), open_image(source) as opened, reporting(name):
        image = opened.image
        width, height = image.size
        true = image.size if image is source else true_size(image)
        _check_size(true, name, max_pixels)
        if at_least is not None and image.format in JPEGS and image is not source:
            if part_size and is_large(height, width, part_size):
                at_least = max(at_least, min(height, width) // SHRUNK)
            image.draft(None, (at_least, at_least))
        shrunk = round(height / image.height)
        if max_memory is not None:
            _check_memory(PROCESS + bytes_needed(image, true), name, max_memory)
        frames = _note_frames(opened)
        with quiet_libtiff(image.format):
            frames += opened.look_for_gaps()
            pixels, notes = to_srgb(image, opened.reopen, opened.read_signals())
        orientation = orientation_of(image, opened.orientation)
    if shrunk == 1:
        height, width = shape_of(pixels)
    else:
        notes += (f"decoded at 1/{shrunk} of its size",)
    if orientation >= TRANSPOSED:
        height, width = width, height
    return _Loaded(pixels, orientation, height, width, shrunk, (*opened.notes, *frames, *notes))


def _check_memory(needed: int, name: str, max_memory: int) -> None:
    if needed > max_memory:
        raise refuse(
            name,
            f"would take {needed / 1e6:.0f} MB of memory, of which {max_memory / 1e6:.0f} MB are allowed; "
            "shrink it, or raise the limit of memory",
        )


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise refuse(
            name,
            f"too large ({width} x {height}, {width * height / 1e6:.0f} megapixels; "
            f"at most {max_pixels / 1e6:.0f} are decoded); shrink it, or raise max_pixels",
        )


def _note_frames(opened: Opened) -> tuple[str, ...]:
    """Say how many frames or pages there are besides the first."""
    image = opened.image
    if b"hdrgm:" in image.info.get("xmp", b""):
        return ("gain map left out",)
    if image.format not in SEVERAL or opened.reopen is None:
        return ()
    if image.format not in ("GIF", "TIFF"):
        number = getattr(image, "n_frames", 1)
    else:  # these are counted by going through them
        with opened.reopen() as again:
            try:
                number = getattr(again, "n_frames", 1)
            except Exception:  # the first may be whole all the same
                return ("first of several frames, of which some are damaged",)
    return (f"first of {number} frames",) if number > 1 else ()


@overload
def read_image(source: Source) -> torch.Tensor: ...


@overload
def read_image(
    source: Source, *, with_notes: Literal[True]
) -> tuple[torch.Tensor, tuple[str, ...]]: ...


def read_image(
    source: Source, *, with_notes: bool = False
) -> torch.Tensor | tuple[torch.Tensor, tuple[str, ...]]:
    """Decode to (3, H, W) float32 in [0, 1].

    >>> read_image("examples/photos/coffee_0_clean.jpg").shape
    torch.Size([3, 400, 600])

    Args:
        source: see ``Source``.
        with_notes: return the notes too, which say what was assumed or left out.

    Raises:
        ImageError, TypeError: as :func:`decode`.
    """
    import torch

    decoded = decode(source)
    pixels = torch.from_numpy(np.array(decoded.pixels)).permute(2, 0, 1)
    pixels = pixels if pixels.is_floating_point() else pixels.float().div_(255)
    return (pixels, decoded.notes) if with_notes else pixels
