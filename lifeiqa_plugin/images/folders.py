"""The images in a folder and those below it, what is passed over there, and raw files beside their JPEG."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def note_pair(source: Any) -> tuple[str, ...]:
    """Note which file of its folder is the same shot as an image: a raw file if it is none itself, else the other.

    >>> note_pair(b"not a file of a folder")
    ()
    """
    if not isinstance(source, str | os.PathLike):
        return ()
    folder, name = os.path.split(os.fsdecode(source))
    stem, suffix = os.path.splitext(name)
    try:
        changed = os.stat(folder or ".").st_mtime_ns
        shots = _shots(folder or ".", changed)
    except OSError:
        return ()
    others = [
        other
        for other in shots.get(stem.lower(), ())
        if _is_raw(other) != (suffix.lower() in raw.SUFFIXES)
    ]
    return tuple(f"pair with {name_of(other)}" for other in others)


def _is_raw(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in raw.SUFFIXES


@functools.lru_cache(maxsize=8)
def _shots(folder: str, changed: int) -> dict[str, list[str]]:
    """Return the shots of a folder that have a raw file and another: name without ending -> names.

    ``changed`` is when that was so.
    """
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES:
            names.setdefault(stem.lower(), []).append(name)
    return {stem: found for stem, found in names.items() if len(set(map(_is_raw, found))) == 2}
