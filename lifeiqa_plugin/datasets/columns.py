"""Which columns of a csv hold the images and their scores: found by name, wherever they stand."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NAMES = ("name", "img_name", "image_name", "image", "filename", "path")
"""What the column of images may be called."""

MOS = "mos"


class Columns(NamedTuple):
    """What the user calls the two columns; None for the usual names."""

    mos: str | None = None
    name: str | None = None


USUAL = Columns()


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Declare ``--mos-column`` and ``--name-column``."""
    parser.add_argument("--mos-column", metavar="COLUMN", help="column of the scores (default mos)")
    parser.add_argument(
        "--name-column",
        metavar="COLUMN",
        help=f"column of the images (default: the first of {', '.join(NAMES)} that is there)",
    )


def find_column(path: Path | str, columns: Iterable[object], *names: str, hint: str = "") -> str:
    """Return the first of the names that is a column, as it is written there or in another case.

    Raises:
        ValueError: none is; lists the columns, and ends with the hint.
    """
    known = [str(column) for column in columns]
    in_lower_case = {column.strip().lower(): column for column in reversed(known)}
    for name in names:
        if name in known:
            return name
        if name.lower() in in_lower_case:
            return in_lower_case[name.lower()]
    raise ValueError(f"{path}: expected a column {' or '.join(names)}, got {known}{hint}")


def find_name_and_mos(
    path: Path | str, columns: Iterable[object], asked: Columns = USUAL
) -> tuple[str, str]:
    """Return the column of images and that of scores; two columns without ``mos`` are taken to be these, in order.

    Raises:
        ValueError: one of them is not there, both are the same, or the file has no header.
    """
    known = [str(column) for column in columns]
    if asked == USUAL and len(known) == 2 and MOS not in [c.strip().lower() for c in known]:
        name, mos = known
        if is_number(mos):
            raise ValueError(
                f"{path}: the first line is {','.join(known)!r}, a row and no header; "
                "begin the file with a line name,mos"
            )
        return name, mos
    names = (asked.name,) if asked.name else NAMES
    hint = "; name yours with --{0}-column, or rename it to {0}"
    mos = find_column(path, known, asked.mos or MOS, hint=hint.format("mos"))
    name = find_column(path, known, *names, hint=hint.format("name"))
    if name == mos:
        raise ValueError(f"{path}: the column {name!r} cannot be both the images and their scores")
    return name, mos


def is_number(text: str) -> bool:
    """Tell whether text can be read as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
