"""Choose the best shot of a burst, and say whether the choice means anything.

    python examples/best_of_burst.py shot1.jpg shot2.jpg shot3.jpg

Shots that do not look alike are not one burst: of different scenes the score compares more than sharpness.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from PIL import Image

from lifeiqa_plugin import ScoredImage, score
from lifeiqa_plugin.images.bursts import chance, is_burst, look


def verdict(shots: Sequence[ScoredImage]) -> str:
    """Compare the best two of several shots, best first."""
    best, second = shots[:2]
    lead = best.score - second.score
    most = max(chance(shot.width, shot.height) for shot in (best, second))
    if lead >= most:
        return f"keep {best.name}: {lead:.3f} ahead, and up to {most} is chance in one scene"
    return f"{best.name} is ahead by only {lead:.3f}, and up to {most} is chance: look yourself"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shots, best first, and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="+")
    paths = parser.parse_args(arguments).photos
    if len(paths) < 2:
        raise SystemExit("a burst has at least 2 photos")
    frames, shots = [], []
    for path, shot in zip(paths, score(paths), strict=True):
        if shot.error is not None:
            raise SystemExit(f"{path}: {shot.error}")
        with Image.open(path) as image:
            frames.append(look(path, image, image.size))
        shots.append(shot)
    shots.sort(key=lambda shot: -shot.score)
    for shot in shots:
        print(f"{shot.score:.3f}  {shot.name}")
    if not is_burst(frames):
        print(
            "these do not all show the same: scores of different scenes compare more than sharpness"
        )
    print(verdict(shots))


if __name__ == "__main__":
    main()
