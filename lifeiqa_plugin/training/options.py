"""Option files: reading, ``--force_yml``, and an error with the nearest name for every key that nothing would read.

pyiqa takes any key and ignores those it does not know, so that a misspelt one trains something else than was meant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lifeiqa_plugin.nearest import nearest
from lifeiqa_plugin.network.lifeiqa import option_names

ANY = None
"""In ``KNOWN``: whatever stands here is for pyiqa or torch to judge."""

DATASET = dict.fromkeys([
    "name", "type", "meta_info_file", "dataroot_target", "split_file", "split_index", "split_ratio", "mos_normalize",
    "mos_range", "lower_better", "crops_per_image", "crop_size", "working_size", "hflip", "ladder_share",
    "ladder_folder", "dataset_enlarge_ratio", "use_shuffle", "batch_size_per_gpu", "num_worker_per_gpu",
    "pin_memory", "persistent_workers", "prefetch_mode",
])  # fmt: skip

KNOWN: dict[str, Any] = {
    "name": ANY, "model_type": ANY, "num_gpu": ANY, "manual_seed": ANY,
    "datasets": {"train": DATASET, "val": DATASET, "test": DATASET},
    "network": dict.fromkeys(
        ["type", "pretrained", "pretrained_model_path", "preset", *option_names()]
    ),
    "path": dict.fromkeys(["resume_state"]),
    "train": {
        "total_epoch": ANY, "warmup_epochs": ANY, "warmup_factor": ANY, "freeze": ANY, "amp": ANY, "accumulate": ANY,
        "steps_per_batch": ANY, "clip_grad_norm": ANY, "ema_decay": ANY, "grad_checkpointing": ANY,
        "optim": dict.fromkeys(["type", "lr", "lr_backbone", "weight_decay", "betas", "eps", "momentum"]),
        "scheduler": dict.fromkeys(["type", "every_epochs", "gamma", "min_factor"]),
        "mos_loss_opt": ANY, "metric_loss_opt": ANY, "load_balancing_weight": ANY, "router_z_weight": ANY,
        "rank_weight": ANY, "freeze_batch_stats": ANY,
    },
    "val": dict.fromkeys(["val_freq", "save_img", "key_metric", "metrics"]),
    "logger": dict.fromkeys(["print_freq", "save_checkpoint_freq", "save_latest_freq", "use_tb_logger", "wandb"]),
    "card": dict.fromkeys(["training_data", "licence"]),
}  # fmt: skip
"""Every key of an option file, section by section; other validation sets are called ``val_<something>``."""

REQUIRED = (
    "name", "model_type", "datasets:train:batch_size_per_gpu", "network:type", "train:total_epoch", "train:optim:lr",
    "train:mos_loss_opt:type",
)  # fmt: skip

REQUIRED_OF_DATASETS = ("name", "type", "meta_info_file", "dataroot_target")

DEFAULTS: dict[str, Any] = {
    "num_gpu": "auto",
    "manual_seed": 123,
    "path": {"resume_state": None},
    "logger": {"print_freq": 100, "save_latest_freq": None, "use_tb_logger": False},
}


def read_options(path: str | Path, force_yml: list[str] | None = None) -> dict[str, Any]:
    """Read an option file, apply ``section:key=value`` changes, check the names of all keys, fill in defaults.

    Raises:
        OSError: no such file.
        ValueError: not YAML, a change that is not ``key=value``, an unknown key, a missing key.
    """
    try:
        options = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(
            f"{path}: expected sections such as datasets: and train:, got {type(options).__name__}"
        )
    for change in force_yml or []:
        apply_change(options, change)
    check_names(options, path)
    for section, default in DEFAULTS.items():
        given = options.setdefault(section, default)
        if isinstance(default, dict):
            options[section] = default | (given or {})
    for dataset in options["datasets"].values():
        dataset.setdefault("persistent_workers", dataset.setdefault("num_worker_per_gpu", 0) > 0)
    has_val = any(phase.startswith("val") for phase in options["datasets"])
    options["val"] = (
        {"save_img": False, "val_freq": None} | (options.get("val") or {}) if has_val else None
    )
    return options


def apply_change(options: dict[str, Any], change: str) -> None:
    """Set one key, ``train:optim:lr=1e-4``; the value is YAML, with the exponents of floats as people write them."""
    keys, equals, text = change.partition("=")
    *sections, last = keys.strip().split(":")
    if not equals or not last:
        raise ValueError(f"--force_yml takes section:key=value, got {change!r}")
    for name in sections:
        options = options.setdefault(name, {})
        if not isinstance(options, dict):
            raise ValueError(f"--force_yml {change}: {name!r} is a value, not a section")
    options[last] = _parse_value(text.strip())


def _parse_value(text: str) -> Any:
    try:
        return (
            float(text) if "e" in text.lower() else yaml.safe_load(text)
        )  # YAML 1.1 reads 1e-4 as text
    except ValueError:
        return yaml.safe_load(text)


def check_names(options: Mapping[str, Any], path: str | Path) -> None:
    """Compare every key with ``KNOWN`` and see that those in ``REQUIRED`` are there.

    Raises:
        ValueError: the key in full, and the nearest known name.
    """
    _check_section(options, KNOWN, "", path)
    phases = {"train", *(options.get("datasets") or {})}
    of_datasets = [
        f"datasets:{phase}:{name}" for phase in sorted(phases) for name in REQUIRED_OF_DATASETS
    ]
    for keys in (*REQUIRED, *of_datasets):
        value: Any = options
        for name in keys.split(":"):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            raise ValueError(f"{path}: {keys} is missing; see docs/training.md for what it means")
    if not str(options["name"]).strip() or os.sep in str(options["name"]):
        raise ValueError(
            f"{path}: name must be usable as the name of a folder, got {options['name']!r}"
        )


def _check_section(
    section: Mapping[str, Any], known: Mapping[str, Any], where: str, path: str | Path
) -> None:
    for name, value in section.items():
        key = "val" if where == "datasets:" and str(name).startswith("val_") else name
        if key not in known:
            near = nearest(name, known)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise ValueError(f"{path}: unknown key {where}{name}; {hint}")
        if known[key] is not ANY and value is not None:
            if not isinstance(value, Mapping):
                raise ValueError(f"{path}: {where}{name} must be a section, got {value!r}")
            _check_section(value, known[key], f"{where}{name}:", path)
