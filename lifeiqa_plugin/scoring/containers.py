"""Archives and tables: files that hold many images. What is wrong with one is a row with an error."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import importlib.util
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.folders import SUFFIXES
from lifeiqa_plugin.images.reading import Source
from lifeiqa_plugin.images.refusals import ImageError, name_of
from lifeiqa_plugin.scoring.in_time import in_time, open_in_time

ARCHIVES = (".tar", ".tar.gz", ".tgz")

MAX_MEMBER = 1 << 30
"""Bytes of a file in an archive, which is held in memory; larger ones are refused."""

PATH_COLUMNS = ("path", "file", "file_name", "filename", "image_path", "image", "name")

BYTES_COLUMNS = ("image", "bytes", "jpg", "jpeg", "png", "webp", "content")

TEXTS = ("string", "large_string")

NAME_COLUMNS = ("__key__", "key", "id", *PATH_COLUMNS)


class Found(NamedTuple):
    """An image of the inputs.

    Attributes:
        name: what it is called: its path, or the archive's and what it is called there.
        source: a path, bytes, or an error.
        size: of its file in bytes; None if that is not known.
        mtime: when the file that holds it was changed, in seconds since 1970; None if that is not known.
        key: what an image of an archive is called there: WebDataset's key, or what names the row of a table.
    """

    name: str
    source: Source | ImageError
    size: int | None = None
    mtime: float | None = None
    key: str | None = None


class Stamp(NamedTuple):
    """Size of a file in bytes and time of its last change in seconds; None if it cannot be looked at."""

    size: int | None
    mtime: float | None


UNKNOWN = Stamp(None, None)


def stamp_of(path: str) -> Stamp:
    """Look at a file, which may not be there."""
    try:
        about = in_time(os.stat, path)
    except (OSError, ValueError):
        return UNKNOWN
    return Stamp(about.st_size, round(about.st_mtime, 6))


def bad(name: str, reason: str, stamp: Stamp = UNKNOWN, key: str | None = None) -> Found:
    """Return what has an error instead of an image."""
    return Found(name, ImageError(f"{name}: {reason}", reason), *stamp, key)


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

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def stem(self) -> str:
        """Its name, without folder and ending."""
        name = os.path.basename(self.path)
        return name.removesuffix(next(ending for ending in ARCHIVES if name.endswith(ending)))

    def check(self) -> None:
        """Nothing is known before it is read."""

    def parts(self) -> Iterator[Iterable[Found]]:
        """Yield all of it in one: shards take it whole."""
        yield self._images()

    def size(self, whole: bool) -> None:
        """Nobody knows before it is read."""

    def _images(self) -> Iterator[Found]:
        stamp = stamp_of(self.path)
        try:
            with (
                open_in_time(self.path) as packed,
                _unpack(packed) as file,
                tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive,
            ):
                for member in archive:
                    if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                        yield self._read(archive, member, stamp.mtime)
                _check_end(cast("IO[bytes]", archive.fileobj))
        except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            reason = f"archive cannot be read further ({error})"
            yield bad(name_of(self.path), reason, stamp)

    def _read(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, mtime: float | None
    ) -> Found:
        name, stamp = name_of(f"{self.path}/{member.name}"), Stamp(member.size, mtime)
        folder, slash, file = name_of(member.name).rpartition("/")
        key = f"{folder}{slash}{file.partition('.')[0]}"
        if member.size > MAX_MEMBER:
            return bad(name, "larger than 1 GiB in an archive", stamp, key)
        content = archive.extractfile(member)
        return Found(name, b"" if content is None else content.read(), *stamp, key)


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
    def stem(self) -> str:
        """Its name, without folder and ending."""
        return os.path.basename(self.path).removesuffix(".parquet")

    def check(self) -> None:
        """See that it can be read.

        Raises:
            UsageError: it cannot, or has no such column.
        """
        _ = self.columns

    def parts(self) -> Iterator[Iterable[Found]]:
        """Yield its images in one, which shards take whole, or one by one if it names files."""
        try:
            holds_paths = self.columns.holds_paths
        except UsageError as error:  # of a list, which is not looked through before
            yield [bad(name_of(self.path), _in_one_line(error), stamp_of(self.path))]
            return
        if holds_paths:
            yield from ([found] for found in self._images())
        else:
            yield self._images()

    def size(self, whole: bool) -> int | None:
        """Count its rows; None if they are no parts and only whole parts are counted."""
        try:
            if not whole and not self.columns.holds_paths:
                return None
            return int(_open_table(self.path).metadata.num_rows)
        except UsageError:
            return 1

    def _images(self) -> Iterator[Found]:
        import pyarrow as pa

        stamp = stamp_of(self.path)
        image, key, _ = self.columns
        columns = [image] if key is None else list(dict.fromkeys([image, key]))
        numbers = iter(range(1 << 62))
        try:
            batches = _open_table(self.path).iter_batches(batch_size=64, columns=columns)
            while (batch := in_time(next, batches, None)) is not None:
                for row in batch.to_pylist():
                    yield self._read(row, next(numbers), stamp.mtime)
        except (OSError, pa.ArrowException, UsageError) as error:
            reason = f"table cannot be read further ({_in_one_line(error)})"
            yield bad(name_of(self.path), reason, stamp)

    def _read(self, row: dict[str, Any], number: int, mtime: float | None) -> Found:
        content = row[self.columns.image]
        if isinstance(content, dict):  # as Hugging Face writes images
            content = content.get("bytes") or content.get("path")
        if isinstance(content, str):
            return Found(name_of(content), content, *stamp_of(content))
        name = None if self.columns.key is None else row[self.columns.key]
        key = name_of(str(name if isinstance(name, str | int) else number))
        called = name_of(f"{self.path}/{key}")
        if not content:
            return bad(called, "no image in this row", Stamp(0, mtime), key)
        return Found(called, content, len(content), mtime, key)

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
    check_pyarrow(path)
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return in_time(parquet.ParquetFile, path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})") from error


def check_pyarrow(path: str | os.PathLike[str]) -> None:
    """See that Parquet can be read and written.

    Raises:
        UsageError: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"{path}: Parquet needs pip install pyarrow")


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
