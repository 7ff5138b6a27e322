"""Files that survive a crash: written whole or not at all, or line by line and read again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO


@contextmanager
def write_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file beside ``path``; when the block ends, push it to the disk and move it to its place in one go.

    Raises:
        OSError: no space or no permission; what was at ``path`` is untouched.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError where the disk is full
        raise OSError(
            f"{path}: cannot be written ({error}); what was there before is untouched"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def open_journal(path: Path, header: str) -> TextIO:
    """Open a file of lines to add to; a new one begins with ``header``, a last line without its end is cut off."""
    if not path.is_file():
        path.write_text(f"{header}\n", encoding="utf-8")
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
    return open(path, "a", newline="", encoding="utf-8")
