"""Open an image and look at its header; a file that no reader takes is refused with what it is and what to do."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image, UnidentifiedImageError

from lifeiqa_plugin.images import raw
from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.kinds import BYTES, HEIF, kind_of
from lifeiqa_plugin.images.pixels import JPEGS
from lifeiqa_plugin.images.refusals import check_file, first_line, name_of, refuse, reporting
from lifeiqa_plugin.images.signals import ADOBE_MARK, NOTHING, Signaled, read_signals
from lifeiqa_plugin.images.whole import (
    describe_depth,
    is_cut_off,
    missing_elsewhere,
    note_or_refuse,
)
from lifeiqa_plugin.pyiqa_compat import add_codec, own_pillow_rules

Content: TypeAlias = "str | os.PathLike[str] | bytes"
"""The path of a file, or what is in it."""

COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
"""Formats that Pillow knows without importing all its other readers."""

FORMATS = (
    *COMMON, "WEBP", "TIFF", "MPO", "JPEG2000", "AVIF", "HEIF", "JXL",
    "DDS", "DIB", "ICNS", "ICO", "PCX", "PSD", "QOI", "SGI", "TGA",
)  # fmt: skip
"""What is opened. Pillow's others are no photographs, or start another program to be read (EPS)."""

GAPS = ("AVIF", "HEIF", "PNG", "TIFF", "WEBP")
"""Formats whose decoders do not notice everything that is missing."""


@dataclass(frozen=True)
class Opened:
    """An image whose header has been read.

    Attributes:
        image: Pillow's.
        content: the file that it is in; None for an image of the caller's.
        orientation: that of the file around it, for an image that has none of its own.
        notes: what is to be known of it.
    """

    image: Image.Image
    content: Content | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()

    @property
    def reopen(self) -> Callable[[], Image.Image] | None:
        """What opens it once more; None for an image of the caller's."""
        content = self.content
        return None if content is None else lambda: _attempt(content, FORMATS)

    def read_signals(self) -> Signaled:
        """Read what it says of its colors besides a profile."""
        is_plain = self.image.format in JPEGS and ADOBE_MARK not in self.image.info.get("exif", b"")
        if self.content is None or is_plain:
            return NOTHING
        with Binary(self.content) as data:
            return read_signals(self.image, data)

    def look_for_gaps(self) -> tuple[str, ...]:
        """Note what is missing of an image that its decoder takes for whole; ``ValueError`` if it is more than 1 %."""
        if self.content is None or self.image.format not in GAPS:
            return ()
        with Binary(self.content) as data:
            return note_or_refuse(missing_elsewhere(self.image, data))


@contextmanager
def open_image(source: Content | Image.Image) -> Iterator[Opened]:
    """Open an image and look at its header; a Pillow image is passed on and stays open.

    Raises:
        ImageError: as :func:`lifeiqa_plugin.images.reading.decode`, as far as the header tells.
    """
    if isinstance(source, Image.Image):
        yield Opened(source)
        return
    name = name_of(source)
    if not isinstance(source, bytes):
        check_file(source, name)
    with reporting(name, "cannot be read as an image"), own_pillow_rules():
        opened = _open(source, name)
    with opened.image:
        yield opened


def check_image(source: Content) -> None:
    """See that a file is there and begins as an image does; its pixels are not decoded.

    Raises:
        ImageError: as :func:`open_image`.
    """
    with open_image(source):
        pass


def _open(source: Content, name: str) -> Opened:
    if source == b"":
        raise refuse(name, "empty file")
    try:
        return Opened(_attempt(source, COMMON), source)
    except UnidentifiedImageError:
        Image.init()
    with Binary(source) as data:
        start = data.read_some(0, BYTES)
        if raw.is_raw(data, name):
            return _open_raw(data, name)
        missing = add_codec(start, kind_of(start) is HEIF)
        is_cut = is_cut_off(data)
    try:
        return Opened(_attempt(source, FORMATS), source)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
        if missing:
            reason = f"cannot be read as an image (needs pip install {missing})"
        elif is_cut:
            reason = "damaged image (its end is missing)"
        else:
            reason = f"cannot be read as an image ({_why_not(source, start, error)}"
        raise refuse(name, reason) from error


def _attempt(source: Content, formats: tuple[str, ...]) -> Image.Image:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    known = tuple(kind for kind in formats if kind in Image.OPEN or kind in COMMON)
    return Image.open(file, formats=known)


def _open_raw(data: Binary, name: str) -> Opened:
    preview = raw.find_preview(data)
    if preview is None or preview.width * preview.height < raw.MIN_PIXELS:
        found = f"only one of {preview.width} x {preview.height}" if preview else "none"
        raise refuse(
            name,
            f"camera raw, of which the embedded JPEG is looked at, and there is {found} "
            "(at least 1 megapixel is needed); develop it to JPEG",
        )
    source = f"source: embedded JPEG {preview.width} x {preview.height}"
    image = _attempt(preview.content, ("JPEG",))
    return Opened(image, preview.content, preview.orientation, (source,))


def _why_not(source: Content, start: bytes, error: Exception) -> str:
    """Say what a file is that no reader takes, and what to do."""
    kind = kind_of(start)
    if kind is None:
        return "of no kind that is known); expected JPEG, PNG or the like, so convert it"
    if not kind.is_read:
        return f"it is {kind.name}); {kind.advice}"
    words = "" if isinstance(error, UnidentifiedImageError) else first_line(error)
    words = words or _decoder_says(source, start) or "the reader for it is not installed"
    with Binary(source) as data:
        words = ", ".join(filter(None, (describe_depth(data), words)))
    return f"it is {kind.name} that its reader refuses: {words}); {kind.advice}"


def _decoder_says(source: Content, start: bytes) -> str:
    """Return what the reader of a format says against a file, which Pillow keeps to itself."""
    for kind in FORMATS:
        reader, accept = Image.OPEN.get(kind, (None, None))
        if reader is None or (accept is not None and accept(start[:16]) is not True):
            continue
        try:
            with Binary(source) as data:
                reader(data.file, "")
        except Exception as error:  # as Image.open, any reader may raise anything
            return first_line(error)
    return ""
