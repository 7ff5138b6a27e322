"""Measure whether the score falls at every step when clean photos are spoilt more and more.

    python benchmarks/ladders.py                 the clean photos of examples/photos
    python benchmarks/ladders.py FOLDER          all pictures of a folder

A ladder is one photo, one kind of distortion and five growing degrees. It counts as falling if each of its six scores
is below the one before. "Seen" are the kinds that training used, on other photos; "unseen" are those it never saw.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import ROOT, add_metric_arguments, conditions, create_lifeiqa, markdown_table
from PIL import Image
from train_bundled import DISTORTIONS, read_picture

Distortion = Callable[[Image.Image, float, np.random.Generator], Image.Image]

SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)


def motion_blur(picture: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Average over a horizontal path of up to 31 pixels."""
    reach = round(15 * severity)
    pixels = np.asarray(picture, dtype=np.float32)
    padded = np.pad(pixels, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    shifted = [padded[:, left : left + picture.width] for left in range(2 * reach + 1)]
    return Image.fromarray(np.mean(shifted, axis=0).round().astype(np.uint8))


def salt_and_pepper(picture: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Turn up to 30 % of the pixels black or white."""
    pixels = np.array(picture)
    chance = rng.random(pixels.shape[:2])
    pixels[chance < 0.15 * severity] = 0
    pixels[chance > 1 - 0.15 * severity] = 255
    return Image.fromarray(pixels)


def colour_cast(picture: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Take away up to 80 % of red and blue, which leaves green."""
    weight = 1 - severity * np.array([0.8, 0.0, 0.8])
    return Image.fromarray((np.asarray(picture) * weight).round().astype(np.uint8))


def posterise(picture: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Keep from 16 down to 2 levels per colour."""
    levels = round(2 * 8 ** (1.25 * (1 - severity)))
    return Image.fromarray((np.round(np.asarray(picture) / 255 * (levels - 1)) * 255 / (levels - 1)).astype(np.uint8))


def pixelate(picture: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Show squares of up to 11 pixels in one colour."""
    side = 1 + round(10 * severity)
    small = picture.resize((max(1, picture.width // side), max(1, picture.height // side)), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.NEAREST)


def jpeg_2000(picture: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Compress as JPEG 2000, to as little as 1 / 250 of the size."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[250**severity])
    return read_picture(buffer)  # type: ignore[arg-type]  # Image.open takes a file as well


UNSEEN: dict[str, Distortion] = {
    "motion blur": motion_blur,
    "salt and pepper": salt_and_pepper,
    "colour cast": colour_cast,
    "posterise": posterise,
    "pixelate": pixelate,
    "jpeg 2000": jpeg_2000,
}
"""Name -> function of (picture, severity in 0 .. 1, random generator), as ``DISTORTIONS`` of the training."""


def build_ladder(picture: Image.Image, distort: Distortion, seed: int) -> list[Image.Image]:
    """Return the picture and its five growing degrees; the same random numbers are drawn at each."""
    return [picture, *(distort(picture, severity, np.random.default_rng(seed)) for severity in SEVERITIES)]


def falls(scores: np.ndarray) -> np.ndarray:
    """Return for (..., steps) scores whether each step is below the one before, (...)."""
    return (np.diff(scores, axis=-1) < 0).all(-1)


def find_photos(folder: Path) -> list[Path]:
    """Return the clean photos ``*_0_clean.*`` of a folder, or all of its pictures where none is named so.

    Raises:
        SystemExit: a folder without pictures.
    """
    clean = sorted(folder.glob("*_0_clean.*"))
    known = Image.registered_extensions()
    photos = clean or sorted(path for path in folder.iterdir() if path.suffix.lower() in known)
    if not photos:
        raise SystemExit(f"{folder}: no pictures")
    return photos


def main() -> None:
    """Parse the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "examples" / "photos")
    parser.add_argument("--seed", type=int, default=0, help="of the random distortions")
    add_metric_arguments(parser)
    args = parser.parse_args()
    metric, photos = create_lifeiqa(args), find_photos(args.folder)
    pictures = [read_picture(path) for path in photos]
    rows = []
    for use, kinds in {"seen": DISTORTIONS, "unseen": UNSEEN}.items():
        shares = []
        for kind, distort in kinds.items():
            ladders = (build_ladder(picture, distort, args.seed) for picture in pictures)
            scores = np.array([[metric(rung).item() for rung in ladder] for ladder in ladders])
            shares.append(falls(scores).mean())
            steps, means = (np.diff(scores) < 0).mean(), ", ".join(f"{score:.2f}" for score in scores.mean(0))
            rows.append([kind, use, f"{falls(scores).sum()} of {len(photos)}", f"{steps:.0%}", means])
        rows.append(["**all**", use, f"{np.mean(shares):.0%}", "", ""])
    print(f"{conditions()}; {len(photos)} photos\n")
    print(markdown_table(["distortion", "in training", "ladders that fall", "steps that fall", "mean scores"], rows))


if __name__ == "__main__":
    main()
