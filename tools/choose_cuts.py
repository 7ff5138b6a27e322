"""Choose from which strengths on a model names distortions, on photos that people have rated, and write that into it.

    lifeiqa score PHOTOS -o scores.csv
    python tools/choose_cuts.py scores.csv opinions.csv [opinions.csv ...] --write CHECKPOINT

Each opinions.csv has the columns ``name`` and ``mos``, and is one set: worst and best third are those of the set.
A distortion is likely from the lowest strength on above which ``WORST`` of the photos are of the worst thirds. It is
sure in the upper half of the photos that are named so. Each cut is so high that at most ``LIKED`` of the best thirds
are named; what is likely is not said of good photos. Where fewer than ``ENOUGH`` photos are named, and for what may be
meant, the cuts are those of ``BY_HAND``.

``--write`` puts the cuts into the checkpoint and the ONNX files beside it, and the new digests into the sources; the
weights stay what they are, byte for byte.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from write_option import write_option

from lifeiqa_plugin.scoring.rows import ScoredImage, parse_row, read_rows
from lifeiqa_plugin.words import ANY_BLUR, BANDS, BLURS, MEANT, find_flaws, join_blurs

ROOT = Path(__file__).parents[1]
SEEN = ROOT / "measurements" / "seen.csv"
"""What photos are to the eye: half A and val may choose, half B and test only check."""

LIKED, WORST, ENOUGH = 0.005, 2 / 3, 15
LOWEST, SURE = 0.1, 0.2
"""Of cuts that are chosen: below it a bad photo has another flaw than the one that is named."""

LOWER = {ANY_BLUR: 0.05, "upscaled": 0.05}
"""Half of what the eye finds unsharp lies below .2."""

BY_HAND = {
    "warped": (0.4, 0.6),
    "patchy": (0.5, 0.7),
    "over-exposed": (0.4, 0.5),
    "dark": (0.3, 0.6),
}
BY_HAND |= dict.fromkeys(("low contrast", "colour cast"), (0.4, 0.6))
OTHERS = (0.3, 0.5)

KNOTS = 6
"""Of the table of shares."""


class Photo(NamedTuple):
    """A photo with an opinion."""

    third: int  # 0 the worst, 2 the best
    score: float
    strengths: dict[str, float]


def read_photos(scored: dict[str, ScoredImage], opinions: Iterable[Path]) -> list[Photo]:
    """Return the photos that have an opinion."""
    photos = []
    for path in opinions:
        with path.open(newline="", encoding="utf-8") as file:
            mos = {row["name"]: float(row["mos"]) for row in csv.DictReader(file)}
        mos = {name: value for name, value in mos.items() if name in scored}
        if not mos:
            raise SystemExit(f"{path}: none of its names has a score")
        thirds = np.searchsorted(
            np.quantile(list(mos.values()), [1 / 3, 2 / 3]), list(mos.values())
        )
        for name, third in zip(mos, thirds.tolist(), strict=True):
            one = scored[name]
            if one.distortions:
                photos.append(Photo(third, one.score, join_blurs(one.distortions)))
    return photos


def choose(name: str, photos: list[Photo]) -> dict[str, Any]:
    """Return the cut of a distortion."""
    photos = sorted(photos, key=lambda photo: photo.strengths[name])
    strengths = np.array([photo.strengths[name] for photo in photos])
    is_worst = np.array([photo.third == 0 for photo in photos])
    is_best = np.array([photo.third == 2 for photo in photos])
    is_good = np.array([photo.score >= BANDS["good"] for photo in photos])
    allowed = LIKED * is_best.sum()
    worst = _from_here(is_worst) / np.arange(len(photos), 0, -1)
    fits = (
        (_from_here(is_best & ~is_good) <= allowed)
        & (worst >= WORST)
        & (strengths >= LOWER.get(name, LOWEST))
    )
    first = int(fits.argmax())
    likely, sure = BY_HAND.get(name, OTHERS)
    if fits.any() and len(photos) - first >= ENOUGH and name not in MEANT:
        likely = float(strengths[first])
        spared = strengths[int((_from_here(is_best) <= allowed).argmax())]
        sure = max(SURE, float(np.median(strengths[first:])), float(spared))
    shares = shares_of(strengths, is_worst)
    return {"likely": round(likely, 3), "sure": round(sure, 3), "shares": shares}


def _from_here(is_so: np.ndarray) -> np.ndarray:
    """Count in sorted photos those from each on."""
    return np.cumsum(is_so[::-1])[::-1]


def shares_of(strengths: np.ndarray, is_worst: np.ndarray) -> list[list[float]]:
    """Return the share of the worst by strength as a rising line of at most ``KNOTS`` knots.

    Neighbors that fall are pooled (isotonic regression), then those that differ least, and those of few photos.
    """
    bins = [
        [part.mean(), shares.mean(), len(part)]
        for part, shares in zip(
            np.array_split(strengths, 40), np.array_split(is_worst, 40), strict=True
        )
        if len(part)
    ]
    while len(bins) > 1:
        steps = np.diff([share for _, share, _ in bins])
        i = int(steps.argmin())
        if steps[i] > 0 and len(bins) <= KNOTS:
            break
        (x, share, n), (next_x, next_share, m) = bins[i : i + 2]
        pooled = [(x * n + next_x * m) / (n + m), (share * n + next_share * m) / (n + m), n + m]
        bins[i : i + 2] = [pooled]
    return [[round(float(x), 4), round(float(share), 3)] for x, share, _ in bins]


def check(scored: dict[str, ScoredImage], naming: dict[str, Any]) -> None:
    """Print how many of the photos that were looked at have a flaw above its cut."""
    groups: dict[tuple[str, str], list[list[str]]] = {}
    with SEEN.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["name"] in scored:
                one = scored[row["name"]]
                found = [flaw.name for flaw in find_flaws(one.score, one.distortions, naming)]
                groups.setdefault((row["set"], row["kind"]), []).append(found)
    for (which, kind), flaws in sorted(groups.items()):
        blurred = sum(bool({*BLURS, ANY_BLUR} & {*found}) for found in flaws)
        print(f"{which}, {kind}: {len(flaws)}, blur {blurred}, any flaw {sum(map(bool, flaws))}")


def main() -> None:
    """Parse the command line, choose, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scores", type=Path, help="what 'lifeiqa score -o' wrote")
    parser.add_argument("opinions", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, metavar="CHECKPOINT")
    args = parser.parse_args()
    scored = {Path(row["path"]).name: parse_row(row) for row in read_rows(args.scores)}
    photos = read_photos(scored, args.opinions)
    naming = {name: choose(name, photos) for name in photos[0].strengths}
    for name, cut in naming.items():
        print(f"{name:15} likely {cut['likely']:.3f}  sure {cut['sure']:.3f}  {cut['shares']}")
    check(scored, naming)
    if args.write:
        write_option(args.write, "naming", naming)


if __name__ == "__main__":
    main()
