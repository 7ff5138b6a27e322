"""Life-IQA: how good does a photograph look, with no reference image?

Tang et al., "Life-IQA: Boosting Blind Image Quality Assessment through GCN-enhanced Layer Interaction and MoE-based
Feature Decoupling", arXiv 2511.19024. Written from the paper's equations and from measurements of the released
network; ``docs/differences.md`` lists where those two part and which argument chooses between them.

In data order: image -> crops -> backbone (stage3, stage4) -> queries and memory -> ``depth`` x (graph convolution
among the queries, cross-attention to the memory) -> mixture of experts -> one score per query -> mean.

Letters in shapes: B images, N crops of each, Q queries, C channels, M memory tokens, E experts, K = top-k.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import Tensor, nn

from lifeiqa_plugin.network.crops import cut_crops, to_working_size
from lifeiqa_plugin.network.decoder import Decoder, DecoderOutput
from lifeiqa_plugin.network.geometry import crop_offsets
from lifeiqa_plugin.network.graph import ScatterBackend
from lifeiqa_plugin.network.moe import Balancing, Routing, load_balancing_loss, router_z_loss

SWIN_B = "swin_base_patch4_window7_224.ms_in22k_ft_in1k"

PRESETS: dict[str, dict[str, Any]] = {
    "released": {
        "num_experts": 8, "memory_grid": 7, "adjacency": "fixed",
        "gcn_final_activation": False, "moe_scaled": "experts",
    },
    "paper": {
        "num_experts": 4, "memory_grid": 6, "adjacency": "learnable",
        "gcn_final_activation": True, "moe_scaled": "bypass",
    },
}  # fmt: skip
"""The arguments in which the released code (its synthetic-set setting) and the paper's text differ."""


class LifeIQAOutput(NamedTuple):
    """What ``LifeIQA(...)(x, return_details=True)`` returns; side losses run over all tokens of the batch."""

    score: Tensor  # (B, 1) mean over crops
    std: Tensor  # (B, 1) see ``std_calibration``
    crop_scores: Tensor  # (B, N)
    query_scores: Tensor  # (B, N, Q) before ``score_range`` is applied
    crop_offsets: list[tuple[int, int]]  # N (top, left) corners in the image at its working size
    attention: Tensor  # (B, N, Q, M) of the last layer, mean over heads, sums to 1 over M
    gates: Tensor  # (B, N, Q, E)
    expert_index: Tensor  # (B, N, Q, K)
    load_balancing_loss: Tensor  # ()
    router_z_loss: Tensor  # ()


