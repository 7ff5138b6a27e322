"""Fill the tables of README.md and docs/ from docs/results.csv.

    cog -r -I tools *.md docs/*.md         write them anew
    cog --check -I tools *.md docs/*.md    exit status 5 if one differs

A page says where a table goes, and nothing else:

    <!-- [[[cog import tables; tables.show("speed") ]]] -->
    <!-- [[[end]]] -->

The table itself is in ``tables.md`` beside this file, below a heading of that name. A cell there says ``{niqe_times}``
for the value of the row ``niqe_times`` of docs/results.csv, ``{niqe_times:short}`` for its first word, which leaves an
interval out, and ``{niqe_times:date}`` for another column.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results.csv"
TEMPLATES = Path(__file__).with_suffix(".md")


def read_results() -> dict[str, dict[str, str]]:
    """Return the rows of ``docs/results.csv`` by their id.

    Raises:
        ValueError: an id that two rows have.
    """
    results: dict[str, dict[str, str]] = {}
    with RESULTS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["id"] in results:
                raise ValueError(f"{RESULTS.name}: two rows with the id {row['id']!r}")
            results[row["id"]] = row
    return results


def read_templates() -> dict[str, str]:
    """Return the tables of ``tables.md``, with the names of rows in place of values, by their heading."""
    _, *sections = re.split(r"^## ", TEMPLATES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: body.strip() for name, _, body in (part.partition("\n") for part in sections)}


def render(name: str) -> str:
    """Return a table with its values.

    Raises:
        ValueError: no table of this name, or a value of a row that is not there.
    """
    templates, results = read_templates(), read_results()
    if name not in templates:
        raise ValueError(f"{TEMPLATES.name} has no table {name!r}, only {', '.join(templates)}")

    def value(found: re.Match[str]) -> str:
        if found[1] not in results:
            raise ValueError(f"table {name!r} shows {found[1]!r}, which {RESULTS.name} lacks")
        row, column = results[found[1]], found[2] or "value"
        if column == "short":
            return row["value"].split()[0]
        return row[column][:8] if column == "weights_sha256" else row[column]

    return re.sub(r"\{(\w+)(?::(\w+))?\}", value, templates[name])


def show(name: str) -> None:
    """Put a table into the page that cog reads."""
    import cog  # there while cog runs

    cog.outl(render(name))
