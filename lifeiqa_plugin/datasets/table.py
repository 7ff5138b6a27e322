"""The csv of a dataset: its columns, found by name wherever they stand; its rows; the range of its scores."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # commands declare their columns without pandas
    import pandas as pd

NAMES = ("name", "img_name", "image_name", "image", "filename", "path")
"""What the column of images may be called."""

MOS = "mos"

REFERENCE = "reference"
"""Column that names the pristine image behind each row; rows that share it belong on one side of a split."""


MOS_STD, VOTES = "mos_std", "votes"
"""Columns of the standard deviation of the opinions behind each ``mos``, on its scale, and of their number."""


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
        if isinstance(number(mos), float):
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


def number(text: str) -> float | str:
    """Return a number; text that is none stays as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def read_meta(path: str | Path, columns: Columns = USUAL) -> pd.DataFrame:
    """Read a csv of images and scores.

    Returns:
        All columns as text, but the images first and then the scores, as numbers.

    Raises:
        OSError: no such file, or not text.
        ValueError: no column of images or of scores, no header, no rows, a score that is not a finite number, a name
            that comes twice.
    """
    import numpy as np
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OSError(f"{path}: cannot be read as a csv of name, mos, ... ({error})") from error
    name, mos = find_name_and_mos(path, table, columns)
    if table.empty:
        raise ValueError(f"{path}: expected rows of {name}, {mos}, ...; got 0 rows")
    numbers = pd.to_numeric(table[mos], errors="coerce")
    bad = ~np.isfinite(numbers)
    if bad.any():
        first = table[bad].iloc[0]
        raise ValueError(
            f"{path}: {int(bad.sum())} scores are not numbers; the first is {first[mos]!r} of {first[name]!r}"
        )
    twice = table[name][table[name].duplicated()]
    if len(twice):
        raise ValueError(
            f"{path}: {len(twice)} names come more than once, the first is {twice.iloc[0]!r}"
        )
    others = [column for column in table if column not in (name, mos)]
    return table[[name, mos, *others]].assign(**{mos: numbers})


def standard_errors(path: str | Path, table: pd.DataFrame) -> list[float]:
    """Return the standard error of each MOS, ``mos_std / sqrt(votes)``; NaN where they are empty or no columns.

    Raises:
        ValueError: a deviation that is not a number of 0 or more, or votes not of 1 or more.
    """
    import numpy as np
    import pandas as pd

    if not {MOS_STD, VOTES} <= set(table):
        return [float("nan")] * len(table)
    numbers = {}
    for column, least in ((MOS_STD, 0), (VOTES, 1)):
        numbers[column] = pd.to_numeric(table[column], errors="coerce")
        bad = (table[column] != "") & ~((numbers[column] >= least) & np.isfinite(numbers[column]))
        if bad.any():
            raise ValueError(
                f"{path}: {column} must be a number of {least} or more, got {table[column][bad].iloc[0]!r}"
            )
    return list(numbers[MOS_STD] / np.sqrt(numbers[VOTES]))


def check_column(path: str | Path, table: pd.DataFrame, column: str) -> None:
    """See that a csv has a column that splits its rows.

    Raises:
        ValueError: it has not; lists its split columns and all.
    """
    if column not in table:
        splits = [name for name in table if "split" in name]
        raise ValueError(
            f"{path}: no column {column!r}; its split columns are {splits}, all are {list(table)}"
        )


def check_mos_range(
    mos: Sequence[float], score_range: tuple[float, float] | None, where: str
) -> None:
    """See that a network can give the scores that it is to learn, or is compared with.

    Args:
        mos: people's scores, as the network would have to give them.
        score_range: lowest and highest score of the network; None for one without limits, which takes any.
        where: what an error calls the dataset.

    Raises:
        ValueError: some lie outside the range; names both ranges, and what to do.
    """
    if score_range is None or not len(mos):
        return
    low, high = score_range
    if min(mos) < low or max(mos) > high:
        raise ValueError(
            f"{where}: mos goes from {min(mos):g} to {max(mos):g}, but the network's scores from {low:g} (worst) to "
            f"{high:g} (best); write the csv with lifeiqa prepare folder FOLDER --mos-range LOW HIGH, or in an option "
            "file give the dataset mos_normalize: true, mos_range: [LOW, HIGH] and lower_better: true or false"
        )
