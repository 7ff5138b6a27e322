"""From whatever holds an image to its sRGB pixels, by one set of decode rules; ``docs/decoding.md`` lists them.

Everything of this package that looks at an image comes through here. Importing this module does not import torch.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lifeiqa_plugin.images.pixels import TRANSPOSED, from_array, orient, orientation_of, to_srgb
from lifeiqa_plugin.images.resizing import Pixels, resize, shape_of
from lifeiqa_plugin.pyiqa_compat import add_codec, own_pillow_rules

if TYPE_CHECKING:
    import torch

Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | torch.Tensor"
)
"""A path, the bytes of a file, an open file, a Pillow image, an array (H, W[, 3 or 4]) or a tensor (3 or 1, H, W)."""

DECODING = 1
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

SUFFIXES = frozenset(
    {
        ".apng", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heif", ".icns", ".ico", ".j2c", ".j2k",
        ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".mpo", ".pbm", ".pcx", ".pgm",
        ".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""How the names of files end that a folder is searched for."""


class ImageError(OSError):
    """An image that cannot be read; ``reason`` is the message without the name, in one line."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def _refuse(name: str, reason: str) -> ImageError:
    return ImageError(f"{name}: {reason}", reason)


class Decoded(NamedTuple):
    """Pixels as they are looked at, and the size of the image."""

    pixels: NDArray[
        Any
    ]  # (H, W, 3) sRGB, uint8, or float32 in [0, 1] if there is more than 8 bits can hold
    height: int  # more than H if the decoder was allowed to shrink
    width: int


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
    return Decoded(pixels, loaded.height, loaded.width)


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
    return Decoded(np.ascontiguousarray(turned), loaded.height, loaded.width)


class _Loaded(NamedTuple):
    """An image in memory, as its file has it; height and width are those of the image as it is looked at."""

    pixels: Pixels
    orientation: int
    height: int
    width: int
    shrunk: int = 1  # how many of the file's pixels, to a side, the decoder made one of


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
    with open_image(source) as image, _reporting(name), own_pillow_rules():
        width, height = image.size
        if at_least is not None and image is not source:
            image.draft(None, (at_least, at_least))
        _check_size(image, name, max_pixels)
        reopen = None if isinstance(source, Image.Image) else lambda: open_image(source)
        pixels = to_srgb(image, reopen)
        orientation = orientation_of(image)
    shrunk = 1
    if at_least is None:
        height, width = shape_of(pixels)
    else:
        shrunk = round(height / shape_of(pixels)[0])
    if orientation >= TRANSPOSED:
        height, width = width, height
    return _Loaded(pixels, orientation, height, width, shrunk)


def read_image(source: Source) -> torch.Tensor:
    """Decode to (3, H, W) float32 in [0, 1].

    >>> read_image("examples/photos/coffee_0_clean.jpg").shape
    torch.Size([3, 400, 600])

    Raises:
        ImageError, TypeError: as :func:`decode`.
    """
    import torch

    pixels = torch.from_numpy(np.array(decode(source).pixels)).permute(2, 0, 1)
    return pixels if pixels.is_floating_point() else pixels.float().div_(255)


@contextmanager
def open_image(source: str | os.PathLike[str] | bytes | Image.Image) -> Iterator[Image.Image]:
    """Open an image and look at its header; a Pillow image is passed on and stays open.

    Raises:
        ImageError: as :func:`decode`, as far as the header tells.
    """
    name = name_of(source)
    if isinstance(source, Image.Image):
        yield source
        return
    if not isinstance(source, bytes):
        _check_file(source, name)
    with _reporting(name, "cannot be read as an image"), own_pillow_rules():
        image = _open(source, name)
    with image:
        yield image


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


def walk_images(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the paths of the images in a folder and those below it, always in the same order; links are not entered."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if os.path.splitext(file)[1].lower() in SUFFIXES:
                yield os.path.join(root, file)


def _check_file(path: str | os.PathLike[str], name: str) -> None:
    """Refuse what cannot be opened, or would block or never end if it were."""
    try:
        about = os.stat(path)
    except FileNotFoundError as error:
        reason = "link to a file that is not there" if os.path.islink(path) else "no such file"
        raise _refuse(name, reason) from error
    except (OSError, ValueError) as error:
        raise _refuse(name, f"cannot be opened ({_first_line(error)})") from error
    if stat.S_ISDIR(about.st_mode):
        raise _refuse(name, "a folder, not a file")
    if not stat.S_ISREG(about.st_mode):
        raise _refuse(name, "not a regular file, but a pipe, socket or device")
    if about.st_size == 0:
        raise _refuse(name, "empty file")


def _open(source: str | os.PathLike[str] | bytes, name: str) -> Image.Image:
    if source == b"":
        raise _refuse(name, "empty file")

    def attempt(formats: tuple[str, ...]) -> Image.Image:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        return Image.open(file, formats=formats)

    try:
        return attempt(COMMON)
    except UnidentifiedImageError:
        Image.init()
    missing = add_codec(_header(source))
    try:
        return attempt(tuple(kind for kind in FORMATS if kind in Image.OPEN))
    except UnidentifiedImageError as error:
        reason = "(of no kind that is known); expected JPEG, PNG or the like, so convert it"
        if missing:
            reason = f"(needs pip install {missing})"
        raise _refuse(name, f"cannot be read as an image {reason}") from error


def _header(source: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:16]
    with open(source, "rb") as file:
        return file.read(16)


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
    except (ImageError, KeyboardInterrupt):
        raise
    except PermissionError as error:
        raise _refuse(name, "no permission to read it") from error
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
        raise _refuse(name, f"{problem} ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
