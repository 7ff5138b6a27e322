"""What the engines of exported files share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lifeiqa_plugin.checkpoints.models import Model
from lifeiqa_plugin.network.detail import DetailRule
from lifeiqa_plugin.runtimes import ROUNDED_SHRINK_TO, SHRINK_TO, EngineOutput, Floats, count_cores
from lifeiqa_plugin.runtimes.metadata import parse_metadata


class ExportedEngine:
    """An exported file as an engine; a runtime's own class runs it.

    Args:
        path: of the file.
        text: what it says of itself.

    Raises:
        ValueError: the file is not one of ours.
    """

    def __init__(self, path: Path, text: str | None) -> None:
        self.path = path
        self.metadata = parse_metadata(text, path)
        self.names, self.naming = self.metadata.distortions, self.metadata.naming
        self.score_range = self.metadata.score_range
        self.detail = DetailRule.parse(self.metadata.detail)
        self.working_shape = self.metadata.working_shape
        is_exact = self.metadata.precision == "float32"
        self.shrink_to = SHRINK_TO if is_exact else ROUNDED_SHRINK_TO

    def run(self, batch: Floats) -> dict[str, Floats]:
        """Return every output of the file by its name."""
        raise NotImplementedError

    def score(self, batch: Floats) -> EngineOutput:
        """Score (B, 3, H, W) float32 in [0, 1], all at a working shape.

        Raises:
            ValueError: the file has no output ``score`` or ``std``.
        """
        values = self.run(batch)
        for name in ("score", "std"):
            if name not in values:
                raise ValueError(
                    f"{self.path}: has no output {name!r}; export it again with all outputs"
                )
        nothing = np.zeros((len(batch), 0), np.float32)
        distortions = values["distortions"] if self.names else nothing
        return EngineOutput(values["score"], values["std"], distortions)


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
