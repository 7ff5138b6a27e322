"""Files of weights, safetensors or torch, read without running code from them."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

StateDict = dict[str, Tensor]


def read_tensors(path: Path) -> tuple[StateDict, dict[str, str]]:
    """Read a file, whatever its name ends in: its tensors and its metadata.

    Numbers of safetensors come as float32. Of a torch file the state dict is found under ``params``, ``state_dict`` or
    ``model``, if it is wrapped, and the metadata beside it under ``lifeiqa``.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is truncated, or holds anything but tensors.
    """
    return _read_torch(path) if _is_torch(path) else _read_safetensors(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a file as :func:`read_tensors` does; of safetensors no tensor is read."""
    read = _read_torch(path) if _is_torch(path) else _read_safetensors(path, with_tensors=False)
    return read[1]


def _is_torch(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(9)
    # safetensors: a length of 8 bytes, which may look like torch's, then JSON
    return (head[:4] == b"PK\x03\x04" or head[:1] == b"\x80") and head[8:] != b"{"


def _read_safetensors(path: Path, with_tensors: bool = True) -> tuple[StateDict, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if with_tensors else ()
            state_dict = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"{path}: neither a safetensors nor a torch file, or truncated ({error})"
        ) from error
    for key, value in state_dict.items():
        state_dict[key] = value.float() if value.is_floating_point() else value
    return state_dict, metadata


def _read_torch(path: Path) -> tuple[StateDict, dict[str, str]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # whose text advises to load the file unsafely
        raise ValueError(
            f"{path}: holds more than plain tensors, which could run code when read; nothing was read. Expected a "
            "state dict, as written by torch.save(network.state_dict(), path)"
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files
        raise ValueError(
            f"{path}: damaged or truncated torch file ({str(error).split('. ')[0]})"
        ) from error
    described = content.get("lifeiqa") if isinstance(content, dict) else None
    for key in ("params", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict of tensors, got {type(content).__name__}")
    if others := {
        key: type(value).__name__ for key, value in content.items() if not isinstance(value, Tensor)
    }:
        raise ValueError(
            f"{path}: expected a state dict of tensors, but some entries are none: {others}"
        )
    return content, {"lifeiqa": described} if isinstance(described, str) else {}
