"""Many images to the size at which they are scored, in order; one that cannot be read is an item like any other.

In processes of their own, a file may crash its decoder, take all memory of its process, or hang: it costs that file.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.images.pairs import note_pair
from lifeiqa_plugin.images.reading import MAX_PIXELS, ImageError, Source, decode, decode_resized

MIN_SIDE = 64
"""Pixels of the shorter side of an image below which nothing can be said of its quality."""

TOO_SMALL = "too small to judge"

AHEAD = 4
"""Images for each process that may wait for one before them; each takes about 2 MB."""

START_LIMIT = 300
"""Seconds that a process may take to begin."""


class Named(NamedTuple):
    """An image and what it is called; an error in place of an image that is known not to be readable."""

    name: str
    source: Source | ImageError


class Prepared(NamedTuple):
    """An image at its working size, or the reason why there is none; width, height and notes are the file's."""

    name: str
    width: int
    height: int
    image: NDArray[np.float32] | None  # (3, h, w) in [0, 1]
    error: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How an image is made ready.

    Attributes:
        working_shape: (height, width) of an image -> the shape at which it is scored.
        shrink_to: times the working size that a JPEG keeps at least where its decoder may shrink it; None for all.
        max_pixels: images with more are refused.
    """

    working_shape: Callable[[int, int], tuple[int, int]]
    shrink_to: float | None = None
    max_pixels: int = MAX_PIXELS

    def __call__(self, named: Named) -> Prepared:
        """Decode and resize; never raises for a bad image."""
        name, source = named
        try:
            if isinstance(source, ImageError):
                raise source
            ready = decode_resized(
                source,
                self.working_shape,
                at_least=self.at_least,
                max_pixels=self.max_pixels,
            )
        except ImageError as error:
            return Prepared(name, 0, 0, None, error.reason or str(error))
        except MemoryError:
            return Prepared(name, 0, 0, None, "not enough memory to decode it")
        except TypeError as error:
            return Prepared(name, 0, 0, None, str(error))
        notes = ready.notes + note_pair(source)
        if min(ready.width, ready.height) < MIN_SIDE:
            notes += (TOO_SMALL,)
        return Prepared(name, ready.width, ready.height, ready.pixels, None, notes)

    @property
    def at_least(self) -> int | None:
        """Pixels of the shorter side that a JPEG decoder leaves; None for all."""
        if self.shrink_to is None:
            return None
        return round(self.shrink_to * min(self.working_shape(100_000, 100_000)))


def prepare_images(
    images: Iterable[Named], recipe: Recipe, workers: int = 0, time_limit: float = 60
) -> Iterator[Prepared]:
    """Prepare images, in order.

    Args:
        images: taken as they are needed, about ``AHEAD`` times ``workers`` before they are given out.
        recipe: what is done with each.
        workers: processes that do it; 0 for this one, which no time limit holds for.
        time_limit: seconds after which the process of an image is ended.

    Raises:
        RuntimeError: a process cannot start.
    """
    if workers == 0:
        return map(recipe, images)
    return _prepare_in_processes(images, recipe, workers, time_limit)


def _prepare_in_processes(
    images: Iterable[Named], recipe: Recipe, workers: int, time_limit: float
) -> Iterator[Prepared]:
    waiting = enumerate(images)
    pool = [_Worker(recipe, time_limit) for _ in range(workers)]
    done: dict[int, Prepared] = {}
    given, taken = 0, 0
    try:
        while True:
            for worker in pool:
                if worker.is_idle and given - taken < AHEAD * workers:
                    for number, named in waiting:
                        worker.give(number, named)
                        given = number + 1
                        break
            if taken in done:
                yield done.pop(taken)
                taken += 1
            elif taken == given:
                return
            else:
                done |= _collect(pool)
    finally:
        for worker in pool:
            worker.end()


def _collect(pool: list[_Worker]) -> dict[int, Prepared]:
    """Wait until an image is ready, a process has died, or one has taken too long."""
    busy = [worker for worker in pool if not worker.is_idle]
    left = min(worker.seconds_left() for worker in busy)
    ready = wait([worker.connection for worker in busy], timeout=max(0.0, left))
    finished: dict[int, Prepared] = {}
    for worker in busy:
        if worker.connection in ready:
            finished |= worker.receive()
        elif worker.seconds_left() <= 0:
            finished |= worker.give_up(f"took longer than {worker.time_limit:g} s")
    return finished


class _Worker:
    """A process that prepares one image at a time, and is replaced if one costs its life."""

    def __init__(self, recipe: Recipe, time_limit: float) -> None:
        self.recipe, self.time_limit = recipe, time_limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(child, self.recipe), daemon=True)
        with _one_thread():
            self.process.start()
        child.close()
        self.has_started = False
        self.number: int | None = None
        self.name = ""
        self.since = time.monotonic()

    @property
    def is_idle(self) -> bool:
        return self.number is None

    def seconds_left(self) -> float:
        """Return how long the image may still take; starting the process does not count."""
        limit = self.time_limit if self.has_started else START_LIMIT
        return self.since + limit - time.monotonic()

    def give(self, number: int, named: Named) -> None:
        self.number, self.name, self.since = number, named.name, time.monotonic()
        with contextlib.suppress(OSError):  # the process has died, which receive() will notice
            self.connection.send(Named(named.name, _portable(named.source)))

    def receive(self) -> dict[int, Prepared]:
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self._replace_dead()
        if message is None:
            self.has_started, self.since = True, time.monotonic()
            return {}
        number, self.number = self.number, None
        return {} if number is None else {number: message}

    def _replace_dead(self) -> dict[int, Prepared]:
        self.process.join(5)
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        if not self.has_started:
            raise ChildProcessError(
                f"a process that decodes ended as it began ({how}); in a script, put what starts it "
                "below if __name__ == '__main__', or use workers=0"
            )
        return self.give_up(f"the process that decoded it died ({how})")

    def give_up(self, reason: str) -> dict[int, Prepared]:
        """Fail the image at hand and go on with a new process."""
        number, name = self.number, self.name
        self.end()
        self._start()
        return {} if number is None else {number: Prepared(name, 0, 0, None, reason)}

    def end(self) -> None:
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join(1)  # one that hangs in the system cannot be ended, and is left alone


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let a process that starts inside multiply matrices with one thread: there is one for each core already."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _portable(source: Any) -> Any:
    """Return what can be sent to another process: an open file is read, a tensor becomes an array."""
    if hasattr(source, "read"):
        return source.read()
    if hasattr(source, "cpu"):
        return decode(source).pixels
    return source


def _serve(connection: Connection, recipe: Recipe) -> None:
    """Prepare what arrives, until nobody is at the other end."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which ends this process
    try:
        connection.send(None)
        while True:
            connection.send(recipe(connection.recv()))
    except (EOFError, OSError):
        return
