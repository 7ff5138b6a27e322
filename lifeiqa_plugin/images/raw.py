"""Camera raw files: the largest JPEG that the camera has put into them, which is what culling tools look at.

TIFF trees (NEF, CR2, ARW, DNG, RW2, ORF, PEF and more), the boxes of CR3, RAF's header; else the file is searched.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.boxes import find, walk
from lifeiqa_plugin.images.jpeg import FRAMES, SOS, read_segments

SUFFIXES = frozenset(
    {
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc",
        ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf",
        ".srw", ".x3f",
    }
)  # fmt: skip
"""How the names of camera raw files end."""

MIN_PIXELS = 1_000_000

MAX_DIRECTORIES, MAX_ENTRIES, MAX_HEADER, MAX_SEARCHED = 64, 2000, 1 << 19, 1 << 29

RAF = b"FUJIFILMCCD-RAW "

OTHERS = (b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR", RAF)
"""How raw files begin that are no TIFF: Sigma, Minolta, early Canon, Fujifilm."""

TIFFS = (b"II*\0", b"MM\0*", b"IIU\0", b"IIRO", b"IIRS", b"MMOR")
"""TIFF, and as Panasonic and Olympus begin it."""

CANON_PREVIEW = bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16")
CANON_TAGS = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")

ORIENTATION, STRIPS, STRIP_SIZES, SUB_DIRECTORIES, EXIF, MAKER_NOTE = (
    274,
    273,
    279,
    330,
    34665,
    37500,
)
JPEG_START, JPEG_SIZE, COMPRESSION, PHOTOMETRIC, DNG_VERSION = 513, 514, 259, 262, 50706

SENSOR = {32803, 34892}
"""Photometric interpretations: colors of a sensor's filters, or its linear light."""

RAW_COMPRESSIONS = {32767, 32769, 32770, 34713, 34892, 65535}
"""Those of Sony, Epson, Samsung, Nikon, DNG and Pentax."""

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4}
"""Types of TIFF fields -> bytes of each number."""

BROKEN = (EOFError, ValueError, IndexError, struct.error)


class Preview(NamedTuple):
    """A JPEG in a raw file, and the orientation that the raw file gives to all its images."""

    content: bytes
    width: int
    height: int
    orientation: int = 1


class Entry(NamedTuple):
    """A field of a TIFF directory."""

    kind: int
    number: int  # of values
    start: int  # of its value


Directory = dict[int, Entry]


class Tree:
    """The directories of a TIFF file."""

    def __init__(self, data: Binary, base: int = 0) -> None:
        self.data, self.base = data, base
        self.is_little = data.read(base, 2) == b"II"
        self.directories: list[Directory] = []
        self.seen: set[int] = set()
        self._read_chain(base + self.number(base + 4, 4))

    def number(self, start: int, length: int) -> int:
        """Return an unsigned integer in the order of the file."""
        return self.data.number(start, length, self.is_little)

    def values(self, directory: Directory, tag: int) -> list[int]:
        """Return the first numbers of a field, none if there is no such field."""
        entry = directory.get(tag)
        if entry is None or entry.kind not in SIZES:
            return []
        size = SIZES[entry.kind]
        return [self.number(entry.start + i * size, size) for i in range(min(entry.number, 64))]

    def _read_chain(self, start: int) -> None:
        while start > self.base and start not in self.seen and len(self.seen) < MAX_DIRECTORIES:
            self.seen.add(start)
            try:
                directory, start = self._read(start)
                self.directories.append(directory)
                for tag in (SUB_DIRECTORIES, EXIF):
                    for inner in self.values(directory, tag):
                        self._read_chain(self.base + inner)
            except BROKEN:
                return

    def _read(self, start: int) -> tuple[Directory, int]:
        number = self.number(start, 2)
        if number > MAX_ENTRIES:
            raise ValueError(f"{number} entries")
        directory: Directory = {}
        for position in range(start + 2, start + 2 + 12 * number, 12):
            tag, kind, count = (
                self.number(position, 2),
                self.number(position + 2, 2),
                self.number(position + 4, 4),
            )
            is_inside = count * SIZES.get(kind, 8) <= 4
            value = position + 8 if is_inside else self.base + self.number(position + 8, 4)
            directory[tag] = Entry(kind, count, value)
        link = start + 2 + 12 * number
        following = self.number(link, 4) if link + 4 <= self.data.size else 0
        return directory, self.base + following if following else 0


def is_raw(data: Binary, name: str = "") -> bool:
    """Say whether a file is a camera's raw data, by what is in it, or by its name if it is a TIFF at all."""
    start = data.read(0, min(data.size, 16))
    if start.startswith(OTHERS) or start[4:12] == b"ftypcrx ":
        return True
    if not start.startswith(TIFFS):
        return False
    has_name = any(name.lower().endswith(suffix) for suffix in SUFFIXES)
    if has_name or start[:4] not in TIFFS[:2] or start[8:10] == b"CR":
        return True
    try:
        tree = Tree(data)
    except BROKEN:
        return False
    return any(_is_sensor(tree, directory) for directory in tree.directories)


def _is_sensor(tree: Tree, directory: Directory) -> bool:
    try:
        photometric = set(tree.values(directory, PHOTOMETRIC))
        compression = set(tree.values(directory, COMPRESSION))
    except BROKEN:
        return False
    is_sensor = bool(photometric & SENSOR or compression & RAW_COMPRESSIONS)
    return is_sensor or DNG_VERSION in directory


