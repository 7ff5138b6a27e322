"""What the bundled models were trained on: batches of one shape, rated images and distorted clean ones."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import IterableDataset

from lifeiqa_plugin.distortions.kinds import KINDS

NAMES = list(KINDS)
LEVELS = 3
SHAPES = {
    (384, 384): 18,
    (320, 320): 32,
    (256, 256): 20,
    (256, 352): 12,
    (352, 256): 10,
    (256, 384): 4,
    (384, 256): 4,
}
"""Height and width of a batch, and how many in a hundred have it: size and shape shall tell nothing about quality."""


class Row(NamedTuple):
    """An image with its opinion score and the part of its dataset that it comes from."""

    path: str
    mos: float
    group: str


def read_rows(meta: Path, folder: Path) -> list[Row]:
    """Return the training rows of a prepared csv."""
    with open(meta, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["bundled_split"] == "train"]
    return [Row(str(folder / row["name"]), float(row["mos"]), row["subset"]) for row in rows]


def fit_shape(
    image: Image.Image, shape: tuple[int, int], dice: random.Random, zoom: bool
) -> Tensor:
    """Cut the largest window of a shape at a random place, with ``zoom`` at times a smaller one, and resize it."""
    height, width = shape
    scale = min(image.width / width, image.height / height)
    if zoom and dice.random() < 0.3:
        scale *= dice.uniform(0.85, 1)
    cut_width, cut_height = (
        min(image.width, round(width * scale)),
        min(image.height, round(height * scale)),
    )
    left, top = dice.randint(0, image.width - cut_width), dice.randint(0, image.height - cut_height)
    method = dice.choice(
        [Image.Resampling.BICUBIC] * 3 + [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS]
    )
    box = (left, top, left + cut_width, top + cut_height)
    return torch.from_numpy(np.array(image.resize((width, height), method, box=box))).permute(
        2, 0, 1
    )


def open_rgb(path: str) -> Image.Image:
    """Decode an image; larger ones are reduced to a shorter side of 512."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    factor = 512 / min(image.size)
    if factor < 0.98:
        image = image.resize(
            [round(side * factor) for side in image.size], Image.Resampling.LANCZOS
        )
    return image


def read_pixels(path: str) -> Tensor:
    """Open the same as (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(open_rgb(path))).permute(2, 0, 1).float() / 255


def to_image(pixels: Tensor) -> Image.Image:
    """Round (3, H, W) in [0, 1] to 8 bits."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def draw_severities(dice: random.Random) -> list[float]:
    """Return growing severities, at least 0.12 apart; in 45 of 100 cases the first is 0, a clean image."""
    while True:
        severities = sorted(dice.uniform(0.08, 1) for _ in range(LEVELS))
        if dice.random() < 0.45:
            severities[0] = 0.0
        if all(after - before > 0.12 for before, after in pairwise(severities)):
            return severities


class Levels(NamedTuple):
    """One image in growing distortion; ``targets`` are 0 for absent kinds, else 0.25 (just there) to 1 (severe)."""

    images: Tensor  # (3, 3, H, W)
    targets: Tensor  # (3, K)
    severities: Tensor  # (3,)
    rank_weight: float


def draw_levels(path: str, shape: tuple[int, int], dice: random.Random) -> Levels:
    """Distort an image by one kind in growing severity and, in 35 of 100, by a second one that stays the same."""
    pixels = read_pixels(path)
    name = dice.choice(NAMES)
    distort, severities = dice.choice(KINDS[name].generators), draw_severities(dice)
    seed, place, flip = dice.randrange(2**31), dice.randrange(2**31), dice.random() < 0.5
    second = (
        dice.choice([other for other in NAMES if other != name]) if dice.random() < 0.35 else None
    )
    images, targets = [], torch.zeros(LEVELS, len(NAMES))
    second_severity = dice.uniform(0.1, 0.6)
    second_distort = dice.choice(KINDS[second].generators) if second else None
    for i, severity in enumerate(severities):
        distorted = pixels
        if severity > 0:
            distorted = distort(distorted, severity, Generator().manual_seed(seed))
            targets[i, NAMES.index(name)] = 0.25 + 0.75 * severity
        if second and second_distort:
            distorted = second_distort(distorted, second_severity, Generator().manual_seed(seed))
            targets[i, NAMES.index(second)] = 0.25 + 0.75 * second_severity
        image = fit_shape(to_image(distorted), shape, random.Random(place), zoom=False)
        images.append(image.flip(2) if flip else image)
    rank_weight = 1.0 if KINDS[name].is_ranked else 0.2
    return Levels(torch.stack(images), targets, torch.tensor(severities), rank_weight)


class Batches(IterableDataset[dict[str, Any]]):
    """Batches of one shape each: ``size`` rated rows, every row equally often, and clean images in levels."""

    def __init__(
        self, rows: list[Row], size: int, clean: list[str], clean_count: int, number: int, seed: int
    ) -> None:
        self.rows, self.size, self.clean = rows, size, clean
        self.clean_count, self.number, self.seed = clean_count, number, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        dice = random.Random(self.seed)
        order: list[Row] = []
        for _ in range(self.number):
            shape = dice.choices(list(SHAPES), list(SHAPES.values()))[0]
            if len(order) < self.size:
                order = dice.sample(self.rows, len(self.rows))
            rows, order = order[: self.size], order[self.size :]
            images = [fit_shape(open_rgb(row.path), shape, dice, zoom=True) for row in rows]
            images = [image.flip(2) if dice.random() < 0.5 else image for image in images]
            levels = [
                draw_levels(dice.choice(self.clean), shape, dice) for _ in range(self.clean_count)
            ]
            yield {
                "images": torch.stack(
                    [*images, *(image for one in levels for image in one.images)]
                ),
                "mos": torch.tensor([row.mos for row in rows]),
                "group": [row.group for row in rows],
                "levels": [one._replace(images=torch.empty(0)) for one in levels],
            }
