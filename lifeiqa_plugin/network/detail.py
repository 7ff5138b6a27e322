"""A nearer look at large photos, for what their whole view does not show.

At its working size a photo of 12 megapixels is an eighth as wide, and a blur of two pixels is gone. So the part with
most detail is looked at too, at half its size, and what is wrong there is taken off the score.

Plain numbers and NumPy: runtimes without torch ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from lifeiqa_plugin.network.crops import crop_offsets

Values = TypeVar("Values")

LARGE = 3
"""Times the working size: shorter side from which a photo is large."""

SHRUNK = 2
"""Times the working size: side of the part, which is then shown at the working size."""

FLOOR = 1e-3
"""Shares nearer to 0 or 1 count as this: below it, no distortion is there."""

SCORE = "score"


def is_large(height: int, width: int, working_size: int) -> bool:
    """Say whether an image gets a nearer look."""
    return min(height, width) >= LARGE * working_size


def find_part(planes: Any, height: int, width: int, working_size: int) -> tuple[int, int]:
    """Return the (top, left) corner of the part of an image that has most detail.

    Args:
        planes: (1 or 3, h, w) the image at its working size.
        height: of the image.
        width: of the image.
        working_size: of the network; the part has ``SHRUNK`` times as many pixels to a side.
    """
    gray = planes.mean(0)
    edges = np.abs(np.diff(gray, axis=0, prepend=gray[:1]))
    edges += np.abs(np.diff(gray, axis=1, prepend=gray[:, :1]))
    rows, columns = gray.shape[0] / height, gray.shape[1] / width
    side = SHRUNK * working_size

    def detail(corner: tuple[int, int]) -> float:
        top, left = round(corner[0] * rows), round(corner[1] * columns)
        part = edges[top : top + round(side * rows), left : left + round(side * columns)]
        return float(part.mean())

    return max(crop_offsets(height, width, side), key=detail)


@dataclass(frozen=True)
class DetailRule:
    """What the nearer look takes off a score: ``offset`` + the sum of weight * logit(share), if that is above 0.

    Attributes:
        offset: a score's difference.
        weights: of the nearer look's ``score`` and of some of its distortions, by their names.
    """

    offset: float
    weights: dict[str, float]

    @classmethod
    def parse(cls, option: Mapping[str, float] | bool | None) -> DetailRule | None:
        """Read the option ``detail``: numbers by their names, ``offset`` among them; None or False for one look.

        Raises:
            ValueError: anything else.
        """
        if option is None or option is False:
            return None
        if not isinstance(option, Mapping) or "offset" not in option:
            raise ValueError(
                f"detail must be False or numbers by name, with 'offset' among them, got {option!r}"
            )
        weights = {name: float(weight) for name, weight in option.items()}
        return cls(weights.pop("offset"), weights)

    def check(self, distortions: tuple[str, ...], score_range: Any) -> None:
        """See that a network has what the rule asks for.

        Raises:
            ValueError: its scores are not 0 to 1, or it does not name a distortion.
        """
        missing = sorted(self.weights.keys() - {SCORE, *distortions})
        if missing or score_range != (0, 1):
            raise ValueError(
                f"detail needs score_range (0, 1) and the distortions of its weights, got {score_range} without "
                f"{', '.join(missing) or 'any missing'}; give detail=False for one look"
            )

    def apply(
        self,
        whole: Values,
        near: Values,
        distortions: Any,
        names: tuple[str, ...],
        log: Callable[[Any], Any] = np.log,
    ) -> Values:
        """Return the scores of B images; arrays, or tensors through which a gradient flows with ``torch.log``.

        Args:
            whole: (B,) scores of the whole views.
            near: (B,) scores of the nearer looks.
            distortions: (B, D) of the nearer looks.
            names: the D distortions.
            log: of an array or tensor.
        """
        shares = dict(zip((SCORE, *names), (near, *distortions.T), strict=True))
        fall: Any = 0 * near + self.offset  # type: ignore[operator]  # numbers of either kind
        for name, weight in self.weights.items():
            share = shares[name].clip(FLOOR, 1 - FLOOR)
            fall = fall + weight * log(share / (1 - share))
        scores: Values = (whole - fall.clip(0)).clip(0)
        return scores

    def join(self, fell: Values, whole: Values, near: Values, names: tuple[str, ...]) -> Values:
        """Return how much there is of each distortion, so that what took something off a score is among them.

        Args:
            fell: (B,) whether the nearer look lowered the score. Then what the rule reads is the more of both looks.
            whole: (B, D) distortions of the whole views.
            near: (B, D) those of the nearer looks.
            names: the D distortions.
        """
        joined: Any = whole + 0  # type: ignore[operator]  # numbers of either kind
        for i, name in enumerate(names):
            if name in self.weights:
                joined[:, i] += fell * (near - whole)[:, i].clip(0)  # type: ignore[operator]
        return joined  # type: ignore[no-any-return]
