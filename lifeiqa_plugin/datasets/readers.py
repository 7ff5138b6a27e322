"""One reader for each public dataset: from its files as its authors distribute them to rows of name and score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lifeiqa_plugin.datasets.table import REFERENCE


class Row(NamedTuple):
    """One image: its path below the set's folder, score as published, and what else is known of it.

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


def _find(root: Path, *names: str) -> Path:
    """Return the first of the files that exists.

    Raises:
        FileNotFoundError: none does; says what the folder holds instead.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    held = (
        ", ".join(sorted(p.name for p in root.iterdir())[:8]) if root.is_dir() else "no such folder"
    )
    raise FileNotFoundError(f"{root}: expected {' or '.join(names)}; found {held}")


def _table(path: Path) -> pd.DataFrame:
    """Read a csv or xlsx, and drop columns that have neither name nor content."""
    if path.suffix == ".csv":
        table = pd.read_csv(path, skipinitialspace=True)
    else:
        try:
            table = pd.read_excel(path)
        except ImportError as error:
            raise ValueError(
                f"{path}: reading xlsx needs pip install openpyxl, or save the sheet as csv"
            ) from error
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
        raise ValueError(
            f"{path}: expected a variable {name}, got {[key for key in content if key[0] != '_']}"
        )
    return [value.item() if hasattr(value, "item") else value for value in np.ravel(content[name])]


def read_folder(scores: Path) -> list[Row]:
    """Your own csv ``name,mos[,reference][,subset]``."""
    table = _table(_find(scores.parent, scores.name))
    names, mos = _column(table, scores, "name"), _column(table, scores, "mos")
    references, subsets = (
        _column(table, scores, name) if name in table else [""] * len(table)
        for name in (REFERENCE, "subset")
    )
    rows = zip(names, mos, references, subsets, strict=True)
    return [Row(str(n), m, str(r), subset=str(part)) for n, m, r, part in rows]


def read_biq2021(root: Path) -> list[Row]:
    """Two csv files, the official split; one image's name differs in case from its file's."""
    rows = []
    for part in ("Train", "Test"):
        path = _find(root, f"{part} (Images and MOS).csv")
        table = _table(path)
        names, mos = _column(table, path, "Image Name"), _column(table, path, "MOS")
        rows += [
            Row(f"Images/{n}", m, "", part.lower(), n[:4].lower())
            for n, m in zip(names, mos, strict=True)
        ]
    return rows


def read_livec(root: Path) -> list[Row]:
    """LIVE in the Wild Challenge; the first seven images (t1 to t7) only taught the raters and are left out."""
    names = _mat(_find(root, "Data/AllImages_release.mat"), "AllImages_release")
    mos = _mat(_find(root, "Data/AllMOS_release.mat"), "AllMOS_release")
    rows = [Row(f"Images/{n}", m) for n, m in zip(names, mos, strict=True)]
    if any((root / "Images/trainingImages" / Path(row.name).name).is_file() for row in rows[7:]):
        raise ValueError(
            f"{root}: practice images are listed after the first seven rows; this release is not known"
        )
    return rows[7:]


def read_koniq10k(root: Path) -> list[Row]:
    """MOS on 0 .. 100; in the file without official sets that is ``MOS_zscore``, and ``MOS`` is on 1 .. 5."""
    path = _find(root, "koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
    table = _table(path)
    names, mos = _column(table, path, "image_name"), _column(table, path, "MOS_zscore", "MOS")
    sets = _column(table, path, "set") if "set" in table else [""] * len(table)
    official = {"training": "train", "validation": "val", "test": "test", "": ""}
    folder = next((f for f in ("1024x768", "512x384") if (root / f).is_dir()), "1024x768")
    return [
        Row(f"{folder}/{n}", m, "", official[s]) for n, m, s in zip(names, mos, sets, strict=True)
    ]


def read_kadid10k(root: Path) -> list[Row]:
    """The column is called dmos, yet higher is better."""
    path = _find(root, "dmos.csv")
    table = _table(path)
    columns = (_column(table, path, name) for name in ("dist_img", "dmos", "ref_img"))
    return [
        Row(f"images/{n}", m, str(r), subset=f"type {n[4:6]}")
        for n, m, r in zip(*columns, strict=True)
    ]


def read_spaq(root: Path) -> list[Row]:
    """Smartphone images; MOS only, the attribute scores are left out."""
    path = _find(
        root, *(f"Annotations/MOS and Image attribute scores.{end}" for end in ("csv", "xlsx"))
    )
    table = _table(path)
    names, mos = _column(table, path, "Image name"), _column(table, path, "MOS")
    return [Row(f"TestImage/{n}", m) for n, m in zip(names, mos, strict=True)]


def read_tid2013(root: Path) -> list[Row]:
    """Lines of ``score name``; the reference is the number after the I, and some names differ in case."""
    path = _find(root, "mos_with_names.txt")
    pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Row(f"distorted_images/{name}", float(mos), name[:3].lower(), subset=f"type {name[4:6]}")
        for mos, name in pairs
    ]


def read_csiq(root: Path) -> list[Row]:
    """Joined by image, distortion and level: the sheet's rows, the folders and the usual listings differ in order."""
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
        rows.append(
            Row(
                f"dst_imgs/{folder}/{image}.{word}.{int(level)}.png",
                dmos,
                str(image),
                subset=str(kind),
            )
        )
    return rows


