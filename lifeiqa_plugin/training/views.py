"""Views: crops of each image that are drawn once, and kept as what the frozen front of the backbone makes of them.

Where the backbone's first modules stand still, decoding, resizing and these modules are a large part of training, and
the same in every epoch and split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.network.moe import load_balancing_loss, router_z_loss

FOLDER = "views"
"""Below the current one; several runs share what is in it."""

CLOSE = 0.05
"""Relative difference that rounding a front's output to half precision may make to the stages."""


class Judged(NamedTuple):
    """What the losses look at, of N crops; as in ``LifeIQAOutput``."""

    score: Tensor  # (N, 1)
    distortions: Tensor  # (N, D)
    load_balancing_loss: Tensor  # ()
    router_z_loss: Tensor  # ()


class Step(NamedTuple):
    """One of the modules that a backbone goes through in turn."""

    parent: nn.Module
    name: str  # in the parent
    module: nn.Module


class Front:
    """The modules with which a backbone begins, as far as they are frozen, up to the first stage that the decoder sees.

    Args:
        network: with its frozen modules frozen.
        dtype: of the forward pass under autocast; None for the network's own.
        device: of the network.

    Raises:
        ValueError: the backbone begins with nothing frozen, or the network does more than to pass crops through it.
    """

    def __init__(
        self, network: LifeIQA, dtype: torch.dtype | None = None, device: str = "cpu"
    ) -> None:
        self.network, self.dtype, self.device = network, dtype, device
        self.steps = frozen_steps(network.backbone)
        if not self.steps:
            raise ValueError(
                "datasets:train:views keeps what frozen modules make of the images, but the backbone begins with none; "
                "name its first in train:freeze"
            )
        self._check()

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, ...) float16."""
        with self._autocast():
            x = self.network.normalize(crops.to(self.device))
            for step in self.steps:
                x = step.module(x)
        return x.half()

    def judge(self, features: Tensor) -> Judged:
        """Let the rest of the network go on from there."""
        network = self.network
        with self._autocast():
            output = network.decoder(*self._stages(features))
        return Judged(
            score=network.to_range(output.query_scores.float().mean(1, keepdim=True)),
            distortions=output.distortion_logits.float().sigmoid(),
            load_balancing_loss=load_balancing_loss(output.routing, network.balancing),
            router_z_loss=router_z_loss(output.routing),
        )

    def digest(self) -> str:
        """Return what tells fronts of other modules, weights or precision apart."""
        digest = hashlib.blake2b(repr([step.name for step in self.steps] + [self.dtype]).encode())
        for step in self.steps:
            for value in step.module.state_dict().values():
                digest.update(value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype, enabled=self.dtype is not None)

    def _stages(self, features: Tensor) -> list[Tensor]:
        """Run what follows the front, which is left out meanwhile."""
        features = features.to(self.device).to(self.dtype or torch.float32)
        try:
            for step in self.steps:
                step.parent.add_module(step.name, nn.Identity())
            return self.network.stages_of(features)
        finally:
            for step in self.steps:
                step.parent.add_module(step.name, step.module)

    @torch.no_grad()
    def _check(self) -> None:
        network = self.network
        modes = {module: module.training for module in network.modules()}
        network.eval()
        size = network.crop_size
        crops = torch.rand(1, 3, size, size, generator=Generator().manual_seed(0))
        is_plain = type(network).forward_crops is LifeIQA.forward_crops
        with self._autocast():
            expected = network.stages_of(network.normalize(crops.to(self.device)))
            found = self._stages(self(crops)) if is_plain else []
        for module, mode in modes.items():
            module.training = mode
        if len(found) != len(expected) or not all(map(_are_close, expected, found)):
            raise ValueError(
                f"datasets:train:views: {type(network).__name__} on this backbone does not simply go on from what its "
                "frozen modules give; leave views out"
            )


def frozen_steps(backbone: nn.Module) -> list[Step]:
    """Return the modules up to the first stage that is seen which come before the first with something to train.

    None where they have no parameters, or where the backbone is not a row of modules.
    """
    last = backbone.feature_info.module_name()[0].replace(".", "_")  # type: ignore[operator, union-attr]
    steps: list[Step] = []
    for name, child in backbone.named_children():
        several = isinstance(child, nn.Sequential | nn.ModuleList)
        parts = child.named_children() if several else [(name, child)]
        for part, module in parts:
            if any(parameter.requires_grad for parameter in module.parameters()):
                return _with_parameters(steps)
            parent = child if several else backbone
            steps.append(Step(parent, part, module))
            full = f"{name}_{part}" if several else part
            if full == last:
                return _with_parameters(steps)
    return []


def _with_parameters(steps: list[Step]) -> list[Step]:
    has_any = any(True for step in steps for _ in step.module.parameters())
    return steps if has_any else []


def _are_close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= CLOSE * one.norm())


class Views:
    """The views of images on the disk, one file an image.

    Args:
        front: what is kept of views.
        about: all that decides how views are drawn.
    """

    def __init__(self, front: Front, about: dict[str, Any]) -> None:
        drawn = hashlib.blake2b(repr(sorted(about.items())).encode(), digest_size=4).hexdigest()
        self.front, self.folder = front, Path(FOLDER) / f"{front.digest()}-{drawn}"

    def draw(
        self, path: str, count: int, generator: Generator, make: Callable[[], Tensor]
    ) -> Tensor:
        """Return ``count`` views of an image, (count, ...) float16; ``make`` draws all of them where none is kept."""
        file = self.folder / f"{_key(path)}.npy"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(file) as target:
                np.save(target, self.front(make()).cpu().numpy())
        kept = np.load(file, mmap_mode="r")
        chosen = torch.randperm(len(kept), generator=generator)[:count]
        return torch.from_numpy(kept[chosen.numpy()])


def _key(path: str) -> str:
    about = Path(path).stat()
    known = (str(Path(path).resolve()), about.st_size, about.st_mtime_ns)
    return hashlib.blake2b(repr(known).encode(), digest_size=16).hexdigest()
