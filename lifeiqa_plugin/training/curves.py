"""Tables that grow with a run: losses of each iteration, results and scores of each validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from lifeiqa_plugin.journal import write_whole


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
