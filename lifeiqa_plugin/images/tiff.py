"""The directories of TIFF files, of which camera raw files are made too."""

from __future__ import annotations

import struct
from functools import cached_property
from typing import NamedTuple

from lifeiqa_plugin.images.binary import Binary

STARTS = (b"II*\0", b"MM\0*", b"IIU\0", b"IIRO", b"IIRS", b"MMOR")
"""How TIFF begins, and files of Panasonic and Olympus that are laid out as it is."""

BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 258, 259, 262, 274, 277
STRIPS, STRIP_SIZES, TILES, TILE_SIZES = 273, 279, 324, 325
SUB_DIRECTORIES, SAMPLE_FORMAT, EXIF = 330, 339, 34665

MAX_DIRECTORIES, MAX_ENTRIES, MAX_VALUES = 64, 2000, 64

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4}
"""Types of fields -> bytes of each number."""

BROKEN = (EOFError, ValueError, IndexError, struct.error)
"""What reading a damaged file may raise."""


class Entry(NamedTuple):
    """A field of a directory."""

    kind: int
    number: int  # of values
    start: int  # of its value


Directory = dict[int, Entry]


class Tiff:
    """A TIFF file, or what is laid out as one inside another: its offsets count from ``base``."""

    def __init__(self, data: Binary, base: int = 0, is_little: bool | None = None) -> None:
        self.data, self.base = data, base
        self.is_little = data.read(base, 2) == b"II" if is_little is None else is_little

    @cached_property
    def directories(self) -> list[Directory]:
        """All that can be read, the main one first; those below a directory come after it."""
        found: list[Directory] = []
        self._follow(self.base + self.number(self.base + 4, 4), found, set())
        return found

    def number(self, start: int, length: int) -> int:
        """Return an unsigned integer in the order of the file."""
        return self.data.number(start, length, self.is_little)

    def values(self, directory: Directory, tag: int) -> list[int]:
        """Return the first numbers of a field, none if there is no such field."""
        entry = directory.get(tag)
        if entry is None or entry.kind not in SIZES:
            return []
        size, number = SIZES[entry.kind], min(entry.number, MAX_VALUES)
        return [self.number(entry.start + i * size, size) for i in range(number)]

    def _follow(self, start: int, found: list[Directory], seen: set[int]) -> None:
        """Read a chain of directories, and those below each, until one is damaged or was there before."""
        while start > self.base and start not in seen and len(seen) < MAX_DIRECTORIES:
            seen.add(start)
            try:
                directory, start = self.read(start)
                found.append(directory)
                for tag in (SUB_DIRECTORIES, EXIF):
                    for inner in self.values(directory, tag):
                        self._follow(self.base + inner, found, seen)
            except BROKEN:
                return

    def read(self, start: int) -> tuple[Directory, int]:
        """Return a directory and where the next begins, 0 after the last."""
        number = self.number(start, 2)
        if number > MAX_ENTRIES:
            raise ValueError(f"{number} entries")
        end = start + 2 + 12 * number
        directory: Directory = {}
        for at in range(start + 2, end, 12):
            tag, kind, count = (self.number(at + i, size) for i, size in ((0, 2), (2, 2), (4, 4)))
            is_inside = count * SIZES.get(kind, 8) <= 4
            value = at + 8 if is_inside else self.base + self.number(at + 8, 4)
            directory[tag] = Entry(kind, count, value)
        following = self.number(end, 4) if end + 4 <= self.data.size else 0
        return directory, self.base + following if following else 0
