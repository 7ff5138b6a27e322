"""Measure what ``lifeiqa score --keep`` and ``--drop`` cost, on images that people have scored.

It reads what ``lifeiqa benchmark`` has kept, and scores nothing itself:

    lifeiqa benchmark -m lifeiqa lifeiqa-biq2021 --data_opt options/benchmark/cross.yml --no-speed -o benchmark
    python measurements/verdicts.py benchmark --data_opt options/benchmark/cross.yml

Good images have an opinion score in the upper part of their dataset, bad ones in the lower part.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import markdown_table

from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.benchmark.scores import Store, in_one_line
from lifeiqa_plugin.checkpoints.models import BUNDLED
from lifeiqa_plugin.datasets.labelled import LabelledDataset

DROP = (0.2, 0.25, 0.3, 0.35, 0.4)
KEEP = (0.5, 0.55, 0.6, 0.65, 0.7)


class Rates(NamedTuple):
    """Shares of images on one side of a threshold: of all, of the wrong half and third, of the right third."""

    chosen: float
    wrong_half: float
    wrong_third: float
    right_third: float


def rates(scores: np.ndarray, mos: np.ndarray, threshold: float, keep: bool) -> Rates:
    """Return how many images a threshold keeps, or drops, that it should not.

    Args:
        scores: (N,) of the images.
        mos: (N,) what people say.
        threshold: images from it on are kept, or those below it dropped.
        keep: which of the two; wrong are kept images of the lower half or third, or dropped ones of the upper.
    """
    chosen = scores >= threshold if keep else scores < threshold
    wrongness = -mos if keep else mos
    low, half, high = np.quantile(wrongness, (1 / 3, 1 / 2, 2 / 3))
    return Rates(
        chosen.mean(),
        chosen[wrongness > half].mean(),
        chosen[wrongness > high].mean(),
        chosen[wrongness < low].mean(),
    )


def read_scores(
    store: Store, metric: str, dataset: LabelledDataset
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept scores of a dataset's images, and their opinion scores.

    Raises:
        SystemExit: some have no score.
    """
    kept = store.read(metric, dataset.name)
    scores = [kept.get(in_one_line(image.name)) for image in dataset.images]
    missing = sum(score is None or bool(score.error) for score in scores)
    if missing:
        raise SystemExit(
            f"{store.path(metric, dataset.name)}: {missing} of {len(scores)} images have no score; "
            "run lifeiqa benchmark first"
        )
    mos = [image.mos for image in dataset.images]
    return np.array([score.score for score in scores if score]), np.array(mos)


def table(scores: np.ndarray, mos: np.ndarray, keep: bool, thresholds: tuple[float, ...]) -> str:
    """Return a Markdown table with a line for each threshold."""
    wrong, right = ("worse", "best") if keep else ("better", "worst")
    extreme = "worst" if keep else "best"
    verb = "kept" if keep else "dropped"
    header = [
        "--keep" if keep else "--drop",
        f"{verb} of all",
        f"of the {wrong} half",
        f"of the {extreme} third",
        f"of the {right} third",
    ]
    rows = []
    for threshold in thresholds:
        found = rates(scores, mos, threshold, keep)
        rows.append([f"{threshold:g}", *(f"{100 * share:.1f} %" for share in found)])
    return markdown_table(header, rows)


def costs(scores: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """Return what ``--drop 0.3 --keep 0.6`` drop and keep: shares, by what they are of."""
    drop, keep = rates(scores, mos, 0.3, keep=False), rates(scores, mos, 0.6, keep=True)
    return {
        "dropped better half": drop.wrong_half,
        "dropped worst third": drop.right_third,
        "kept worst third": keep.wrong_third,
        "kept best third": keep.right_third,
    }


def main() -> None:
    """Parse the command line, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder that 'lifeiqa benchmark -o' wrote")
    parser.add_argument("-m", nargs="+", default=list(BUNDLED), metavar="METRIC")
    parser.add_argument("-d", nargs="+", default=[], metavar="DATASET", help="as for the benchmark")
    parser.add_argument("--data_opt", type=Path, metavar="YML", help="the same")
    parser.add_argument("--keep", type=float, nargs="+", default=KEEP)
    parser.add_argument("--drop", type=float, nargs="+", default=DROP)
    args = parser.parse_args()
    store = Store(args.out / "scores")
    datasets = find_datasets(args.d, read_option_file(args.data_opt).entries)
    for metric in args.m:
        for dataset in datasets:
            if dataset.kind != "mos":
                continue
            scores, mos = read_scores(store, metric, dataset)
            print(f"\n## {metric}, {dataset.name}: {len(mos)} images\n")
            print(table(scores, mos, keep=False, thresholds=args.drop), end="\n\n")
            print(table(scores, mos, keep=True, thresholds=args.keep))


if __name__ == "__main__":
    main()
