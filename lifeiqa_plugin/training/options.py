"""Option files: read, checked against ``sections.py``, and completed with its defaults.

pyiqa takes any key and ignores those it does not know, so that a misspelt one trains something else than was meant.
Neither torch nor pyiqa is imported here: a wrong file is refused at once.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from lifeiqa_plugin.nearest import nearest
from lifeiqa_plugin.training.sections import BATCH, DatasetOptions, Options, TrainingSetOptions

RENAMED = {
    "ladder_weight": "rank_weight",
    "std_line": "std_calibration",
    "dataset_enlarge_ratio": "crops_per_image",
}
"""Keys of earlier versions, or of pyiqa, and what stands in their place."""

LARGEST = 10_000
"""Values that an option file may hold; YAML's aliases can make billions of a few lines."""

Section = TypeVar("Section")


def view(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Return resolved values as their dataclass; keys that pyiqa has put beside them are left out."""
    kinds, own = get_type_hints(section), {}
    for name in kinds.keys() & values.keys():
        value, kind = values[name], kinds[name]
        is_section = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        own[name] = view(kind, value) if is_section else value
    return section(**own)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Return what differs between two sets of options, ``train:optim:lr 0.001 -> 0.002``."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new, key = before.get(name), now.get(name), _join(where, name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, key)
        elif old != new:
            found.append(f"{key} {_short(old)} -> {_short(new)}")
    return found


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
            f"{path}: expected sections such as datasets: and train:, got {_short(options)}"
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
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return value


def apply_change(options: dict[str, Any], change: str) -> None:
    """Set one key, ``train:optim:lr=1e-4`` or, in a list, ``datasets:train:0:weight=2``; the value is YAML."""
    keys, equals, text = change.partition("=")
    *sections, last = keys.strip().split(":")
    if not equals or not last:
        raise ValueError(f"--force_yml takes section:key=value, got {_short(change)}")
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
    options = _fill(Options, given, "")
    options.pop("define", None)
    name = options["name"]
    if not name.strip() or os.sep in name or name in (".", ".."):
        raise ValueError(f"name must be usable as the name of a folder, got {name!r}")
    if "debug" in name:
        raise ValueError(f"name must not contain 'debug', where pyiqa stops early, got {name!r}")
    for loss in ("mos_loss_opt", "metric_loss_opt"):
        if "type" not in options["train"].get(loss, {"type": None}):
            raise ValueError(f"train:{loss}:type is missing; see docs/training.md")
    options["network"].setdefault("type", "LifeIQA")
    options["datasets"] = {
        phase: _resolve_dataset(phase, dataset) for phase, dataset in options["datasets"].items()
    }
    if "train" not in options["datasets"]:
        raise ValueError("datasets:train is missing; see docs/training.md for what it means")
    if not any(phase.startswith("val") for phase in options["datasets"]):
        options["val"] = None
    return options


def _resolve_dataset(phase: str, given: Any) -> Any:
    """Check and complete a dataset, or the list of ``datasets:train``."""
    if phase not in ("train", "val", "test") and not phase.startswith(("val_", "test_")):
        raise _unknown_key(f"datasets:{phase}", ["train", "val", "test"])
    where = f"datasets:{phase}"
    if phase == "train":
        return _resolve_list(given) if isinstance(given, list) else _resolve_source(where, given)
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a section, got {_short(given)}")
    dataset = _fill(DatasetOptions, given, where)
    if "meta_info_file" not in dataset:
        raise ValueError(f"{where}:meta_info_file is missing; see docs/training.md")
    return _named(dataset, phase)


def _resolve_list(given: list[Any]) -> list[dict[str, Any]]:
    """Check and complete several training sets, which share the keys of ``BATCH``."""
    shared: dict[str, Any] = {}
    for source in given:
        if not isinstance(source, Mapping):
            raise ValueError(f"datasets:train is a list of sections, got {_short(source)}")
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
        raise ValueError(f"{where} must be a section or a list of sections, got {_short(given)}")
    source = _fill(TrainingSetOptions, given, where)
    if "batch_size_per_gpu" not in source:
        raise ValueError(f"{where}:batch_size_per_gpu is missing; see docs/training.md")
    if "meta_info_file" not in source and source["ladder_share"] != 1:
        raise ValueError(
            f"{where}:meta_info_file is missing; photos without scores can be shown as ladders only, ladder_share: 1"
        )
    if source["weight"] <= 0:
        raise ValueError(f"{where}:weight must be above 0, got {source['weight']}")
    source.setdefault("persistent_workers", source["num_worker_per_gpu"] > 0)
    return _named(source, "train")


def _named(dataset: dict[str, Any], phase: str) -> dict[str, Any]:
    origin = dataset.get("meta_info_file", dataset["dataroot_target"])
    dataset.setdefault("name", f"{Path(origin).stem.removeprefix('meta_info_')}-{phase}")
    if os.sep in dataset["name"]:
        raise ValueError(
            f"datasets:{phase}:name must be usable in names of files, got {dataset['name']!r}"
        )
    return dataset


def _fill(section: type, given: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Check the keys and values of a section and add defaults; None is the default of every key."""
    fields = {f.name.rstrip("_"): f for f in dataclasses.fields(section)}  # import_ is a key, too
    kinds = {name.rstrip("_"): kind for name, kind in get_type_hints(section).items()}
    for name in given:
        if name not in fields:
            raise _unknown_key(_join(where, name), list(fields))
    filled = {}
    for name, known in fields.items():
        key, value = _join(where, name), given.get(name)
        if dataclasses.is_dataclass(kinds[name]):
            has_default = known.default_factory is not MISSING
            if value is None and not has_default:
                raise ValueError(f"{key} is missing; see docs/training.md for what it means")
            if not isinstance(value or {}, Mapping):
                raise ValueError(f"{key} must be a section, got {_short(value)}")
            filled[name] = _fill(kinds[name], value or {}, key)
            continue
        if value is None:
            value = _default(known, key)
        elif not _is_a(value, kinds[name]):
            raise ValueError(f"{key} must be {_in_words(kinds[name])}, got {_short(value)}")
        if value is not None:
            filled[name] = value
    return filled


def _join(where: str, name: object) -> str:
    return f"{where}:{name}" if where else str(name)


def _default(known: dataclasses.Field[Any], key: str) -> Any:
    if known.default is not MISSING:
        return known.default
    if known.default_factory is not MISSING:
        return known.default_factory()
    raise ValueError(f"{key} is missing; see docs/training.md for what it means")


def _unknown_key(key: str, known: list[str]) -> ValueError:
    name = key.rsplit(":", 1)[-1]
    near = nearest(name, known)
    if name in RENAMED:
        hint = f"it is now {RENAMED[name]!r}"
    elif near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"known here: {', '.join(known)}"
    return ValueError(f"unknown key {key}; {hint}")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotation of this module; whole numbers are floats too, but booleans are no numbers."""
    if kind is Any:
        return True
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, Mapping)
    if get_args(kind):
        return any(_is_a(value, one) for one in get_args(kind))
    if kind is float:
        kind = (int, float)
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def _in_words(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if get_origin(kind) is list:
        return f"a list, each {_in_words(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "a section"
    if get_args(kind):
        return " or ".join(_in_words(one) for one in get_args(kind) if one is not NoneType)
    return names[kind]


def _short(value: Any) -> str:
    """Return what was found in at most 60 characters."""
    if isinstance(value, (dict, list)):
        return f"a {'section' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
