"""Camera raw files: the largest JPEG that the camera has put into them, which is what culling tools look at.

TIFF trees (NEF, CR2, ARW, DNG, RW2, ORF, PEF and more), the boxes of CR3, RAF's header; else the file is searched.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from lifeiqa_plugin.images import tiff
from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.boxes import find, walk
from lifeiqa_plugin.images.jpeg import FRAMES, SOS, read_segments
from lifeiqa_plugin.images.tiff import BROKEN, STRIP_SIZES, STRIPS, Directory, Tiff

SUFFIXES = frozenset(
    {
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc",
        ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf",
        ".srw", ".x3f",
    }
)  # fmt: skip
"""How the names of camera raw files end."""

MIN_PIXELS = 1_000_000

MAX_PLACES, MAX_HEADER, MAX_SEARCHED = 2000, 1 << 19, 1 << 29

JPEG = b"\xff\xd8\xff"

RAF = b"FUJIFILMCCD-RAW "

OTHERS = (b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR", RAF)
"""How raw files begin that are no TIFF: Sigma, Minolta, early Canon, Fujifilm."""

OLYMPUS = (b"OLYMPUS\0II\3\0", b"OM SYSTEM\0\0\0II\4\0")
"""How the maker note begins that has directories of its own."""

CANON_PREVIEW = bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16")
CANON_TAGS = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")

JPEG_START, JPEG_SIZE, MAKER_NOTE, DNG_VERSION = 513, 514, 37500, 50706

OLYMPUS_SETTINGS, OLYMPUS_START, OLYMPUS_SIZE = 0x2020, 0x101, 0x102

SENSOR = {32803, 34892}
"""Photometric interpretations: colors of a sensor's filters, or its linear light."""

RAW_COMPRESSIONS = {32767, 32769, 32770, 34713, 34892, 65535}
"""Those of Sony, Epson, Samsung, Nikon, DNG and Pentax."""

Place = tuple[int, int]
"""Start and length of what may be a JPEG."""


class Preview(NamedTuple):
    """A JPEG in a raw file, and the orientation that the raw file gives to all its images."""

    content: bytes
    width: int
    height: int
    orientation: int = 1


def is_raw(data: Binary, name: str = "") -> bool:
    """Say whether a file is a camera's raw data, by what is in it, or by its name if it is a TIFF at all."""
    start = data.read_some(0, 16)
    if start.startswith(OTHERS) or start[4:12] == b"ftypcrx ":
        return True
    if not start.startswith(tiff.STARTS):
        return False
    if name.lower().endswith(tuple(SUFFIXES)):
        return True
    if not start.startswith(tiff.STARTS[:2]) or start[8:10] == b"CR":
        return True
    try:
        tree = Tiff(data)
        return any(_is_sensor(tree, directory) for directory in tree.directories)
    except BROKEN:
        return False


def _is_sensor(tree: Tiff, directory: Directory) -> bool:
    try:
        photometric = tree.values(directory, tiff.PHOTOMETRIC)
        compression = tree.values(directory, tiff.COMPRESSION)
    except BROKEN:
        return False
    is_sensor = SENSOR.intersection(photometric) or RAW_COMPRESSIONS.intersection(compression)
    return bool(is_sensor) or DNG_VERSION in directory


def find_preview(data: Binary) -> Preview | None:
    """Return the largest JPEG in a raw file, whatever its size; None if there is none."""
    start = data.read_some(0, 16)
    places: list[Place] = []
    orientation = 1
    try:
        if start.startswith(RAF):
            places = [(data.number(84, 4), data.number(88, 4))]
        elif start[4:8] == b"ftyp":
            places, orientation = list(_in_boxes(data)), _orientation_in_boxes(data)
        elif start.startswith(tiff.STARTS):
            tree = Tiff(data)
            places, orientation = list(_in_tree(tree)), _orientation(tree)
    except BROKEN:
        pass
    best = _largest(data, places)
    if best is None or best.width * best.height < MIN_PIXELS:
        best = _largest(data, [*places, *_searched(data)])
    return best and best._replace(orientation=orientation)


def _largest(data: Binary, places: list[Place]) -> Preview | None:
    best, found = 0, None
    for start, length in places:
        width, height = _jpeg_size(data, start, length)
        if width * height > best:
            best, found = width * height, (start, length, width, height)
    if found is None:
        return None
    start, length, width, height = found
    return Preview(data.read_some(start, length), width, height)


def _jpeg_size(data: Binary, start: int, length: int) -> tuple[int, int]:
    """Return width and height of a JPEG of 8 bits that begins there; 0, 0 for anything else."""
    if not 0 <= start < data.size:
        return 0, 0
    header = data.read_some(start, min(length, MAX_HEADER))
    size = 0, 0
    for marker, _, content in read_segments(header) if header.startswith(JPEG) else ():
        if marker in FRAMES:
            if marker > 0xC2 or len(content) < 6 or content[0] != 8:  # lossless, or of 12 bits
                return 0, 0
            size = struct.unpack(">2H", content[1:5])[::-1]
        elif marker == SOS:
            return size
    return 0, 0


def _orientation(tree: Tiff) -> int:
    values = tree.values(tree.directories[0], tiff.ORIENTATION) if tree.directories else []
    return values[0] if values and values[0] in range(1, 9) else 1


def _in_tree(tree: Tiff) -> Iterator[Place]:
    """Yield whatever may be a JPEG in a TIFF tree."""
    for directory in tree.directories:
        for tags in ((JPEG_START, JPEG_SIZE), (STRIPS, STRIP_SIZES)):
            try:
                starts, lengths = (tree.values(directory, tag) for tag in tags)
            except BROKEN:
                continue
            if len(starts) == 1 == len(lengths):
                yield starts[0], lengths[0]
        for tag, entry in directory.items():
            if tag == MAKER_NOTE:
                yield from _in_olympus_note(tree.data, entry.start)
            elif entry.kind in (1, 7) and entry.number > 1000:  # as Panasonic has it
                yield entry.start, entry.number


def _in_olympus_note(data: Binary, start: int) -> Iterator[Place]:
    """Yield the preview that Olympus keeps in its own directory, with offsets from where that begins."""
    kind = data.read_some(start, 16)
    note = Tiff(data, start, is_little=True)
    try:
        for begin in filter(kind.startswith, OLYMPUS):
            directory, _ = note.read(start + len(begin))
            for inner in note.values(directory, OLYMPUS_SETTINGS)[:1]:
                settings, _ = note.read(start + inner)
                tags = (OLYMPUS_START, OLYMPUS_SIZE)
                starts, lengths = (note.values(settings, tag) for tag in tags)
                yield from ((start + at, n) for at, n in zip(starts, lengths, strict=False))
    except BROKEN:
        return


def _in_boxes(data: Binary) -> Iterator[Place]:
    """Yield the JPEGs of a CR3: that of its preview box, and the first sample of each track."""
    for box in find(data, 0, data.size, b"uuid"):
        if data.read(box.start, 16) == CANON_PREVIEW:
            begin = data.read(box.start, min(box.stop - box.start, 256)).find(JPEG)
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
                return _orientation(Tiff(Binary(content)))
    return 1


def _searched(data: Binary) -> Iterator[Place]:
    """Yield every place at which a JPEG may begin, for files whose tree does not lead to one."""
    content = data.read_some(0, MAX_SEARCHED)
    found = re.finditer(JPEG + rb"[\xc0-\xfe]", content)
    yield from ((one.start(), data.size - one.start()) for one in islice(found, MAX_PLACES))
