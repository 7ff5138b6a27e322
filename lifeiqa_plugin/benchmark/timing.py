"""One way to time: in interleaved rounds, so that whatever else the machine does slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tqdm import tqdm


def time_in_turn(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    repeats: int = 1,
    once: Collection[str] = (),
    warm_up: bool = True,
    what: str | None = None,
) -> dict[str, list[float]]:
    """Time functions in interleaved rounds.

    Args:
        functions: name -> function without arguments.
        rounds: how often each is timed.
        repeats: calls per timing, for functions too short for the clock.
        once: names that are timed in the first round only.
        warm_up: call each once beforehand, untimed.
        what: of the progress bar; none without.

    Returns:
        Name -> seconds per call, one for each round.
    """
    if warm_up:
        for function in functions.values():
            function()
    turns = []
    for i in range(rounds):
        turns += [name for name in functions if i == 0 or name not in once]
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for name in tqdm(turns, desc=what, unit="run", disable=what is None):
        function = functions[name]
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds
