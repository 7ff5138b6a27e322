"""What pulls at the scores: SmoothL1 to people's scores, votes for pairs, and ranking of distortion levels."""

from __future__ import annotations

from typing import NamedTuple

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

    def forward(self, input: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, 1), (B, 1) -> (); also with a weight (B, 1) for each, and then the mean, whatever ``reduction`` says."""
        if weight is None:
            return self.loss_weight * super().forward(input, target)
        each = F.smooth_l1_loss(input, target, reduction="none", beta=self.beta)
        return self.loss_weight * (weight * each).mean()


def rank_loss(scores: Tensor, margin: float = 0.03) -> Tensor:
    """Hinge on (L, K) scores at K distortion levels: zero where each is at least ``margin`` below the one before."""
    return F.relu(margin + scores.diff(dim=1)).sum() / max(1, scores[:, 1:].numel())


def pair_loss(scores: Tensor, votes: Tensor, scale: float) -> Tensor:
    """Mean negative log-likelihood of a vote, by Bradley and Terry: left wins with odds ``exp(difference / scale)``.

    Args:
        scores: (B, K) of crops, of which the first half shows the left image.
        votes: (B, 2) for the left and for the right image; zeros for what is no pair.
        scale: difference of two scores at which the better image gets 73 % of the votes.
    """
    left, right = scores.float().unflatten(1, (2, -1)).mean(2).unbind(1)
    odds = (left - right) / scale
    surprise = F.softplus(torch.stack([-odds, odds], 1))  # (B, 2)
    return (votes * surprise).sum() / votes.sum().clamp(min=1e-9)


class FidelityLoss(nn.Module):
    """How far the chances that one image is better than another are from who is; for scales that disagree.

    ``1 - sqrt(p q) - sqrt((1 - p)(1 - q))`` over all pairs, where p is Thurstone's chance by the scores and q is 1, 0
    or, for equal labels, 1/2 (Tsai et al., FRank, 2007; used for quality by Zhang et al., UNIQUE, 2021).

    Args:
        loss_weight: factor.
        deviation: of one score, in units of the score.
    """

    def __init__(self, loss_weight: float = 1.0, deviation: float = 0.1) -> None:
        super().__init__()
        self.loss_weight, self.deviation = loss_weight, deviation

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(B, 1), (B, 1) -> ()."""
        first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
        gap = (input[first] - input[second]) / (self.deviation * 2**0.5)
        p = torch.special.ndtr(gap.float()).clamp(1e-6, 1 - 1e-6)
        q = (target[first] - target[second]).sign() / 2 + 0.5
        fidelity = p.sqrt() * q.sqrt() + (1 - p).sqrt() * (1 - q).sqrt()
        loss: Tensor = self.loss_weight * (1 - fidelity).mean()
        return loss


class Labels(NamedTuple):
    """What is known of a batch of B images."""

    mos: Tensor  # (B, 1), NaN for pairs and where the first distortion level is not the clean image
    has_levels: Tensor  # (B,) whether the crops are distortion levels
    source: Tensor  # (B,) number of the training set
    kinds: Tensor  # (B, K) distortion of each crop, as LifeIQADataset has it
    votes: Tensor  # (B, 2) for the left and for the right image, zeros for what is no pair
    weight: Tensor  # (B,) of the label in the main loss


def has_label(scores: Tensor, labels: Labels) -> Tensor:
    """Return which of the scores (B, K) have a label: all crops, of levels the first if it is clean, none of pairs."""
    is_other = (labels.has_levels | labels.votes.any(1))[:, None]
    is_first = torch.arange(scores.shape[1], device=scores.device) == 0
    labelled: Tensor = ~is_other | (is_first & labels.mos.isfinite())
    return labelled


def within_sets(loss: nn.Module, score: Tensor, label: Tensor, source: Tensor) -> Tensor:
    """Mean of a loss of (L, 1), (L, 1) within each training set, by its part of the labels; sets of one count 0."""
    total = score.sum() * 0
    for number in source.unique():
        own = source == number
        if own.sum() > 1:
            total = total + loss(score[own], label[own]) * (own.sum() / len(source))
    return total


class AffineCalibration(nn.Module):
    """A line from the shared quality scale to each dataset's own, which rises whatever is learned.

    Args:
        own: whether each set has a scale of its own; the others' line is the identity.
    """

    own: Tensor

    def __init__(self, own: list[bool]) -> None:
        super().__init__()
        self.is_needed = any(own)
        self.offset = nn.Parameter(torch.zeros(len(own)))
        self.log_slope = nn.Parameter(torch.zeros(len(own)))
        self.register_buffer("own", torch.tensor(own), persistent=False)

    def forward(self, scores: Tensor, source: Tensor) -> Tensor:
        """Map (L, 1) scores of images of the sets ``source`` (L,)."""
        if not self.is_needed:
            return scores
        slope = (self.log_slope * self.own).exp()[source, None]
        offset = (self.offset * self.own)[source, None]
        return offset + slope * scores


def distortion_loss(chances: Tensor, kinds: Tensor, columns: list[int]) -> Tensor:
    """Binary cross-entropy of "has this distortion", over the distortion levels.

    Args:
        chances: (L, D) in [0, 1], one column for each distortion that the network names.
        kinds: (L,) number of the crop's distortion, -1 for none, less for a crop that does not count.
        columns: D numbers, what ``kinds`` has for each column.
    """
    counts = kinds >= -1
    if not counts.any():
        return chances.sum() * 0
    wanted = kinds[counts, None] == torch.tensor(columns, device=kinds.device)
    return F.binary_cross_entropy(chances[counts], wanted.float())
