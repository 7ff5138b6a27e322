"""``lifeiqa train --splits``: several splits one after the other, and their table."""

from __future__ import annotations

import copy
import csv
import json
import statistics
from pathlib import Path
from typing import Any

from pyiqa.utils.dist_util import get_dist_info

from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.training.launch import TEST_RESULTS, run


def train_splits(options: dict[str, Any], count: int) -> list[dict[str, float]]:
    """Train splits 1 .. ``count`` one after the other, each resumed if it was interrupted, none trained twice.

    Writes ``experiments/<name>_splits.csv`` and ``.md``: each split's test results, their median, mean and deviation.

    Raises:
        ValueError: no ``test`` set, or fewer than one split; else as :func:`train`.
    """
    if count < 1 or "test" not in options["datasets"]:
        raise ValueError(
            "--splits needs a number of 1 or more, and an option file with datasets: test:"
        )
    results = []
    for split in range(1, count + 1):
        one = copy.deepcopy(options)
        one["name"] = f"{options['name']}_split{split:02d}"
        for dataset in one["datasets"].values():
            dataset |= {"split_index": split, "split_ratio": dataset.get("split_ratio", "712")}
        done = Path("experiments") / one["name"] / TEST_RESULTS
        if done.is_file():
            results.append(json.loads(done.read_text(encoding="utf-8")))
        else:
            results.append(run(one, auto_resume=True))
    if get_dist_info()[0] == 0:
        write_summary(results, Path("experiments") / f"{options['name']}_splits")
    return results


def write_summary(results: list[dict[str, float]], stem: Path) -> None:
    """Write the table of several splits as ``<stem>.csv`` and ``<stem>.md``."""
    rows: list[tuple[str, ...]] = [("split", *METRICS)]
    rows += [
        (str(i), *(f"{result[m]:.4f}" for m in METRICS)) for i, result in enumerate(results, 1)
    ]
    spread = statistics.stdev if len(results) > 1 else lambda _: 0.0
    for name, combine in (
        ("median", statistics.median),
        ("mean", statistics.mean),
        ("std", spread),
    ):
        rows.append((name, *(f"{combine([result[m] for result in results]):.4f}" for m in METRICS)))
    with open(f"{stem}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    Path(f"{stem}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
