"""``lifeiqa prepare``: from a dataset as its authors distribute it to one csv with scores, references and splits.

The csv is in pyiqa's layout: image name and score first, split columns after. Scores are brought to [0, 1], higher is
better, whatever scale and direction the dataset was published with (``mos_raw`` keeps that), so that option files need
to know neither. Names and scores are always joined by name, never by their order in two files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from lifeiqa_plugin.datasets.readers import DATASETS, Row, Source, read_folder
from lifeiqa_plugin.datasets.table import MOS_STD, REFERENCE, USUAL, Columns
from lifeiqa_plugin.images import bursts
from lifeiqa_plugin.images.pixels import as_bytes
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.journal import write_whole

Floats = NDArray[np.float64]

SPLIT_SEED = 123

SPLIT_COLUMN = "ratio712_seed123_split_{:02d}"
"""70 % train, 10 % val, 20 % test; pyiqa finds it under ``split_ratio: '712'`` and a number as ``split_index``."""

VAL_SHARE = 0.1
"""Part of an official training split that is put aside as val, where the authors name none."""

PHASES = ("train", "val", "test", "near_duplicate")
"""What a split column may say; no phase reads the ``near_duplicate`` images."""


def prepare(
    name: str,
    root: Path,
    out: Path,
    scores: Path | None = None,
    mos_range: Sequence[float] | None = None,
    lower_better: bool = False,
    splits: int = 10,
    drop_near_duplicates: bool = False,
    skip_missing: bool = False,
    columns: Columns = USUAL,
    group: str | None = None,
    group_near_duplicates: bool = False,
) -> str:
    """Write the csv of a dataset and return a few lines about it.

    Args:
        name: key of ``DATASETS``.
        root: folder of the dataset.
        out: csv to write.
        scores: csv or xlsx of a ``folder``, default ``root/scores.csv`` or ``.xlsx``.
        mos_range: scale of a ``folder``, the lower end first; default the lowest and highest of its scores.
        lower_better: direction of a ``folder``.
        splits: number of seeded splits.
        drop_near_duplicates: call training images that nearly equal a test image ``near_duplicate`` in the
            official split, so that no phase uses them.
        skip_missing: leave out rows whose file is not there, instead of refusing them.
        columns: of the csv of a ``folder``.
        group: column of a ``folder`` whose values no seeded split separates, such as a camera or a video.
        group_near_duplicates: keep near-duplicates on one side of every seeded split.

    Raises:
        OSError: files are missing or cannot be decoded (all are tried, up to ten are named), no rights to write.
        ValueError: an unknown name, an option of another dataset, not the layout the dataset has, a score that is not
            a number or not on the scale, equal scores, fewer than 5 groups.
    """
    if name not in DATASETS:
        raise ValueError(
            f"no dataset is called {name!r}; known are {', '.join(sorted([*DATASETS, 'pairs']))}"
        )
    source = DATASETS[name]
    of_folder = {"scores": scores, "columns": columns, "group": group}
    if name != "folder":
        _check_options(name, of_folder | {"mos_range": mos_range, "lower_better": lower_better})
    _check_out(out, scores)
    if splits < 0:
        raise ValueError(f"--splits takes a number that is not below zero, got {splits}")
    if splits == 0 and (group or group_near_duplicates):
        raise ValueError("--group and --group-near-duplicates change nothing with --splits 0")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected that of the dataset")
    is_folder = name == "folder"
    listed = read_folder(root, scores, columns, group) if is_folder else source.read(root)
    _check_scores(listed)
    scale = _find_scale(listed, source, mos_range, lower_better)
    if drop_near_duplicates and not all(row.official for row in listed):
        raise ValueError(
            f"--drop-near-duplicates needs an official split to compare, {name} has none"
        )
    rows = _find_images(root, listed, skip_missing)
    table = _to_table(rows, scale)
    if drop_near_duplicates:
        table["official_split"] = mark_near_duplicates(root, rows, list(table["official_split"]))
    twins: list[int | None] = [None] * len(rows)
    if splits and (is_folder or group_near_duplicates):
        twins = bursts.group_near_duplicates(_fingerprints(root, rows))
    shared = split_groups(rows, twins if group_near_duplicates else [])
    for i in range(1, splits + 1):
        table[SPLIT_COLUMN.format(i)] = random_split(shared, i)
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as file:
        table.to_csv(file, index=False, quoting=csv.QUOTE_MINIMAL)
    lines = _describe(table, scale, out, len(listed) - len(rows))
    return "\n".join([*lines, *_describe_near_duplicates(table, twins, group_near_duplicates)])


class Scale(NamedTuple):
    """The ends of published scores, and which of them is good."""

    low: float
    high: float
    lower_better: bool

    def to_mos(self, raw: Floats) -> Floats:
        """Bring published scores to [0, 1], higher is better."""
        mos = (raw - self.low) / (self.high - self.low)
        return 1 - mos if self.lower_better else mos

    def __str__(self) -> str:
        worst, best = (self.high, self.low) if self.lower_better else (self.low, self.high)
        return f"{worst:g} {best:g}"


def _check_options(name: str, given: dict[str, Any]) -> None:
    """Refuse what only a ``folder`` takes."""
    for option, value in given.items():
        if value not in (None, False, USUAL):
            words = f"--{option.replace('_', '-')}"
            if option == "columns":
                words = "--mos-column or --name-column"
            raise ValueError(f"{words} describes folder, not {name}")


def _check_out(out: Path, scores: Path | None) -> None:
    if out.suffix.lower() != ".csv":
        raise ValueError(f"--out {out}: expected the name of a csv to write")
    if scores is not None and scores.resolve() == out.resolve():
        raise ValueError(f"--out {out}: this is what --scores reads; give another name")


def _check_scores(rows: list[Row]) -> None:
    if not rows:
        raise ValueError("expected a number for each image, got no rows")
    bad = [row for row in rows if not _is_number(row.mos)]
    if bad:
        raise ValueError(
            f"expected a number for each image, got {len(bad)} scores that are not numbers, "
            f"first {bad[0].mos!r} of {bad[0].name!r}"
        )
    if len({row.mos for row in rows}) == 1:
        raise ValueError(
            f"all {len(rows)} scores are {rows[0].mos:g}; nothing can be learned or measured there"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(np.isfinite(value))


def _find_scale(
    rows: list[Row], source: Source, mos_range: Sequence[float] | None, lower_better: bool
) -> Scale:
    """Return a scale that holds all scores.

    Raises:
        ValueError: the range does not rise, or scores lie outside.
    """
    lowest, highest = (float(end(row.mos for row in rows)) for end in (min, max))
    if source.low is None or source.high is None:
        low, high = mos_range or (lowest, highest)
        if not low < high:
            raise ValueError(
                f"--mos-range must rise, got {low:g} {high:g}; if lower scores are better, "
                "add --lower-better"
            )
    else:
        low, high, lower_better = source.low, source.high, source.lower_better
    if source.open_ended:
        low, high = min(low, lowest), max(high, highest)
    if lowest < low or highest > high:
        raise ValueError(
            f"scores go from {lowest:g} to {highest:g}, outside the scale {low:g} to {high:g}; "
            + ("correct --mos-range" if source.low is None else "this release is not known")
        )
    return Scale(low, high, lower_better)


def _find_images(root: Path, rows: list[Row], skip_missing: bool) -> list[Row]:
    """Decode every image; returns the rows with the names as they are on the disk, which may differ in case."""
    on_disk = {}
    for path in root.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(root))
            on_disk[name.lower()] = name
    found, problems = [], []
    for row in rows:
        known = on_disk.get(str(Path(row.name)).lower())
        if known is None and skip_missing:
            continue
        row = row._replace(name=known or row.name)
        found.append(row)
        try:
            decode(root / row.name)
        except ImageError as error:
            problems.append(str(error))
    if problems:
        listed = "; ".join(problems[:10])
        raise OSError(f"{len(problems)} of {len(rows)} images cannot be used: {listed}")
    return found


def _to_table(rows: list[Row], scale: Scale) -> pd.DataFrame:
    raw = np.array([row.mos for row in rows], dtype=float)
    table = pd.DataFrame({"name": [row.name for row in rows], "mos": scale.to_mos(raw).round(6)})
    table["mos_raw"], table["mos_range"] = raw, str(scale)
    for column in (REFERENCE, "subset"):
        values = [getattr(row, column) for row in rows]
        if any(values):
            table[column] = values
    for column in dict.fromkeys(column for row in rows for column in row.more):
        table[column] = [row.more.get(column, "") for row in rows]
    if MOS_STD in table:
        table[MOS_STD] = _rescale(table[MOS_STD], scale)
    if all(row.official for row in rows):
        table["official_split"] = official_split(rows)
    return table


def _rescale(deviations: pd.Series, scale: Scale) -> pd.Series:
    """Bring standard deviations of opinions to the scale of ``mos``; empty ones stay empty."""
    numbers = pd.to_numeric(deviations, errors="coerce")
    if (bad := deviations[(deviations != "") & numbers.isna()]).any():
        raise ValueError(f"column {MOS_STD!r}: expected numbers, got {bad.iloc[0]!r}")
    return (numbers / (scale.high - scale.low)).round(6)


def official_split(rows: list[Row]) -> list[str]:
    """Return the authors' split; where it has no val, a seeded tenth of train becomes val."""
    phases = np.array([row.official for row in rows], dtype=object)
    if "val" not in phases:
        train = np.flatnonzero(phases == "train")
        shuffled = np.random.default_rng(SPLIT_SEED).permutation(train)
        phases[shuffled[: max(1, round(VAL_SHARE * len(train)))]] = "val"
    return list(phases)


