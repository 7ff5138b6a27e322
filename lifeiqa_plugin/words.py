"""One sentence on an image, from its score and what is named beside it; needs no torch.

How each part is to be read, and how often it is right: ``docs/explaining.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BANDS = {"excellent": 0.8, "good": 0.6, "fair": 0.45, "poor": 0.3, "bad": float("-inf")}
"""Word -> the lowest score it is said of; ``good`` and ``bad`` end where ``lifeiqa score`` keeps and drops."""


FLAT = "one color throughout: there is nothing to judge"

Naming = Mapping[str, Mapping[str, Any]]
"""Name of a distortion -> the fields of its :class:`Cut`: what a checkpoint says in its option ``naming``."""


class Cut(NamedTuple):
    """From which strengths on a distortion is named."""

    likely: float = 0.4
    sure: float = 0.6
    shares: Sequence[tuple[float, float]] = ()
    """(strength, share of the photos with this strength that people rate in the worst third), rising."""

    def share(self, strength: float) -> float:
        """Return that share, between those of the table; NaN without a table."""
        if not self.shares:
            return float("nan")
        strengths, shares = zip(*self.shares, strict=True)
        return float(np.interp(strength, strengths, shares))


class Flaw(NamedTuple):
    """A distortion above its cut."""

    name: str
    phrase: str  # what is said of it
    share: float  # of photos with as much of it that people rate in the worst third; NaN: not known
    is_sure: bool


MEANT = ("over-exposed", "dark", "low contrast", "colour cast")
"""May be meant, and places with more of them are natural: flaws only of poor and bad photos, and never of one place."""

DARK = "dark"
"""Of one place it is said, but as no flaw."""

BLURS, ANY_BLUR = ("blur", "motion blur"), "any blur"
"""The two count as one flaw, and have one cut."""

PHRASES = {
    "blur": "out of focus",
    ANY_BLUR: "blur",
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

QUALIFIER = re.compile("^(likely|slight|clear|strong) ")
"""What a sentence says of a flaw beside its name."""

RANKED = ("noise", "impulse noise", "blocking", "ringing", "upscaled", "low contrast", "warped")
"""Whose strength follows severity with a rank correlation of .75 or more in both bundled networks."""

CLEAR, STRONG = 0.6, 0.77
"""From here on one of ``RANKED`` is called so: between its medians at severities of .25 and .5, and of .5 and .75."""

MOST = 3
"""Flaws that a sentence names."""

LOCAL, LOCAL_DARK = 0.25, 0.4
"""What a ninth of the image must have of a distortion beyond the mean, to be the place of that distortion."""

LOW, LOW_DARK, FAR = 2.5, 1.5, 3
"""Standard deviations of the score by which a place lies below the mean, to be the place of a flaw, to be called dark,
and to be called the worst. Of 62 images, all but dark places were up to 2.3 below, distorted halves and quarters 3.4
or more, and 2 or more where they were darkened."""

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
    """Return the distortion of which a ninth of the image has most beyond the mean, if that is enough.

    Args:
        names: D distortions; of those that may be meant, only ``dark`` counts.
        maps: how firmly each is named at each place, (D, H, W).
    """
    places = [i for i, name in enumerate(names) if name == DARK or name not in MEANT]
    if not places:
        return None
    ninths = by_ninth(maps[places])  # (D, 9)
    least = [LOCAL_DARK if names[i] == DARK else LOCAL for i in places]
    excess = ninths.max(1) - maps[places].mean((1, 2)) - least
    most = int(excess.argmax())
    if excess[most] < 0:
        return None
    ninth = int(ninths[most].argmax())
    return LocalFlaw(names[places[most]], float(ninths[most, ninth]), PLACES[ninth])


def by_ninth(maps: Floats) -> NDArray[np.float64]:
    """Average maps (..., H, W) over a grid of 3 x 3 places, (..., 9) row by row."""
    rows = np.array_split(maps, 3, axis=-2)
    parts = [part for row in rows for part in np.array_split(row, 3, axis=-1)]
    return np.stack([part.mean((-2, -1), dtype=np.float64) for part in parts], axis=-1)


def write_sentence(
    score: float,
    std: float,
    distortions: Mapping[str, float],
    naming: Naming | None = None,
    quality_map: Floats | None = None,
    local: LocalFlaw | None = None,
    score_range: tuple[float, float] | None = (0.0, 1.0),
) -> str:
    """Say how good an image is and what is wrong with it, for instance ``bad: motion blur, likely too dark``.

    Args:
        score: finite, higher is better.
        std: of the score. How far a place that is not good lies below the mean of the map, in units of it, decides what
            is said of it: see ``LOW`` and ``FAR``. NaN: no place is said.
        distortions: name -> strength in 0 .. 1 in the whole image; empty for a network that names none.
        naming: the cuts of the network that gave the strengths; None: those of :class:`Cut` for all.
        quality_map: (H, W), in units of the score; None: no place is said.
        local: the distortion that one place has more of than the rest.
        score_range: the worst and the best score; None for a network without limits, whose scores have no words.
    """
    if score_range is None:
        found = find_flaws(BANDS["fair"], distortions, naming)[:MOST]
        return ", ".join(flaw.phrase for flaw in found) or "no flaw named"
    worst, best = score_range
    score, std = (score - worst) / (best - worst), std / (best - worst)
    places = Places()
    if quality_map is not None:
        in_words = (quality_map - worst) / (best - worst)
        places = _find_places(in_words, std, local, distortions, naming)
    if local and places.flaw:
        distortions = {name: value for name, value in distortions.items() if name != local.name}
    found = find_flaws(score, distortions, naming, is_uneven=bool(places.flaw or places.worst))
    flaws = [*filter(None, [places.flaw]), *(flaw.phrase for flaw in found)]
    said = ", ".join(flaws[:MOST])
    if not said:
        said = "cause not named" if score < BANDS["good"] else "no flaw named"
        said = said if distortions else "this model names no distortions"
        said += f"; dark {places.dark}" if places.dark else ""
    said += f"; worst {places.worst}" if places.worst else ""
    return f"{band_of(score)}: {said}"


class Places(NamedTuple):
    """What is said of places; empty where nothing is."""

    flaw: str = ""  # with its place
    dark: str = ""
    worst: str = ""


def _find_places(
    quality_map: Floats,
    std: float,
    local: LocalFlaw | None,
    distortions: Mapping[str, float],
    naming: Naming | None,
) -> Places:
    """Return what is said of places; the worst is said if it has nothing else."""
    if local is not None and local.name == DARK:
        if local.place in _find_low_places(quality_map, LOW_DARK * std):
            return Places(dark=local.place)
    elif local is not None:
        low = _find_low_places(quality_map, LOW * std)
        flaw = _name_with_place(local, low, distortions, naming)
        if flaw:
            return Places(flaw)
    far = _find_low_places(quality_map, FAR * std)
    return Places(worst=min(far, key=far.__getitem__, default=""))


def band_of(score: float) -> str:
    """Return the word of ``BANDS`` for a score."""
    return next(word for word, lowest in BANDS.items() if score >= lowest)


def find_flaws(
    score: float,
    distortions: Mapping[str, float],
    naming: Naming | None = None,
    is_uneven: bool = False,
) -> list[Flaw]:
    """Return the distortions above their cut: what is sure first, the strongest first.

    Args:
        score: of the image, from 0 to 1.
        distortions: name -> strength in 0 .. 1.
        naming: as for :func:`write_sentence`.
        is_uneven: the strengths are means over places that differ, and so say nothing on what is slight.
    """
    found = []
    for name, strength in join_blurs(distortions).items():
        cut = cut_of(name, naming)
        if name == ANY_BLUR:
            name = _kind_of_blur(distortions, cut.sure)
        if not _is_said(name, strength, cut, score):
            continue
        is_sure = strength >= cut.sure
        may_be_slight = score >= BANDS["fair"] and not is_uneven
        phrase = _phrase(name, strength, is_sure, may_be_slight)
        found.append((not is_sure, -strength, Flaw(name, phrase, cut.share(strength), is_sure)))
    return [flaw for *_, flaw in sorted(found)]


def _is_said(name: str, strength: float, cut: Cut, score: float) -> bool:
    """Of a good photo only what is sure is said, and from fair on nothing that people mind in less than half."""
    if score >= BANDS["fair"] and (name in MEANT or cut.share(strength) < 0.5):  # NaN is not
        return False
    return strength >= (cut.sure if score >= BANDS["good"] else cut.likely)


def cut_of(name: str, naming: Naming | None) -> Cut:
    """Return the cut of a distortion."""
    name = ANY_BLUR if name in BLURS else name
    return Cut(**(naming or {}).get(name, {}))


def _name_with_place(
    local: LocalFlaw,
    low: Mapping[str, float],
    distortions: Mapping[str, float],
    naming: Naming | None,
) -> str:
    """Name a flaw of one place, if that is low, and neither is the flaw sure of the whole image nor may it be meant."""
    is_everywhere = distortions.get(local.name, 0.0) >= cut_of(local.name, naming).sure
    if local.place not in low or is_everywhere or local.name in MEANT:
        return ""
    named = find_flaws(low[local.place], {local.name: local.strength}, naming)
    return f"{named[0].phrase} {local.place}" if named else ""


def join_blurs(distortions: Mapping[str, float]) -> dict[str, float]:
    """Put ``any blur`` in the place of blur and motion blur: how much there is of either."""
    blurs = [distortions[name] for name in BLURS if name in distortions]
    others = {name: value for name, value in distortions.items() if name not in BLURS}
    return {ANY_BLUR: float(1 - np.prod(1 - np.array(blurs)))} | others if blurs else others


def _kind_of_blur(distortions: Mapping[str, float], sure: float) -> str:
    """Return the kind that is sure by itself, or ``any blur``."""
    most = max(BLURS, key=lambda name: distortions.get(name, 0.0))
    return most if distortions.get(most, 0.0) >= sure else ANY_BLUR


def _phrase(name: str, strength: float, is_sure: bool, may_be_slight: bool) -> str:
    phrase = PHRASES.get(name, name)
    if not is_sure:
        return f"likely {phrase}"
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
