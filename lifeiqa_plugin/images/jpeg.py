"""How much of a JPEG is there. libjpeg fills what is missing with gray, and Pillow does not pass its warning on.

The decoder is fed by hand: all coded data, then a few bytes that only a scan which lacks data takes for its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lifeiqa_plugin.images.kinds import UnsupportedError

MAX_MISSING = 0.01
"""Share of an image that may be missing; more is an error."""

PADDING = b"\xff\x00"
"""Eight ones. No Huffman code is all ones, so a block of coefficients takes four of these."""

PADDINGS = 12
"""How many are given: the decoder looks 8 bytes ahead."""

HOLE = bytes(64)
"""So many zeros stand in coded data only where the shortest codes mean that nothing changes."""

END = b"\xff\xd9"

SOS, DHT, DRI = 0xDA, 0xC4, 0xDD

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
    stop: int
    components: bytes
    first: int  # of the 64 coefficients
    last: int
    low_bit: int  # 0 if they are complete after this scan
    hole: int | None  # where zeros begin that no encoder writes


class Header(NamedTuple):
    """What stands before the coded data."""

    frame: int
    components: bytes
    has_many_scans: bool
    start: int = 0  # of the coded data


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


def load_jpeg(image: Any) -> tuple[str, ...]:
    """Load the pixels of a JPEG that Pillow has opened, and say in notes what is missing.

    Raises:
        ValueError: more than 1 % of it is missing.
        UnsupportedError: a kind of JPEG that is not decoded.
        OSError: what the decoder says.
    """
    at = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    feed = _Feed(image)
    try:
        header = _header_of_one_scan(data, at, image.layers) or read_header(data)
        if not header.has_many_scans:
            feed(data)
            is_cut = not feed.is_finished or _ends_gray(image) or _has_hole(data, header.start)
            has_end = data.endswith(END) or data.find(END, header.start) >= 0
        else:
            scans = list(read_scans(data))
            is_cut = _feed_scans(feed, data, scans) is not None or not _is_covered(header, scans)
            has_end = data.startswith(END, scans[-1].stop if scans else 0)
    except OSError as error:
        if read_header(data).frame in LOSSLESS:
            raise UnsupportedError(
                "a JPEG without losses or in layers, which few programs read"
            ) from error
        raise
    if is_cut:
        notes = note_or_refuse(find_missing(data))
        feed.pad()
        feed(END)
        if notes:
            return notes
    return () if has_end else ("the end marker is missing, but no pixel is",)


def _header_of_one_scan(data: bytes, at: int, components: int) -> Header | None:
    """Return the header if all coded data are in one scan that begins where Pillow has stopped reading; cheap."""
    size = 6 + 2 * components
    start = data[max(at - size - 2, 0) : at]
    if start[:2] == b"\xff\xda" and start[4:5] == bytes([components]) and start[-3:-1] == b"\0\x3f":
        return Header(0, b"", False, at)
    return None


def _has_hole(data: bytes, start: int) -> bool:
    """Say whether there is a hole in the coded data that begin there; what follows the image does not count."""
    hole = data.find(HOLE, start)
    return hole >= 0 and MARKER.search(data, start, hole) is None


def find_missing(data: bytes) -> Missing:
    """Find out how much of a JPEG is missing, at the cost of one or three times decoding it."""
    header = read_header(data)
    scans = list(read_scans(data))
    if not scans:
        return Missing(1.0)
    if header.has_many_scans:
        return Missing(
            _missing_detail(data, header, scans), "fine detail of the last {} is missing"
        )
    scan = scans[0]
    restart = None if scan.hole is None else RESTART.search(data, scan.hole, scan.stop)
    if restart is not None and scan.hole is not None:
        share = (restart.start() - scan.hole) / (scan.stop - scan.start)
        return Missing(share, "{} in the middle are missing")
    feed = _Feed(_open(data))
    feed(data[: _stop(scan)])
    return Missing(0.0 if feed.pad() or header.frame >= ARITHMETIC else _missing_rows(feed))


def _missing_rows(feed: _Feed) -> float:
    """Return the share of pixels that a decoder has no data for."""
    height, width = feed.pixels.shape[:2]
    filled = int(np.flatnonzero(feed.pixels.reshape(height, -1).any(1)).max(initial=-1)) + 1
    feed(END)
    rest = feed.pixels[filled:].reshape((height - filled) * width, -1)
    return float((rest == rest[-1:]).all(1).sum() / (height * width))


def _missing_detail(data: bytes, header: Header, scans: list[Scan]) -> float:
    """Return the share of rows that lack some scan of a JPEG, of whose scans each adds detail to the whole image."""
    cut = _feed_scans(_Feed(_open(data)), data, scans)
    if not _is_covered(header, scans):
        return 1.0
    if cut is None:
        return 0.0
    images = []
    for stop in (scans[cut].start, _stop(scans[cut])):
        feed = _Feed(_open(data))
        feed(data[:stop] + END)
        images.append(feed.pixels)
    changed = np.flatnonzero((images[0] != images[1]).reshape(len(images[0]), -1).any(1))
    return 1 - (int(changed.max(initial=-1)) + 1) / len(images[0])


class _Feed:
    """Pillow's decoder for JPEGs, which takes data in pieces; the pixels of ``image`` become what it makes of them."""

    def __init__(self, image: Any) -> None:
        name, box, _, arguments = image.tile[0]
        image.load_prepare()
        image.tile = []
        self.image = image
        self.decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
        self.decoder.setimage(image.im, box)
        self.rest = b""
        self.is_finished = False

    def __call__(self, data: bytes) -> None:
        if self.is_finished:
            return
        self.rest += data
        taken, error = self.decoder.decode(self.rest)
        if error < 0:
            raise OSError(f"broken data stream when reading image file ({error})")
        self.is_finished = taken < 0
        self.rest = self.rest[taken:]

    def pad(self) -> bool:
        """Say whether the scan is whole: it is finished, or takes padding for what it may pass over."""
        last = []
        for _ in range(PADDINGS):
            self(PADDING)
            last.append(self.is_finished or not self.rest)
        return all(last[-3:])

    @property
    def pixels(self) -> Any:
        return np.asarray(self.image)


