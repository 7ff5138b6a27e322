"""One reader for each public dataset: from its files as its authors distribute them to rows of name and score."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lifeiqa_plugin.datasets.table import (
    MOS_STD,
    REFERENCE,
    USUAL,
    VOTES,
    Columns,
    find_column,
    find_name_and_mos,
    number,
)

RESERVED = ("name", "mos", "mos_raw", "mos_range", "official_split")
"""Columns that prepare writes."""

LIVEC_VOTES = "175"
"""Opinions of each image of LIVE Challenge; its authors tell only their mean."""


class Row(NamedTuple):
    """One image: its path below the dataset's folder, score as published, and what else is known of it.

    Attributes:
        name: path below the folder.
        mos: as published.
        reference: the pristine image behind this one.
        official: train, val or test, in the authors' split.
        subset: a distortion or a source; 'lifeiqa benchmark' has table rows of its own for each.
        group: what images share that must not be on two sides of a split, where that is no reference.
        more: further columns.
    """

    name: str
    mos: Any
    reference: str = ""
    official: str = ""
    subset: str = ""
    group: str = ""
    more: Mapping[str, str] = MappingProxyType({})


class Source(NamedTuple):
    """How a dataset is read, and the scale that its scores were published on.

    Attributes:
        read: from the folder to rows.
        low: end of the scale; None if only the user knows it.
        high: the other end.
        lower_better: scores are worse when higher.
        open_ended: published scores pass the ends of their scale, which is then widened to hold them.
    """

    read: Callable[[Path], list[Row]]
    low: float | None = None
    high: float | None = None
    lower_better: bool = False
    open_ended: bool = False


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
    csv = path.suffix == ".csv"
    table = pd.read_csv(path, skipinitialspace=True) if csv else _sheet(path)
    return table.loc[:, [not str(name).startswith("Unnamed") for name in table]]


def _sheet(path: Path, name: str = "", **how: Any) -> pd.DataFrame:
    try:
        return pd.read_excel(path, sheet_name=name or 0, **how)
    except ImportError as error:
        wanted = name or "the sheet"
        raise ValueError(
            f"{path}: reading xlsx needs pip install openpyxl, or save {wanted} as csv"
        ) from error


def _values(
    path: Path, *columns: str | tuple[str, ...], table: pd.DataFrame | None = None
) -> Iterator[tuple[Any, ...]]:
    """Return what each row of a file has in these columns, each given by the names that it may have, in any case.

    Raises:
        ValueError: one is not there.
    """
    table = _table(path) if table is None else table
    names = [(column,) if isinstance(column, str) else column for column in columns]
    return zip(*(table[find_column(path, table, *each)] for each in names), strict=True)


def _mat(path: Path, name: str) -> list[Any]:
    """Return one variable of a Matlab file as a flat list; cells of text become str."""
    from scipy.io import loadmat

    content = loadmat(path, squeeze_me=True)
    if name not in content:
        raise ValueError(
            f"{path}: expected a variable {name}, got {[key for key in content if key[0] != '_']}"
        )
    return [value.item() if hasattr(value, "item") else value for value in np.ravel(content[name])]


def read_folder(
    root: Path, scores: Path | None = None, columns: Columns = USUAL, group: str | None = None
) -> list[Row]:
    """Your own csv or xlsx ``name,mos[,reference][,subset]``; further columns are kept as they are.

    Rows with the same value in the column ``group`` stay on one side of every seeded split.
    """
    path = _find(*((scores.parent, scores.name) if scores else (root, "scores.csv", "scores.xlsx")))
    table = _text_table(path)
    name, mos = find_name_and_mos(path, table, columns)
    others = [column for column in table if column not in (name, mos, REFERENCE, "subset")]
    if reserved := [column for column in others if column in RESERVED or "_seed123_" in column]:
        raise ValueError(f"{path}: column {reserved[0]!r} is one that prepare writes; rename it")
    if group is not None:
        group = find_column(path, table, group)
    rows = []
    for _, values in table.iterrows():
        more = {column: values[column] for column in others}
        reference, subset = values.get(REFERENCE, ""), values.get("subset", "")
        shared = values[group] if group else ""
        rows.append(Row(values[name], number(values[mos]), reference, "", subset, shared, more))
    return rows


def _text_table(path: Path) -> pd.DataFrame:
    """Read a csv or xlsx as it is written: a name such as 007 is no number."""
    as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False}
    if path.suffix.lower() == ".xlsx":
        return _sheet(path, **as_text)
    return pd.read_csv(path, skipinitialspace=True, **as_text)


def read_biq2021(root: Path) -> list[Row]:
    """Two csv files, the official split; one image's name differs in case from its file's.

    ``bundled_split`` says which images the bundled models learnt from, were chosen on, never saw, and which were left
    out as near-duplicates of test images.
    """
    listed = _shipped("biq2021_bundled_split.csv", "bundled_split")
    rows = []
    for part in ("train", "test"):
        path = _find(root, f"{part.capitalize()} (Images and MOS).csv")
        for name, score in _values(path, "Image Name", "MOS"):
            more = {"bundled_split": listed.get(_stem(name), part)}
            rows.append(Row(f"Images/{name}", score, "", part, name[:4].lower(), more=more))
    return rows


def read_livec(root: Path) -> list[Row]:
    """LIVE in the Wild Challenge; the first seven images (t1 to t7) only taught the raters and are left out.

    ``half``, A or B, is that of the bundled models, and ``half_split`` has A as train and B as test. ``bundled_split``
    is train for all: the bundled ``lifeiqa`` learnt from each of them.
    """
    names = _mat(_find(root, "Data/AllImages_release.mat"), "AllImages_release")
    mos = _mat(_find(root, "Data/AllMOS_release.mat"), "AllMOS_release")
    rows = [Row(f"Images/{n}", m) for n, m in zip(names, mos, strict=True)]
    if (root / "Data/AllStdDev_release.mat").is_file():
        std = _mat(root / "Data/AllStdDev_release.mat", "AllStdDev_release")
        opinions = [{MOS_STD: str(value), VOTES: LIVEC_VOTES} for value in std]
        rows = [row._replace(more=more) for row, more in zip(rows, opinions, strict=True)]
    if any((root / "Images/trainingImages" / Path(row.name).name).is_file() for row in rows[7:]):
        raise ValueError(
            f"{root}: practice images are listed after the first seven rows; this release is not known"
        )
    rows = rows[7:]
    half = _shipped("livec_halves.csv", "half")
    split = {image: {"A": "train", "B": "test"}.get(letter, "") for image, letter in half.items()}
    columns = {"half": half, "half_split": split}
    return [
        row._replace(
            more=dict(row.more)
            | {name: of.get(_stem(row.name), "") for name, of in columns.items()}
            | {"bundled_split": "train"}
        )
        for row in rows
    ]


def _shipped(file: str, column: str) -> dict[str, str]:
    """Return a column of a list in this package, by the images' names."""
    with as_file(files(__package__) / file) as path:
        table = _text_table(path)
    return dict(zip(map(_stem, table["name"]), table[column], strict=True))


