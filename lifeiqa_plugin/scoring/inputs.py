"""What ``lifeiqa score`` is given: files, folders, globs, lists, archives and tables, as a stream of named images."""

from __future__ import annotations

import glob
import importlib.util
import itertools
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.reading import SUFFIXES, ImageError, name_of, walk_images
from lifeiqa_plugin.images.stream import Named

ARCHIVES = (".tar", ".tar.gz", ".tgz")

MAX_MEMBER = 1 << 30
"""Bytes of a file in an archive, which is held in memory; larger ones are refused."""

TOO_LARGE = "larger than 1 GiB in an archive"

PATH_COLUMNS = ("path", "file", "file_name", "filename", "image_path", "image", "name")

BYTES_COLUMNS = ("image", "bytes", "jpg", "jpeg", "png", "webp", "content")

TEXTS = ("string", "large_string")

NAME_COLUMNS = ("__key__", "key", "id", *PATH_COLUMNS)


def check_inputs(inputs: Sequence[str], column: str | None = None) -> None:
    """See that every argument is something, before anything is scored.

    Raises:
        UsageError: says which is not.
    """
    for text in inputs:
        if text == "-":
            continue
        if is_glob(text):
            if next(glob.iglob(text, recursive=True), None) is None:
                raise UsageError(f"{text}: no file matches")
        elif not os.path.lexists(text):
            raise UsageError(f"{name_of(text)}: no such file or folder")
        elif os.path.isdir(text) and next(walk_images(text), None) is None:
            raise UsageError(f"{name_of(text)}: no images in this folder or those below it")
        elif text.endswith(".parquet"):
            _find_columns(text, column)
    if column and not any(text.endswith(".parquet") for text in inputs):
        raise UsageError(f"--column {column} names a column of a .parquet file, and there is none")


def is_glob(text: str) -> bool:
    """Say whether an argument is a pattern; an existing file is none, whatever its name."""
    return glob.has_magic(text) and not os.path.lexists(text)


def stem_of(path: str) -> str:
    """Return the name of an archive or table, without folder and ending."""
    name = os.path.basename(path)
    ending = next(ending for ending in (*ARCHIVES, ".parquet") if name.endswith(ending))
    return name.removesuffix(ending)


def key_of(name: str, archive: str) -> str | None:
    """Return what an image of an archive is called there: WebDataset's key, or what names a table's row.

    None if ``name`` is that of the archive itself, which could not be read, or that of a file which a table names.
    """
    prefix = f"{name_of(archive)}/"
    if not name.startswith(prefix):
        return None
    inside = name.removeprefix(prefix)
    if archive.endswith(".parquet"):
        return inside
    folder, slash, file = inside.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def is_archive(text: str) -> bool:
    """Say whether the images of an argument are no files of their own."""
    return text.endswith((*ARCHIVES, ".parquet"))


class Shard(NamedTuple):
    """Every ``of``-th part of the inputs, from ``number`` on, which counts from 0; all of them by default."""

    number: int = 0
    of: int = 1


def parse_shard(text: str) -> Shard:
    """Read ``NUMBER/OF``, such as ``0/2``.

    Raises:
        UsageError: it is nothing of that kind.
    """
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise UsageError(
            f"--shard {text}: expected I/N with I from 0 to N - 1, such as 0/2 and 1/2"
        )
    return Shard(int(number), int(of))


def expand(
    inputs: Iterable[str], column: str | None = None, shard: Shard | None = None
) -> Iterator[Named]:
    """Yield every image of the arguments, or of a shard of them, always in the same order.

    A folder gives the images in it and below, a ``.txt`` one path a line, ``-`` the same from standard input, an
    archive its members, and a ``.parquet`` its rows. Anything else is an image by itself. Shards divide images, but
    no archive and no table that holds images instead of paths.
    """
    number, of = shard or Shard()
    parts = _parts(inputs, column)
    return itertools.chain.from_iterable(itertools.islice(parts, number, None, of))


def list_archives(inputs: Iterable[str], shard: Shard | None = None) -> list[str]:
    """Return the archives and tables of the arguments, or of a shard of them.

    Raises:
        UsageError: something else is among them.
    """
    number, of = shard or Shard()
    paths = [path for text in inputs for path in _list_files(text)]
    for path in paths:
        if not is_archive(path):
            raise UsageError(
                f"-o with a folder takes .tar and .parquet, for each of which it gets a file, not {path}; "
                "a name that ends in .parquet, .csv or .jsonl takes all in one"
            )
    return paths[number::of]


