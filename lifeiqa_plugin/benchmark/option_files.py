"""Option files of metrics and of datasets: a table of names, and modules to import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

_PLACEHOLDER = re.compile(r"^\s*\[[\w ]+\]\s*$", re.MULTILINE)


NOTHING: Mapping[str, dict[str, Any]] = MappingProxyType({})
"""No further entries."""


class OptionFile(NamedTuple):
    """Name -> options of each entry, and what stands below ``import:``."""

    entries: dict[str, dict[str, Any]]
    modules: list[str]


def read_option_file(path: str | Path | None) -> OptionFile:
    """Read an option file of pyiqa; without a file it is empty.

    A line that holds nothing but words in brackets, as in pyiqa's own example, stands for something to fill in and is
    left out.

    Raises:
        OSError: no such file.
        ValueError: not YAML, no table of names, or ``import:`` is no list of names.
    """
    if path is None:
        return OptionFile({}, [])
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(_PLACEHOLDER.sub("", text))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    modules = content.pop("import", []) if isinstance(content, dict) else []
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise ValueError(f"{path}: import: takes a list of modules, got {modules!r}")
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        found = repr(content)[:200]
        raise ValueError(f"{path}: expected 'name:' with its options below, got {found}")
    return OptionFile({str(name): value for name, value in content.items()}, modules)
