"""What metrics cost, under one protocol: parameters, multiply-adds, seconds, images per second, peak memory.

All metrics stand in one process. At each size every one runs twice untimed, then all are timed in turn, round by round,
so that whatever else the machine does slows all alike. Peak memory on the CPU is that of a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lifeiqa_plugin.benchmark.memory import Peaks, peaks_of_all
from lifeiqa_plugin.benchmark.metrics import Builder, LoadedMetric, MetricSpec, first_line
from lifeiqa_plugin.benchmark.protocol import (
    SLOW,
    Conditions,
    Protocol,
    Size,
    conditions,
    make_inputs,
    size_text,
)
from lifeiqa_plugin.journal import write_whole

BATCH_PIXELS = 1_000_000
"""Images up to this size are also scored in batches; few machines hold a batch of larger ones."""

NAN = float("nan")


@dataclass(frozen=True)
class Cost:
    """A line of ``efficiency.csv``: a metric at one size, and the conditions of its numbers.

    ``seconds`` is the median for one image, ``q1`` and ``q3`` its quartiles.
    """

    metric: str
    weights: str
    device: str
    dtype: str
    torch: str
    threads: int
    size: str
    batch: int
    rounds: int
    parameters: float = NAN
    macs: float = NAN
    seconds: float = NAN
    seconds_q1: float = NAN
    seconds_q3: float = NAN
    images_per_second: float = NAN
    peak_memory_gib: float = NAN
    note: str = ""
    metric_sha256: str = ""


COLUMNS = tuple(field.name for field in fields(Cost))


def measure_speed(
    builder: Builder,
    specs: list[MetricSpec],
    protocol: Protocol,
    devices: Sequence[str],
    path: Path,
    modules: list[str] | None = None,
) -> None:
    """Measure what the csv ``path`` does not hold yet, size by size; it is written after each.

    ``modules`` are imported in the processes whose memory is measured, as they are here already. A size is measured
    anew for all metrics unless it is there for all of them, under the same conditions.

    Raises:
        ValueError: ``path`` is damaged.
    """
    kept, digests = _read(path), {one.name: digest(one) for one in specs}
    for device in devices:
        about = conditions(device)
        todo = [
            size
            for size in protocol.sizes
            if not _is_there(kept, digests, size, protocol, about, device)
        ]
        if not todo:
            continue
        built, failed = _create_all(builder, specs, device)
        measures_memory = device == "cpu" and protocol.memory
        memory = peaks_of_all(built, todo, modules or []) if measures_memory else {}
        for size in todo:
            lines = {
                spec.name: Cost(
                    metric=spec.name,
                    weights="",
                    size=size_text(size),
                    batch=protocol.batch,
                    rounds=protocol.rounds,
                    **about,
                )
                for spec in specs
            }
            costs = _measure_size(built, lines, size, protocol, device, memory)
            costs |= {name: replace(lines[name], note=note) for name, note in failed.items()}
            found = [replace(one, metric_sha256=digests[one.metric]) for one in costs.values()]
            kept = _with_size(kept, found)
            with write_whole(path) as file:
                kept.to_csv(file, index=False)


def read_speed(path: Path, specs: list[MetricSpec]) -> pd.DataFrame:
    """Return the lines of ``path`` that are of these metrics and options, in their order; none if there is no file."""
    kept = _read(path)
    parts = []
    for spec in specs:
        is_same = kept["metric_sha256"].isna() | (kept["metric_sha256"] == digest(spec))
        parts.append(kept[(kept["metric"] == spec.name) & is_same])
    full = [part for part in parts if len(part)]
    return pd.concat(full, ignore_index=True) if full else kept[:0]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        kept = pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({first_line(error)}); delete it") from error
    if not {"metric", "size", "device"} <= set(kept) <= set(COLUMNS):
        raise ValueError(f"{path}: damaged (columns {list(kept)}); delete it")
    return kept.reindex(columns=list(COLUMNS))


def _with_size(kept: pd.DataFrame, costs: list[Cost]) -> pd.DataFrame:
    """Replace the lines of one size and device."""
    new = pd.DataFrame([asdict(cost) for cost in costs], columns=list(COLUMNS))
    same = (kept["size"] == costs[0].size) & (kept["device"] == costs[0].device)
    rest = kept[~same]
    return pd.concat([rest, new], ignore_index=True) if len(rest) else new


def _is_there(
    kept: pd.DataFrame,
    digests: Mapping[str, str],
    size: Size,
    protocol: Protocol,
    about: Conditions,
    device: str,
) -> bool:
    """Tell whether all metrics were measured at a size under today's conditions."""
    same = kept["size"] == size_text(size)
    for column, value in about.items():
        same &= kept[column].astype(str) == str(value)
    is_slow = kept["note"].astype(str).str.startswith("timed once")
    same &= (kept["rounds"] == protocol.rounds) | is_slow | kept["seconds"].isna()
    same &= kept["batch"] == protocol.batch
    if device == "cpu" and protocol.memory:
        same &= kept["peak_memory_gib"].notna() | kept["seconds"].isna()
    there = set(zip(kept["metric"][same], kept["metric_sha256"][same], strict=True))
    return digests.items() <= there


