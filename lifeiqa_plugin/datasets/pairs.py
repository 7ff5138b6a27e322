"""Pairs of images with people's votes for one of the two: a csv of them, and a scale of scores from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from lifeiqa_plugin.correlation import Floats
from lifeiqa_plugin.datasets.labelled import (
    FileReader,
    LabelledDataset,
    LabelledImage,
    check_images,
    name_below,
    origin_of,
)
from lifeiqa_plugin.datasets.table import MOS
from lifeiqa_plugin.journal import write_whole

NAMES = ["left", "right"]
VOTES = ["votes_left", "votes_right"]
WINNER = "winner"
TIE = "tie"

SPREAD = 2.0
"""Standard deviation of the log-odds that are expected before any vote; keeps an image that always won finite."""


def holds_pairs(path: Path | str) -> bool:
    """Tell whether a csv is one of pairs: it has columns ``left`` and ``right``, and no ``mos``."""
    try:
        known = set(pd.read_csv(path, nrows=0))
    except (OSError, ValueError):  # whoever reads it as a csv of scores says what is wrong
        return False
    return set(NAMES) <= known and MOS not in known


def read_pairs(path: Path | str) -> pd.DataFrame:
    """Read a csv of pairs.

    Args:
        path: columns left, right, and either votes_left, votes_right, or winner: ``left``, ``right``, ``tie`` or the
            name of the image.

    Returns:
        left, right, votes_left, votes_right: a row for each two images, with the votes of all their rows. A tie is half
        a vote for each.

    Raises:
        OSError: no such file, or not text.
        ValueError: a column is missing, no rows, an image beside itself, votes that are no numbers from 0 on or none.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OSError(f"{path}: cannot be read as a csv of left, right, ... ({error})") from error
    needed = [*NAMES, WINNER] if WINNER in table else [*NAMES, *VOTES]
    if missing := [column for column in needed if column not in table]:
        raise ValueError(
            f"{path}: expected columns left, right and winner, or left, right, votes_left and votes_right; "
            f"got {list(table)}, without {missing[0]}"
        )
    if table.empty:
        raise ValueError(f"{path}: expected a pair in each row, got 0 rows")
    is_same = table["left"] == table["right"]
    _refuse(path, table, is_same, "left", "an image is paired with itself")
    if WINNER in table:
        table[VOTES] = _votes_of_winners(path, table)
    for column in VOTES:
        votes = pd.to_numeric(table[column], errors="coerce")
        wrong = ~np.isfinite(votes) | (votes < 0)
        _refuse(path, table, wrong, column, "votes must be a number from 0 on")
        table[column] = votes.astype(float)
    _refuse(path, table, table[VOTES].sum(axis=1) == 0, "left", "a pair needs a vote")
    turned = table["left"] > table["right"]  # the same two images, whichever stood on the left
    for columns in (NAMES, VOTES):
        table.loc[turned, columns] = table.loc[turned, columns[::-1]].to_numpy()
    return table.groupby(NAMES, as_index=False, sort=False)[VOTES].sum()


def _votes_of_winners(path: Path | str, table: pd.DataFrame) -> Floats:
    """Return (N, 2): one vote for the left image or for the right one, or half of one for each."""
    winner = table[WINNER]
    is_left = (winner == "left") | (winner == table["left"])
    is_right = (winner == "right") | (winner == table["right"])
    share = np.select([is_left, is_right, winner == TIE], [1.0, 0.0, 0.5], np.nan)
    _refuse(
        path, table, np.isnan(share), WINNER, "winner must be left, right, tie or an image's name"
    )
    return np.stack([share, 1 - share], axis=1)


def _refuse(path: Path | str, table: pd.DataFrame, wrong: Any, column: str, what: str) -> None:
    """Raise a ValueError that names the first row that is wrong."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        line, value = rows[0] + 2, table[column].iloc[rows[0]]
        raise ValueError(
            f"{path}: {what}; {len(rows)} rows are wrong, first line {line} with {column} {value!r}"
        )


def find_pairs(path: Path, root: str | Path = "", name: str = "") -> LabelledDataset:
    """Return a csv of pairs as a dataset of its images, each once.

    Args:
        path: see :func:`read_pairs`.
        root: folder of the images; default that of the csv.
        name: of the dataset; default that of the csv, without ``meta_info_``.

    Raises:
        OSError, ValueError: as :func:`read_pairs`.
    """
    table = read_pairs(path)
    root = str(root) or str(Path(path).parent)
    folder = Path(root).expanduser()
    table[NAMES] = table[NAMES].map(lambda image: name_below(str(folder / image), root))
    names = dict.fromkeys(table[NAMES].to_numpy().ravel())
    images = [LabelledImage(image, str(folder / image), float("nan")) for image in names]
    return LabelledDataset(
        name or Path(path).stem.removeprefix("meta_info_"),
        root,
        images,
        FileReader(images),
        f"{len(table):,} pairs of {len(images):,} images, {table[VOTES].to_numpy().sum():,.10g} votes",
        kind="pairs",
        origin=origin_of(path, root),
        pairs=table,
    )


def scale_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """Fit a Bradley-Terry scale to votes: that an image is preferred has odds exp(difference of the two strengths).

    Args:
        pairs: as :func:`read_pairs` returns it.

    Returns:
        name, and mos: the chance in (0, 1) that the image is preferred to an average one of these.

    Raises:
        ValueError: the images fall into groups with no pair between them.
    """
    rows, names = pd.factorize(pairs[NAMES].to_numpy().ravel())
    left, right = rows.reshape(-1, 2).T
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(names), len(names)))
    if (parts := connected_components(graph, directed=False)[0]) > 1:
        raise ValueError(
            f"the images fall into {parts} groups with no pair between them, which have no common scale; "
            "compare images across the groups"
        )
    wins, losses = pairs[VOTES].to_numpy(float).T

    def loss(strength: Floats) -> tuple[float, Floats]:
        """Return the negative log of the posterior, and its gradient."""
        difference = strength[left] - strength[right]
        likelihood = wins * np.logaddexp(0, -difference) + losses * np.logaddexp(0, difference)
        slope = (wins + losses) * expit(difference) - wins
        gradient = strength / SPREAD**2
        np.add.at(gradient, left, slope)
        np.subtract.at(gradient, right, slope)
        return likelihood.sum() + (strength**2).sum() / (2 * SPREAD**2), gradient

    found = minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B", tol=1e-10)
    return pd.DataFrame({"name": names, MOS: expit(found.x).round(6)})


def prepare_pairs(root: Path, scores: Path, out: Path, scale: Path | None = None) -> str:
    """Check a csv of pairs and their files, write it with a row for each two images, and return a line about it.

    Args:
        root: folder of the images.
        scores: see :func:`read_pairs`.
        out: csv to write.
        scale: csv ``name,mos`` to write, see :func:`scale_of`.

    Raises:
        OSError: a file is missing or cannot be read or written.
        ValueError: as :func:`read_pairs` and :func:`scale_of`; two of the files are the same.
    """
    files = [str(path.resolve()) for path in (scores, out, scale) if path]
    if len(set(files)) < len(files):
        raise ValueError(f"--scores, --out and --scale: expected different files, got {files}")
    dataset = find_pairs(scores, root)
    check_images(dataset.images)
    tables = {out: dataset.pairs} | ({scale: scale_of(dataset.pairs)} if scale else {})
    for path, table in tables.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            table.to_csv(file, index=False)
    return "\n".join(
        [
            f"{out}: {dataset.rows}",
            *([f"{scale}: mos of {len(dataset.images):,} images"] if scale else []),
        ]
    )