def find_preview(data: Binary) -> Preview | None:
    """Return the largest JPEG in a raw file, whatever its size; None if there is none."""
    start = data.read(0, min(data.size, 16))
    places, orientation = [], 1
    try:
        if start.startswith(RAF):
            places = [(data.number(84, 4), data.number(88, 4))]
        elif start[4:8] == b"ftyp":
            places, orientation = list(_in_boxes(data)), _orientation_in_boxes(data)
        elif start.startswith(TIFFS):
            tree = Tree(data)
            places, orientation = list(_in_tree(tree)), _orientation(tree)
    except BROKEN:
        pass
    best = _largest(data, places)
    if best is None or best.width * best.height < MIN_PIXELS:
        best = _largest(data, [*places, *_searched(data)])
    return best and best._replace(orientation=orientation)


def _largest(data: Binary, places: list[tuple[int, int]]) -> Preview | None:
    best, found = 0, None
    for start, length in places:
        width, height = _jpeg_size(data, start, length)
        if width * height > best:
            best, found = width * height, (start, length, width, height)
    if found is None:
        return None
    start, length, width, height = found
    return Preview(data.read(start, min(length, data.size - start)), width, height)


def _jpeg_size(data: Binary, start: int, length: int) -> tuple[int, int]:
    """Return width and height of a JPEG of 8 bits that begins there; 0, 0 for anything else."""
    if not 0 <= start < data.size:
        return 0, 0
    header = data.read(start, min(length, MAX_HEADER, data.size - start))
    if not header.startswith(b"\xff\xd8\xff"):
        return 0, 0
    size = 0, 0
    for marker, _, content in read_segments(header):
        if marker in FRAMES:
            if marker > 0xC2 or len(content) < 6 or content[0] != 8:  # lossless, or of 12 bits
                return 0, 0
            size = struct.unpack(">2H", content[1:5])[::-1]
        elif marker == SOS:
            return size
    return 0, 0


def _orientation(tree: Tree) -> int:
    for directory in tree.directories[:1]:
        for value in tree.values(directory, ORIENTATION)[:1]:
            return value if value in range(1, 9) else 1
    return 1


def _in_tree(tree: Tree) -> Iterator[tuple[int, int]]:
    """Yield start and length of whatever may be a JPEG in a TIFF tree."""
    for directory in tree.directories:
        for tags in ((JPEG_START, JPEG_SIZE), (STRIPS, STRIP_SIZES)):
            try:
                starts, lengths = (tree.values(directory, tag) for tag in tags)
            except BROKEN:
                continue
            if len(starts) == 1 == len(lengths):
                yield tree.base + starts[0], lengths[0]
        for tag, entry in directory.items():
            if tag == MAKER_NOTE:
                yield from _in_olympus_note(tree, entry)
            elif entry.kind in (1, 7) and entry.number > 1000:  # as Panasonic has it
                yield entry.start, entry.number


def _in_olympus_note(tree: Tree, note: Entry) -> Iterator[tuple[int, int]]:
    """Yield the preview that Olympus keeps in its own directory, with offsets from where that begins."""
    kind = tree.data.read(note.start, min(16, tree.data.size - note.start))
    skip = next(
        (len(s) for s in (b"OLYMPUS\0II\3\0", b"OM SYSTEM\0\0\0II\4\0") if kind.startswith(s)), 0
    )
    if not skip:
        return
    inner = Tree.__new__(Tree)
    inner.data, inner.base, inner.is_little = tree.data, note.start, True
    try:
        directory, _ = inner._read(note.start + skip)
        for start in inner.values(directory, 0x2020)[:1]:
            settings, _ = inner._read(note.start + start)
            for place in zip(
                inner.values(settings, 0x101), inner.values(settings, 0x102), strict=False
            ):
                yield note.start + place[0], place[1]
    except BROKEN:
        return


def _in_boxes(data: Binary) -> Iterator[tuple[int, int]]:
    """Yield the JPEGs of a CR3: that of its preview box, and the first sample of each track."""
    for box in find(data, 0, data.size, b"uuid"):
        if data.read(box.start, 16) == CANON_PREVIEW:
            content = data.read(box.start, min(box.stop - box.start, 256))
            begin = content.find(b"\xff\xd8\xff")
            if begin >= 0:
                yield box.start + begin, box.stop - box.start - begin
    for table in find(data, 0, data.size, b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        start, length = 0, 0
        for kind, at, _ in walk(data, table.start, table.stop):
            if kind == b"stsz":  # one size for all, or a table
                length = data.number(at + 4, 4) or data.number(at + 12, 4)
            elif kind in (b"co64", b"stco"):
                start = data.number(at + 8, 8 if kind == b"co64" else 4)
        yield start, length


def _orientation_in_boxes(data: Binary) -> int:
    for box in find(data, 0, data.size, b"moov", b"uuid"):
        if data.read(box.start, 16) == CANON_TAGS:
            for tags in find(data, box.start + 16, box.stop, b"CMT1"):
                content = data.read(tags.start, min(tags.stop - tags.start, MAX_HEADER))
                return _orientation(Tree(Binary(content)))
    return 1


def _searched(data: Binary) -> Iterator[tuple[int, int]]:
    """Yield every place at which a JPEG may begin, for files whose tree does not lead to one."""
    content = data.read(0, min(data.size, MAX_SEARCHED))
    for number, found in enumerate(re.finditer(rb"\xff\xd8\xff[\xc0-\xfe]", content)):
        if number < MAX_ENTRIES:
            yield found.start(), data.size - found.start()
