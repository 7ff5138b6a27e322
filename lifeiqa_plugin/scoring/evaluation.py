"""Scores of whole datasets, in float32 and over any number of processes, and how well they agree with people."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyiqa.utils.dist_util import get_dist_info
from scipy.optimize import nnls
from torch.utils.data import DataLoader, Subset

from lifeiqa_plugin.correlation import correlations
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.training.dataset import LifeIQADataset


@torch.no_grad()
def score_dataset(
    network: LifeIQA, dataset: LifeIQADataset, workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Score every image of a validation or test set, whole, one at a time.

    The mode and the random numbers of the network's process are left as found. In a distributed run every process
    scores its share and all of them return all scores.

    Args:
        network: on the device that shall do the work.
        dataset: whose items are whole images.
        workers: processes that decode.

    Returns:
        Scores and their standard deviations, (N,) float32 each, in the order of the dataset.

    Raises:
        FloatingPointError: a score that is not finite, with the name of the image.
        OSError, ValueError: as :func:`~lifeiqa_plugin.images.reading.read_image`.
    """
    rank, world_size = get_dist_info()
    modes = {module: module.training for module in network.modules()}
    device = next(network.parameters()).device
    loader: DataLoader[Any] = DataLoader(
        Subset(dataset, range(rank, len(dataset), world_size)),
        num_workers=workers,
        generator=torch.Generator(),  # so that starting workers draws nothing from the run's random numbers
    )
    network.eval()
    try:
        own = []
        for item in loader:
            with warnings.catch_warnings():  # the card says so, and every row will
                warnings.filterwarnings("ignore", "return_std gives NaN")
                score, std = network(item["img"].to(device), return_std=True)
            own.append((item["img_path"][0], score.item(), std.item()))
    finally:
        for module, mode in modes.items():
            module.training = mode
    rows = _gather(own, len(dataset))
    for path, score, _ in rows:
        if not np.isfinite(score):
            raise FloatingPointError(
                f"{path}: the network's score is {score}; the weights have diverged"
            )
    scores, stds = np.array([row[1:] for row in rows], dtype=np.float32).T
    return scores, stds


def _gather(own: list[tuple[str, float, float]], total: int) -> list[tuple[str, float, float]]:
    """Put the shares of all processes back into the order of the dataset."""
    _, world_size = get_dist_info()
    if world_size == 1:
        return own
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, own)
    return [shares[i % world_size][i // world_size] for i in range(total)]


def fit_std_calibration(errors: np.ndarray, spreads: np.ndarray) -> tuple[float, float]:
    """Return (a, b) of the least-squares line ``|error| * sqrt(pi / 2) = a + b * spread``, neither below zero.

    The factor makes a standard deviation of a mean absolute error, as for a normal distribution.

    Args:
        errors: (N,) scores minus opinion scores.
        spreads: (N,) what ``return_std`` gives with a ``std_calibration`` of (0, 1).
    """
    design = np.stack([np.ones(len(spreads)), spreads], axis=1)
    (a, b), _ = nnls(design, np.abs(errors) * np.sqrt(np.pi / 2))
    return float(a), float(b)


def rank_of_spread(errors: np.ndarray, spreads: np.ndarray) -> tuple[float, bool]:
    """Return the rank correlation of the spreads with the absolute errors, and whether it is one.

    It is if it lies above zero by 1.64 standard errors, a one-sided test at 5 %; NaN for constant spreads.
    """
    srcc = correlations(spreads, np.abs(errors))["srcc"]
    return srcc, bool(srcc * np.sqrt(len(errors) - 1) > 1.64)


def evaluate(
    network: LifeIQA, dataset: LifeIQADataset, out: Path | None = None, workers: int = 0
) -> dict[str, float]:
    """Score a dataset, write ``name,mos,score,std`` to ``out`` on request, return the correlations and ``images``."""
    (scores, stds), mos = (
        score_dataset(network, dataset, workers),
        np.array(dataset.mos, dtype=np.float32),
    )
    result = correlations(scores, mos)
    if out is not None and get_dist_info()[0] == 0:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "mos", "score", "std"])
            for row, score, std in zip(dataset.paths_mos, scores, stds, strict=True):
                writer.writerow([*row[:2], f"{score:.6f}", f"{std:.6f}"])
    return {"images": float(len(mos)), **result}
