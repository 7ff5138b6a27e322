"""How much of a JPEG is there. libjpeg fills what is missing with gray, and Pillow does not pass its warning on.

The decoder is fed by hand: all coded data, then a few bytes that only a scan which lacks data takes for its own.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from lifeiqa_plugin.images import jpeg
from lifeiqa_plugin.images.jpeg import END, Header, Scan, read_header, read_scans
from lifeiqa_plugin.images.kinds import UnsupportedError
from lifeiqa_plugin.images.strips import as_array
from lifeiqa_plugin.images.whole import Missing, note_or_refuse

PADDING = b"\xff\x00"
"""Eight ones. No Huffman code is all ones, so a block of coefficients takes four of these."""

FIRST_PADDINGS, LAST_PADDINGS = 9, 3
"""How many are given at once, since the decoder looks 8 bytes ahead, and then one by one."""


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
        if header.has_many_scans:
            scans = list(read_scans(data))
            is_cut = feed.scans(data, scans) is not None or not _is_covered(header, scans)
            has_end = data.startswith(END, scans[-1].stop if scans else 0)
        else:
            feed(data)
            is_cut = not feed.is_finished or _ends_gray(image) or _has_hole(data, header.start)
            has_end = data.endswith(END) or data.find(END, header.start) >= 0
    except OSError as error:
        if read_header(data).frame in jpeg.LOSSLESS:
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
    head = data[max(at - 8 - 2 * components, 0) : at]  # marker, length, components, 0 to 63, bits
    if head[:2] == b"\xff\xda" and head[4:5] == bytes([components]) and head[-3:-1] == b"\0\x3f":
        return Header(0, b"", False, at)
    return None


def _ends_gray(image: Any) -> bool:
    """Say whether the last pixel is what blocks without data become."""
    last = image.getpixel((image.width - 1, image.height - 1))
    return set(last if isinstance(last, tuple) else (last,)) <= {127, 128}


def _has_hole(data: bytes, start: int) -> bool:
    """Say whether there is a hole in the coded data that begin there; what follows the image does not count."""
    hole = data.find(jpeg.HOLE, start)
    return hole >= 0 and jpeg.MARKER.search(data, start, hole) is None


def find_missing(data: bytes) -> Missing:
    """Find out how much of a JPEG is missing, at the cost of one or three times decoding it."""
    header = read_header(data)
    scans = list(read_scans(data))
    if not scans:
        return Missing(1.0)
    if header.has_many_scans:
        share = _missing_detail(data, header, scans)
        return Missing(share, "fine detail of the last {} is missing")
    scan = scans[0]
    restart = jpeg.RESTART.search(data, scan.hole, scan.stop)
    if restart is not None and scan.hole < scan.stop:
        share = (restart.start() - scan.hole) / (scan.stop - scan.start)
        return Missing(share, "{} in the middle are missing")
    feed = _Feed(_open(data))
    feed(data[: scan.hole])
    return Missing(0.0 if feed.pad() or header.frame >= jpeg.ARITHMETIC else _missing_rows(feed))


def _missing_rows(feed: _Feed) -> float:
    """Return the share of pixels that a decoder has no data for: the same gray down to the last."""
    height, width = feed.pixels.shape[:2]
    filled = int(np.flatnonzero(feed.pixels.reshape(height, -1).any(1)).max(initial=-1)) + 1
    feed(END)
    rest = feed.pixels[filled:].reshape((height - filled) * width, -1)
    return float((rest == rest[-1:]).all(1).sum() / (height * width))


def _missing_detail(data: bytes, header: Header, scans: list[Scan]) -> float:
    """Return the share of rows that lack some scan of a JPEG, of whose scans each adds detail to the whole image."""
    cut = _Feed(_open(data)).scans(data, scans)
    if not _is_covered(header, scans):
        return 1.0
    if cut is None:
        return 0.0
    images = []
    for stop in (scans[cut].start, scans[cut].hole):
        feed = _Feed(_open(data))
        feed(data[:stop] + END)
        images.append(feed.pixels)
    before, after = images
    changed = np.flatnonzero((before != after).reshape(len(before), -1).any(1))
    return 1 - (int(changed.max(initial=-1)) + 1) / len(before)


def _is_covered(header: Header, scans: list[Scan]) -> bool:
    """Say whether there are scans for every bit of every coefficient."""
    bits = {component: [1] * 64 for component in header.components}
    for scan in scans:
        for component in bits.keys() & set(scan.components):
            number = scan.last - scan.first + 1
            bits[component][scan.first : scan.last + 1] = [scan.low_bit] * number
    return not any(map(any, bits.values()))


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

    def scans(self, data: bytes, scans: list[Scan]) -> int | None:
        """Decode scans; return the number of the first that lacks data."""
        cut = None
        position = 0
        for number, scan in enumerate(scans):
            self(data[position : scan.hole])
            if not self.pad() and cut is None:
                cut = number
            position = scan.stop
        self(END)
        return cut

    def pad(self) -> bool:
        """Say whether the scan is whole: it is finished, or takes padding for what it may pass over."""
        self(PADDING * FIRST_PADDINGS)
        is_whole = True
        for _ in range(LAST_PADDINGS):
            self(PADDING)
            is_whole &= self.is_finished or not self.rest
        return is_whole

    @property
    def pixels(self) -> Any:
        return as_array(self.image)


def _open(data: bytes) -> Any:
    return Image.open(io.BytesIO(data), formats=("JPEG",))
