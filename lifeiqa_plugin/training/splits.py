"""``lifeiqa train --splits``: several splits one after the other, and their table."""

from __future__ import annotations

import copy
import csv
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyiqa.data import build_dataset
from pyiqa.utils.dist_util import get_dist_info

from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.pyiqa_compat import quiet
from lifeiqa_plugin.training.launch import run


def train_splits(options: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Train splits 1 .. ``count`` one after the other, each resumed if it was interrupted, none trained twice.

    Only datasets whose ``split_index`` is a number are renumbered. Writes ``experiments/<name>_splits.csv`` and
    ``.md``: each split's test results, their median, mean and deviation, and the rows of each dataset.

    Raises:
        ValueError: no ``test`` set, no numbered dataset, fewer than one split, or a finished split of other options or
            files; else as ``launch.train``.
    """
    if count < 1 or "test" not in options["datasets"]:
        raise ValueError(
            "--splits needs a number of 1 or more, and an option file with datasets: test:"
        )
    if not any(isinstance(dataset.get("split_index"), int) for _, dataset in sections(options)):
        raise ValueError(
            "--splits goes through numbered splits, but every split_index is a column or none; set it to 1, with "
            "split_ratio, for each dataset that has them"
        )
    results, rows = [], {}
    for split in range(1, count + 1):
        one = copy.deepcopy(options)
        one["name"] = f"{options['name']}_split{split:02d}"
        for _, dataset in sections(one):
            if isinstance(dataset.get("split_index"), int):
                dataset["split_index"] = split
        rows[split] = count_rows(one)
        results.append(run(one, auto_resume=True))
    if get_dist_info()[0] == 0:
        write_summary(results, rows, Path("experiments") / f"{options['name']}_splits")
    return results


def sections(options: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield phase and section of every dataset, those of a list of training sets one by one."""
    for phase, section in options["datasets"].items():
        for dataset in section if isinstance(section, list) else [section]:
            yield phase.split("_")[0], dataset


def count_rows(options: dict[str, Any]) -> dict[str, int]:
    """Return how many rows each dataset has, by its name."""
    with quiet():
        return {
            dataset["name"]: len(build_dataset(dataset | {"phase": phase}))
            for phase, dataset in sections(options)
        }


def write_summary(
    results: list[dict[str, Any]], rows_of: dict[int, dict[str, int]], stem: Path
) -> None:
    """Write the table of several splits as ``<stem>.csv`` and ``<stem>.md``."""
    names = list(rows_of[1])
    rows: list[list[str]] = [["split", *METRICS, *(f"rows of {name}" for name in names)]]
    for result, (split, counted) in zip(results, rows_of.items(), strict=True):
        values = [f"{result[metric]:.4f}" for metric in METRICS]
        rows.append([str(split), *values, *(str(counted[name]) for name in names)])
    spread = statistics.stdev if len(results) > 1 else lambda _: 0.0
    combined = {"median": statistics.median, "mean": statistics.mean, "std": spread}
    for word, combine in combined.items():
        values = [f"{combine([result[metric] for result in results]):.4f}" for metric in METRICS]
        rows.append([word, *values, *([""] * len(names))])
    with open(f"{stem}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    lines = ["| " + " | ".join(cell or "." for cell in row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    Path(f"{stem}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