def digest(spec: MetricSpec) -> str:
    """Tell a metric's options, versions and weights from others of the same name."""
    return hashlib.sha256(json.dumps(spec.description).encode()).hexdigest()


def _create_all(
    builder: Builder, specs: list[MetricSpec], device: str
) -> tuple[list[LoadedMetric], dict[str, str]]:
    """Create what can be; returns name -> error for the others."""
    built, failed = [], {}
    for spec in tqdm(specs, desc=f"building metrics on {device}", unit="metric"):
        try:
            built.append(builder.create(spec, device))
        except Exception as error:
            failed[spec.name] = first_line(error)
    return built, failed


# ---- one size


def _measure_size(
    built: list[LoadedMetric],
    lines: Mapping[str, Cost],
    size: Size,
    protocol: Protocol,
    device: str,
    memory: Peaks,
) -> dict[str, Cost]:
    """Measure all metrics at one size, one image at a time and, for sizes that allow it, in batches."""
    costs: dict[str, Cost] = {}
    ready: dict[str, Callable[[], Any]] = {}
    slow = set()
    for one in built:
        name = one.spec.name
        weights = "untrained" if one.untrained else "trained"
        parameters = sum(p.numel() for p in one.metric.net.parameters())
        cost = replace(lines[name], weights=weights, parameters=parameters, note=one.untrained)
        peak = memory.get((name, size), NAN)
        if isinstance(peak, str):
            costs[name] = replace(cost, note=peak)
            continue
        run = _runner(one, size, 1, device)
        try:
            first = _warm_up(run, device)
        except Exception as error:
            costs[name] = replace(cost, peak_memory_gib=peak, note=first_line(error))
            continue
        if device == "cuda":
            peak = first.gib_on_device
        cost = replace(cost, macs=first.macs, peak_memory_gib=peak)
        if first.seconds > SLOW:
            slow.add(name)
            note = _joined("timed once, as slow", one.untrained)
            cost = replace(cost, rounds=1, note=note)
        costs[name] = cost
        ready[name] = run
    what = f"{size_text(size)} on {device}"
    timings = time_in_turn(ready, protocol.rounds, once=slow, what=what)
    for name, seconds in timings.items():
        low, middle, high = _quartiles(seconds)
        costs[name] = replace(costs[name], seconds=middle, seconds_q1=low, seconds_q3=high)
    if size[0] * size[1] <= BATCH_PIXELS and protocol.batch > 1:
        fast = [one for one in built if one.spec.name in ready.keys() - slow]
        _time_batches(fast, size, protocol, device, costs)
    return costs


def _time_batches(
    built: list[LoadedMetric], size: Size, protocol: Protocol, device: str, costs: dict[str, Cost]
) -> None:
    """Put images per second into ``costs``, or why a metric takes no batches."""
    ready = {}
    for one in built:
        name = one.spec.name
        run = _runner(one, size, protocol.batch, device)
        try:
            run()
        except Exception as error:
            note = _joined(one.untrained, f"no batches: {first_line(error)}")
            costs[name] = replace(costs[name], note=note)
        else:
            ready[name] = run
    what = f"{size_text(size)} on {device}, batches of {protocol.batch}"
    timings = time_in_turn(ready, protocol.rounds, what=what)
    for name, seconds in timings.items():
        speed = protocol.batch / statistics.median(seconds)
        costs[name] = replace(costs[name], images_per_second=speed)


def time_in_turn(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    once: Collection[str] = (),
    what: str | None = None,
) -> dict[str, list[float]]:
    """Time functions in interleaved rounds.

    Args:
        functions: name -> function without arguments.
        rounds: how often each is timed.
        once: names that are timed in the first round only.
        what: of the progress bar; none without.

    Returns:
        Name -> seconds, one for each round.
    """
    turns = []
    for i in range(rounds):
        turns += [name for name in functions if i == 0 or name not in once]
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for name in tqdm(turns, desc=what, unit="run", disable=what is None):
        start = time.perf_counter()
        functions[name]()
        seconds[name].append(time.perf_counter() - start)
    return seconds


def _runner(one: LoadedMetric, size: Size, batch: int, device: str) -> Callable[[], None]:
    inputs = make_inputs(one.spec.mode, size, batch, device)

    def run() -> None:
        with torch.no_grad():
            one.metric(*inputs)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


class FirstRuns(NamedTuple):
    """What the untimed runs tell: multiply-adds, seconds of the second one, peak memory on a CUDA device."""

    macs: float
    seconds: float
    gib_on_device: float


def _warm_up(run: Callable[[], Any], device: str) -> FirstRuns:
    """Run twice, untimed by the protocol."""
    with _counting() as counter:
        run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 1024**3 if device == "cuda" else NAN
    return FirstRuns(counter.get_total_flops() / 2, seconds, peak)


@contextlib.contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Count the multiply-adds of convolutions and matrix products, also those inside of fused attention."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
