"""What a LifeIQA is built from: one frozen dataclass, the paper's and the released code's values, and the names.

Users write these options flat, those of the decoder among them: in option files, as keyword arguments of
``pyiqa.create_metric``, and in the metadata of a checkpoint.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from lifeiqa_plugin.nearest import did_you_mean
from lifeiqa_plugin.network.backbone import Preprocessing, preprocessing_of
from lifeiqa_plugin.network.checks import check_choice, check_count, check_naming, to_pair
from lifeiqa_plugin.network.decoder import DecoderConfig
from lifeiqa_plugin.network.detail import DetailRule
from lifeiqa_plugin.network.moe import Balancing

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
"""The options in which the released code (its synthetic-set setting) and the paper's text differ."""

LIMITS = {
    "crop_size": 2048,
    "working_size": 1_000_000,
    "test_sample": 10_000,
    "chunk_size": 1_000_000,
}
"""Far above any use, as those of the decoder."""

RENAMED = {"std_line": "std_calibration", "folded": "fused"}
"""Options that earlier versions knew by another name."""


@dataclass(frozen=True)
class LifeIQAConfig:
    """What a :class:`~lifeiqa_plugin.network.lifeiqa.LifeIQA` is built from; values stay as they were given.

    Raises:
        TypeError: a number that is no whole number, ``whole_image`` that is no switch.
        ValueError: a field out of its range, an unknown backbone, one that does not go with ``whole_image``.
    """

    backbone: str = SWIN_B
    """Any timm model with at least two feature stages; its configuration gives crop size, mean and std."""
    backbone_pretrained: bool | str | Path = False
    """True lets timm fetch its ImageNet weights (needs the network once), a path names a file that holds them."""
    balancing: Balancing = "released"
    """Form of the load-balancing loss, ``released`` or ``switch``."""
    score_range: tuple[float, float] | None = None
    """None leaves the head linear (released code); (low, high) squeezes it into the range by a sigmoid."""
    crop_size: int | None = None
    """Side of a crop; None takes the backbone's own input size."""
    working_size: int | None = None
    """Shorter side to which larger images are reduced; None for 12/7 of the crop size (384 for 224)."""
    whole_image: bool = False
    """Let the whole image at its working size pass in one piece; for backbones that take images of any size."""
    std_calibration: tuple[float, float] | None = (0.0, 1.0)
    """(a, b): ``return_std`` gives ``a + b * spread``, where spread is the standard deviation of the scores of all
    queries in all crops. Checkpoints bring numbers that were fitted to errors on held-out images."""
    detail: Mapping[str, float] | bool | None = None
    """What a nearer look takes off the scores of large photos, which checkpoints may bring; False for the whole view
    alone. See :class:`~lifeiqa_plugin.network.detail.DetailRule`."""
    naming: Mapping[str, Mapping[str, Any]] | None = None
    """From which strengths on each distortion is named: fields of :class:`~lifeiqa_plugin.words.Cut` by its name."""
    test_sample: int | None = None
    """Crops per image; None for as many as cover it."""
    chunk_size: int = 16
    """Crops that pass the network at a time, which bounds the memory."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Everything after the backbone."""

    def __post_init__(self) -> None:
        check_choice("balancing", self.balancing, "released", "switch")
        score_range = to_pair("score_range", self.score_range)
        if score_range and not score_range[0] < score_range[1]:
            raise ValueError(f"score_range must be (low, high) with low < high, got {score_range}")
        to_pair("std_calibration", self.std_calibration)
        detail = DetailRule.parse(self.detail)
        if detail is not None:
            detail.check(tuple(self.decoder.distortions), score_range)
        check_naming(self.naming)
        for name, limit in LIMITS.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), limit)
        if self.working_side < self.crop_side:
            raise ValueError(
                f"working_size must be at least crop_size={self.crop_side}, got {self.working_side}"
            )
        if not isinstance(self.whole_image, bool):
            raise TypeError(f"whole_image must be True or False, got {self.whole_image!r}")
        if self.whole_image and self.preprocessing.is_fixed:
            raise ValueError(
                f"whole_image needs a backbone that takes images of any size, got {self.backbone!r}, "
                f"which takes {self.crop_side}x{self.crop_side} only"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """What the backbone wants its images to be."""
        return preprocessing_of(self.backbone)

    @property
    def crop_side(self) -> int:
        """``crop_size``, or the backbone's own input size."""
        return self.preprocessing.size if self.crop_size is None else self.crop_size

    @property
    def working_side(self) -> int:
        """``working_size``, or 12/7 of the crop's side."""
        return round(self.crop_side * 12 / 7) if self.working_size is None else self.working_size

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> LifeIQAConfig:
        """Build it from flat options, of which some are the decoder's."""
        of_decoder = {name: options[name] for name in options if name in _DECODER_OPTIONS}
        own = {name: options[name] for name in options if name not in of_decoder}
        return cls(**own, decoder=DecoderConfig(**of_decoder))

    def to_options(self) -> dict[str, Any]:
        """Return the flat options, which give it again."""
        options = asdict(self)
        of_decoder: dict[str, Any] = options.pop("decoder")
        return options | of_decoder


_DECODER_OPTIONS = [one.name for one in fields(DecoderConfig)]
_OPTIONS = [one.name for one in fields(LifeIQAConfig) if one.name != "decoder"] + _DECODER_OPTIONS


def option_names(network: type[nn.Module] | None = None) -> list[str]:
    """Return the names of all options of LifeIQA, or of a subclass, whose own arguments come first."""
    own: list[str] = []
    for kind in network.__mro__ if network else ():
        if issubclass(kind, nn.Module) and "__init__" in vars(kind):
            parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
            own += [
                p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            ]
    return list(dict.fromkeys([*own, *_OPTIONS]))


def check_option_names(
    options: Iterable[str], network: type[nn.Module] | None = None, more: Iterable[str] = ()
) -> None:
    """See that every name is an option of LifeIQA or of a subclass of it, or one of ``more``.

    Raises:
        TypeError: one is not; names the nearest.
    """
    known = [*option_names(network), *more]
    for name in options:
        if name not in known:
            kind = network.__name__ if network else "LifeIQA"
            new = RENAMED.get(name)
            hint = f"it is now {new!r}" if new in known else did_you_mean(name, known)
            raise TypeError(f"{kind} has no option {name!r}; {hint}")
