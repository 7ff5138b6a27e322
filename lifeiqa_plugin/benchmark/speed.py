"""What metrics cost, under one protocol: parameters, multiply-adds, seconds, images per second, peak memory.

All metrics stand in one process. At each size every one runs twice untimed, then all are timed in turn, round by round,
so that whatever else the machine does slows all alike. Peak memory on the CPU is that of a process of its own.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lifeiqa_plugin.benchmark.memory import peak_memory
from lifeiqa_plugin.benchmark.metrics import Builder, Built, Candidate, first_line

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((512, 384), (1080, 800), (4000, 3000))
BATCH_PIXELS = 1_000_000
"""Images up to this size are also scored in batches; few machines hold a batch of larger ones."""
COLUMNS = (
    "metric", "weights", "device", "dtype", "torch", "threads", "size", "batch", "rounds", "parameters", "macs",
    "seconds", "seconds_q1", "seconds_q3", "images_per_second", "peak_memory_gib", "note",
)  # fmt: skip
"""Of ``efficiency.csv``, each line with its conditions. ``seconds`` is the median for one image, with quartiles."""


@dataclass(frozen=True)
class Protocol:
    """How to measure: sizes (width, height), rounds, images in a batch, and the limit for slow metrics.

    A metric whose untimed run takes more than ``slow`` seconds is timed in the first round only, and not in batches.
    """

    sizes: tuple[Size, ...] = SIZES
    rounds: int = 5
    batch: int = 4
    slow: float = 30.0
    memory: bool = True


def cpu_name() -> str:
    """Return the processor's name, or its kind where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def conditions(device: str) -> dict[str, Any]:
    """Return on what the numbers of a device are measured."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU: {cpu_name()}"
    return {
        "device": name,
        "dtype": "float32",
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }


def make_inputs(mode: str, size: Size, batch: int, device: str) -> list[torch.Tensor]:
    """Return images (batch, 3, H, W) in [0, 1] with coarse and fine structure; for FR metrics a reference as well."""
    generator = torch.Generator().manual_seed(0)
    width, height = size
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    image = F.interpolate(coarse, (height, width), mode="bicubic")
    noisy = (image + 0.05 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    inputs = [noisy, image.clamp(0, 1)] if mode == "FR" else [noisy]
    return [x.repeat(batch, 1, 1, 1).to(device) for x in inputs]


def measure_speed(
    builder: Builder,
    candidates: list[Candidate],
    protocol: Protocol,
    devices: list[str],
    path: Path,
) -> None:
    """Measure what the csv ``path`` does not hold yet, size by size; it is written after each.

    A size is measured anew for all metrics unless it is there for all of them, under the same conditions.
    """
    kept = _read(path)
    for device in devices:
        todo = [
            size
            for size in protocol.sizes
            if not _is_there(kept, candidates, size, protocol, device)
        ]
        if not todo:
            continue
        built, failed = _create_all(builder, candidates, device)
        memory = _memory_of_all(built, todo, device, protocol)
        for size in todo:
            lines = _measure_size(
                built, size, protocol, device, {name: peaks[size] for name, peaks in memory.items()}
            )
            lines += [
                _line(c, device, size, protocol, weights="", note=failed[c.name])
                for c in candidates
                if c.name in failed
            ]
            same = (kept["size"] == _text(size)) & (kept["device"] == conditions(device)["device"])
            parts = [
                part
                for part in (kept[~same], pd.DataFrame(lines, columns=list(COLUMNS)))
                if len(part)
            ]
            kept = pd.concat(parts, ignore_index=True)
            kept.to_csv(path, index=False)


def read_speed(path: Path, candidates: list[Candidate]) -> pd.DataFrame:
    """Return the lines of ``path`` that belong to the metrics, in their order; none if there is no file."""
    kept = _read(path)
    order = {candidate.name: i for i, candidate in enumerate(candidates)}
    chosen = kept[kept["metric"].isin(order)]
    return chosen.sort_values(
        "metric", key=lambda names: names.map(order), kind="stable"
    ).reset_index(drop=True)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS))


def parse_size(text: str) -> Size:
    """Read ``WIDTHxHEIGHT``.

    Raises:
        ValueError: not two positive whole numbers.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"--sizes takes WIDTHxHEIGHT, for example 1080x800, got {text!r}")
    return int(width), int(height)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _is_there(
    kept: pd.DataFrame, candidates: list[Candidate], size: Size, protocol: Protocol, device: str
) -> bool:
    now = conditions(device) | {"size": _text(size)}
    same = pd.Series(True, index=kept.index)
    for column, value in now.items():
        same &= kept[column].astype(str) == str(value)
    slow = kept["note"].astype(str).str.startswith("timed once")
    same &= (kept["rounds"] == protocol.rounds) | slow | kept["seconds"].isna()
    return {candidate.name for candidate in candidates} <= set(kept["metric"][same])


