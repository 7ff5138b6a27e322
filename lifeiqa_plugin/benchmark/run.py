"""The command: score, measure, write all tables; what one run has computed the next one finds."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from lifeiqa_plugin.benchmark import report
from lifeiqa_plugin.benchmark.accuracy import tabulate
from lifeiqa_plugin.benchmark.datasets import LabelledDataset, find_datasets
from lifeiqa_plugin.benchmark.metrics import Builder, Candidate, find_metrics, first_line
from lifeiqa_plugin.benchmark.page import write_page
from lifeiqa_plugin.benchmark.scores import Store, score_metric
from lifeiqa_plugin.benchmark.speed import Protocol, measure_speed, read_speed


@dataclass(frozen=True)
class Request:
    """What the command line asks for; without ``protocol`` no speed is measured, ``redraw`` computes only tables."""

    metrics: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    metric_opt: Path | None = None
    data_opt: Path | None = None
    out: Path = Path("benchmark")
    by: tuple[str, ...] = ()
    device: str = "cpu"
    speed_devices: tuple[str, ...] = ("cpu",)
    protocol: Protocol | None = None
    workers: int = 0
    samples: int = 1000
    thumbnails: int = 2000
    redraw: bool = False


def benchmark(request: Request) -> bool:
    """Do all of it and print the tables; returns False if it was interrupted, after writing what was done.

    Files below ``request.out``: ``scores/``, ``scores.parquet``, ``scores.csv``, ``accuracy.csv``, ``groups.csv``,
    ``pairs.csv``, ``failures.csv``, ``efficiency.csv``, ``pyiqa.csv``, ``benchmark.md``, ``benchmark.tex``,
    ``benchmark.html``.

    Raises:
        OSError, ValueError: a metric or a set that does not exist, nothing to do, no pyarrow.
    """
    for option, count in (("--samples", request.samples), ("--thumbnails", request.thumbnails)):
        if count < 0:
            raise ValueError(f"{option} takes a number that is not below zero, got {count}")
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            "scores are kept as Parquet, which needs pyarrow: pip install 'lifeiqa_plugin[benchmark]'"
        )
    candidates = find_metrics(request.metrics, request.metric_opt)
    sets = find_datasets(request.sets, request.data_opt, request.by)
    if not sets and request.protocol is None:
        raise ValueError("nothing to do: give sets with -d or --data_opt, or leave out --no-speed")
    request.out.mkdir(parents=True, exist_ok=True)
    store, builder, notes = Store(request.out / "scores"), Builder(), {}
    finished = True
    try:
        if not request.redraw:
            for candidate in candidates:
                notes[candidate.name] = _score(request, store, builder, candidate, sets)
            if request.protocol is not None:
                path = request.out / "efficiency.csv"
                measure_speed(
                    builder, candidates, request.protocol, list(request.speed_devices), path
                )
    except KeyboardInterrupt:
        finished = False
        print(
            "\ninterrupted: these tables are of what is done; the same command goes on from here",
            file=sys.stderr,
        )
    _write(request, store, candidates, sets, notes)
    return finished


def _score(
    request: Request,
    store: Store,
    builder: Builder,
    candidate: Candidate,
    sets: list[LabelledDataset],
) -> str:
    """Score with one metric; whatever goes wrong with it becomes its note, and the others go on."""
    if not sets:
        return ""
    try:
        untrained = score_metric(store, builder, candidate, sets, request.device, request.workers)
    except Exception as error:
        tqdm.write(f"{candidate.name}: {first_line(error)}", file=sys.stderr)
        return first_line(error)
    return f"untrained, {untrained}" if untrained else ""


def _write(
    request: Request,
    store: Store,
    candidates: list[Candidate],
    sets: list[LabelledDataset],
    notes: dict[str, str],
) -> None:
    out = request.out
    for candidate in candidates:
        untrained = store.about(candidate.name).get("untrained")
        kept = f"untrained, {untrained}" if untrained else store.mismatch(candidate)
        notes[candidate.name] = notes.get(candidate.name) or kept
    scores = store.table(candidates, sets)
    efficiency = read_speed(out / "efficiency.csv", candidates)
    accuracy = tabulate(scores, candidates, sets, notes, request.samples)
    if sets:
        scores.to_parquet(out / "scores.parquet", index=False)
        scores.to_csv(out / "scores.csv", index=False)
        for name in ("overall", "groups", "pairs", "failures"):
            table: pd.DataFrame = getattr(accuracy, name)
            table.to_csv(out / f"{'accuracy' if name == 'overall' else name}.csv", index=False)
        report.pyiqa_table(accuracy.overall).to_csv(out / "pyiqa.csv")
    (out / "benchmark.md").write_text(report.markdown(accuracy, efficiency), encoding="utf-8")
    (out / "benchmark.tex").write_text(report.latex(accuracy, efficiency), encoding="utf-8")
    write_page(
        out / "benchmark.html", scores, accuracy, efficiency, candidates, sets, request.thumbnails
    )
    print(report.terminal(accuracy, efficiency))
    print(f"\nwritten: {out / 'benchmark.html'} and the tables beside it")
