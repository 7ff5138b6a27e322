"""Measure whether a score reads as an expected opinion score, and whether a larger ``std`` means a larger error.

    lifeiqa prepare biq2021 BIQ2021_FOLDER --drop-near-duplicates
    python measurements/calibration.py meta_info_biq2021.csv BIQ2021_FOLDER

Images of the test part are sorted by score and by ``std``, and averaged in tenths.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import conditions, markdown_table
from scipy.stats import spearmanr

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.scoring.evaluation import score_dataset
from lifeiqa_plugin.training.dataset import LifeIQADataset


def tenths(order_by: np.ndarray, *columns: np.ndarray) -> list[list[float]]:
    """Sort by the first array, cut into ten parts, return the means of the columns in each."""
    parts = np.array_split(np.argsort(order_by, kind="stable"), 10)
    return [[float(column[part].mean()) for column in columns] for part in parts]


def main() -> None:
    """Parse the command line, score, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("meta", type=Path, help="csv written by 'lifeiqa prepare'")
    parser.add_argument("root", type=Path, help="folder of the set")
    parser.add_argument(
        "--split", default="official_split", help="split column (default official_split)"
    )
    parser.add_argument(
        "--phase", default="test", choices=["val", "test"], help="of the split (default test)"
    )
    parser.add_argument("--checkpoint", type=Path, help="default: the weights that ship")
    args = parser.parse_args()
    opt = {"phase": args.phase, "meta_info_file": str(args.meta), "dataroot_target": str(args.root)}
    dataset = LifeIQADataset(opt | {"split_index": args.split})
    network = build_lifeiqa(pretrained_model_path=args.checkpoint).eval()
    scores, stds = score_dataset(network, dataset.images)
    mos = np.array(dataset.mos)
    errors = scores - mos
    slope, offset = np.polyfit(scores, mos, 1)
    print(f"{conditions()}; {len(mos)} {args.phase} images\n")
    print(f"opinion = {slope:.3f} x score + {offset:+.3f}; mean error {errors.mean():+.4f}")
    print(f"SRCC of std with |error|: {spearmanr(stds, np.abs(errors)).statistic:.3f}")
    inside = [(np.abs(errors) < k * stds).mean() for k in (1, 2)]
    print(f"errors within 1 std: {inside[0]:.1%}, within 2: {inside[1]:.1%}")
    rows = [
        [str(i), *(f"{value:.3f}" for value in (*by_score, by_std[0], by_std[1] ** 0.5))]
        for i, (by_score, by_std) in enumerate(
            zip(tenths(scores, scores, mos), tenths(stds, stds, errors**2), strict=True), 1
        )
    ]
    print(markdown_table(["tenth", "mean score", "mean opinion", "mean std", "RMSE"], rows))


if __name__ == "__main__":
    main()
