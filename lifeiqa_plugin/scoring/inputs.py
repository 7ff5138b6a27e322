"""What ``lifeiqa score`` is given, parsed once: arguments become files, archives and tables, always in one order.

Nothing else asks what kind an argument is. ``containers.py`` has what holds more than one image.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.folders import count_skipped, walk_images
from lifeiqa_plugin.images.refusals import name_of
from lifeiqa_plugin.scoring.containers import ARCHIVES, Found, Table, Tar, bad, stamp_of

CHUNK = 1 << 16


class File(NamedTuple):
    """An image by itself, whether it is there or not; with an ``error``, a folder that cannot be listed."""

    path: str
    error: str | None = None

    def check(self) -> None:
        """A bad image is a row."""

    def parts(self) -> Iterator[Iterable[Found]]:
        """Yield the image, as the only part."""
        yield self.images()

    def images(self) -> list[Found]:
        """Return the image."""
        name = name_of(self.path)
        if self.error is not None:
            return [bad(name, self.error)]
        return [Found(name, self.path, *stamp_of(self.path))]

    def size(self, whole: bool) -> int:
        """Return 1."""
        return 1


Leaf = File | Tar | Table


class Folder:
    """The images in a folder and those below it.

    Raises:
        UsageError: there is none.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if next(iter(self), None) is None:
            raise UsageError(f"{name_of(path)}: no images in this folder or those below it")

    def __iter__(self) -> Iterator[File]:
        return walk_folder(self.path)


def walk_folder(path: str) -> Iterator[File]:
    """Yield the images in a folder and those below it, and the folders that cannot be listed."""
    failed: list[OSError] = []
    for image in walk_images(path, failed.append):
        yield from _take_failures(failed)
        yield File(image)
    yield from _take_failures(failed)


def _take_failures(failed: list[OSError]) -> Iterator[File]:
    while failed:
        error = failed.pop(0)
        yield File(str(error.filename), f"folder cannot be listed ({error.strerror})")


class Glob:
    """The files that a pattern matches.

    Raises:
        UsageError: there is none, or a table that cannot be used.
    """

    def __init__(self, pattern: str, column: str | None) -> None:
        self.pattern, self.column = pattern, column
        if next(iter(self), None) is None:
            raise UsageError(f"{pattern}: no file matches")
        for leaf in self:
            leaf.check()

    def __iter__(self) -> Iterator[Leaf]:
        for path in sorted(glob.iglob(self.pattern, recursive=True)):
            yield parse_file(path, self.column)


class Lines:
    """The files that a list names, one a line or with NUL between them; None for standard input."""

    def __init__(self, path: str | None, column: str | None) -> None:
        self.path, self.column = path, column
        self._paths: list[bytes] | None = None

    def __iter__(self) -> Iterator[Leaf]:
        for path in self._read() if self._paths is None else self._paths:
            yield parse_file(os.fsdecode(path), self.column)

    def _read(self) -> Iterator[bytes]:
        if self.path is None:
            yield from split(sys.stdin.buffer, "-")
            return
        with open(self.path, "rb") as file:
            yield from split(file, name_of(self.path))

    def remember(self) -> None:
        """Read standard input, which can be read once only, so that it can be gone through again."""
        if self.path is None and self._paths is None:
            self._paths = list(self._read())


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
    for line in lines:
        trimmed = line if separator == b"\0" else line.rstrip(b"\r")
        if trimmed:
            yield trimmed


def parse_file(path: str, column: str | None) -> Leaf:
    """Return what a path is, by its ending."""
    if path.endswith(ARCHIVES):
        return Tar(path)
    return Table(path, column) if path.endswith(".parquet") else File(path)


def parse_argument(text: str, column: str | None) -> Iterable[Leaf]:
    """Return what an argument stands for.

    Raises:
        UsageError: nothing.
    """
    if text == "-":
        return Lines(None, column)
    if not os.path.lexists(text):
        if glob.has_magic(text):
            return Glob(text, column)
        raise UsageError(f"{name_of(text)}: no such file or folder")
    if os.path.isdir(text):
        return Folder(text)
    if text.endswith(".txt"):
        return Lines(text, column)
    leaf = parse_file(text, column)
    leaf.check()
    return [leaf]


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
        self.texts, self.column, self.shard, self.seen = list(texts), column, shard, ""
        self.sources = [parse_argument(text, column) for text in texts]
        if column and not any(isinstance(leaf, Table) for leaf in self._leaves_ahead()):
            raise UsageError(
                f"--column {column} names a column of a .parquet file, and there is none"
            )

    def _leaves_ahead(self) -> Iterator[Leaf]:
        """Yield all but those of standard input, which can be read once only."""
        ahead = (one for one in self.sources if not isinstance(one, Lines) or one.path is not None)
        return itertools.chain.from_iterable(ahead)

    def find_container(self) -> str | None:
        """Return an archive or table among the inputs, as far as can be known ahead."""
        return next((one.path for one in self._leaves_ahead() if not isinstance(one, File)), None)

    def containers(self) -> list[Tar | Table]:
        """Return the archives and tables of the shard.

        Raises:
            UsageError: something else is among them.
        """
        found: list[Tar | Table] = []
        for leaf in itertools.chain.from_iterable(self.sources):
            if isinstance(leaf, File):
                raise UsageError(
                    f"-o with a folder takes .tar and .parquet, for each of which it gets a file, not {leaf.path}; "
                    "a name that ends in .parquet, .csv or .jsonl takes all in one"
                )
            found.append(leaf)
        return found[self.shard.number :: self.shard.of]

    def images(self) -> Iterator[Found]:
        """Yield every image of the shard; when all are taken, ``seen`` is what :meth:`digest` would say of them."""
        digest = hashlib.sha256()
        parts = itertools.islice(self._parts(digest), self.shard.number, None, self.shard.of)
        yield from itertools.chain.from_iterable(parts)
        self.seen = digest.hexdigest()

    def _parts(self, digest: hashlib._Hash) -> Iterator[Iterable[Found]]:
        for leaf in itertools.chain.from_iterable(self.sources):
            digest.update(_mark(leaf))
            yield from leaf.parts()

    def digest(self) -> str:
        """Return a number that changes with the files that are named, and with archives and tables when they change."""
        digest = hashlib.sha256()
        for source in self.sources:
            if isinstance(source, Lines):
                source.remember()
            for leaf in source:
                digest.update(_mark(leaf))
        return digest.hexdigest()

    def skipped(self) -> Counter[str]:
        """Count the files of folders that are no images, by how their names end."""
        folders = (source for source in self.sources if isinstance(source, Folder))
        return sum((count_skipped(folder.path) for folder in folders), Counter())

    def count(self) -> int | None:
        """Count the images of the shard; None if that would mean reading them."""
        if any(isinstance(source, Lines) and source.path is None for source in self.sources):
            return None
        total = 0
        for leaf in self._leaves_ahead():
            number = leaf.size(whole=self.shard.of == 1)
            if number is None:
                return None
            total += number
        return len(range(self.shard.number, total, self.shard.of))


def _mark(leaf: Leaf) -> bytes:
    """Return what changes when a file does, without opening it."""
    return os.fsencode(f"{leaf.path} {stamp_of(leaf.path)}\n")
