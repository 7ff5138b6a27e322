"""``lifeiqa train --grid``: a run for each combination of values; validation chooses one, and only that is tested."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from lifeiqa_plugin.benchmark.table import Table, plain
from lifeiqa_plugin.correlation import METRICS
from lifeiqa_plugin.training.options import read_options


def read_grid(option_file: Path, force_yml: list[str], grid: list[str]) -> list[dict[str, Any]]:
    """Return the options of each combination, named after its values.

    Args:
        option_file: of all runs.
        force_yml: changes for all runs.
        grid: a key and its values, ``train:optim:lr=1e-4,3e-4``.

    Raises:
        OSError, ValueError: as :func:`read_options`; no validation set; a key without values; two runs of one name.
    """
    base = read_options(option_file, force_yml)
    if base["val"] is None:
        raise ValueError(f"--grid chooses by validation, and {option_file} has no datasets: val:")
    axes = []
    for one in grid:
        key, _, values = one.partition("=")
        if not (key and values):
            raise ValueError(f"--grid takes section:key=value,value, got {one!r}")
        axes.append([(key, value.strip()) for value in values.split(",")])
    runs = {}
    for changes in itertools.product(*axes):
        parts = [f"{key.split(':')[-1]}{value}" for key, value in changes]
        name = re.sub(r"[^\w.+-]+", "-", "_".join([base["name"], *parts]))
        forced = [f"{key}={value}" for key, value in changes] + [f"name={json.dumps(name)}"]
        if name in runs:
            raise ValueError(f"--grid: two of the runs are called {name}; give each value once")
        runs[name] = read_options(option_file, [*force_yml, *forced])
    return list(runs.values())


def train_grid(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Train all, each resumed if it was interrupted, print what validation says, and test the best.

    Returns:
        What :func:`~lifeiqa_plugin.training.launch.run` returns for the best.

    Raises:
        ValueError: no validation gave a number; else as :func:`~lifeiqa_plugin.training.launch.run`.
    """
    from lifeiqa_plugin.training.launch import run  # torch: no wrong option file waits for it

    for options in runs:
        run(options, auto_resume=True, with_test=False)
    key = runs[0]["val"].get("key_metric", "srcc")
    found = best_first(pd.DataFrame([best_validation(options, key) for options in runs]), key)
    if found[key].isna().all():
        raise ValueError(f"--grid: validation gave no {key} for any of the {len(runs)} runs")
    numbers = found[list(METRICS)].map("{:.4f}".format)
    rows = found[["run", "iteration"]].astype(str).join(numbers).to_numpy().tolist()
    caption = f"Best validation of each run; the first has the best {key}"
    table = Table(caption, ["run", "iteration", *map(str.upper, METRICS)], rows, "grid")
    print(f"{caption}\n\n{plain(table)}\n\nchosen: {rows[0][0]}", flush=True)
    return run(runs[found.index[0]], auto_resume=True)


def best_first(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Sort rows by a metric; of equal ones the first stays first, as for ``net_best``."""
    return table.sort_values(key, ascending=key == "rmse", kind="stable")


def best_validation(options: dict[str, Any], key: str) -> dict[str, Any]:
    """Return run, iteration and METRICS of the weights that a run kept as ``net_best``."""
    name = next(one["name"] for phase, one in options["datasets"].items() if phase[:3] == "val")
    table = pd.read_csv(Path("experiments", options["name"], "curves_validation.csv"))
    own = table[table["dataset"] == name].assign(run=options["name"])
    best: dict[str, Any] = best_first(own, key).iloc[0].to_dict()
    return best
