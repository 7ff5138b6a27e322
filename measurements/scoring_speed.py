"""Measure how fast images are scored: each way beside ``metric(path)`` of another commit, on the same files.

    git worktree add /tmp/baseline 021d451
    python measurements/scoring_speed.py PHOTOS --baseline /tmp/baseline --cleanvision

Every way runs in a process of its own with one thread, and all take each file in turn, so that whatever else the
machine does slows all alike. What is compared is the CPU time of the process, and the wall time; a ratio is the median
over the files of a mix, and over the rounds. PHOTOS are images of any size, whose pixels are tiled to JPEGs of 1 to
12, 24 and 100 megapixels. ``--cleanvision`` fetches it into an environment of its own; it and ``lifeiqa score`` look at
a folder of 60 JPEGs in turn, whole processes from start to end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
MIX = ((1152, 864), (1632, 1224), (2304, 1728), (3264, 2448), (4000, 3000))
"""Width and height of 1 to 12 megapixels."""

LARGE = ((5664, 4248),)
HUGE = (11_552, 8_664)
"""100 megapixels."""

METRIC = """
import lifeiqa_plugin, pyiqa
assert lifeiqa_plugin.__file__.startswith({checkout!r}), lifeiqa_plugin.__file__
metric = pyiqa.create_metric("lifeiqa", device="cpu", **{options!r})
def run(path):
    return metric(path).item()
"""

SCORE = """
import lifeiqa_plugin
from lifeiqa_plugin.allocator import keep_freed_memory
from lifeiqa_plugin.runtimes import create_engine
keep_freed_memory()
engine = create_engine({engine!r}, device="cpu", fast={fast})
def run(path):
    row = next(lifeiqa_plugin.score(path, engine=engine, exact={exact}))
    assert row.error is None, row.error
    return row.score
"""

BARE = """
from lifeiqa_plugin.allocator import keep_freed_memory
from lifeiqa_plugin.images.stream import Named, Recipe
from lifeiqa_plugin.runtimes import create_engine
keep_freed_memory()
engine = create_engine({engine!r}, device="cpu", fast={fast})
batches = {{}}
def run(path):
    if path not in batches:
        batches[path] = Recipe(engine.working_shape, engine.shrink_to)(Named("", path)).image[None]
        engine.score(batches[path])
    return None, batches[path]
"""

SERVE = """
import json, sys, time
print("ready", flush=True)
for line in sys.stdin:
    path = json.loads(line)
    wall, cpu = time.perf_counter(), time.process_time()
    score = run(path)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if isinstance(score, tuple):
        wall, cpu = time.perf_counter(), time.process_time()
        score = float(engine.score(score[1]).score[0])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps([score, cpu, wall]), flush=True)
"""


class Timing(NamedTuple):
    """Of one image, scored in one way."""

    score: float
    cpu: float  # seconds
    wall: float


class Way:
    """A process that scores the images whose paths it is sent."""

    def __init__(self, code: str, checkout: Path = ROOT) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(checkout),
            "LIFEIQA_AUTOLOAD": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + SERVE],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read("ready")

    def _read(self, wanted: str) -> str:
        """Return the next line that begins so; pyiqa prints others."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(wanted):
                return line
        raise SystemExit(f"a way of scoring ended with status {self.process.wait()}")

    def __call__(self, path: Path) -> Timing:
        """Score one image."""
        assert self.process.stdin is not None
        print(json.dumps(str(path)), file=self.process.stdin, flush=True)
        return Timing(*json.loads(self._read("[")))

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


