"""The backbone: any timm model with two feature stages or more, and what it wants to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from lifeiqa_plugin.nearest import did_you_mean
from lifeiqa_plugin.network.evaluating import evaluating
from lifeiqa_plugin.network.tensor_files import StateDict, read_tensors

NEEDED_SHARE = 0.9
"""Of a backbone's weights that must stand in a file as they are; timm resizes tables of positions."""


class Preprocessing(NamedTuple):
    """What a backbone wants its images to be."""

    size: int  # of a square image
    is_fixed: bool  # no image of another size passes
    mean: tuple[float, ...]
    std: tuple[float, ...]


def preprocessing_of(name: str) -> Preprocessing:
    """Look a backbone up in timm.

    Raises:
        ValueError: timm has no model of that name, or does not know its input size.
    """
    if (
        not isinstance(name, str) or ":" in name or "/" in name
    ):  # timm would ask a model hub or read a folder
        raise ValueError(
            f"backbone must be the name of a timm model, got {name!r}; for weights of your own give "
            "the name of their model and backbone_pretrained: path"
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such weights of a model that there is
        config = None
    if config is None and name not in timm.list_models():
        names = timm.list_models() + timm.list_pretrained()
        hint = did_you_mean(name, names, "see timm.list_models()", count=3)
        raise ValueError(f"backbone must be a timm model, got {name!r}; {hint}")
    if config is None or not config.input_size:
        raise ValueError(f"backbone {name!r}: timm does not know its input size; choose another")
    return Preprocessing(
        size=config.input_size[-1],
        is_fixed=bool(config.fixed_input_size),
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def create_backbone(
    name: str, pretrained: bool | str | Path, size: int, num_stages: int = 2
) -> Any:
    """Build a backbone that returns its last stages.

    Args:
        name: of the timm model.
        pretrained: False for random weights, True for those that timm fetches, or a file that holds them.
        size: of the square images that it will see; matters where the size is fixed when it is built.
        num_stages: how many of the last ones.

    Raises:
        ValueError: it has fewer stages or cannot take that size; the file holds other weights.
        OSError: the weights cannot be fetched, or the file cannot be read.
    """
    expected = preprocessing_of(name)
    options: dict[str, Any] = {
        "features_only": True,
        "out_indices": tuple(range(-num_stages, 0)),
    }
    if expected.is_fixed and size != expected.size:
        options["img_size"] = size
    if pretrained is False:
        backbone = _create(name, options)
    elif pretrained is True:
        backbone = _create_fetched(name, options)
    else:
        backbone = _create_from_file(name, Path(pretrained), options)
    smallest = backbone.feature_info.reduction()[-1]
    if size < smallest:
        raise ValueError(f"crop_size must be at least {smallest} for {name!r}, got {size}")
    return backbone


def _create_from_file(name: str, path: Path, options: dict[str, Any]) -> Any:
    """Build with the weights in a file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; backbone_pretrained takes True, False, or a timm .safetensors or .pth"
        )
    weights, _ = read_tensors(path)
    options = options | {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": weights}}
    try:
        backbone = timm.create_model(name, **options)
    except (RuntimeError, KeyError, AttributeError) as error:  # timm's own words for other shapes
        first = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: no weights of the backbone {name!r} ({first})") from error
    _check_weights(backbone, weights, name, path)
    return backbone


def _create(name: str, options: dict[str, Any]) -> Any:
    """Build with random weights."""
    size = options.get("img_size")
    try:
        backbone = timm.create_model(name, pretrained=False, **options)
        if size is not None:
            _try(backbone, size)
    except (RuntimeError, AssertionError, IndexError, TypeError, ValueError) as error:
        count = len(options["out_indices"])
        what = f"its last {count} feature stages" if size is None else f"stages of {size}x{size}"
        raise ValueError(f"backbone {name!r} cannot give {what}: {error}") from error
    return backbone


@torch.no_grad()
def _try(backbone: nn.Module, size: int) -> None:
    """Let a backbone of another size than timm foresaw fail now rather than at its first image."""
    device = next(backbone.parameters()).device
    with evaluating(backbone):
        backbone(torch.zeros(1, 3, size, size, device=device))


def _create_fetched(name: str, options: dict[str, Any]) -> Any:
    """Build with the weights that timm fetches."""
    _create(name, options)  # a backbone that cannot be built is no matter of the network
    config: Any = timm.get_pretrained_cfg(name)
    if not config.has_weights:
        raise ValueError(
            f"backbone {name!r}: timm has no weights for it; see timm.list_pretrained()"
        )
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # each kind of hub and of network has its own
        hub = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
        wanted = hub if config.hf_hub_id else config.url
        first = str(error).strip().split("\n")[0]
        raise OSError(
            f"backbone {name!r}: its weights cannot be fetched ({type(error).__name__}: {first}). "
            f"Wanted {wanted}; fetch it elsewhere, save it anywhere on this machine and give "
            "backbone_pretrained: path"
        ) from error


def run_backbone(backbone: nn.Module, x: Tensor) -> list[Tensor]:
    """(B, 3, H, W) -> the stages, channels first whatever the backbone's own layout is."""
    stages: list[Tensor] = backbone(x)
    if getattr(backbone, "output_fmt", None) == "NHWC":
        stages = [stage.permute(0, 3, 1, 2) for stage in stages]
    return stages


def _check_weights(backbone: nn.Module, weights: StateDict, name: str, path: Path) -> None:
    """See that the weights have arrived, since timm passes over those that it does not find."""
    # timm may have renamed them, so a tensor is looked for by its shape and values
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for value in weights.values():
        by_shape.setdefault(value.shape, []).append(value)
    total = found = 0
    for parameter in backbone.parameters():
        total += parameter.numel()
        if any(torch.equal(parameter, other) for other in by_shape.get(parameter.shape, [])):
            found += parameter.numel()
    if found < NEEDED_SHARE * total:
        raise ValueError(
            f"{path}: no weights of the backbone {name!r}: of its {total:,} parameters only "
            f"{found:,} are in the file"
        )
