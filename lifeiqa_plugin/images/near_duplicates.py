"""Which images nearly equal each other: shots of a burst, and copies saved again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR_DUPLICATE = 0.97
"""Correlation of two images at 32 x 32 gray values from which on they count as near-duplicates."""

BLOCK = 1024
"""Images that are compared with all others at a time, which bounds the memory."""


def fingerprint(image: Image.Image) -> NDArray[np.float32]:
    """Return an image as 32 x 32 gray values of zero mean and unit length, (1024,); all 0 if it is one color."""
    small = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32).ravel()
    centered: NDArray[np.float32] = values - values.mean()
    return centered / max(float(np.linalg.norm(centered)), 1e-6)


def group_near_duplicates(prints: NDArray[np.float32]) -> list[int | None]:
    """Return the number of the group of each of N fingerprints (N, 1024), None for an image that stands alone.

    Groups are numbered in the order of their first image. An image belongs to a group if it nearly equals any of it.
    """
    labels = np.arange(len(prints))  # of each image the first of its group
    for start in range(0, len(prints), BLOCK):
        alike = prints[start : start + BLOCK] @ prints.T >= NEAR_DUPLICATE
        for row in alike[alike.sum(1) > 1]:
            joined = labels[row]
            labels[np.isin(labels, joined)] = joined.min()
    sizes = np.bincount(labels, minlength=len(prints))
    numbers: dict[int, int] = {}
    groups = []
    for label in labels.tolist():
        groups.append(numbers.setdefault(label, len(numbers)) if sizes[label] > 1 else None)
    return groups
