"""Measure the metric, as users get it, on the official test split of BIQ2021.

    python benchmarks/biq2021.py BIQ2021_FOLDER --out scores.csv

BIQ2021_FOLDER is a checkout of the authors' repository. Every picture is scored whole, through
``pyiqa.create_metric('lifeiqa')``. PLCC and RMSE are of the raw scores, without a fitted curve. Each number stands with
its 95 % interval over seeded bootstrap samples of the pictures.

Some of the test pictures have near-twins among the official training pictures. Training left those twins out
(``drop_twins`` in ``tools/train_bundled.py`` prints how many), so all 2,000 test pictures count here.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import add_metric_arguments, conditions, create_lifeiqa, markdown_table
from scipy.stats import kendalltau, pearsonr, spearmanr
from tqdm import tqdm
from train_bundled import read_split

STATISTICS = ("SRCC", "PLCC", "KRCC", "RMSE")
SUBSETS = ("ss01", "ss02", "ss03")


def agreement(scores: np.ndarray, mos: np.ndarray) -> np.ndarray:
    """Return the four ``STATISTICS`` of scores (N,) and opinion scores (N,)."""
    return np.array(
        [
            spearmanr(scores, mos).statistic,
            pearsonr(scores, mos).statistic,
            kendalltau(scores, mos).statistic,
            np.sqrt(np.mean((scores - mos) ** 2)),
        ]
    )


def bootstrap_interval(scores: np.ndarray, mos: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper 95 % bounds (4,) of ``agreement``; the same for the same seed."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, len(scores), len(scores)) for _ in range(samples))
    values = np.stack([agreement(scores[rows], mos[rows]) for rows in drawn])
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return low, high


def describe(what: str, scores: np.ndarray, mos: np.ndarray, samples: int, seed: int) -> list[str]:
    """Return one row of the table."""
    low, high = bootstrap_interval(scores, mos, samples, seed)
    found = zip(agreement(scores, mos), low, high, strict=True)
    return [what, str(len(scores)), *(f"{value:.3f} ({lo:.3f} - {hi:.3f})" for value, lo, hi in found)]


def subset_rows(names: Sequence[str], subset: str) -> np.ndarray:
    """Return the positions of the pictures of one subset, which their names begin with."""
    return np.array([i for i, name in enumerate(names) if name.lower().startswith(subset)], dtype=int)


def main() -> None:
    """Parse the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path, help="folder of BIQ2021")
    parser.add_argument("--out", type=Path, help="new csv file for the score of every picture")
    parser.add_argument("--limit", type=int, help="score only the first pictures (for a trial)")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    add_metric_arguments(parser)
    args = parser.parse_args()
    if args.out is not None and args.out.exists():
        raise SystemExit(f"{args.out}: exists; give another --out, or delete it")
    metric = create_lifeiqa(args)
    pairs = read_split(args.root, "Test")[: args.limit]
    names, mos = [path.name for path, _ in pairs], np.array([mos for _, mos in pairs])
    scores = np.array([metric(str(path)).item() for path, _ in tqdm(pairs, unit="picture")])
    if args.out is not None:
        with open(args.out, "w", newline="") as lines:
            csv.writer(lines).writerows([("name", "mos", "score"), *zip(names, mos, scores, strict=True)])
    rows = [describe("all", scores, mos, args.samples, args.seed)]
    for subset in SUBSETS:
        at = subset_rows(names, subset)
        if len(at) > 1:
            rows.append(describe(subset, scores[at], mos[at], args.samples, args.seed))
    print(f"{conditions()}; official test split, {args.samples} bootstrap samples, seed {args.seed}\n")
    print(markdown_table(["pictures", "number", *STATISTICS], rows))


if __name__ == "__main__":
    main()
