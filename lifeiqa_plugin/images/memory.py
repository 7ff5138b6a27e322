"""How large what a file holds is, known before it is decoded: its pixels, and the memory that they take."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, UnidentifiedImageError

from lifeiqa_plugin.images.deep import DEEP, raw_mode_of

RESIZING = 8_000
"""Bytes for each column of an image, of the rows that are resized."""

PROCESS = 60_000_000
"""Bytes of a process that decodes, before it does."""

ICONS, INSIDE = ("ICO", "ICNS"), ("PNG", "DIB", "JPEG2000")
"""Formats that hold files, and those of these files."""

DECODERS = {"WEBP": 16, "AVIF": 12, "HEIF": 10, "JXL": 11}
"""Format -> bytes a pixel that its decoder takes at the most, with the image that it makes."""

JPEG_2000 = 5
"""Bytes a value that a decoder of JPEG 2000 takes, besides the image; tiles take less."""


def true_size(image: Any) -> tuple[int, int]:
    """Return (width, height); of an icon, those of the file in it, which Pillow believes when it has decoded it."""
    if image.format == "ICO":
        places = [image.ico.entry[image.ico.getentryindex(image.size)].offset]
    elif image.format == "ICNS":
        parts = image.icns.SIZES[image.best_size]
        places = [image.icns.dct[kind][0] for kind, _ in parts if kind in image.icns.dct]
    else:
        return image.width, image.height
    sizes = [(image.width, image.height)]
    for place in places:
        image.fp.seek(place)
        try:
            with Image.open(io.BytesIO(image.fp.read()), formats=INSIDE) as inner:
                sizes.append(inner.size)
        except UnidentifiedImageError:  # pixels as they are, of the size that the icon says
            continue
    return max(sizes, key=lambda size: size[0] * size[1])


def bytes_needed(image: Image.Image, size: tuple[int, int]) -> int:
    """Return the bytes that an image takes at the most until it is resized, besides its file; within 1.3.

    Args:
        image: not loaded; of a JPEG, as its decoder shall shrink it.
        size: (width, height) of what is in the file.
    """
    full = size[0] * size[1]
    pixels = full if image.format in ICONS else image.width * image.height
    stored = pixels * _stored(image)
    if image.format in ("JPEG", "MPO"):
        decoding = stored + (full * 2 * _samples(image) if "progressive" in image.info else 0)
    elif image.format == "JPEG2000":
        decoding = stored + pixels * JPEG_2000 * len(image.getbands())
    else:
        decoding = pixels * DECODERS.get(image.format or "", 0)
    return round(max(decoding, stored + RESIZING * image.width))


def _stored(image: Image.Image) -> int:
    """Return the bytes of a pixel in Pillow's memory; colors of 16 bits are read twice."""
    raw_mode = raw_mode_of(image)
    if DEEP.fullmatch(raw_mode) or raw_mode == "LA;16B":
        return 8
    if image.mode in ("1", "L", "P"):
        return 1
    return 2 if image.mode.startswith("I;16") else 4


def _samples(image: Any) -> float:
    """Return the coefficients of a JPEG for each of its pixels: 3, or 1.5 with halved colors."""
    factors: list[int] = [across * down for _, across, down, _ in image.layer]
    return sum(factors) / max(*factors, 1)
