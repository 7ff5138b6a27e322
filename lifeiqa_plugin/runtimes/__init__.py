"""What runs the network: images at their working size in, numbers out; one module for each runtime.

Nothing here imports torch or another runtime before an engine of it is made.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.checkpoints.models import BUNDLED, DEFAULT, Model, resolve
from lifeiqa_plugin.nearest import did_you_mean
from lifeiqa_plugin.network.detail import DetailRule
from lifeiqa_plugin.words import Naming

Floats = NDArray[np.float32]


class EngineOutput(NamedTuple):
    """What an engine says of B images."""

    score: Floats  # (B,) 0 worst, 1 best
    std: Floats  # (B,) how far off each may be
    distortions: Floats  # (B, D) in [0, 1], in the order of the engine's ``names``


class Engine(Protocol):
    """A network with its weights, ready to score."""

    names: tuple[str, ...]
    """The D distortions that the network knows; empty for a network without that task."""

    naming: Naming | None
    """From which strengths on each of them is named."""

    score_range: tuple[float, float] | None
    """The worst and the best score; None for a network without limits."""

    shrink_to: float
    """Times the working size that a large JPEG keeps where its decoder may shrink it."""

    detail: DetailRule | None
    """What a nearer look at large photos takes off their score; None for one look."""

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which an image has to be resized; sent to processes that decode."""

    def score(self, batch: Floats) -> EngineOutput:
        """Score (B, 3, H, W) float32 in [0, 1], all at a working shape."""


SHRINK_TO, ROUNDED_SHRINK_TO = 2.2, 1.35
"""Of engines that compute in floating point, and in 8 bits, which is as far off by itself as 1.35 is."""

ENGINES = {
    "torch": "lifeiqa_plugin.runtimes.torch_engine",
    "onnxruntime": "lifeiqa_plugin.runtimes.onnxruntime_engine",
    "openvino": "lifeiqa_plugin.runtimes.openvino_engine",
}
"""Name, which is also that of the package it needs -> the module that has ``create(model, device) -> Engine``."""

INSTALL = {
    "torch": ". in a checkout of lifeiqa_plugin",
    "onnxruntime": "onnxruntime",
    "openvino": "'lifeiqa_plugin[openvino]' or openvino",
}
"""What ``pip install`` takes for each of them."""

EXPORTED = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Kind of an exported file -> the engine that ``auto`` takes for it."""


class Choice(NamedTuple):
    """An engine by its name, and the file that it runs."""

    engine: str
    model: Model


def choose_engine(
    engine: str = "auto",
    model: str | Path | Model = DEFAULT,
    device: str = "auto",
    fast: bool = False,
) -> Choice:
    """Choose what :func:`create_engine` makes, and load nothing.

    Raises:
        ValueError, OSError, ImportError: as :func:`create_engine`, but for what loading finds.
    """
    model = resolve(model)
    if fast:
        if engine not in ("auto", "onnxruntime") or device.startswith("cuda"):
            raise ValueError(
                "fast is a bundled network in 8 bits, which ONNX Runtime runs on the CPU; "
                f"got engine {engine}, device {device}"
            )
        engine, model = "onnxruntime", model.exported(int8=True)
    name = _choose(model, device) if engine == "auto" else engine
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES, otherwise=f"known are auto, {', '.join(ENGINES)}")
        raise ValueError(f"no engine is called {name!r}; {hint}")
    if importlib.util.find_spec(name) is None:
        raise ImportError(f"engine {name} is not installed: pip install {INSTALL[name]}")
    return Choice(name, model if name == "torch" else model.exported())


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def create_engine(
    engine: str = "auto",
    model: str | Path | Model = DEFAULT,
    device: str = "auto",
    fast: bool = False,
) -> Engine:
    """Make an engine.

    Args:
        engine: key of ``ENGINES``, or ``auto``: that of the file that ``lifeiqa export`` wrote; for a bundled network
            ONNX Runtime where it is installed and no GPU is at hand; else torch.
        model: as for :func:`~lifeiqa_plugin.checkpoints.models.resolve`.
        device: ``auto``, ``cpu`` or ``cuda``.
        fast: take the bundled network in 8 bits, which ONNX Runtime runs on CPUs; ``docs/scoring.md`` says how far its
            scores are off.

    Raises:
        ValueError: ``fast`` with another engine, model or device; an unknown engine, a device that is not there, a
            checkpoint that does not fit.
        OSError: a checkpoint that is not there or cannot be read.
        ImportError: the engine is not installed.
    """
    name, chosen = choose_engine(engine, model, device, fast)
    created: Engine = importlib.import_module(ENGINES[name]).create(chosen, device)
    return created


def _choose(model: Model, device: str) -> str:
    if model.kind != "checkpoint":
        return EXPORTED[model.kind]
    has_runtime = importlib.util.find_spec("onnxruntime") is not None
    wants_gpu = device.startswith("cuda") or (device == "auto" and shutil.which("nvidia-smi"))
    if model.name in BUNDLED and has_runtime and not wants_gpu:
        return "onnxruntime"
    return "torch"
