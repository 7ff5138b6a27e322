"""The csv of a dataset (name, mos, ...): written by ``lifeiqa prepare``, read by everything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lifeiqa_plugin.datasets.columns import USUAL, Columns, find_name_and_mos
from lifeiqa_plugin.images.reading import ImageError, check_image

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
        raise ValueError(f"{path}: expected rows of {name}, {mos}, ...; got none")
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


@dataclass(frozen=True)
class LabelledImages:
    """Rows of path and opinion score, and the folder that they lie below."""

    opt: dict[str, Any]
    paths_mos: list[Any]


def read_labelled(
    meta: Path,
    root: Path,
    split: str | None = None,
    phase: str = "test",
    columns: Columns = USUAL,
) -> LabelledImages:
    """Read the rows of a phase, and see that there is an image for each.

    Args:
        meta: csv that ``lifeiqa prepare`` wrote.
        root: folder of the images.
        split: column; None for all rows.
        phase: what the column has to say.
        columns: of the images and of the scores.

    Raises:
        OSError: the csv cannot be read, or images are missing (up to five are named).
        ValueError: as :func:`read_meta`, no such column, no rows, or opinion scores outside [0, 1].
    """
    table = read_meta(meta, columns)
    if split is not None:
        if split not in table:
            known = [name for name in table if "split" in name]
            raise ValueError(f"{meta}: no column {split!r}; its split columns are {known}")
        found = sorted(set(table[split]))
        table = table[table[split] == phase]
        if table.empty:
            raise ValueError(f"{meta}: no row is {phase!r} in {split!r}, found {found}")
    names, mos = table.iloc[:, 0], table.iloc[:, 1]
    if mos.min() < 0 or mos.max() > 1:
        raise ValueError(
            f"{meta}: mos goes from {mos.min():g} to {mos.max():g}, expected 0 (worst) to 1 (best); "
            f"write the csv with lifeiqa prepare folder {root} --scores {meta} --mos-range LOW HIGH"
        )
    folder = root.expanduser()
    rows = [(str(folder / name), float(score)) for name, score in zip(names, mos, strict=True)]
    _check_images([path for path, _ in rows])
    return LabelledImages({"dataroot_target": str(root)}, rows)


def _check_images(paths: list[str]) -> None:
    problems = []
    for path in paths:
        try:
            check_image(path)
        except ImageError as error:
            problems.append(str(error))
    if problems:
        listed = "; ".join(problems[:5])
        raise OSError(
            f"{len(problems)} of {len(paths)} images cannot be used: {listed}; "
            "correct the folder, or remove their rows from the csv"
        )
