"""One HTML page with all tables, charts and small copies of the images in it; it needs no network and no server."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

import lifeiqa_plugin
from lifeiqa_plugin.benchmark.accuracy import Accuracy
from lifeiqa_plugin.benchmark.datasets import LabelledDataset
from lifeiqa_plugin.benchmark.metrics import Candidate
from lifeiqa_plugin.benchmark.report import (
    COST,
    EXPLANATION,
    Rows,
    accuracy_rows,
    cost_rows,
    group_rows,
    pair_rows,
)
from lifeiqa_plugin.correlation import Floats, fit
from lifeiqa_plugin.images.reading import open_image

TEMPLATE = Path(__file__).with_name("page.html")
WORST = 8
"""Images in the gallery of each metric: half of them scored too high, half too low."""


def write_page(
    path: Path,
    scores: pd.DataFrame,
    accuracy: Accuracy,
    efficiency: pd.DataFrame,
    candidates: list[Candidate],
    sets: list[LabelledDataset],
    thumbnails: int,
) -> None:
    """Write the page.

    Args:
        path: of the page.
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        accuracy: all its tables.
        efficiency: as :func:`~lifeiqa_plugin.benchmark.speed.measure_speed` returns it.
        candidates: the metrics.
        sets: the sets.
        thumbnails: images of each set that are shown below the pointer; of larger sets, evenly spaced ones.
    """
    failures = accuracy.failures.head(1000)
    content = {
        "about": f"{len(candidates)} metrics. Written by lifeiqa benchmark {lifeiqa_plugin.__version__}.",
        "explanation": EXPLANATION,
        "cost_explanation": COST,
        "sets": [_set(chosen, scores, accuracy, candidates, thumbnails) for chosen in sets],
        "efficiency": efficiency.to_dict("records"),
        "cost": _table(*cost_rows(efficiency)),
        "failures": _table(
            list(failures.columns), [[str(cell) for cell in line] for line in failures.to_numpy()]
        ),
        "failure_count": len(accuracy.failures),
    }
    text = json.dumps(_plain(content), allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    path.write_text(
        TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/", text), encoding="utf-8"
    )


def _table(header: list[str], rows: Rows) -> dict[str, Any]:
    return {"header": header, "rows": rows}


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers into Python's, and those that JSON does not know into null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _set(
    chosen: LabelledDataset,
    scores: pd.DataFrame,
    accuracy: Accuracy,
    candidates: list[Candidate],
    thumbnails: int,
) -> dict[str, Any]:
    overall = accuracy.overall[accuracy.overall["set"] == chosen.name].set_index("metric")
    groups = accuracy.groups[accuracy.groups["set"] == chosen.name]
    shown = set(
        np.linspace(0, len(chosen.images) - 1, min(thumbnails, len(chosen.images))).astype(int)
    )
    images = [
        {"name": image.name, "thumbnail": small_copy(image.path, 110) if i in shown else ""}
        for i, image in enumerate(
            tqdm(chosen.images, desc=f"small copies of {chosen.name}", unit="image")
        )
    ]
    mine = scores[(scores["set"] == chosen.name) & (scores["error"] == "")]
    return {
        "name": chosen.name,
        "images": images,
        "metrics": [
            _metric(chosen, mine[mine["metric"] == c.name], c, overall.loc[c.name])
            for c in candidates
        ],
        "accuracy": _table(*accuracy_rows(accuracy.overall, chosen.name)),
        "pairs": _table(*pair_rows(accuracy.pairs, chosen.name)),
        "groups": [
            {"column": column} | _table(*group_rows(groups, chosen.name, column))
            for column in dict.fromkeys(groups["column"])
        ],
    }


def _metric(
    chosen: LabelledDataset, rows: pd.DataFrame, candidate: Candidate, line: pd.Series
) -> dict[str, Any]:
    at = {image.name: i for i, image in enumerate(chosen.images)}
    index = [at[name] for name in rows["name"]]
    x, mos = rows["score"].to_numpy(float), rows["mos"].to_numpy(float)
    curve = fit("logistic4", x, mos)
    grid = np.linspace(x.min(), x.max(), 80) if curve else np.zeros(0)
    return {
        "metric": candidate.name,
        "lower_better": candidate.lower_better,
        "srcc": line["srcc"],
        "srcc_low": line["srcc_low"],
        "srcc_high": line["srcc_high"],
        "points": [
            [i, round(float(a), 5), round(float(b), 5)]
            for i, a, b in zip(index, x, mos, strict=True)
        ],
        "curve": [[float(a), float(b)] for a, b in zip(grid, curve(grid), strict=True)]
        if curve
        else [],
        "worst": [] if curve is None else _worst(chosen, index, curve(x), mos),
    }


def _worst(
    chosen: LabelledDataset, index: list[int], predicted: Floats, mos: Floats
) -> list[dict[str, Any]]:
    """Return the images farthest above and below what people say."""
    order = np.argsort(predicted - mos)
    half = min(WORST // 2, len(order) // 2)
    return [
        {"row": index[i], "predicted": predicted[i], "mos": mos[i]}
        | {"image": small_copy(chosen.images[index[i]].path, 320, 70)}
        for i in [*order[::-1][:half], *order[:half]]
    ]


def small_copy(path: str, side: int, quality: int = 50) -> str:
    """Return an image reduced to ``side`` pixels as a data URL; empty if it cannot be read."""
    try:
        with open_image(path) as image:
            image.draft("RGB", (side, side))
            small = image.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError):
        return ""
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
