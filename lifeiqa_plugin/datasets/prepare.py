"""``lifeiqa prepare``: from a dataset as its authors distribute it to one csv with scores, references and splits.

The csv is in pyiqa's layout: image name and score first, split columns after. Scores are brought to [0, 1], higher is
better, whatever scale and direction the dataset was published with (``mos_raw`` keeps that), so that option files need
to know neither. Names and scores are always joined by name, never by their order in two files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from lifeiqa_plugin.datasets.readers import SETS, Row, Source, read_folder
from lifeiqa_plugin.datasets.table import REFERENCE
from lifeiqa_plugin.images.near_duplicates import NEAR_DUPLICATE, fingerprint
from lifeiqa_plugin.images.pixels import as_bytes
from lifeiqa_plugin.images.reading import decode, read_image

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
) -> str:
    """Write the meta csv of a set and return a few lines about it.

    Args:
        name: key of ``SETS``.
        root: folder of the set.
        out: csv to write.
        scores: csv of a ``folder``, default ``root/scores.csv``.
        mos_range: scale of a ``folder``; default the lowest and highest of its scores.
        lower_better: direction of a ``folder``.
        splits: number of seeded splits.
        drop_near_duplicates: call training images that nearly equal a test image ``near_duplicate`` in the
            official split, so that no phase uses them.

    Raises:
        OSError: files are missing or cannot be decoded (all are tried, up to ten are named), no rights to write.
        ValueError: an unknown name, not the layout the set has, a score that is not a number, fewer than 5 groups.
    """
    if name not in SETS:
        raise ValueError(f"no set is called {name!r}; known are {', '.join(sorted(SETS))}")
    source = SETS[name]
    if name != "folder" and (scores or mos_range or lower_better):
        raise ValueError(
            f"--scores, --mos-range and --lower-better describe a 'folder'; {name} is known"
        )
    if name == "folder":
        rows = read_folder(scores or root / "scores.csv")
        source = source._replace(lower_better=lower_better)
    else:
        rows = source.read(root)
    _check_scores(rows)
    if name == "folder":
        low, high = mos_range or (min(r.mos for r in rows), max(r.mos for r in rows))
        source = source._replace(low=low, high=high)
    rows = [
        row._replace(name=file) for row, file in zip(rows, _check_images(root, rows), strict=True)
    ]
    table = _to_table(rows, source)
    if drop_near_duplicates:
        if "official_split" not in table:
            raise ValueError(
                f"--drop-near-duplicates needs an official split to compare, {name} has none"
            )
        table["official_split"] = mark_near_duplicates(root, rows, list(table["official_split"]))
    for i in range(1, splits + 1):
        table[SPLIT_COLUMN.format(i)] = random_split(rows, i)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False, quoting=csv.QUOTE_MINIMAL)
    return _describe(table, source, out)


def _check_scores(rows: list[Row]) -> None:
    bad = [
        row
        for row in rows
        if not isinstance(row.mos, int | float | np.number) or not np.isfinite(row.mos)
    ]
    if bad or not rows:
        found = (
            f"{len(bad)} scores that are not numbers, first {bad[0].mos!r} of {bad[0].name!r}"
            if bad
            else "no rows"
        )
        raise ValueError(f"expected a number for each image, got {found}")


def _check_images(root: Path, rows: list[Row]) -> list[str]:
    """Decode every image; returns the names as they are on the disk, which may differ in case."""
    on_disk = {
        str(p.relative_to(root)).lower(): str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file()
    }
    names, problems = [], []
    for row in rows:
        names.append(on_disk.get(str(Path(row.name)).lower(), row.name))
        try:
            read_image(root / names[-1])
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise OSError(
            f"{len(problems)} of {len(rows)} images cannot be used: " + "; ".join(problems[:10])
        )
    return names


def _to_table(rows: list[Row], source: Source) -> pd.DataFrame:
    raw = np.array([row.mos for row in rows], dtype=float)
    mos = (raw - source.low) / (source.high - source.low)
    table = pd.DataFrame(
        {"name": [r.name for r in rows], "mos": (1 - mos if source.lower_better else mos).round(6)}
    )
    table["mos_raw"] = raw
    if any(row.reference for row in rows):
        table[REFERENCE] = [row.reference for row in rows]
    if any(row.subset for row in rows):
        table["subset"] = [row.subset for row in rows]
    if all(row.official for row in rows):
        table["official_split"] = official_split(rows)
    return table


def official_split(rows: list[Row]) -> list[str]:
    """Return the authors' split; where it has no val, a seeded tenth of train becomes val."""
    phases = np.array([row.official for row in rows], dtype=object)
    if "val" not in phases:
        train = np.flatnonzero(phases == "train")
        chosen = np.random.default_rng(SPLIT_SEED).permutation(train)[
            : max(1, round(VAL_SHARE * len(train)))
        ]
        phases[chosen] = "val"
    return list(phases)


def mark_near_duplicates(root: Path, rows: list[Row], phases: list[str]) -> list[str]:
    """Return the phases, with ``near_duplicate`` for each image outside test that is one of an image in it."""
    prints = np.stack([_fingerprint(root / row.name) for row in rows])
    tests = prints[np.array(phases) == "test"]
    is_near_duplicate = (prints @ tests.T).max(axis=1, initial=0) >= NEAR_DUPLICATE
    return [
        "near_duplicate" if near_duplicate and phase != "test" else phase
        for near_duplicate, phase in zip(is_near_duplicate, phases, strict=True)
    ]


def _fingerprint(path: Path) -> NDArray[np.float32]:
    return fingerprint(Image.fromarray(as_bytes(decode(path, at_least=64).pixels)))


def random_split(rows: list[Row], index: int) -> list[str]:
    """Return train, val or test for each row, 7 : 1 : 2 of the references, or of the images where there are none.

    Raises:
        ValueError: fewer than 5 groups to split.
    """
    groups = sorted({row.reference or row.name for row in rows})
    if len(groups) < 5:
        raise ValueError(
            f"a split into train, val and test needs at least 5 images or references, got {len(groups)}"
        )
    order = np.random.default_rng([SPLIT_SEED, index]).permutation(len(groups))
    tests, vals = max(1, round(0.2 * len(groups))), max(1, round(0.1 * len(groups)))
    phase = {
        groups[g]: "test" if i < tests else "val" if i < tests + vals else "train"
        for i, g in enumerate(order)
    }
    return [phase[row.reference or row.name] for row in rows]


def _describe(table: pd.DataFrame, source: Source, out: Path) -> str:
    direction = "lower" if source.lower_better else "higher"
    lines = [
        f"{out}: {len(table)} images, scores {source.low:g} to {source.high:g} ({direction} better) -> 0 to 1"
    ]
    if REFERENCE in table:
        lines.append(
            f"{table[REFERENCE].nunique()} references; no split separates images that share one"
        )
    for column in [name for name in table if "split" in name][:2]:
        counts = table[column].value_counts()
        lines.append(f"{column}: " + ", ".join(f"{counts[p]} {p}" for p in PHASES if p in counts))
    return "\n".join(lines)
