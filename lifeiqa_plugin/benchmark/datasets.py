"""Datasets: prepared ones, a csv of one's own, whatever pyiqa's option files describe, and ladders of clean photos."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lifeiqa_plugin.benchmark.metrics import NAME, first_line, read_yaml
from lifeiqa_plugin.datasets.table import REFERENCE, read_meta
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.nearest import nearest
from lifeiqa_plugin.pyiqa_compat import build_dataset, dataset_table, quiet

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

PHASES = ("train", "val", "test")

OWN_KEYS = {"csv", "root", "only", "without", "within", "optional"}
"""Of an entry of an option file that names a csv; ``docs/benchmark.md`` explains them."""

PHOTO_KEYS = {"count", "side", "seed", "optional"}
"""Of an entry that names a folder of photos, beside ``ladders`` or ``stability``."""


@dataclass(frozen=True)
class LabelledImage:
    """One image: its name in the csv, file, opinion score (higher is better), reference, values of group columns."""

    name: str
    path: str
    mos: float
    reference: str | None
    groups: dict[str, str]


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
        kind: ``opinions``, or ``ladders`` or ``stability`` for photos that nobody has scored.
    """

    name: str
    root: str
    images: list[LabelledImage]
    read: Reader
    rows: str
    within: str = ""
    kind: str = "opinions"

    @property
    def has_references(self) -> bool:
        """Whether there is a reference for every image."""
        return all(image.reference for image in self.images)


# ---- finding


def find_datasets(
    items: list[str], option_file: str | Path | None = None, by: Sequence[str] = ()
) -> list[LabelledDataset]:
    """Find datasets; all that ``option_file`` describes come last.

    An ``optional`` one of the file whose own files are not on this machine is left out, with a line on stderr.

    Args:
        items: names from ``option_file`` or of pyiqa's own table, or ``CSV[@FOLDER[@SPLIT[=PHASE]]]``: a csv written by
            ``lifeiqa prepare``, or any whose first columns are image names and scores (higher is better); the folder
            of the images (default: that of the csv); a split column (default: all rows) and phase (default: test).
        option_file: data options in pyiqa's format, or in that of ``options/benchmark/cross.yml``.
        by: further columns to group by.

    Raises:
        OSError, ValueError: no such file, an unknown name, a csv that cannot be used.
    """
    custom = read_yaml(option_file) if option_file else {}
    known = read_yaml(dataset_table()) | custom
    found = []
    for item in dict.fromkeys([*items, *custom]):
        try:
            found.append(_find(item, known, by))
        except FileNotFoundError as error:
            if item in items or not known[item].get("optional"):
                raise
            print(f"{item} is left out: {error}", file=sys.stderr)
    names = [dataset.name for dataset in found]
    for name in names:
        if names.count(name) > 1 or not NAME.fullmatch(name):
            raise ValueError(
                f"dataset {name!r}: expected letters, digits and .+- , each name once; got {names}"
            )
    return found


def _find(item: str, known: Mapping[str, Any], by: Sequence[str]) -> LabelledDataset:
    if item in known:
        options = dict(known[item])
        if "csv" in options:
            return _from_entry(item, options, by)
        if "ladders" in options or "stability" in options:
            return _from_photos(item, options)
        return _from_options(item, options, by)
    if item.partition("@")[0].endswith(".csv"):
        return _from_argument(item, by)
    near = ", ".join(nearest(item, known, 3)) or ", ".join(known)
    raise ValueError(
        f"no dataset is called {item!r}; did you mean: {near}? Or give CSV@FOLDER@SPLIT"
    )


# ---- a csv of names and scores


def _from_argument(item: str, by: Sequence[str]) -> LabelledDataset:
    """Read ``CSV[@FOLDER[@SPLIT[=PHASE]]]``."""
    meta, _, rest = item.partition("@")
    folder, _, split = rest.partition("@")
    column, _, phase = split.partition("=")
    phase = phase or "test"
    if phase not in PHASES:
        raise ValueError(f"{item}: the phase must be train, val or test, got {phase!r}")
    name = Path(meta).stem.removeprefix("meta_info_")
    only = {column: phase} if column else {}
    return _from_csv(name, Path(meta), folder, by, only=only)


def _from_entry(name: str, options: dict[str, Any], by: Sequence[str]) -> LabelledDataset:
    """Read an entry of an option file that names a csv."""
    _check_keys(name, options, OWN_KEYS)
    meta, folder = Path(options["csv"]), str(options.get("root", ""))
    for path in (meta, Path(folder)):
        if not path.exists():
            raise FileNotFoundError(f"dataset {name}: {path}: no such file or folder")
    only, without = options.get("only") or {}, options.get("without") or {}
    within = str(options.get("within", ""))
    if within:
        by = [*by, within]
    return _from_csv(name, meta, folder, by, only=only, without=without, within=within)


def _from_csv(
    name: str,
    path: Path,
    folder: str,
    by: Sequence[str],
    *,
    only: Mapping[str, Any],
    without: Mapping[str, Any] | None = None,
    within: str = "",
) -> LabelledDataset:
    table = read_meta(path)
    without = without or {}
    chosen = pd.Series(True, index=table.index)
    for column, values in only.items():
        chosen &= _matches(path, table, column, values)
    for column, values in without.items():
        chosen &= ~_matches(path, table, column, values)
    rows = table[chosen]
    words = _in_words(len(rows), only, without)
    if rows.empty:
        raise ValueError(f"dataset {name}: {path} has {words}")
    root = folder or os.path.dirname(path) or "."
    files = [str(Path(root).expanduser() / image) for image in rows.iloc[:, 0]]
    named = rows[REFERENCE] if REFERENCE in rows else [""] * len(rows)
    references = _find_references(Path(root), list(named))
    labels = [float(label) for label in rows.iloc[:, 1]]
    found = list(zip(files, labels, references, strict=True))
    images = _images(found, root, table, by)
    return LabelledDataset(name, root, images, FileReader(images), words, within)


