"""The command: score, measure, write all tables; what one run has computed the next one finds."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

import pandas as pd
import torch

from lifeiqa_plugin.arguments import choose_device, import_modules
from lifeiqa_plugin.benchmark.accuracy import Results, evaluate
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
from lifeiqa_plugin.datasets.table import Columns


def benchmark(args: argparse.Namespace, protocol: Protocol | None) -> bool:
    """Do all of it and print the tables; returns False if it was interrupted, after writing what was done.

    Args:
        args: of the command line; ``docs/benchmark.md`` lists the files that it writes below ``args.out``.
        protocol: how cost is measured; None not to measure it.

    Raises:
        OSError, ValueError: a metric or a dataset that does not exist, nothing to do, a damaged file of an earlier
            run, or one of other options, weights or images, figures without matplotlib.
    """
    if args.figures and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--figures needs matplotlib: pip install 'lifeiqa_plugin[figures]'")
    device = choose_device(args.device)
    metric_file, data_file = map(read_option_file, (args.metric_opt, args.data_opt))
    modules = [*args.modules, *metric_file.modules, *data_file.modules]
    import_modules(modules)
    specs = find_metrics(args.m, metric_file.entries)
    columns = Columns(args.mos_column, args.name_column)
    datasets = find_datasets(args.d, data_file.entries, args.by, columns)
    if not datasets and protocol is None:
        raise ValueError(
            "nothing to do: give datasets with -d or --data-opt, or leave out --no-speed"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    datasets = mark_trained_on(datasets, specs, args.out / "digests.json")
    store = Store(args.out / "scores", {spec.name: spec.description for spec in specs})
    store.check(datasets)
    costs, builder = args.out / "efficiency.csv", Builder()
    notes: dict[str, str] = {}
    is_finished = True
    try:
        if datasets and not args.redraw:
            score_all(store, builder, specs, datasets, device, args.workers, notes)
        if protocol and not args.redraw:
            has_cuda = torch.cuda.is_available() and not args.cpu_only
            devices = ("cpu", "cuda") if has_cuda else ("cpu",)
            measure_speed(builder, specs, protocol, devices, costs, modules)
    except KeyboardInterrupt:
        is_finished = False
        print(
            "\ninterrupted: these tables are of what is done; the same command goes on from here",
            file=sys.stderr,
        )
    efficiency = read_speed(costs, specs)
    notes = store.untrained() | notes
    scores = store.table(datasets)
    results = evaluate(scores, specs, datasets, notes, args.samples)
    write(args, specs, scores, results, efficiency)
    return is_finished


def write(
    args: argparse.Namespace,
    specs: list[MetricSpec],
    scores: pd.DataFrame,
    results: Sequence[Results],
    efficiency: pd.DataFrame,
) -> None:
    """Write every table, the page and the figures, and print the tables."""
    tables, out = all_tables(results, efficiency), args.out
    if results:
        scores.to_parquet(out / "scores.parquet", index=False)
        scores.to_csv(out / "scores.csv", index=False)
    write_tables(out, results, tables)
    page = out / "benchmark.html"
    write_page(page, scores, results, tables, efficiency, specs)
    if args.figures:
        from lifeiqa_plugin.benchmark.figures import write_figures

        write_figures(out / "figures", scores, results, tables, efficiency)
    print(f"\nwritten: {page} and the tables beside it")
