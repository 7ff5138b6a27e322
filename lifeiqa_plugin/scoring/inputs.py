"""What ``lifeiqa score`` is given, parsed once: arguments become files, archives and tables, always in one order.

``containers.py`` has what holds more than one image.
"""

from __future__ import annotations

import codecs
import functools
import glob
import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO, ClassVar, NamedTuple

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.folders import count_skipped, walk_images
from lifeiqa_plugin.images.refusals import name_of
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.scoring.containers import ARCHIVES, Table, Tar, bad, stamp_of
from lifeiqa_plugin.scoring.in_time import in_time

CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class File:
    """An image by itself, whether it is there or not; with an ``error``, a folder that cannot be listed."""

    path: str
    error: str | None = None
    is_whole: ClassVar[bool] = False

    def images(self) -> list[Named]:
        """Return the image."""
        name = name_of(self.path)
        if self.error is not None:
            return [bad(name, self.error)]
        return [Named(name, self.path, *stamp_of(self.path))]

    def count(self) -> int:
        """Return 1."""
        return 1


Leaf = File | Tar | Table


def walk_folder(path: str) -> Iterator[File]:
    """Yield the images in a folder and those below it, and the folders that cannot be listed."""
    failed: list[OSError] = []
    for image in itertools.chain(walk_images(path, failed.append), [None]):
        while failed:
            error = failed.pop(0)
            yield File(str(error.filename), f"folder cannot be listed ({error.strerror})")
        if image is not None:
            yield File(image)


def match_glob(pattern: str, column: str | None) -> Iterator[Leaf]:
    """Yield the files that a pattern matches."""
    for path in sorted(glob.iglob(pattern, recursive=True)):
        yield parse_file(path, column)


def read_list(path: str, column: str | None) -> Iterator[Leaf]:
    """Yield the files that a list names, one a line or with NUL between them; ``-`` is standard input."""
    with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
        for line in split(file, name_of(path)):
            yield parse_file(os.fsdecode(line), column)