def make_ways(baseline: Path | None, engines: list[str]) -> dict[str, Way]:
    """Start a process for each way; the first is what the others are compared with."""
    metric = {"checkout": str(ROOT), "options": {}}
    ways = {}
    if baseline is not None:
        old = {"checkout": str(baseline), "options": {}}
        ways["metric(path), baseline"] = Way(METRIC.format(**old), baseline)
    ways["metric(path)"] = Way(METRIC.format(**metric))
    ways["metric(path), folded"] = Way(METRIC.format(**metric | {"options": {"fused": True}}))
    for engine in engines:
        for name, exact in (("--exact", True), ("default", False)):
            code = SCORE.format(engine=engine, fast=False, exact=exact)
            ways[f"score {name}, {engine}"] = Way(code)
        ways[f"bare network, {engine}"] = Way(BARE.format(engine=engine, fast=False))
    if "onnxruntime" in engines:
        ways["score --fast"] = Way(SCORE.format(engine="onnxruntime", fast=True, exact=False))
        ways["bare network, 8 bits"] = Way(BARE.format(engine="onnxruntime", fast=True))
    return ways


def tile(photos: list[Image.Image], size: tuple[int, int], seed: int) -> Image.Image:
    """Lay photos side by side at their own size, in an order drawn at random, until an image is full."""
    draw = np.random.default_rng(seed)
    canvas = Image.new("RGB", size)
    top = 0
    while top < size[1]:
        left, height = 0, 10**9
        while left < size[0]:
            photo = photos[draw.integers(len(photos))]
            canvas.paste(photo, (left, top))
            left, height = left + photo.width, min(height, photo.height)
        top += height
    return canvas


def make_files(photos: list[Image.Image], folder: Path) -> dict[str, list[Path]]:
    """Write the JPEGs that are scored."""
    sets: dict[str, list[Path]] = {}
    for name, sizes in {"1 to 12 megapixels": MIX, "24 megapixels": LARGE}.items():
        sets[name] = []
        for i, size in enumerate(sizes):
            path = folder / f"{size[0]}.jpg"
            tile(photos, size, i).save(path, quality=90)
            sets[name].append(path)
    return sets


def measure(
    ways: dict[str, Way], files: list[Path], rounds: int
) -> dict[str, list[tuple[float, float, float]]]:
    """Return for each way (ratio of CPU time, ratio of wall time, difference of the score), all to the first way.

    Ratios are those of the sums over the files, one for each round.
    """
    first = next(iter(ways))
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        timings = {name: [] for name in ways}
        for path in files:
            for name, way in ways.items():
                timings[name].append(way(path))
        if number == 0:
            continue  # warms up
        for name, found in timings.items():
            base = timings[first]
            cpu = sum(t.cpu for t in base) / sum(t.cpu for t in found)
            wall = sum(t.wall for t in base) / sum(t.wall for t in found)
            results[name].append((cpu, wall, statistics.mean(t.cpu for t in found)))
    return results


def print_ratios(title: str, results: dict[str, list[tuple[float, float, float]]]) -> None:
    """Print a table of medians over the rounds."""
    print(f"\n{title}\n")
    print("| way | CPU seconds an image | times as fast, CPU | (least to most) | wall |")
    print("|---|---|---|---|---|")
    for name, rows in results.items():
        cpu, wall, seconds = (list(column) for column in zip(*rows, strict=True))
        span = f"{min(cpu):.2f} - {max(cpu):.2f}"
        median = statistics.median
        print(
            f"| {name} | {median(seconds):.3f} | {median(cpu):.2f} | {span} | {median(wall):.2f} |"
        )


START = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "pyiqa", "pandas", "timm"):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Absent())
from lifeiqa_plugin.cli import main
status = main()
for line in open("/proc/self/status"):  # what wait4 says begins with the parent's peak
    if line.startswith("VmHWM"):
        print("peak", line.split()[1])
