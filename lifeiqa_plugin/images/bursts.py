"""Which photos show the same: frames of one burst, among neighbors in time or name, copies, and near-duplicates."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from lifeiqa_plugin.images.opening import open_image
from lifeiqa_plugin.images.reading import decode

Floats = NDArray[np.float32]
Pair = tuple[int, int]

SIDE = 32
"""Gray values to a side, to which photos are reduced before they are compared."""

SHIFTS = range(-3, 4)
"""Of one photo against the other, in these values: up to 9 % of the frame."""

ALIKE = 0.7
"""Correlation from which on two neighbors show the same; see ``docs/research_notes.md``."""

NEXT = 3
"""How many photos that follow are compared with each."""

GAP = 30.0
"""Seconds; frames further apart are of different bursts."""

CHANCE, CHANCE_OF_SMALL = 0.02, 0.04
"""Between the scores of two frames of one scene, 95 % of the differences that mean nothing are below; see
``docs/research_notes.md``."""

SMALL = 1_000_000
"""Pixels below which a photo is small: a shift moves its score more."""

NEARLY_EQUAL = 0.9995
"""Correlation from which on two photos of one size may be the same picture, and are read in full."""

NEAR_DUPLICATE = 0.97
"""Correlation from which on two images of a dataset are shots of one scene, or copies that were saved again."""

BLOCK = 1024
"""Photos or pairs that are compared at a time, which bounds the memory."""


class Frame(NamedTuple):
    """What is compared of a photo."""

    path: str
    size: tuple[int, int]
    taken: float | None  # seconds, on the clock of the camera
    gray: Floats  # (SIDE, SIDE)


class Groups(NamedTuple):
    """What N photos have to do with one another.

    Attributes:
        burst: number of the group of each, in the order of their first; None for one that stands alone.
        original: the first photo that is the same picture; a photo of which there is none before has its own number.
    """

    burst: list[int | None]
    original: list[int]


def chance(width: int, height: int) -> float:
    """Return the difference of the score to a frame of the same scene that may be chance."""
    return CHANCE_OF_SMALL if width * height < SMALL else CHANCE


def look(path: str, small: Image.Image, size: tuple[int, int]) -> Frame:
    """Return what is compared of a photo.

    Args:
        path: of its file.
        small: the photo, of ``SIDE`` pixels at least.
        size: (width, height) of the file.
    """
    return Frame(path, size, taken_at(path), to_gray(small))


def to_gray(image: Image.Image) -> Floats:
    """Return an image as (SIDE, SIDE) gray values."""
    gray = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(gray, dtype=np.float32)


def fingerprint(gray: Floats) -> Floats:
    """Return (SIDE, SIDE) gray values as (SIDE^2,) of zero mean and unit length; all 0 if they are equal."""
    centered: Floats = gray.ravel() - gray.mean()
    return centered / max(float(np.linalg.norm(centered)), 1e-6)


def group_near_duplicates(prints: Floats) -> list[int | None]:
    """Return the number of the group of each of N fingerprints, None for an image that stands alone.

    An image belongs to a group if it nearly equals any of it.
    """
    return number_groups(_near_pairs(prints, NEAR_DUPLICATE), len(prints))


def _near_pairs(prints: Floats, limit: float) -> Iterator[Pair]:
    """Yield the pairs of fingerprints whose correlation is at least ``limit``."""
    for start in range(0, len(prints), BLOCK):
        is_near = prints[start : start + BLOCK] @ prints.T >= limit
        first, second = np.nonzero(np.triu(is_near, start + 1))
        yield from zip((first + start).tolist(), second.tolist(), strict=True)


def taken_at(path: str) -> float | None:
    """Return when a photo was taken, in seconds, from its EXIF data; None if they do not say it."""
    try:
        with open_image(path) as opened:
            exif = opened.image.getexif().get_ifd(ExifTags.IFD.Exif)
        text = exif[ExifTags.Base.DateTimeOriginal]
        part = str(exif.get(ExifTags.Base.SubsecTimeOriginal, "")).strip("\0 ")
        whole = datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S")
        return (whole - datetime(1970, 1, 1)).total_seconds() + float(f"0.{part}" if part else 0)
    except Exception:  # damaged EXIF data are none
        return None


def find_groups(frames: Sequence[Frame]) -> Groups:
    """Find the bursts and the copies among photos.

    A photo belongs to a burst if it shows the same as any of it. Copies belong together wherever they are.
    """
    original = _find_originals(frames)
    alike = find_alike(frames, sorted(set(_neighbors(frames))))
    return Groups(number_groups([*enumerate(original), *alike], len(frames)), original)


def is_burst(frames: Sequence[Frame]) -> bool:
    """Whether all photos show the same, wherever and whenever they were taken."""
    pairs = list(itertools.combinations(range(len(frames)), 2))
    return number_groups(find_alike(frames, pairs), len(frames)) == [0] * len(frames)


def _neighbors(frames: Sequence[Frame]) -> Iterator[Pair]:
    """Yield the pairs that may be of one burst: near in time, or in name where no time says otherwise."""
    by_name = sorted(range(len(frames)), key=lambda i: _natural(frames[i].path))
    by_time = [i for i in by_name if frames[i].taken is not None]
    by_time.sort(key=lambda i: frames[i].taken or 0)  # stable: names decide within one second
    for order in (by_name, by_time):
        for step in range(1, NEXT + 1):
            for i, j in zip(order, order[step:], strict=False):
                one, other = frames[i], frames[j]
                if one.taken is not None and other.taken is not None:
                    if abs(one.taken - other.taken) <= GAP:
                        yield min(i, j), max(i, j)
                elif os.path.dirname(one.path) == os.path.dirname(other.path):
                    yield min(i, j), max(i, j)


def _natural(path: str) -> list[Any]:
    """Return a key that sorts numbers in names by value."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)
    ]