def mark_near_duplicates(root: Path, rows: list[Row], phases: list[str]) -> list[str]:
    """Return the phases, with ``near_duplicate`` for each image outside test that is one of an image in it."""
    prints, is_test = _fingerprints(root, rows), np.array(phases) == "test"
    is_near_duplicate = (prints @ prints[is_test].T).max(axis=1, initial=0) >= bursts.NEAR_DUPLICATE
    return list(np.where(is_near_duplicate & ~is_test, "near_duplicate", phases))


def _fingerprints(root: Path, rows: list[Row]) -> NDArray[np.float32]:
    images = (as_bytes(decode(root / row.name, at_least=64).pixels) for row in rows)
    grays = (bursts.to_gray(Image.fromarray(image)) for image in images)
    return np.stack([bursts.fingerprint(gray) for gray in grays])


def split_groups(rows: list[Row], twins: Sequence[int | None] = ()) -> list[str]:
    """Return what each row shares with those that belong on its side of every split, else its own name.

    Args:
        rows: which share a reference or a group.
        twins: number of the group of near-duplicates of each row, or None.
    """
    first: dict[tuple[str, object], int] = {}
    edges = []
    for i, row in enumerate(rows):
        twin = twins[i] if twins else None
        for key in (("reference", row.reference), ("group", row.group), ("twin", twin)):
            if key[1] not in ("", None):
                edges.append((first.setdefault(key, i), i))
    own = [row.reference or row.group or row.name for row in rows]
    names: dict[int | None, str] = {}
    groups = bursts.number_groups(edges, len(rows))
    return [
        name if group is None else names.setdefault(group, name)
        for group, name in zip(groups, own, strict=True)
    ]


