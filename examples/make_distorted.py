"""Make the distorted versions of the sample photos; the clean ones, ``*_0_clean.jpg``, are kept as they are.

    python examples/make_distorted.py

Each photo is spoilt in one way and to three growing degrees, so that its four files, in the order of their names, go
from best to worst. Another version of Pillow may write other bytes for what looks the same.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

PHOTOS = Path(__file__).parent / "photos"
QUALITY = 92


def blur(photo: Image.Image, radius: float) -> Image.Image:
    """Gaussian blur of that many pixels."""
    return photo.filter(ImageFilter.GaussianBlur(radius))


def noise(photo: Image.Image, deviation: float) -> Image.Image:
    """Add Gaussian noise of that standard deviation, of 255 gray levels; the same each time."""
    pixels = np.asarray(photo, dtype=np.float32)
    noisy = pixels + np.random.default_rng(0).normal(0, deviation, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def dark(photo: Image.Image, factor: float) -> Image.Image:
    """Multiply by a factor below 1."""
    return photo.point(lambda value: round(value * factor))


def jpeg(photo: Image.Image, quality: float) -> Image.Image:
    """Compress as JPEG of that quality, 1 to 95."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=round(quality))
    return Image.open(buffer)


def lowres(photo: Image.Image, factor: float) -> Image.Image:
    """Shrink by a factor and enlarge again."""
    small = (round(photo.width / factor), round(photo.height / factor))
    return photo.resize(small, Image.Resampling.BOX).resize(photo.size, Image.Resampling.BICUBIC)


DEGREES: dict[
    str, tuple[Callable[[Image.Image, float], Image.Image], tuple[float, float, float]]
] = {
    "astronaut": (jpeg, (20, 9, 3)),
    "camera": (lowres, (2, 4, 8)),
    "chelsea": (blur, (1, 2.5, 6)),
    "coffee": (dark, (0.4, 0.2, 0.08)),
    "rocket": (noise, (12, 30, 70)),
}
"""Photo -> how it is spoilt, and the three growing degrees."""


def main() -> None:
    """Write the files into ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=PHOTOS, help="folder for the files (default: %(default)s)"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, (distort, degrees) in DEGREES.items():
        with Image.open(PHOTOS / f"{name}_0_clean.jpg") as photo:
            for i, degree in enumerate(degrees, start=1):
                distort(photo, degree).save(
                    out / f"{name}_{i}_{distort.__name__}.jpg", quality=QUALITY
                )


if __name__ == "__main__":
    main()
