"""``build_lifeiqa``: from a checkpoint or from options to a network; the factory that pyiqa calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lifeiqa_plugin.checkpoints.files import MACHINE_OPTIONS, read_checkpoint
from lifeiqa_plugin.checkpoints.released import StateDict
from lifeiqa_plugin.network.lifeiqa import PRESETS, LifeIQA, check_option_names

BUNDLED = Path(__file__).with_name("lifeiqa.safetensors")

BUNDLED_SHA256 = "91b98b533621b391441d16ad2643ee9a63f93e12d2cf3714268972e84aba66a4"

RUNTIME_OPTIONS = MACHINE_OPTIONS | {"test_sample", "working_size", "std_calibration"}
"""Options that do not change which weights fit, so that they may differ from what a checkpoint says."""


def build_lifeiqa(
    pretrained: bool = True,
    pretrained_model_path: str | Path | None = None,
    preset: str | None = None,
    **options: Any,
) -> LifeIQA:
    """Build the network; registered with pyiqa as architecture ``LifeIQA``.

    Args:
        pretrained: load the bundled checkpoint; False gives random weights and touches neither disk nor network.
        pretrained_model_path: file or URL of another checkpoint, see :func:`read_checkpoint`; wins over ``pretrained``.
        preset: ``released`` or ``paper``, see :data:`~lifeiqa_plugin.arch.PRESETS`.
        **options: arguments of :class:`~lifeiqa_plugin.arch.LifeIQA`.

    Raises:
        TypeError: an unknown option, or ``pretrained`` neither True nor False.
        ValueError: an unknown preset, or options that contradict the checkpoint.
        OSError, ValueError: as :func:`read_checkpoint`.
    """
    if not isinstance(pretrained, bool):
        raise TypeError(
            f"pretrained must be True or False, got {pretrained!r}; pretrained_model_path names a file"
        )
    check_option_names(options, more=("pretrained", "pretrained_model_path", "preset"))
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
        options = PRESETS[preset] | options
    if pretrained_model_path is None and not pretrained:
        return LifeIQA(**options)
    source = BUNDLED if pretrained_model_path is None else pretrained_model_path
    checkpoint = read_checkpoint(source, BUNDLED_SHA256 if source is BUNDLED else None)
    with torch.random.fork_rng(
        devices=[]
    ):  # initial weights are overwritten, so nobody should notice their dice
        network = LifeIQA(**_merge_options(checkpoint.config, options, source))
    _load_strictly(network, checkpoint.state_dict, source)
    return network


def _merge_options(
    config: dict[str, Any] | None, options: dict[str, Any], source: str | Path
) -> dict[str, Any]:
    """Combine what the checkpoint says with what the caller asks for; a contradiction is an error."""
    if config is None:
        return options | {"backbone_pretrained": False}
    for name, value in options.items():
        if name not in RUNTIME_OPTIONS and name in config and _plain(value) != _plain(config[name]):
            raise ValueError(
                f"{source}: the checkpoint has {name}={config[name]!r}, but {name}={value!r} was asked for; "
                "leave the option out, or pass pretrained=False for a new network"
            )
    return config | options | {"backbone_pretrained": False}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _load_strictly(network: LifeIQA, state_dict: StateDict, source: str | Path) -> None:
    own = network.state_dict()
    missing, foreign = (
        sorted(own.keys() - state_dict.keys()),
        sorted(state_dict.keys() - own.keys()),
    )
    shapes = [
        f"{key} {tuple(state_dict[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state_dict.keys()
        if own[key].shape != state_dict[key].shape
    ]
    problems = {"missing": missing, "not known": foreign, "of another shape": sorted(shapes)}
    if any(problems.values()):
        found = "; ".join(
            f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in problems.items() if keys
        )
        raise ValueError(
            f"{source}: the weights do not fit a LifeIQA with {len(own)} tensors: {found}. Give the options with "
            "which the checkpoint was trained (backbone, embed_dim, depth, num_experts, ...)"
        )
    network.load_state_dict(state_dict, strict=True)
