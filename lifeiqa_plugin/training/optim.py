"""What moves the weights: which parameters decay, how the learning rate runs, which parts stand still.

Nothing here keeps a state of its own: the learning rate is a function of the iteration, so a resumed run has nothing
to restore but the optimiser.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from lifeiqa_plugin.network.evaluating import evaluating
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.training.sections import TrainOptions

NO_DECAY = ("bias", "token", "pos_embed", "position", "logit_scale", "edge_weight", "moe_scale")
"""Parts of a parameter's own name that exempt it from weight decay, beside every parameter of fewer than two axes."""

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_of(amp: str, device: str) -> torch.dtype | None:
    """Return the type in which ``train.amp`` lets a kind of device compute; None for the network's own.

    Raises:
        ValueError: fp16 without a GPU.
    """
    if amp == "fp16" and device != "cuda":
        raise ValueError("train.amp fp16 needs a GPU; use bf16 or fp32 on CPU")
    return PRECISIONS[amp]


def bfloat16_slowdown() -> float:
    """Return how many times slower than float32 this CPU computes two small convolutions in bfloat16; in a moment."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 256, 1))
        x = torch.rand(2, 64, 28, 28)
    return _seconds(layers, x, torch.bfloat16) / _seconds(layers, x, torch.float32)


def seconds_of(network: LifeIQA, size: int, crops: int, dtype: torch.dtype | None) -> float:
    """Return about how long forward and backward of a batch take, from a part of it; on a CPU as in float32.

    Five seconds are enough to measure unless a single crop takes longer. Weights, statistics and modes stay.

    Args:
        network: on the device that will train it.
        size: side of a crop.
        crops: in the batch.
        dtype: in which a GPU computes; None for float32.
    """
    x = network.mean.new_full((1, 3, size, size), 0.5)
    kind = dtype if dtype is not None and x.is_cuda else torch.float32
    with evaluating(network):
        _seconds(network, x, kind, 1)  # the first is slower
        one = _seconds(network, x, kind, 1)
        part = max(1, min(crops, int(2 / one)))
        spent = _seconds(network, x.repeat(part, 1, 1, 1), kind, 1)
    network.zero_grad()
    return spent * crops / part


def _seconds(layers: nn.Module, x: torch.Tensor, dtype: torch.dtype, rounds: int = 3) -> float:
    """Time forward and backward, the best of some rounds."""
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            torch.autograd.backward(layers(x).sum())
        if x.is_cuda:
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return min(spent)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: matrices and kernels, but no bias, norm, scalar, token or position table."""
    leaf = name.rsplit(".", 1)[-1]
    return parameter.dim() > 1 and not any(part in leaf for part in NO_DECAY)


