"""Choose the best shot of a burst, and say whether the choice means anything.

    python examples/best_of_burst.py shot1.jpg shot2.jpg shot3.jpg

Shots that do not look alike are not one burst: of different scenes the score compares more than sharpness.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.images.near_duplicates import fingerprint, group_near_duplicates
from lifeiqa_plugin.images.reading import read_image


class Shot(NamedTuple):
    """One photo of the burst."""

    path: Path
    score: float
    std: float


def verdict(shots: Sequence[Shot]) -> str:
    """Compare the best two of several shots, best first."""
    best, second = shots[:2]
    lead, doubt = best.score - second.score, math.hypot(best.std, second.std)
    if lead > doubt:
        return f"keep {best.path}: {lead:.3f} ahead, more than the uncertainty of the two ({doubt:.3f})"
    return (
        f"{best.path} is ahead by only {lead:.3f} of an uncertainty of {doubt:.3f}: look yourself"
    )


def is_burst(paths: Sequence[Path]) -> bool:
    """Whether all photos nearly equal one another, or are linked by ones that do."""
    prints = []
    for path in paths:
        with Image.open(path) as image:
            prints.append(fingerprint(image))
    return group_near_duplicates(np.stack(prints)) == [0] * len(paths)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shots, best first, and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path, nargs="+")
    paths = parser.parse_args(arguments).photos
    if len(paths) < 2:
        raise SystemExit("a burst has at least 2 photos")
    network = lifeiqa_plugin.build_lifeiqa().eval()
    shots = []
    for path in paths:
        with torch.no_grad():
            score, std = network(read_image(path)[None], return_std=True)
        shots.append(Shot(path, score.item(), std.item()))
    shots.sort(key=lambda shot: -shot.score)
    for shot in shots:
        print(f"{shot.score:.3f} ± {shot.std:.3f}  {shot.path}")
    if not is_burst(paths):
        print(
            "these do not all show the same: scores of different scenes compare more than sharpness"
        )
    print(verdict(shots))


if __name__ == "__main__":
    main()
