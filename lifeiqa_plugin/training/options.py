"""Option files: read, checked against ``sections.py``, and completed with its defaults.

pyiqa takes any key and ignores those it does not know, so that a misspelt one trains something else than was meant.
Neither torch nor pyiqa is imported here: a wrong file is refused at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lifeiqa_plugin.training.checking import fill, missing, short, unknown_key
from lifeiqa_plugin.training.sections import BATCH, DatasetOptions, Options, TrainingSetOptions

LARGEST = 10_000
"""Values that an option file may hold; YAML's aliases can make billions of a few lines."""


def read_options(path: str | Path, force_yml: list[str] | None = None) -> dict[str, Any]:
    """Read an option file, apply ``section:key=value`` changes, check every key and value, fill in the defaults.

    Returns:
        Nested dicts, which pyiqa takes; a key whose value is None is left out of them.

    Raises:
        OSError: no such file.
        ValueError: not YAML, too large, a change that is not ``key=value``, an unknown or missing key, a value of
            another kind than its key's.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected YAML, a text file; this is none ({error})") from error
    options = _parse(text, str(path))
    if not isinstance(options, dict):
        raise ValueError(
            f"{path}: expected sections such as datasets: and train:, got {short(options)}"
        )
    for change in force_yml or []:
        apply_change(options, change)
    try:
        return _resolve(options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is not typed
    """YAML 1.1, but 1e-4 is a number too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _parse(text: str, where: str) -> Any:
    """Read YAML of a bounded size."""
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: not valid YAML: {reason}") from error
    waiting, count = [value], 0
    while waiting:
        count += 1
        if count > LARGEST:
            raise ValueError(f"{where}: more than {LARGEST:,} values, counting aliases; shorten it")
        item = waiting.pop()
        if isinstance(item, dict):
            if other := [key for key in item if not isinstance(key, str)]:
                raise ValueError(f"{where}: keys must be text, got {short(other[0])}; quote it")
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return value


def apply_change(options: dict[str, Any], change: str) -> None:
    """Set one key, ``train:optim:lr=1e-4`` or, in a list, ``datasets:train:0:weight=2``; the value is YAML."""
    keys, equals, text = change.partition("=")
    *sections, last = keys.strip().split(":")
    if not equals or not last:
        raise ValueError(f"--force_yml takes section:key=value, got {short(change)}")
    section: Any = options
    for name in sections:
        if isinstance(section, list) and name.isdecimal() and int(name) < len(section):
            section = section[int(name)]
        elif isinstance(section, dict):
            section = section.setdefault(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"--force_yml {change}: {sections[-1]!r} is a value, not a section")
    section[last] = _parse(text.strip(), f"--force_yml {keys}")


def _resolve(given: dict[str, Any]) -> dict[str, Any]:
    """Check and complete a whole file."""
    options = fill(Options, given, "")
    options.pop("define", None)
    name = options["name"]
    if not name.strip() or os.sep in name or name in (".", ".."):
        raise ValueError(f"name must be usable as the name of a folder, got {name!r}")
    if "debug" in name:
        raise ValueError(f"name must not contain 'debug', where pyiqa stops early, got {name!r}")
    for loss in ("mos_loss_opt", "metric_loss_opt"):
        _require("type", options["train"].get(loss, {"type": None}), f"train:{loss}")
    options["network"].setdefault("type", "LifeIQA")
    options["datasets"] = {
        phase: _resolve_dataset(phase, dataset) for phase, dataset in options["datasets"].items()
    }
    _require("train", options["datasets"], "datasets")
    if not any(phase.startswith("val") for phase in options["datasets"]):
        options["val"] = None
    return options


def _require(key: str, section: Mapping[str, Any], where: str) -> None:
    if key not in section:
        raise ValueError(missing(f"{where}:{key}"))


def _resolve_dataset(phase: str, given: Any) -> Any:
    """Check and complete a dataset, or the list of ``datasets:train``."""
    where, phases = f"datasets:{phase}", ["train", "val", "test"]
    if phase not in phases and not phase.startswith(("val_", "test_")):
        raise ValueError(unknown_key(where, phases))
    if phase == "train":
        return _resolve_list(given) if isinstance(given, list) else _resolve_source(where, given)
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a section, got {short(given)}")
    dataset = fill(DatasetOptions, given, where)
    _require("meta_info_file", dataset, where)
    return _finish(dataset, phase, where)


def _resolve_list(given: list[Any]) -> list[dict[str, Any]]:
    """Check and complete several training sets, which share the keys of ``BATCH``."""
    shared: dict[str, Any] = {}
    for source in given:
        if not isinstance(source, Mapping):
            raise ValueError(f"datasets:train is a list of sections, got {short(source)}")
        for key in BATCH:
            value = source.get(key, shared.get(key))
            if shared.setdefault(key, value) not in (value, None):
                raise ValueError(
                    f"datasets:train:{key} is of the whole batch, but the list has {shared[key]!r} and {value!r}"
                )
            shared[key] = value
    sources = [_resolve_source(f"datasets:train:{i}", shared | one) for i, one in enumerate(given)]
    if all(source["own_scale"] or "meta_info_file" not in source for source in sources):
        raise ValueError(
            "datasets:train: one dataset with scores must be without own_scale, for the shared scale is its"
        )
    return sources


def _resolve_source(where: str, given: Any) -> dict[str, Any]:
    """Check and complete one training set."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a section or a list of sections, got {short(given)}")
    source = fill(TrainingSetOptions, given, where)
    _require("batch_size_per_gpu", source, where)
    if "meta_info_file" not in source and source["ladder_share"] != 1:
        raise ValueError(
            f"{where}:meta_info_file is missing; photos without scores can be shown as ladders only, ladder_share: 1"
        )
    source.setdefault("persistent_workers", source["num_worker_per_gpu"] > 0)
    return _finish(source, "train", where)


def _finish(dataset: dict[str, Any], phase: str, where: str) -> dict[str, Any]:
    """Check what several keys say together, and give the dataset a name."""
    low, high = dataset.get("mos_range", (0, 1))
    if dataset["mos_normalize"] and not (
        {"mos_range", "lower_better"} <= dataset.keys() and low < high
    ):
        raise ValueError(
            f"{where}:mos_normalize needs mos_range: [LOW, HIGH] of the raw scores and lower_better: true or false"
        )
    if dataset.get("lower_better") and not dataset["mos_normalize"]:
        raise ValueError(
            f"{where}:lower_better turns scores round together with mos_normalize: true only"
        )
    origin = dataset.get("meta_info_file", dataset["dataroot_target"])
    dataset.setdefault("name", f"{Path(origin).stem.removeprefix('meta_info_')}-{phase}")
    if os.sep in dataset["name"]:
        raise ValueError(
            f"datasets:{phase}:name must be usable in names of files, got {dataset['name']!r}"
        )
    return dataset
