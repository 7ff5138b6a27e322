"""Numbers and pieces of a file that may be damaged or hostile: whatever is not inside it is an ``EOFError``."""

from __future__ import annotations

import io
import os
from types import TracebackType
from typing import IO


class Binary:
    """The bytes of a file, or of a part of it; offsets count from where the part begins.

    Args:
        source: a path, or the bytes themselves.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        is_bytes = isinstance(source, bytes)
        self.file: IO[bytes] = io.BytesIO(source) if is_bytes else open(source, "rb")  # type: ignore[arg-type]  # noqa: SIM115 (closed by __exit__)
        self.size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)

    def __enter__(self) -> Binary:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def read(self, start: int, length: int) -> bytes:
        """Return bytes.

        Raises:
            EOFError: they are not all there.
        """
        if start < 0 or length < 0 or start + length > self.size:
            raise EOFError(f"{length} bytes from {start} on lie outside of {self.size}")
        self.file.seek(start)
        return self.file.read(length)

    def number(self, start: int, length: int, is_little: bool = False) -> int:
        """Return an unsigned integer.

        Raises:
            EOFError: as :meth:`read`.
        """
        return int.from_bytes(self.read(start, length), "little" if is_little else "big")
