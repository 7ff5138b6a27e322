"""Files of a run beside its weights: what it was made of, so that no other's results are handed back; its tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lifeiqa_plugin.journal import read_json, sha256_of, write_json, write_whole
from lifeiqa_plugin.training.checking import join, short

OPTIONS = "options.yml"
"""The options of the run with all defaults and changes, below the run's folder; can be read as an option file."""

INPUTS = "inputs.json"
"""sha256 of every file that the options name, such as the csv of a dataset and weights to start from."""


def note(options: dict[str, Any], folder: Path) -> None:
    """Write what a run is made of."""
    inputs, text = digests(options), yaml.safe_dump(_plain(options), sort_keys=False)
    write_json(folder / INPUTS, inputs)
    with write_whole(folder / OPTIONS) as file:
        file.write(text.encode())


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
            found[value] = sha256_of(path)
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


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Return what differs between two sets of options, ``train:optim:lr 0.001 -> 0.002``."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new, key = before.get(name), now.get(name), join(where, name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, key)
        elif old != new:
            found.append(f"{key} {short(old)} -> {short(new)}")
    return found


def add_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows below those that are there; the first column is an iteration."""
    is_new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(header)
        writer.writerows(rows)


def cut_after(folder: Path, iteration: int) -> None:
    """Remove the rows of later iterations, which a resumed run writes again, from the tables of a run."""
    for path in (*folder.glob("curves_*.csv"), *folder.glob("predictions_*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        whole_rows = [row for row in rows if len(row) == len(header)]  # a killed run leaves parts
        kept = [row for row in whole_rows if int(row[0]) <= iteration]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([header, *kept])
        with write_whole(path) as target:
            target.write(text.getvalue().encode())
