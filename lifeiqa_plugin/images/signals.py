"""What a file says of its colors outside of its ICC profile, and which part of it is to be seen."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.boxes import Crop, read_properties
from lifeiqa_plugin.images.color import (
    ADOBE_RGB,
    SRGB,
    SRGB_CURVE,
    Signal,
    is_srgb,
    signal_of_codes,
    to_xyz,
)

MAX_CHUNKS = 1000

ADOBE_MARK = b"R03\0"
"""What DCF 2.0 calls Adobe RGB in EXIF."""

BROKEN = (EOFError, ValueError, ArithmeticError, struct.error)


class Signaled(NamedTuple):
    """What a file says; ``profile`` is an ICC profile that Pillow does not see."""

    signal: Signal | None = None
    profile: bytes | None = None
    crop: Crop | None = None
    note: str = ""
    overrules_profile: bool = False


NOTHING = Signaled()


def read_signals(image: Image.Image, data: Binary) -> Signaled:
    """Read what a file says of its colors; nothing where that is damaged, as in every browser."""
    readers = {"PNG": _png, "AVIF": _boxes, "HEIF": _boxes, "BMP": _bmp, "DIB": _bmp}
    try:
        found = readers.get(image.format or "", _exif)(image, data)
        if found.signal is not None:
            to_xyz(found.signal.primaries)
            if is_srgb(found.signal):
                return found._replace(signal=None)
        return found
    except BROKEN:
        return Signaled(note="what it says of its colors is damaged, and taken for sRGB")


def _codes(
    primaries: int, transfer: int, crop: Crop | None = None, is_png: bool = False
) -> Signaled:
    signal = signal_of_codes(primaries, transfer)
    note = "" if signal else f"color codes {primaries}/{transfer} are not known, and taken for sRGB"
    return Signaled(signal, None, crop, note, is_png)


def _boxes(image: Image.Image, data: Binary) -> Signaled:
    properties = read_properties(data)
    crop = properties.crop if image.format == "AVIF" else None  # libheif has applied it
    if properties.color is None:
        return Signaled(crop=crop)
    return _codes(*properties.color, crop)


def _png(image: Image.Image, data: Binary) -> Signaled:
    chunks: dict[bytes, bytes] = {}
    position = 8
    for _ in range(MAX_CHUNKS):
        length, kind = data.number(position, 4), data.read(position + 4, 4)
        if kind in (b"IDAT", b"IEND"):
            break
        if kind in (b"cICP", b"gAMA", b"cHRM", b"sRGB"):
            chunks[kind] = data.read(position + 8, length)
        position += 12 + length
    if len(chunks.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, is_full = chunks[b"cICP"]
        if matrix == 0 and is_full == 1:
            return _codes(primaries, transfer, is_png=True)
        return Signaled(note="cICP of luma and chroma or of narrow range is ignored")
    if b"sRGB" in chunks or not chunks:
        return Signaled()
    curve: str | float = SRGB_CURVE
    if len(chunks.get(b"gAMA", b"")) == 4:
        gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
        curve = 1 / gamma if 0.1 <= gamma <= 10 else SRGB_CURVE
    colors = SRGB
    if len(chunks.get(b"cHRM", b"")) == 32:
        values = [value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"])]
        colors = (*values[2:], *values[:2])  # white stands first
    return Signaled(Signal(colors, curve, "colors by gAMA and cHRM"))


def _exif(image: Image.Image, data: Binary) -> Signaled:
    """Look for the mark of Adobe RGB (DCF 2.0): cameras write no profile."""
    content = image.info.get("exif")
    if not isinstance(content, bytes) or ADOBE_MARK not in content:
        return Signaled()
    exif = Image.Exif()
    try:
        exif.load(content)
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # damaged EXIF data do not make the image unreadable
        return Signaled()
    if index in ("R03", b"R03\0", b"R03") and inner.get(ExifTags.Base.ColorSpace) != 1:
        return Signaled(Signal(ADOBE_RGB, 563 / 256, "Adobe RGB by EXIF"))
    return Signaled()


def _bmp(image: Image.Image, data: Binary) -> Signaled:
    start = 14 if image.format == "BMP" else 0
    size = data.number(start, 4, is_little=True)
    if size < 108:
        return Signaled()
    space = data.read(start + 56, 4)
    if space == b"DEBM" and size >= 124:
        offset, length = struct.unpack("<2I", data.read(start + 112, 8))
        return Signaled(profile=data.read(start + offset, length))
    numbers: tuple[Any, ...] = struct.unpack("<9i3I", data.read(start + 60, 48))
    if space != bytes(4) or 0 in numbers[9:] or 0 in (sum(numbers[i : i + 3]) for i in (0, 3, 6)):
        return Signaled()
    corners = [numbers[i : i + 3] for i in (0, 3, 6)]
    white = [sum(column) for column in zip(*corners, strict=True)]
    colors = tuple(v / sum(xyz) for xyz in (*corners, white) for v in xyz[:2])
    return Signaled(Signal(colors, numbers[10] / 65536, "colors by its header"))
