"""The csv of a dataset (name, mos, ...): written by ``lifeiqa prepare``, read by everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

REFERENCE = "reference"
"""Column of a meta csv that names the pristine image behind each row; rows that share it belong on one side."""


def read_meta(path: str | Path) -> pd.DataFrame:
    """Read a csv whose first two columns are image names and scores.

    Raises:
        OSError: no such file, or not text.
        ValueError: fewer than two columns, no rows, a score that is not a finite number, a name that comes twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OSError(f"{path}: cannot be read as a csv of name, mos, ... ({error})") from error
    if table.shape[1] < 2 or table.empty:
        raise ValueError(
            f"{path}: expected rows of name, mos, ...; got {len(table)} rows of {list(table)}"
        )
    numbers = pd.to_numeric(table.iloc[:, 1], errors="coerce")
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        name, score = table.iloc[row, :2]
        raise ValueError(
            f"{path}: {int(bad.sum())} scores are not numbers; the first is {score!r} of {name!r}"
        )
    twice = table.iloc[:, 0][table.iloc[:, 0].duplicated()]
    if len(twice):
        raise ValueError(
            f"{path}: {len(twice)} names come more than once, the first is {twice.iloc[0]!r}"
        )
    table.isetitem(1, numbers)
    return table