def _create_all(
    builder: Builder, candidates: list[Candidate], device: str
) -> tuple[list[Built], dict[str, str]]:
    """Create what can be; returns name -> error for the others."""
    built, failed = [], {}
    for candidate in tqdm(candidates, desc=f"building metrics on {device}", unit="metric"):
        try:
            built.append(builder.create(candidate, device))
        except Exception as error:
            failed[candidate.name] = first_line(error)
    return built, failed


def _memory_of_all(
    built: list[Built], sizes: list[Size], device: str, protocol: Protocol
) -> dict[str, dict[Size, float | str]]:
    nothing: dict[Size, float | str] = dict.fromkeys(sizes, float("nan"))
    if device != "cpu" or not protocol.memory:
        return {one.candidate.name: nothing for one in built}
    bar = tqdm(built, desc="peak memory", unit="metric")
    return {
        one.candidate.name: peak_memory(one.candidate, sorted(sizes, key=lambda s: s[0] * s[1]))
        for one in bar
    }


# -------------------------------------------------------------------------------------------------------------- timing


def _measure_size(
    built: list[Built], size: Size, protocol: Protocol, device: str, memory: dict[str, float | str]
) -> list[dict[str, Any]]:
    """Measure all metrics at one size, one image at a time and, for sizes that allow it, in batches."""
    lines, ready, slow = {}, {}, set()
    for one in built:
        candidate = one.candidate
        line = _line(
            candidate, device, size, protocol, weights="untrained" if one.untrained else "trained"
        )
        line |= {
            "parameters": sum(p.numel() for p in one.metric.net.parameters()),
            "note": one.untrained,
        }
        lines[candidate.name] = line
        if isinstance(peak := memory[candidate.name], str):
            line["note"] = peak
            continue
        line["peak_memory_gib"] = peak
        try:
            run = _runner(one, size, 1, device)
            line["macs"], seconds, on_device = _warm_up(run, device)
        except Exception as error:
            line["note"] = first_line(error)
            continue
        if device == "cuda":
            line["peak_memory_gib"] = on_device
        ready[candidate.name] = run
        if seconds > protocol.slow:
            slow.add(candidate.name)
            line |= {
                "rounds": 1,
                "note": "; ".join(filter(None, ["timed once, as slow", one.untrained])),
            }
    for name, times in time_in_turn(
        ready, protocol.rounds, slow, f"{_text(size)} on {device}"
    ).items():
        low, middle, high = _quartiles(times)
        lines[name] |= {"seconds": middle, "seconds_q1": low, "seconds_q3": high}
    if size[0] * size[1] <= BATCH_PIXELS and protocol.batch > 1:
        fast = [one for one in built if one.candidate.name in ready.keys() - slow]
        for name, times in _time_batches(fast, size, protocol, device, lines).items():
            lines[name]["images_per_second"] = protocol.batch / statistics.median(times)
    return list(lines.values())


def _time_batches(
    built: list[Built],
    size: Size,
    protocol: Protocol,
    device: str,
    lines: dict[str, dict[str, Any]],
) -> dict[str, list[float]]:
    ready = {}
    for one in built:
        try:
            run = _runner(one, size, protocol.batch, device)
            run()
            ready[one.candidate.name] = run
        except Exception as error:
            note = f"no batches: {first_line(error)}"
            lines[one.candidate.name]["note"] = "; ".join(filter(None, [one.untrained, note]))
    return time_in_turn(
        ready, protocol.rounds, set(), f"{_text(size)} on {device}, batches of {protocol.batch}"
    )


def time_in_turn(
    functions: dict[str, Callable[[], Any]], rounds: int, once: set[str], what: str = ""
) -> dict[str, list[float]]:
    """Time functions in interleaved rounds; those named in ``once`` in the first round only.

    Returns:
        Name -> seconds, one for each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    turns = [
        (name, run)
        for i in range(rounds)
        for name, run in functions.items()
        if i == 0 or name not in once
    ]
    for name, run in tqdm(turns, desc=what, unit="run"):
        start = time.perf_counter()
        run()
        seconds[name].append(time.perf_counter() - start)
    return seconds


def _runner(one: Built, size: Size, batch: int, device: str) -> Callable[[], Any]:
    inputs = make_inputs(one.candidate.mode, size, batch, device)

    def run() -> None:
        with torch.no_grad():
            one.metric(*inputs)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _warm_up(run: Callable[[], Any], device: str) -> tuple[float, float, float]:
    """Run twice, untimed by the protocol; returns multiply-adds, seconds, and GiB on a CUDA device."""
    with _counting() as counter:
        run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 1024**3 if device == "cuda" else float("nan")
    return counter.get_total_flops() / 2, seconds, peak


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


def _line(
    candidate: Candidate, device: str, size: Size, protocol: Protocol, **more: Any
) -> dict[str, Any]:
    about = {
        "metric": candidate.name,
        "size": _text(size),
        "batch": protocol.batch,
        "rounds": protocol.rounds,
    }
    return (
        dict.fromkeys(COLUMNS, float("nan"))
        | {"weights": "", "note": ""}
        | conditions(device)
        | about
        | more
    )
