"""From whatever holds an image to its sRGB pixels, by one set of decode rules; ``docs/decoding.md`` lists them.

Everything of this package that looks at an image comes through here. Importing this module does not import torch.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lifeiqa_plugin.images import raw
from lifeiqa_plugin.images.binary import Binary
from lifeiqa_plugin.images.kinds import BYTES, HEIF, UnsupportedError, kind_of
from lifeiqa_plugin.images.pixels import (
    JPEGS,
    TRANSPOSED,
    from_array,
    orient,
    orientation_of,
    to_srgb,
)
from lifeiqa_plugin.images.resizing import Pixels, resize, shape_of
from lifeiqa_plugin.images.signals import ADOBE_MARK, NOTHING, Signaled, read_signals
from lifeiqa_plugin.images.whole import describe_depth, is_cut_off, missing_elsewhere, note_or_refuse
from lifeiqa_plugin.pyiqa_compat import add_codec, own_pillow_rules, quiet_libtiff

if TYPE_CHECKING:
    import torch

Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | torch.Tensor"
)
"""A path, the bytes of a file, an open file, a Pillow image, an array (H, W[, 3 or 4]) or a tensor (3 or 1, H, W)."""

DECODING = 2
"""Version of the rules that turn a file into pixels; raised when a file gets other pixels, and so another score."""

MAX_PIXELS = 150_000_000
"""Images that have more are refused: 22 kB of PNG can hold 177 million, and each takes 3 to 16 bytes of memory."""

COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
"""Formats that Pillow knows without importing all its other readers."""

FORMATS = (
    *COMMON, "WEBP", "TIFF", "MPO", "JPEG2000", "AVIF", "HEIF", "JXL",
    "DDS", "DIB", "ICNS", "ICO", "PCX", "PSD", "QOI", "SGI", "TGA",
)  # fmt: skip
"""What is opened. Pillow's others are no photographs, or start another program to be read (EPS)."""

SEVERAL = ("AVIF", "GIF", "HEIF", "MPO", "PNG", "TIFF", "WEBP")
"""Formats that may hold frames or pages, of which the first is taken."""

GAPS = ("AVIF", "HEIF", "PNG", "TIFF", "WEBP")
"""Formats whose decoders do not notice everything that is missing."""

EXPECTED = "expected JPEG, PNG or the like, so convert it"

