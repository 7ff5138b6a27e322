"""Files that survive a crash: written whole or not at all, or line by line and read again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

try:
    import fcntl
except ImportError:  # Windows: no locks between processes there
    fcntl = None  # type: ignore[assignment]


def sha256_of(*paths: Path) -> str:
    """Return the hex digest of the content of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


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


class Journal:
    """Records of JSON, a line each, in a file that one process at a time has; what is in it survives that process.

    The file is known by its descriptor: it is locked as long as it is open, and what else writes to it is noticed.

    Args:
        path: is made if it is not there; a last line without its end is cut off.

    Raises:
        OSError: no permission, no space, or another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open_locked(path)
        self._size = _cut_broken_line(self._file)

    def __iter__(self) -> Iterator[Any]:
        """Yield the records from the first on; none may be added meanwhile.

        Raises:
            OSError: something else has changed the file.
            ValueError: a line is damaged.
        """
        self._check()
        with open(self._file.fileno(), "rb", closefd=False) as file:
            file.seek(0)
            yield from parse_lines(file, self.path)

    def add(self, record: Any) -> None:
        """Add a record; a journal whose file was removed writes it again.

        Raises:
            OSError: no space, or something else has changed the file.
        """
        self._check()
        if not _is_at(self._file, self.path):
            self.replace(self)
        self._file.write(_to_line(record))
        self._file.flush()
        self._size = os.fstat(self._file.fileno()).st_size

    def replace(self, records: Iterable[Any]) -> None:
        """Put other records in place of all, in one go; they may come from this journal."""
        part = self.path.with_name(f"{self.path.name}.part")
        part.unlink(missing_ok=True)
        file = _open_locked(part)
        try:
            file.writelines(map(_to_line, records))
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:  # where no open file can be moved, there are no locks either
                file.close()
                self._file.close()
            os.replace(part, self.path)
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise
        before, self._file = self._file, _open_locked(self.path) if file.closed else file
        before.close()
        self._size = os.fstat(self._file.fileno()).st_size

    def remove(self) -> None:
        """Close and delete the file."""
        if fcntl is None:
            self._file.close()
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file, which stays."""
        with contextlib.suppress(OSError):  # a full disk has been reported by add()
            self._file.close()

    def _check(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size != self._size:
            raise OSError(
                f"{self.path}: something else changed it meanwhile: {size} bytes instead of "
                f"{self._size}; all files are left as they are"
            )


def read_first(path: Path) -> Any:
    """Return the first record of a journal, whoever has it open; None if there is none.

    Raises:
        ValueError: it is not JSON.
    """
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return next(parse_lines(file, path), None)


def parse_lines(file: IO[bytes], path: Path) -> Iterator[Any]:
    """Yield what each line says, as JSON; a last line without its end is ignored.

    Raises:
        ValueError: a line in the middle is not JSON.
    """
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: damaged ({error}); delete it") from error


def _to_line(record: Any) -> bytes:
    return f"{json.dumps(record, ensure_ascii=False)}\n".encode()


def open_journal(path: Path, header: str) -> TextIO:
    """Open a file of lines to add to; a new one begins with ``header``, a last line without its end is cut off.

    Raises:
        OSError: no permission, no space, or another process has it open.
    """
    file = _open_locked(path)
    try:
        if _cut_broken_line(file) == 0:
            file.write(f"{header}\n".encode())
    except BaseException:
        file.close()
        raise
    return io.TextIOWrapper(file, newline="", encoding="utf-8")


def _open_locked(path: Path) -> IO[bytes]:
    """Open a file to read it and to add to its end, and keep other processes from it until it is closed."""
    file = open(path, "ab+")  # noqa: SIM115 -- the caller closes it
    try:
        _lock(file, path)
        if not _is_at(file, path):  # its owner has just removed or replaced it
            raise OSError(f"{path}: another process is writing it")
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: IO[bytes], path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"{path}: another process is writing it") from error


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Say whether an open file is still the one of that name.

    Raises:
        OSError: another file has the name.
    """
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    if not os.path.samestat(there, os.fstat(file.fileno())):
        raise OSError(f"{path}: another process is writing it")
    return True


def _cut_broken_line(file: IO[bytes]) -> int:
    """Cut off what follows the last line feed, whatever the size of the file; returns the size that is left."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return file.truncate(start + found + 1)
        end = start
    return file.truncate(0)


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
