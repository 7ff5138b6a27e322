"""Clean photos that nobody has rated: does a score fall as they are distorted, and does it stay when it should?

Ranking consistency (the L-test of Waterloo Exploration): one photo, one kind of distortion and five growing levels of
it; it is consistent if each of its six scores is below the one before. Stability is how far a score moves under changes
that nobody sees.
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

from lifeiqa_plugin.correlation import Floats, interval_of_mean
from lifeiqa_plugin.datasets.labelled import LabelledImage
from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.images.pixels import as_bytes
from lifeiqa_plugin.images.reading import decode, read_image

KINDS = TRAINED | HELD_OUT
SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
LEVELS = [str(level) for level in range(1, len(SEVERITIES) + 1)]
CLEAN = "clean"
NAN = float("nan")


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

    So a level means the same for all photos, and their own compression disappears.
    """
    image = Image.fromarray(as_bytes(decode(path).pixels))
    factor = side / min(image.size)
    if factor < 1:
        width, height = (round(length * factor) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return _to_tensor(image)


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


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


# ---- what is made of a photo


def distorted(folder: Path, photo: Path) -> list[LabelledImage]:
    """List the clean photo, then all levels of each kind of distortion."""
    name = photo.relative_to(folder).as_posix()
    found = [_variant(name, photo, distortion=CLEAN, degree="0")]
    for kind in KINDS:
        found += [_variant(name, photo, distortion=kind, degree=level) for level in LEVELS]
    return found


def changed(folder: Path, photo: Path) -> list[LabelledImage]:
    """List the photo, then what each of ``CHANGES`` makes of it."""
    name = photo.relative_to(folder).as_posix()
    return [_variant(name, photo, change=change) for change in (CLEAN, *CHANGES)]


def _variant(name: str, photo: Path, **groups: str) -> LabelledImage:
    full_name = "|".join([name, *groups.values()])
    return LabelledImage(full_name, str(photo), NAN, None, {"photo": name, **groups})


@dataclass(frozen=True)
class PhotoReader:
    """Makes what :func:`distorted` or :func:`changed` lists; a kind draws the same random numbers at every level."""

    images: list[LabelledImage]
    side: int
    seed: int

    def __call__(self, row: int, with_reference: bool) -> list[Tensor]:
        """Make one image."""
        photo, groups = self.images[row].path, self.images[row].groups
        if "change" in groups:
            image, change = read_smooth(photo, self.side), groups["change"]
            return [image if change == CLEAN else CHANGES[change](image)]
        image = read_reduced(photo, self.side)
        if groups["distortion"] == CLEAN:
            return [image]
        severity = SEVERITIES[LEVELS.index(groups["degree"])]
        distort = KINDS[groups["distortion"]]
        return [distort(image, severity, Generator().manual_seed(self.seed))]


# ---- changes that nobody sees


def round_to_8_bits(x: Tensor) -> Tensor:
    """Give every value the nearest of 256 levels."""
    return (x * 255).round() / 255


def jpeg_98(x: Tensor) -> Tensor:
    """Encode as JPEG of quality 98 and decode again."""
    file = io.BytesIO()
    Image.fromarray(as_bytes(x.permute(1, 2, 0).numpy())).save(file, "JPEG", quality=98)
    with Image.open(file) as image:
        return _to_tensor(image.convert("RGB"))


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


class Number(NamedTuple):
    """A statistic of one metric on one dataset, or on one group of its images.

    Attributes:
        statistic: its name.
        value: NaN where it is not defined.
        low: end of the 95 % interval; NaN where there is none.
        high: the other end.
        n: images that it is of.
        column: group column; empty for all images.
        group: its value.
    """

    statistic: str
    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0
    column: str = ""
    group: str = ""


def falls(scores: Floats) -> NDArray[np.bool_]:
    """Return for (..., levels) scores whether each is below the one before, (...)."""
    return np.asarray((np.diff(scores, axis=-1) < 0).all(-1))


def measure_levels(rows: pd.DataFrame, direction: float, samples: int) -> list[Number]:
    """Measure ranking consistency: what share of photos falls with each level, by kind and in all.

    Args:
        rows: photo, distortion, degree, score; photos of which a score is missing count for nothing.
        direction: -1 for a metric that is lower better, else 1.
        samples: bootstrap samples of photos.
    """
    table = rows.pivot(index="photo", columns=["distortion", "degree"], values="score")
    columns = {kind: [(CLEAN, "0"), *((kind, level) for level in LEVELS)] for kind in KINDS}
    wanted = dict.fromkeys(column for of_kind in columns.values() for column in of_kind)
    table = direction * table.reindex(columns=list(wanted)).dropna()
    found, falling = [], {}
    for kind in KINDS:
        scores = table[columns[kind]].to_numpy(float)
        falling[kind] = falls(scores)
        means = direction * scores.mean(0) if len(scores) else []
        values = {"falling": _mean(falling[kind]), "steps_falling": _mean(np.diff(scores) < 0)}
        values |= {f"mean_{level}": float(mean) for level, mean in enumerate(means)}
        for name, value in values.items():
            found.append(Number(name, value, n=len(scores), column="distortion", group=kind))
    for name, kinds in (("falling_trained", TRAINED), ("falling_held_out", HELD_OUT)):
        share = interval_of_mean(np.mean([falling[kind] for kind in kinds], axis=0), samples)
        found.append(Number(name, *share, n=len(table)))
    return found


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else NAN


def measure_stability(rows: pd.DataFrame, samples: int) -> list[Number]:
    """Measure the mean absolute move of the score under each change, and that in parts of the photos' spread.

    Args:
        rows: photo, change, score; photos of which a score is missing count for nothing.
        samples: bootstrap samples of photos.
    """
    table = rows.pivot(index="photo", columns="change", values="score")
    table = table.reindex(columns=[CLEAN, *CHANGES]).dropna()
    clean = table[CLEAN].to_numpy(float)
    spread = float(clean.std()) if len(clean) > 1 else NAN
    found, shares = [], []
    for change in CHANGES:
        move = interval_of_mean(np.abs(table[change].to_numpy(float) - clean), samples)
        shares.append(move.value / spread if spread else NAN)
        found.append(Number("move", *move, len(clean), "change", change))
        found.append(Number("move_of_spread", shares[-1], NAN, NAN, len(clean), "change", change))
    return [*found, Number("largest_move_of_spread", max(shares), n=len(clean))]
