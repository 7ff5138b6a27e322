"""From photos and their scores to what the page shows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from PIL import Image
from tqdm import tqdm

from lifeiqa_plugin.images.bursts import SIDE, Frame, chance, find_groups, look
from lifeiqa_plugin.images.pixels import as_bytes
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.refusals import name_of
from lifeiqa_plugin.images.stream import TOO_SMALL
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.page import embed, small_copy
from lifeiqa_plugin.report.photos import Photo
from lifeiqa_plugin.scoring.rows import ScoredImage, Thresholds
from lifeiqa_plugin.words import FLAT, QUALIFIER, Naming, write_sentence

if TYPE_CHECKING:
    from lifeiqa_plugin.network.lifeiqa import LifeIQA

ROOM = Path(__file__).parent
SCRIPTS = ("picks.js", "cards.js", "zoom.js", "dialog.js", "exports.js", "start.js")

LARGEST, SMALLEST = 400, 64
"""Longer side of the small copies, in pixels, of few photos and of very many."""

SIDE_OF_5000 = 150
"""The same for 5,000 photos, whose page then has about 30 MB; in between, all copies together stay as large."""

NO_FLAWS = ("no flaw named", "cause not named", "this model names no distortions")
"""What a sentence says in place of flaws."""


def write_report(
    photos: Sequence[Photo],
    out: Path,
    thresholds: Thresholds,
    network: LifeIQA | None = None,
    maps: int = 0,
) -> str:
    """Write the page and return one line on it.

    Args:
        photos: those with an error as well.
        out: of the page.
        thresholds: of the verdicts; without effect on scores beyond 0 to 1.
        network: that gave the scores, for the maps; None for none.
        maps: how many photos have their quality map and attention on the page: those with the lowest scores.

    Raises:
        OSError: the page cannot be written.
        ValueError: no row has a score.
    """
    scored = [photo for photo in photos if photo.row.has_score]
    if not scored:
        raise ValueError(
            f"none of the {len(photos)} images has a score, so there is nothing to show"
        )
    low, high = _range([row.score for row, _ in scored])
    score_range = (0.0, 1.0) if (low, high) == (0, 1) else None
    naming = network.naming if network else None
    scored = [Photo(_add_sentence(row, naming, score_range), path) for row, path in scored]
    base = _common_folder([path for _, path in scored])
    side = copy_side(len(scored))
    entries, frames = [], []
    for photo in tqdm(scored, desc="small copies", unit="image"):
        entry, frame = _entry(photo, base, out, side)
        entries.append(entry)
        frames.append(frame)
    groups = find_groups(frames)
    for i, entry in enumerate(entries):
        entry["group"], entry["copy"] = groups.burst[i], groups.original[i]
    if network is not None and maps:
        from lifeiqa_plugin.report.maps import add_maps

        add_maps(entries, scored, network, maps)
    keep, drop = thresholds if (low, high) == (0, 1) else (low, low)
    page = embed(
        _template(),
        {
            "range": (low, high),
            "keep": keep,
            "drop": drop,
            "base": base,
            "dropped": str(out.absolute().with_name(f"{out.stem}-dropped")),
            "no_view": "Maps of this photo: lifeiqa explain, or lifeiqa report --maps N.",
            "images": entries,
            "failures": [
                [row.name, row.error or "no score"] for row, _ in photos if not row.has_score
            ],
        },
        f"{len(scored):,} photos, by quality",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as file:
        file.write(page.encode())
    return f"{out}: {len(scored)} photos, {out.stat().st_size / 1e6:.1f} MB"


def _template() -> str:
    """Join the parts of the page."""
    style, body = ((ROOM / name).read_text(encoding="utf-8") for name in ("style.css", "body.html"))
    script = "".join((ROOM / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f"<style>\n{style}</style>\n{body}<script>\n{script}</script>"


def _common_folder(paths: Sequence[str]) -> str:
    """Return the folder that holds all photos; empty if they are on several drives."""
    try:
        return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    except ValueError:
        return ""


def _range(scores: Sequence[float]) -> tuple[float, float]:
    """Return 0 and 1, or the lowest and highest score of a network with another range."""
    low, high = min(scores), max(scores)
    return (0, 1) if low >= 0 and high <= 1 else (low, max(high, low + 1e-3))


def copy_side(count: int) -> int:
    """Return the longer side of small copies of that many photos."""
    side = round(SIDE_OF_5000 * math.sqrt(5000 / count))
    return max(SMALLEST, min(LARGEST, side))


def _entry(photo: Photo, base: str, out: Path, side: int) -> tuple[dict[str, Any], Frame]:
    """Return what the page knows of a photo, and what it is compared by (flat if the file is gone)."""
    row = photo.row
    path = os.path.relpath(photo.path, base) if base else os.path.abspath(photo.path)
    entry = {
        "name": name_of(path),
        "path": path,
        "score": round(row.score, 4),
        "std": round(row.std, 4),
        "width": row.width,
        "height": row.height,
        "chance": chance(row.width, row.height),
        "note": "; ".join(row.notes),
        "is_too_small": TOO_SMALL in row.notes,
        "sentence": row.sentence,
        "flaws": find_flaws(row.sentence or ""),
        "link": link_to(photo.path, out.parent),
        "small": "",
    }
    size = (row.width, row.height)
    try:
        small = Image.fromarray(as_bytes(decode(photo.path, at_least=side).pixels))
    except OSError:
        return entry, Frame(photo.path, size, None, np.zeros((SIDE, SIDE), dtype=np.float32))
    entry["small"] = small_copy(small, side, 60)
    return entry, look(photo.path, small, size)


def _add_sentence(
    row: ScoredImage, naming: Naming | None, score_range: tuple[float, float] | None
) -> ScoredImage:
    """Return a row with its sentence, which those of earlier versions do not have."""
    if row.sentence is not None:
        return row
    sentence = TOO_SMALL
    if TOO_SMALL not in row.notes:
        sentence = write_sentence(
            row.score, row.std, row.distortions, naming, score_range=score_range
        )
    return replace(row, sentence=sentence)


def find_flaws(sentence: str) -> list[str]:
    """Return the flaws that a sentence names.

    >>> find_flaws("fair: slight noise, likely out of focus; worst on the left")
    ['noise', 'out of focus']
    """
    said = sentence.partition("; ")[0].rpartition(": ")[2]
    if said in NO_FLAWS or sentence in (FLAT, TOO_SMALL):
        return []
    return [QUALIFIER.sub("", flaw) for flaw in said.split(", ")]


def link_to(path: str, start: Path) -> str:
    """Return a link from the page to a file, relative so that both can move together."""
    try:
        relative = os.path.relpath(path, start)
    except ValueError:  # on another drive
        return Path(path).absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))
