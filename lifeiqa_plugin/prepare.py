"""``lifeiqa prepare``: from a set as its authors distribute it to one csv with scores, references and splits.

The csv is in pyiqa's layout: picture name and score first, split columns after. Scores are brought to [0, 1], higher is
better, whatever scale and direction the set was published with (``mos_raw`` keeps that), so that option files need to
know neither. Names and scores are always joined by name, never by their order in two files.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from lifeiqa_plugin.data import REFERENCE, open_picture, read_picture

SPLIT_SEED = 123
SPLIT_COLUMN = "ratio712_seed123_split_{:02d}"
"""70 % train, 10 % val, 20 % test; pyiqa finds it under ``split_ratio: '712'`` and a number as ``split_index``."""
VAL_SHARE = 0.1
"""Part of an official training split that is put aside as val, where the authors name none."""


PHASES = ("train", "val", "test", "twin")
"""What a split column may say; no phase reads the ``twin`` pictures."""
TWIN = 0.97
"""Correlation of two pictures at 32 x 32 gray values from which on they count as near-twins."""


class Row(NamedTuple):
    """One picture: its path below the set's folder, score as published, and what else is known of it.

    ``subset`` is a distortion or a source; 'lifeiqa benchmark' has rows of its own for each.
    """

    name: str
    mos: float
    reference: str = ""
    official: str = ""
    subset: str = ""


class Source(NamedTuple):
    """How a set is read, and the scale that its scores were published on."""

    read: Callable[[Path], list[Row]]
    low: float
    high: float
    lower_better: bool = False


# --------------------------------------------------------------------------------------------------- reading the sets


def _find(root: Path, *names: str) -> Path:
    """Return the first of the files that exists.

    Raises:
        FileNotFoundError: none does; says what the folder holds instead.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    held = ", ".join(sorted(p.name for p in root.iterdir())[:8]) if root.is_dir() else "no such folder"
    raise FileNotFoundError(f"{root}: expected {' or '.join(names)}; found {held}")


def _table(path: Path) -> pd.DataFrame:
    """Read a csv or xlsx, and drop columns that have neither name nor content."""
    if path.suffix == ".csv":
        table = pd.read_csv(path, skipinitialspace=True)
    else:
        try:
            table = pd.read_excel(path)
        except ImportError as error:
            raise ValueError(f"{path}: reading xlsx needs pip install openpyxl, or save the sheet as csv") from error
    return table.loc[:, [not str(name).startswith("Unnamed") for name in table]]


def _column(table: pd.DataFrame, path: Path, *names: str) -> list[Any]:
    """Return the first of the columns that exists, whatever the case of its name.

    Raises:
        ValueError: none does.
    """
    known = {str(name).strip().lower(): name for name in table}
    for name in names:
        if name.lower() in known:
            return list(table[known[name.lower()]])
    raise ValueError(f"{path}: expected a column {' or '.join(names)}, got {list(table)}")


def _mat(path: Path, name: str) -> list[Any]:
    """Return one variable of a Matlab file as a flat list; cells of text become str."""
    from scipy.io import loadmat

    content = loadmat(path, squeeze_me=True)
    if name not in content:
        raise ValueError(f"{path}: expected a variable {name}, got {[key for key in content if key[0] != '_']}")
    return [value.item() if hasattr(value, "item") else value for value in np.ravel(content[name])]


def read_folder(scores: Path) -> list[Row]:
    """Your own csv ``name,mos[,reference][,subset]``."""
    table = _table(_find(scores.parent, scores.name))
    names, mos = _column(table, scores, "name"), _column(table, scores, "mos")
    references, subsets = (
        _column(table, scores, name) if name in table else [""] * len(table) for name in (REFERENCE, "subset")
    )
    rows = zip(names, mos, references, subsets, strict=True)
    return [Row(str(n), m, str(r), subset=str(part)) for n, m, r, part in rows]


def read_biq2021(root: Path) -> list[Row]:
    """Two csv files, the official split; one picture's name differs in case from its file's."""
    rows = []
    for part in ("Train", "Test"):
        path = _find(root, f"{part} (Images and MOS).csv")
        table = _table(path)
        names, mos = _column(table, path, "Image Name"), _column(table, path, "MOS")
        rows += [Row(f"Images/{n}", m, "", part.lower(), n[:4].lower()) for n, m in zip(names, mos, strict=True)]
    return rows