def _stem(name: str) -> str:
    return Path(name).stem.lower()


def read_koniq10k(root: Path) -> list[Row]:
    """MOS on 0 .. 100; in the file without official sets that is ``MOS_zscore``, and ``MOS`` is on 1 .. 5."""
    path = _find(root, "koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
    table = _table(path)
    if "set" not in table:
        table = table.assign(set="")
    rows = _values(path, "image_name", ("MOS_zscore", "MOS"), "set", table=table)
    official = {"training": "train", "validation": "val", "test": "test", "": ""}
    folder = next((f for f in ("1024x768", "512x384") if (root / f).is_dir()), "1024x768")
    return [Row(f"{folder}/{name}", mos, "", official[part]) for name, mos, part in rows]


def read_kadid10k(root: Path) -> list[Row]:
    """The column is called dmos, yet higher is better."""
    rows = _values(_find(root, "dmos.csv"), "dist_img", "dmos", "ref_img")
    return [Row(f"images/{n}", m, str(r), subset=f"type {n[4:6]}") for n, m, r in rows]


def read_spaq(root: Path) -> list[Row]:
    """Smartphone images; MOS only, the attribute scores are left out."""
    stem = "Annotations/MOS and Image attribute scores"
    path = _find(root, f"{stem}.csv", f"{stem}.xlsx")
    return [Row(f"TestImage/{name}", mos) for name, mos in _values(path, "Image name", "MOS")]


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
    words = {"noise": "AWGN", "blur": "BLUR", "jpeg": "JPEG", "jpeg 2000": "jpeg2000"}
    words |= {"contrast": "contrast", "fnoise": "fnoise"}
    rows = []
    for image, kind, level, dmos in _values(
        path, "image", "dst_type", "dst_lev", "dmos", table=table
    ):
        word = words[str(kind).lower()]
        name = f"dst_imgs/{word.lower()}/{image}.{word}.{int(level)}.png"
        rows.append(Row(name, dmos, str(image), subset=str(kind)))
    return rows


def _csiq_sheet(path: Path) -> pd.DataFrame:
    """Return the sheet ``all_by_image``, whose table stands below some lines of explanation."""
    cells = _sheet(path, "all_by_image", header=None)
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
    phases = {
        name: "val" for name, is_valid in _values(small, "name_image", "is_valid") if is_valid
    }
    phases |= {name: "test" for (name,) in _values(large, "name_image")}
    rows = _values(path, ("name", "name_image"), ("mos", "mos_image"))
    return [Row(f"database/{name}", mos, "", phases.get(name, "train")) for name, mos in rows]


def read_agiqa3k(root: Path) -> list[Row]:
    """AGIQA-3K: AI images; the scores of quality, not of alignment; images of one prompt stay together in splits.

    ``generation`` sets the two older generators apart: what they draw is so much worse that naming them scores well.
    ``bundled_split`` says which images the bundled ``lifeiqa`` learnt from, was chosen on, and never saw; a seeded
    split into train, val and test would mix them.
    """
    path = _find(root, "data.csv")
    values = list(_values(path, "name", "prompt", "mos_quality", table=_text_table(path)))
    phases = _bundled_split([prompt for _, prompt, _ in values])
    rows = []
    for name, prompt, mos in values:
        generator = name.split("_")[0]
        is_old = generator.lower() in ("attngan", "glide")
        more = {
            "prompt": prompt,
            "generation": "older" if is_old else "newer",
            "bundled_split": phases[prompt],
        }
        rows.append(Row(name, number(mos), subset=generator, group=prompt, more=more))
    first = rows[0].name if rows else ""
    folder = next((f for f in AGIQA_FOLDERS if (root / f / first).is_file()), ".")
    return [row._replace(name=(Path(folder) / row.name).as_posix()) for row in rows]


def _bundled_split(prompts: list[str]) -> dict[str, str]:
    """Return train, val or test for every prompt, 7 : 1 : 2, as when the bundled weights were trained."""
    shuffled = sorted(set(prompts))
    random.Random(123).shuffle(shuffled)
    count = len(shuffled)
    return {
        prompt: "train" if i < 0.7 * count else "val" if i < 0.8 * count else "test"
        for i, prompt in enumerate(shuffled)
    }


AGIQA_FOLDERS = (".", "images", "AGIQA-3K", "ACGIQA-3K")


def read_avt_ai(root: Path) -> list[Row]:
    """AVT AI images: mean quality, 1 to 5, of 135 AI images and of 11 photos, which ``kind`` sets apart."""
    path = _find(root, "evaluation_quality_appeal/quality.csv")
    rows = []
    for key, mos, prompt in _values(path, "image_key", "rating", "prompt", table=_text_table(path)):
        name, generator = f"images/{key}.png", key.split("/")[0]
        more = {"prompt": prompt, "kind": "photo" if generator == "own" else "ai"}
        rows.append(Row(name, number(mos), subset=generator, group=prompt, more=more))
    return rows


DATASETS: dict[str, Source] = {
    "folder": Source(read_folder),
    "biq2021": Source(read_biq2021, 0, 1),
    "livec": Source(read_livec, 0, 100),
    "koniq10k": Source(read_koniq10k, 0, 100),
    "kadid10k": Source(read_kadid10k, 1, 5),
    "spaq": Source(read_spaq, 0, 100),
    "csiq": Source(read_csiq, 0, 1, lower_better=True),
    "tid2013": Source(read_tid2013, 0, 9),
    "live": Source(read_live, 0, 100, lower_better=True, open_ended=True),
    "flive": Source(read_flive, 0, 100),
    "agiqa3k": Source(read_agiqa3k, 0, 5),
    "avt_ai": Source(read_avt_ai, 1, 5),
}
