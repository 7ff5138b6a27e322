"""Which datasets are compared on: any csv, whatever pyiqa's option files describe, and clean photos to distort."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lifeiqa_plugin.benchmark import photos
from lifeiqa_plugin.benchmark.metrics import NAME, first_line
from lifeiqa_plugin.benchmark.option_files import NOTHING, read_option_file
from lifeiqa_plugin.datasets.labelled import (
    FileReader,
    LabelledDataset,
    LabelledImage,
    Reader,
    group_columns,
    name_below,
    origin_of,
    read_labelled,
)
from lifeiqa_plugin.datasets.pairs import find_pairs, holds_pairs
from lifeiqa_plugin.datasets.table import MOS, USUAL, Columns
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.nearest import did_you_mean
from lifeiqa_plugin.pyiqa_compat import build_dataset, dataset_table, fetchable_datasets, quiet

PHASES = ("train", "val", "test")

OPTIONAL = "optional"

CSV_KEYS = {"csv", "root", "mos_column", "name_column", "only", "without", "within", OPTIONAL}
"""Of an entry of an option file that names a csv; ``docs/benchmark.md`` explains them."""

PHOTO_KEYS = {"count", "side", "seed", OPTIONAL}
"""Of an entry that names a folder of photos, beside ``levels`` or ``stability``."""


def find_datasets(
    items: list[str],
    custom: Mapping[str, dict[str, Any]] = NOTHING,
    by: Sequence[str] = (),
    columns: Columns = USUAL,
) -> list[LabelledDataset]:
    """Find datasets; all of ``custom`` come last.

    An ``optional`` one of these whose own files are not on this machine is left out, with a line on stderr.

    Args:
        items: names from ``custom`` or of pyiqa's own table, or ``CSV[@FOLDER[@SPLIT[=PHASE]]]``: a csv written by
            ``lifeiqa prepare``, or any of image names and scores (higher is better), or of pairs; the folder of the
            images (default: that of the csv); a split column (default: all rows) and phase (default: test).
        custom: of an option file in pyiqa's format, or in that of ``options/benchmark/cross.yml``.
        by: further columns to group by.
        columns: of images and scores in each ``CSV@...``.

    Raises:
        OSError, ValueError: no such file, an unknown name, a csv that cannot be used.
    """
    known = read_option_file(dataset_table()).entries | dict(custom)
    found = []
    for item in dict.fromkeys([*items, *custom]):
        try:
            found.append(_find(item, known, by, columns))
        except FileNotFoundError as error:
            if item in items or not known[item].get(OPTIONAL):
                raise
            print(f"{item} is left out: {error}", file=sys.stderr)
    names = [dataset.name for dataset in found]
    for name in names:
        if names.count(name) > 1 or not NAME.fullmatch(name):
            raise ValueError(
                f"dataset {name!r}: expected letters, digits and .+- , each name once; got {names}"
            )
    return found


def _find(
    item: str, known: Mapping[str, Any], by: Sequence[str], columns: Columns
) -> LabelledDataset:
    if item in known:
        name, options = item, dict(known[item])
    elif item.partition("@")[0].endswith(".csv"):
        name, options = "", _parse(item, columns)
    else:
        hint = did_you_mean(item, known, count=3)
        raise ValueError(f"no dataset is called {item!r}; {hint} Or give CSV@FOLDER@SPLIT")
    if "ladders" in options:  # as versions before 0.2 called it
        options["levels"] = options.pop("ladders")
    if "levels" in options or "stability" in options:
        return _from_photos(name, options)
    return _from_csv(name, options, by) if "csv" in options else _from_pyiqa(name, options, by)


# ---- a csv of names and scores


def _parse(item: str, columns: Columns) -> dict[str, Any]:
    """Read ``CSV[@FOLDER[@SPLIT[=PHASE]]]`` as an entry of an option file."""
    meta, _, rest = item.partition("@")
    folder, _, split = rest.partition("@")
    column, _, phase = split.partition("=")
    phase = phase or "test"
    if phase not in PHASES:
        raise ValueError(f"{item}: the phase must be train, val or test, got {phase!r}")
    only = {column: phase} if column else {}
    named = {"mos_column": columns.mos, "name_column": columns.name}
    return {"csv": meta, "root": folder, "only": only, **named}


def _from_csv(name: str, options: dict[str, Any], by: Sequence[str]) -> LabelledDataset:
    """Read an entry of an option file that names a csv; without a name it is an argument."""
    _check_keys(name, options, CSV_KEYS)
    meta, folder = Path(options["csv"]), str(options.get("root", ""))
    for path in (meta, Path(folder)) if name else ():
        if not path.exists():
            raise FileNotFoundError(f"dataset {name}: {path}: no such file or folder")
    if holds_pairs(meta):
        if given := [key for key in CSV_KEYS - {"csv", "root", OPTIONAL} if options.get(key)]:
            raise ValueError(
                f"{meta}: {sorted(given)[0]} is not for a csv of pairs, all of which is taken"
            )
        return find_pairs(meta, folder, name)
    return read_labelled(
        meta,
        folder,
        name,
        columns=Columns(options.get("mos_column"), options.get("name_column")),
        only=options.get("only"),
        without=options.get("without"),
        by=by,
        within=str(options.get("within", "")),
    )


# ---- what pyiqa's option files describe


def _from_pyiqa(name: str, options: dict[str, Any], by: Sequence[str]) -> LabelledDataset:
    options = {"phase": "test", **options}
    options.pop(OPTIONAL, None)
    meta = options.get("meta_info_file", "")
    for path in (meta, str(options.get("dataroot_target", ""))):
        if not Path(path).exists():
            raise FileNotFoundError(f"dataset {name}: {path}: no such file; {_advice(name)}")
    with quiet():
        dataset = build_dataset(options)
    if not dataset.paths_mos:
        raise ValueError(f"dataset {name}: no row of {meta} is {options['phase']!r}")
    rows = [_pyiqa_row(name, row, options) for row in dataset.paths_mos]
    _check_position(name, dataset, options)
    root = str(options["dataroot_target"])
    groups = _groups_by_name(meta, dataset.meta_info, by)
    images = []
    for path, mos, reference in rows:
        image = name_below(path, root)
        images.append(LabelledImage(image, path, mos, reference, groups.get(image, {})))
    is_changed = bool(options.get("augment"))
    reader: Reader = PyiqaReader(images, dataset) if is_changed else FileReader(images)
    words = f"{len(rows):,} rows, phase {options['phase']}"
    origin = origin_of(meta, root) | {"augment": str(options.get("augment"))}
    return LabelledDataset(name, root, images, reader, words, origin=origin)


def _advice(name: str) -> str:
    """Say how to get a dataset that is not here."""
    if name not in fetchable_datasets():
        return "correct it with --data-opt"
    return (
        f"""pyiqa downloads it: python -c "import pyiqa; pyiqa.load_dataset('{name}')"; or give the path of yours """
        "with --data-opt"
    )


class PyiqaRow(NamedTuple):
    """A row of a dataset of pyiqa."""

    path: str
    mos: float
    reference: str | None


def _pyiqa_row(name: str, row: Sequence[Any], options: dict[str, Any]) -> PyiqaRow:
    paths = [str(value) for value in row[:2] if isinstance(value, str)]
    label = row[len(paths)]
    if not paths or not isinstance(label, int | float) or not np.isfinite(label):
        kind = options["type"]
        raise ValueError(
            f"dataset {name}: expected rows of image and score, got {row[:3]!r} from {kind}"
        )
    reference = paths[0] if len(paths) > 1 else None
    return PyiqaRow(paths[-1], _higher_better(float(label), options), reference)


def _check_position(name: str, dataset: Any, options: Mapping[str, Any]) -> None:
    """See that the column that pyiqa took by its place for the scores is not another one than ``mos``."""
    place = sum(isinstance(value, str) for value in dataset.paths_mos[0][:2])
    columns = [str(column) for column in dataset.meta_info]
    if MOS in columns and columns[place] != MOS:
        raise ValueError(
            f"dataset {name}: pyiqa takes the scores from column {place + 1} of {options['meta_info_file']}, which is "
            f"{columns[place]!r} and not 'mos'; change the order of the columns, or give the csv as csv: and root:"
        )


def _higher_better(label: float, options: dict[str, Any]) -> float:
    """Turn a label round on its own scale if it is worse when higher; ``dmos_max`` is how older files say so."""
    lower_better = options.get("lower_better", "dmos_max" in options)
    if options.get("mos_normalize") or not lower_better:
        return label
    low, high = options.get("mos_range", (0, options.get("dmos_max", 0)))
    return float(low) + float(high) - label


def _groups_by_name(
    path: str | Path, table: pd.DataFrame, by: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Return the groups of every image; names in the first column win over those in the second."""
    columns = group_columns(path, table, by)
    values = table[columns].astype(str).to_dict("records")
    groups: dict[str, dict[str, str]] = {}
    for column in table.columns[1::-1]:
        groups |= dict(zip(table[column].astype(str), values, strict=True))
    return groups


