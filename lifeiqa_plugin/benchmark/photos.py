"""Clean photos that nobody has scored: does a score fall as they are spoilt, and does it stay when it should?

A ladder is one photo, one kind of distortion and five growing degrees; it falls if each of its six scores is below the
one before. Stability is how far a score moves under changes that nobody sees.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from lifeiqa_plugin.correlation import Floats, Interval, interval_of_mean
from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED
from lifeiqa_plugin.images.reading import decode, find_images, read_image

SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
DEGREES = range(1, len(SEVERITIES) + 1)
CLEAN = "clean"


class Variant(NamedTuple):
    """One image to score: the row of its photo, its name, and what was done to it."""

    photo: int
    name: str
    groups: dict[str, str]


def find_photos(folder: Path, count: int | None = None) -> list[Path]:
    """Return the photos ``*_0_clean.*`` of a folder, or all of its images where none is named so; ``count`` at most.

    Raises:
        ValueError: a folder without images.
    """
    found = sorted(folder.glob("*_0_clean.*")) or [Path(name) for name in find_images(folder)]
    return found[:count]


@functools.lru_cache(maxsize=1)
def read_reduced(path: str, side: int) -> Tensor:
    """Return (3, H, W) in [0, 1], in 256 levels, with a shorter side of at most ``side``.

    So a degree means the same for all photos, and their own compression disappears.
    """
    pixels = decode(path).pixels
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels)
    factor = side / min(image.size)
    if factor < 1:
        width, height = (round(length * factor) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@functools.lru_cache(maxsize=1)
def read_smooth(path: str, side: int) -> Tensor:
    """Return the same, but not rounded to 256 levels where the photo was reduced."""
    return reduced(read_image(path), side)


def reduced(image: Tensor, side: int) -> Tensor:
    """Bring (3, H, W) to a shorter side of at most ``side``."""
    factor = side / min(image.shape[1:])
    if factor >= 1:
        return image
    size = [round(length * factor) for length in image.shape[1:]]
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)


class PhotoReader:
    """What ladders and stability share: variants of photos, made when they are asked for."""

    def __init__(self, folder: Path, photos: list[Path], side: int, seed: int) -> None:
        self.photos = photos
        self.side = side
        self.seed = seed
        self.variants: list[Variant] = []
        for row, photo in enumerate(photos):
            name = photo.relative_to(folder).as_posix()
            self.variants += self.variants_of(row, name)

    def variants_of(self, row: int, name: str) -> list[Variant]:
        """List what is made of one photo."""
        raise NotImplementedError

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Make one image."""
        raise NotImplementedError


class LadderReader(PhotoReader):
    """Every photo as it is, and at five degrees of every kind of distortion."""

    def variants_of(self, row: int, name: str) -> list[Variant]:
        """List the clean photo, then all rungs of each kind."""
        found = [_rung(row, name, CLEAN, 0)]
        for kind in TRAINED | HELD_OUT:
            found += [_rung(row, name, kind, degree) for degree in DEGREES]
        return found

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Make one image; a kind draws the same random numbers at every degree."""
        variant = self.variants[row]
        image = read_reduced(str(self.photos[variant.photo]), self.side)
        kind = variant.groups["distortion"]
        if kind == CLEAN:
            return [image]
        severity = SEVERITIES[int(variant.groups["degree"]) - 1]
        distort = (TRAINED | HELD_OUT)[kind]
        return [distort(image, severity, Generator().manual_seed(self.seed))]


def _rung(row: int, name: str, kind: str, degree: int) -> Variant:
    groups = {"photo": name, "distortion": kind, "degree": str(degree)}
    return Variant(row, f"{name}|{kind}|{degree}", groups)


class StabilityReader(PhotoReader):
    """Every photo as it is, and after each of ``CHANGES``."""

    def variants_of(self, row: int, name: str) -> list[Variant]:
        """List the photo, then its changed copies."""
        changes = (CLEAN, *CHANGES)
        return [
            Variant(row, f"{name}|{change}", {"photo": name, "change": change})
            for change in changes
        ]

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Make one image."""
        variant = self.variants[row]
        image = read_smooth(str(self.photos[variant.photo]), self.side)
        change = variant.groups["change"]
        return [image if change == CLEAN else CHANGES[change](image)]


READERS: dict[str, type[PhotoReader]] = {"ladders": LadderReader, "stability": StabilityReader}


