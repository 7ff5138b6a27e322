"""How long a run will take on this machine, found out on a few crops before it starts."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.training.checking import view
from lifeiqa_plugin.training.mixture import Mixture
from lifeiqa_plugin.training.optim import freeze, precision_of, set_train_mode
from lifeiqa_plugin.training.sections import TrainOptions

CROPS = 4
"""Crops that are timed; the batch takes proportionally longer."""


def describe_effort(
    network: LifeIQA, mixture: Mixture, train_opt: dict[str, Any], steps: int, device: str = "cpu"
) -> str:
    """Return steps, seconds a step and hours, of training alone; validation comes on top.

    Args:
        network: which is used up: its weights get gradients and are frozen as in the run.
        mixture: whose first images are decoded.
        train_opt: the ``train`` section.
        steps: that are left.
        device: that computes.
    """
    options = view(TrainOptions, train_opt)
    batch, workers = mixture.opt["batch_size_per_gpu"], mixture.opt["num_worker_per_gpu"]
    with torch.random.fork_rng(devices=[]):
        crops, reading = _read(mixture)
        network, crops = network.to(device), crops.to(device)
        computing = _compute(network, crops, options, options.amp)
        plain = _compute(network, crops, options, "fp32") if options.amp == "bf16" else math.inf
    count = batch * mixture.sources[0].options.crops_per_image
    compute_time = count * computing
    read_time = batch * reading / max(1, workers)
    seconds = max(compute_time, read_time) if workers else compute_time + read_time
    said = (
        f"{steps:,} steps of {count} crops: about {steps * seconds / 3600:.2g} hours on this machine "
        f"({seconds:.2g} s a step, {read_time:.2g} s of reading), without validation"
    )
    if plain < computing:
        said += (
            f". This machine computes bfloat16 {computing / plain:.2g} times slower than float32: use "
            "--force_yml train:amp=fp32"
        )
    return said


def _read(mixture: Mixture) -> tuple[torch.Tensor, float]:
    """Return some crops (N, 3, S, S), and seconds per image."""
    start, rows = time.perf_counter(), range(min(2, len(mixture)))
    crops = torch.cat([mixture[row, 1]["img"] for row in rows])
    return crops[:CROPS], (time.perf_counter() - start) / len(rows)


def _compute(network: LifeIQA, crops: torch.Tensor, options: TrainOptions, amp: str) -> float:
    """Return seconds per crop, forward and backward, of the second time."""
    device = crops.device.type
    dtype = precision_of(amp, device)
    network.set_trainable(True)
    freeze(network, options.freeze)
    set_train_mode(network, options.freeze, options.freeze_batch_stats)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype is not None):
            score = network(crops).sum()
        torch.autograd.backward(score)
        if crops.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds / len(crops)
