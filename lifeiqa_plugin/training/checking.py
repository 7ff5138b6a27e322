"""What stands in a section, checked by pydantic: keys, kinds of values, ranges; errors in words, and a JSON schema."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lifeiqa_plugin.nearest import did_you_mean
from lifeiqa_plugin.training.sections import DatasetOptions, Options, TrainingSetOptions

LEAVE_OUT = "leave it out: "

HOMES = {
    # of earlier versions
    "ladder_weight": "it is now 'rank_weight'",
    "std_line": "it is now 'std_calibration'",
    "views": "it is gone: each visit decodes the image and cuts new crops; leave the key out",
    # of pyiqa
    "dataset_enlarge_ratio": "it is now 'crops_per_image'",
    "augment": "crops have the network's crop_size, and 'hflip' mirrors them",
    "img_range": f"{LEAVE_OUT}images are in [0, 1]",
    "dataroot_ref": f"{LEAVE_OUT}there are no references",
    "total_iter": "it is now 'total_epoch', in epochs",
    "warmup_iter": "it is now 'warmup_epochs'",
    "milestones": "it is now 'type: step' with 'every_epochs'",
    "step_size": "it is now 'type: step' with 'every_epochs'",
    "T_max": "it is now 'type: cosine', down to the end of the run",
    "eta_min": "it is now 'min_factor', a part of lr",
    "optim_finetune": "'decoder_first' trains in two stages",
    "scheduler_finetune": "'decoder_first' trains in two stages",
    "finetune_start_iter": "'decoder_first' trains in two stages",
    "pretrain_network": "it is now 'pretrained_model_path' of network",
    "pretrain_network_g": "it is now 'pretrained_model_path' of network",
    "strict_load": f"{LEAVE_OUT}weights always have to fit",
    "strict_load_g": f"{LEAVE_OUT}weights always have to fit",
    "metrics": f"{LEAVE_OUT}srcc, plcc, krcc and rmse are always computed",
    "pbar": f"{LEAVE_OUT}terminals always have a bar",
    "log_imgs_freq": f"{LEAVE_OUT}no images are logged",
    "wandb": f"{LEAVE_OUT}'use_tb_logger' and csv files are what there is",
    "dist_params": f"{LEAVE_OUT}--launcher pytorch knows the backend",
    "find_unused_parameters": f"{LEAVE_OUT}every parameter always has a gradient",
}
"""Keys of earlier versions and of pyiqa, and where to go with them."""

WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section",
    "dataclass_type": "a section",
    "too_short": "a list of two",
    "too_long": "a list of two",
}
"""What pydantic's errors say was wanted."""

UNION = ("int", "constrained-int", "str", "literal['auto']")
"""By what pydantic calls the kinds of a key that has two."""

Section = TypeVar("Section")

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


def view(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Return resolved values as their dataclass; keys that pyiqa has put beside them are left out."""
    known = _kinds(section)
    return _check(section, {name: values[name] for name in values if name in known}, "")


def fill(section: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the keys and values of a section and add defaults; None is the default of every key."""
    checked: Any = _check(section, given, where)
    filled: dict[str, Any] = _adapter(section).dump_python(
        checked, by_alias=True, exclude_none=True
    )
    return filled


def _check(section: type[Section], given: Mapping[str, Any], where: str) -> Section:
    """Build a section from its keys."""
    # as JSON, since strict dataclasses take no dicts of Python's
    text = json.dumps(_without_nulls(section, given), default=str)
    try:
        checked: Section = _adapter(section).validate_json(text)
    except ValidationError as error:
        raise ValueError(_explain(error.errors(), where)) from error
    return checked


def _kinds(section: Any) -> dict[str, Any]:
    """Key -> annotation; of the field ``import_``, the key is ``import``."""
    return {name.rstrip("_"): kind for name, kind in get_type_hints(section).items()}


def _without_nulls(section: Any, given: Any) -> Any:
    """Leave out keys whose value is None, of a section and those in it."""
    if not (dataclasses.is_dataclass(section) and isinstance(given, Mapping)):
        return given
    kinds = _kinds(section)
    return {
        name: _without_nulls(kinds.get(name), value)
        for name, value in given.items()
        if value is not None
    }


def _explain(errors: Sequence[Mapping[str, Any]], where: str) -> str:
    """Put pydantic's first error into words."""
    first = errors[0]
    own = _place(first)
    key = join(where, *own)
    if first["type"] == "missing":
        return missing(key)
    wanted = [
        WORDS.get(error["type"], error["msg"].removeprefix("Input should be "))
        for error in errors
        if _place(error) == own  # of int | str, two
    ]
    return f"{key} must be {' or '.join(dict.fromkeys(wanted))}, got {short(first['input'])}"


def _place(error: Mapping[str, Any]) -> list[int | str]:
    """Return keys and numbers in lists that lead to a value, without which part of a union was tried."""
    return [part for part in error["loc"] if part not in UNION]


def join(*parts: object) -> str:
    """Return a key with its sections, ``train:optim:lr``."""
    return ":".join(str(part) for part in parts if part != "")


def missing(key: str) -> str:
    """Return what to say of a key that must be there."""
    return f"{key} is missing; see docs/training.md for what it means"


def unknown_keys(section: Any, given: Any, where: str = "") -> dict[str, str]:
    """Return every key that nothing reads, of a section and those in it, and what to say of it."""
    if not (dataclasses.is_dataclass(section) and isinstance(given, Mapping)):
        return {}
    kinds = _kinds(section)
    found: dict[str, str] = {}
    for name, value in given.items():
        if name in kinds:
            found |= unknown_keys(kinds[name], value, join(where, name))
        elif value is not None:
            found[join(where, name)] = home_of(name, list(kinds))
    return found


def home_of(name: str, known: list[str]) -> str:
    """Return what to say of a key that nothing reads."""
    if name.startswith(("lr_", "weight_decay_")) and "lr_backbone" in known:
        return "the backbone has 'lr_backbone', all the rest 'lr'"
    return HOMES.get(name) or did_you_mean(name, known, f"known here: {', '.join(known)}")


def schema() -> dict[str, Any]:
    """Return the JSON schema of option files, by which editors complete and check them."""
    whole = TypeAdapter(Options).json_schema(by_alias=True)
    train, held_out = (TypeAdapter(s).json_schema() for s in (TrainingSetOptions, DatasetOptions))
    whole["properties"]["datasets"] |= {
        "properties": {"train": {"anyOf": [train, {"type": "array", "items": train}]}},
        "patternProperties": {"^(val|test)(_.+)?$": held_out},
        "additionalProperties": False,
    }
    return whole


def short(value: Any) -> str:
    """Return what was found in at most 60 characters."""
    if isinstance(value, (dict, list)):
        return f"a {'section' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
