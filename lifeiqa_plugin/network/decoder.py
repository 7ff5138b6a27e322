"""From the backbone's last two stages to one score per query: queries, graph, cross-attention, experts.

Letters in shapes: B crops, Q queries, C channels, M memory tokens, L layers, E experts, D distortions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifeiqa_plugin.network.checks import check_choice, check_count
from lifeiqa_plugin.network.graph import GCN, Graph, ScatterBackend, edges_of
from lifeiqa_plugin.network.moe import Routing, SparseMoE

LIMITS = {
    "embed_dim": 16_384,
    "num_heads": 1024,
    "num_queries": 256,
    "depth": 64,
    "num_experts": 4096,
    "top_k": 4096,
    "memory_grid": 64,
}
"""Far above any use: a damaged or hostile checkpoint must not ask for all the memory there is."""

MOST_READOUTS = 64

DISTORTION_WIDTH = 128
"""Hidden units of the head that tells distortions from the stages."""


@dataclass(frozen=True)
class DecoderConfig:
    """What a decoder is built from; the defaults are those of the released code.

    Raises:
        TypeError: a number that is no whole number, names of distortions that are no list of texts.
        ValueError: a field out of its range.
    """

    embed_dim: int = 384
    """C, channels of a token; a multiple of 4 and of ``num_heads``."""
    num_heads: int = 6
    """Heads of the cross-attention."""
    num_queries: int = 6
    """Q, learned queries, the nodes of the graph."""
    depth: int = 4
    """L, number of interaction layers."""
    num_experts: int = 8
    """E; 1 is a plain two-layer network without router."""
    top_k: int = 2
    """K, experts per query; capped at E."""
    memory_grid: int = 7
    """stage3 is averaged to ``memory_grid ** 2`` memory tokens."""
    graph: Graph = "complete"
    """Who talks to whom: ``complete``, ``ring``, ``star`` (around query 0), ``none``, or [[source, target], ...]."""
    adjacency: Literal["fixed", "learnable"] = "fixed"
    """``fixed`` (released code) or ``learnable`` (paper), see :class:`~lifeiqa_plugin.network.graph.GCN`."""
    gcn_final_activation: bool = False
    """ReLU after the last graph convolution (paper)."""
    moe_scaled: Literal["experts", "bypass"] = "experts"
    """What the learned scalar s multiplies: ``experts``, x + s MoE(x), or ``bypass``, MoE(x) + s x (paper)."""
    dropout: float = 0.1
    """Inside the experts."""
    scatter_backend: ScatterBackend = "auto"
    """``auto``, ``torch`` or ``torch_scatter``; the numbers are the same."""
    distortions: tuple[str, ...] = ()
    """Names of the distortions that a second head tells apart; empty for none."""
    distortions_from: Literal["queries", "stages"] = "queries"
    """What that head looks at: the mean of the queries, or mean and deviation of stage2 and of stage3's cells."""
    readouts: int = 0
    """Linear read-outs of mean and deviation of stage2, stage3's cells and stage4, added to each query's score."""

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            check_count(name, getattr(self, name), limit)
        if self.embed_dim % 4 or self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim must be a multiple of 4 and of num_heads={self.num_heads}, "
                f"got {self.embed_dim}"
            )
        check_choice("moe_scaled", self.moe_scaled, "experts", "bypass")
        check_choice("distortions_from", self.distortions_from, "queries", "stages")
        if self.readouts != 0:
            check_count("readouts", self.readouts, MOST_READOUTS)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        object.__setattr__(self, "distortions", _checked_names(self.distortions))
        edges_of(self.graph, self.num_queries)  # raises where there is no such graph

    @property
    def num_stages(self) -> int:
        """How many of the backbone's last stages the decoder looks at."""
        tells_from_stages = self.distortions and self.distortions_from == "stages"
        return 3 if self.readouts or tells_from_stages else 2


class InteractionLayer(nn.Module):
    """``x = x + GCN(x)``, then ``x = x + CrossAttention(LayerNorm(x), memory)`` (paper section 3.2).

    Shapes: x (B, Q, C), memory (B, M, C) -> x (B, Q, C) and, on request, attention (B, Q, M), mean over heads.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gcn = GCN(
            config.embed_dim,
            config.num_queries,
            edges_of(config.graph, config.num_queries),
            adjacency=config.adjacency,
            final_activation=config.gcn_final_activation,
            scatter_backend=config.scatter_backend,
        )
        self.norm = nn.LayerNorm(config.embed_dim)
        self.attention = nn.MultiheadAttention(config.embed_dim, config.num_heads, batch_first=True)

    def forward(
        self, x: Tensor, memory: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let the queries talk, then look at the image."""
        x = x + self.gcn(x)
        seen, attention = self.attention(self.norm(x), memory, memory, need_weights=need_weights)
        return x + seen, attention