def _matches(path: Path, table: pd.DataFrame, column: str, values: Any) -> pd.Series:
    """Tell which rows have one of the values, or the one, in a column."""
    if column not in table:
        splits = [name for name in table if "split" in name]
        raise ValueError(
            f"{path}: no column {column!r}; its split columns are {splits}, all are {list(table)}"
        )
    values = values if isinstance(values, list) else [values]
    return table[column].astype(str).isin([str(value) for value in values])


def _in_words(count: int, only: Mapping[str, Any], without: Mapping[str, Any]) -> str:
    """Say which rows of a csv are taken, for captions."""
    words = [f"{count:,} rows" if only or without else f"all {count:,} rows"]
    for how, choice in (("with", only), ("without", without)):
        for column, values in choice.items():
            listed = values if isinstance(values, list) else [values]
            words.append(f"{how} {column} {' or '.join(map(str, listed))}")
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


@dataclass(frozen=True)
class FileReader:
    """Reads images and references by their paths."""

    images: list[LabelledImage]

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Decode by the rules of this package, whatever the metric's own would be."""
        image = self.images[row]
        paths = [image.path]
        if with_reference and image.reference:
            paths.append(image.reference)
        return [read_image(path) for path in paths]


# ---- what pyiqa's option files describe


class HostRow(NamedTuple):
    """A row of a dataset of pyiqa."""

    path: str
    mos: float
    reference: str | None


def _from_options(name: str, options: dict[str, Any], by: Sequence[str]) -> LabelledDataset:
    options = {"phase": "test", **options}
    options.pop("optional", None)
    meta = options.get("meta_info_file", "")
    if not Path(meta).is_file():
        raise FileNotFoundError(f"dataset {name}: {meta}: no such file; correct it with --data_opt")
    with quiet():
        dataset = build_dataset(options)
    if not dataset.paths_mos:
        raise ValueError(f"dataset {name}: no row of {meta} is {options['phase']!r}")
    rows = [_host_row(name, row, options) for row in dataset.paths_mos]
    root = str(options["dataroot_target"])
    images = _images(rows, root, dataset.meta_info, by)
    words = f"{len(rows):,} rows, phase {options['phase']}"
    reader: Reader = FileReader(images)
    if options.get("augment"):
        reader = HostReader(images, dataset)
    return LabelledDataset(name, root, images, reader, words)


def _host_row(name: str, row: Sequence[Any], options: dict[str, Any]) -> HostRow:
    paths = [str(value) for value in row[:2] if isinstance(value, str)]
    label = row[len(paths)]
    if not paths or not isinstance(label, int | float) or not np.isfinite(label):
        kind = options["type"]
        raise ValueError(
            f"dataset {name}: expected rows of image and score, got {row[:3]!r} from {kind}"
        )
    reference = paths[0] if len(paths) > 1 else None
    return HostRow(paths[-1], _higher_better(float(label), options), reference)


def _higher_better(label: float, options: dict[str, Any]) -> float:
    """Turn a label round on its own scale if it is worse when higher; ``dmos_max`` is how older files say so."""
    lower_better = options.get("lower_better", "dmos_max" in options)
    if options.get("mos_normalize") or not lower_better:
        return label
    low, high = options.get("mos_range", (0, options.get("dmos_max", 0)))
    return float(low) + float(high) - label


@dataclass(frozen=True)
class HostReader:
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
            tensors.append(read_image(self.images[row].reference or REFERENCE))
        return tensors


# ---- photos that nobody has scored


def _from_photos(name: str, options: dict[str, Any]) -> LabelledDataset:
    from lifeiqa_plugin.benchmark import photos

    kind = "ladders" if "ladders" in options else "stability"
    _check_keys(name, options, PHOTO_KEYS | {kind})
    folder = Path(options[kind])
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset {name}: {folder}: no such folder")
    files = photos.find_photos(folder, options.get("count"))
    side, seed = options.get("side", 512), options.get("seed", 0)
    reader = photos.READERS[kind](folder, files, side, seed)
    images = []
    for variant in reader.variants:
        file = str(files[variant.photo])
        images.append(LabelledImage(variant.name, file, float("nan"), None, variant.groups))
    words = f"{len(files)} photos, shorter side at most {side}, seed {seed}"
    return LabelledDataset(name, str(folder), images, reader, words, kind=kind)


# ---- what all have in common


def _check_keys(name: str, options: Mapping[str, Any], known: set[str]) -> None:
    for key in options.keys() - known:
        near = ", ".join(nearest(key, known)) or ", ".join(sorted(known))
        raise ValueError(f"dataset {name}: unknown key {key!r}; did you mean: {near}?")


def _images(
    rows: Sequence[tuple[str, float, str | None]],
    root: str,
    meta: pd.DataFrame,
    by: Sequence[str],
) -> list[LabelledImage]:
    columns = [column for column in dict.fromkeys([*by, *GROUP_COLUMNS]) if column in meta]
    if missing := set(by) - set(columns):
        raise ValueError(
            f"--by {' '.join(sorted(missing))}: no such column; the csv has {list(meta)}"
        )
    groups: dict[str, dict[str, str]] = {}
    for column in meta.columns[1::-1]:  # names in the first column win over those in the second
        for row, name in enumerate(meta[column]):
            groups[str(name)] = {key: str(meta[key].iloc[row]) for key in columns}
    images = []
    for path, mos, reference in rows:
        name = Path(os.path.relpath(path, root)).as_posix()
        images.append(LabelledImage(name, str(path), mos, reference, groups.get(name, {})))
    return images


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
