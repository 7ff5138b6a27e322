"""The command: score, measure, write all tables; what one run has computed the next one finds."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lifeiqa_plugin.arguments import import_modules
from lifeiqa_plugin.benchmark.accuracy import Comparison, evaluate
from lifeiqa_plugin.benchmark.contamination import mark_trained_on
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.metrics import Builder, MetricSpec, find_metrics
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.benchmark.page import write_page
from lifeiqa_plugin.benchmark.protocol import Protocol
from lifeiqa_plugin.benchmark.report import write_tables
from lifeiqa_plugin.benchmark.scores import Store, score_all
from lifeiqa_plugin.benchmark.speed import measure_speed, read_speed
from lifeiqa_plugin.benchmark.tables import all_tables
from lifeiqa_plugin.datasets.table import USUAL, Columns


@dataclass(frozen=True)
class BenchmarkOptions:
    """What the command line asks for; without ``protocol`` no speed is measured, ``redraw`` computes only tables."""

    metrics: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    metric_opt: Path | None = None
    data_opt: Path | None = None
    modules: tuple[str, ...] = ()
    out: Path = Path("benchmark")
    by: tuple[str, ...] = ()
    columns: Columns = USUAL
    device: str = "cpu"
    speed_devices: tuple[str, ...] = ("cpu",)
    protocol: Protocol | None = None
    workers: int = 0
    samples: int = 1000
    thumbnails: int = 2000
    redraw: bool = False
    figures: bool = False


def benchmark(options: BenchmarkOptions) -> bool:
    """Do all of it and print the tables; returns False if it was interrupted, after writing what was done.

    ``docs/benchmark.md`` lists the files that it writes below ``options.out``.

    Raises:
        OSError, ValueError: a metric or a dataset that does not exist, nothing to do, a damaged file of an earlier
            run, or one of other options, weights or images, figures without matplotlib.
    """
    if options.figures and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--figures needs matplotlib: pip install 'lifeiqa_plugin[figures]'")
    metric_file, data_file = map(read_option_file, (options.metric_opt, options.data_opt))
    modules = [*options.modules, *metric_file.modules, *data_file.modules]
    import_modules(modules)
    specs = find_metrics(options.metrics, metric_file.entries)
    datasets = find_datasets(options.datasets, data_file.entries, options.by, options.columns)
    if not datasets and options.protocol is None:
        raise ValueError(
            "nothing to do: give datasets with -d or --data-opt, or leave out --no-speed"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    datasets = mark_trained_on(datasets, specs, options.out / "digests.json")
    store = Store(options.out / "scores", {spec.name: spec.description for spec in specs})
    store.check(datasets)
    costs, builder = options.out / "efficiency.csv", Builder()
    notes: dict[str, str] = {}
    is_finished = True
    try:
        if datasets and not options.redraw:
            score_all(store, builder, specs, datasets, options.device, options.workers, notes)
        if options.protocol and not options.redraw:
            measure_speed(builder, specs, options.protocol, options.speed_devices, costs, modules)
    except KeyboardInterrupt:
        is_finished = False
        print(
            "\ninterrupted: these tables are of what is done; the same command goes on from here",
            file=sys.stderr,
        )
    efficiency = read_speed(costs, specs)
    notes = store.untrained() | notes
    scores = store.table(datasets)
    found = evaluate(scores, specs, datasets, notes, options.samples)
    write(options, specs, scores, found, efficiency)
    return is_finished


def write(
    options: BenchmarkOptions,
    specs: list[MetricSpec],
    scores: pd.DataFrame,
    found: Comparison,
    efficiency: pd.DataFrame,
) -> None:
    """Write every table, the page and the figures, and print the tables."""
    tables, out = all_tables(found, efficiency), options.out
    if found.datasets:
        scores.to_parquet(out / "scores.parquet", index=False)
        scores.to_csv(out / "scores.csv", index=False)
    write_tables(out, found, tables)
    page = out / "benchmark.html"
    write_page(page, scores, found.datasets, tables, efficiency, specs, options.thumbnails)
    if options.figures:
        from lifeiqa_plugin.benchmark.figures import write_figures

        write_figures(out / "figures", scores, found.datasets, tables, efficiency)
    print(f"\nwritten: {page} and the tables beside it")
