"""Images with what people say of them: the rows of a csv, or of whatever else holds some, and how they are read."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from lifeiqa_plugin.correlation import ceiling
from lifeiqa_plugin.datasets.table import (
    REFERENCE,
    USUAL,
    Columns,
    check_column,
    read_meta,
    standard_errors,
)
from lifeiqa_plugin.images.opening import check_image
from lifeiqa_plugin.images.reading import DECODING, read_image
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.journal import sha256_of

GROUP_COLUMNS = (
    "subset",
    "distortion",
    "distortion_type",
    "dist_type",
    "dst_type",
    "noise",
    "type",
)
"""Columns of a csv whose values get table rows of their own, where it has them."""


@dataclass(frozen=True)
class LabelledImage:
    """One image: its name in the csv, file, MOS (higher is better), reference, values of group columns.

    ``mos_error`` is the standard error of the MOS; NaN where that is not known.
    """

    name: str
    path: str
    mos: float
    reference: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    mos_error: float = math.nan


class Reader(Protocol):
    """What decodes the image in a row, and on request its reference: (3, H, W) in [0, 1] each."""

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Decode one row."""


@dataclass(frozen=True)
class LabelledDataset:
    """A dataset under the name that tables give it.

    Attributes:
        name: letters, digits and ``.+-``.
        root: folder of the images.
        images: in the order of the tables.
        read: decodes them.
        rows: which rows these are, in words.
        within: group column whose groups' mean SRCC stands beside the total; empty for none.
        kind: ``mos``; ``pairs``; or ``levels`` or ``stability`` for photos that nobody has rated.
        origin: what its images are, for those who keep scores of them.
        pairs: of the kind ``pairs``: left, right, votes_left, votes_right.
    """

    name: str
    root: str
    images: list[LabelledImage]
    read: Reader
    rows: str
    within: str = ""
    kind: str = "mos"
    origin: Mapping[str, str] = field(default_factory=dict)
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)

    @property
    def ceiling(self) -> dict[str, float]:
        """As :func:`~lifeiqa_plugin.correlation.ceiling` of its images."""
        pairs = np.array([(image.mos, image.mos_error) for image in self.images])
        return ceiling(*pairs.reshape(-1, 2).T)

    @property
    def has_references(self) -> bool:
        """Whether there is a reference for every image."""
        return all(image.reference for image in self.images)


@dataclass(frozen=True)
class FileReader:
    """Reads images and references by their paths, by the rules of this package."""

    images: list[LabelledImage]

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Decode one row."""
        image = self.images[row]
        paths = [image.path]
        if with_reference and image.reference:
            paths.append(image.reference)
        return [read_image(path) for path in paths]


def read_labelled(
    path: Path,
    root: str | Path = "",
    name: str = "",
    *,
    columns: Columns = USUAL,
    only: Mapping[str, Any] | None = None,
    without: Mapping[str, Any] | None = None,
    by: Sequence[str] = (),
    within: str = "",
) -> LabelledDataset:
    """Read the rows of a csv.

    Args:
        path: a csv of image names and scores, higher is better.
        root: folder of the images; default that of the csv.
        name: of the dataset; default that of the csv, without ``meta_info_``.
        columns: of the images and of the scores.
        only: column -> value, or list of values, of the rows that are taken.
        without: the same of those that are left out.
        by: columns whose values become ``groups``, beside those of :data:`GROUP_COLUMNS`.
        within: see :class:`LabelledDataset`; is one of ``groups`` too.

    Raises:
        OSError, ValueError: as :func:`~lifeiqa_plugin.datasets.table.read_meta`; no such column, no rows.
    """
    table = read_meta(path, columns)
    rows = _choose(path, table, only or {}, without or {})
    grouping = group_columns(path, table, [*by, within] if within else by)
    root = str(root) or os.path.dirname(path) or "."
    folder = Path(root).expanduser()
    references = _find_references(folder, list(rows.get(REFERENCE, [""] * len(rows))))
    images = []
    errors = standard_errors(path, rows)
    for values, reference, error in zip(rows.to_dict("records"), references, errors, strict=True):
        image, mos = list(values.values())[:2]
        file = str(folder / image)
        groups = {column: str(values[column]) for column in grouping}
        images.append(
            LabelledImage(name_below(file, root), file, float(mos), reference, groups, error)
        )
    return LabelledDataset(
        name or Path(path).stem.removeprefix("meta_info_"),
        root,
        images,
        FileReader(images),
        _in_words(len(rows), only or {}, without or {}),
        within,
        origin=origin_of(path, root),
    )


def group_columns(path: str | Path, table: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Return the columns to group by: those that are asked for, and the usual ones that are there.

    Raises:
        ValueError: one that is asked for is not.
    """
    if missing := [column for column in by if column not in table]:
        raise ValueError(f"--by {' '.join(missing)}: no such column; {path} has {list(table)}")
    return list(dict.fromkeys([*by, *(column for column in GROUP_COLUMNS if column in table)]))


def name_below(path: str, root: str) -> str:
    """Return the name of a file below a folder, with slashes."""
    return Path(os.path.relpath(path, Path(root).expanduser())).as_posix()


def origin_of(path: str | Path, root: str) -> dict[str, str]:
    """Tell a csv and the folder of its images from others of the same names."""
    digest = sha256_of(Path(path))
    folder = os.path.realpath(Path(root).expanduser())
    return {"csv sha256": digest, "root": folder, "decoding": str(DECODING)}


def check_images(images: Sequence[LabelledImage]) -> None:
    """Open every file; pixels are not decoded.

    Raises:
        OSError: some are missing or no images; names up to five.
    """
    problems = []
    for image in images:
        try:
            check_image(image.path)
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise OSError(
            f"{len(problems)} of {len(images)} images cannot be used: {'; '.join(problems[:5])}; "
            "correct the folder, or remove their rows from the csv"
        )


def _choose(
    path: Path, table: pd.DataFrame, only: Mapping[str, Any], without: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the rows that have one of the values in each column of ``only``, and none of ``without``."""
    chosen = pd.Series(True, index=table.index)
    choices = [(*one, True) for one in only.items()] + [(*one, False) for one in without.items()]
    for column, values, is_taken in choices:
        check_column(path, table, column)
        chosen &= table[column].astype(str).isin(_texts(values)) == is_taken
    if not chosen.any():
        found = [
            f"{column} has {', '.join(sorted(set(table[column]))[:8])}" for column, *_ in choices
        ]
        raise ValueError(f"{path}: {_in_words(0, only, without)}; {'; '.join(found)}")
    return table[chosen]


def _texts(values: Any) -> list[str]:
    return [str(value) for value in (values if isinstance(values, list) else [values])]


def _in_words(count: int, only: Mapping[str, Any], without: Mapping[str, Any]) -> str:
    """Say which rows of a csv are taken, for captions."""
    words = [f"{count:,} rows" if only or without else f"all {count:,} rows"]
    for how, choice in (("with", only), ("without", without)):
        words += [f"{how} {column} {' or '.join(_texts(choice[column]))}" for column in choice]
    return ", ".join(words)


def _find_references(root: Path, names: list[str]) -> list[str | None]:
    """Find the file of each reference below the folder: by path, or by a name or stem that only one file has."""
    if not any(names):
        return [None] * len(names)
    files = defaultdict(set)
    for path in root.rglob("*"):
        if path.is_file():
            for key in (path.relative_to(root).as_posix(), path.name, path.stem):
                files[key.lower()].add(str(path))
    references: list[str | None] = []
    for name in names:
        found = files.get(name.lower(), set())
        references.append(next(iter(found)) if len(found) == 1 else None)
    return references
