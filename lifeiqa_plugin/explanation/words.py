"""One sentence on an image, from its score and what is named beside it; needs no torch.

How each part is to be read, and how often it is right: ``docs/explaining.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BANDS = {"excellent": 0.8, "good": 0.6, "fair": 0.45, "poor": 0.3, "bad": float("-inf")}
"""Word -> the lowest score it is said of; ``good`` and ``bad`` end where ``lifeiqa score`` keeps and drops."""


FLAT = "one color throughout: there is nothing to judge"


class Cut(NamedTuple):
    """From which strengths on a distortion is named, and of which images."""

    likely: float
    sure: float
    below: float = float(
        "inf"
    )  # a score; from there on it may be meant, and places with more of it are natural


CUTS = {
    "blur": Cut(0.25, 0.5),
    "motion blur": Cut(0.25, 0.5),
    "any blur": Cut(0.25, 0.5),
    "noise": Cut(0.25, 0.5),
    "impulse noise": Cut(0.3, 0.5),
    "blocking": Cut(0.3, 0.5),
    "ringing": Cut(0.3, 0.5),
    "upscaled": Cut(0.3, 0.5),
    "over-sharpened": Cut(0.3, 0.5),
    "over-smoothed": Cut(0.3, 0.5),
    "over-exposed": Cut(0.4, 0.5, below=0.45),
    "dark": Cut(0.3, 0.6, below=0.45),
    "low contrast": Cut(0.4, 0.6, below=0.45),
    "colour cast": Cut(0.4, 0.6, below=0.45),
    "warped": Cut(0.4, 0.6),
    "patchy": Cut(0.5, 0.7),
}
"""For the bundled networks; chosen on 1,500 photos of BIQ2021's training split, 66 of which were looked at. Of the good
ones among them, .6 % have a flaw above its cut."""

OTHER_CUT = Cut(0.5, 0.7)
"""Of distortions with other names."""

PHRASES = {
    "blur": "out of focus",
    "any blur": "blur",
    "impulse noise": "specks",
    "blocking": "blocks from compression",
    "ringing": "ringing from compression",
    "upscaled": "enlargement from a smaller image",
    "over-sharpened": "over-sharpening",
    "over-smoothed": "smearing by noise reduction",
    "over-exposed": "over-exposure",
    "dark": "too dark",
    "low contrast": "loss of contrast",
    "warped": "warping",
    "patchy": "patches",
}
"""Name of a distortion -> what is said of it; other names are said as they are."""

RANKED = ("noise", "impulse noise", "blocking", "ringing", "upscaled", "low contrast", "warped")
"""Whose strength follows severity with a rank correlation of .75 or more in both bundled networks."""

CLEAR, STRONG = 0.6, 0.77
"""From here on one of ``RANKED`` is called so: between its medians at severities of .25 and .5, and of .5 and .75."""

MOST = 3
"""Flaws that a sentence names."""

LOCAL = 0.4
"""What a ninth of the image must have of a distortion beyond the mean, to be the place of that distortion."""

FAR = 3
"""Standard deviations of the score by which a place lies below the mean, to be called the worst. Of 60 images, dark and
empty places were up to 2.6 below but for one, distorted quarters and halves 3.2 or more."""

PLACES = (
    "in the upper left", "at the top", "in the upper right",
    "on the left", "in the middle", "on the right",
    "in the lower left", "at the bottom", "in the lower right",
)  # fmt: skip
"""Of the ninths of an image, row by row."""


class LocalFlaw(NamedTuple):
    """A distortion that one part of the image has more of than the rest."""

    name: str
    strength: float  # there, in 0 .. 1
    place: str


def find_local_flaw(names: Sequence[str], maps: Floats) -> LocalFlaw | None:
    """Return the distortion of which a ninth of the image has most beyond the mean, if that is ``LOCAL`` at least.

    Args:
        names: D distortions.
        maps: how firmly each is named at each place, (D, H, W).
    """
    if not names:
        return None
    ninths = by_ninth(maps)  # (D, 9)
    excess = ninths.max(1) - maps.mean((1, 2))
    most = int(excess.argmax())
    if excess[most] < LOCAL:
        return None
    return LocalFlaw(names[most], float(ninths[most].max()), PLACES[int(ninths[most].argmax())])


def by_ninth(maps: Floats) -> NDArray[np.float64]:
    """Average maps (..., H, W) over a grid of 3 x 3 places, (..., 9) row by row."""
    rows = np.array_split(maps, 3, axis=-2)
    parts = [part for row in rows for part in np.array_split(row, 3, axis=-1)]
    return np.stack([part.mean((-2, -1), dtype=np.float64) for part in parts], axis=-1)


def write_sentence(
    score: float,
    std: float,
    distortions: Mapping[str, float],
    quality_map: Floats | None = None,
    local: LocalFlaw | None = None,
    score_range: tuple[float, float] | None = (0.0, 1.0),
) -> str:
    """Say how good an image is and what is wrong with it, for instance ``bad: motion blur, likely too dark``.

    Args:
        score: finite, higher is better.
        std: of the score. A place that is not good has a flaw of its own if it lies further than ``std`` below the
            mean of the map, and is called the worst from ``FAR`` times that on. NaN: no place is said.
        distortions: name -> strength in 0 .. 1 in the whole image; empty for a network that names none.
        quality_map: (H, W), in units of the score; None: no place is said.
        local: the distortion that one place has more of than the rest.
        score_range: the worst and the best score; None for a network without limits, whose scores have no words.
    """
    if score_range is None:
        return ", ".join(name_flaws(BANDS["fair"], distortions)[:MOST]) or "no flaw named"
    worst, best = score_range
    score, std = (score - worst) / (best - worst), std / (best - worst)
    if quality_map is not None:
        quality_map = (quality_map - worst) / (best - worst)
    place, placed = "", ""
    if quality_map is not None:
        far = _find_low_places(quality_map, FAR * std)
        place = min(far, key=far.__getitem__, default="")
        low = _find_low_places(quality_map, std)
        placed = _name_with_place(local, low, distortions) if local else ""
    flaws = name_flaws(score, distortions, is_uneven=bool(place))
    if local and placed:
        others = {name: value for name, value in distortions.items() if name != local.name}
        flaws = [placed, *name_flaws(score, others, is_uneven=True)]
        place = ""
    band = band_of(score)
    if flaws:
        return f"{band}: {', '.join(flaws[:MOST])}" + (f"; worst {place}" if place else "")
    if not distortions:
        return f"{band}: this model names no distortions"
    if score < BANDS["good"]:
        return f"{band}: cause not named"
    return f"{band}: {'no flaw named' if place else 'nothing stands out'}"


def band_of(score: float) -> str:
    """Return the word of ``BANDS`` for a score."""
    return next(word for word, lowest in BANDS.items() if score >= lowest)


def name_flaws(
    score: float, distortions: Mapping[str, float], is_uneven: bool = False
) -> list[str]:
    """Return what is wrong with an image of that score: what is sure first, the strongest first.

    Args:
        score: of the image.
        distortions: name -> strength in 0 .. 1.
        is_uneven: the strengths are means over places that differ, and so say nothing on what is slight.
    """
    found = []
    for name, strength in _join_blurs(distortions).items():
        cut = CUTS.get(name, OTHER_CUT)
        if strength >= cut.likely and score < cut.below:
            is_sure = strength >= cut.sure
            may_be_slight = score >= BANDS["fair"] and not is_uneven
            phrase = _phrase(name, strength, may_be_slight) if is_sure else _likely(name)
            found.append((not is_sure, -strength, phrase))
    return [phrase for *_, phrase in sorted(found)]


def _name_with_place(
    local: LocalFlaw, low: Mapping[str, float], distortions: Mapping[str, float]
) -> str:
    """Name a flaw of one place, if that is low, and neither is the flaw sure of the whole image nor may it be meant."""
    cut = CUTS.get(local.name, OTHER_CUT)
    is_everywhere = distortions.get(local.name, 0.0) >= cut.sure
    if local.place not in low or is_everywhere or cut.below < 1:
        return ""
    named = name_flaws(low[local.place], {local.name: local.strength})
    return f"{named[0]} {local.place}" if named else ""


def _join_blurs(distortions: Mapping[str, float]) -> dict[str, float]:
    """Take blur and motion blur for one flaw, which is called ``any blur`` where neither is sure."""
    joined = dict(distortions)
    blurs = {name: joined.pop(name) for name in ("blur", "motion blur") if name in joined}
    if blurs:
        name = max(blurs, key=blurs.__getitem__)
        strength = 1 - np.prod([1 - value for value in blurs.values()])
        joined[name if blurs[name] >= CUTS[name].sure else "any blur"] = float(strength)
    return joined


def _likely(name: str) -> str:
    return f"likely {PHRASES.get(name, name)}"


def _phrase(name: str, strength: float, may_be_slight: bool) -> str:
    phrase = PHRASES.get(name, name)
    if name not in RANKED:
        return phrase
    if strength >= CLEAR:
        return f"{'strong' if strength >= STRONG else 'clear'} {phrase}"
    return f"slight {phrase}" if may_be_slight else phrase


def _find_low_places(quality_map: Floats, std: float) -> dict[str, float]:
    """Return the ninths that are not good, and lower than the mean by more than ``std``, with their quality."""
    lowest = np.minimum(BANDS["good"], quality_map.mean() - std)  # NaN stays NaN
    ninths = zip(PLACES, by_ninth(quality_map).tolist(), strict=True)
    return {place: quality for place, quality in ninths if quality < lowest}
