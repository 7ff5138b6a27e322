"""What the benchmark scripts beside this file share: tables and the metric under test."""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyiqa
import torch
from tabulate import tabulate

from lifeiqa_plugin import register
from lifeiqa_plugin.benchmark.protocol import cpu_name
from lifeiqa_plugin.checkpoints.models import resolve

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # for imagenet_start

register()  # for a checkout that is not installed


def conditions() -> str:
    """Return one line that says on what the numbers were measured."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"CPU: {cpu_name()}, {torch.get_num_threads()} threads; {versions}"


def load_pyplot() -> Any:
    """Import matplotlib's pyplot, drawing to files only; few calls of the scripts draw, so they do not wait for it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def median_and_quartiles(values: Sequence[float], digits: int = 3) -> str:
    """Return ``median (lower quartile - upper quartile)``; a single value stands alone."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median over rounds of the ratio of two timings."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`create_lifeiqa` reads."""
    parser.add_argument(
        "--checkpoint", type=Path, help="weights to measure (default: the ones that ship)"
    )
    parser.add_argument(
        "--untrained", action="store_true", help="random weights of the shipped architecture"
    )


def create_lifeiqa(args: argparse.Namespace) -> pyiqa.InferenceModel:
    """Create the metric as users get it, on the CPU.

    Raises:
        SystemExit: the weights that ship are not there.
    """
    if args.untrained:
        from imagenet_start import BACKBONE, DECODER

        return pyiqa.create_metric(
            "lifeiqa", device="cpu", pretrained=False, backbone=BACKBONE, **DECODER
        )
    if args.checkpoint is not None:
        return pyiqa.create_metric("lifeiqa", device="cpu", pretrained_model_path=args.checkpoint)
    bundled = resolve().path
    if not bundled.is_file():
        raise SystemExit(
            f"{bundled}: missing; give --checkpoint FILE, or --untrained where only time matters"
        )
    return pyiqa.create_metric("lifeiqa", device="cpu")