def count(
    inputs: Iterable[str], column: str | None = None, shard: Shard | None = None
) -> int | None:
    """Count the images of the arguments; None if that would mean reading them."""
    number, of = shard or Shard()
    total = 0
    for text in inputs:
        if text == "-":
            return None
        for path in _list_files(text):
            if not is_archive(path):
                total += 1
            elif path.endswith(ARCHIVES) or (of > 1 and not _holds_paths(path, column)):
                return None
            else:
                total += _open_table(path).metadata.num_rows
    return len(range(number, total, of))


def _parts(inputs: Iterable[str], column: str | None) -> Iterator[Iterable[Named]]:
    """Yield what shards do not divide: an image, or all those of an archive or of a table of bytes."""
    for text in inputs:
        for path in _list_files(text):
            if path.endswith(ARCHIVES):
                yield _from_archive(path)
            elif not path.endswith(".parquet"):
                yield [_from_path(path)]
            elif _holds_paths(path, column):
                yield from ([named] for named in _from_table(path, column))
            else:
                yield _from_table(path, column)


def _list_files(text: str) -> Iterator[str]:
    if text == "-":
        return _read_lines(sys.stdin.buffer)
    if is_glob(text):
        return iter(sorted(glob.iglob(text, recursive=True)))
    if os.path.isdir(text):
        return walk_images(text)
    if text.endswith(".txt"):
        return _read_list(text)
    return iter([text])


def _from_path(path: str) -> Named:
    return Named(name_of(path), path)


def _read_list(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        yield from _read_lines(file)


def _read_lines(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path:
            yield path


def _from_archive(path: str) -> Iterator[Named]:
    """Yield the images of a WebDataset shard or any other tar, read from front to back."""
    name = name_of(path)
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if not member.isfile() or Path(member.name).suffix.lower() not in SUFFIXES:
                    continue
                called = name_of(f"{path}/{member.name}")
                if member.size > MAX_MEMBER:
                    yield Named(called, ImageError(f"{called}: {TOO_LARGE}", TOO_LARGE))
                    continue
                file = archive.extractfile(member)
                yield Named(called, b"" if file is None else file.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = f"archive cannot be read further ({error})"
        yield Named(name, ImageError(f"{name}: {reason}", reason))


def _from_table(path: str, column: str | None) -> Iterator[Named]:
    image, key = _find_columns(path, column)
    columns = [image] if key is None else list(dict.fromkeys([image, key]))
    number = 0
    for batch in _open_table(path).iter_batches(batch_size=64, columns=columns):
        for row in batch.to_pylist():
            content = row[image]
            if isinstance(content, dict):  # as Hugging Face writes images
                content = content.get("bytes") or content.get("path")
            name = row[key] if key is not None and isinstance(row[key], str | int) else number
            if isinstance(content, str):
                yield _from_path(content)
            else:
                called = name_of(f"{path}/{name}")
                missing = ImageError(f"{called}: no image in this row", "no image in this row")
                yield Named(called, content if content else missing)
            number += 1


def _open_table(path: str) -> Any:
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"{path}: reading Parquet needs pip install pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})") from error


def _holds_paths(path: str, column: str | None) -> bool:
    image, _ = _find_columns(path, column)
    return str(_open_table(path).schema_arrow.field(image).type) in TEXTS


def _find_columns(path: str, column: str | None) -> tuple[str, str | None]:
    """Return the column that holds images or their paths, and the one that names them, if there is one.

    Raises:
        UsageError: no such column, or none that looks like it.
    """
    schema = _open_table(path).schema_arrow
    kinds = {field.name: str(field.type) for field in schema}
    key = next((name for name in NAME_COLUMNS if kinds.get(name) in (*TEXTS, "int64")), None)
    if column is not None:
        if column not in kinds:
            raise UsageError(f"{path}: no column {column!r}; it has {', '.join(kinds)}")
        return column, key
    for name in BYTES_COLUMNS:
        if kinds.get(name, "").startswith(("binary", "large_binary", "struct<bytes")):
            return name, key
    for name in PATH_COLUMNS:
        if kinds.get(name) in TEXTS:
            return name, key
    raise UsageError(
        f"{path}: which column holds the images or their paths? Give it with --column; "
        f"there are {', '.join(f'{name} ({kind})' for name, kind in kinds.items())}"
    )
