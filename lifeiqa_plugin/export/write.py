"""``export_checkpoint``: write a file, prove that it says what torch says, and only then put it in its place."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lifeiqa_plugin import __version__
from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.checkpoints.factory import load
from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.checkpoints.models import DEFAULT, Model, resolve
from lifeiqa_plugin.datasets.trained_on import trained_on
from lifeiqa_plugin.export.graph import ScoringGraph, export_program
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.network.fusing import fuse_batch_norm
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.network.tensor_files import read_metadata
from lifeiqa_plugin.runtimes import Floats, create_engine
from lifeiqa_plugin.runtimes.metadata import KEY, OUTPUTS, Metadata

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4
"""How far an exported file may be from torch, in every output."""

PROOFS = ((2, 0, 0), (1, 5, 93), (3, 131, 20))
"""Batch size, and by how much height and width exceed the crop size, of the random images that are compared."""

MIN_PHOTOS, MAX_PHOTOS = 16, 96
"""Images that int8 needs, and those it takes at most; each that calibrates takes some 50 MB meanwhile."""


class Format(NamedTuple):
    """Ending of the file, and what has to be installed: packages, which are those of the extra of the same name."""

    suffix: str
    packages: tuple[str, ...] = ()


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": Format(".xml", ("onnx", "onnxscript", "openvino")),
    "torch-export": Format(".pt2"),
    "pyiqa": Format(".pth"),
}


def export_checkpoint(
    path: Path,
    format: str,
    model: str | Path | Model = DEFAULT,
    outputs: tuple[str, ...] | None = None,
    size: tuple[int, int] | None = None,
    link_weights: bool = False,
    photos: Path | None = None,
    overwrite: bool = False,
) -> Metadata:
    """Export a checkpoint, and compare the file with torch on random images before it is put in its place.

    Args:
        path: of the file to write; OpenVINO's weights go beside it, as ``.bin``.
        format: a key of ``FORMATS``.
        model: a checkpoint, as for :func:`~lifeiqa_plugin.checkpoints.models.resolve`.
        outputs: some of ``OUTPUTS``; None for all that the network has, as the format ``pyiqa`` always does.
        size: height and width of the images for ``torch-export``, which cannot leave them open; None for a square of
            the working size.
        link_weights: for ONNX: refer to the weights in the checkpoint, a safetensors file in the same folder.
        photos: for ONNX: folder of images with which convolutions in 8 bits are calibrated; None for float32.
        overwrite: replace what is there.

    Raises:
        UsageError: arguments that cannot be.
        OSError: a file that cannot be read or written.
        ValueError: a checkpoint that is none, or a network that comes out different from torch.
        ImportError: a package that the format needs is not installed.
    """
    model = resolve(model)
    _check_format(format, size, link_weights, photos)
    if outputs is not None and format == "pyiqa":
        raise UsageError("outputs are for the other formats; pyiqa's has the whole network")
    _check_target(path, format, overwrite)
    if model.kind != "checkpoint":
        raise UsageError(f"{model.path}: a {model.kind} file; expected the checkpoint to export")
    source = model.path
    if link_weights and source.resolve().parent != path.resolve().parent:
        raise UsageError(f"{path}: only a file beside {source} can refer to its weights")
    chosen = [] if photos is None else _choose_photos(photos)
    network = load(model).eval()
    outputs = _choose_outputs(network, outputs)
    metadata = build_metadata(network, model, outputs)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        if format == "pyiqa":
            _write_pyiqa(network, model, part)
        elif format == "torch-export":
            _write_torch(network, outputs, metadata, part, size)
        else:
            linked = source if link_weights else None
            metadata = _write_any_size(network, outputs, metadata, part, linked, chosen)
        for file in _files(part):
            file.replace(path.with_suffix(file.suffix))
    finally:
        for file in _files(part):
            file.unlink(missing_ok=True)
    return metadata


def _check_format(
    format: str, size: tuple[int, int] | None, link_weights: bool, photos: Path | None
) -> None:
    """Refuse a format that is none or lacks a package, and options that it does not have."""
    if format not in FORMATS:
        raise UsageError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if size is not None and format != "torch-export":
        raise UsageError(f"a size is for torch-export only; {format} takes images of any size")
    for is_given, what in ((link_weights, "link-weights"), (photos is not None, "int8")):
        if is_given and format != "onnx":
            raise UsageError(f"{what} is for the format onnx, not for {format}")
    for package in FORMATS[format].packages:
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"{format} needs {package}: pip install 'lifeiqa_plugin[{format}]'")


def _check_target(path: Path, format: str, overwrite: bool) -> None:
    suffix = FORMATS[format].suffix
    if path.suffix != suffix:
        raise UsageError(f"{path}: a file of the format {format} ends in {suffix}")
    if path.is_dir():
        raise UsageError(f"{path}: a folder; expected the name of a file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; choose another name, or --overwrite")


def _choose_photos(folder: Path) -> list[str]:
    """Return images for int8, evenly chosen: each second one calibrates, the others say what it costs."""
    found = find_images(folder)
    if len(found) < MIN_PHOTOS:
        raise UsageError(
            f"{folder}: {len(found)} images; int8 needs {MIN_PHOTOS} or more, of all kinds"
        )
    places = np.linspace(0, len(found) - 1, min(len(found), MAX_PHOTOS)).round().astype(int)
    return [found[place] for place in places]


def _choose_outputs(network: LifeIQA, outputs: tuple[str, ...] | None) -> tuple[str, ...]:
    known = OUTPUTS if network.distortion_names else OUTPUTS[:2]
    if outputs is None:
        return known
    for name in outputs:
        if name not in known:
            raise UsageError(f"this model has no output {name!r}; it has {', '.join(known)}")
        if outputs.count(name) > 1:
            raise UsageError(f"output {name!r} is named twice")
    return outputs


def build_metadata(
    network: LifeIQA, checkpoint: Model, outputs: tuple[str, ...] = OUTPUTS
) -> Metadata:
    """Return the description of a network that was read from a checkpoint."""
    metadata = Metadata(
        crop_size=network.crop_size,
        working_size=network.working_size,
        whole_image=network.whole_image,
        distortions=network.distortion_names if "distortions" in outputs else (),
        version=__version__,
        weights_sha256=checkpoint.sha256,
        detail=network.config["detail"] or None,
        naming=network.naming,
        score_range=network.score_range,
    )
    card = read_checkpoint(checkpoint.path).card
    if card is None:
        return metadata
    return dataclasses.replace(metadata, training_data=card.training_data, licence=card.license)


def _write_any_size(
    network: LifeIQA,
    outputs: tuple[str, ...],
    metadata: Metadata,
    path: Path,
    linked: Path | None,
    photos: list[str],
) -> Metadata:
    """Write ONNX, or OpenVINO's form of it."""
    import onnx

    from lifeiqa_plugin.export import onnx_file

    if not photos:
        model = onnx_file.build_onnx(network, outputs, metadata)
    else:
        from lifeiqa_plugin.export import int8  # needs ONNX Runtime

        fused = fuse_batch_norm(network)
        model = onnx_file.build_onnx(fused, outputs, metadata)
        int8.quantize(model, fused, int8.load_crops(photos[::2], metadata.working_size))
    onnx_file.halve_where_exact(model)
    if linked is not None:
        onnx_file.link_weights(model, linked)
    if path.suffix == ".xml":
        _write_openvino(model, metadata, path)
    else:
        onnx.save(model, path)
    if not photos:
        _prove(network, outputs, path)
        return metadata
    differences = int8.find_differences(network, path, photos[1::2])
    metadata = dataclasses.replace(metadata, precision=f"int8; {differences}")
    onnx_file.set_metadata(model, metadata)
    onnx.save(model, path)
    return metadata


