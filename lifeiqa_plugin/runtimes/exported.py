"""What the engines of exported files share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lifeiqa_plugin.checkpoints.models import Model
from lifeiqa_plugin.runtimes import ROUNDED_SHRINK_TO, SHRINK_TO, EngineOutput, Floats, count_cores
from lifeiqa_plugin.runtimes.metadata import Metadata


def check_kind(model: Model, kinds: tuple[str, ...]) -> Path:
    """Return the exported file that an engine shall read.

    Raises:
        ValueError: ``model`` is of another kind.
    """
    if model.kind not in kinds:
        raise ValueError(
            f"{model.path}: a {model.kind} file, but this engine reads {' or '.join(kinds)}; write one with "
            f"lifeiqa export --model {model.name} --format onnx -o {model.path.stem}.onnx"
        )
    return model.path


def count_threads() -> int:
    """Return how many threads shall work on a batch: ``OMP_NUM_THREADS`` as for torch, else one per usable core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else count_cores()


def find_shrink_to(metadata: Metadata) -> float:
    """Return an engine's ``shrink_to`` for a file of that description."""
    return SHRINK_TO if metadata.precision == "float32" else ROUNDED_SHRINK_TO


def to_output(values: dict[str, Floats], metadata: Metadata, path: Path) -> EngineOutput:
    """Name the outputs of a file.

    Raises:
        ValueError: it has no ``score`` or no ``std``.
    """
    for name in ("score", "std"):
        if name not in values:
            raise ValueError(f"{path}: has no output {name!r}; export it again with all outputs")
    nothing = np.zeros((len(values["score"]), 0), np.float32)
    distortions = values["distortions"] if metadata.distortions else nothing
    return EngineOutput(values["score"], values["std"], distortions)
