"""File systems that do not answer: a call is made in a thread, and given up after a while."""

from __future__ import annotations

import errno
import io
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

READ_AHEAD = 1 << 20
"""Bytes of a file that are read in one go."""

LIMIT = 60.0
"""Seconds within which a call must return."""


class _Caller:
    """A thread that makes one call after the other."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]]
        self.calls, self.results = queue.SimpleQueue(), queue.SimpleQueue[Any]()
        self.is_late = False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self.is_late:
            call, arguments = self.calls.get()
            try:
                result = call(*arguments)
            except BaseException as error:
                self.results.put((None, error))
                continue
            self.results.put((result, None))
            if self.is_late and hasattr(result, "close"):  # a file that nobody waits for any more
                result.close()
            del call, arguments, result


_own = threading.local()


def in_time(call: Callable[..., T], *arguments: Any) -> T:
    """Return what a call returns.

    Raises:
        TimeoutError: an ``OSError``: it did not return in time; its thread is left alone.
    """
    caller = getattr(_own, "caller", None) or _Caller()
    _own.caller = None
    caller.calls.put((call, arguments))
    try:
        result, error = caller.results.get(timeout=LIMIT)
    except queue.Empty:
        caller.is_late = True
        reason = f"the file system gave no answer within {LIMIT:g} s"
        raise TimeoutError(errno.ETIMEDOUT, reason) from None
    _own.caller = caller
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def open_in_time(path: str) -> io.BufferedReader[Any]:
    """Open a file to read it; each read has to return in time.

    Raises:
        OSError: as ``open``; :class:`TimeoutError` also from ``read``.
    """
    return io.BufferedReader(_FileInTime(in_time(io.FileIO, path)), READ_AHEAD)


class _FileInTime(io.RawIOBase):
    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = in_time(self._file.read, len(buffer)) or b""
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
