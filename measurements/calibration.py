"""Measure whether a score reads as an expected opinion score, and whether a larger ``std`` means a larger error.

    lifeiqa prepare biq2021 BIQ2021_FOLDER --drop-near-duplicates
    python measurements/calibration.py meta_info_biq2021.csv BIQ2021_FOLDER --figures docs/figures

Images of the test part are sorted by score and by ``std``, and averaged in tenths.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import add_metric_arguments, conditions, create_lifeiqa, load_pyplot, markdown_table
from scipy.stats import spearmanr

from lifeiqa_plugin.scoring.evaluation import score_dataset
from lifeiqa_plugin.training.dataset import LifeIQADataset


def tenths(order_by: np.ndarray, *columns: np.ndarray) -> list[list[float]]:
    """Sort by the first array, cut into ten parts, return the means of the columns in each."""
    parts = np.array_split(np.argsort(order_by, kind="stable"), 10)
    return [[float(column[part].mean()) for column in columns] for part in parts]


def draw(folder: Path, mos: np.ndarray, scores: np.ndarray, stds: np.ndarray) -> None:
    """Write ``calibration.png`` and ``uncertainty.png``."""
    plt = load_pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1, label="score = opinion")
    axes.scatter(scores, mos, s=3, alpha=0.25, label="test images")
    axes.plot(
        *np.array(tenths(scores, scores, mos)).T, "o-", color="C3", label="mean of each tenth"
    )
    axes.set(xlabel="score", ylabel="mean opinion score", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.savefig(folder / "calibration.png", dpi=110)
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    curve = np.array(tenths(stds, stds, (scores - mos) ** 2))
    axes.plot(
        curve[:, 0], np.sqrt(curve[:, 1]), "o-", color="C3", label="each tenth of the test images"
    )
    limit = [0, float(curve[:, 0].max())]
    axes.plot(limit, limit, color="gray", linewidth=1, label="error = std")
    axes.set(xlabel="predicted std", ylabel="root mean squared error")
    axes.legend()
    figure.savefig(folder / "uncertainty.png", dpi=110)


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
    parser.add_argument(
        "--figures", type=Path, help="folder for calibration.png and uncertainty.png"
    )
    add_metric_arguments(parser)
    args = parser.parse_args()
    opt = {"phase": args.phase, "meta_info_file": str(args.meta), "dataroot_target": str(args.root)}
    dataset = LifeIQADataset(opt | {"split_index": args.split})
    scores, stds = score_dataset(create_lifeiqa(args).net, [row[0] for row in dataset.paths_mos])
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
    if args.figures is not None:
        draw(args.figures, mos, scores, stds)


if __name__ == "__main__":
    main()