def split(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of a list, those that are empty left out; NUL ends a line if there is one in the first part.

    Raises:
        UsageError: text of 16 bits.
    """
    separator, rest, begun = b"", b"", False
    while chunk := file.read1(CHUNK):  # type: ignore[attr-defined]
        if not begun:
            if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise UsageError(f"{name}: a list in UTF-16; save it as UTF-8")
            chunk, begun = chunk.removeprefix(codecs.BOM_UTF8), True
        if not separator and (b"\0" in chunk or b"\n" in chunk):
            separator = b"\0" if b"\0" in chunk else b"\n"
        *lines, rest = (rest + chunk).split(separator) if separator else [rest + chunk]
        yield from _trim(lines, separator)
    yield from _trim([rest], separator)


def _trim(lines: list[bytes], separator: bytes) -> Iterator[bytes]:
    return filter(None, lines if separator == b"\0" else (line.rstrip(b"\r") for line in lines))


def parse_file(path: str, column: str | None) -> Leaf:
    """Return what a path is, by its ending."""
    if path.endswith(ARCHIVES):
        return Tar(path)
    return Table(path, column) if path.endswith(".parquet") else File(path)


def parse_argument(text: str, column: str | None) -> Callable[[], Iterable[Leaf]]:
    """Return what yields the files that an argument stands for, whenever it is called.

    Raises:
        UsageError: there are none, or a table among them cannot be used.
        TimeoutError: the file system does not answer.
    """
    is_folder = in_time(os.path.isdir, text)
    if text == "-" or (text.endswith(".txt") and os.path.lexists(text) and not is_folder):
        return functools.partial(read_list, text, column)
    if is_folder:
        if next(walk_folder(text), None) is None:
            raise UsageError(f"{name_of(text)}: no images in this folder or those below it")
        return functools.partial(walk_folder, text)
    if os.path.lexists(text):
        leaves = functools.partial(iter, [parse_file(text, column)])
    elif glob.has_magic(text):
        leaves = functools.partial(match_glob, text, column)
        if next(leaves(), None) is None:
            raise UsageError(f"{text}: no file matches")
    else:
        raise UsageError(f"{name_of(text)}: no such file or folder")
    for leaf in leaves():
        if isinstance(leaf, Table):
            _ = leaf.columns
    return leaves


class Shard(NamedTuple):
    """Every ``of``-th part of the inputs, from ``number`` on, which counts from 0; all of them by default."""

    number: int = 0
    of: int = 1


WHOLE = Shard()


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


class Inputs:
    """All arguments: images, folders, globs, lists, archives, tables, and ``-`` for a list from standard input.

    Shards divide images, but no archive and no table that holds images instead of paths.

    Args:
        texts: the arguments.
        column: of tables, with the images or their paths; None to find it.
        shard: the part of the inputs that counts.

    Raises:
        UsageError: one of them is nothing; ``column`` without a table.
    """

    def __init__(
        self, texts: Sequence[str], column: str | None = None, shard: Shard = WHOLE
    ) -> None:
        self.texts, self.shard, self.seen = list(texts), shard, ""
        self._sources = [parse_argument(text, column) for text in texts]
        if column and not any(isinstance(leaf, Table) for leaf in self._leaves_ahead()):
            raise UsageError(
                f"--column {column} names a column of a .parquet file, and there is none"
            )

    def _leaves_ahead(self) -> Iterator[Leaf]:
        """Yield all but those of standard input, which can be read once only."""
        for text, source in zip(self.texts, self._sources, strict=True):
            if text != "-":
                yield from source()

    def _leaves(self) -> Iterator[Leaf]:
        """Yield all; when all are taken, ``seen`` is a number that changes with their names, sizes and times."""
        digest = hashlib.sha256()
        for source in self._sources:
            for leaf in source():
                digest.update(os.fsencode(f"{leaf.path} {stamp_of(leaf.path)}\n"))
                yield leaf
        self.seen = digest.hexdigest()

    def look(self) -> str:
        """Return what ``seen`` becomes when all images are taken, without opening any; standard input is remembered."""
        for i, text in enumerate(self.texts):
            if text == "-":
                self._sources[i] = functools.partial(iter, list(self._sources[i]()))
        for _ in self._leaves():
            pass
        return self.seen

    def find_container(self) -> str | None:
        """Return an archive or table among the inputs, as far as can be known ahead."""
        return next((one.path for one in self._leaves_ahead() if not isinstance(one, File)), None)

    def containers(self) -> list[Tar | Table]:
        """Return the archives and tables of the shard.

        Raises:
            UsageError: something else is among them.
        """
        found: list[Tar | Table] = []
        for leaf in self._leaves():
            if isinstance(leaf, File):
                raise UsageError(
                    f"-o with a folder takes .tar and .parquet, for each of which it gets a file, not {leaf.path}; "
                    "a name that ends in .parquet, .csv or .jsonl takes all in one"
                )
            found.append(leaf)
        return found[self.shard.number :: self.shard.of]

    def images(self) -> Iterator[Named]:
        """Yield every image of the shard."""
        parts = itertools.islice(self._parts(), self.shard.number, None, self.shard.of)
        return itertools.chain.from_iterable(parts)

    def _parts(self) -> Iterator[Iterable[Named]]:
        """Yield what shards do not divide."""
        for leaf in self._leaves():
            if leaf.is_whole:
                yield leaf.images()
            else:
                yield from ([image] for image in leaf.images())

    def count(self) -> int | None:
        """Count the images of the shard; None if that would mean reading them."""
        if "-" in self.texts:
            return None
        total = 0
        for leaf in self._leaves_ahead():
            number = leaf.count()
            if number is None or (leaf.is_whole and self.shard.of > 1):
                return None
            total += number
        return len(range(self.shard.number, total, self.shard.of))

    def skipped(self) -> Counter[str]:
        """Count the files of folders that are no images, by how their names end."""
        folders = filter(os.path.isdir, self.texts)
        return sum(map(count_skipped, folders), Counter())