sys.exit(status)
"""


def run(python: str | Path, *arguments: str | Path) -> tuple[float, float, str]:
    """Run a process with one thread; return wall and CPU seconds, and the last line that it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [python, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as printed:
        lines = printed.read().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{python} {arguments[-1]}: exit status {process.returncode}")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime, lines[-1]


def start(path: Path, *options: str) -> tuple[float, float, float]:
    """Run ``lifeiqa score PATH`` without torch; return wall and CPU seconds and the peak of memory in GiB."""
    wall, cpu, line = run(sys.executable, "-c", START, "score", path, *options)
    return wall, cpu, int(line.split()[1]) / 2**20


def print_starts(photos: list[Image.Image], folder: Path, rounds: int) -> None:
    """Print the time to the first score, and the memory that large images take."""
    small, huge = folder / "small.jpg", folder / "huge.jpg"
    tile(photos, (640, 480), 0).save(small, quality=90)
    tile(photos, HUGE, 0).save(huge, quality=90)
    print("\n`lifeiqa score` without torch, process from start to end\n")
    print("| what | wall s, least (median) | CPU s, median | peak memory, GiB |")
    print("|---|---|---|---|")
    for name, path, options in (
        ("640 x 480", small, []),
        ("640 x 480, --fast", small, ["--fast"]),
        ("100 megapixels", huge, []),
        ("100 megapixels, --exact", huge, ["--exact"]),
    ):
        runs = [start(path, *options) for _ in range(rounds if path == small else 1)]
        wall, cpu, memory = (list(column) for column in zip(*runs, strict=True))
        times = f"{min(wall):.2f} ({statistics.median(wall):.2f})"
        print(f"| {name} | {times} | {statistics.median(cpu):.2f} | {max(memory):.2f} |")


CLEANVISION = """
import sys
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1])
lab.find_issues(n_jobs=1)
"""


def print_cleanvision(photos: list[Image.Image], folder: Path, rounds: int) -> None:
    """Print CPU time beside that of cleanvision, which looks for blur, darkness, duplicates and the like."""
    environment, many = folder / "cleanvision", folder / "many"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "cleanvision"], check=True)
    many.mkdir()
    for i in range(60):
        tile(photos, MIX[i % len(MIX)], i).save(many / f"{i}.jpg", quality=90)
    ways: dict[str, tuple[str | Path, ...]] = {"cleanvision": (python, "-c", CLEANVISION, many)}
    for options in ("--exact", "", "--fast"):
        command = (sys.executable, "-c", START, "score", many, "--workers", "0", *options.split())
        ways[f"lifeiqa score {options}".strip()] = command
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, command in ways.items():
            spent[name].append(run(*command)[1])
    print("\n60 JPEGs of 1 to 12 megapixels, whole processes\n")
    print("| what | CPU seconds an image | times as fast as cleanvision |")
    print("|---|---|---|")
    for name, seconds in spent.items():
        ratios = [a / b for a, b in zip(spent["cleanvision"], seconds, strict=True)]
        median = statistics.median
        print(f"| {name} | {median(seconds) / 60:.3f} | {median(ratios):.1f} |")


def load_photos(folder: Path, count: int = 24) -> list[Image.Image]:
    """Read photos of a folder, evenly chosen."""
    from lifeiqa_plugin.images.folders import find_images

    found = find_images(folder)
    chosen = found[:: max(1, len(found) // count)][:count]
    return [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in chosen]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of images, whose pixels are tiled")
    parser.add_argument("--baseline", type=Path, help="checkout whose metric(path) is 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--cleanvision", action="store_true", help="compare with it, from PyPI")
    args = parser.parse_args()
    photos = load_photos(args.photos)
    print(f"{conditions()}; {args.rounds} rounds in turn, one thread each")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = make_files(photos, folder)
        baseline = None if args.baseline is None else args.baseline.resolve()
        ways = make_ways(baseline, args.engines)
        for title, files in sets.items():
            print_ratios(title, measure(ways, files, args.rounds))
        for way in ways.values():
            way.end()
        print_starts(photos, folder, args.rounds)
        if args.cleanvision:
            print_cleanvision(photos, folder, args.rounds)


def conditions() -> str:
    """Return on what the numbers are measured."""
    from lifeiqa_plugin.benchmark.protocol import cpu_name

    flags = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    vnni = "with VNNI" if "vnni" in flags else "without VNNI"
    return f"CPU: {cpu_name()}, {vnni}, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}"


if __name__ == "__main__":
    main()