def find_alike(frames: Sequence[Frame], pairs: list[Pair]) -> list[Pair]:
    """Return the pairs that show the same."""
    found = []
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        first, second = (np.stack([frames[pair[k]].gray for pair in block]) for k in (0, 1))
        is_alike = _correlate(first, second) >= ALIKE
        found += [pair for pair, is_one in zip(block, is_alike, strict=True) if is_one]
    return found


def _correlate(first: Floats, second: Floats) -> Floats:
    """Return the highest correlation of pairs (N, SIDE, SIDE) over all shifts; 0 for flat ones.

    What is the same in whole rows or columns is taken out: two horizons have that in common.
    """
    best = np.zeros(len(first), dtype=np.float32)
    for down, right in itertools.product(SHIFTS, SHIFTS):
        a = _residual(
            first[:, max(0, down) : SIDE + min(0, down), max(0, right) : SIDE + min(0, right)]
        )
        b = _residual(
            second[:, max(0, -down) : SIDE + min(0, -down), max(0, -right) : SIDE + min(0, -right)]
        )
        power = [np.einsum("nij,nij->n", x, x) + 4 * SIDE**2 for x in (a, b)]  # noise of 2 levels
        best = np.maximum(best, np.einsum("nij,nij->n", a, b) / np.sqrt(power[0] * power[1]))
    return best


def _residual(values: Floats) -> Floats:
    rows, columns = values.mean(2, keepdims=True), values.mean(1, keepdims=True)
    residual: Floats = values - rows - columns + values.mean((1, 2), keepdims=True)
    return residual


def _find_originals(frames: Sequence[Frame]) -> list[int]:
    """Return for each photo the first one of equal pixels; only those that nearly equal another are read."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for i, frame in enumerate(frames):
        sizes.setdefault(frame.size, []).append(i)
    original, first = list(range(len(frames))), dict[str, int]()
    for members in sizes.values():
        prints = np.stack([fingerprint(frames[i].gray) for i in members])
        nearly_equal = {k for pair in _near_pairs(prints, NEARLY_EQUAL) for k in pair}
        for i in (members[k] for k in sorted(nearly_equal)):
            original[i] = first.setdefault(_digest(frames[i].path), i)
    return original


def _digest(path: str) -> str:
    """Return a digest of the pixels of a file; the path itself if it cannot be read."""
    try:
        pixels = decode(path).pixels
    except OSError:
        return path
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def number_groups(pairs: Iterable[Pair], count: int) -> list[int | None]:
    """Number the groups that pairs join, in the order of their first; None for what is in no pair with another."""
    first = list(range(count))

    def find(i: int) -> int:
        while first[i] != i:
            first[i] = i = first[first[i]]
        return i

    for i, j in pairs:
        low, high = sorted((find(i), find(j)))
        first[high] = low
    roots = [find(i) for i in range(count)]
    sizes, numbers = Counter(roots), dict[int, int]()
    return [numbers.setdefault(r, len(numbers)) if sizes[r] > 1 else None for r in roots]
