"""Whether a file is all there, where its decoder does not notice: lengths, checksums, zeros at its end."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lifeiqa_plugin.images import tiff
from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.boxes import Box, walk
from lifeiqa_plugin.images.jpeg import END, HOLE
from lifeiqa_plugin.images.strips import Array, Strips
from lifeiqa_plugin.images.tiff import BROKEN, Tiff

MAX_MISSING = 0.01
"""Share of an image that may be missing; more is an error."""

FLAT = 1 / 5000
"""Zeros for each pixel that end a whole WebP whose last part has one color; half of that was measured."""

JPEG_IN_TIFF = 7

NEAR_END = 64
"""Bytes at the end of a JPEG in which its end marker is looked for."""


class Missing(NamedTuple):
    """What share of an image's area is missing, and a sentence about it, to fill in."""

    share: float
    says: str = "the last {} of it are missing"

    def __str__(self) -> str:
        digits = 2 if self.share < MAX_MISSING else 0
        return self.says.format(f"{self.share * 100:.{digits}f} %")


def note_or_refuse(missing: Missing) -> tuple[str, ...]:
    """Return a note if a little is missing.

    Raises:
        ValueError: more than 1 % is.
    """
    if missing.share > MAX_MISSING:
        raise ValueError(str(missing))
    return (str(missing),) if missing.share else ()


def is_cut_off(data: Binary) -> bool:
    """Say whether a file is shorter than it says itself."""
    start = data.read_some(0, 16)
    if start.startswith(b"RIFF"):
        return int.from_bytes(start[4:8], "little") + 8 > data.size
    if start.startswith(tiff.STARTS):
        is_little = start.startswith(b"II")
        return int.from_bytes(start[4:8], "little" if is_little else "big") + 2 > data.size
    if start[4:8] in (b"ftyp", b"JXL ", b"jP  "):
        last = max((box.stop for box in walk(data, 0, data.size)), default=0)
        return last < data.size
    return False


def describe_depth(data: Binary) -> str:
    """Say what numbers a TIFF or PSD holds, such as ``3 x 32 bits, float``; empty if that cannot be read."""
    try:
        if data.read(0, 4) == b"8BPS":
            return f"{data.number(12, 2)} x {data.number(22, 2)} bits"
        tree = Tiff(data)
        tags = (tiff.SAMPLES, tiff.BITS, tiff.SAMPLE_FORMAT, tiff.COMPRESSION)
        found = [tree.values(tree.directories[0], tag) or [1] for tag in tags]
    except BROKEN:
        return ""
    number, bits, kind, compression = (values[0] for values in found)
    name = {1: "", 2: ", signed", 3: ", float"}.get(kind, ", of no known type")
    return f"{number} x {bits} bits{name}, compression {compression}"


def missing_elsewhere(image: Image.Image, data: Binary) -> Missing:
    """Return what is missing of an image that is no JPEG, and whose decoder has not complained."""
    if image.format == "PNG":
        _check_png(data)
    if image.format in ("WEBP", "AVIF", "HEIF"):
        return _zeros_at_end(data, image.width * image.height * FLAT)
    if image.format == "TIFF" and image.tag_v2.get(tiff.COMPRESSION) == JPEG_IN_TIFF:  # type: ignore[attr-defined]
        return _cut_strips(data)
    return Missing(0.0)


def _check_png(data: Binary) -> None:
    """Compare the checksums of the pixels, which Pillow does not.

    Raises:
        ValueError: one is wrong.
    """
    position = 8
    while position + 12 <= data.size:
        length, kind = data.number(position, 4), data.read(position + 4, 4)
        if kind == b"IEND" or position + 12 + length > data.size:
            return
        if kind == b"IDAT":
            content = data.read(position + 4, length + 4)
            if zlib.crc32(content) != data.number(position + 8 + length, 4):
                raise ValueError("a checksum of its pixels is wrong")
        position += 12 + length


def _zeros_at_end(data: Binary, usual: float) -> Missing:
    """Look for more zeros than ``usual`` at the end of the pixels, as where a file was made and then not written."""
    payload = _payload(data)
    if payload is None or payload.stop - payload.start < 2 * len(HOLE):
        return Missing(0.0)
    if data.read(payload.stop - len(HOLE), len(HOLE)) != HOLE:
        return Missing(0.0)
    content = data.read(payload.start, payload.stop - payload.start)
    zeros = len(content) - len(content.rstrip(b"\0"))
    if zeros <= usual:
        return Missing(0.0)
    return Missing(zeros / len(content), "the last {} of its data are zeros")


def _payload(data: Binary) -> Box | None:
    """Return where the coded pixels of a WebP, AVIF or HEIF are."""
    if data.read(0, 4) != b"RIFF":
        boxes = list(walk(data, 0, data.size))
        return boxes[-1] if boxes and boxes[-1].kind == b"mdat" else None
    position = 12
    while position + 8 <= data.size:
        kind, length = data.read(position, 4), data.number(position + 4, 4, is_little=True)
        if kind in (b"VP8 ", b"VP8L"):
            return Box(kind, position + 8, min(position + 8 + length, data.size))
        position += 8 + length + length % 2
    return None


def _cut_strips(data: Binary) -> Missing:
    """Return the share of a TIFF's strips or tiles of JPEG that have no end: libtiff makes one up."""
    try:
        tree = Tiff(data)
        main = tree.directories[0]
        sizes = tree.values(main, tiff.STRIP_SIZES) or tree.values(main, tiff.TILE_SIZES)
        starts = tree.values(main, tiff.STRIPS) or tree.values(main, tiff.TILES)
        ends = [
            data.read(start + max(size - NEAR_END, 0), min(size, NEAR_END))
            for start, size in zip(starts, sizes, strict=False)
        ]
    except BROKEN:
        return Missing(0.0)
    return Missing(sum(END not in end for end in ends) / max(len(ends), 1), "{} of it are missing")


def missing_rows(image: Image.Image, again: Any) -> Missing:
    """Return what a decoder has left as it found it: a second time it finds it white instead of black.

    Args:
        image: loaded.
        again: the same image, not loaded yet.
    """
    if np.asarray(image.crop((0, image.height - 1, image.width, image.height))).any():
        return Missing(0.0)
    bands = len(again.getbands())
    white = (255,) * bands if bands > 1 else 65535 if again.mode.startswith("I") else 255
    again.im = Image.new(again.mode, again.size, white).im
    again.load()
    changed = sum(int(part.sum()) for part in Strips(_differ, image, again).parts())
    return Missing(changed / (image.width * image.height))


def _differ(one: Image.Image, other: Image.Image) -> Array:
    """Return which pixels differ, (H, W)."""
    values = np.asarray(one)
    differ: Array = (values != np.asarray(other)).reshape(*values.shape[:2], -1).any(-1)
    return differ
