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

from lifeiqa_plugin.nearest import nearest

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

    shrink_to: float
    """Times the working size that a large JPEG keeps where its decoder may shrink it."""

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
    "torch": "lifeiqa_plugin",
    "onnxruntime": "'lifeiqa_plugin[onnx]' or onnxruntime",
    "openvino": "'lifeiqa_plugin[openvino]' or openvino",
}
"""What ``pip install`` takes for each of them."""

BUNDLED_INT8 = Path(__file__).parents[1] / "checkpoints" / "lifeiqa-int8.onnx"
"""The bundled network in 8 bits; its decoder's weights are those of the checkpoint beside it."""

EXPORTED = {".onnx": "onnxruntime", ".xml": "openvino"}
"""Ending of an exported file -> the engine that ``auto`` takes for it."""


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def create_engine(
    engine: str = "auto",
    model: str | Path | None = None,
    device: str = "auto",
    fast: bool = False,
) -> Engine:
    """Make an engine.

    Args:
        engine: key of ``ENGINES``, or ``auto``: that of the file that ``lifeiqa export`` wrote; for the bundled network
            ONNX Runtime where it is installed and no GPU is at hand; else torch.
        model: a checkpoint or an exported file; None for the bundled network.
        device: ``auto``, ``cpu`` or ``cuda``.
        fast: take the bundled network in 8 bits, which ONNX Runtime runs on CPUs; ``docs/scoring.md`` says how far its
            scores are off.

    Raises:
        ValueError: ``fast`` with another engine, model or device; an unknown engine, a device that is not there, a
            checkpoint that does not fit.
        OSError: a checkpoint that cannot be read.
        ImportError: the engine is not installed.
    """
    if fast:
        if engine not in ("auto", "onnxruntime") or model is not None or device.startswith("cuda"):
            raise ValueError(
                "fast is the bundled network in 8 bits, with ONNX Runtime on the CPU; for another one: "
                "lifeiqa export --int8 PHOTOS, and score with that file as the model"
            )
        engine, model, device = "onnxruntime", BUNDLED_INT8, "cpu"
    name = _choose_engine(model, device) if engine == "auto" else engine
    if name not in ENGINES:
        near = nearest(name, ENGINES)
        known = f"did you mean {near[0]!r}?" if near else f"known are auto, {', '.join(ENGINES)}"
        raise ValueError(f"no engine is called {name!r}; {known}")
    if importlib.util.find_spec(name) is None:
        raise ImportError(f"engine {name} is not installed: pip install {INSTALL[name]}")
    created: Engine = importlib.import_module(ENGINES[name]).create(model, device)
    return created


def _choose_engine(model: str | Path | None, device: str) -> str:
    suffix = "" if model is None else Path(model).suffix
    if suffix in EXPORTED:
        return EXPORTED[suffix]
    has_runtime = importlib.util.find_spec("onnxruntime") is not None
    wants_gpu = device.startswith("cuda") or (device == "auto" and shutil.which("nvidia-smi"))
    if model is None and has_runtime and not wants_gpu:
        return "onnxruntime"
    return "torch"
