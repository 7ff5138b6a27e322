"""Measure how ``lifeiqa score`` scales over processes: the same images by one, and by two that take a shard each.

    python measurements/scaling.py FOLDER --rounds 5

Each process decodes and scores by itself (``--workers 0``, one thread). Rounds are in turn, so that whatever else the
machine does slows both alike; the time to start, measured with a single image, is taken off. Beside them: the bare
network with one thread, on images that are ready, and a process that scores while another one decodes for it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from measuring import conditions, markdown_table

from lifeiqa_plugin.images.reading import find_images

SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


BARE = """
import sys, time
from pathlib import Path
from lifeiqa_plugin.allocator import keep_freed_memory
from lifeiqa_plugin.images.stream import Named, Recipe
from lifeiqa_plugin.runtimes import create_engine
keep_freed_memory()
engine = create_engine(device="cpu")
recipe = Recipe(engine.working_shape, engine.shrink_to)
batches = [recipe(Named("", path)).image[None] for path in Path(sys.argv[1]).read_text().split("\\n")]
engine.score(batches[0])
wall, cpu = time.perf_counter(), time.process_time()
for batch in batches:
    engine.score(batch)
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
"""Scores what a list names, all decoded beforehand, and prints seconds."""


class Cost(NamedTuple):
    """Seconds of the wall clock and of all cores."""

    wall: float
    cpu: float


def score(images: list[str], processes: int, folder: Path, workers: int = 0) -> Cost:
    """Score images with so many processes at once, each with so many that decode for it."""
    names = folder / "list.txt"
    names.write_text("\n".join(images), encoding="utf-8")
    command = [sys.executable, "-m", "lifeiqa_plugin", "score", str(names), "--device", "cpu"]
    command += ["--workers", str(workers), "--overwrite"]
    before, begin = cpu_seconds(), time.perf_counter()
    running = []
    for i in range(processes):
        own = ["--shard", f"{i}/{processes}", "-o", str(folder / f"{i}.csv")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen([*command, *own], env=environment, **SILENT))
    if any([process.wait() for process in running]):  # a list, so that all are waited for
        raise SystemExit("lifeiqa score failed")
    return Cost(time.perf_counter() - begin, cpu_seconds() - before)


def score_bare(images: list[str], folder: Path) -> Cost:
    """Score images that are decoded and resized already, with one thread."""
    names = folder / "list.txt"
    names.write_text("\n".join(images), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BARE, str(names)]
    printed = subprocess.check_output(command, env=environment, text=True)
    return Cost(*map(float, printed.split()))


def cpu_seconds() -> float:
    """Return what all processes that have ended have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="images; a hundred or more, the more the better")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="(default 1 2)")
    args = parser.parse_args()
    images = find_images(args.folder)
    ways: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        score(images[:1], 1, folder)  # reads the files of the package once
        for _ in range(args.rounds):
            start = score(images[:1], 1, folder)
            for count in args.processes:
                cost = score(images, count, folder)
                net = Cost(cost.wall - start.wall, cost.cpu - count * start.cpu)
                ways.setdefault(f"{count} processes", []).append(net)
            ways.setdefault("bare network", []).append(score_bare(images, folder))
            start = score(images[:1], 1, folder, workers=1)
            cost = score(images, 1, folder, workers=1)
            net = Cost(cost.wall - start.wall, cost.cpu - start.cpu)
            ways.setdefault("1 process and 1 that decodes", []).append(net)
    print(f"{conditions()}; {len(images)} images, {args.rounds} rounds in turn")
    first = next(iter(ways.values()))
    rows = []
    for name, measured in ways.items():
        wall = statistics.median(cost.wall for cost in measured)
        cpu = statistics.median(cost.cpu for cost in measured)
        ratio = statistics.median(
            one.wall / many.wall for one, many in zip(first, measured, strict=True)
        )
        per_cpu = f"{len(images) / cpu:.1f}"
        rows.append([name, f"{len(images) / wall:.1f}", f"{ratio:.2f}", per_cpu])
    header = ["way", "images/s", "times the first", "images per CPU second"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
