"""Files that survive a crash: written whole or not at all, or line by line and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO


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
    """Open a file of lines to add to; a new one begins with ``header``, a last line without its end is cut off.

    Raises:
        OSError: no permission, no space, or another process has it open.
    """
    if not path.is_file() or path.stat().st_size == 0:
        path.write_text(f"{header}\n", encoding="utf-8")
    file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115 -- the caller closes it
    try:
        _lock(file)
        _cut_broken_line(path)
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: TextIO) -> None:
    """Keep other processes from adding to a file, until it is closed; not on systems without such locks.

    Raises:
        OSError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"{file.name}: another process is writing it") from error


def _cut_broken_line(path: Path) -> None:
    """Cut off what follows the last line feed, whatever the size of the file."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            end = start
        file.truncate(0)


def read_records(path: Path) -> Iterator[Any]:
    """Yield what each line of a journal says, as JSON; a last line without its end is ignored.

    Raises:
        ValueError: a line in the middle is not JSON.
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: damaged ({error}); delete it") from error


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is none, with the name of the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); delete it") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with write_whole(path) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())
