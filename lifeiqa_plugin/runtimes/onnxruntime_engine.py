"""The network as ONNX Runtime runs it: no torch."""

from __future__ import annotations

import platform
from pathlib import Path

import onnxruntime

from lifeiqa_plugin.checkpoints.models import Model
from lifeiqa_plugin.runtimes import Floats
from lifeiqa_plugin.runtimes.exported import ExportedEngine, check_kind, count_threads
from lifeiqa_plugin.runtimes.metadata import KEY


def create(model: Model, device: str = "auto") -> OnnxRuntimeEngine:
    """Load an ``.onnx`` file, on a device."""
    return OnnxRuntimeEngine(check_kind(model, ("onnx",)), device)


class OnnxRuntimeEngine(ExportedEngine):
    """A file of ``lifeiqa export --format onnx`` as an engine.

    Args:
        path: of the file.
        device: ``auto``, ``cpu`` or ``cuda``; auto takes CUDA where onnxruntime-gpu offers it.

    Raises:
        ValueError: CUDA is asked for and not there, or the file is not one of ours.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        try:
            self.session = onnxruntime.InferenceSession(
                path, _options(), providers=_providers(device)
            )
        except _LOAD_ERRORS as error:
            raise ValueError(f"{path}: ONNX Runtime cannot read it ({error})") from error
        super().__init__(path, self.session.get_modelmeta().custom_metadata_map.get(KEY))
        self._outputs = [output.name for output in self.session.get_outputs()]

    def run(self, batch: Floats) -> dict[str, Floats]:
        """Return every output of the file by its name."""
        return dict(zip(self._outputs, self.session.run(None, {"images": batch}), strict=True))


_LOAD_ERRORS = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    onnxruntime.capi.onnxruntime_pybind11_state.NoSuchFile,
)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores decode, too
    options.enable_mem_pattern = False  # plans memory for one shape, and shapes change
    if not has_vnni():
        options.add_session_config_entry(
            "session.x64quantprecision", "1"
        )  # 16-bit sums would saturate
    options.log_severity_level = 3  # errors
    return options


def has_vnni() -> bool | None:
    """Say whether products of 8-bit numbers are summed in 32 bits, with VNNI or not on x86; None if it is not known."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return None


def _providers(device: str) -> list[str]:
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise ValueError(
            f"device {device}: onnxruntime here has no CUDA; install onnxruntime-gpu, or use cpu"
        )
    if device != "cpu" and has_cuda:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
