"""What ``claims.py`` compares: the decoder and its parts, a Transformer decoder, linear heads, a probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lifeiqa_plugin.network.decoder import Decoder, DecoderConfig, pool_to_grid
from lifeiqa_plugin.network.moe import Routing, load_balancing_loss, router_z_loss

GRID = 7
SIZES: dict[str, Any] = {
    "embed_dim": 128, "num_heads": 4, "num_queries": 6, "depth": 2, "num_experts": 4, "top_k": 2,
    "memory_grid": GRID, "adjacency": "learnable",
}  # fmt: skip
"""As the network that ships."""


def ridge(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Fit a linear probe to (N, D); of eleven penalties the one with the least leave-one-out error is taken."""
    mean, std, level = x.mean(0), x.std(0) + 1e-6, y.mean()
    z = ((x - mean) / std).double()
    values, vectors = torch.linalg.eigh(z.T @ z)
    rotated, target = z @ vectors, (y - level).double()
    errors, weights = [], []
    for penalty in torch.logspace(0, 5, 11, dtype=torch.float64):
        scale = 1 / (values.clamp(min=0) + penalty)
        weight = scale * (rotated.T @ target)
        leverage = (rotated.square() * scale).sum(1) + 1 / len(y)
        errors.append(((target - rotated @ weight) / (1 - leverage)).square().mean())
        weights.append(vectors @ weight)
    best = weights[int(torch.stack(errors).argmin())].float()
    return lambda new: (new - mean) / std @ best + level


class Zero(nn.Module):
    """Stands in for a graph convolution, or for a mixture of experts, that adds nothing."""

    def __init__(self, routing: Routing | None = None) -> None:
        super().__init__()
        self.routing = routing

    def forward(self, x: Tensor) -> Any:
        """(B, Q, C) -> zeros, for a mixture with the routing of a single expert."""
        nothing = torch.zeros_like(x)
        return nothing if self.routing is None else (nothing, self.routing)


class LinearHead(nn.Module):
    """A linear layer on the means of the last stages, which are normalised so that one rate suits all."""

    def __init__(self, c3: int, c4: int, with_stage3: bool) -> None:
        super().__init__()
        self.with_stage3 = with_stage3
        channels = c3 + c4 if with_stage3 else c4
        self.norm, self.head = nn.BatchNorm1d(channels), nn.Linear(channels, 1)

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps -> raw scores (B,) and no side loss."""
        stages = [stage3, stage4] if self.with_stage3 else [stage4]
        pooled = torch.cat([stage.mean((2, 3)) for stage in stages], dim=1)
        return self.head(self.norm(pooled)).squeeze(1), pooled.new_zeros(())


class VanillaDecoder(nn.Module):
    """torch's Transformer decoder on the same queries and memory: self-attention and an FFN in every layer."""

    def __init__(self, c3: int, c4: int, depth: int) -> None:
        super().__init__()
        dim, heads = SIZES["embed_dim"], SIZES["num_heads"]
        self.query_tokens = nn.Parameter(0.02 * torch.randn(1, SIZES["num_queries"], dim))
        self.context, self.memory = nn.Linear(c4, dim), nn.Linear(c3, dim)
        layer = nn.TransformerDecoderLayer(dim, heads, 4 * dim, batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, depth, nn.LayerNorm(dim))
        self.head = nn.Linear(dim, 1)

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps -> raw scores (B,) and no side loss."""
        queries = self.query_tokens + self.context(stage4.mean((2, 3)))[:, None]
        memory = self.memory(pool_to_grid(stage3, GRID).flatten(2).mT)
        return self.head(self.layers(queries, memory)).mean((1, 2)), queries.new_zeros(())


class LifeDecoder(nn.Module):
    """The package's decoder, whole or with one part changed."""

    def __init__(self, c3: int, c4: int, without: str = "", **options: Any) -> None:
        super().__init__()
        self.without = without
        config = DecoderConfig(**(SIZES | options))
        self.decoder = Decoder([c4 if without == "stage3" else c3, c4], config)
        if without == "gcn":
            for layer in self.decoder.layers:
                layer.gcn = Zero()
        if without == "moe":
            one = torch.ones(1, 1, 1)
            self.decoder.moe = Zero(Routing(one, one, one.long()))

    def forward(self, stage3: Tensor, stage4: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps -> raw scores (B,) and the experts' side loss."""
        output = self.decoder(stage4 if self.without == "stage3" else stage3, stage4)
        side = 0.01 * load_balancing_loss(output.routing, "switch")
        return output.query_scores.mean(1), side + 0.001 * router_z_loss(output.routing)


LINEAR, VANILLA, COMPLETE, NO_MOE = "linear head", "vanilla decoder", "complete", "no MoE"
MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear head on stage4": lambda c3, c4: LinearHead(c3, c4, with_stage3=False),
    LINEAR: lambda c3, c4: LinearHead(c3, c4, with_stage3=True),
    VANILLA: lambda c3, c4: VanillaDecoder(c3, c4, 2),
    "vanilla decoder, 1 layer": lambda c3, c4: VanillaDecoder(c3, c4, 1),
    COMPLETE: LifeDecoder,
    "1 layer": lambda c3, c4: LifeDecoder(c3, c4, depth=1),
    "no GCN": lambda c3, c4: LifeDecoder(c3, c4, "gcn"),
    "graph without edges": lambda c3, c4: LifeDecoder(c3, c4, graph="none"),
    "fixed adjacency": lambda c3, c4: LifeDecoder(c3, c4, adjacency="fixed"),
    NO_MOE: lambda c3, c4: LifeDecoder(c3, c4, "moe"),
    "1 expert": lambda c3, c4: LifeDecoder(c3, c4, num_experts=1),
    "8 experts": lambda c3, c4: LifeDecoder(c3, c4, num_experts=8),
    "no stage3": lambda c3, c4: LifeDecoder(c3, c4, "stage3"),
    "1 query": lambda c3, c4: LifeDecoder(c3, c4, num_queries=1),
    "12 queries": lambda c3, c4: LifeDecoder(c3, c4, num_queries=12),
}
"""From the numbers of channels of stage3 and stage4; all but the first four are the complete decoder, less or more."""


class UpperHalf(nn.Module):
    """The upper half of the backbone below a decoder that has been trained; depthwise kernels stand still."""

    def __init__(self, backbone: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.blocks, self.decoder = backbone.blocks[3:], decoder  # type: ignore[index]
        for name, parameter in self.blocks.named_parameters():
            parameter.requires_grad_("conv_dw." not in name and "bn2.weight" not in name)

    def train(self, mode: bool = True) -> UpperHalf:
        """All BatchNorm, the linear head's too, keeps its statistics: the batches are small."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.eval()
        return self

    def forward(self, lower: Tensor) -> Any:
        """(B, C2, H / 8, W / 8) -> what the decoder says."""
        with torch.autocast("cpu", torch.bfloat16):
            stage3 = self.blocks[:2](lower.contiguous(memory_format=torch.channels_last))
            stage4 = self.blocks[2:](stage3)
        return self.decoder(stage3.float(), stage4.float())
