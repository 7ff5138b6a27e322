"""The boxes of AVIF, HEIF and CR3 (ISO/IEC 14496-12, 23008-12): what they say and decoders do not pass on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lifeiqa_plugin.images.binary import Binary

MAX_BOXES = 10_000
"""Boxes or entries that are looked at in one place."""


class Box(NamedTuple):
    """Its type, and where its content lies."""

    kind: bytes
    start: int
    stop: int


class Crop(NamedTuple):
    """The part of an image that its file wants to be seen, in pixels; may have fractions."""

    left: float
    top: float
    width: float
    height: float


class Properties(NamedTuple):
    """What a file says of its main image."""

    color: tuple[int, int] | None = None  # codes of primaries and transfer (ITU-T H.273)
    crop: Crop | None = None


def walk(data: Binary, start: int, stop: int) -> Iterator[Box]:
    """Yield the boxes between two offsets; ends where one does not fit."""
    for _ in range(MAX_BOXES):
        if start + 8 > stop:
            return
        size, kind, header = data.number(start, 4), data.read(start + 4, 4), 8
        if size == 1:
            size, header = data.number(start + 8, 8), 16
        elif size == 0:
            size = stop - start
        if size < header or start + size > stop:
            return
        yield Box(kind, start + header, start + size)
        start += size


def find(data: Binary, start: int, stop: int, *path: bytes) -> Iterator[Box]:
    """Yield the boxes at a path of types."""
    for box in walk(data, start, stop):
        if box.kind == path[0]:
            if len(path) == 1:
                yield box
            else:
                inner = box.start + 4 * (box.kind == b"meta")  # which has a version
                yield from find(data, inner, box.stop, *path[1:])


def read_properties(data: Binary) -> Properties:
    """Read what is said of the main image of an AVIF or HEIF file.

    Raises:
        EOFError, ValueError: the boxes are damaged.
    """
    for box in find(data, 0, data.size, b"meta"):
        inside = (box.start + 4, box.stop)
        main = next(find(data, *inside, b"pitm"), None)
        lists = [list(walk(data, b.start, b.stop)) for b in find(data, *inside, b"iprp", b"ipco")]
        if main is None or not lists:
            break
        item = data.number(main.start + 4, 4 if data.number(main.start, 1) else 2)
        numbers = _associated(data, item, *inside)
        return _properties(data, [lists[0][n - 1] for n in numbers if 0 < n <= len(lists[0])])
    return Properties()


def _associated(data: Binary, item: int, start: int, stop: int) -> list[int]:
    """Return the numbers of an item's properties, which count from 1."""
    for box in find(data, start, stop, b"iprp", b"ipma"):
        id_size = 4 if data.number(box.start, 1) else 2
        size = 2 if data.number(box.start + 3, 1) & 1 else 1
        position = box.start + 8
        for _ in range(min(data.number(box.start + 4, 4), MAX_BOXES)):
            number = data.number(position, id_size)
            count = data.number(position + id_size, 1)
            position += id_size + 1
            if number == item:
                mask = 0x7FFF if size == 2 else 0x7F  # the first bit says that it is essential
                return [data.number(position + i * size, size) & mask for i in range(count)]
            position += count * size
    return []


def _properties(data: Binary, boxes: list[Box]) -> Properties:
    color, crop, size = None, None, None
    for kind, start, _ in boxes:
        if kind == b"colr" and data.read(start, 4) == b"nclx":
            color = (data.number(start + 4, 2), data.number(start + 6, 2))
        elif kind == b"ispe":
            size = (data.number(start + 4, 4), data.number(start + 8, 4))
        elif kind == b"clap" and size is not None:
            crop = _crop(data, start, *size)
    return Properties(color, crop)


def _crop(data: Binary, start: int, width: int, height: int) -> Crop:
    """Read a clean aperture, whose place is that of its center, seen from the center of the image."""
    numbers = [data.number(start + 4 * i, 4) for i in range(8)]
    if 0 in numbers[1::2]:
        raise ValueError("clean aperture with a denominator of 0")
    signed = [number - (number >> 31 << 32) for number in numbers]
    new_width, new_height, right, down = (
        n / d for n, d in zip(signed[::2], numbers[1::2], strict=True)
    )
    left, top = (width - new_width) / 2 + right, (height - new_height) / 2 + down
    return Crop(left, top, new_width, new_height)