def read_livec(root: Path) -> list[Row]:
    """LIVE in the Wild Challenge; the first seven pictures (t1 to t7) only taught the raters and are left out."""
    names = _mat(_find(root, "Data/AllImages_release.mat"), "AllImages_release")
    mos = _mat(_find(root, "Data/AllMOS_release.mat"), "AllMOS_release")
    rows = [Row(f"Images/{n}", m) for n, m in zip(names, mos, strict=True)]
    if any((root / "Images/trainingImages" / Path(row.name).name).is_file() for row in rows[7:]):
        raise ValueError(f"{root}: practice pictures are listed after the first seven rows; this release is not known")
    return rows[7:]


def read_koniq10k(root: Path) -> list[Row]:
    """MOS on 0 .. 100; in the file without official sets that is ``MOS_zscore``, and ``MOS`` is on 1 .. 5."""
    path = _find(root, "koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
    table = _table(path)
    names, mos = _column(table, path, "image_name"), _column(table, path, "MOS_zscore", "MOS")
    sets = _column(table, path, "set") if "set" in table else [""] * len(table)
    official = {"training": "train", "validation": "val", "test": "test", "": ""}
    folder = next((f for f in ("1024x768", "512x384") if (root / f).is_dir()), "1024x768")
    return [Row(f"{folder}/{n}", m, "", official[s]) for n, m, s in zip(names, mos, sets, strict=True)]


def read_kadid10k(root: Path) -> list[Row]:
    """The column is called dmos, yet higher is better."""
    path = _find(root, "dmos.csv")
    table = _table(path)
    columns = (_column(table, path, name) for name in ("dist_img", "dmos", "ref_img"))
    return [Row(f"images/{n}", m, str(r), subset=f"type {n[4:6]}") for n, m, r in zip(*columns, strict=True)]


def read_spaq(root: Path) -> list[Row]:
    """Smartphone pictures; MOS only, the attribute scores are left out."""
    path = _find(root, *(f"Annotations/MOS and Image attribute scores.{end}" for end in ("csv", "xlsx")))
    table = _table(path)
    names, mos = _column(table, path, "Image name"), _column(table, path, "MOS")
    return [Row(f"TestImage/{n}", m) for n, m in zip(names, mos, strict=True)]


def read_tid2013(root: Path) -> list[Row]:
    """Lines of ``score name``; the reference is the number after the I, and some names differ in case."""
    path = _find(root, "mos_with_names.txt")
    pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Row(f"distorted_images/{name}", float(mos), name[:3].lower(), subset=f"type {name[4:6]}") for mos, name in pairs
    ]


def read_csiq(root: Path) -> list[Row]:
    """Joined by picture, distortion and level: the sheet's rows, the folders and the usual listings differ in order."""
    path = _find(root, "csiq.DMOS.csv", "csiq.DMOS.xlsx")
    table = _table(path) if path.suffix == ".csv" else _csiq_sheet(path)
    columns = [_column(table, path, name) for name in ("image", "dst_type", "dst_lev", "dmos")]
    kinds = {
        "noise": ("awgn", "AWGN"), "blur": ("blur", "BLUR"), "contrast": ("contrast", "contrast"),
        "fnoise": ("fnoise", "fnoise"), "jpeg": ("jpeg", "JPEG"), "jpeg 2000": ("jpeg2000", "jpeg2000"),
    }  # fmt: skip
    rows = []
    for image, kind, level, dmos in zip(*columns, strict=True):
        folder, word = kinds[str(kind).lower()]
        rows.append(Row(f"dst_imgs/{folder}/{image}.{word}.{int(level)}.png", dmos, str(image), subset=str(kind)))
    return rows


