"""Measure the default scoring beside the released inference protocol: 25 random crops of 224, one image at a time.

    python measurements/released_protocol.py --photos FOLDER

Time is of Swin-B with random weights, which do not change it. By default ``lifeiqa`` reduces an image and covers it
with crops; the released protocol cuts its crops from the image as it is, and is timed with all crops of an image
together and with one after the other. Decoding is left out of both. Agreement is of the weights that ship: scores of
either protocol against a dense cover, crops every ``--stride`` pixels, whose mean is what both of them estimate; once
of the image as it is and once of its working size.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import (
    ROOT,
    conditions,
    markdown_table,
    median_and_quartiles,
    median_ratio,
)
from scipy.stats import pearsonr, spearmanr
from torch import Tensor
from tqdm import tqdm

from lifeiqa_plugin import LifeIQA, build_lifeiqa
from lifeiqa_plugin.benchmark.timing import time_in_turn
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.config import SWIN_B
from lifeiqa_plugin.network.crops import cut_crops, to_working_size
from lifeiqa_plugin.training.dataset import random_crops

CROPS = 25
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


@torch.no_grad()
def score_crops(network: LifeIQA, crops: Tensor, at_once: int) -> Tensor:
    """Score crops (N, 3, S, S), each as an image of its own and ``at_once`` together; returns (N,)."""
    return torch.cat([network(part).flatten() for part in crops.split(at_once)])


def score_released(
    network: LifeIQA, image: Tensor, generator: torch.Generator, at_once: int = CROPS
) -> float:
    """Score (3, H, W) by the released protocol: the mean over random crops, of which ``at_once`` pass together."""
    crops = random_crops(
        enlarge(image, network.crop_size), CROPS, network.crop_size, False, generator
    )
    return float(score_crops(network, crops, at_once).mean())


@torch.no_grad()
def score_default(network: LifeIQA, image: Tensor) -> float:
    """Score (3, H, W) as users get it."""
    return float(network(image[None]))


def score_dense(
    network: LifeIQA, image: Tensor, stride: int, working_size: int | None = None
) -> float:
    """Score (3, H, W) as the mean over all crops whose corners are ``stride`` apart, the last ones at the edges."""
    size = network.crop_size
    image = enlarge(image, size)
    if working_size is not None:
        image = to_working_size(image[None], size, working_size)[0]
    offsets = [
        (top, left)
        for top in corners(image.shape[1], size, stride)
        for left in corners(image.shape[2], size, stride)
    ]
    return float(score_crops(network, cut_crops(image[None], offsets, size), 16).mean())


def corners(length: int, size: int, stride: int) -> list[int]:
    """Return 0, stride, ... and the last position at which a crop of ``size`` fits."""
    return sorted({*range(0, length - size, stride), length - size})


def enlarge(image: Tensor, size: int) -> Tensor:
    """Bring an image (3, H, W) that is smaller than a crop to the size of one; others are left as they are."""
    return to_working_size(image[None], size, max(size, min(image.shape[1:])))[0]


def times(rounds: int, width: int, height: int, **options: Any) -> dict[str, list[float]]:
    """Time the protocols in turn on one image, with a network of these options; name -> seconds for each round."""
    torch.manual_seed(0)
    network = build_lifeiqa(pretrained=False, **options).eval()
    image, generator = torch.rand(3, height, width), torch.Generator().manual_seed(0)
    functions = {
        "default": functools.partial(score_default, network, image),
        "released": functools.partial(score_released, network, image, generator),
        "released, one crop after the other": functools.partial(
            score_released, network, image, generator, 1
        ),
    }
    return time_in_turn(functions, rounds)


def agreement(paths: list[Path], stride: int, **options: Any) -> dict[str, np.ndarray]:
    """Score images with the weights that ship, both ways and densely at both sizes; name -> (N,)."""
    network, generator = build_lifeiqa(**options).eval(), torch.Generator().manual_seed(0)
    rows = []
    for path in tqdm(paths, unit="image"):
        image = read_image(path)
        dense = [score_dense(network, image, stride, size) for size in (None, network.working_size)]
        rows.append(
            [score_default(network, image), score_released(network, image, generator), *dense]
        )
    columns = np.array(rows).T
    return dict(zip(("default", "released", "full size", "working size"), columns, strict=True))


def compare(scores: dict[str, np.ndarray]) -> list[list[str]]:
    """Return rows: protocol, cover, SRCC, PLCC, mean absolute difference."""
    rows = []
    for protocol in ("default", "released"):
        for cover in ("full size", "working size"):
            a, b = scores[protocol], scores[cover]
            numbers = (spearmanr(a, b).statistic, pearsonr(a, b).statistic, np.abs(a - b).mean())
            rows.append([protocol, cover, *(f"{number:.4f}" for number in numbers)])
    return rows


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--size", type=int, nargs=2, default=(1080, 800), metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--backbone", default=SWIN_B, help="for time")
    parser.add_argument(
        "--crops", type=int, help="of our protocol (default: as many as cover the image)"
    )
    parser.add_argument(
        "--photos", type=Path, default=ROOT / "examples" / "photos", help="for agreement"
    )
    parser.add_argument(
        "--limit", type=int, help="images for agreement, evenly chosen (default: all)"
    )
    parser.add_argument("--stride", type=int, default=56, help="of the dense cover")
    args = parser.parse_args()
    seconds = times(args.rounds, *args.size, backbone=args.backbone, test_sample=args.crops)
    print(
        f"{conditions()}; one {args.size[0]}x{args.size[1]} image, {args.backbone}, {args.rounds} rounds in turn\n"
    )
    rows = [
        [name, median_and_quartiles(values), f"{median_ratio(values, seconds['default']):.1f}"]
        for name, values in seconds.items()
    ]
    print(
        markdown_table(["protocol", "seconds, median (quartiles)", "times default"], rows),
        flush=True,
    )
    paths = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if args.limit is not None:
        paths = [
            paths[i]
            for i in np.linspace(0, len(paths) - 1, min(args.limit, len(paths))).astype(int)
        ]
    found = compare(agreement(paths, args.stride, test_sample=args.crops))
    print(
        f"\n{len(paths)} images of {args.photos.name}, bundled weights, dense cover every {args.stride} pixels\n"
    )
    print(markdown_table(["protocol", "dense cover at", "SRCC", "PLCC", "mean difference"], found))


if __name__ == "__main__":
    main()
