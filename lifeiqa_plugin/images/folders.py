"""The images in a folder and those below it, and what is passed over there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lifeiqa_plugin.images import raw
from lifeiqa_plugin.images.refusals import name_of

SUFFIXES = raw.SUFFIXES | {
    ".apng", ".avci", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif",
    ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".mpo",
    ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""How the names of files end that a folder is searched for."""

MAX_KINDS = 8
"""Endings that are named when files are passed over."""


def find_images(folder: str | Path) -> list[str]:
    """Return the files in and below a folder whose names end as those of images do, sorted.

    Raises:
        ValueError: there is none, or no such folder.
    """
    found = sorted(walk_images(Path(folder).expanduser()))
    if not found:
        raise ValueError(f"{folder}: no images in it; expected files such as .jpg, .png or .webp")
    return found


def walk_images(
    folder: str | os.PathLike[str], on_error: Callable[[OSError], None] | None = None
) -> Iterator[str]:
    """Yield the paths of the images in a folder and those below it, always in the same order; links are not entered.

    ``on_error`` is told of folders that cannot be listed; without it they count as empty.
    """
    left = [os.fspath(folder)]
    while left:
        root = left.pop()
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(root) as entries:
                for entry in entries:
                    if not entry.is_dir():
                        files.append(entry.name)
                    elif not entry.is_symlink():
                        folders.append(entry.path)
        except OSError as error:
            if on_error is not None:
                on_error(error)
        left += sorted(folders, reverse=True)
        yield from (os.path.join(root, name) for name in sorted(files) if has_suffix(name))


def has_suffix(name: str) -> bool:
    """Say whether a name ends as those of images do."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def count_skipped(folder: str | os.PathLike[str]) -> Counter[str]:
    """Count the files that :func:`walk_images` passes over, by how their names end; hidden ones do not count."""
    skipped: Counter[str] = Counter()
    for _, _, files in os.walk(folder):
        for name in files:
            if not has_suffix(name) and not name.startswith("."):
                ending = os.path.splitext(name)[1]
                skipped[name_of(ending) if ending else "without an ending"] += 1
    return skipped


def describe_skipped(skipped: Counter[str]) -> str:
    """Say in a line what was passed over; empty if nothing was.

    >>> describe_skipped(Counter({".mov": 14, ".xmp": 198}))
    'skipped 212 files: 198 .xmp, 14 .mov'
    """
    kinds = ", ".join(f"{number} {ending}" for ending, number in skipped.most_common(MAX_KINDS))
    rest = len(skipped) - MAX_KINDS
    more = f" and {rest} other kinds" if rest > 0 else ""
    return f"skipped {skipped.total()} files: {kinds}{more}" if skipped else ""
