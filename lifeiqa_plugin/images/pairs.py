"""A camera raw file and the JPEG of the same shot, side by side in a folder."""

from __future__ import annotations

import functools
import os
from typing import Any

from lifeiqa_plugin.images import raw
from lifeiqa_plugin.images.folders import SUFFIXES
from lifeiqa_plugin.images.refusals import name_of


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
