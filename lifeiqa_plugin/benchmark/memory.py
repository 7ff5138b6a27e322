"""Peak memory of one metric on the CPU, in a process of its own: what a process once had never shows as free again.

``python -m lifeiqa_plugin.benchmark.memory`` reads a metric and sizes as JSON and prints a line of JSON for each size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from lifeiqa_plugin.arguments import import_modules
from lifeiqa_plugin.benchmark.metrics import Builder, LoadedMetric, MetricSpec
from lifeiqa_plugin.benchmark.protocol import Size, make_inputs

SHARE = 0.8
"""Part of the free memory that a measurement may take; beyond it allocation fails, and no process is killed."""


Peaks = dict[tuple[str, Size], float | str]
"""Peak memory by metric and size, or why there is none."""


def peaks_of_all(built: list[LoadedMetric], sizes: list[Size], modules: list[str]) -> Peaks:
    """Measure metrics one after the other, each from small to large images; see :func:`peak_memory`."""
    rising = sorted(sizes, key=lambda size: size[0] * size[1])
    return {
        (one.spec.name, size): peak
        for one in tqdm(built, desc="peak memory", unit="metric")
        for size, peak in peak_memory(one.spec, rising, modules).items()
    }


def peak_memory(
    spec: MetricSpec, sizes: list[Size], modules: list[str] | None = None
) -> dict[Size, float | str]:
    """Measure a metric on one image of each size.

    Args:
        spec: as it was built, see :class:`~lifeiqa_plugin.benchmark.metrics.LoadedMetric`.
        sizes: from small to large.
        modules: to import first.

    Returns:
        Size -> peak of the whole process in GiB, Python and torch included, or why there is none.
    """
    question = json.dumps({"spec": asdict(spec), "sizes": sizes, "modules": modules or []})
    importable = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "lifeiqa_plugin.benchmark.memory"],
        input=question,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": importable},
        check=False,
    )
    found: dict[Size, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            answer = json.loads(line)
            width, height = answer["size"]
            found[width, height] = answer["peak"]
    lines = done.stderr.strip().splitlines() or ["no message"]
    problem = f"exit status {done.returncode}: {lines[-1][:200]}"
    return {size: found.get(size, problem) for size in sizes}


def memory_left() -> int | None:
    """Return the bytes that are free for new processes; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":") for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def own_peak() -> float:
    """Return the most memory that this process had at once, in GiB; Linux's ``ru_maxrss`` would count its parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024**2
    import resource  # where there is no such module, there is no such number

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**3  # bytes on macOS


def main() -> None:
    """Answer one question from standard input."""
    import resource

    question = json.loads(sys.stdin.read())
    if left := memory_left():
        resource.setrlimit(resource.RLIMIT_DATA, (int(SHARE * left), resource.RLIM_INFINITY))
    import_modules(question["modules"])
    spec = MetricSpec(**question["spec"])
    metric = Builder().create(spec, "cpu").metric
    for size in question["sizes"]:
        metric(*make_inputs(spec.mode, tuple(size), 1, "cpu"))
        print(json.dumps({"size": size, "peak": own_peak()}), flush=True)


if __name__ == "__main__":
    main()
