"""Measure how much a score changes between a large photo and its copy of one megapixel.

    python benchmarks/scale.py FOLDER                 all pictures of a folder above two megapixels
    python benchmarks/scale.py FOLDER --megapixels 12 only those of at least twelve

The copy is resized by Pillow's Lanczos filter to one megapixel, as photo programs do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ladders import find_photos
from measuring import add_metric_arguments, conditions, create_lifeiqa
from PIL import Image


def one_megapixel(picture: Image.Image) -> Image.Image:
    """Reduce a picture to a million pixels, in proportion."""
    factor = (1e6 / (picture.width * picture.height)) ** 0.5
    size = round(picture.width * factor), round(picture.height * factor)
    return picture.resize(size, Image.Resampling.LANCZOS)


def main() -> None:
    """Parse the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of large photos")
    parser.add_argument("--megapixels", type=float, default=2.0, help="leave out smaller ones (default 2)")
    add_metric_arguments(parser)
    args = parser.parse_args()
    metric, changes = create_lifeiqa(args), []
    for path in find_photos(args.folder):
        with Image.open(path) as file:
            picture = file.convert("RGB")
        megapixels = picture.width * picture.height / 1e6
        if megapixels < args.megapixels:
            continue
        whole, small = metric(picture).item(), metric(one_megapixel(picture)).item()
        changes.append(small - whole)
        print(f"{path.name}: {megapixels:.1f} megapixels {whole:.3f}, one megapixel {small:.3f}, {small - whole:+.3f}")
    if not changes:
        raise SystemExit(f"{args.folder}: no picture of {args.megapixels} megapixels or more")
    size = np.abs(changes)
    print(f"{conditions()}; {len(size)} photos")
    print(f"median change {np.median(size):.4f}, 90 % below {np.quantile(size, 0.9):.4f}, mean {np.mean(changes):+.4f}")


if __name__ == "__main__":
    main()
