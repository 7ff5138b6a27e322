"""What pulls at the scores: SmoothL1 to the opinion scores, and ranking within ladders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmoothL1Loss(nn.SmoothL1Loss):
    """The released code's loss, under pyiqa's ``mos_loss_opt``: ``loss_weight`` x SmoothL1 with threshold ``beta``."""

    def __init__(
        self, loss_weight: float = 1.0, beta: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction, beta=beta)
        self.loss_weight = loss_weight

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(B, 1), (B, 1) -> ()."""
        return self.loss_weight * super().forward(input, target)


def rank_loss(scores: Tensor, margin: float = 0.03) -> Tensor:
    """Hinge on (L, K) scores of L ladders: zero where each rung is at least ``margin`` below the one before."""
    return F.relu(margin + scores.diff(dim=1)).sum() / max(1, scores[:, 1:].numel())


def has_label(scores: Tensor, mos: Tensor, is_ladder: Tensor) -> Tensor:
    """Return which of the scores (B, K) have a label: all crops of an image, the first of a ladder whose mos is one.

    Args:
        scores: (B, K) of K crops each.
        mos: (B, 1), NaN where a ladder begins with a distorted crop.
        is_ladder: (B,).
    """
    is_first = torch.arange(scores.shape[1], device=scores.device) == 0
    first_of_ladder = is_ladder[:, None] & is_first & mos.isfinite()
    labelled: Tensor = ~is_ladder[:, None] | first_of_ladder
    return labelled
