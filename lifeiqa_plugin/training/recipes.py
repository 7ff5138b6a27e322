"""The option files that come with the package, each by its name; and the start of one's own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from lifeiqa_plugin.arguments import UsageError, check_file, check_target
from lifeiqa_plugin.nearest import nearest
from lifeiqa_plugin.training.checking import schema

PACKAGE = Path(__file__).resolve().parents[1]

SCHEMA = "lifeiqa-train.schema.json"
"""The JSON schema beside a new option file: editors look for what the file's first line names there."""


def recipes() -> dict[str, Path]:
    """Return all recipes by name: of an installed package ``recipes``, of a checkout ``options/train``."""
    folders = (PACKAGE / "recipes", PACKAGE.parent / "options" / "train")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yml"))}


def find_options(given: str) -> Path:
    """Return the file that ``-opt`` means: a path, or the name of a recipe.

    Raises:
        FileNotFoundError: no file at that path.
        UsageError: no recipe of that name; lists them, and names the nearest.
    """
    path, known = Path(given), recipes()
    if given in known and not path.is_file():
        return known[given]
    if path.suffix or os.sep in given or path.exists():
        check_file(path, "an option file")
        return path
    near = "".join(f"did you mean {name!r}? " for name in nearest(given, known))
    raise UsageError(
        f"no recipe is called {given!r}; {near}There are {', '.join(known)}; or give the path of an option file"
    )


def write_start(path: Path, start: Path) -> None:
    """Write an option file to edit, from another one and with its comments, and the JSON schema beside it.

    Raises:
        UsageError: there is a file of that name, or it cannot be written.
    """
    check_target(path)
    if path.exists():
        raise UsageError(f"{path}: is there already and is left as it is; choose another name")
    text = re.sub(r"(?m)^name: \S+", f"name: {path.stem}", start.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(SCHEMA).write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    path.write_text(f"# yaml-language-server: $schema={SCHEMA}\n{text}", encoding="utf-8")
