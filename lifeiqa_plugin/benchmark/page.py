"""``benchmark.html``: all tables and charts of a comparison, with small copies of its images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import lifeiqa_plugin
from lifeiqa_plugin.benchmark.accuracy import Accuracy
from lifeiqa_plugin.benchmark.datasets import LabelledDataset, LabelledImage
from lifeiqa_plugin.benchmark.metrics import Candidate
from lifeiqa_plugin.benchmark.report import (
    COST,
    EXPLANATION,
    Rows,
    accuracy_rows,
    cost_rows,
    failure_rows,
    group_rows,
    pair_rows,
)
from lifeiqa_plugin.correlation import Floats, fit
from lifeiqa_plugin.page import embed, small_copy

TEMPLATE = Path(__file__).with_name("page.html")
TITLE = "Image quality metrics side by side"
WORST = 8
"""Images in the gallery of each metric: half of them scored too high, half too low."""
MOST_FAILURES = 1000
"""Failures that the page lists."""


def write_page(
    path: Path,
    scores: pd.DataFrame,
    accuracy: Accuracy,
    efficiency: pd.DataFrame,
    candidates: list[Candidate],
    datasets: list[LabelledDataset],
    thumbnails: int,
) -> None:
    """Write the page.

    Args:
        path: of the page.
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        accuracy: all its tables.
        efficiency: as :func:`~lifeiqa_plugin.benchmark.speed.measure_speed` returns it.
        candidates: the metrics.
        datasets: what they were compared on.
        thumbnails: images of each dataset that are shown below the pointer; of larger ones, evenly spaced.
    """
    version = lifeiqa_plugin.__version__
    content = {
        "about": f"{len(candidates)} metrics. Written by lifeiqa benchmark {version}.",
        "explanation": EXPLANATION,
        "cost_explanation": COST,
        "datasets": [
            _dataset(chosen, scores, accuracy, candidates, thumbnails) for chosen in datasets
        ],
        "efficiency": efficiency.to_dict("records"),
        "cost": _table(*cost_rows(efficiency)),
        "failures": _table(*failure_rows(accuracy.failures.head(MOST_FAILURES))),
        "failure_count": len(accuracy.failures),
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    path.write_text(embed(template, content, TITLE), encoding="utf-8")


def _table(header: list[str], rows: Rows) -> dict[str, Any]:
    return {"header": header, "rows": rows}


def _dataset(
    chosen: LabelledDataset,
    scores: pd.DataFrame,
    accuracy: Accuracy,
    candidates: list[Candidate],
    thumbnails: int,
) -> dict[str, Any]:
    overall = accuracy.overall[accuracy.overall["set"] == chosen.name].set_index("metric")
    groups = accuracy.groups[accuracy.groups["set"] == chosen.name]
    scored = scores[(scores["set"] == chosen.name) & (scores["error"] == "")]
    metrics = []
    for candidate in candidates:
        rows = scored[scored["metric"] == candidate.name]
        metrics.append(_metric(chosen, rows, candidate, overall.loc[candidate.name]))
    by_column = []
    for column in dict.fromkeys(groups["column"]):
        by_column.append({"column": column, **_table(*group_rows(groups, chosen.name, column))})
    return {
        "name": chosen.name,
        "images": _images(chosen, thumbnails),
        "outside": sum(not _is_inside(chosen, image) for image in chosen.images),
        "metrics": metrics,
        "accuracy": _table(*accuracy_rows(accuracy.overall, chosen.name)),
        "pairs": _table(*pair_rows(accuracy.pairs, chosen.name)),
        "groups": by_column,
    }


def _images(chosen: LabelledDataset, thumbnails: int) -> list[dict[str, str]]:
    """Return name and small copy of every image; evenly spaced ones have a copy where there are too many."""
    count = len(chosen.images)
    shown = set(np.linspace(0, count - 1, min(thumbnails, count)).astype(int))
    found = []
    bar = tqdm(chosen.images, desc=f"small copies of {chosen.name}", unit="image")
    for row, image in enumerate(bar):
        thumbnail = _copy(chosen, image, 110, 50) if row in shown else ""
        found.append({"name": image.name, "thumbnail": thumbnail})
    return found


def _is_inside(chosen: LabelledDataset, image: LabelledImage) -> bool:
    """Tell whether an image lies below the folder of its dataset, whatever its csv says."""
    root, path = os.path.abspath(chosen.root), os.path.abspath(image.path)
    return Path(path).is_relative_to(root)


def _copy(chosen: LabelledDataset, image: LabelledImage, side: int, quality: int) -> str:
    return small_copy(image.path, side, quality) if _is_inside(chosen, image) else ""


def _metric(
    chosen: LabelledDataset, rows: pd.DataFrame, candidate: Candidate, line: pd.Series
) -> dict[str, Any]:
    at = {image.name: i for i, image in enumerate(chosen.images)}
    index = [at[name] for name in rows["name"]]
    scores, mos = rows["score"].to_numpy(float), rows["mos"].to_numpy(float)
    points = [[i, _shorten(a), _shorten(b)] for i, a, b in zip(index, scores, mos, strict=True)]
    curve = fit("logistic4", scores, mos)
    line_of_curve, worst = [], []
    if curve is not None:
        grid = np.linspace(scores.min(), scores.max(), 80)
        line_of_curve = np.stack([grid, curve(grid)], axis=1).tolist()
        worst = _worst(chosen, index, curve(scores), mos)
    return {
        "metric": candidate.name,
        "lower_better": candidate.lower_better,
        "srcc": line["srcc"],
        "srcc_low": line["srcc_low"],
        "srcc_high": line["srcc_high"],
        "points": points,
        "curve": line_of_curve,
        "worst": worst,
    }


def _shorten(value: float) -> float:
    """Round to the digits that a chart can show."""
    return float(f"{value:.6g}")


def _worst(
    chosen: LabelledDataset, index: list[int], predicted: Floats, mos: Floats
) -> list[dict[str, Any]]:
    """Return the images farthest above and below what people say."""
    order = np.argsort(predicted - mos)
    half = min(WORST // 2, len(order) // 2)
    found = []
    for i in [*order[::-1][:half], *order[:half]]:
        copy = _copy(chosen, chosen.images[index[i]], 320, 70)
        about = {"row": index[i], "predicted": predicted[i], "mos": mos[i]}
        found.append({**about, "image": copy})
    return found
