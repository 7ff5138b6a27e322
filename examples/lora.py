"""A network of one's own: Life-IQA whose backbone learns low-rank changes of its matrices only (LoRA).

Hu et al., arXiv 2106.09685.

    lifeiqa train -opt options/train/koniq10k.yml --import lora \
        --force-yml network:type=LoRALifeIQA network:rank=8 train:optim:lr=2e-4
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lifeiqa_plugin import LifeIQA


class LowRank(nn.Module):
    """Add ``up @ down`` to a matrix (out, in); nothing at first, since ``up`` begins at zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / rank**0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed matrix."""
        return weight + self.up @ self.down


class LoRALifeIQA(LifeIQA):
    """Every linear layer of the backbone gets a low-rank change; the backbone's own weights stand still.

    Args:
        *args: as LifeIQA.
        rank: of the changes.
        **options: as LifeIQA.
    """

    def __init__(self, *args: Any, rank: int = 4, **options: Any) -> None:
        super().__init__(*args, **options)
        self.config["rank"] = rank  # what a checkpoint keeps, and gives back
        for layer in self.backbone.modules():
            if type(layer) is nn.Linear:
                parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))

    def set_trainable(self, trainable: bool) -> LoRALifeIQA:
        """Let decoder and changes move, nothing else."""
        super().set_trainable(trainable)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(trainable and name.endswith((".up", ".down")))
        return self