class LifeIQA(nn.Module):
    """Blind image quality: (B, 1 or 3, H, W) images in [0, 1] of any size -> (B, 1) float32, higher is better.

    Each image is reduced to its working size, cut into crops that cover it evenly, and scored by the mean over its
    crops. The result is the same from run to run and uses no random numbers.

    Args:
        backbone: any timm model with at least two feature stages; its configuration gives crop size, mean and std.
        backbone_pretrained: let timm load its ImageNet weights (needs the network once); for training from scratch.
        embed_dim: C, channels of a token.
        num_heads: of the cross-attention.
        num_queries: Q, learned queries, the nodes of the graph.
        depth: number of interaction layers.
        num_experts: E; 1 is a plain two-layer network without router.
        top_k: K, experts per query.
        memory_grid: stage3 is averaged to ``memory_grid ** 2`` memory tokens.
        adjacency: ``fixed`` (released code) or ``learnable`` (paper), see :class:`~lifeiqa_plugin.network.graph.GCN`.
        gcn_final_activation: ReLU after the last graph convolution (paper).
        moe_scaled: which side of the residual the learned scalar multiplies, ``experts`` (released code:
            ``x + s MoE(x)``) or ``bypass`` (paper: ``MoE(x) + s x``).
        balancing: form of the load-balancing loss, ``released`` or ``switch``.
        dropout: inside the experts.
        scatter_backend: ``auto``, ``torch`` or ``torch_scatter``; the numbers are the same.
        score_range: None leaves the head linear (released code); (low, high) squeezes it into the range by a sigmoid.
        crop_size: side of a crop; None takes the backbone's own input size.
        working_size: shorter side to which larger images are reduced; None for 12/7 of the crop size (384 for 224).
        std_calibration: (a, b); ``return_std`` gives ``a + b * spread``, where spread is the standard
            deviation of the scores of all queries in all crops. Checkpoints bring numbers that were fitted to
            errors on held-out images.
        test_sample: crops per image; None for as many as cover it.
        chunk_size: crops that pass the network at a time, which bounds the memory.

    Raises:
        ValueError: an argument out of its range, an unknown backbone, an image that is not finite, empty, or outside
            [0, 1] (not checked for images that require a gradient, so that an optimiser may overshoot).
        TypeError: an image that is not a floating-point tensor.

    Source: arXiv 2511.19024, section 3.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = SWIN_B,
        *,
        backbone_pretrained: bool = False,
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
        balancing: Balancing = "released",
        dropout: float = 0.1,
        scatter_backend: ScatterBackend = "auto",
        score_range: tuple[float, float] | None = None,
        crop_size: int | None = None,
        working_size: int | None = None,
        std_calibration: tuple[float, float] = (0.0, 1.0),
        test_sample: int | None = None,
        chunk_size: int = 16,
    ) -> None:
        arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        super().__init__()
        self.config: dict[str, Any] = arguments
        if balancing not in ("released", "switch"):
            raise ValueError(f"balancing must be 'released' or 'switch', got {balancing!r}")
        self.backbone = _create_backbone(backbone, backbone_pretrained)
        config = timm.get_pretrained_cfg(backbone) or timm.models.PretrainedCfg()
        stage3_channels, stage4_channels = self.backbone.feature_info.channels()
        self.decoder = Decoder(
            stage3_channels, stage4_channels, embed_dim, num_heads, num_queries, depth, num_experts, top_k, memory_grid,
            adjacency, gcn_final_activation, moe_scaled, dropout, scatter_backend,
        )  # fmt: skip
        self.balancing: Balancing = balancing
        self.score_range = (
            None if score_range is None else (float(score_range[0]), float(score_range[1]))
        )
        self.crop_size: int = config.input_size[-1] if crop_size is None else crop_size
        self.working_size = round(self.crop_size * 12 / 7) if working_size is None else working_size
        self.std_calibration = (float(std_calibration[0]), float(std_calibration[1]))
        self.test_sample = test_sample
        self.chunk_size = chunk_size
        _check_scoring_arguments(
            self.score_range, self.crop_size, self.working_size, test_sample, chunk_size
        )
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, x: Tensor, return_details: bool = False, return_std: bool = False
    ) -> Tensor | tuple[Tensor, Tensor] | LifeIQAOutput:
        """Score a batch of equally large images; shapes and errors as above.

        Returns:
            The scores (B, 1); with ``return_std`` also how far off each may be (B, 1), as one standard deviation; with
            ``return_details`` a :class:`LifeIQAOutput` instead.
        """
        _check_images(x)
        x = to_working_size(x.float(), self.crop_size, self.working_size)
        offsets = crop_offsets(x.shape[-2], x.shape[-1], self.crop_size, self.test_sample)
        crops = cut_crops(x, offsets, self.crop_size)  # (B * N, 1 or 3, crop_size, crop_size)
        outputs = [
            self.forward_crops(chunk, return_details) for chunk in crops.split(self.chunk_size)
        ]
        query_scores = torch.cat([o.query_scores for o in outputs]).float()
        query_scores = query_scores.unflatten(0, (-1, len(offsets)))  # (B, N, Q)
        crop_scores = self._to_range(query_scores.mean(2))
        score = crop_scores.mean(1, keepdim=True)
        if not (return_details or return_std):
            return score
        spread = self._to_range(query_scores).flatten(1).std(1, correction=0, keepdim=True)
        std = self.std_calibration[0] + self.std_calibration[1] * spread
        if not return_details:
            return score, std
        routing = Routing(
            *(torch.cat(parts) for parts in zip(*(o.routing for o in outputs), strict=True))
        )
        attention = torch.cat([o.attention for o in outputs if o.attention is not None])
        attention, gates, expert_index = (
            t.unflatten(0, (-1, len(offsets)))
            for t in (attention, routing.gates, routing.expert_index)
        )
        return LifeIQAOutput(
            score, std, crop_scores, query_scores, offsets, attention, gates, expert_index,
            load_balancing_loss(routing, self.balancing), router_z_loss(routing),
        )  # fmt: skip

    def forward_crops(self, crops: Tensor, need_weights: bool = False) -> DecoderOutput:
        """Run backbone and decoder on (B, 1 or 3, crop_size, crop_size) crops in [0, 1], with no checks."""
        crops = ((crops - self.mean) / self.std).contiguous(
            memory_format=torch.channels_last
        )  # faster convolutions
        stage3, stage4 = self.backbone(crops)
        if getattr(self.backbone, "output_fmt", None) == "NHWC":
            stage3, stage4 = stage3.permute(0, 3, 1, 2), stage4.permute(0, 3, 1, 2)
        output: DecoderOutput = self.decoder(stage3, stage4, need_weights)
        return output

    def _to_range(self, raw: Tensor) -> Tensor:
        if self.score_range is None:
            return raw
        low, high = self.score_range
        return low + (high - low) * raw.sigmoid()


def _create_backbone(name: str, pretrained: bool) -> Any:
    try:
        return timm.create_model(
            name, features_only=True, out_indices=(-2, -1), pretrained=pretrained
        )
    except (RuntimeError, AssertionError, IndexError) as error:
        names = timm.list_models() + timm.list_pretrained()
        if name in names:
            raise ValueError(
                f"backbone {name!r} cannot give the last two of its feature stages: {error}"
            ) from error
        near = ", ".join(difflib.get_close_matches(name, names)) or "none, see timm.list_models()"
        raise ValueError(
            f"backbone must be a timm model, got {name!r}; nearest names: {near}"
        ) from error


def _check_scoring_arguments(
    score_range: tuple[float, float] | None,
    crop_size: int,
    working_size: int,
    test_sample: int | None,
    chunk_size: int,
) -> None:
    if score_range is not None and not score_range[0] < score_range[1]:
        raise ValueError(f"score_range must be (low, high) with low < high, got {score_range}")
    if working_size < crop_size:
        raise ValueError(f"working_size must be at least crop_size={crop_size}, got {working_size}")
    for name, value in {
        "crop_size": crop_size,
        "test_sample": test_sample,
        "chunk_size": chunk_size,
    }.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _check_images(x: Tensor) -> None:
    """Refuse what is not (B, 1 or 3, H, W) floating point in [0, 1]; a NaN fails the comparison as well."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"images must be a floating-point tensor in [0, 1], got {kind}; divide 8-bit images by 255"
        )
    if x.dim() != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ValueError(
            f"images must be (B, 1 or 3, H, W) with no empty side, got {tuple(x.shape)}"
        )
    if torch.compiler.is_compiling():
        return
    low, high = (bound.item() for bound in x.detach().aminmax())
    if not (-float("inf") < low <= high < float("inf")):
        raise ValueError(f"images must be finite, got minimum {low} and maximum {high}")
    if not x.requires_grad and (low < -1e-6 or high > 1 + 1e-6):
        raise ValueError(
            f"images must lie in [0, 1], got minimum {low:.4g} and maximum {high:.4g}; rescale them"
        )
