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

from lifeiqa_plugin.training.checking import fill, home_of, join, missing, short, unknown_keys
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
        raise ValueError(f"--force-yml takes section:key=value, got {short(change)}")
    section: Any = options
    for name in sections:
        if isinstance(section, list) and name.isdecimal() and int(name) < len(section):
            section = section[int(name)]
        elif isinstance(section, dict):
            section = section.setdefault(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"--force-yml {change}: {sections[-1]!r} is a value, not a section")
    section[last] = _parse(text.strip(), f"--force-yml {keys}")


MODELS_OF_PYIQA = (
    *("BAPPSModel", "DBCNNModel", "DistIQAModel", "GeneralIQAModel", "HyperNetModel"),
    *("PieAPPModel", "WaDIQaMModel"),
)
"""What ``model_type`` is in pyiqa's own option files."""

OF_LOOP = ("dist", "rank", "world_size", "auto_resume", "is_train", "root_path")
"""What pyiqa's parser and loop add to an option file."""

OF_PATH = ("experiments_root", "models", "training_states", "log", "visualization")
"""What they add to its section ``path``."""

OF_DATASET = ("name", "type", "dataroot_target", "meta_info_file", "batch_size_per_gpu")
"""Keys that datasets of pyiqa have too."""


def complete(opt: dict[str, Any]) -> dict[str, Any]:
    """Check and complete what pyiqa's own parser and loop made of an option file.

    Datasets of another type than LifeIQADataset have keys of their own, which are not looked at.

    Raises:
        ValueError: as :func:`read_options`.
    """
    given = {key: value for key, value in opt.items() if key not in OF_LOOP}
    path = {key: value for key, value in opt["path"].items() if key not in OF_PATH}
    train = dict(opt["train"])
    if "total_epoch" in train:
        train.pop("total_iter", None)  # which the loop adds
    sets = {}
    for phase, dataset in opt["datasets"].items():
        is_ours = dataset["type"] == "LifeIQADataset"
        keys = dataset.keys() - {"phase"} if is_ours else OF_DATASET[: 4 + (phase == "train")]
        sets[phase] = {key: dataset[key] for key in dataset if key in keys}
    resolved = _resolve(given | {"path": path, "train": train, "datasets": sets})
    for phase, dataset in resolved["datasets"].items():
        dataset["phase"] = phase.split("_")[0]
    resolved["train"]["total_iter"] = opt["train"]["total_iter"]
    return opt | resolved | {"path": opt["path"]}


def _resolve(given: dict[str, Any]) -> dict[str, Any]:
    """Check and complete a whole file."""
    _check_keys(given)
    options = fill(Options, given, "")
    options.pop("define", None)
    name = options["name"]
    if not name.strip() or os.sep in name or name in (".", ".."):
        raise ValueError(f"name must be usable as the name of a folder, got {name!r}")
    if "debug" in name:
        raise ValueError(f"name must not contain 'debug', where pyiqa stops early, got {name!r}")
    if options["model_type"] in MODELS_OF_PYIQA:
        raise ValueError(
            f"model_type {options['model_type']} is pyiqa's, for python -m pyiqa.train; here it is LifeIQAModel"
        )
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


def _check_keys(given: dict[str, Any]) -> None:
    """Refuse keys that nothing reads, all of them at once."""
    unknown = unknown_keys(Options, given)
    datasets = given.get("datasets")
    for phase, dataset in datasets.items() if isinstance(datasets, Mapping) else ():
        where, phases = join("datasets", phase), ["train", "val", "test"]
        if phase not in phases and not phase.startswith(("val_", "test_")):
            unknown[where] = home_of(phase, phases)
        section = TrainingSetOptions if phase == "train" else DatasetOptions
        for i, one in enumerate(dataset if isinstance(dataset, list) else [dataset]):
            place = join(where, i) if isinstance(dataset, list) else where
            unknown |= unknown_keys(section, one, place)
    if len(unknown) == 1:
        raise ValueError("unknown key {}; {}".format(*next(iter(unknown.items()))))
    if unknown:
        listed = "; ".join(f"{key} ({home})" for key, home in unknown.items())
        raise ValueError(f"{len(unknown)} unknown keys: {listed}")


def _require(key: str, section: Mapping[str, Any], where: str) -> None:
    if key not in section:
        raise ValueError(missing(f"{where}:{key}"))


def _resolve_dataset(phase: str, given: Any) -> Any:
    """Check and complete a dataset, or the list of ``datasets:train``."""
    where = f"datasets:{phase}"
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
    return [_resolve_source(f"datasets:train:{i}", shared | one) for i, one in enumerate(given)]


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