@dataclass(frozen=True)
class PyiqaReader:
    """Reads images through a dataset of pyiqa, which changes them; its items hold ``img`` and perhaps ``ref_img``."""

    images: list[LabelledImage]
    dataset: Any

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Decode as pyiqa does."""
        item = self.dataset[row]
        tensors: list[Tensor] = [item["img"]]
        if with_reference and "ref_img" in item:
            tensors.append(item["ref_img"])
        elif with_reference:
            tensors.append(read_image(str(self.images[row].reference)))
        return tensors


# ---- photos that nobody has rated


def _from_photos(name: str, options: dict[str, Any]) -> LabelledDataset:
    kind = "levels" if "levels" in options else "stability"
    _check_keys(name, options, PHOTO_KEYS | {kind})
    folder = Path(options[kind])
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset {name}: {folder}: no such folder")
    found = photos.find_photos(folder, options.get("count"))
    side, seed = options.get("side", 512), options.get("seed", 0)
    variants = {"levels": photos.distorted, "stability": photos.changed}[kind]
    images = [image for photo in found for image in variants(folder, photo)]
    reader = photos.PhotoReader(images, side, seed)
    words = f"{len(found)} photos, shorter side at most {side}, seed {seed}"
    origin = {"root": os.path.realpath(folder), "side": str(side), "seed": str(seed)}
    return LabelledDataset(name, str(folder), images, reader, words, kind=kind, origin=origin)


def _check_keys(name: str, options: Mapping[str, Any], known: set[str]) -> None:
    for key in options.keys() - known:
        raise ValueError(f"dataset {name}: unknown key {key!r}; {did_you_mean(key, sorted(known))}")


# ---- reading


class Item(NamedTuple):
    """An image of a dataset: tensors (1, 3, H, W) of it and on request its reference, or an error in one line."""

    row: int
    tensors: list[Tensor]
    error: str


class _Guarded(Dataset[Item]):
    """Items of some images; one that cannot be read becomes an item with an error, so that the others are."""

    def __init__(
        self, dataset: LabelledDataset, rows: Sequence[int], with_references: bool
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.with_references = with_references

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int) -> Item:
        row = self.rows[key]
        try:
            tensors = self.dataset.read(row, self.with_references)
        except Exception as error:
            return Item(row, [], first_line(error))
        return Item(row, [tensor[None] for tensor in tensors], "")


def read_items(
    dataset: LabelledDataset, rows: Sequence[int], with_references: bool, workers: int = 0
) -> Iterator[Item]:
    """Decode images one by one, in the order of ``rows``."""
    guarded = _Guarded(dataset, rows, with_references)
    generator = torch.Generator()  # so that starting workers draws nothing from the process's own
    return iter(DataLoader(guarded, batch_size=None, num_workers=workers, generator=generator))
