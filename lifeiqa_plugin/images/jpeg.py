"""The parts of a JPEG file: its segments, what stands before the coded data, and the scans that these lie in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

HOLE = bytes(64)
"""So many zeros stand in coded data only where the shortest codes mean that nothing changes."""

END = b"\xff\xd9"

SOS, DHT = 0xDA, 0xC4

FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})

PROGRESSIVE = 0xC2

LOSSLESS = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})

ARITHMETIC = 0xC9
"""From this frame on, the decoder cannot wait for data."""

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""What ends coded data; a 0 after 255 makes it a byte of them, and restarts belong to them."""

RESTART = re.compile(rb"\xff[\xd0-\xd7]")


class Segment(NamedTuple):
    """A marker with what it holds."""

    marker: int
    start: int  # where its content begins
    content: bytes


class Scan(NamedTuple):
    """Where the coded data of a scan lie, and what they say."""

    start: int
    hole: int  # where zeros begin that no encoder writes; ``stop`` if there are none
    stop: int
    components: bytes
    first: int  # of the 64 coefficients
    last: int
    low_bit: int  # 0 if they are complete after this scan


class Header(NamedTuple):
    """What stands before the coded data."""

    frame: int
    components: bytes
    has_many_scans: bool
    start: int  # of the coded data


def read_segments(data: bytes, position: int = 2) -> Iterator[Segment]:
    """Yield segments up to the head of a scan, or the end."""
    while found := MARKER.search(data, position):
        marker, start = data[found.end() - 1], found.end() + 2
        if marker in (0xD8, 0x01):  # these stand alone
            position = found.end()
            continue
        stop = found.end() + int.from_bytes(data[found.end() : start], "big")
        if marker == END[1] or stop < start or stop > len(data):
            return
        yield Segment(marker, start, data[start:stop])
        if marker == SOS:
            return
        position = stop


def read_header(data: bytes) -> Header:
    """Look at what stands before the first scan; nothing is there if that is damaged."""
    frame, components, has_many_scans, begin = 0, b"", False, 0
    for marker, start, content in read_segments(data):
        if marker in FRAMES and len(content) >= 6:
            frame, components = marker, content[6 : 6 + 3 * content[5] : 3]
        elif marker == SOS and content:
            is_progressive = frame in (PROGRESSIVE, ARITHMETIC + 1)
            has_many_scans = is_progressive or content[0] < len(components)
            begin = start + len(content)
    return Header(frame, components, has_many_scans and frame < ARITHMETIC, begin)


def read_scans(data: bytes) -> Iterator[Scan]:
    """Yield the scans of the first image in a file."""
    position, frame = 2, 0
    zeros: dict[int, int] = {}  # Huffman table -> the symbol whose code is all zeros
    while True:
        marker, content = 0, b""
        for marker, start, content in read_segments(data, position):
            position = start + len(content)
            if marker in FRAMES:
                frame = marker
            elif marker == DHT:
                zeros |= _symbols_of_zeros(content)
        if marker != SOS or not content or len(content) < 2 * content[0] + 4:
            return
        found = MARKER.search(data, position)
        stop = found.start() if found else len(data)
        yield _read_scan(data, position, stop, content, frame == PROGRESSIVE, zeros)
        position = stop


def _read_scan(
    data: bytes, start: int, stop: int, head: bytes, is_progressive: bool, zeros: dict[int, int]
) -> Scan:
    end = 1 + 2 * head[0]
    components, tables = head[1:end:2], head[2:end:2]
    first, last, bits = head[end : end + 3] if is_progressive else (0, 63, 0)
    last = min(last, 63)
    # the upper half of a byte is the table of the first coefficient, the lower that of the others
    used = [table >> 4 for table in tables] if first == 0 else []
    used += [0x10 | table & 15 for table in tables] if last > 0 else []
    # a symbol is a run of zeros (upper half) and the bits of what follows; from 0xF0 on, all are zeros
    is_flat = all(zeros.get(table, 0) & 15 == 0 and zeros.get(table, 0) < 0xF0 for table in used)
    hole = -1 if is_flat else data.find(HOLE, start, stop)
    return Scan(start, stop if hole < 0 else hole, stop, components, first, last, bits & 15)


def _symbols_of_zeros(content: bytes) -> dict[int, int]:
    """Return the first symbol of each Huffman table of a segment: its code is all zeros."""
    symbols = {}
    position = 0
    while position + 17 < len(content):  # a number, 16 counts of codes by their length, symbols
        symbols[content[position]] = content[position + 17]
        position += 17 + sum(content[position + 1 : position + 17])
    return symbols
