"""Sparse mixture of experts over tokens, and its two side losses.

Every expert runs on every token in two batched matrix products, and the gates (zero for experts that were not chosen)
weigh the results. For the few query tokens of Life-IQA this is faster than gathering tokens per expert, has no
data-dependent branch for compilers to stumble over, and gives every expert a gradient under DDP.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Balancing = Literal["released", "switch"]


class Routing(NamedTuple):
    """What the router decided: logits and gates (..., E), expert_index (..., K)."""

    router_logits: Tensor
    gates: Tensor
    expert_index: Tensor


def load_balancing_loss(routing: Routing, balancing: Balancing = "released") -> Tensor:
    """Return ``E * sum_e mean(p_e) * mean(assigned_e)`` over all tokens; K at perfect balance, 0 for a single expert.

    Args:
        routing: of any number of tokens.
        balancing: ``released`` takes for p the gates after top-k (constant, so without gradient, if K == E);
            ``switch`` the full softmax of the logits, as in Switch Transformer (Fedus et al. 2022, equation 4).
    """
    logits, gates, expert_index = (t.flatten(0, -2) for t in routing)
    num_experts = gates.shape[-1]
    if num_experts < 2:
        return gates.new_zeros(())
    assigned = torch.zeros_like(gates).scatter(1, expert_index, 1.0)  # (tokens, E)
    probability = gates if balancing == "released" else logits.softmax(-1)  # (tokens, E)
    per_expert = probability.mean(0) * assigned.mean(0)  # (E,)
    return num_experts * per_expert.sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Return ``mean(logsumexp(logits)^2)`` over all tokens (ST-MoE, Zoph et al. 2022, equation 5); 0 for one expert."""
    if routing.gates.shape[-1] < 2:
        return routing.gates.new_zeros(())
    log_sums = routing.router_logits.logsumexp(-1)
    return log_sums.square().mean()


class Router(nn.Module):
    """Linear C -> E; the K largest logits of a token share its gates by softmax, the other gates are 0."""

    def __init__(self, dim: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.linear = nn.Linear(dim, num_experts)

    def forward(self, x: Tensor) -> Routing:
        """(..., C) -> Routing; float32 whatever the precision of x, because near ties decide the choice."""
        logits = self.linear(x).float()
        kept, expert_index = logits.topk(self.top_k, dim=-1)  # (..., K)
        shares = kept.softmax(-1)
        gates = torch.zeros_like(logits).scatter(-1, expert_index, shares)  # (..., E)
        return Routing(logits, gates, expert_index)


class Experts(nn.Module):
    """E independent two-layer networks C -> 4C -> C in stacked weights (E, C, 4C) and (E, 4C, C)."""

    def __init__(self, dim: int, num_experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.weight1 = nn.Parameter(torch.empty(num_experts, dim, 4 * dim))
        self.bias1 = nn.Parameter(torch.empty(num_experts, 4 * dim))
        self.weight2 = nn.Parameter(torch.empty(num_experts, 4 * dim, dim))
        self.bias2 = nn.Parameter(torch.empty(num_experts, dim))
        self._initialize(dim, self.weight1, self.bias1)
        self._initialize(4 * dim, self.weight2, self.bias2)

    @staticmethod
    def _initialize(fan_in: int, *parameters: nn.Parameter) -> None:
        """As nn.Linear does."""
        bound = 1 / math.sqrt(fan_in)
        for parameter in parameters:
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(T, C) tokens -> (E, T, C), every expert's answer to every token."""
        num_experts = len(self.weight1)
        tokens = x.expand(num_experts, -1, -1)  # (E, T, C)
        hidden = torch.baddbmm(self.bias1[:, None], tokens, self.weight1)  # (E, T, 4C)
        hidden = F.relu(hidden)
        hidden = F.dropout(hidden, self.dropout, self.training)
        return torch.baddbmm(self.bias2[:, None], hidden, self.weight2)


class SparseMoE(nn.Module):
    """Top-k mixture of experts (paper section 3.3); with one expert a plain GELU network and no router.

    Args:
        dim: C, channels of a token.
        num_experts: E >= 1.
        top_k: K, experts per token; capped at E.
        dropout: inside each expert, after its activation.

    Shapes: (B, Q, C) -> (B, Q, C) and the Routing of each token.
    """

    def __init__(self, dim: int, num_experts: int, top_k: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        if num_experts < 1 or top_k < 1:
            raise ValueError(
                f"num_experts and top_k must be at least 1, got {num_experts} and {top_k}"
            )
        if num_experts == 1:
            self.mlp = nn.Sequential(
                nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
            )
        else:
            self.router = Router(dim, num_experts, min(top_k, num_experts))
            self.experts = Experts(dim, num_experts, dropout)
        self.num_experts = num_experts

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """Mix the experts of each token by its gates."""
        if self.num_experts == 1:
            return self.mlp(x), _to_the_only_expert(x)
        routing = self.router(x)
        tokens = x.flatten(0, 1)  # (B * Q, C)
        answers = self.experts(tokens)  # (E, B * Q, C)
        gates = routing.gates.flatten(0, 1)  # (B * Q, E)
        mixed = torch.einsum("te,etc->tc", gates.to(answers.dtype), answers)
        return mixed.view_as(x), routing


def _to_the_only_expert(x: Tensor) -> Routing:
    """(B, Q, C) -> the routing (B, Q, 1) that leaves nothing to choose."""
    ones = torch.ones_like(x[..., :1], dtype=torch.float32)
    zeros = torch.zeros_like(ones)
    return Routing(router_logits=zeros, gates=ones, expert_index=zeros.long())
