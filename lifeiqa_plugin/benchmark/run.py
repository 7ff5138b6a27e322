"""The command: score, measure, write all tables; what one run has computed the next one finds."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from lifeiqa_plugin.arguments import import_modules
from lifeiqa_plugin.benchmark import report
from lifeiqa_plugin.benchmark.accuracy import frames, judge
from lifeiqa_plugin.benchmark.datasets import LabelledDataset, find_datasets
from lifeiqa_plugin.benchmark.metrics import (
    Builder,
    Candidate,
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


@dataclass(frozen=True)
class Request:
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


def benchmark(request: Request) -> bool:
    """Do all of it and print the tables; returns False if it was interrupted, after writing what was done.

    ``docs/benchmark.md`` lists the files that it writes below ``request.out``.

    Raises:
        OSError, ValueError: a metric or a dataset that does not exist, nothing to do, a damaged file of an earlier
            run, no pyarrow.
    """
    _check(request)
    modules = all_modules(request.modules, request.metric_opt, request.data_opt)
    import_modules(modules)
    candidates = find_metrics(request.metrics, request.metric_opt)
    datasets = find_datasets(request.datasets, request.data_opt, request.by, request.columns)
    if not datasets and request.protocol is None:
        raise ValueError(
            "nothing to do: give datasets with -d or --data_opt, or leave out --no-speed"
        )
    request.out.mkdir(parents=True, exist_ok=True)
    store, builder = Store(request.out / "scores"), Builder()
    store.check(candidates, datasets)
    notes: dict[str, str] = {}
    is_finished = True
    try:
        if not request.redraw:
            for candidate in candidates:
                notes[candidate.name] = _score(request, store, builder, candidate, datasets)
            if request.protocol is not None:
                path, devices = request.out / "efficiency.csv", list(request.speed_devices)
                measure_speed(builder, candidates, request.protocol, devices, path, modules)
    except KeyboardInterrupt:
        is_finished = False
        print(
            "\ninterrupted: these tables are of what is done; the same command goes on from here",
            file=sys.stderr,
        )
    _write(request, store, candidates, datasets, notes)
    return is_finished


def _check(request: Request) -> None:
    """Refuse what would fail only after everything has been scored."""
    for option, count in (("--samples", request.samples), ("--thumbnails", request.thumbnails)):
        if count < 0:
            raise ValueError(f"{option} takes a number that is not below zero, got {count}")
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            "scores are kept as Parquet, which needs pyarrow: pip install 'lifeiqa_plugin[benchmark]'"
        )
    if request.figures and importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "--figures needs matplotlib: pip install 'lifeiqa_plugin[benchmark,figures]'"
        )


def _score(
    request: Request,
    store: Store,
    builder: Builder,
    candidate: Candidate,
    datasets: list[LabelledDataset],
) -> str:
    """Score with one metric; whatever goes wrong with it becomes its note, and the others go on."""
    if not datasets:
        return ""
    try:
        untrained = score_metric(
            store, builder, candidate, datasets, request.device, request.workers
        )
    except Exception as error:
        tqdm.write(f"{candidate.name}: {first_line(error)}", file=sys.stderr)
        return first_line(error)
    return f"untrained, {untrained}" if untrained else ""


def _write(
    request: Request,
    store: Store,
    candidates: list[Candidate],
    datasets: list[LabelledDataset],
    notes: dict[str, str],
) -> None:
    """Write every table, the page and the figures, and print the tables."""
    out = request.out
    for candidate in candidates:
        if not notes.get(candidate.name):
            notes[candidate.name] = _kept_note(store, candidate)
    scores = store.table(candidates, datasets)
    efficiency = read_speed(out / "efficiency.csv", candidates)
    accuracy = judge(scores, candidates, datasets, notes, request.samples)
    if datasets:
        scores.to_parquet(out / "scores.parquet", index=False)
        scores.to_csv(out / "scores.csv", index=False)
        for name, frame in frames(accuracy).items():
            frame.to_csv(out / f"{name}.csv", index=False)
        report.pyiqa_table(accuracy).to_csv(out / "pyiqa.csv")
    tables = all_tables(accuracy, efficiency)
    without_intervals = all_tables(accuracy, efficiency, intervals=False)
    _write_text(out / "benchmark.md", report.write_markdown(tables))
    _write_text(out / "benchmark.tex", report.write_latex(without_intervals))
    write_page(out / "benchmark.html", scores, accuracy, efficiency, candidates, request.thumbnails)
    if request.figures:
        from lifeiqa_plugin.benchmark.figures import write_figures

        write_figures(out / "figures", scores, accuracy, efficiency)
    print(report.write_terminal(tables))
    print(f"\nwritten: {out / 'benchmark.html'} and the tables beside it")


def _kept_note(store: Store, candidate: Candidate) -> str:
    """Say what is wrong with the kept scores of a metric; empty if nothing is."""
    untrained = store.about(candidate.name).get("untrained")
    return f"untrained, {untrained}" if untrained else ""


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "replace"))
