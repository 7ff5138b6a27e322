"""The mean score of images as a metric of torchmetrics, for validation loops: ``pip install torchmetrics``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lifeiqa_plugin.checkpoints.factory import load
from lifeiqa_plugin.checkpoints.models import DEFAULT, Model


class LifeIQA(Metric):
    """Mean score of all images since the last ``reset``, over all processes: 0 worst, 1 best.

    >>> metric = LifeIQA()
    >>> metric.update(torch.full((2, 3, 224, 224), 0.5))
    >>> metric.compute().shape
    torch.Size([])

    Args:
        model: ``lifeiqa``, ``lifeiqa-biq2021`` or a checkpoint.
        **options: of every metric of torchmetrics, such as ``sync_on_compute``.

    Raises:
        OSError, ValueError: as :func:`~lifeiqa_plugin.checkpoints.factory.load`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    total: Tensor
    count: Tensor

    def __init__(self, model: str | Path | Model = DEFAULT, **options: Any) -> None:
        super().__init__(**options)
        self.network = load(model, fused=True)  # which is never in training mode
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, images: Tensor) -> None:
        """Score (B, 1 or 3, H, W) in [0, 1].

        Raises:
            ValueError: images outside [0, 1], or as :class:`lifeiqa_plugin.LifeIQA`, as is TypeError.
        """
        low, high = (float(end) for end in images.aminmax())
        if low < 0 or high > 1:
            raise ValueError(
                f"images must lie in [0, 1], got minimum {low:g} and maximum {high:g}; divide 8-bit images by 255"
            )
        scores = self.network(images)
        self.total += scores.double().sum()
        self.count += len(scores)

    def compute(self) -> Tensor:
        """Return the mean, (); NaN without images."""
        return (self.total / self.count).float()
