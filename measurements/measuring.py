"""What the scripts beside this file share."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from lifeiqa_plugin.benchmark.protocol import cpu_name

ROOT = Path(__file__).parents[1]


def conditions() -> str:
    """Return one line that says on what the numbers were measured."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"CPU: {cpu_name()}, {torch.get_num_threads()} threads; {versions}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)
