"""From the backbone's last two stages to one score per query: queries, graph, cross-attention, experts.

Letters in shapes: B crops, Q queries, C channels, M memory tokens, E experts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifeiqa_plugin.network.graph import GCN, ScatterBackend
from lifeiqa_plugin.network.moe import Routing, SparseMoE


class InteractionLayer(nn.Module):
    """``x = x + GCN(x)``, then ``x = x + CrossAttention(LayerNorm(x), memory)`` (paper section 3.2).

    Shapes: x (B, Q, C), memory (B, M, C) -> x (B, Q, C) and, on request, attention (B, Q, M), mean over heads.
    """

    def __init__(self, dim: int, num_heads: int, gcn: GCN) -> None:
        super().__init__()
        self.gcn = gcn
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)

    def forward(
        self, x: Tensor, memory: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let the queries talk, then look at the image."""
        x = x + self.gcn(x)
        seen, attention = self.attention(self.norm(x), memory, memory, need_weights=need_weights)
        return x + seen, attention


class DecoderOutput(NamedTuple):
    """Every stage of the decoder, for proofs and explanations; ``attention`` (B, Q, M) only on request."""

    queries: Tensor  # (B, Q, C)
    memory: Tensor  # (B, M, C)
    tokens_first_layer: Tensor  # (B, Q, C)
    tokens_last_layer: Tensor  # (B, Q, C)
    routing: Routing
    moe_out: Tensor  # (B, Q, C)
    tokens_out: Tensor  # (B, Q, C)
    query_scores: Tensor  # (B, Q)
    attention: Tensor | None


class Decoder(nn.Module):
    """From the backbone's last two stages to one raw score per query; arguments as in :class:`LifeIQA`."""

    def __init__(
        self,
        stage3_channels: int,
        stage4_channels: int,
        embed_dim: int = 384,
        num_heads: int = 6,
        num_queries: int = 6,
        depth: int = 4,
        num_experts: int = 8,
        top_k: int = 2,
        memory_grid: int = 7,
        adjacency: Literal["fixed", "learnable"] = "fixed",
        gcn_final_activation: bool = False,
        moe_scaled: Literal["experts", "bypass"] = "experts",
        dropout: float = 0.1,
        scatter_backend: ScatterBackend = "auto",
    ) -> None:
        super().__init__()
        _check_decoder_arguments(embed_dim, num_heads, num_queries, depth, memory_grid, moe_scaled)
        self.memory_grid = memory_grid
        self.moe_scaled = moe_scaled
        self.query_tokens = nn.Parameter(torch.empty(1, num_queries, embed_dim))
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        self.context = nn.Linear(stage4_channels, embed_dim)
        self.memory = nn.Linear(stage3_channels, embed_dim)
        self.layers = nn.ModuleList(
            InteractionLayer(
                embed_dim,
                num_heads,
                GCN(embed_dim, num_queries, None, adjacency, gcn_final_activation, scatter_backend),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.moe = SparseMoE(embed_dim, num_experts, top_k, dropout)
        self.moe_scale = nn.Parameter(torch.tensor(0.1))
        self.head = nn.Linear(embed_dim, 1)

    def forward(self, stage3: Tensor, stage4: Tensor, need_weights: bool = False) -> DecoderOutput:
        """(B, C3, H3, W3), (B, C4, H4, W4) -> :class:`DecoderOutput`."""
        queries = self.query_tokens + self.context(stage4.mean((2, 3)))[:, None]  # (B, Q, C)
        memory = self.memory(_pool_to_grid(stage3, self.memory_grid).flatten(2).mT)  # (B, M, C)
        tokens, attention, first = queries, None, queries
        for i, layer in enumerate(self.layers):
            tokens, attention = layer(tokens, memory, need_weights and i == len(self.layers) - 1)
            first = tokens if i == 0 else first
        normed = self.norm(tokens)
        moe_out, routing = self.moe(normed)
        if self.moe_scaled == "experts":
            tokens_out = normed + self.moe_scale * moe_out
        else:
            tokens_out = moe_out + self.moe_scale * normed
        query_scores = self.head(tokens_out).squeeze(-1)  # (B, Q)
        return DecoderOutput(
            queries, memory, first, tokens, routing, moe_out, tokens_out, query_scores, attention
        )


def _check_decoder_arguments(
    embed_dim: int, num_heads: int, num_queries: int, depth: int, memory_grid: int, moe_scaled: str
) -> None:
    for name, value in {
        "num_queries": num_queries,
        "depth": depth,
        "memory_grid": memory_grid,
    }.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if embed_dim < 4 or embed_dim % 4 or embed_dim % num_heads:
        raise ValueError(
            f"embed_dim must be a multiple of 4 and of num_heads={num_heads}, got {embed_dim}"
        )
    if moe_scaled not in ("experts", "bypass"):
        raise ValueError(f"moe_scaled must be 'experts' or 'bypass', got {moe_scaled!r}")


def _pool_to_grid(x: Tensor, grid: int) -> Tensor:
    """Average (B, C, H, W) over a grid x grid of cells; avg_pool2d where it divides, being faster and deterministic."""
    height, width = x.shape[-2:]
    if height % grid == 0 and width % grid == 0:
        return F.avg_pool2d(x, (height // grid, width // grid))
    return F.adaptive_avg_pool2d(x, grid)
