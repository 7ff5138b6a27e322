"""``--workers``: how many processes decode, by one default for ``score``, ``report`` and ``evaluate``."""

from __future__ import annotations

import argparse

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.runtimes import count_cores

FEW = 8
"""Images below which no processes are started to decode them."""


def add_workers(parser: argparse._ActionsContainer) -> None:
    """Declare ``--workers``, which :func:`count_workers` reads."""
    parser.add_argument(
        "--workers",
        type=int,
        help=f"processes that decode (default: one for each core, none below {FEW} images)",
    )


def check_workers(workers: int | None) -> None:
    """See that ``--workers`` can be.

    Raises:
        UsageError: it is below 0.
    """
    if workers is not None and workers < 0:
        raise UsageError(f"--workers must be 0 or more, got {workers}")


def count_workers(workers: int | None, total: int | None) -> int:
    """Return ``--workers``, or how many decode ``total`` images; None for a number that is not known."""
    if workers is not None:
        return workers
    return 0 if total is not None and total < FEW else count_cores()
