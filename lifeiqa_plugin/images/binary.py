"""Numbers and pieces of a file that may be damaged or hostile: whatever is not inside it is an ``EOFError``."""

from __future__ import annotations

import io
import os
from typing import IO


class Binary:
    """The bytes of a file, given as a path or as they are."""

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self.file: IO[bytes] = (
            io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115 (closed by __exit__)
        )
        self.size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)

    def __enter__(self) -> Binary:
        return self

    def __exit__(self, *error: object) -> None:
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

    def read_some(self, start: int, most: int) -> bytes:
        """Return as many bytes as there are; ``EOFError`` if ``start`` is outside of the file."""
        return self.read(start, min(most, self.size - start))

    def number(self, start: int, length: int, is_little: bool = False) -> int:
        """Return an unsigned integer; ``EOFError`` as :meth:`read`."""
        return int.from_bytes(self.read(start, length), "little" if is_little else "big")
