"""Scores of whole datasets, over any number of processes, and how well they agree with people."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import nnls
from tqdm import tqdm

from lifeiqa_plugin.correlation import correlations, interval, resamples
from lifeiqa_plugin.datasets.trained_on import TrainedOn, digests_of
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.network.evaluating import evaluating
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.runtimes.torch_engine import TorchEngine
from lifeiqa_plugin.scoring.rows import ScoredImage
from lifeiqa_plugin.scoring.score import score

if TYPE_CHECKING:  # which would bring pandas
    from lifeiqa_plugin.datasets.labelled import LabelledImage

SAMPLES = 1000
"""Of the bootstrap."""


def score_dataset(
    network: LifeIQA, images: list[LabelledImage], workers: int = 0, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Score every image of a dataset, whole, one at a time, in float32.

    The mode and the random numbers of the network's process are left as found. In a distributed run every process
    scores its share and all of them return all scores.

    Args:
        network: on the device that shall do the work.
        images: of which only the paths are used.
        workers: processes that decode.
        progress: show a bar.

    Returns:
        Scores and their standard deviations, (N,) float32 each, in the order of the images.

    Raises:
        FloatingPointError: a score that is not finite, with the name of the image.
        OSError: an image that cannot be read.
    """
    rank, world_size = _rank_and_world_size()
    paths = [image.path for image in images]
    with evaluating(network):
        engine = TorchEngine(network, with_distortions=False)
        rows = score(paths[rank::world_size], engine=engine, workers=workers, exact=True)
        bar = tqdm(rows, total=len(paths[rank::world_size]), unit="image", disable=not progress)
        own = [_check(row) for row in bar]
    pairs = _gather([(row.score, row.std) for row in own], len(paths))
    scores, stds = np.array(pairs, dtype=np.float32).T
    return scores, stds


def _check(row: ScoredImage) -> ScoredImage:
    if row.error is None:
        return row
    if row.error.startswith("the network's score"):
        raise FloatingPointError(f"{row.name}: {row.error}; the weights have diverged")
    raise OSError(f"{row.name}: {row.error}")


def _rank_and_world_size() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _gather(own: list[tuple[float, float]], total: int) -> list[tuple[float, float]]:
    """Put the shares of all processes back into the order of the dataset."""
    _, world_size = _rank_and_world_size()
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
    network: LifeIQA,
    images: list[LabelledImage],
    out: Path | None = None,
    workers: int = 0,
    progress: bool = False,
    with_intervals: bool = False,
    learnt: TrainedOn | None = None,
) -> dict[str, Any]:
    """Score images and compare with people.

    Args:
        network: on the device that shall do the work.
        images: with their MOS.
        out: csv ``name,mos,score,std`` to write.
        workers: processes that decode.
        progress: show a bar.
        with_intervals: add ``intervals``, see :func:`intervals`.
        learnt: which images the network was trained on; None if that is not known.

    Returns:
        ``images``, their number, :func:`~lifeiqa_plugin.correlation.correlations`, and ``trained_on``, how many of the
        images the network was trained on, None if that is not known. If there are any, the same of the images left is
        below ``not_trained_on``.
    """
    scores, stds = score_dataset(network, images, workers, progress)
    if out is not None and _rank_and_world_size()[0] == 0:
        write_scores(out, images, scores, stds)
    mos = np.array([image.mos for image in images], dtype=np.float32)
    result = _agreement(scores, mos, with_intervals)
    if learnt is None:
        return result | {"trained_on": None}
    hits = learnt.hits(digests_of(image.path for image in images))
    result["trained_on"] = int(hits.sum())
    if hits.any():
        result["not_trained_on"] = _agreement(scores[~hits], mos[~hits], with_intervals)
    return result


def _agreement(scores: np.ndarray, mos: np.ndarray, with_intervals: bool) -> dict[str, Any]:
    """Return the number of images, and how well scores agree with people if there are two at least."""
    result: dict[str, Any] = {"images": float(len(mos))}
    if len(mos) > 1:
        result |= correlations(scores, mos)
        if with_intervals:
            result["intervals"] = intervals(scores, mos)
    return result


def write_scores(
    out: Path, images: list[LabelledImage], scores: np.ndarray, stds: np.ndarray
) -> None:
    """Write ``name,mos,score,std``, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "mos", "score", "std"])
    for image, value, std in zip(images, scores, stds, strict=True):
        writer.writerow([image.name, image.mos, f"{value:.6f}", f"{std:.6f}"])
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as file:
        file.write(text.getvalue().encode())


def intervals(scores: np.ndarray, mos: np.ndarray) -> dict[str, list[float]]:
    """Return the bootstrap 95 % interval of each of :func:`correlations`."""
    samples = [correlations(scores[chosen], mos[chosen]) for chosen in resamples(len(mos), SAMPLES)]
    found = {}
    for name in samples[0]:
        values = np.array([sample[name] for sample in samples])
        found[name] = [round(end, 4) for end in interval(values)]
    return found
