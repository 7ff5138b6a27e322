"""What is wrong with an image, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

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
}
"""Name of a distortion -> what a person says of such an image; other names are said as they are."""

STRONG = 0.5
"""From here on a distortion is there."""

SLIGHT = 0.25
"""From here on it is mentioned, as slight."""

PLACES = [
    ["in the upper left", "at the top", "in the upper right"],
    ["on the left", "in the middle", "on the right"],
    ["in the lower left", "at the bottom", "in the lower right"],
]


def describe(
    distortions: Mapping[str, float], quality_map: NDArray[np.float32], std: float, is_flat: bool
) -> str:
    """Say what is wrong and where it is worst.

    Args:
        distortions: name -> strength in 0 .. 1; empty for a network that names none.
        quality_map: (H, W), in units of the score.
        std: of the score; a part of the image is called worse if it lies further than that below the mean.
        is_flat: the image is one colour throughout.
    """
    if is_flat:
        return "one colour throughout: there is nothing to judge"
    parts = [_flaws(distortions), _place(quality_map, std)]
    return "; ".join(part for part in parts if part)


def _flaws(distortions: Mapping[str, float]) -> str:
    if not distortions:
        return "this model names no distortions"
    by_strength = sorted(distortions.items(), key=lambda item: -item[1])
    strong = [PHRASES.get(name, name) for name, strength in by_strength if strength >= STRONG]
    slight = [
        f"slightly {PHRASES.get(name, name)}"
        for name, strength in by_strength
        if SLIGHT <= strength < STRONG
    ]
    said = strong + slight[:2]  # a sentence, not a list
    if not said:
        return "nothing stands out"
    return ", ".join(said) + "; the rest is fine" * (len(said) < len(distortions))


def _place(quality_map: NDArray[np.float32], std: float) -> str:
    means = [
        [part.mean() for part in np.array_split(row, 3, axis=1)]
        for row in np.array_split(quality_map, 3, axis=0)
    ]
    row, column = np.unravel_index(int(np.argmin(means)), (3, 3))
    if quality_map.mean() - means[row][column] <= std:
        return ""
    return f"worst {PLACES[row][column]}"