def random_split(shared: list[str], index: int) -> list[str]:
    """Return train, val or test for each row, 7 : 1 : 2 of the groups.

    Args:
        shared: as :func:`split_groups` returns it.
        index: of the split, from 1 on.

    Raises:
        ValueError: fewer than 5 groups to split.
    """
    groups = sorted(set(shared))
    if len(groups) < 5:
        raise ValueError(
            f"a split into train, val and test needs at least 5 images or references, got {len(groups)}"
        )
    order = np.random.default_rng([SPLIT_SEED, index]).permutation(len(groups))
    tests, vals = max(1, round(0.2 * len(groups))), max(1, round(0.1 * len(groups)))
    phases = ["test"] * tests + ["val"] * vals
    phases += ["train"] * (len(groups) - len(phases))
    phase = {groups[place]: phases[i] for i, place in enumerate(order)}
    return [phase[group] for group in shared]


def _describe(table: pd.DataFrame, scale: Scale, out: Path, skipped: int) -> list[str]:
    direction = "lower" if scale.lower_better else "higher"
    lines = [
        f"{out}: {len(table)} images, scores {scale.low:g} to {scale.high:g} ({direction} better) -> 0 to 1",
        f"read:    {_spread(table['mos_raw'])}",
        f"written: {_spread(table['mos'])} (higher better)",
    ]
    if skipped:
        lines.append(f"{skipped} rows were left out: their files are not there")
    if REFERENCE in table:
        lines.append(
            f"{table[REFERENCE].nunique()} references; no split separates images that share one"
        )
    for column in [name for name in table if "split" in name][:2]:
        counts = table[column].value_counts()
        lines.append(f"{column}: " + ", ".join(f"{counts[p]} {p}" for p in PHASES if p in counts))
    return lines


def _describe_near_duplicates(
    table: pd.DataFrame, twins: list[int | None], are_grouped: bool
) -> list[str]:
    """Say how many images have a near-duplicate, and how many test images have one that is not in test."""
    count = sum(twin is not None for twin in twins)
    splits = [column for column in table if column.startswith("ratio712_seed123_split_")]
    if not count or not splits:
        return []
    across = []
    for column in splits:
        phases = list(zip(twins, table[column], strict=True))
        outside = {twin for twin, phase in phases if phase != "test"} - {None}
        across.append(sum(phase == "test" and twin in outside for twin, phase in phases))
    line = f"{count} images are near-duplicates of others; "
    if are_grouped or not max(across):
        return [f"{line}no split separates them"]
    return [
        f"{line}{min(across)} to {max(across)} test images of a split have one that is not in test: "
        "--group-near-duplicates keeps them together"
    ]


def _spread(values: pd.Series) -> str:
    return f"minimum {values.min():g}, median {values.median():g}, maximum {values.max():g}"
