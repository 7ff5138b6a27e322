"""What is wrong with an image, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PHRASES = {
    "blur": "out of focus",
    "motion blur": "soft from motion blur",
    "noise": "noisy",
    "impulse noise": "covered with specks",
    "blocking": "blocky from compression",
    "ringing": "ringing from recompression",
    "upscaled": "enlarged from a smaller image",
    "over-sharpened": "sharpened too much",
    "over-smoothed": "smeared by noise reduction",
    "over-exposed": "too bright",
    "low contrast": "low in contrast",
    "colour cast": "tinted",
    "warped": "bent out of shape",
    "patchy": "pieced together from patches",
}
"""Name of a distortion -> what a person says of such an image; other names are said as they are."""

STRONG = 0.5
"""From here on a distortion is there."""

SLIGHT = 0.25
"""From here on it is mentioned, as slight."""

LOCAL = 0.4
"""What a ninth of the image must have of a distortion beyond the mean, that its place is said; how often clean photos
have one, ``docs/explaining.md`` says."""

PLACES = (
    "in the upper left", "at the top", "in the upper right",
    "on the left", "in the middle", "on the right",
    "in the lower left", "at the bottom", "in the lower right",
)  # fmt: skip
"""Of the ninths of an image, row by row."""


def by_ninth(maps: Floats) -> NDArray[np.float64]:
    """Average maps (..., H, W) over a grid of 3 x 3 places, (..., 9) row by row."""
    rows = np.array_split(maps, 3, axis=-2)
    parts = [part for row in rows for part in np.array_split(row, 3, axis=-1)]
    return np.stack([part.mean((-2, -1), dtype=np.float64) for part in parts], axis=-1)


class LocalFlaw(NamedTuple):
    """A distortion that one part of an image has more of than the rest."""

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


def describe(
    distortions: Mapping[str, float],
    local: LocalFlaw | None,
    quality_map: Floats,
    std: float,
    is_flat: bool,
) -> str:
    """Say what is wrong and where it is worst.

    Args:
        distortions: name -> strength in 0 .. 1 in the whole image; empty for a network that names none.
        local: the distortion whose place is said.
        quality_map: (H, W), in units of the score.
        std: of the score; a part of the image is called worse if it lies further than that below the mean.
        is_flat: the image is one colour throughout.
    """
    if is_flat:
        return "one colour throughout: there is nothing to judge"
    flaws = _flaws(distortions, local)
    worst = _worst_place(quality_map, std)
    if not worst or (local and local.place == worst):
        return flaws
    return f"{flaws}; worst {worst}"


def _flaws(distortions: Mapping[str, float], local: LocalFlaw | None) -> str:
    if not distortions:
        return "this model names no distortions"
    strengths = dict(distortions)
    if local:
        strengths[local.name] = max(local.strength, strengths[local.name])
    strong, slight = [], []
    first = local.name if local else ""
    for name, strength in sorted(strengths.items(), key=lambda item: (item[0] != first, -item[1])):
        where = f" {local.place}" if local and name == first else ""
        if strength >= STRONG:
            strong.append(PHRASES.get(name, name) + where)
        elif strength >= SLIGHT:
            slight.append(f"slightly {PHRASES.get(name, name)}{where}")
    said = strong + slight[:2]  # a sentence, not a list
    if not said:
        return "nothing stands out"
    return ", ".join(said) + "; the rest is fine" * (len(said) < len(distortions))


def _worst_place(quality_map: Floats, std: float) -> str:
    ninths = by_ninth(quality_map)
    if quality_map.mean() - ninths.min() <= std:
        return ""
    return PLACES[int(ninths.argmin())]