SUFFIXES = raw.SUFFIXES | {
    ".apng", ".avci", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif",
    ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".mpo",
    ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""How the names of files end that a folder is searched for."""


DISK_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENXIO, errno.ENODEV)

DISK_PROBLEM = "the disk or the network failed"


class ImageError(OSError):
    """An image that cannot be read; ``reason`` is the message without the name, in one line."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def _refuse(name: str, reason: str) -> ImageError:
    return ImageError(f"{name}: {reason}", reason)


class Decoded(NamedTuple):
    """Pixels as they are looked at, and the size of the image.

    Attributes:
        pixels: (H, W, 3) sRGB, uint8, or float32 in [0, 1] if there is more than 8 bits can hold.
        height: of the image; more than H if the decoder was allowed to shrink.
        width: the same.
        notes: what was assumed or left out, a few words each, such as ``first of 12 frames``.
    """

    pixels: NDArray[Any]
    height: int
    width: int
    notes: tuple[str, ...] = ()


def decode(source: Source, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image; ``docs/decoding.md`` says how each kind is treated.

    Args:
        source: see ``Source``. A file is read from where it stands.
        at_least: let the JPEG decoder shrink the image as long as its shorter side has so many pixels; None for never.
        max_pixels: more are refused.

    Raises:
        ImageError: an ``OSError`` that names the file: it is not there, no regular file, not an image, damaged, cut
            off, too large, or has values outside of the range of its type.
        TypeError: not a ``Source``.
    """
    loaded = _load(source, at_least, max_pixels)
    pixels = orient(np.asarray(loaded.pixels), loaded.orientation)
    return Decoded(pixels, loaded.height, loaded.width, loaded.notes)


def decode_resized(
    source: Source,
    working_shape: Callable[[int, int], tuple[int, int]],
    *,
    at_least: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode an image and resize it, a few rows at a time, so that no array is as large as the image.

    Args:
        source: as :func:`decode`.
        working_shape: (height, width) of the image -> those that it shall have.
        at_least: as :func:`decode`.
        max_pixels: the same.

    Returns:
        ``pixels`` are (3, h, w) float32 in [0, 1].

    Raises:
        ImageError, TypeError: as :func:`decode`.
    """
    loaded = _load(source, at_least, max_pixels)
    height, width = working_shape(loaded.height, loaded.width)
    stored = (width, height) if loaded.orientation >= TRANSPOSED else (height, width)
    planes = resize(loaded.pixels, stored, loaded.shrunk)
    turned = orient(planes.transpose(1, 2, 0), loaded.orientation).transpose(2, 0, 1)
    return Decoded(np.ascontiguousarray(turned), loaded.height, loaded.width, loaded.notes)


class _Loaded(NamedTuple):
    """An image in memory, as its file has it; height and width are those of the image as it is looked at."""

    pixels: Pixels
    orientation: int
    height: int
    width: int
    shrunk: int = 1  # how many of the file's pixels, to a side, the decoder made one of
    notes: tuple[str, ...] = ()


def _load(source: Source, at_least: int | None, max_pixels: int) -> _Loaded:
    name = name_of(source)
    if isinstance(source, np.ndarray) or hasattr(source, "cpu"):
        with _reporting(name):
            array = from_array(source)
        return _Loaded(array, 1, *array.shape[:2])
    if not isinstance(source, str | os.PathLike | bytes | Image.Image):
        if not hasattr(source, "read"):
            raise TypeError(
                f"an image must be a path, bytes, an open file, a Pillow image, an array or a tensor, "
                f"got {type(source).__name__}"
            )
        source = source.read()
    with own_pillow_rules(), open_image(source) as opened, _reporting(name):
        image = opened.image
        width, height = image.size
        if at_least is not None and image.format in JPEGS and image is not source:
            image.draft(None, (at_least, at_least))
        _check_size(image, name, max_pixels)
        frames = _note_frames(opened)
        with quiet_libtiff(image.format):
            frames += opened.look_for_gaps()
            pixels, notes = to_srgb(image, opened.reopen, opened.read_signals())
        orientation = orientation_of(image, opened.orientation)
    shrunk = 1
    if at_least is None:
        height, width = shape_of(pixels)
    else:
        shrunk = round(height / shape_of(pixels)[0])
        if shrunk == 1:
            height, width = shape_of(pixels)
        else:
            notes = (*notes, f"decoded at 1/{shrunk} of its size")
    if orientation >= TRANSPOSED:
        height, width = width, height
    return _Loaded(pixels, orientation, height, width, shrunk, (*opened.notes, *frames, *notes))


def _note_frames(opened: Opened) -> tuple[str, ...]:
    """Say how many frames or pages there are besides the first."""
    image = opened.image
    if b"hdrgm:" in image.info.get("xmp", b""):
        return ("gain map left out",)
    if image.format not in SEVERAL or opened.reopen is None:
        return ()
    if image.format not in ("GIF", "TIFF"):
        number = getattr(image, "n_frames", 1)
    else:  # these are counted by going through them
        with opened.reopen() as again:
            try:
                number = getattr(again, "n_frames", 1)
            except Exception:  # the first may be whole all the same
                return ("first of several frames, of which some are damaged",)
    return (f"first of {number} frames",) if number > 1 else ()


@overload
def read_image(source: Source) -> torch.Tensor: ...


@overload
def read_image(
    source: Source, *, with_notes: Literal[True]
) -> tuple[torch.Tensor, tuple[str, ...]]: ...


def read_image(
    source: Source, *, with_notes: bool = False
) -> torch.Tensor | tuple[torch.Tensor, tuple[str, ...]]:
    """Decode to (3, H, W) float32 in [0, 1].

    >>> read_image("examples/photos/coffee_0_clean.jpg").shape
    torch.Size([3, 400, 600])

    Args:
        source: see ``Source``.
        with_notes: return the notes too, which say what was assumed or left out.

    Raises:
        ImageError, TypeError: as :func:`decode`.
    """
    import torch

    decoded = decode(source)
    pixels = torch.from_numpy(np.array(decoded.pixels)).permute(2, 0, 1)
    pixels = pixels if pixels.is_floating_point() else pixels.float().div_(255)
    return (pixels, decoded.notes) if with_notes else pixels


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
    content: str | os.PathLike[str] | bytes | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()

    @property
    def reopen(self) -> Callable[[], Image.Image] | None:
        """What opens it once more; None for an image of the caller's."""
        content = self.content
        return None if content is None else lambda: _attempt(content, FORMATS)

    def read_signals(self) -> Signaled:
        """Read what it says of its colors besides a profile, and whether it is all there."""
        is_plain = self.image.format in JPEGS and ADOBE_MARK not in self.image.info.get("exif", b"")
        if self.content is None or is_plain:
            return NOTHING
        with Binary(self.content) as data:
            return read_signals(self.image, data)

    def look_for_gaps(self) -> tuple[str, ...]:
        """Note what is missing of an image that its decoder takes for whole.

        Raises:
            ValueError: more than 1 % of it.
        """
        if self.content is None or self.image.format not in GAPS:
            return ()
        with Binary(self.content) as data:
            return note_or_refuse(missing_elsewhere(self.image, data))


@contextmanager
def open_image(source: str | os.PathLike[str] | bytes | Image.Image) -> Iterator[Opened]:
    """Open an image and look at its header; a Pillow image is passed on and stays open.

    Raises:
        ImageError: as :func:`decode`, as far as the header tells.
    """
    name = name_of(source)
    if isinstance(source, Image.Image):
        yield Opened(source)
        return
    if not isinstance(source, bytes):
        _check_file(source, name)
    with _reporting(name, "cannot be read as an image"), own_pillow_rules():
        opened = _open(source, name)
    with opened.image:
        yield opened


def check_image(source: str | os.PathLike[str] | bytes) -> None:
    """See that a file is there and begins as an image does; its pixels are not decoded.

    Raises:
        ImageError: as :func:`open_image`.
    """
    with open_image(source):
        pass


def name_of(source: Source) -> str:
    """Return what an image is called in messages and tables: always one line of valid text."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "filename", None)
    path = path or getattr(source, "name", None)
    if not isinstance(path, str | os.PathLike):
        return f"<{type(source).__name__}>"
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def find_images(folder: str | Path) -> list[str]:
    """Return the files in and below a folder whose names end as those of images do, sorted.

    Raises:
        ValueError: there is none, or no such folder.
    """
    found = sorted(walk_images(Path(folder).expanduser()))
    if not found:
        raise ValueError(f"{folder}: no images in it; expected files such as .jpg, .png or .webp")
    return found


def walk_images(
    folder: str | os.PathLike[str], on_error: Callable[[OSError], None] | None = None
) -> Iterator[str]:
    """Yield the paths of the images in a folder and those below it, always in the same order; links are not entered.

    ``on_error`` is told of folders that cannot be listed; without it they count as empty.
    """
    left = [os.fspath(folder)]
    while left:
        root = left.pop()
        folders: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        try:
            with os.scandir(root) as entries:
                for entry in entries:
                    (folders if entry.is_dir() else files).append(entry)
        except OSError as error:
            if on_error is not None:
                on_error(error)
        left += sorted((e.path for e in folders if not e.is_symlink()), reverse=True)
        for name in sorted(entry.name for entry in files):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(root, name)


def count_skipped(folder: str | os.PathLike[str]) -> Counter[str]:
    """Count the files that :func:`walk_images` passes over, by how their names end; hidden ones do not count."""
    skipped: Counter[str] = Counter()
    for _, _, files in os.walk(folder):
        for name in files:
            ending = os.path.splitext(name)[1]
            if ending.lower() not in SUFFIXES and not name.startswith("."):
                skipped[name_of(ending) if ending else "without an ending"] += 1
    return skipped


def describe_skipped(skipped: Counter[str]) -> str:
    """Say in a line what was passed over; empty if nothing was.

    >>> describe_skipped(Counter({".mov": 14, ".xmp": 198}))
    'skipped 212 files: 198 .xmp, 14 .mov'
    """
    kinds = ", ".join(f"{number} {ending}" for ending, number in skipped.most_common(8))
    more = f" and {len(skipped) - 8} other kinds" if len(skipped) > 8 else ""
    return f"skipped {skipped.total()} files: {kinds}{more}" if skipped else ""


def _check_file(path: str | os.PathLike[str], name: str) -> None:
    """Refuse what cannot be opened, or would block or never end if it were."""
    try:
        about = os.stat(path)
    except FileNotFoundError as error:
        reason = "link to a file that is not there" if os.path.islink(path) else "no such file"
        raise _refuse(name, reason) from error
    except (OSError, ValueError) as error:
        failed = isinstance(error, OSError) and error.errno in DISK_ERRORS
        problem = DISK_PROBLEM if failed else "cannot be opened"
        raise _refuse(name, f"{problem} ({_first_line(error)})") from error
    if stat.S_ISDIR(about.st_mode):
        raise _refuse(name, "a folder, not a file")
    if not stat.S_ISREG(about.st_mode):
        raise _refuse(name, "not a regular file, but a pipe, socket or device")
    if about.st_size == 0:
        raise _refuse(name, "empty file")


def _open(source: str | os.PathLike[str] | bytes, name: str) -> Opened:
    if source == b"":
        raise _refuse(name, "empty file")
    try:
        return Opened(_attempt(source, COMMON), source)
    except UnidentifiedImageError:
        Image.init()
    with Binary(source) as data:
        start = data.read(0, min(BYTES, data.size))
        if raw.is_raw(data, name):
            return _open_raw(data, name)
        missing = add_codec(start, kind_of(start) is HEIF)
        is_cut = is_cut_off(data)
    try:
        return Opened(_attempt(source, FORMATS), source)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
        if is_cut and not missing:
            raise _refuse(name, "damaged image (its end is missing)") from error
        words = "" if isinstance(error, UnidentifiedImageError) else _first_line(error)
        raise _refuse(name, _why_not(source, start, missing, words)) from error


def _attempt(source: str | os.PathLike[str] | bytes, formats: tuple[str, ...]) -> Image.Image:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return Image.open(
        file, formats=tuple(kind for kind in formats if kind in Image.OPEN or kind in COMMON)
    )


def _open_raw(data: Binary, name: str) -> Opened:
    preview = raw.find_preview(data)
    if preview is None or preview.width * preview.height < raw.MIN_PIXELS:
        found = f"only one of {preview.width} x {preview.height}" if preview else "none"
        raise _refuse(
            name,
            f"camera raw, of which the embedded JPEG is looked at, and there is {found} "
            "(at least 1 megapixel is needed); develop it to JPEG",
        )
    source = f"source: embedded JPEG {preview.width} x {preview.height}"
    image = _attempt(preview.content, ("JPEG",))
    return Opened(image, preview.content, preview.orientation, (source,))


def _why_not(source: str | os.PathLike[str] | bytes, start: bytes, missing: str, words: str) -> str:
    """Say why a file is refused that no reader takes, and what to do."""
    if missing:
        return f"cannot be read as an image (needs pip install {missing})"
    kind = kind_of(start)
    if kind is None:
        return f"cannot be read as an image (of no kind that is known); {EXPECTED}"
    if not kind.is_read:
        return f"cannot be read as an image (it is {kind.name}); {kind.advice}"
    words = words or _decoder_says(source, start) or "the reader for it is not installed"
    with Binary(source) as data:
        words = ", ".join(filter(None, (describe_depth(data), words)))
    problem = f"it is {kind.name} that its reader refuses: {words}"
    return f"cannot be read as an image ({problem}); {kind.advice}"


def _decoder_says(source: str | os.PathLike[str] | bytes, start: bytes) -> str:
    """Return what the reader of a format says against a file, which Pillow keeps to itself."""
    for kind in FORMATS:
        reader, accept = Image.OPEN.get(kind, (None, None))
        if reader is None or (accept is not None and accept(start[:16]) is not True):
            continue
        try:
            with Binary(source) as data:
                reader(data.file, "")
        except Exception as error:  # as Image.open, any reader may raise anything
            return _first_line(error)
    return ""


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _refuse(
            name,
            f"too large ({width} x {height}, {width * height / 1e6:.0f} megapixels; "
            f"at most {max_pixels / 1e6:.0f} are decoded); shrink it, or raise max_pixels",
        )


@contextmanager
def _reporting(name: str, problem: str = "damaged image") -> Iterator[None]:
    """Turn whatever a decoder raises on a broken file into an ``ImageError``."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except PermissionError as error:
        raise _refuse(name, "no permission to read it") from error
    except UnsupportedError as error:
        raise _refuse(
            name, f"cannot be read as an image ({error}); convert it to JPEG or PNG"
        ) from error
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            problem = DISK_PROBLEM
        raise _refuse(name, f"{problem} ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