def _csiq_sheet(path: Path) -> pd.DataFrame:
    """Return the sheet ``all_by_image``, whose table stands below some lines of explanation."""
    try:
        cells = pd.read_excel(path, sheet_name="all_by_image", header=None)
    except ImportError as error:
        raise ValueError(f"{path}: reading xlsx needs pip install openpyxl; or save all_by_image as csv") from error
    is_header = (cells == "dst_type").any(axis=1)
    if not is_header.any():
        raise ValueError(f"{path}: the sheet all_by_image has no line with dst_type, the names of its columns")
    top = int(is_header.argmax())
    return cells[top + 1 :].set_axis(cells.loc[top].tolist(), axis=1).dropna(how="all")


def read_live(root: Path) -> list[Row]:
    """LIVE release 2: five folders one after the other; ``orgs`` marks the copies of references, which are left out."""
    path = _find(root, "dmos_realigned.mat", "dmos.mat")
    dmos, orgs = _mat(path, "dmos_new" if "realigned" in path.name else "dmos"), _mat(path, "orgs")
    references = _mat(_find(root, "refnames_all.mat"), "refnames_all")
    counts = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
    names = [f"{folder}/img{i}.bmp" for folder, count in counts.items() for i in range(1, count + 1)]
    rows = zip(names, dmos, references, orgs, strict=True)
    return [Row(n, m, r, subset=n.split("/")[0]) for n, m, r, copy in rows if not copy]


def read_flive(root: Path) -> list[Row]:
    """FLIVE (PaQ-2-PiQ), whole pictures only, not the patches.

    The authors test on the pictures larger than 640 pixels, which one list names, and validate on those that another
    marks as ``is_valid``; the lists' file names hold a sign that not every system keeps.
    """
    path = _find(root, "database/labels_image.csv")
    large = _find(root, "database/labels>640.csv", "database/labels640.csv")
    small = _find(root, "database/labels<=640_padded.csv", "database/labels=640_padded.csv")
    table, listed = _table(path), _table(small)
    test = set(_column(_table(large), large, "name_image"))
    is_valid = zip(_column(listed, small, "name_image"), _column(listed, small, "is_valid"), strict=True)
    val = {name for name, valid in is_valid if valid}
    rows = zip(_column(table, path, "name", "name_image"), _column(table, path, "mos", "mos_image"), strict=True)
    return [
        Row(f"database/{name}", mos, "", "test" if name in test else "val" if name in val else "train")
        for name, mos in rows
    ]


SETS: dict[str, Source] = {
    "folder": Source(read_folder, 0, 1),
    "biq2021": Source(read_biq2021, 0, 1),
    "livec": Source(read_livec, 0, 100),
    "koniq10k": Source(read_koniq10k, 0, 100),
    "kadid10k": Source(read_kadid10k, 1, 5),
    "spaq": Source(read_spaq, 0, 100),
    "csiq": Source(read_csiq, 0, 1, lower_better=True),
    "tid2013": Source(read_tid2013, 0, 9),
    "live": Source(read_live, 0, 100, lower_better=True),
    "flive": Source(read_flive, 0, 100),
}


# ------------------------------------------------------------------------------------------------------------ preparing


