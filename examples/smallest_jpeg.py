"""Find the smallest JPEG of a photo that still scores as well.

    python examples/smallest_jpeg.py photo.png -o photo.jpg

"As well" means less than --tolerance below the original. Each quality is tried, from the best down: the score need not
fall at every step, so a search by halves could stop at the wrong one.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.images.reading import read_image

QUALITIES = (95, 90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40, 35, 30, 25, 20, 15, 10)


class Version(NamedTuple):
    """One JPEG."""

    quality: int
    content: bytes
    score: float


def versions(
    photo: Image.Image, score: Callable[[Image.Image], float], qualities: Sequence[int]
) -> list[Version]:
    """Save a photo at each quality and score the result."""
    made = []
    for quality in qualities:
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=quality, optimize=True)
        with Image.open(file) as saved:
            made.append(Version(quality, file.getvalue(), score(saved.convert("RGB"))))
    return made


def smallest(made: Sequence[Version], original: float, tolerance: float) -> Version | None:
    """Return the last version before the first that scores more than ``tolerance`` below the original."""
    chosen = None
    for version in made:
        if version.score < original - tolerance:
            break
        chosen = version
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all versions and write the chosen one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="JPEG to write")
    parser.add_argument("--tolerance", type=float, default=0.02, help="default: %(default)s")
    args = parser.parse_args(arguments)
    network = lifeiqa_plugin.build_lifeiqa().eval()

    def score(image: Image.Image) -> float:
        return network(read_image(image)[None]).item()

    with Image.open(args.photo) as file:
        photo = file.convert("RGB")
    original = score(photo)
    made = versions(photo, score, QUALITIES)
    print(f"original: {args.photo.stat().st_size:,} bytes, score {original:.3f}")
    for version in made:
        print(f"quality {version.quality}: {len(version.content):,} bytes, {version.score:.3f}")
    chosen = smallest(made, original, args.tolerance)
    if chosen is None:
        raise SystemExit(f"even quality {QUALITIES[0]} scores more than {args.tolerance} less")
    args.out.write_bytes(chosen.content)
    print(f"{args.out}: quality {chosen.quality}, {len(chosen.content):,} bytes")


if __name__ == "__main__":
    main()
