"""The command: score, measure, write all tables; what one run has computed the next one finds."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from lifeiqa_plugin.arguments import import_modules
from lifeiqa_plugin.benchmark import report
from lifeiqa_plugin.benchmark.accuracy import Results, evaluate
from lifeiqa_plugin.benchmark.contamination import mark_trained_on
from lifeiqa_plugin.benchmark.datasets import find_datasets
from lifeiqa_plugin.benchmark.metrics import (
    Builder,
    MetricSpec,
    all_modules,
    find_metrics,
    first_line,
)
from lifeiqa_plugin.benchmark.page import write_page
from lifeiqa_plugin.benchmark.protocol import Protocol
from lifeiqa_plugin.benchmark.scores import Store, score_metric
from lifeiqa_plugin.benchmark.speed import measure_speed, read_speed
from lifeiqa_plugin.benchmark.tables import all_tables
from lifeiqa_plugin.datasets.columns import USUAL, Columns
from lifeiqa_plugin.datasets.labelled import LabelledDataset


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
            run, or one of other options, weights or images, no pyarrow.
    """
    check_packages(options.figures)
    modules = all_modules(options.modules, options.metric_opt, options.data_opt)
    import_modules(modules)
    specs = find_metrics(options.metrics, options.metric_opt)
    datasets = find_datasets(options.datasets, options.data_opt, options.by, options.columns)
    if not datasets and options.protocol is None:
        raise ValueError(
            "nothing to do: give datasets with -d or --data_opt, or leave out --no-speed"
        )
    store = Store(options.out / "scores")
    store.check(specs, datasets)
    datasets = mark_trained_on(datasets, specs)
    options.out.mkdir(parents=True, exist_ok=True)
    notes: dict[str, str] = {}
    is_finished = options.redraw or compute(options, modules, store, specs, datasets, notes)
    for spec in specs:
        notes[spec.name] = notes.get(spec.name) or store.untrained(spec.name)
    scores = store.table(specs, datasets)
    efficiency = read_speed(options.out / "efficiency.csv", specs)
    results = evaluate(scores, specs, datasets, notes, options.samples)
    write(options, specs, scores, results, efficiency)
    return is_finished


def check_packages(figures: bool) -> None:
    """Refuse what would fail only after everything has been scored.

    Raises:
        ValueError: no pyarrow, or no matplotlib where figures are asked for.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            "scores are kept as Parquet, which needs pyarrow: pip install 'lifeiqa_plugin[benchmark]'"
        )
    if figures and importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "--figures needs matplotlib: pip install 'lifeiqa_plugin[benchmark,figures]'"
        )


def compute(
    options: BenchmarkOptions,
    modules: list[str],
    store: Store,
    specs: list[MetricSpec],
    datasets: list[LabelledDataset],
    notes: dict[str, str],
) -> bool:
    """Compute scores and cost; what goes wrong with a metric becomes its note. Returns False if interrupted."""
    builder = Builder()
    try:
        for spec in specs if datasets else []:
            try:
                score_metric(store, builder, spec, datasets, options.device, options.workers)
            except Exception as error:
                notes[spec.name] = first_line(error)
                tqdm.write(f"{spec.name}: {notes[spec.name]}", file=sys.stderr)
        if options.protocol is not None:
            path, devices = options.out / "efficiency.csv", list(options.speed_devices)
            measure_speed(builder, specs, options.protocol, devices, path, modules)
    except KeyboardInterrupt:
        print(
            "\ninterrupted: these tables are of what is done; the same command goes on from here",
            file=sys.stderr,
        )
        return False
    return True


def write(
    options: BenchmarkOptions,
    specs: list[MetricSpec],
    scores: pd.DataFrame,
    results: list[Results],
    efficiency: pd.DataFrame,
) -> None:
    """Write every table, the page and the figures, and print the tables."""
    out = options.out
    if results:
        scores.to_parquet(out / "scores.parquet", index=False)
        scores.to_csv(out / "scores.csv", index=False)
        for name, frame in report.csv_tables(results).items():
            frame.to_csv(out / f"{name}.csv", index=False)
    tables = all_tables(results, efficiency)
    report.write_texts(out, tables)
    page = out / "benchmark.html"
    write_page(page, scores, results, tables, efficiency, specs, options.thumbnails)
    if options.figures:
        from lifeiqa_plugin.benchmark.figures import write_figures

        write_figures(out / "figures", scores, results, tables, efficiency)
    print(f"\nwritten: {page} and the tables beside it")