# ---- changes that nobody sees


def round_to_8_bits(x: Tensor) -> Tensor:
    """Give every value the nearest of 256 levels."""
    return (x * 255).round() / 255


def jpeg_98(x: Tensor) -> Tensor:
    """Encode as JPEG of quality 98 and decode again."""
    pixels = (x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=98)
    with Image.open(file) as image:
        decoded = np.array(image.convert("RGB"))
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255


def shift_by_a_pixel(x: Tensor) -> Tensor:
    """Move everything right and down by one pixel; the first row and column come twice."""
    padded = F.pad(x[None], (1, 0, 1, 0), mode="replicate")[0]
    return padded[:, :-1, :-1]


def scale_by_1_percent(x: Tensor) -> Tensor:
    """Enlarge by one percent."""
    size = [round(1.01 * length) for length in x.shape[1:]]
    return F.interpolate(x[None], size, mode="bicubic")[0].clamp(0, 1)


def mirror(x: Tensor) -> Tensor:
    """Exchange left and right."""
    return x.flip(2)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "8 bits": round_to_8_bits,
    "JPEG 98": jpeg_98,
    "1 pixel": shift_by_a_pixel,
    "1 %": scale_by_1_percent,
    "mirror": mirror,
}


# ---- what scores of them say


@dataclass(frozen=True)
class KindOfLadder:
    """How the score follows one kind of distortion: shares of ladders and of steps that fall, mean scores."""

    kind: str
    use: str
    photos: int
    falling: float
    steps: float
    means: list[float]


@dataclass(frozen=True)
class Ladders:
    """All kinds, and the shares of ladders that fall with intervals over photos."""

    kinds: list[KindOfLadder]
    trained: Interval
    held_out: Interval


def falls(scores: Floats) -> NDArray[np.bool_]:
    """Return for (..., steps) scores whether each step is below the one before, (...)."""
    return np.asarray((np.diff(scores, axis=-1) < 0).all(-1))


def measure_ladders(rows: pd.DataFrame, direction: float, samples: int) -> Ladders:
    """Judge scores of a :class:`LadderReader`.

    Args:
        rows: photo, distortion, degree, score; photos of which a score is missing count for nothing.
        direction: -1 for a metric that is lower better, else 1.
        samples: bootstrap samples of photos.
    """
    table = rows.pivot(index="photo", columns=["distortion", "degree"], values="score")
    wanted = [(CLEAN, "0")]
    for kind in TRAINED | HELD_OUT:
        wanted += [(kind, str(degree)) for degree in DEGREES]
    table = direction * table.reindex(columns=wanted).dropna()
    kinds = []
    shares: dict[str, list[NDArray[np.bool_]]] = {"trained": [], "held out": []}
    for kind in TRAINED | HELD_OUT:
        columns = [(CLEAN, "0"), *((kind, str(degree)) for degree in DEGREES)]
        scores = table[columns].to_numpy(float)
        use = "trained" if kind in TRAINED else "held out"
        falling = falls(scores)
        shares[use].append(falling)
        steps = np.diff(scores) < 0
        means = (direction * scores.mean(0)).tolist() if len(scores) else []
        kinds.append(KindOfLadder(kind, use, len(scores), _mean(falling), _mean(steps), means))
    trained, held_out = (
        interval_of_mean(np.mean(found, axis=0), samples) for found in shares.values()
    )
    return Ladders(kinds, trained, held_out)


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


@dataclass(frozen=True)
class Stability:
    """How far scores move under one change: the mean absolute move, and that in parts of the photos' spread."""

    change: str
    photos: int
    move: Interval
    of_spread: float


def measure_stability(rows: pd.DataFrame, samples: int) -> list[Stability]:
    """Judge scores of a :class:`StabilityReader`.

    Args:
        rows: photo, change, score; photos of which a score is missing count for nothing.
        samples: bootstrap samples of photos.
    """
    table = rows.pivot(index="photo", columns="change", values="score")
    table = table.reindex(columns=[CLEAN, *CHANGES]).dropna()
    clean = table[CLEAN].to_numpy(float)
    spread = float(clean.std()) if len(clean) > 1 else float("nan")
    found = []
    for change in CHANGES:
        move = interval_of_mean(np.abs(table[change].to_numpy(float) - clean), samples)
        of_spread = move.value / spread if spread else float("nan")
        found.append(Stability(change, len(clean), move, of_spread))
    return found
