"""Life-IQA: how good does a photograph look, with no reference image?

Tang et al., "Life-IQA: Boosting Blind Image Quality Assessment through GCN-enhanced Layer Interaction and MoE-based
Feature Decoupling", arXiv 2511.19024. Written from the paper's equations and from measurements of the released
network; ``docs/differences.md`` lists where those two part and which argument chooses between them.

In data order: image -> crops, or the whole image -> backbone (stage3, stage4) -> queries and memory -> ``depth`` x
(graph convolution among the queries, cross-attention to the memory) -> mixture of experts -> one score per query ->
mean.

Letters in shapes: B images, N crops of each, Q queries, C channels, M memory tokens, L layers, E experts, K = top-k,
D distortions.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lifeiqa_plugin.nearest import nearest
from lifeiqa_plugin.network.backbone import create_backbone, preprocessing_of, run_backbone
from lifeiqa_plugin.network.crops import cut_crops, to_working_size
from lifeiqa_plugin.network.decoder import Decoder, DecoderConfig, DecoderOutput, check_count
from lifeiqa_plugin.network.geometry import crop_offsets
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


LIMITS = {
    "crop_size": 2048,
    "working_size": 1_000_000,
    "test_sample": 10_000,
    "chunk_size": 1_000_000,
}
"""Far above any use, as those of the decoder."""

MAX_OVERSHOOT = 0.5
"""How far outside [0, 1] a pixel may lie, as those of images that are being optimised do."""

Self = TypeVar("Self", bound="LifeIQA")


class LifeIQAOutput(NamedTuple):
    """What ``LifeIQA(...)(x, return_details=True)`` returns; side losses run over all tokens of the batch."""

    score: Tensor  # (B, 1) mean over crops
    std: Tensor  # (B, 1) see ``std_calibration``
    crop_scores: Tensor  # (B, N)
    query_scores: Tensor  # (B, N, Q) before ``score_range`` is applied
    crop_offsets: list[tuple[int, int]]  # N (top, left) corners in the image at its working size
    crop_shape: tuple[int, int]  # (height, width) of each crop
    attention: Tensor  # (B, N, L, Q, M) of every layer, mean over heads, sums to 1 over M
    gates: Tensor  # (B, N, Q, E)
    expert_index: Tensor  # (B, N, Q, K)
    distortions: Tensor  # (B, D) how much of each there is, in [0, 1], mean over crops
    load_balancing_loss: Tensor  # ()
    router_z_loss: Tensor  # ()


def option_names(network: type[LifeIQA] | None = None) -> list[str]:
    """Return the names of all arguments of a network class, those of its decoder included; default LifeIQA."""
    names: dict[str, None] = {}
    for kind in (network or LifeIQA).__mro__:
        if issubclass(kind, LifeIQA) and "__init__" in vars(kind):
            parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
            names |= {
                p.name: None
                for p in parameters
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            }
    return [*names, *(field.name for field in fields(DecoderConfig))]


def check_option_names(
    options: Iterable[str], network: type[LifeIQA] | None = None, more: Iterable[str] = ()
) -> None:
    """See that every name is an argument of a network class, or one of ``more``.

    Raises:
        TypeError: one is not; names the nearest.
    """
    known = [*option_names(network), *more]
    for name in options:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near[0]!r}?" if near else f"known options: {', '.join(known)}"
            kind = (network or LifeIQA).__name__
            raise TypeError(f"{kind} has no option {name!r}; {hint}")


class LifeIQA(nn.Module):
    """Blind image quality: (B, 1 or 3, H, W) images in [0, 1] of any size -> (B, 1) float32, higher is better.

    Each image is reduced to its working size, cut into crops that cover it evenly (or taken whole), and scored by the
    mean over its crops. The result is the same from run to run and uses no random numbers.

    A pixel outside [0, 1] counts as the nearest value in it, so that an image that is being optimised has the score
    with which it would be saved; one that lies further outside than 0.5 is of another scale, and refused.

    Args:
        backbone: any timm model with at least two feature stages; its configuration gives crop size, mean and std.
        backbone_pretrained: True lets timm fetch its ImageNet weights (needs the network once), a path names a file
            that holds them; for training from scratch.
        balancing: form of the load-balancing loss, ``released`` or ``switch``.
        score_range: None leaves the head linear (released code); (low, high) squeezes it into the range by a sigmoid.
        crop_size: side of a crop; None takes the backbone's own input size.
        working_size: shorter side to which larger images are reduced; None for 12/7 of the crop size (384 for 224).
        whole_image: let the whole image at its working size pass in one piece, whatever its shape; for backbones
            that take images of any size.
        std_calibration: (a, b); ``return_std`` gives ``a + b * spread``, where spread is the standard
            deviation of the scores of all queries in all crops. Checkpoints bring numbers that were fitted to
            errors on held-out images.
        test_sample: crops per image; None for as many as cover it.
        chunk_size: crops that pass the network at a time, which bounds the memory.
        **decoder: fields of :class:`~lifeiqa_plugin.network.decoder.DecoderConfig`.

    Raises:
        ValueError: an argument out of its range, an unknown backbone, an image that is not finite, empty, or far
            outside [0, 1].
        TypeError: an unknown argument, an image that is not a floating-point tensor.

    Source: arXiv 2511.19024, section 3.
    """

    mean: Tensor
    std: Tensor
    trainable = True

    def __init__(
        self,
        backbone: str = SWIN_B,
        *,
        backbone_pretrained: bool | str | Path = False,
        balancing: Balancing = "released",
        score_range: tuple[float, float] | None = None,
        crop_size: int | None = None,
        working_size: int | None = None,
        whole_image: bool = False,
        std_calibration: tuple[float, float] | None = (0.0, 1.0),
        test_sample: int | None = None,
        chunk_size: int = 16,
        **decoder: Any,
    ) -> None:
        super().__init__()
        check_option_names(decoder, type(self))
        decoder_config = DecoderConfig(**decoder)
        expected = preprocessing_of(backbone)
        self.config: dict[str, Any] = {
            "backbone": backbone,
            "backbone_pretrained": backbone_pretrained,
            "balancing": balancing,
            "score_range": score_range,
            "crop_size": crop_size,
            "working_size": working_size,
            "whole_image": whole_image,
            "std_calibration": std_calibration,
            "test_sample": test_sample,
            "chunk_size": chunk_size,
        } | asdict(decoder_config)
        self.balancing: Balancing = balancing
        self.score_range = None if score_range is None else _pair("score_range", score_range)
        self.crop_size = expected.size if crop_size is None else crop_size
        self.working_size = round(self.crop_size * 12 / 7) if working_size is None else working_size
        self.whole_image = whole_image
        self.std_calibration = (
            None if std_calibration is None else _pair("std_calibration", std_calibration)
        )
        self.test_sample = test_sample
        self.chunk_size = chunk_size
        self._check_scoring()
        if whole_image and expected.is_fixed:
            raise ValueError(
                f"whole_image needs a backbone that takes images of any size, got {backbone!r}, "
                f"which takes {self.crop_size}x{self.crop_size} only"
            )
        self.backbone = create_backbone(
            backbone, backbone_pretrained, self.crop_size, decoder_config.num_stages
        )
        smallest = self.backbone.feature_info.reduction()[-1]
        if self.crop_size < smallest:
            raise ValueError(
                f"crop_size must be at least {smallest} for {backbone!r}, got {self.crop_size}"
            )
        self.decoder = Decoder(self.backbone.feature_info.channels(), decoder_config)
        for name, values in {"mean": expected.mean, "std": expected.std}.items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @property
    def distortion_names(self) -> tuple[str, ...]:
        """What the columns of ``LifeIQAOutput.distortions`` are called."""
        return self.decoder.config.distortions

    def forward(
        self, x: Tensor, return_details: bool = False, return_std: bool = False
    ) -> Tensor | tuple[Tensor, Tensor] | LifeIQAOutput:
        """Score a batch of equally large images; shapes and errors as above.

        Returns:
            The scores (B, 1); with ``return_std`` also how far off each may be (B, 1), as one standard deviation; with
            ``return_details`` a :class:`LifeIQAOutput` instead.
        """
        x = _checked_images(x)
        x = to_working_size(x.float(), self.crop_size, self.working_size)
        offsets, crops = self._cut(x)  # (B * N, 1 or 3, height, width)
        outputs = [
            self.forward_crops(part, return_details) for part in crops.split(self.chunk_size)
        ]
        query_scores = _per_image((output.query_scores for output in outputs), len(offsets)).float()
        crop_scores = self.to_range(query_scores.mean(2))  # (B, N)
        score = crop_scores.mean(1, keepdim=True)
        if not self.training:
            _check_score(score)
        if not (return_details or return_std):
            return score
        in_range = self.to_range(query_scores).flatten(1)  # (B, N * Q)
        std = self._to_std(in_range.std(1, correction=0, keepdim=True))
        if not return_details:
            return score, std
        distortions = _per_image((output.distortion_logits for output in outputs), len(offsets))
        routing = Routing(
            router_logits=_per_image((o.routing.router_logits for o in outputs), len(offsets)),
            gates=_per_image((o.routing.gates for o in outputs), len(offsets)),
            expert_index=_per_image((o.routing.expert_index for o in outputs), len(offsets)),
        )
        return LifeIQAOutput(
            score=score,
            std=std,
            crop_scores=crop_scores,
            query_scores=query_scores,
            crop_offsets=offsets,
            crop_shape=(crops.shape[-2], crops.shape[-1]),
            attention=_per_image((output.attention for output in outputs), len(offsets)),
            gates=routing.gates,
            expert_index=routing.expert_index,
            distortions=distortions.float().sigmoid().mean(1),
            load_balancing_loss=load_balancing_loss(routing, self.balancing),
            router_z_loss=router_z_loss(routing),
        )

    def _cut(self, x: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
        """(B, C, H, W) at working size -> the corners of its N crops, and the crops (B * N, C, height, width)."""
        if self.whole_image:
            return [(0, 0)], x
        height, width = x.shape[-2:]
        offsets = crop_offsets(height, width, self.crop_size, self.test_sample)
        return offsets, cut_crops(x, offsets, self.crop_size)

    def forward_crops(self, crops: Tensor, need_weights: bool = False) -> DecoderOutput:
        """Run backbone and decoder on (B, 1 or 3, height, width) crops in [0, 1], with no checks."""
        stages = self.stages_of(self.normalised(crops))
        output: DecoderOutput = self.decoder(*stages, need_weights=need_weights)
        return output

    def normalised(self, crops: Tensor) -> Tensor:
        """Bring crops to the mean, deviation, type and memory layout that the backbone wants."""
        crops = (crops - self.mean) / self.std
        crops = crops.to(self.decoder.head.weight.dtype)
        return crops.contiguous(memory_format=torch.channels_last)  # faster convolutions

    def stages_of(self, crops: Tensor) -> list[Tensor]:
        """Run the backbone on normalised crops: what the decoder looks at, stage4 (B, C4, H4, W4) last."""
        return run_backbone(self.backbone, crops)

    def _to_std(self, spread: Tensor) -> Tensor:
        if self.std_calibration is None:
            warnings.warn(
                "return_std gives NaN: on the validation images of these weights the spread of the scores told nothing "
                "about their errors",
                stacklevel=3,
            )
            return torch.full_like(spread, torch.nan)
        return self.std_calibration[0] + self.std_calibration[1] * spread

    def to_range(self, raw: Tensor) -> Tensor:
        """Bring raw scores into ``score_range``, if there is one."""
        if self.score_range is None:
            return raw
        low, high = self.score_range
        share = raw.sigmoid()
        return low + (high - low) * share

    def set_trainable(self: Self, trainable: bool) -> Self:
        """Let the weights move, or hold them still whatever happens around the network.

        A network that is not trainable keeps the statistics of its BatchNorm and its weights though it be part of a
        module that is trained, so that its scores stay the same: ``train()``, also of that module, leaves it in
        evaluation mode, and its parameters have no gradient. The gradient to the image flows either way.
        """
        self.trainable = trainable
        self.requires_grad_(trainable)
        return self.train(trainable)

    def train(self: Self, mode: bool = True) -> Self:
        """As for every module, but see :meth:`set_trainable`."""
        return super().train(mode and self.trainable)

    def _check_scoring(self) -> None:
        if self.balancing not in ("released", "switch"):
            raise ValueError(f"balancing must be 'released' or 'switch', got {self.balancing!r}")
        if self.score_range is not None and not self.score_range[0] < self.score_range[1]:
            raise ValueError(
                f"score_range must be (low, high) with low < high, got {self.score_range}"
            )
        if not isinstance(self.whole_image, bool):
            raise TypeError(f"whole_image must be True or False, got {self.whole_image!r}")
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if value is not None:
                check_count(name, value, limit)
        if self.working_size < self.crop_size:
            raise ValueError(
                f"working_size must be at least crop_size={self.crop_size}, got {self.working_size}"
            )


def _per_image(parts: Iterable[Tensor | None], num_crops: int) -> Tensor:
    """Chunks of (B * N, ...) -> (B, N, ...)."""
    together = torch.cat([part for part in parts if part is not None])
    of_images: Tensor = together.unflatten(0, (-1, num_crops))
    return of_images


def _pair(name: str, value: Sequence[float]) -> tuple[float, float]:
    try:
        first, second = map(float, value)
        is_finite = math.isfinite(first) and math.isfinite(second)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be two numbers, got {value!r}") from error
    if not is_finite:
        raise ValueError(f"{name} must be two finite numbers, got {value!r}")
    return first, second


def _check_score(score: Tensor) -> None:
    """Refuse to give NaN or infinity as a score; the images have been checked."""
    if not torch.compiler.is_compiling() and not score.isfinite().all():
        raise FloatingPointError(
            "the score is not finite: the weights are damaged, or too large for their data type"
        )


def _checked_images(x: Tensor) -> Tensor:
    """Refuse what is not (B, 1 or 3, H, W) floating point near [0, 1], and bring the rest into it."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch forgot to annotate it
        raise RuntimeError(
            "LifeIQA cannot be traced, as its crops depend on the size of the image; use torch.compile "
            "or torch.export, or trace network.forward_crops"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"images must be a floating-point tensor in [0, 1], got {kind}; divide 8-bit images by 255"
        )
    if x.dim() != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ValueError(
            f"images must be (B, 1 or 3, H, W) with no empty side, got {tuple(x.shape)}"
        )
    low, high = x.detach().aminmax()
    if torch.compiler.is_compiling():
        is_near = (low >= -MAX_OVERSHOOT) & (high <= 1 + MAX_OVERSHOOT)
        torch._assert_async(is_near, "images must be finite and lie in [0, 1]; rescale them")
        return x.clamp(0, 1)
    lowest, highest = low.item(), high.item()
    _check_values(lowest, highest)
    if lowest >= 0 and highest <= 1:
        return x
    return x.clamp(0, 1)


def _check_values(low: float, high: float) -> None:
    """A NaN fails every comparison."""
    if not (-float("inf") < low <= high < float("inf")):
        raise ValueError(f"images must be finite, got minimum {low} and maximum {high}")
    if low < -MAX_OVERSHOOT or high > 1 + MAX_OVERSHOOT:
        raise ValueError(
            f"images must lie in [0, 1], got minimum {low:.4g} and maximum {high:.4g}; rescale them"
        )
