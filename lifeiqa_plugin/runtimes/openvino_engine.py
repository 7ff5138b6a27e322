"""The network as OpenVINO runs it on a CPU: no torch."""

from __future__ import annotations

from pathlib import Path

import openvino

from lifeiqa_plugin.checkpoints.models import Model
from lifeiqa_plugin.runtimes import Floats
from lifeiqa_plugin.runtimes.exported import ExportedEngine, check_kind, count_threads
from lifeiqa_plugin.runtimes.metadata import KEY


def create(model: Model, device: str = "auto") -> OpenVinoEngine:
    """Load an ``.xml`` or ``.onnx`` file."""
    if device.startswith("cuda"):
        raise ValueError(f"device {device}: OpenVINO has no CUDA; use --engine torch, or cpu")
    return OpenVinoEngine(check_kind(model, ("openvino", "onnx")))


class OpenVinoEngine(ExportedEngine):
    """A file of ``lifeiqa export --format openvino`` or ``onnx`` as an engine; float32, so that scores are equal.

    Args:
        path: of the file.

    Raises:
        ValueError: the file is not one of ours.
    """

    def __init__(self, path: Path) -> None:
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"{path}: OpenVINO cannot read it ({reason})") from error
        super().__init__(path, _read_metadata(model))
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": count_threads()}
        self._compiled = core.compile_model(model, "CPU", options)
        self._outputs = [output.any_name for output in self._compiled.outputs]

    def run(self, batch: Floats) -> dict[str, Floats]:
        """Return every output of the file by its name."""
        found = self._compiled([batch])
        return {name: found[i].copy() for i, name in enumerate(self._outputs)}


def _read_metadata(model: openvino.Model) -> str | None:
    """From our own ``.xml``; from ONNX, whose metadata OpenVINO keeps under ``framework``."""
    for place in ([KEY], ["framework", KEY]):
        if model.has_rt_info(place):
            return str(model.get_rt_info(place).value)
    return None
