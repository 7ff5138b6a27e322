"""One row of a result: an image and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ScoredImage:
    """An image with its score, or with the reason why it has none.

    Attributes:
        name: path, or what else the image was called.
        width: of the image as it is looked at, after its orientation is applied; 0 if it could not be read.
        height: the same.
        score: 0 worst, 1 best; NaN if there is an error.
        std: how far off the score may be, as one standard deviation.
        distortions: name -> how much of it there is, 0 to 1; empty for a network without that task.
        error: one line; None if all went well.
    """

    name: str
    width: int = 0
    height: int = 0
    score: float = float("nan")
    std: float = float("nan")
    distortions: dict[str, float] = field(default_factory=dict)
    error: str | None = None