def _feed_scans(feed: _Feed, data: bytes, scans: list[Scan]) -> int | None:
    """Decode scans; return the number of the first that lacks data."""
    cut = None
    position = 0
    for number, scan in enumerate(scans):
        feed(data[position : _stop(scan)])
        is_whole = feed.pad()
        if cut is None and not is_whole:
            cut = number
        position = scan.stop
    feed(END)
    return cut


def _stop(scan: Scan) -> int:
    return scan.stop if scan.hole is None else scan.hole


def _is_covered(header: Header, scans: list[Scan]) -> bool:
    """Say whether there are scans for every bit of every coefficient."""
    bits = {component: [1] * 64 for component in header.components}
    for scan in scans:
        for component in scan.components:
            if component in bits:
                number = scan.last - scan.first + 1
                bits[component][scan.first : scan.last + 1] = [scan.low_bit] * number
    return not any(map(any, bits.values()))


def _ends_gray(image: Any) -> bool:
    """Say whether the last pixel is what blocks without data become."""
    last = image.getpixel((image.width - 1, image.height - 1))
    return set(last if isinstance(last, tuple) else (last,)) <= {127, 128}


def _open(data: bytes) -> Any:
    return Image.open(io.BytesIO(data), formats=("JPEG",))


def read_segments(data: bytes, position: int = 2) -> Iterator[Segment]:
    """Yield segments up to the head of a scan, or the end."""
    while found := MARKER.search(data, position):
        marker, start = data[found.end() - 1], found.end() + 2
        if marker in (0xD8, 0x01):
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
    position = 2
    frame = 0
    zeros: dict[int, int] = {}  # table -> the symbol whose code is all zeros
    while True:
        for segment in read_segments(data, position):
            marker, start, content = segment
            position = start + len(content)
            if marker in FRAMES:
                frame = marker
            elif marker == DHT:
                zeros |= dict(_symbols_of_zeros(content))
            elif marker == SOS:
                break
        else:
            return
        if marker != SOS or not content or len(content) < 2 * content[0] + 4:
            return
        found = MARKER.search(data, position)
        yield _scan(data, position, found.start() if found else len(data), content, frame, zeros)
        position = found.start() if found else len(data)


def _scan(
    data: bytes, start: int, stop: int, content: bytes, frame: int, zeros: dict[int, int]
) -> Scan:
    number = content[0]
    components, tables = content[1 : 1 + 2 * number : 2], content[2 : 2 + 2 * number : 2]
    first, last, bits = content[1 + 2 * number :][:3]
    if frame != PROGRESSIVE:
        first, last, bits = 0, 63, 0
    last = min(last, 63)
    used = [table >> 4 for table in tables] if first == 0 else []
    used += [0x10 | table & 15 for table in tables] if last > 0 else []
    is_flat = all(zeros.get(table, 0) & 15 == 0 and zeros.get(table, 0) < 0xF0 for table in used)
    hole = -1 if is_flat else data.find(HOLE, start, stop)
    return Scan(start, stop, components, first, last, bits & 15, None if hole < 0 else hole)


def _symbols_of_zeros(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the number of each Huffman table, and its first symbol: its code is all zeros."""
    position = 0
    while position + 17 < len(content):
        yield content[position], content[position + 17]
        position += 17 + sum(content[position + 1 : position + 17])
