"""What runs the network: images at their working size in, numbers out; one module for each runtime.

Nothing here imports torch or another runtime before an engine of it is made.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

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

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which an image has to be resized; sent to processes that decode."""

    def score(self, batch: Floats) -> EngineOutput:
        """Score (B, 3, H, W) float32 in [0, 1], all at a working shape."""


ENGINES = {"torch": "lifeiqa_plugin.scoring.engines.torch_engine"}
"""Name -> the module that has ``create(model, device) -> Engine``."""


def create_engine(
    engine: str = "auto", model: str | Path | None = None, device: str = "auto"
) -> Engine:
    """Make an engine.

    Args:
        engine: key of ``ENGINES``, or ``auto``.
        model: a checkpoint; None for the bundled one.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ValueError: an unknown engine, a device that is not there, a checkpoint that does not fit.
        OSError: a checkpoint that cannot be read.
        ImportError: the engine is not installed.
    """
    name = "torch" if engine == "auto" else engine
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"known are auto, {', '.join(ENGINES)}"
        raise ValueError(f"no engine is called {name!r}; {known}")
    created: Engine = importlib.import_module(ENGINES[name]).create(model, device)
    return created
