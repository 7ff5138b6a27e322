"""Checkpoint files: one format of our own, and the other formats that people have.

Our format is safetensors whose metadata holds one JSON text under ``lifeiqa``: the constructor arguments of the
network, its preprocessing, score range and direction, training data and license. A path is therefore all that
``pyiqa.create_metric('lifeiqa', pretrained_model_path='mine.safetensors')`` needs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from safetensors.torch import save

from lifeiqa_plugin.checkpoints.downloads import fetch
from lifeiqa_plugin.checkpoints.rebuilding import check_rebuildable, names_start, network_type
from lifeiqa_plugin.checkpoints.released import convert_released_state_dict, released_config
from lifeiqa_plugin.journal import sha256_of, write_whole
from lifeiqa_plugin.network.config import RENAMED, check_option_names
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.network.tensor_files import StateDict, read_tensors

FORMAT = 1

FROM_CARD, TO_CARD = {"licence": "license"}, {"license": "licence"}
"""What a field of a card is called in a file, and here."""

MACHINE_OPTIONS = {"scatter_backend", "chunk_size"}
"""Options that are no part of a model, and so are not written into its checkpoint."""


@dataclass(frozen=True)
class ModelCard:
    """What a checkpoint says of itself beside its architecture."""

    training_data: str
    license: str
    lower_better: bool = False
    std: str = ""
    """What ``return_std`` is worth, as validation found it."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that has been read: weights under our names; constructor arguments, card and class where it says them."""

    state_dict: StateDict
    config: dict[str, Any] | None
    card: ModelCard | None
    type: str | None = None


def read_checkpoint(source: str | Path, sha256: str | None = None) -> Checkpoint:
    """Read a checkpoint of any known kind, without running code from it.

    Args:
        source: path or http(s) URL of our safetensors, a pyiqa training checkpoint (``params``), a raw or
            ``module.``-prefixed state dict, or a checkpoint of the released Life-IQA code.
        sha256: hex digest that the file must have.

    Raises:
        TypeError: the source is neither a text nor a path.
        FileNotFoundError, IsADirectoryError: no such file, a folder.
        OSError: the file cannot be read or downloaded.
        ValueError: wrong digest, truncated file, or a file that holds no LifeIQA weights.
    """
    if not isinstance(source, (str, Path)):
        raise TypeError(f"pretrained_model_path must be a path or URL, got {source!r}")
    if isinstance(source, str) and not source.strip():
        raise ValueError("pretrained_model_path is empty; leave it out for the bundled weights")
    if urlparse(str(source)).scheme in ("http", "https"):
        return _read_file(fetch(str(source), _read_file))
    path = Path(source)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; expected a .safetensors or .pth file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a .safetensors or .pth file")
    if sha256:
        found = sha256_of(path)
        if found != sha256:
            raise ValueError(
                f"{path}: sha256 is {found}, expected {sha256}; the file is damaged, install it again"
            )
    return _read_file(path)


def _read_file(path: Path) -> Checkpoint:
    state_dict, metadata = read_tensors(path)
    if "lifeiqa" not in metadata:
        return _from_state_dict(state_dict, path)
    try:
        return _from_metadata(state_dict, json.loads(metadata["lifeiqa"]))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: the metadata do not describe a LifeIQA that can be used ({error})"
        ) from error


def _from_metadata(state_dict: StateDict, described: dict[str, Any]) -> Checkpoint:
    """Believe what a file says of itself, if it is of a kind that we know."""
    if described["format"] != FORMAT:
        raise ValueError(
            f"format {described['format']!r}, expected {FORMAT}; update lifeiqa_plugin"
        )
    card = ModelCard(**_renamed(described["card"], FROM_CARD))
    if card.lower_better:
        raise ValueError(
            "scores are lower-better, expected higher-better; train on labels turned round"
        )
    kind = str(described.get("type", "LifeIQA"))
    config = _of_model(_renamed(described["config"], RENAMED))
    if kind == "LifeIQA":  # a subclass may not have been imported by those who only look
        check_option_names(config)
    return Checkpoint(state_dict, config, card, kind)


def _renamed(entries: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in entries.items()}


def _of_model(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in config.items()
        if name not in MACHINE_OPTIONS and not names_start(name)
    }


def _from_state_dict(state_dict: StateDict, path: Path) -> Checkpoint:
    """Recognise a bare state dict by its names."""
    state_dict = {key.removeprefix("module."): value for key, value in state_dict.items()}
    if "bunch_embedding" in state_dict:
        try:
            return Checkpoint(
                convert_released_state_dict(state_dict), released_config(state_dict), None
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if "decoder.query_tokens" not in state_dict:
        names = ", ".join(list(state_dict)[:3]) or "nothing"
        raise ValueError(
            f"{path}: expected weights of LifeIQA (decoder.query_tokens, ...), found {names}"
        )
    return Checkpoint(state_dict, None, None)


def save_checkpoint(
    network: LifeIQA,
    path: str | Path,
    card: ModelCard,
    half: bool = False,
    trained_on: str | None = None,
) -> None:
    """Write our format, whole or not at all.

    Args:
        network: whose weights and constructor arguments are written.
        path: of the file; replaced if it exists.
        card: what to say about the weights.
        half: keep matrices as float16 (vectors stay float32): half the size, widened again on reading.
        trained_on: digests of training images, see :mod:`lifeiqa_plugin.datasets.trained_on`.

    Raises:
        ValueError: the network differs from what its options give, and so could not be read again.
        OSError: as :func:`write_whole`.
    """
    check_rebuildable(network)
    tensors = {}
    for key, value in network.state_dict().items():
        is_halved = half and value.is_floating_point() and value.dim() > 1
        tensors[key] = (value.half() if is_halved else value).cpu().contiguous()
    description = {
        "format": FORMAT,
        "type": network_type(network),
        "config": _of_model(network.config),
        "preprocessing": {
            "mean": network.mean.flatten().tolist(),
            "std": network.std.flatten().tolist(),
            "crop_size": network.crop_size,
            "working_size": network.working_size,
        },
        "score_range": network.score_range,
        "card": _renamed(asdict(card), TO_CARD),
    }  # fmt: skip
    if trained_on is not None:
        description["trained_on"] = trained_on
    content = save(tensors, {"lifeiqa": json.dumps(description)})
    with write_whole(path) as file:  # save_file of safetensors would make it private (0600)
        file.write(content)