def _write_openvino(model: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    import openvino

    converted = openvino.Core().read_model(model.SerializeToString())
    converted.set_rt_info(metadata.to_json(), [KEY])
    openvino.save_model(converted, path, compress_to_fp16=False)


def _prove(network: LifeIQA, outputs: tuple[str, ...], path: Path) -> None:
    """Compare a file with torch on random images of several shapes.

    Raises:
        ValueError: they differ by more than ``TOLERANCE``.
    """
    engine: Any = create_engine(model=path, device="cpu")
    graph = ScoringGraph(network, outputs)
    for batch, more_height, more_width in PROOFS:
        shape = (batch, 3, network.crop_size + more_height, network.crop_size + more_width)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = graph(images)
        found = engine.run(images.numpy())
        for name, wanted in zip(outputs, expected, strict=True):
            error = _largest_difference(found[name], wanted.numpy())
            if not error <= TOLERANCE:
                raise ValueError(
                    f"{name} of the exported network differs from torch's by {error:.2g} for images of "
                    f"{tuple(shape)}; this backbone cannot be exported so, try torch-export"
                )


def _largest_difference(found: Floats, wanted: Floats) -> float:
    """NaN where only one of them is NaN, as the std of a network without calibration is in both."""
    both_nan = np.isnan(found) & np.isnan(wanted)
    return float(np.where(both_nan, 0, np.abs(found - wanted)).max())


def _write_torch(
    network: LifeIQA,
    outputs: tuple[str, ...],
    metadata: Metadata,
    path: Path,
    size: tuple[int, int] | None,
) -> None:
    """Write what ``torch.export.load`` reads: any batch, one size.

    Raises:
        UsageError: the size is below that of a crop.
    """
    height, width = size or (network.working_size, network.working_size)
    if min(height, width) < network.crop_size:
        raise UsageError(
            f"size must be at least {network.crop_size} in both directions, got {height} x {width}"
        )
    images = torch.rand(2, 3, height, width)
    program = export_program(ScoringGraph(network, outputs), images)
    torch.export.save(program, path, extra_files={KEY: metadata.to_json()})


def _write_pyiqa(network: LifeIQA, model: Model, path: Path) -> None:
    """Write the weights for pyiqa's loader, and beside them for ours what the checkpoint says of itself."""
    content: dict[str, Any] = {"params": network.state_dict()}
    described, learnt = read_metadata(model.path).get("lifeiqa"), trained_on(model)
    if described is not None:
        digests = {} if learnt is None else {"trained_on": learnt.to_text()}
        content["lifeiqa"] = json.dumps(json.loads(described) | digests)
    torch.save(content, path)


def _files(path: Path) -> list[Path]:
    """The file, and OpenVINO's second one."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
