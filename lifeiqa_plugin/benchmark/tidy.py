"""One tidy frame of all that scores say, a number a row, and how it is spread into tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lifeiqa_plugin.correlation import Interval

NAN = float("nan")


class Number(NamedTuple):
    """A statistic of one metric on one dataset, or on one group of its images.

    Attributes:
        statistic: its name.
        value: NaN where it is not defined.
        low: end of the 95 % interval; NaN where there is none.
        high: the other end.
        n: images that it is of.
        column: group column; empty for all images.
        group: its value.
    """

    statistic: str
    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0
    column: str = ""
    group: str = ""


COLUMNS = ["dataset", "metric", *Number._fields]


def wide(tidy: pd.DataFrame, keys: list[str], statistics: Sequence[str]) -> pd.DataFrame:
    """Return the keys, each combination once and in its order, and value, low and high of each statistic."""
    table = tidy[keys].drop_duplicates(ignore_index=True)
    index = pd.MultiIndex.from_frame(table)
    for name in statistics:
        found = tidy[tidy["statistic"] == name].set_index(keys).reindex(index)
        for part, end in (("value", ""), ("low", "_low"), ("high", "_high")):
            table[f"{name}{end}"] = found[part].to_numpy(float)
    return table


def spread(
    tidy: pd.DataFrame, rows: str, columns: str, factor: float = 1, digits: int = 3
) -> pd.DataFrame:
    """Return a table of text: ``value (low to high)`` by two columns of the frame, each in its order."""
    text = [
        with_interval(Interval(*found), factor, digits)
        for found in tidy[["value", "low", "high"]].itertuples(index=False)
    ]
    table = tidy.assign(text=text).pivot(index=rows, columns=columns, values="text")
    return table.reindex(index=tidy[rows].unique(), columns=tidy[columns].unique()).fillna("")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals; empty where there is none."""
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:.{digits}f}"


def with_interval(found: Interval, factor: float = 1, digits: int = 3) -> str:
    """Return ``value (low to high)``; the value alone where no samples were drawn, nothing where there is none."""
    value, low, high = (number(factor * part, digits) for part in found)
    return f"{value} ({low} to {high})" if value and low else value
