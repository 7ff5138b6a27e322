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

CHANGED = {
    "ladder_weight": "it is now 'rank_weight'",
    "std_line": "it is now 'std_calibration'",
    "dataset_enlarge_ratio": "it is now 'crops_per_image'",
    "views": "it is gone: each visit decodes the image and cuts new crops; leave the key out",
}
"""Keys of earlier versions, or of pyiqa, and what has become of them."""

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
        raise ValueError(_explain(section, error.errors(), where)) from error
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


def _explain(section: type, errors: Sequence[Mapping[str, Any]], where: str) -> str:
    """Put pydantic's first error into words; an unknown key first, which is often why another one is missing."""
    first = min(errors, key=lambda error: error["type"] != "unexpected_keyword_argument")
    if first["type"] == "unexpected_keyword_argument":
        sections = first["loc"][:-1]
        holder = functools.reduce(lambda kind, name: _kinds(kind)[str(name)], sections, section)
        return unknown_key(join(where, *first["loc"]), list(_kinds(holder)))
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


def unknown_key(key: str, known: list[str]) -> str:
    """Return what to say of a key that nothing reads."""
    name = key.rsplit(":", 1)[-1]
    hint = CHANGED.get(name) or did_you_mean(name, known, f"known here: {', '.join(known)}")
    return f"unknown key {key}; {hint}"


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