def _csiq_sheet(path: Path) -> pd.DataFrame:
    """Return the sheet ``all_by_image``, whose table stands below some lines of explanation."""
    try:
        cells = pd.read_excel(path, sheet_name="all_by_image", header=None)
    except ImportError as error:
        raise ValueError(
            f"{path}: reading xlsx needs pip install openpyxl; or save all_by_image as csv"
        ) from error
    is_header = (cells == "dst_type").any(axis=1)
    if not is_header.any():
        raise ValueError(
            f"{path}: the sheet all_by_image has no line with dst_type, the names of its columns"
        )
    top = int(is_header.argmax())
    return cells[top + 1 :].set_axis(cells.loc[top].tolist(), axis=1).dropna(how="all")


def read_live(root: Path) -> list[Row]:
    """LIVE release 2: five folders one after the other; ``orgs`` marks the copies of references, which are left out."""
    path = _find(root, "dmos_realigned.mat", "dmos.mat")
    dmos, orgs = _mat(path, "dmos_new" if "realigned" in path.name else "dmos"), _mat(path, "orgs")
    references = _mat(_find(root, "refnames_all.mat"), "refnames_all")
    counts = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
    names = [
        f"{folder}/img{i}.bmp" for folder, count in counts.items() for i in range(1, count + 1)
    ]
    rows = zip(names, dmos, references, orgs, strict=True)
    return [Row(n, m, r, subset=n.split("/")[0]) for n, m, r, copy in rows if not copy]


def read_flive(root: Path) -> list[Row]:
    """FLIVE (PaQ-2-PiQ), whole images only, not the patches.

    The authors test on the images larger than 640 pixels, which one list names, and validate on those that another
    marks as ``is_valid``; the lists' file names hold a sign that not every system keeps.
    """
    path = _find(root, "database/labels_image.csv")
    large = _find(root, "database/labels>640.csv", "database/labels640.csv")
    small = _find(root, "database/labels<=640_padded.csv", "database/labels=640_padded.csv")
    table, listed = _table(path), _table(small)
    test = set(_column(_table(large), large, "name_image"))
    is_valid = zip(
        _column(listed, small, "name_image"), _column(listed, small, "is_valid"), strict=True
    )
    val = {name for name, valid in is_valid if valid}
    rows = zip(
        _column(table, path, "name", "name_image"),
        _column(table, path, "mos", "mos_image"),
        strict=True,
    )
    return [
        Row(
            f"database/{name}",
            mos,
            "",
            "test" if name in test else "val" if name in val else "train",
        )
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
