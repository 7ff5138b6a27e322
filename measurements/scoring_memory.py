"""Measure that the memory of ``lifeiqa score`` does not grow with the number of images.

    python measurements/scoring_memory.py --images 100000 --workers 1

Makes so many links to a few small images, scores them with a small network of random weights by ONNX Runtime, as
``lifeiqa score`` does with any, and reads every second what its processes hold (resident, from /proc: Linux only).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring import conditions, markdown_table
from PIL import Image

from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.export.write import export_checkpoint
from lifeiqa_plugin.network.lifeiqa import LifeIQA

PARTS = 10
"""Of a run, for each of which the table has a line."""

KINDS = 16


def make_images(folder: Path, count: int) -> None:
    """Make JPEGs of several sizes, and links to them, a thousand a folder."""
    rng = np.random.default_rng(0)
    for i in range(KINDS):
        side = 40 + 3 * i
        pixels = rng.integers(0, 256, (side, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    for i in range(count):
        below = folder / "images" / f"{i // 1000:05d}"
        below.mkdir(parents=True, exist_ok=True)
        os.link(folder / f"{i % KINDS}.jpg", below / f"{i:07d}.jpg")


def make_network(folder: Path) -> Path:
    """Export a network of a few thousand weights."""
    torch.manual_seed(0)
    network = LifeIQA(
        "test_convnext", embed_dim=16, num_heads=2, depth=1, crop_size=32, working_size=32
    )
    checkpoint, exported = folder / "tiny.safetensors", folder / "tiny.onnx"
    save_checkpoint(network, checkpoint, ModelCard(training_data="nothing", license="none"))
    export_checkpoint(exported, "onnx", checkpoint)
    return exported


class Sample(NamedTuple):
    """What was held at a time: rows done, MiB of the process that scores, MiB of those that decode."""

    rows: int
    parent: float
    workers: float


def watch(process: subprocess.Popen, journal: Path, interval: float) -> list[Sample]:
    """Sample until a process ends."""
    samples = []
    rows, place = -1, 0  # the journal's first line is no row
    while process.poll() is None:
        time.sleep(interval)
        if journal.is_file():
            with open(journal, "rb") as file:
                file.seek(place)
                new = file.read()
            rows, place = rows + new.count(b"\n"), place + len(new)
        workers = sum(map(resident, children(process.pid)))
        samples.append(Sample(max(rows, 0), resident(process.pid), workers))
    return samples


def resident(pid: int) -> float:
    """Return the MiB that a process holds; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def summarise(samples: list[Sample], images: int) -> str:
    """Return a Markdown table of the most that was held in each part of the run."""
    rows = []
    for part in range(PARTS):
        low, high = part * images // PARTS, (part + 1) * images // PARTS
        inside = [sample for sample in samples if low <= sample.rows <= high]
        if inside:
            parent = max(sample.parent for sample in inside)
            workers = max(sample.workers for sample in inside)
            rows.append([f"{low:,} to {high:,}", f"{parent:.1f}", f"{workers:.1f}"])
    return markdown_table(["images", "MiB, scores", "MiB, decode"], rows)


def main() -> None:
    """Parse the command line, make images, score, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100_000, help="(default 100000)")
    parser.add_argument("--workers", type=int, default=1, help="of lifeiqa score (default 1)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between samples")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, args.images)
        exported = make_network(folder)
        command = [sys.executable, "-m", "lifeiqa_plugin", "score", str(folder / "images")]
        command += ["--model", str(exported), "--workers", str(args.workers)]
        command += ["--device", "cpu", "-o", str(folder / "scores.parquet")]
        begin = time.perf_counter()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, **pipes) as process:
            samples = watch(process, folder / "scores.parquet.partial", args.interval)
            printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"lifeiqa score ended with {process.returncode}: {printed}")
    seconds = time.perf_counter() - begin
    print(f"{conditions()}; {args.images:,} images, {args.workers} workers, {seconds:.0f} s")
    print(printed.splitlines()[0])
    print(summarise(samples, args.images))


if __name__ == "__main__":
    main()
