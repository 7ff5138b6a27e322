"""The csv of a dataset (name, mos, ...): written by ``lifeiqa prepare``, read by everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lifeiqa_plugin.datasets.columns import USUAL, Columns, find_name_and_mos

REFERENCE = "reference"
"""Column of a meta csv that names the pristine image behind each row; rows that share it belong on one side."""


def read_meta(path: str | Path, columns: Columns = USUAL) -> pd.DataFrame:
    """Read a csv of images and scores.

    Returns:
        All columns as text, but the images first and then the scores, as numbers.

    Raises:
        OSError: no such file, or not text.
        ValueError: no column of images or of scores, no header, no rows, a score that is not a finite number, a name
            that comes twice.
    """
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
