"""From rows of scores and a folder of images to what the page shows."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lifeiqa_plugin.explanation.details import main_flaw, quality_limits
from lifeiqa_plugin.explanation.explain import explain
from lifeiqa_plugin.explanation.explanation import Explanation
from lifeiqa_plugin.images.near_duplicates import fingerprint, group_near_duplicates
from lifeiqa_plugin.images.pixels import as_bytes
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.stream import TOO_SMALL
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.page import embed, small_copy
from lifeiqa_plugin.scoring.rows import ScoredImage
from lifeiqa_plugin.words import write_sentence

TEMPLATE = Path(__file__).with_name("report.html")

LARGEST, SMALLEST = 400, 64
"""Longer side of the small copies, in pixels, of few photos and of very many."""

SIDE_OF_5000 = 150
"""The same for 5,000 photos, whose page then has about 30 MB; in between, all copies together stay as large."""

VIEW = 800
"""Longer side of the photos for which maps are shown."""

MAP_CELLS = 40
"""Longer side of a map on the page: the maps are smooth, and the browser enlarges them."""


def write_report(
    rows: Sequence[ScoredImage],
    root: Path,
    out: Path,
    network: LifeIQA,
    maps: int,
) -> str:
    """Write the page and return one line on it.

    Args:
        rows: of the images, those with an error as well.
        root: folder to which the names of the rows are relative.
        out: of the page.
        network: that gave the scores, for the maps.
        maps: how many images have their quality map and attention on the page: those with the lowest scores.

    Raises:
        OSError: the page cannot be written.
        ValueError: no row has a score.
    """
    scored = [row for row in rows if has_score(row)]
    if not scored:
        raise ValueError(f"none of the {len(rows)} images has a score, so there is nothing to show")
    side = copy_side(len(scored))
    images, prints = [], []
    for row in tqdm(scored, desc="small copies", unit="image"):
        image, mark = _entry(row, root, out, side)
        image["sentence"] = _sentence(row, network)
        images.append(image)
        prints.append(mark)
    for image, group in zip(images, group_near_duplicates(np.stack(prints)), strict=True):
        image["group"] = group
    _add_views(images, scored, root, network, maps)
    failures = [[row.name, row.error or "no score"] for row in rows if not has_score(row)]
    title = f"{len(scored):,} photos, by quality"
    page = embed(
        TEMPLATE.read_text(encoding="utf-8"),
        {
            "about": _about(scored, images),
            "kinds": list(scored[0].distortions),
            "range": _score_range(network, scored),
            "no_view": f"For map and attention: lifeiqa report --maps N, or lifeiqa explain. "
            f"This page has those of the {min(maps, len(scored))} lowest scores.",
            "images": images,
            "failures": failures,
        },
        title,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as file:
        file.write(page.encode())
    return f"{out}: {len(scored)} photos, {out.stat().st_size / 1e6:.1f} MB"


def _sentence(row: ScoredImage, network: LifeIQA) -> str:
    if TOO_SMALL in row.notes:
        return TOO_SMALL
    return write_sentence(
        row.score, row.std, row.distortions, network.naming, score_range=network.score_range
    )


def _score_range(network: LifeIQA, rows: Sequence[ScoredImage]) -> tuple[float, float]:
    """Return the lowest and the highest score of the network, or of the rows where it has no limits."""
    if network.score_range is not None:
        return network.score_range
    scores = [row.score for row in rows]
    return min(scores), max(max(scores), min(scores) + 1e-3)


def has_score(row: ScoredImage) -> bool:
    """Whether an image could be scored."""
    return row.error is None and math.isfinite(row.score)


def copy_side(count: int) -> int:
    """Return the longer side of small copies of that many photos."""
    side = round(SIDE_OF_5000 * math.sqrt(5000 / count))
    return max(SMALLEST, min(LARGEST, side))


def _about(rows: Sequence[ScoredImage], images: Sequence[dict[str, Any]]) -> str:
    groups = {image["group"] for image in images} - {None}
    alike = f" {len(groups)} groups of near-duplicates." if groups else ""
    lowest, highest = min(row.score for row in rows), max(row.score for row in rows)
    return (
        f"Scores from {lowest:.2f} to {highest:.2f}, higher is better; ± is one standard deviation of the error "
        f"to expect.{alike} Choose a photo to see why."
    )


def _entry(
    row: ScoredImage, root: Path, out: Path, side: int
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Return what the page knows of an image, and its fingerprint (0 if the file is gone)."""
    path = root / row.name
    entry = {
        "name": row.name,
        "score": round(row.score, 4),
        "std": round(row.std, 4),
        "width": row.width,
        "height": row.height,
        "note": "; ".join(row.notes),
        "distortions": [round(100 * value) for value in row.distortions.values()],
        "link": _link(path, out.parent),
        "small": "",
    }
    try:
        small = Image.fromarray(as_bytes(decode(path, at_least=side).pixels))
    except OSError:
        return entry, np.zeros(1024, dtype=np.float32)
    mark = fingerprint(small)
    entry["small"] = small_copy(small, side, 60)
    return entry, mark


def _link(path: Path, start: Path) -> str:
    """Return a link from the page to a file, relative so that both can move together."""
    try:
        relative = os.path.relpath(path, start)
    except ValueError:  # on another drive
        return path.absolute().as_uri()
    return quote(Path(relative).as_posix())


def _add_views(
    images: Sequence[dict[str, Any]],
    rows: Sequence[ScoredImage],
    root: Path,
    network: LifeIQA,
    maps: int,
) -> None:
    lowest = sorted(range(len(rows)), key=lambda i: rows[i].score)[:maps]
    for i in tqdm(lowest, desc="maps", unit="image"):
        try:
            explanation = explain(root / rows[i].name, network, attribution_steps=0)
        except (OSError, ValueError):
            continue  # gone since it was scored; its card is there without an image
        images[i]["view"] = view(explanation)
        images[i]["sentence"] = explanation.sentence


def view(explanation: Explanation) -> dict[str, Any]:
    """Return the quality map, the map of one distortion and attention as the page draws them: a byte per cell."""
    height, width = explanation.quality_map.shape
    rows = max(1, round(MAP_CELLS * height / max(height, width)))
    columns = max(1, round(MAP_CELLS * width / max(height, width)))
    low, high = quality_limits(explanation)
    attention = explanation.attention[-1]  # of the last layer
    most = max(2.0, float(np.quantile(attention, 0.999)))
    shown: dict[str, Any] = {
        "photo": small_copy(Image.fromarray(explanation.image), VIEW, 75),
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
