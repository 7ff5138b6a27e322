"""What the network refuses: images and scores that are none, and options of another kind."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_OVERSHOOT = 0.5
"""How far outside [0, 1] a pixel may lie without a warning, as those of images that are being optimized do."""

FAR_OUTSIDE = (
    "images lie further outside [0, 1] than 0.5: each pixel counts as the nearest value inside, and those outside have "
    "no gradient; divide 8-bit images by 255"
)
"""The same text every time, which Python shows once."""


def check_images(x: Tensor) -> Tensor:
    """Refuse what is not (B, 1 or 3, H, W) floating point and finite, and bring it into [0, 1].

    Training with the score as a loss must not end for one pixel, so values far outside are a warning.

    Raises:
        RuntimeError: inside ``torch.jit.trace``.
        TypeError: not a floating-point tensor.
        ValueError: another shape, a pixel that is not finite.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch forgot to annotate it
        raise RuntimeError(
            "LifeIQA cannot be traced, as its crops depend on the size of the image; use torch.compile "
            "or torch.export, or trace network.forward_crops"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"images must be a floating-point tensor in [0, 1], got {kind}; divide 8-bit images by 255"
        )
    if x.dim() != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ValueError(
            f"images must be (B, 1 or 3, H, W) with no empty side, got {tuple(x.shape)}"
        )
    low, high = x.detach().aminmax()
    if torch.compiler.is_compiling():  # no Python number may depend on a pixel
        torch._assert_async(low.isfinite() & high.isfinite(), "images must be finite")
        return x.clamp(0, 1)
    lowest, highest = low.item(), high.item()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError(f"images must be finite, got minimum {lowest} and maximum {highest}")
    if lowest < -MAX_OVERSHOOT or highest > 1 + MAX_OVERSHOOT:
        warnings.warn(FAR_OUTSIDE, stacklevel=1)
    return x if lowest >= 0 and highest <= 1 else x.clamp(0, 1)


def check_score(score: Tensor) -> None:
    """Refuse to give NaN or infinity as a score; the images have been checked.

    Raises:
        FloatingPointError: one is not finite.
    """
    if not torch.compiler.is_compiling() and not score.isfinite().all():
        raise FloatingPointError(
            "the score is not finite: the weights are damaged, or too large for their data type"
        )


def check_choice(name: str, value: str, one: str, other: str) -> None:
    """See that an option is one of two words."""
    if value not in (one, other):
        raise ValueError(f"{name} must be {one!r} or {other!r}, got {value!r}")


def check_count(name: str, value: int, limit: int) -> None:
    """See that an option is a whole number from 1 to ``limit``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if value > limit:
        raise ValueError(f"{name} must be at most {limit}, got {value}")


def to_pair(name: str, value: Sequence[float] | None) -> tuple[float, float] | None:
    """Return an option of two finite numbers as such, and None as None."""
    if value is None:
        return None
    try:
        first, second = map(float, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be two numbers, got {value!r}") from error
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError(f"{name} must be two finite numbers, got {value!r}")
    return first, second


def check_naming(value: object) -> None:
    """See that an option is None, or has cuts 0 < likely <= sure < 1 by name of distortion.

    Raises:
        ValueError: it is something else.
    """
    if value is None:
        return
    try:
        for name, cut in dict(value).items():  # type: ignore[call-overload]  # fails if it is no mapping
            numbers = [0, cut["likely"], cut["sure"], 1]
            pairs = [pair for pair in cut.get("shares", []) if 0 <= min(pair) <= max(pair) <= 1]
            is_known = cut.keys() <= {"likely", "sure", "shares"}
            if not (
                is_known and numbers == sorted(numbers) and pairs == list(cut.get("shares", []))
            ):
                raise ValueError(name)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "naming must give each distortion likely and sure, 0 to 1 and rising, and may give shares, pairs of "
            f"numbers from 0 to 1; got {value!r}"
        ) from error
