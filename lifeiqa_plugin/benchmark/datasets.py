"""Sets of images with opinion scores: prepared, a csv of one's own, or whatever pyiqa's option files describe."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyiqa
import torch
from pyiqa.data import build_dataset
from torch.utils.data import DataLoader, Dataset

from lifeiqa_plugin.benchmark.metrics import NAME, first_line, read_yaml
from lifeiqa_plugin.datasets.table import REFERENCE
from lifeiqa_plugin.host import quiet
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.nearest import nearest
from lifeiqa_plugin.training.dataset import LifeIQADataset

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
    """One image: its name in the csv, file, opinion score (higher is better), reference, values of group columns."""

    name: str
    path: str
    mos: float
    reference: str | None
    groups: dict[str, str]


@dataclass(frozen=True)
class LabelledDataset:
    """A set under the name that tables give it, its folder, and what reads it: an item of ``dataset`` holds ``img``."""

    name: str
    root: str
    images: list[LabelledImage]
    dataset: Any

    @property
    def has_references(self) -> bool:
        """Whether there is a reference for every image."""
        return all(image.reference for image in self.images)


# ------------------------------------------------------------------------------------------------------------- finding


def find_datasets(
    items: list[str], option_file: str | Path | None = None, by: Sequence[str] = ()
) -> list[LabelledDataset]:
    """Find sets; all that ``option_file`` describes come last.

    Args:
        items: names from ``option_file`` or of pyiqa's own table, or ``CSV[@FOLDER[@SPLIT[=PHASE]]]``: a csv written by
            ``lifeiqa prepare``, or any whose first columns are image names and scores (higher is better); the folder
            of the images (default: that of the csv); a split column (default: all rows) and phase (default: test).
        option_file: data options in pyiqa's format.
        by: further columns to group by.

    Raises:
        OSError, ValueError: no such file, an unknown name, a csv that cannot be used.
    """
    custom = read_yaml(option_file) if option_file else {}
    known = read_yaml(Path(pyiqa.__file__).with_name("default_dataset_configs.yml")) | custom
    sets = []
    for item in dict.fromkeys([*items, *custom]):
        if item in known:
            sets.append(_from_options(item, dict(known[item]), by))
        elif item.partition("@")[0].endswith(".csv"):
            sets.append(_from_csv(item, by))
        else:
            near = ", ".join(nearest(item, known, 3)) or ", ".join(known)
            raise ValueError(
                f"no set is called {item!r}; did you mean: {near}? Or give CSV@FOLDER@SPLIT"
            )
    names = [chosen.name for chosen in sets]
    for name in names:
        if names.count(name) > 1 or not NAME.fullmatch(name):
            raise ValueError(
                f"set {name!r}: expected letters, digits and .+- , each name once; got {names}"
            )
    return sets


def _from_csv(item: str, by: Sequence[str]) -> LabelledDataset:
    meta, _, rest = item.partition("@")
    folder, _, split = rest.partition("@")
    column, _, phase = split.partition("=")
    root = folder or os.path.dirname(meta) or "."
    opt = {
        "phase": phase or "test",
        "meta_info_file": meta,
        "dataroot_target": root,
        "split_index": column or None,
    }
    if opt["phase"] not in ("train", "val", "test"):
        raise ValueError(f"{item}: the phase must be train, val or test, got {phase!r}")
    with quiet():
        dataset = LifeIQADataset(opt)
    dataset.phase = "test"  # whole images, whichever rows they are
    name = Path(meta).stem.removeprefix("meta_info_")
    references = _find_references(Path(root), [str(row[2]) for row in dataset.paths_mos])
    rows = [
        (row[0], row[1], found) for row, found in zip(dataset.paths_mos, references, strict=True)
    ]
    return LabelledDataset(name, root, _images(rows, root, dataset.meta_info, by), dataset)


def _from_options(name: str, opt: dict[str, Any], by: Sequence[str]) -> LabelledDataset:
    opt = {"phase": "test", **opt}
    if not Path(opt.get("meta_info_file", "")).is_file():
        raise FileNotFoundError(
            f"set {name}: {opt.get('meta_info_file')}: no such file; correct it with --data_opt"
        )
    with quiet():
        dataset = build_dataset(opt)
    if not dataset.paths_mos:
        raise ValueError(f"set {name}: no row of {opt['meta_info_file']} is {opt['phase']!r}")
    rows = []
    for row in dataset.paths_mos:
        paths = [str(value) for value in row[:2] if isinstance(value, str)]
        label = row[len(paths)]
        if not paths or not isinstance(label, int | float) or not np.isfinite(label):
            raise ValueError(
                f"set {name}: expected rows of image and score, got {row[:3]!r} from {opt['type']}"
            )
        rows.append(
            (paths[-1], _higher_better(float(label), opt), paths[0] if len(paths) > 1 else None)
        )
    return LabelledDataset(
        name,
        opt["dataroot_target"],
        _images(rows, opt["dataroot_target"], dataset.meta_info, by),
        dataset,
    )


def _higher_better(label: float, opt: dict[str, Any]) -> float:
    """Turn a label round on its own scale if it is worse when higher; ``dmos_max`` is how older files say so."""
    if opt.get("mos_normalize") or not opt.get("lower_better", "dmos_max" in opt):
        return label
    low, high = opt.get("mos_range", (0, opt.get("dmos_max", 0)))
    return float(low) + float(high) - label


def _images(
    rows: list[tuple[str, float, str | None]], root: str, meta: pd.DataFrame, by: Sequence[str]
) -> list[LabelledImage]:
    columns = [column for column in dict.fromkeys([*by, *GROUP_COLUMNS]) if column in meta]
    if missing := set(by) - set(columns):
        raise ValueError(
            f"--by {' '.join(sorted(missing))}: no such column; the csv has {list(meta)}"
        )
    values = {
        str(key): group
        for column in meta.columns[1::-1]
        for key, group in zip(meta[column], meta[columns].to_dict("records"), strict=True)
    }
    images = []
    for path, mos, reference in rows:
        name = Path(os.path.relpath(path, root)).as_posix()
        groups = {column: str(value) for column, value in values.get(name, {}).items()}
        images.append(LabelledImage(name, str(path), mos, reference, groups))
    return images


def _find_references(root: Path, names: list[str]) -> list[str | None]:
    """Find the file of each reference below the folder: by path, or by a name or stem that only one file has."""
    if not any(names):
        return [None] * len(names)
    files = defaultdict(set)
    for path in root.rglob("*"):
        if path.is_file():
            for key in (path.relative_to(root).as_posix(), path.name, path.stem):
                files[key.lower()].add(str(path))
    found = {name: sorted(files[name.lower()]) for name in set(names)}
    return [found[name][0] if len(found[name]) == 1 else None for name in names]


# ------------------------------------------------------------------------------------------------------------- reading


class _Guarded(Dataset[dict[str, Any]]):
    """Items of some images; one that cannot be read becomes an item with ``error``, so that the others are."""

    def __init__(self, chosen: LabelledDataset, rows: Sequence[int], with_references: bool) -> None:
        self.chosen, self.rows, self.with_references = chosen, rows, with_references

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int) -> dict[str, Any]:
        row = self.rows[key]
        try:
            item = self.chosen.dataset[row]
            tensors = [item["img"]]
            if self.with_references:
                tensors.append(item["ref_img"] if "ref_img" in item else self._reference(row))
        except Exception as error:
            return {"row": row, "error": first_line(error)}
        return {"row": row, "tensors": [tensor[None] for tensor in tensors]}

    def _reference(self, row: int) -> torch.Tensor:
        return read_image(self.chosen.images[row].reference or REFERENCE)


def read_items(
    chosen: LabelledDataset, rows: Sequence[int], with_references: bool, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """Decode images one by one, in the order of ``rows``.

    Yields:
        ``row`` and ``tensors``, a list of (1, 3, H, W) in [0, 1], the image and on request its reference; or ``row``
        and ``error``, one line, for a file that cannot be read.
    """
    guarded = _Guarded(chosen, rows, with_references)
    return iter(
        DataLoader(guarded, batch_size=None, num_workers=workers, generator=torch.Generator())
    )
