"""Measure how often frames of one scene are found to be one, and how far their scores differ by chance.

    python measurements/bursts.py FOLDER [FOLDER ...] --photos 400 --scored 100

Each photo is cropped to 88 % of its sides; the other frame of its scene is the crop moved, turned, blurred or noisy.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

import numpy as np
from measuring import conditions, markdown_table
from PIL import Image, ImageFilter

from lifeiqa_plugin.images.bursts import Frame, find_alike, look
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.runtimes import create_engine
from lifeiqa_plugin.scoring.score import score

SHARE = 0.88
SIDE = 1500
"""Pixels of the longer side of the photos, before they are cropped."""

RANDOM_PAIRS = 20_000


def crop(
    image: Image.Image, shift: float = 0, angle: float = 0, scale: float = 1, direction: float = 0
) -> Image.Image:
    """Return the middle of a photo, moved by a share of the frame, turned by degrees, or closer."""
    width, height = image.size
    x = width / 2 + shift * SHARE * width * np.cos(direction)
    y = height / 2 + shift * SHARE * height * np.sin(direction)
    half = SHARE * scale / 2
    turned = image.rotate(angle, Image.Resampling.BICUBIC, center=(x, y)) if angle else image
    return turned.crop(
        tuple(
            map(round, (x - half * width, y - half * height, x + half * width, y + half * height))
        )
    )


def blur(image: Image.Image, share: float, **moved: float) -> Image.Image:
    """Return a crop that is out of focus; ``share`` of its width is the standard deviation of the blur."""
    return crop(image, **moved).filter(ImageFilter.GaussianBlur(share * image.width))


def add_noise(image: Image.Image, std: float) -> Image.Image:
    """Return a crop with noise, in levels of 255."""
    pixels = np.asarray(crop(image), dtype=float)
    noise = np.random.default_rng(0).normal(0, std, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8))


def frames_of(direction: float) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Return how the second frame of a scene is made; the first five say nothing on quality."""
    moved = functools.partial(crop, direction=direction)
    return {
        "moved by 2 %": functools.partial(moved, shift=0.02),
        "moved by 3 %": functools.partial(moved, shift=0.03),
        "moved by 5 %": functools.partial(moved, shift=0.05),
        "3 % closer": functools.partial(crop, scale=0.97),
        "noise of 1 level": functools.partial(add_noise, std=1),
        "turned by 2 degrees": functools.partial(crop, angle=2),
        "blur of 1 % of the width": functools.partial(blur, share=0.01),
        "blur of 3 %, moved by 3 %": functools.partial(blur, share=0.03, shift=0.03),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--scored", type=int, default=100)
    args = parser.parse_args()
    generator, engine = np.random.default_rng(0), create_engine(device="cpu")
    files = [file for folder in args.folders for file in find_images(folder)]
    chosen = generator.permutation(len(files))[: args.photos]
    first, found, scores = [], {name: [] for name in frames_of(0)}, []
    for number, file in enumerate(np.array(files)[chosen]):
        image = Image.fromarray(decode(file).pixels)
        image.thumbnail((SIDE, SIDE))
        makers = frames_of(generator.uniform(0, 2 * np.pi))
        shots = [crop(image), *(make(image) for make in makers.values())]
        frames = [frame_of(shot) for shot in shots]
        first.append(frames[0])
        for i, name in enumerate(makers, start=1):
            found[name].append(bool(find_alike(frames, [(0, i)])))
        if number < args.scored:
            scores.append([row.score for row in score(shots[:6], engine=engine)])
    pairs = generator.integers(0, len(first), (RANDOM_PAIRS, 2))
    pairs = [(i, j) for i, j in pairs.tolist() if i != j]
    rows = [[name, f"{np.mean(values):.1%}"] for name, values in found.items()]
    rows.append(["another photo", f"{len(find_alike(first, pairs)) / len(pairs):.3%}"])
    print(f"{len(first)} photos\n\n{markdown_table(['second frame', 'found'], rows)}\n")
    moves = np.abs(np.array(scores)[:, 1:] - np.array(scores)[:, :1])
    rows = [
        [name, f"{np.median(m):.4f}", f"{np.quantile(m, 0.95):.4f}"]
        for name, m in zip([*frames_of(0)][:5], moves.T, strict=True)
    ]
    rows.append(["all five", f"{np.median(moves):.4f}", f"{np.quantile(moves, 0.95):.4f}"])
    header = ["second frame", "median change of the score", "95 % are below"]
    print(f"{len(scores)} photos; {conditions()}\n\n{markdown_table(header, rows)}")


def frame_of(image: Image.Image) -> Frame:
    """Return what is compared of a photo, by way of a small copy as the page has it."""
    small = image.copy()
    small.thumbnail((300, 300))
    return look("", small, image.size)


if __name__ == "__main__":
    main()