def prepare(
    name: str,
    root: Path,
    out: Path,
    scores: Path | None = None,
    mos_range: Sequence[float] | None = None,
    lower_better: bool = False,
    splits: int = 10,
    drop_twins: bool = False,
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
        drop_twins: call training pictures ``twin`` in the official split, so that no phase uses them, if they nearly
            equal a test picture.

    Raises:
        OSError: files are missing or cannot be decoded (all are tried, up to ten are named), no rights to write.
        ValueError: an unknown name, not the layout the set has, a score that is not a number, fewer than 5 groups.
    """
    if name not in SETS:
        raise ValueError(f"no set is called {name!r}; known are {', '.join(sorted(SETS))}")
    source = SETS[name]
    if name != "folder" and (scores or mos_range or lower_better):
        raise ValueError(f"--scores, --mos-range and --lower-better describe a 'folder'; {name} is known")
    if name == "folder":
        rows = read_folder(scores or root / "scores.csv")
        source = source._replace(lower_better=lower_better)
    else:
        rows = source.read(root)
    _check_scores(rows)
    if name == "folder":
        low, high = mos_range or (min(r.mos for r in rows), max(r.mos for r in rows))
        source = source._replace(low=low, high=high)
    rows = [row._replace(name=file) for row, file in zip(rows, _check_pictures(root, rows), strict=True)]
    table = _to_table(rows, source)
    if drop_twins:
        if "official_split" not in table:
            raise ValueError(f"--drop-twins needs an official split to compare, {name} has none")
        table["official_split"] = mark_twins(root, rows, list(table["official_split"]))
    for i in range(1, splits + 1):
        table[SPLIT_COLUMN.format(i)] = random_split(rows, i)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False, quoting=csv.QUOTE_MINIMAL)
    return _describe(table, source, out)


def _check_scores(rows: list[Row]) -> None:
    bad = [row for row in rows if not isinstance(row.mos, int | float | np.number) or not np.isfinite(row.mos)]
    if bad or not rows:
        found = f"{len(bad)} scores that are not numbers, first {bad[0].mos!r} of {bad[0].name!r}" if bad else "no rows"
        raise ValueError(f"expected a number for each picture, got {found}")


def _check_pictures(root: Path, rows: list[Row]) -> list[str]:
    """Decode every picture; returns the names as they are on the disk, which may differ in case."""
    on_disk = {str(p.relative_to(root)).lower(): str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    names, problems = [], []
    for row in rows:
        names.append(on_disk.get(str(Path(row.name)).lower(), row.name))
        try:
            read_picture(root / names[-1])
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise OSError(f"{len(problems)} of {len(rows)} pictures cannot be used: " + "; ".join(problems[:10]))
    return names


def _to_table(rows: list[Row], source: Source) -> pd.DataFrame:
    raw = np.array([row.mos for row in rows], dtype=float)
    mos = (raw - source.low) / (source.high - source.low)
    table = pd.DataFrame({"name": [r.name for r in rows], "mos": (1 - mos if source.lower_better else mos).round(6)})
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
        chosen = np.random.default_rng(SPLIT_SEED).permutation(train)[: max(1, round(VAL_SHARE * len(train)))]
        phases[chosen] = "val"
    return list(phases)


def mark_twins(root: Path, rows: list[Row], phases: list[str]) -> list[str]:
    """Return the phases with ``twin`` for each picture outside test that correlates above ``TWIN`` with one in it."""
    prints = np.stack([_fingerprint(root / row.name) for row in rows])
    tests = prints[np.array(phases) == "test"]
    is_twin = (prints @ tests.T).max(axis=1, initial=0) >= TWIN
    return ["twin" if twin and phase != "test" else phase for twin, phase in zip(is_twin, phases, strict=True)]


def _fingerprint(path: Path) -> np.ndarray:
    """Return a picture as 32 x 32 gray values of zero mean and unit length, (1024,)."""
    with open_picture(path) as picture:
        picture.draft("L", (64, 64))
        small = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()
    centred: np.ndarray = small - small.mean()
    centred /= max(float(np.linalg.norm(centred)), 1e-6)
    return centred


def random_split(rows: list[Row], index: int) -> list[str]:
    """Return train, val or test for each row, 7 : 1 : 2 of the references, or of the pictures where there are none.

    Raises:
        ValueError: fewer than 5 groups to split.
    """
    groups = sorted({row.reference or row.name for row in rows})
    if len(groups) < 5:
        raise ValueError(f"a split into train, val and test needs at least 5 pictures or references, got {len(groups)}")
    order = np.random.default_rng([SPLIT_SEED, index]).permutation(len(groups))
    tests, vals = max(1, round(0.2 * len(groups))), max(1, round(0.1 * len(groups)))
    phase = {groups[g]: "test" if i < tests else "val" if i < tests + vals else "train" for i, g in enumerate(order)}
    return [phase[row.reference or row.name] for row in rows]


def _describe(table: pd.DataFrame, source: Source, out: Path) -> str:
    direction = "lower" if source.lower_better else "higher"
    lines = [f"{out}: {len(table)} pictures, scores {source.low:g} to {source.high:g} ({direction} better) -> 0 to 1"]
    if REFERENCE in table:
        lines.append(f"{table[REFERENCE].nunique()} references; no split separates pictures that share one")
    for column in [name for name in table if "split" in name][:2]:
        counts = table[column].value_counts()
        lines.append(f"{column}: " + ", ".join(f"{counts[p]} {p}" for p in PHASES if p in counts))
    return "\n".join(lines)
