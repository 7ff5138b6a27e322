"""Checkpoints: one file format of our own, the other formats that people have, and the factory that pyiqa calls.

Our format is safetensors whose metadata holds one JSON text under ``lifeiqa``: the constructor arguments of the
network, its preprocessing, score range and direction, training data and licence. A path is therefore all that
``pyiqa.create_metric('lifeiqa', pretrained_model_path='mine.safetensors')`` needs.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lifeiqa_plugin.arch import PRESETS, LifeIQA

BUNDLED = Path(__file__).parent / "weights" / "lifeiqa.safetensors"
BUNDLED_SHA256 = "91b98b533621b391441d16ad2643ee9a63f93e12d2cf3714268972e84aba66a4"
FORMAT = 1
MACHINE_OPTIONS = {"backbone_pretrained", "scatter_backend", "chunk_size"}
"""Options that are no part of a model, and so are not written into its checkpoint."""
RUNTIME_OPTIONS = MACHINE_OPTIONS | {"test_sample", "working_size", "std_line"}
"""Options that do not change which weights fit, so that they may differ from what a checkpoint says."""

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself beside its architecture."""

    training_data: str
    licence: str
    lower_better: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A file that has been read: weights under our names, constructor arguments and card where the file has them."""

    state_dict: StateDict
    config: dict[str, Any] | None
    card: Card | None


# ------------------------------------------------------------------------------------------------------------- factory


def build_lifeiqa(
    pretrained: bool = True,
    pretrained_model_path: str | Path | None = None,
    preset: str | None = None,
    **options: Any,
) -> LifeIQA:
    """Build the network; registered with pyiqa as architecture ``LifeIQA``.

    Args:
        pretrained: load the bundled checkpoint; False gives random weights and touches neither disk nor network.
        pretrained_model_path: file or URL of another checkpoint, see :func:`read_checkpoint`; wins over ``pretrained``.
        preset: ``released`` or ``paper``, see :data:`~lifeiqa_plugin.arch.PRESETS`.
        **options: arguments of :class:`~lifeiqa_plugin.arch.LifeIQA`.

    Raises:
        TypeError: an unknown option, or ``pretrained`` neither True nor False.
        ValueError: an unknown preset, or options that contradict the checkpoint.
        OSError, ValueError: as :func:`read_checkpoint`.
    """
    if not isinstance(pretrained, bool):
        raise TypeError(f"pretrained must be True or False, got {pretrained!r}; pretrained_model_path names a file")
    _check_option_names(options)
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
        options = PRESETS[preset] | options
    if pretrained_model_path is None and not pretrained:
        return LifeIQA(**options)
    source = BUNDLED if pretrained_model_path is None else pretrained_model_path
    checkpoint = read_checkpoint(source, BUNDLED_SHA256 if source is BUNDLED else None)
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten, so nobody should notice their dice
        network = LifeIQA(**_merge_options(checkpoint.config, options, source))
    _load_strictly(network, checkpoint.state_dict, source)
    return network


def _check_option_names(options: dict[str, Any]) -> None:
    known = list(inspect.signature(LifeIQA).parameters)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "pretrained", "pretrained_model_path", "preset"], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known options: {', '.join(known)}"
            raise TypeError(f"LifeIQA has no option {name!r}{hint}")


def _merge_options(config: dict[str, Any] | None, options: dict[str, Any], source: str | Path) -> dict[str, Any]:
    """Combine what the checkpoint says with what the caller asks for; a contradiction is an error."""
    if config is None:
        return options | {"backbone_pretrained": False}
    for name, value in options.items():
        if name not in RUNTIME_OPTIONS and name in config and _plain(value) != _plain(config[name]):
            raise ValueError(
                f"{source}: the checkpoint has {name}={config[name]!r}, but {name}={value!r} was asked for; "
                "leave the option out, or pass pretrained=False for a new network"
            )
    return config | options | {"backbone_pretrained": False}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _load_strictly(network: LifeIQA, state_dict: StateDict, source: str | Path) -> None:
    own = network.state_dict()
    missing, foreign = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state_dict[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state_dict.keys()
        if own[key].shape != state_dict[key].shape
    ]
    problems = {"missing": missing, "not known": foreign, "of another shape": sorted(shapes)}
    if any(problems.values()):
        found = "; ".join(f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in problems.items() if keys)
        raise ValueError(
            f"{source}: the weights do not fit a LifeIQA with {len(own)} tensors: {found}. Give the options with "
            "which the checkpoint was trained (backbone, embed_dim, depth, num_experts, ...)"
        )
    network.load_state_dict(state_dict, strict=True)


# ------------------------------------------------------------------------------------------------------- reading files


def read_checkpoint(source: str | Path, sha256: str | None = None) -> Checkpoint:
    """Read a checkpoint of any known kind, without running code from it.

    Args:
        source: path or http(s) URL of our safetensors, a pyiqa training checkpoint (``params``), a raw or
            ``module.``-prefixed state dict, or a checkpoint of the released Life-IQA code.
        sha256: hex digest that the file must have.

    Raises:
        FileNotFoundError: no such file.
        OSError: the file cannot be read or downloaded.
        ValueError: wrong digest, truncated file, or a file that holds no LifeIQA weights.
    """
    path = _download(str(source)) if urlparse(str(source)).scheme in ("http", "https") else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a .safetensors or .pth file")
    if sha256:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise ValueError(f"{path}: sha256 is {found}, expected {sha256}; the file is damaged, install it again")
    with open(path, "rb") as file:
        head = file.read(9)
    is_torch = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
    if is_torch and head[8:] != b"{":  # safetensors: a length of 8 bytes, which may look like those, then JSON
        return _read_torch(path)
    return _read_safetensors(path)


def _download(url: str) -> Path:
    """Fetch a URL into torch's hub folder, once; the folder is named after the whole URL, as file names repeat."""
    folder = f"lifeiqa-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / folder / Path(urlparse(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise OSError(f"{url}: cannot be downloaded ({error}); download it by hand and give its path") from error
    return path


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no iterator
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path}: neither a safetensors nor a torch file, or truncated ({error})") from error
    state_dict = {key: value.float() if value.is_floating_point() else value for key, value in state_dict.items()}
    if "lifeiqa" not in metadata:
        return _from_state_dict(state_dict, path)
    try:
        about = json.loads(metadata["lifeiqa"])
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}, expected {FORMAT}; update lifeiqa_plugin")
        card = Card(**about["card"])
        if card.lower_better:
            raise ValueError("scores are lower-better, expected higher-better; train on labels turned round")
        _check_option_names(about["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the metadata do not describe a LifeIQA that can be used ({error})") from error
    return Checkpoint(state_dict, about["config"], card)


def _read_torch(path: Path) -> Checkpoint:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # whose text advises to load the file unsafely
        raise ValueError(
            f"{path}: holds more than plain tensors, which could run code when read; nothing was read. Expected a "
            "state dict, as written by torch.save(network.state_dict(), path)"
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files
        raise ValueError(f"{path}: damaged or truncated torch file ({str(error).split('. ')[0]})") from error
    for key in ("params", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict of tensors, got {type(content).__name__}")
    if others := {key: type(value).__name__ for key, value in content.items() if not isinstance(value, Tensor)}:
        raise ValueError(f"{path}: expected a state dict of tensors, but some entries are none: {others}")
    return _from_state_dict(content, path)


def _from_state_dict(state_dict: StateDict, path: Path) -> Checkpoint:
    """Recognise a bare state dict by its names."""
    state_dict = {key.removeprefix("module."): value for key, value in state_dict.items()}
    if "bunch_embedding" in state_dict:
        try:
            return Checkpoint(convert_released_state_dict(state_dict), released_config(state_dict), None)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if "decoder.query_tokens" not in state_dict:
        names = ", ".join(list(state_dict)[:3]) or "nothing"
        raise ValueError(f"{path}: expected weights of LifeIQA (decoder.query_tokens, ...), found {names}")
    return Checkpoint(state_dict, None, None)


def save_checkpoint(network: LifeIQA, path: str | Path, card: Card, half: bool = False) -> None:
    """Write our format, whole or not at all.

    Args:
        network: whose weights and constructor arguments are written.
        path: of the file; replaced if it exists.
        card: what to say about the weights.
        half: keep matrices as float16 (vectors stay float32): half the size, widened again on reading.

    Raises:
        OSError: as :func:`write_whole`.
    """
    tensors = {
        key: (value.half() if half and value.is_floating_point() and value.dim() > 1 else value).cpu().contiguous()
        for key, value in network.state_dict().items()
    }
    about = {
        "format": FORMAT,
        "config": {key: value for key, value in network.config.items() if key not in MACHINE_OPTIONS},
        "preprocessing": {
            "mean": network.mean.flatten().tolist(),
            "std": network.std.flatten().tolist(),
            "crop_size": network.crop_size,
            "working_size": network.working_size,
        },
        "score_range": network.score_range,
        "card": asdict(card),
    }  # fmt: skip
    with write_whole(path) as file:
        file.write(save(tensors, {"lifeiqa": json.dumps(about)}))  # save_file would make it private (0600)


@contextmanager
def write_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file beside ``path``; when the block ends, push it to the disk and move it to its place in one go.

    Raises:
        OSError: no space or no permission; what was at ``path`` is untouched.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError where the disk is full
        raise OSError(f"{path}: cannot be written ({error}); what was there before is untouched") from error
    finally:
        part.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------- released weights

_RELEASED_NAMES = [
    (r"^bunch_embedding$", "decoder.query_tokens"),
    (r"^proj_layer4\.", "decoder.context."),
    (r"^proj_layer3\.", "decoder.memory."),
    (r"^bunch_decoder\.layers\.(\d+)\.GCN\.gcn(\d)\.", r"decoder.layers.\1.gcn.conv\2."),
    (r"^bunch_decoder\.layers\.(\d+)\.multihead_attn\.", r"decoder.layers.\1.attention."),
    (r"^bunch_decoder\.layers\.(\d+)\.norm2\.", r"decoder.layers.\1.norm."),
    (r"^norm3\.", "decoder.norm."),
    (r"^MOE\.router\.", "decoder.moe.router."),
    (r"^MOE\.net\.0\.", "decoder.moe.mlp.0."),
    (r"^MOE\.net\.2\.", "decoder.moe.mlp.3."),
    (r"^gamma$", "decoder.moe_scale"),
    (r"^fc\.", "decoder.head."),
    (r"^pretrain_model\.layers\.(\d)\.", r"backbone.layers_\1."),
    (r"^pretrain_model\.", "backbone."),
    (r"^backbone_stages\.0\.0\.", "backbone.patch_embed."),
    (r"^backbone_stages\.0\.1\.", "backbone.layers_0."),
    (r"^backbone_stages\.([123])\.", r"backbone.layers_\1."),
]
_EXPERT = re.compile(r"MOE\.experts\.\d+\.net\.[03]\.(weight|bias)")
_DERIVED = ("relative_position_index", "attn_mask")  # timm computes these buffers anew


def convert_released_state_dict(state_dict: StateDict) -> StateDict:
    """Rename a state dict of the released Life-IQA code; experts are stacked, the 1x1 convolution becomes a Linear.

    Raises:
        ValueError: a name that the released code does not have, or an expert of which a part is missing.
    """
    out: StateDict = {}
    for key, value in state_dict.items():
        if key.endswith(_DERIVED) or _EXPERT.fullmatch(key):
            continue
        for pattern, name in _RELEASED_NAMES:
            renamed, hits = re.subn(pattern, name, key)
            if hits:
                out[renamed] = value.flatten(1) if renamed == "decoder.context.weight" else value
                break
        else:
            raise ValueError(f"{key!r} is not a name of the released Life-IQA code")
    num_experts = released_config(state_dict)["num_experts"]
    if num_experts > 1:
        for ours, theirs in (("1", "0"), ("2", "3")):
            for kind in ("weight", "bias"):
                names = [f"MOE.experts.{e}.net.{theirs}.{kind}" for e in range(num_experts)]
                if missing := [name for name in names if name not in state_dict]:
                    raise ValueError(f"{len(missing)} missing ({', '.join(missing[:3])}) for {num_experts} experts")
                stack = torch.stack([state_dict[name] for name in names])
                out[f"decoder.moe.experts.{kind}{ours}"] = stack.mT.contiguous() if kind == "weight" else stack
    return out


def released_config(state_dict: StateDict) -> dict[str, Any]:
    """Read the decoder's arguments off the shapes of a released state dict; the others are as the code has them."""
    depth = len({key.split(".")[2] for key in state_dict if key.startswith("bunch_decoder.layers.")})
    router = state_dict.get("MOE.router.linear.bias")
    _, num_queries, embed_dim = state_dict["bunch_embedding"].shape
    return {
        "embed_dim": embed_dim,
        "num_queries": num_queries,
        "depth": depth,
        "num_experts": 1 if router is None else len(router),
    }
