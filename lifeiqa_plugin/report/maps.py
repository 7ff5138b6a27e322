"""The maps of the photos with the lowest scores, as the page draws them; needs torch."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lifeiqa_plugin.explanation.details import main_flaw, quality_limits
from lifeiqa_plugin.explanation.explain import explain
from lifeiqa_plugin.explanation.explanation import Explanation
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.report.photos import Photo

MAP_CELLS = 40
"""Longer side of a map on the page: the maps are smooth, and the browser enlarges them."""


def add_maps(
    entries: Sequence[dict[str, Any]], photos: Sequence[Photo], network: LifeIQA, count: int
) -> None:
    """Give the entries of the ``count`` lowest scores a ``view``, and the sentence that names a place."""
    lowest = sorted(range(len(photos)), key=lambda i: photos[i].row.score)[:count]
    for i in tqdm(lowest, desc="maps", unit="image"):
        try:
            explanation = explain(photos[i].path, network, attribution_steps=0)
        except (OSError, ValueError):
            continue  # gone since it was scored; its card is there without an image
        entries[i]["view"] = view(explanation)
        entries[i]["sentence"] = explanation.sentence


def view(explanation: Explanation) -> dict[str, Any]:
    """Return the quality map, the map of one distortion and attention as the page draws them: a byte per cell."""
    height, width = explanation.quality_map.shape
    rows = max(1, round(MAP_CELLS * height / max(height, width)))
    columns = max(1, round(MAP_CELLS * width / max(height, width)))
    low, high = quality_limits(explanation)
    attention = explanation.attention[-1]  # of the last layer
    most = max(2.0, float(np.quantile(attention, 0.999)))
    shown: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "low": low,
        "high": high,
        "map": _cells(explanation.quality_map, rows, columns, low, high),
        "attention": [_cells(query, rows, columns, 0.0, most) for query in attention],
    }
    if explanation.distortions:
        name, values = main_flaw(explanation)
        shown["flaw"] = {"name": name, "map": _cells(values, rows, columns, 0.0, 1.0)}
    return shown


def _cells(values: NDArray[np.float32], rows: int, columns: int, low: float, high: float) -> str:
    """Reduce a map to cells of one byte, 0 at ``low`` and 255 at ``high``, in base64."""
    resized = Image.fromarray(values).resize((columns, rows), Image.Resampling.BOX)
    scaled = (np.asarray(resized) - low) / (high - low) * 255
    return base64.b64encode(scaled.clip(0, 255).round().astype(np.uint8).tobytes()).decode()
