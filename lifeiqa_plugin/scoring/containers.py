"""Archives and tables: files that hold many images. What is wrong with one is a row with an error."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import itertools
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.folders import SUFFIXES
from lifeiqa_plugin.images.refusals import ImageError, in_one_line, name_of
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.scoring.in_time import in_time, open_in_time

ARCHIVES = (".tar", ".tar.gz", ".tgz")

MAX_MEMBER = 1 << 30
"""Bytes of a file in an archive, which is held in memory; larger ones are refused."""

PATH_COLUMNS = ("path", "file", "file_name", "filename", "image_path", "image", "name")

BYTES_COLUMNS = ("image", "bytes", "jpg", "jpeg", "png", "webp", "content")

TEXTS = ("string", "large_string")

NAME_COLUMNS = ("__key__", "key", "id", *PATH_COLUMNS)


Stamp = tuple[int | None, float | None]
"""Size of a file in bytes and time of its last change in seconds; None if it cannot be looked at."""


def stamp_of(path: str) -> Stamp:
    """Look at a file, which may not be there."""
    try:
        about = in_time(os.stat, path)
    except (OSError, ValueError):
        return None, None
    return about.st_size, round(about.st_mtime, 6)


def stem_of(path: str) -> str:
    """Return the name of an archive or a table, without folder and ending."""
    name, endings = os.path.basename(path), (*ARCHIVES, ".parquet")
    return name.removesuffix(next(ending for ending in endings if name.endswith(ending)))


def bad(name: str, reason: str, stamp: Stamp = (None, None), key: str | None = None) -> Named:
    """Return what has an error instead of an image."""
    return Named(name, ImageError(f"{name}: {reason}", reason), *stamp, key)


class _Header(tarfile.TarInfo):
    """The header of a member; one that is damaged or cut off is an error, and not the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) == buf.count(0) == tarfile.BLOCKSIZE:  # the end
            return super().frombuf(buf, encoding, errors)
        if not buf:
            raise tarfile.ReadError("cut off: it has no end")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged or cut off: {error}") from error


class Tar:
    """A WebDataset shard or any other tar, read from front to back."""

    is_whole = True
    """Shards take it whole."""

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self) -> None:
        """Nobody knows before it is read."""

    def images(self) -> Iterator[Named]:
        """Yield its images, and last an error if it cannot be read to its end."""
        stamp = stamp_of(self.path)
        try:
            with (
                open_in_time(self.path) as packed,
                _unpack(packed) as file,
                tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive,
            ):
                for member in archive:
                    if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                        yield self._read(archive, member, stamp[1])
                _check_end(cast("IO[bytes]", archive.fileobj))
        except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            reason = f"archive cannot be read further ({error})"
            yield bad(name_of(self.path), reason, stamp)

    def _read(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, mtime: float | None
    ) -> Named:
        name, stamp = name_of(f"{self.path}/{member.name}"), (member.size, mtime)
        folder, slash, file = name_of(member.name).rpartition("/")
        key = f"{folder}{slash}{file.partition('.')[0]}"
        if member.size > MAX_MEMBER:
            return bad(name, "larger than 1 GiB in an archive", stamp, key)
        content = archive.extractfile(member)
        return Named(name, b"" if content is None else content.read(), *stamp, key)


def _unpack(file: io.BufferedReader[Any]) -> AbstractContextManager[IO[bytes]]:
    """Return what unpacks a file, by how it begins; checksums of what is packed are looked at."""
    head = file.peek(6)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open)):
        if head.startswith(magic):
            return cast("IO[bytes]", opener(file, "rb"))
    return contextlib.nullcontext(file)


def _check_end(file: IO[bytes]) -> None:
    """See that nothing but zeros follows the block that ends an archive.

    Raises:
        tarfile.ReadError: something does, such as members after a damaged block, or a second archive.
    """
    while chunk := file.read(1 << 20):
        if chunk.count(0) < len(chunk):
            raise tarfile.ReadError("more follows what looks like its end")


class _Columns(NamedTuple):
    """Which columns of a table hold images or their paths, and their names if there are any."""

    image: str
    key: str | None
    holds_paths: bool


class Table:
    """A Parquet file with a column of images, or of their paths.

    Args:
        path: of the file.
        column: with images or paths; None to find it.
    """

    def __init__(self, path: str, column: str | None) -> None:
        self.path, self.column = path, column

    @property
    def is_whole(self) -> bool:
        """Whether shards take it whole, as it holds images and no paths."""
        try:
            return not self.columns.holds_paths
        except UsageError:
            return False

    def count(self) -> int:
        """Count its rows; 1, of the error, if it cannot be read."""
        try:
            return int(_open_table(self.path).metadata.num_rows)
        except UsageError:
            return 1

    def images(self) -> Iterator[Named]:
        """Yield its images; an error if it cannot be used, as those of lists are not looked at before."""
        stamp = stamp_of(self.path)
        try:
            columns = self.columns
        except UsageError as error:
            yield bad(name_of(self.path), in_one_line(error), stamp)
            return
        import pyarrow as pa

        wanted = list(dict.fromkeys(filter(None, (columns.image, columns.key))))
        numbers = itertools.count()
        try:
            batches = _open_table(self.path).iter_batches(batch_size=64, columns=wanted)
            while (batch := in_time(next, batches, None)) is not None:
                for row in batch.to_pylist():
                    yield self._read(row, next(numbers), stamp[1])
        except (OSError, pa.ArrowException, UsageError) as error:
            reason = f"table cannot be read further ({in_one_line(error)})"
            yield bad(name_of(self.path), reason, stamp)

    def _read(self, row: dict[str, Any], number: int, mtime: float | None) -> Named:
        content = row[self.columns.image]
        if isinstance(content, dict):  # as Hugging Face writes images
            content = content.get("bytes") or content.get("path")
        if isinstance(content, str):
            return Named(name_of(content), content, *stamp_of(content))
        name = None if self.columns.key is None else row[self.columns.key]
        key = name_of(str(name if isinstance(name, str | int) else number))
        called = name_of(f"{self.path}/{key}")
        if not content:
            return bad(called, "no image in this row", (0, mtime), key)
        return Named(called, content, len(content), mtime, key)

    @functools.cached_property
    def columns(self) -> _Columns:
        """Which columns hold what.

        Raises:
            UsageError: no such column, or none that looks like it.
        """
        kinds = {field.name: str(field.type) for field in _open_table(self.path).schema_arrow}
        key = next((name for name in NAME_COLUMNS if kinds.get(name) in (*TEXTS, "int64")), None)
        if self.column is not None:
            if self.column not in kinds:
                raise UsageError(
                    f"{self.path}: no column {self.column!r}; it has {', '.join(kinds)}"
                )
            return _Columns(self.column, key, kinds[self.column] in TEXTS)
        for name in BYTES_COLUMNS:
            if kinds.get(name, "").startswith(("binary", "large_binary", "struct<bytes")):
                return _Columns(name, key, False)
        for name in PATH_COLUMNS:
            if kinds.get(name) in TEXTS:
                return _Columns(name, key, True)
        raise UsageError(
            f"{self.path}: which column holds the images or their paths? Give it with --column; "
            f"there are {', '.join(f'{name} ({kind})' for name, kind in kinds.items())}"
        )


def _open_table(path: str) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return in_time(parquet.ParquetFile, path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})") from error
