"""From a checkpoint or from options to a network: one factory for scoring, training, testing, export and reload."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lifeiqa_plugin.checkpoints.files import MACHINE_OPTIONS, Checkpoint, read_checkpoint
from lifeiqa_plugin.checkpoints.models import BUNDLED, DEFAULT, Model, resolve
from lifeiqa_plugin.checkpoints.rebuilding import (
    build,
    network_class,
    network_type,
    rebuild,
    shapes_of,
)
from lifeiqa_plugin.network.config import PRESETS, check_option_names
from lifeiqa_plugin.network.fusing import fuse_batch_norm
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.network.tensor_files import StateDict

OLD_NAMES = {"default": "lifeiqa", "biq2021": "lifeiqa-biq2021"}
"""What version 0.1 called bundled weights in ``pretrained``."""

RUNTIME_OPTIONS = MACHINE_OPTIONS | {
    "test_sample",
    "working_size",
    "std_calibration",
    "detail",
    "naming",
}
"""Options that do not change which weights fit, so that they may differ from what a checkpoint says."""

FACTORY_OPTIONS = ("pretrained", "pretrained_model_path", "preset", "fused")


def build_lifeiqa(
    pretrained: bool | str = True,
    pretrained_model_path: str | Path | None = None,
    preset: str | None = None,
    fused: bool = False,
    trainable: bool = False,
    **options: Any,
) -> LifeIQA:
    """Build a network for scoring.

    With weights it gives the same scores whatever is trained around it, until ``network.set_trainable(True)``; a
    network of random weights has no scores to keep, and may be trained.

    >>> import torch
    >>> build_lifeiqa()(torch.zeros(2, 3, 300, 400)).shape
    torch.Size([2, 1])

    Args:
        pretrained: load a bundled model, True for the default one or a name in
            :data:`~lifeiqa_plugin.checkpoints.models.BUNDLED`; False gives random weights and touches neither disk nor
            network.
        pretrained_model_path: file or URL of another checkpoint, see :func:`read_checkpoint`; wins over ``pretrained``.
        preset: ``released`` or ``paper``, see :data:`~lifeiqa_plugin.network.config.PRESETS`.
        fused: for scoring only: BatchNorm is fused into the convolutions, which gives the same scores in less time;
            needs weights. See :func:`~lifeiqa_plugin.network.fusing.fuse_batch_norm`.
        trainable: let weights that were loaded move.
        **options: those of :class:`~lifeiqa_plugin.network.lifeiqa.LifeIQA`.

    Raises:
        TypeError: an unknown option, or ``pretrained`` neither True, False nor a name.
        ValueError: an unknown preset or name, options that contradict the checkpoint, or ``fused`` random weights.
        OSError, ValueError: as :func:`read_checkpoint`.
    """
    given = {"pretrained": pretrained, "pretrained_model_path": pretrained_model_path}
    network = build_network(given | {"preset": preset} | options)
    is_random = pretrained is False and pretrained_model_path is None
    if fused and is_random:
        raise ValueError(
            "fused=True is for scoring with weights that are there, not for random ones"
        )
    if is_random:
        return network
    return fuse_batch_norm(network) if fused else network.set_trainable(trainable)


build_arch = functools.partial(build_lifeiqa, trainable=True)
"""Architecture ``LifeIQA`` of pyiqa: trained as its other networks are, unless a metric asks for one that is not."""


def load_weights(metric: Any, path: str | Path) -> None:
    """Give a metric of pyiqa the network of another checkpoint: what its ``load_weights`` does if it has a LifeIQA.

    Args:
        metric: of pyiqa.
        path: as for :func:`read_checkpoint`; a file that does not say its options has those of the metric's network.

    Raises:
        OSError, ValueError: as :func:`build_lifeiqa`.
    """
    old: LifeIQA = metric.net
    options = {"type": network_type(old), **old.config}
    if read_checkpoint(path).config is not None:
        options = {name: old.config[name] for name in (*MACHINE_OPTIONS, "test_sample")}
    network = build_lifeiqa(pretrained_model_path=path, trainable=old.trainable, **options)
    metric.net = network.to(old.mean.device, old.decoder.head.weight.dtype).eval()


def load(model: str | Path | Model = DEFAULT, fused: bool = False) -> LifeIQA:
    """Build the network of a checkpoint for scoring.

    Args:
        model: as for :func:`~lifeiqa_plugin.checkpoints.models.resolve`.
        fused: as for :func:`build_lifeiqa`.

    Raises:
        OSError, ValueError: as ``resolve`` and :func:`read_checkpoint`; an exported file.
    """
    model = resolve(model)
    if model.kind != "checkpoint":
        raise ValueError(f"{model.path}: a {model.kind} file, but torch reads checkpoints")
    if model.name in BUNDLED:
        return build_lifeiqa(pretrained=model.name, fused=fused)
    return build_lifeiqa(pretrained_model_path=model.path, fused=fused)


def build_network(options: Mapping[str, Any]) -> LifeIQA:
    """Build what the ``network`` section of an option file describes, for training or for scoring.

    Args:
        options: those of :func:`build_lifeiqa`, and ``type``, ``LifeIQA`` or the name of a subclass that has been
            imported, with the arguments of its own. Subclasses have random weights unless ``pretrained_model_path``
            names a checkpoint.

    Raises:
        ValueError: an unknown type, one that is not the checkpoint's, or as :func:`build_lifeiqa`.
        TypeError, OSError: as :func:`build_lifeiqa`.
    """
    options = dict(options)
    type_name = options.pop("type", None)
    kind = LifeIQA if type_name is None else network_class(type_name)
    pretrained = options.pop("pretrained", kind is LifeIQA)
    path = options.pop("pretrained_model_path", None)
    preset = options.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    options = PRESETS.get(preset, {}) | options
    bundled = _bundled_name(pretrained)
    source: str | Path
    if path is not None:
        source, checkpoint = path, read_checkpoint(path)
    elif bundled is not None:
        source = resolve(bundled).path
        checkpoint = read_checkpoint(source, BUNDLED[bundled].sha256)
    else:
        check_option_names(options, kind, FACTORY_OPTIONS)
        return build(kind, options)
    kind = _agreed_class(checkpoint, type_name, source)
    check_option_names(options, kind, FACTORY_OPTIONS)
    options = _merge_options(checkpoint.config, options, source)
    try:
        return _load(kind, options, checkpoint.state_dict)
    except TypeError as error:
        raise TypeError(f"{source}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def weights_of(options: Mapping[str, Any]) -> Model | None:
    """Return which weights the options of a network name; None for random ones, other networks and missing files."""
    path = options.get("pretrained_model_path")
    if path:
        return resolve(Path(path)) if Path(path).is_file() else None
    pretrained = options.get("pretrained", True)
    if options.get("type") != "LifeIQA" or pretrained is False:
        return None
    return resolve(DEFAULT if pretrained is True else OLD_NAMES.get(pretrained, pretrained))


def _bundled_name(pretrained: object) -> str | None:
    """Return the name of the bundled weights that are asked for; None for random ones."""
    if isinstance(pretrained, bool):
        return DEFAULT if pretrained else None
    wanted = f"pretrained must be True, False or one of {sorted(BUNDLED)}, got {pretrained!r}"
    if not isinstance(pretrained, str):
        raise TypeError(f"{wanted}; pretrained_model_path names a file")
    name = OLD_NAMES.get(pretrained, pretrained)
    if name not in BUNDLED:
        raise ValueError(f"{wanted}; pretrained_model_path names a file")
    return name


def _agreed_class(checkpoint: Checkpoint, asked: str | None, source: str | Path) -> type[LifeIQA]:
    """Return the class that the checkpoint names, or that was asked for where it names none."""
    if checkpoint.type is None:
        return network_class(asked or "LifeIQA")
    try:
        kind = network_class(checkpoint.type)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if asked is not None and network_class(asked) is not kind:
        raise ValueError(
            f"{source}: the checkpoint is of network type {network_type(kind)}, but {asked} was asked for"
        )
    return kind


def _merge_options(
    config: dict[str, Any] | None, options: dict[str, Any], source: str | Path
) -> dict[str, Any]:
    """Combine what the checkpoint says with what the caller asks for; a contradiction is an error."""
    if config is None:
        return options
    for name, value in options.items():
        is_bound = name in config and name not in RUNTIME_OPTIONS
        if is_bound and _plain(value) != _plain(config[name]):
            raise ValueError(
                f"{source}: the checkpoint has {name}={config[name]!r}, but {name}={value!r} was asked for; "
                "leave the option out, or pass pretrained=False for a new network"
            )
    return config | options


def _plain(value: Any) -> Any:
    """A value as a checkpoint would give it back, where tuples are lists."""
    return json.loads(json.dumps(value, default=str))


def _load(kind: type[LifeIQA], options: dict[str, Any], state_dict: StateDict) -> LifeIQA:
    """Build and fill a network, after a look at shapes, so that no file can ask for more memory than it holds."""
    if kind is LifeIQA:
        with torch.device("meta"):
            _check_fit(LifeIQA(**options | {"backbone_pretrained": False}), state_dict)
    network = rebuild(kind, options)
    _check_fit(network, state_dict)
    network.load_state_dict(state_dict, strict=True)
    return network


def _check_fit(network: LifeIQA, state_dict: StateDict) -> None:
    own = shapes_of(network)
    given = {key: tuple(value.shape) for key, value in state_dict.items()}
    shared = own.keys() & given.keys()
    problems = {
        "missing": own.keys() - given.keys(),
        "not known": given.keys() - own.keys(),
        "of another shape": {
            f"{key} {given[key]} instead of {own[key]}" for key in shared if given[key] != own[key]
        },
    }
    if any(problems.values()):
        found = [
            f"{len(keys)} {what} ({', '.join(sorted(keys)[:3])})"
            for what, keys in problems.items()
            if keys
        ]
        raise ValueError(
            f"the weights do not fit a LifeIQA with {len(own)} tensors: {'; '.join(found)}. Give the options with "
            "which the checkpoint was trained (backbone, embed_dim, depth, num_experts, ...)"
        )