def parameter_groups(
    network: nn.Module, lr: float, weight_decay: float, lr_backbone: float | None = None
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into optimiser groups by learning rate and by :func:`decays`.

    Args:
        network: whose ``backbone_modules``, if it has any, are told from the rest.
        lr: peak learning rate; kept as ``initial_lr``, which the schedule multiplies.
        weight_decay: of the parameters that decay.
        lr_backbone: peak learning rate of the backbone; default ``lr``.

    Raises:
        ValueError: nothing is left to train.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    backbone = getattr(network, "backbone_modules", ())
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_backbone = any(is_below(name, module) for module in backbone)
        decayed = decays(name, parameter)
        rate = lr_backbone if is_backbone and lr_backbone is not None else lr
        group = {"params": [], "is_backbone": is_backbone, "lr": rate, "initial_lr": rate}
        group["weight_decay"] = weight_decay if decayed else 0.0
        groups.setdefault((is_backbone, decayed), group)["params"].append(parameter)
    if not groups:
        raise ValueError("train.freeze leaves no parameter to train; remove a name from it")
    return [groups[key] for key in sorted(groups)]


def freeze(network: nn.Module, prefixes: list[str]) -> None:
    """Take the gradient from the parameters below the named modules, see :func:`is_below`.

    Raises:
        ValueError: a name that no parameter begins with.
    """
    for prefix in prefixes:
        frozen = [p for name, p in network.named_parameters() if is_below(name, prefix)]
        if not frozen:
            children = ", ".join(
                f"backbone.{name}" for name, _ in network.get_submodule("backbone").named_children()
            )
            raise ValueError(
                f"train.freeze: nothing is called {prefix!r}; names that exist: backbone, {children}"
            )
        for parameter in frozen:
            parameter.requires_grad_(False)


def is_below(name: str, module: str) -> bool:
    """Whether a name lies below a module's, in which ``*`` is any one part, as in ``backbone.blocks.*.*.conv_dw``."""
    wanted = module.split(".")
    parts = name.split(".")[: len(wanted)]
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def set_train_mode(network: nn.Module, frozen: list[str], freeze_batch_stats: bool = False) -> None:
    """Switch to training mode, except the frozen modules, whose dropout and batch statistics stand still too.

    Args:
        network: may be wrapped for DDP.
        frozen: names as for :func:`freeze`.
        freeze_batch_stats: every BatchNorm keeps its running statistics and normalises with them.
    """
    network.train()
    for name, module in network.named_modules():
        own_name = name.removeprefix("module.")  # without DDP's
        is_frozen = any(is_below(own_name, prefix) for prefix in frozen)
        if is_frozen or (freeze_batch_stats and isinstance(module, nn.BatchNorm2d)):
            module.eval()


@dataclass(frozen=True)
class Schedule:
    """Learning rate by iteration, as a factor of each group's peak: linear warm-up, then one of three shapes.

    Args:
        total_iter: iterations of the whole run.
        warmup_iter: iterations of the warm-up.
        warmup_factor: factor of the first iteration; above 1 the rate falls during the warm-up.
        type: ``constant``, ``step`` (times ``gamma`` every ``step_iter`` iterations, counted from the start of the
            run) or ``cosine`` (from 1 down to ``min_factor`` at the end).
        step_iter: iterations of a step.
        gamma: factor of a step.
        min_factor: end of the cosine.
        start: iterations before it begins, in which the factor is 0.

    Raises:
        ValueError: a warm-up as long as the run, a step of no iterations.
    """

    total_iter: int
    warmup_iter: int = 0
    warmup_factor: float = 0.01
    type: str = "constant"
    step_iter: int = 0
    gamma: float = 0.1
    min_factor: float = 0.0
    start: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_iter < self.total_iter - self.start:
            after = " after train.decoder_first" if self.start else ""
            raise ValueError(
                "train.warmup_epochs must be shorter than the run, "
                f"got {self.warmup_iter} of {self.total_iter - self.start} iterations{after}"
            )
        if self.type == "step" and self.step_iter < 1:
            raise ValueError(
                "train.scheduler.every_epochs must be above 0 where the type is 'step'"
            )

    def factor(self, iteration: int) -> float:
        """Return the factor of iteration 1 .. total_iter."""
        done = iteration - 1 - self.start
        if done < 0:
            return 0.0
        if done < self.warmup_iter:
            return self.warmup_factor + (1 - self.warmup_factor) * done / self.warmup_iter
        if self.type == "step":
            return float(self.gamma ** (done // self.step_iter))
        if self.type == "constant":
            return 1.0
        last = self.total_iter - self.start - 1
        progress = min(1.0, (done - self.warmup_iter) / max(1, last - self.warmup_iter))
        return self.min_factor + (1 - self.min_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def schedule_of(options: TrainOptions, total_iter: int, start_epochs: float = 0) -> Schedule:
    """Build the schedule that the ``train`` section describes in epochs, to begin after some of them."""
    per_epoch = total_iter / options.total_epoch
    shape = options.scheduler
    return Schedule(
        total_iter=total_iter,
        warmup_iter=round(options.warmup_epochs * per_epoch),
        warmup_factor=options.warmup_factor,
        type=shape.type,
        step_iter=round(shape.every_epochs * per_epoch),
        gamma=shape.gamma,
        min_factor=shape.min_factor,
        start=round(start_epochs * per_epoch),
    )