class DecoderOutput(NamedTuple):
    """What the decoder says of B crops."""

    query_scores: Tensor  # (B, Q) raw, before any score range
    routing: Routing  # of the queries, (B, Q, ...)
    distortion_logits: Tensor  # (B, D); D may be 0
    attention: Tensor | None  # (B, L, Q, M) of every layer, mean over heads; only on request


class ReadOut(nn.Module):
    """Linear read-outs, of which linear gates take shares that sum to 1: (B, C) -> (B, 1). Not in the paper."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.values = nn.Linear(channels, count)
        self.gates = nn.Linear(channels, count)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the read-outs by their gates."""
        shares = self.gates(x).softmax(-1)
        added: Tensor = (shares * self.values(x)).sum(-1, keepdim=True)
        return added


class Decoder(nn.Module):
    """From the backbone's last two stages, with C3 and C4 channels, to one raw score per query.

    Args:
        channels: of the last ``config.num_stages`` stages, the last two as a rule.
        config: everything else.
    """

    def __init__(self, channels: Sequence[int], config: DecoderConfig | None = None) -> None:
        super().__init__()
        config = config or DecoderConfig()
        *_, stage3_channels, stage4_channels = channels
        dim = config.embed_dim
        self.config = config
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_queries, dim))
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        self.context = nn.Linear(stage4_channels, dim)
        self.memory = nn.Linear(stage3_channels, dim)
        self.layers = nn.ModuleList(InteractionLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim)
        self.moe = SparseMoE(dim, config.num_experts, config.top_k, config.dropout)
        self.moe_scale = nn.Parameter(torch.tensor(0.1))
        self.head = nn.Linear(dim, 1)
        if config.distortions:
            self.distortion_head = _distortion_head(sum(channels[:-1]), config)
        if config.readouts:
            self.readout = ReadOut(2 * sum(channels), config.readouts)

    def forward(self, *stages: Tensor, need_weights: bool = False) -> DecoderOutput:
        """(B, C3, H3, W3), (B, C4, H4, W4), with three stages (B, C2, H2, W2) first -> :class:`DecoderOutput`."""
        *lower, stage3, stage4 = stages
        context = self.context(stage4.mean((2, 3)))  # (B, C)
        tokens = self.query_tokens + context[:, None]  # (B, Q, C)
        cells = pool_to_grid(stage3, self.config.memory_grid)  # (B, C3, grid, grid)
        memory = self.memory(cells.flatten(2).mT)  # (B, M, C)
        attention = []
        for layer in self.layers:
            tokens, weights = layer(tokens, memory, need_weights)
            attention.append(weights)
        tokens = self.norm(tokens)
        mixed, routing = self.moe(tokens)
        if self.config.moe_scaled == "experts":
            tokens = tokens + self.moe_scale * mixed
        else:
            tokens = mixed + self.moe_scale * tokens
        query_scores = self.head(tokens).squeeze(-1)  # (B, Q)
        if self.config.readouts:
            query_scores = query_scores + self.readout(_statistics_of_all([*lower, cells, stage4]))
        return DecoderOutput(
            query_scores=query_scores,
            routing=routing,
            distortion_logits=self._tell_distortions(tokens, [*lower, cells]),
            attention=torch.stack(attention, dim=1) if need_weights else None,
        )

    def _tell_distortions(self, tokens: Tensor, maps: list[Tensor]) -> Tensor:
        """(B, Q, C), [(B, C2, H2, W2), (B, C3, grid, grid)] -> (B, D)."""
        pooled = tokens.mean(1)
        if not self.config.distortions:
            return pooled[:, :0]
        if self.config.distortions_from == "stages":
            pooled = _statistics_of_all(maps)
        logits: Tensor = self.distortion_head(pooled)
        return logits


def statistics_of(x: Tensor) -> Tensor:
    """Mean and standard deviation of each channel, (B, C, H, W) -> (B, 2 * C)."""
    variance = x.var((2, 3), correction=0)
    deviation = (variance + 1e-6).sqrt()  # whose slope at 0 is finite
    return torch.cat([x.mean((2, 3)), deviation], dim=1)


def _statistics_of_all(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([statistics_of(x) for x in maps], dim=1)


def _distortion_head(channels: int, config: DecoderConfig) -> nn.Module:
    count = len(config.distortions)
    if config.distortions_from == "queries":
        return nn.Linear(config.embed_dim, count)
    hidden = nn.Linear(2 * channels, DISTORTION_WIDTH)
    return nn.Sequential(hidden, nn.GELU(), nn.Linear(DISTORTION_WIDTH, count))


def pool_to_grid(x: Tensor, grid: int) -> Tensor:
    """Average (B, C, H, W) over a grid x grid of cells; avg_pool2d where it divides, being faster and deterministic."""
    height, width = x.shape[-2:]
    if height % grid == 0 and width % grid == 0:
        return F.avg_pool2d(x, (height // grid, width // grid))
    return F.adaptive_avg_pool2d(x, grid)


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"distortions must be a list of names, got {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"distortions must differ from one another, got {list(names)}")
    return tuple(names)
