"""``benchmark.html``: all tables and charts of a comparison, with small copies of its images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import lifeiqa_plugin
from lifeiqa_plugin.benchmark.accuracy import Results
from lifeiqa_plugin.benchmark.metrics import MetricSpec
from lifeiqa_plugin.benchmark.report import COST, EXPLANATION
from lifeiqa_plugin.benchmark.table import Table
from lifeiqa_plugin.benchmark.tables import Tables
from lifeiqa_plugin.correlation import Floats, Interval, fit
from lifeiqa_plugin.datasets.labelled import LabelledDataset, LabelledImage
from lifeiqa_plugin.page import embed, small_copy

TEMPLATE = Path(__file__).with_name("page.html")
TITLE = "Image quality metrics side by side"
THUMBNAILS = 2000
"""Images of a dataset that are shown below the pointer; of larger ones, evenly spaced."""

WORST = 8
"""Images in the gallery of each metric: half of them scored too high, half too low."""


def write_page(
    path: Path,
    scores: pd.DataFrame,
    results: Sequence[Results],
    tables: Tables,
    efficiency: pd.DataFrame,
    specs: Sequence[MetricSpec],
) -> None:
    """Write the page.

    Args:
        path: of the page.
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        results: what they say of each dataset.
        tables: of both.
        efficiency: as :func:`~lifeiqa_plugin.benchmark.speed.read_speed` returns it.
        specs: the metrics.
    """
    version = lifeiqa_plugin.__version__
    content = {
        "headline": headline(results),
        "about": f"{len(specs)} metrics. Written by lifeiqa benchmark {version}.",
        "explanation": EXPLANATION,
        "cost_explanation": COST,
        "summary": [_table(tables.summary)] if tables.summary else [],
        "datasets": [_dataset(scores, one, tables, specs) for one in results],
        "efficiency": efficiency.to_dict("records"),
        "cost": _table(tables.cost),
        "failures": _table(tables.more_failures),
        "failure_count": tables.failure_count,
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    path.write_text(embed(template, content, TITLE), encoding="utf-8")


def headline(results: Sequence[Results]) -> str:
    """Say which metric agrees best with people, among those that scored all and learnt from none; empty if none did."""
    rated = [one for one in results if one.dataset.kind == "mos"]
    if not rated:
        return ""
    ranked = pd.concat([one.status["complete"] & ~one.status["learnt"] for one in rated], axis=1)
    names = list(ranked.index[ranked.all(axis=1)])
    means = {
        name: float(np.mean([one.values[name, "srcc"].value for one in rated])) for name in names
    }
    best = sorted(
        (name for name in names if np.isfinite(means[name])), key=lambda name: -means[name]
    )
    if not best:
        return ""
    where = rated[0].dataset.name if len(rated) == 1 else f"{len(rated)} datasets, on average"
    then = f", then {best[1]} with {means[best[1]]:.3f}" if best[1:] else ""
    return f"{best[0]} agrees best with people on {where}: SRCC {means[best[0]]:.3f}{then}."


def _table(table: Table) -> dict[str, Any]:
    """Return what ``charts.js`` draws as a table; the titles of spans are part of the header."""
    marks = [[*place, mark] for place, mark in table.marks.items()]
    return {
        "caption": table.caption,
        "id": table.label,
        "header": [title or "metric" for title in table.flat_header],
        "rows": table.rows,
        "marks": marks,
    }


def _dataset(
    scores: pd.DataFrame,
    results: Results,
    tables: Tables,
    specs: Sequence[MetricSpec],
) -> dict[str, Any]:
    dataset = results.dataset
    metrics: list[dict[str, Any]] = []
    images: list[dict[str, str]] = []
    outside = 0
    if dataset.kind == "mos":
        mine = scores[(scores["dataset"] == dataset.name) & (scores["error"] == "")]
        for spec in specs:
            srcc = results.values[spec.name, "srcc"]
            metrics.append(_metric(dataset, mine[mine["metric"] == spec.name], spec, srcc))
        images = _images(dataset)
        outside = sum(not _is_inside(dataset, image) for image in dataset.images)
    return {
        "name": dataset.name,
        "rows": dataset.rows,
        "images": images,
        "outside": outside,
        "metrics": metrics,
        "tables": [_table(table) for table in tables.datasets[dataset.name]],
    }


def _images(dataset: LabelledDataset) -> list[dict[str, str]]:
    """Return name and small copy of every image; evenly spaced ones have a copy where there are too many."""
    count = len(dataset.images)
    shown = set(np.linspace(0, count - 1, min(THUMBNAILS, count)).astype(int))
    found = []
    bar = tqdm(dataset.images, desc=f"small copies of {dataset.name}", unit="image")
    for row, image in enumerate(bar):
        thumbnail = _copy(dataset, image, 110, 50) if row in shown else ""
        found.append({"name": image.name, "thumbnail": thumbnail})
    return found


def _is_inside(dataset: LabelledDataset, image: LabelledImage) -> bool:
    """Tell whether an image lies below the folder of its dataset, whatever its csv says."""
    root, path = os.path.abspath(dataset.root), os.path.abspath(image.path)
    return Path(path).is_relative_to(root)


def _copy(dataset: LabelledDataset, image: LabelledImage, side: int, quality: int) -> str:
    return small_copy(image.path, side, quality) if _is_inside(dataset, image) else ""


def _metric(
    dataset: LabelledDataset, rows: pd.DataFrame, spec: MetricSpec, srcc: Interval
) -> dict[str, Any]:
    at = {image.name: i for i, image in enumerate(dataset.images)}
    index = [at[name] for name in rows["name"]]
    scores, mos = rows["score"].to_numpy(float), rows["mos"].to_numpy(float)
    points = [[i, _shorten(a), _shorten(b)] for i, a, b in zip(index, scores, mos, strict=True)]
    curve = fit("logistic4", scores, mos)
    line_of_curve, worst = [], []
    if curve is not None:
        grid = np.linspace(scores.min(), scores.max(), 80)
        line_of_curve = np.stack([grid, curve(grid)], axis=1).tolist()
        worst = _worst(dataset, index, curve(scores), mos)
    return {
        "metric": spec.name,
        "lower_better": spec.lower_better,
        "srcc": srcc.value,
        "srcc_low": srcc.low,
        "srcc_high": srcc.high,
        "points": points,
        "curve": line_of_curve,
        "worst": worst,
    }


def _shorten(value: float) -> float:
    """Round to the digits that a chart can show."""
    return float(f"{value:.6g}")


def _worst(
    dataset: LabelledDataset, index: list[int], predicted: Floats, mos: Floats
) -> list[dict[str, Any]]:
    """Return the images farthest above and below what people say."""
    order = np.argsort(predicted - mos)
    half = min(WORST // 2, len(order) // 2)
    found = []
    for i in [*order[::-1][:half], *order[:half]]:
        copy = _copy(dataset, dataset.images[index[i]], 320, 70)
        about = {"row": index[i], "predicted": predicted[i], "mos": mos[i]}
        found.append({**about, "image": copy})
    return found
