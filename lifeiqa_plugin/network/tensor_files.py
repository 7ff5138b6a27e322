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
    with open(path, "rb") as file:
        head = file.read(9)
    is_torch = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
    # safetensors: a length of 8 bytes, which may look like those, then JSON
    if is_torch and head[8:] != b"{":
        return _read_torch(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no iterator
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
