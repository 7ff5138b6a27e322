"""Measure how much a score changes between a large photo and its copy of one megapixel.

    python measurements/scale.py FOLDER                 all images of a folder above two megapixels
    python measurements/scale.py FOLDER --megapixels 12 only those of at least twelve

The copy is resized by Pillow's Lanczos filter to one megapixel, as photo programs do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ladders import find_photos
from measuring import add_metric_arguments, conditions, create_lifeiqa
from PIL import Image


def one_megapixel(image: Image.Image) -> Image.Image:
    """Reduce an image to a million pixels, in proportion."""
    factor = (1e6 / (image.width * image.height)) ** 0.5
    size = round(image.width * factor), round(image.height * factor)
    return image.resize(size, Image.Resampling.LANCZOS)


def main() -> None:
    """Parse the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of large photos")
    parser.add_argument(
        "--megapixels", type=float, default=2.0, help="leave out smaller ones (default 2)"
    )
    add_metric_arguments(parser)
    args = parser.parse_args()
    metric, changes = create_lifeiqa(args), []
    for path in find_photos(args.folder):
        with Image.open(path) as file:
            image = file.convert("RGB")
        megapixels = image.width * image.height / 1e6
        if megapixels < args.megapixels:
            continue
        whole, small = metric(image).item(), metric(one_megapixel(image)).item()
        changes.append(small - whole)
        print(
            f"{path.name}: {megapixels:.1f} megapixels {whole:.3f}, one megapixel {small:.3f}, {small - whole:+.3f}"
        )
    if not changes:
        raise SystemExit(f"{args.folder}: no image of {args.megapixels} megapixels or more")
    size = np.abs(changes)
    print(f"{conditions()}; {len(size)} photos")
    print(
        f"median change {np.median(size):.4f}, 90 % below {np.quantile(size, 0.9):.4f}, mean {np.mean(changes):+.4f}"
    )


if __name__ == "__main__":
    main()
