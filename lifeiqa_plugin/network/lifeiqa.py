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

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lifeiqa_plugin.network.backbone import create_backbone, run_backbone
from lifeiqa_plugin.network.checks import check_images, check_score, to_pair
from lifeiqa_plugin.network.config import SWIN_B, LifeIQAConfig, check_option_names
from lifeiqa_plugin.network.crops import crop_offsets, cut_crops, to_working_size
from lifeiqa_plugin.network.decoder import Decoder, DecoderOutput
from lifeiqa_plugin.network.detail import SHRUNK, DetailRule, find_part, is_large
from lifeiqa_plugin.network.moe import Routing, load_balancing_loss, router_z_loss

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
    distortions: Tensor  # (B, D) how much of each there is, in [0, 1], mean over crops; of large images see ``detail``
    load_balancing_loss: Tensor  # ()
    router_z_loss: Tensor  # ()


class LifeIQA(nn.Module):
    """Blind image quality: (B, 1 or 3, H, W) images in [0, 1] of any size -> (B, 1) float32, higher is better.

    Each image is reduced to its working size, cut into crops that cover it evenly (or taken whole), and scored by the
    mean over its crops. The result is the same from run to run and uses no random numbers.

    A pixel outside [0, 1] counts as the nearest value in it, so that an image that is being optimized has the score
    with which it would be saved; where one lies further outside than 0.5, a warning says so once.

    Args:
        backbone: any timm model with at least two feature stages.
        **options: other fields of :class:`~lifeiqa_plugin.network.config.LifeIQAConfig` and those of its decoder,
            :class:`~lifeiqa_plugin.network.decoder.DecoderConfig`.

    Attributes:
        config: all options, flat; a subclass adds its own, since a checkpoint keeps what stands there.
        backbone_modules: names of the modules whose learning rate is ``lr_backbone``; a subclass adds its own.

    Raises:
        ValueError: an option out of its range, an unknown backbone, an image that is empty or not finite.
        TypeError: an unknown option, an image that is not a floating-point tensor.

    Source: arXiv 2511.19024, section 3.
    """

    mean: Tensor
    std: Tensor
    trainable = True
    backbone_modules: tuple[str, ...] = ("backbone",)

    def __init__(self, backbone: str = SWIN_B, **options: Any) -> None:
        super().__init__()
        check_option_names(options, type(self))
        config = LifeIQAConfig.from_options({"backbone": backbone, **options})
        self.config: dict[str, Any] = config.to_options()
        self.balancing = config.balancing
        self.score_range = to_pair("score_range", config.score_range)
        self.crop_size = config.crop_side
        self.working_size = config.working_side
        self.whole_image = config.whole_image
        self.std_calibration = to_pair("std_calibration", config.std_calibration)
        self.detail = DetailRule.parse(config.detail)
        self.naming = config.naming
        self.test_sample = config.test_sample
        self.chunk_size = config.chunk_size
        num_stages = config.decoder.num_stages
        self.backbone = create_backbone(
            backbone, config.backbone_pretrained, self.crop_size, num_stages
        )
        self.decoder = Decoder(self.backbone.feature_info.channels(), config.decoder)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(config.preprocessing, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

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
        x = check_images(x)  # (B, 1 or 3, H, W)
        whole = to_working_size(x.float(), self.crop_size, self.working_size)
        offsets, crops = self._cut(whole)  # (B * N, 1 or 3, height, width)
        output = self._run(crops, len(offsets), need_weights=return_details)
        query_scores = output.query_scores.float()  # (B, N, Q)
        crop_scores = self.to_range(query_scores.mean(2))  # (B, N)
        distortions = output.distortion_logits.float().sigmoid().mean(1)  # (B, D)
        score, distortions = self._look_nearer(x, whole, crop_scores.mean(1), distortions)
        if not self.training:
            check_score(score)
        if not (return_details or return_std):
            return score
        in_range = self.to_range(query_scores).flatten(1)  # (B, N * Q)
        std = self._to_std(in_range.std(1, correction=0, keepdim=True))  # (B, 1)
        if not return_details:
            return score, std
        return LifeIQAOutput(
            score=score,
            std=std,
            crop_scores=crop_scores,
            query_scores=query_scores,
            crop_offsets=offsets,
            crop_shape=(crops.shape[-2], crops.shape[-1]),
            attention=output.attention,  # type: ignore[arg-type]  # was asked for
            gates=output.routing.gates,
            expert_index=output.routing.expert_index,
            distortions=distortions,
            load_balancing_loss=load_balancing_loss(output.routing, self.balancing),
            router_z_loss=router_z_loss(output.routing),
        )

    def _look_nearer(
        self, x: Tensor, whole: Tensor, score: Tensor, distortions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the scores (B, 1) and distortions (B, D) with what the part with most detail says of large images.

        Not in training. The gradient flows through both looks; where the second one goes is constant.
        """
        height, width = x.shape[-2:]
        if self.detail is None or self.training or not is_large(height, width, self.working_size):
            return score[:, None], distortions
        side = SHRUNK * self.working_size
        parts = []
        for image, planes in zip(x, whole.numpy(force=True), strict=True):
            top, left = find_part(planes, height, width, self.working_size)
            parts.append(image[:, top : top + side, left : left + side].float())
        shown = to_working_size(torch.stack(parts), self.crop_size, self.working_size)
        offsets, crops = self._cut(shown)
        output = self._run(crops, len(offsets), need_weights=False)
        near_score = self.to_range(output.query_scores.float().mean(2)).mean(1)  # (B,)
        near = output.distortion_logits.float().sigmoid().mean(1)  # (B, D)
        names = self.distortion_names
        found = self.detail.apply(score, near_score, near, names, torch.log)
        return found[:, None], self.detail.join(found < score, distortions, near, names)

    def _cut(self, x: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
        """(B, C, H, W) at working size -> the corners of its N crops, and the crops (B * N, C, height, width)."""
        if self.whole_image:
            return [(0, 0)], x
        height, width = x.shape[-2:]
        offsets = crop_offsets(height, width, self.crop_size, self.test_sample)
        return offsets, cut_crops(x, offsets, self.crop_size)

    def _run(self, crops: Tensor, num_crops: int, need_weights: bool) -> DecoderOutput:
        """Run (B * N, 1 or 3, height, width) crops, ``chunk_size`` at a time -> tensors (B, N, ...)."""
        parts = crops.split(self.chunk_size)
        outputs = [self.forward_crops(part, need_weights) for part in parts]

        def per_image(tensors: Iterable[Tensor | None]) -> Tensor:
            together = torch.cat([tensor for tensor in tensors if tensor is not None])
            of_images: Tensor = together.unflatten(0, (-1, num_crops))
            return of_images

        query_scores, routings, distortion_logits, attention = zip(*outputs, strict=True)
        return DecoderOutput(
            query_scores=per_image(query_scores),
            routing=Routing(*map(per_image, zip(*routings, strict=True))),
            distortion_logits=per_image(distortion_logits),
            attention=per_image(attention) if need_weights else None,
        )

    def forward_crops(self, crops: Tensor, need_weights: bool = False) -> DecoderOutput:
        """Run backbone and decoder on (B, 1 or 3, height, width) crops in [0, 1], with no checks."""
        stages = self.stages_of(self.normalize(crops))
        output: DecoderOutput = self.decoder(*stages, need_weights=need_weights)
        return output

    def normalize(self, crops: Tensor) -> Tensor:
        """Bring crops to the mean, deviation, type and memory layout that the backbone wants."""
        crops = (crops - self.mean) / self.std  # gray becomes (B, 3, height, width)
        crops = crops.to(self.decoder.head.weight.dtype)
        return crops.contiguous(memory_format=torch.channels_last)  # faster convolutions

    def stages_of(self, crops: Tensor) -> list[Tensor]:
        """Run the backbone on normalized crops: what the decoder looks at, stage4 (B, C4, H4, W4) last."""
        return run_backbone(self.backbone, crops)

    def to_range(self, raw: Tensor) -> Tensor:
        """Bring raw scores into ``score_range``, if there is one."""
        if self.score_range is None:
            return raw
        low, high = self.score_range
        share = raw.sigmoid()
        return low + (high - low) * share

    def _to_std(self, spread: Tensor) -> Tensor:
        if self.std_calibration is None:
            warnings.warn(
                "return_std gives NaN: on the validation images of these weights the spread of the scores told nothing "
                "about their errors",
                stacklevel=3,
            )
            return torch.full_like(spread, torch.nan)
        return self.std_calibration[0] + self.std_calibration[1] * spread

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
