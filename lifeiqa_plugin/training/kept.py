"""What a run was made of, so that the results of another one are never handed back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lifeiqa_plugin.journal import read_json, write_json, write_whole
from lifeiqa_plugin.training.options import differences

OPTIONS = "options.yml"
"""The options of the run with all defaults and changes, below the run's folder; can be read as an option file."""

INPUTS = "inputs.json"
"""sha256 of every file that the options name, such as the csv of a dataset and weights to start from."""


def note(options: dict[str, Any], folder: Path) -> None:
    """Write what a run is made of."""
    with write_whole(folder / OPTIONS) as file:
        file.write(yaml.safe_dump(_plain(options), sort_keys=False).encode())
    write_json(folder / INPUTS, digests(options))


def check_same(options: dict[str, Any], folder: Path) -> None:
    """See that a finished run was made of these options and files; one of version 0.1 noted no files.

    Raises:
        ValueError: it was not; says what differs and what to do.
    """
    before = yaml.safe_load((folder / OPTIONS).read_text(encoding="utf-8"))
    changes = differences(before, _plain(options))
    if (folder / INPUTS).is_file():
        old, new = read_json(folder / INPUTS), digests(options)
        changes += [f"{path} has other content" for path in old if new.get(path) != old[path]]
    if changes:
        raise ValueError(
            f"{folder}: holds the results of other options or files: {'; '.join(changes[:5])}. Give the run another "
            "name:, or move the folder away"
        )


def digests(options: dict[str, Any]) -> dict[str, str]:
    """Return the sha256 of every file that is a value in the options."""
    found = {}
    for value in _leaves(options):
        path = Path(value).expanduser()
        if path.is_file():
            found[value] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str) and value and len(value) < 4096:
        yield value


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """The same without tuples, and without YAML's aliases for what occurs twice."""
    plain: dict[str, Any] = json.loads(json.dumps(options))
    return plain
