"""``--copy-to`` and ``--link-to``: images sorted into ``keep``, ``check`` and ``drop``; the originals stay."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePath


def place(source: str, folder: Path, verdict: str, link: bool) -> None:
    """Copy an image to, or link to it from, ``folder/verdict``, below which it keeps its path.

    What is there already is left as it is; another image of the same path gets a number.

    Raises:
        OSError: no space, no permission.
    """
    parts = [part for part in PurePath(source).parts if part not in ("/", "..", ".")]
    target = folder.joinpath(verdict, *parts)
    number = 0
    while os.path.lexists(target):
        if _is_of(target, source, link):
            return
        number += 1
        target = target.with_name(f"{Path(parts[-1]).stem}-{number}{target.suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(os.path.abspath(source))
        return
    part = target.with_name(f".{os.getpid()}.part")  # its own name may be as long as names can be
    shutil.copy2(source, part)
    os.replace(part, target)


def _is_of(target: Path, source: str, link: bool) -> bool:
    if link:
        return target.is_symlink() and os.readlink(target) == os.path.abspath(source)
    about, original = target.stat(), os.stat(source)
    return (about.st_size, int(about.st_mtime)) == (original.st_size, int(original.st_mtime))
