"""What is said of an image that cannot be read: one line that names it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from lifeiqa_plugin.images.kinds import UnsupportedError

DISK_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENXIO, errno.ENODEV)


class ImageError(OSError):
    """An image that cannot be read; ``reason`` is the message without the name, in one line."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def refuse(name: str, reason: str) -> ImageError:
    """Return the error of an image that is called ``name``."""
    return ImageError(f"{name}: {reason}", reason)


def name_of(source: object) -> str:
    """Return what an image is called in messages and tables: always one line of valid text."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "filename", None)
    path = path or getattr(source, "name", None)
    if not isinstance(path, str | os.PathLike):
        return f"<{type(source).__name__}>"
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def first_line(error: BaseException) -> str:
    """Return what an error says, or its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def in_one_line(error: BaseException) -> str:
    """Return all that an error says."""
    return " ".join(line.strip() for line in str(error).splitlines())


def check_file(path: str | os.PathLike[str], name: str) -> None:
    """Refuse what cannot be opened, or would block or never end if it were.

    Raises:
        ImageError: that.
    """
    try:
        about = os.stat(path)
    except FileNotFoundError as error:
        reason = "link to a file that is not there" if os.path.islink(path) else "no such file"
        raise refuse(name, reason) from error
    except (OSError, ValueError) as error:
        raise refuse(name, _describe(error, "cannot be opened")) from error
    if stat.S_ISDIR(about.st_mode):
        raise refuse(name, "a folder, not a file")
    if not stat.S_ISREG(about.st_mode):
        raise refuse(name, "not a regular file, but a pipe, socket or device")
    if about.st_size == 0:
        raise refuse(name, "empty file")


def _describe(error: Exception, problem: str) -> str:
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        problem = "the disk or the network failed"
    return f"{problem} ({first_line(error)})"


@contextmanager
def reporting(name: str, problem: str = "damaged image") -> Iterator[None]:
    """Turn whatever a decoder raises on a broken file into an ``ImageError``."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except PermissionError as error:
        raise refuse(name, "no permission to read it") from error
    except UnsupportedError as error:
        reason = f"cannot be read as an image ({error}); convert it to JPEG or PNG"
        raise refuse(name, reason) from error
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
        raise refuse(name, _describe(error, problem)) from error
