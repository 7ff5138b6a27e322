"""Many images made ready to be scored, in order.

In processes of their own, a file may crash its decoder, take all memory of its process, or hang: it costs that file.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from lifeiqa_plugin.images.reading import decode
from lifeiqa_plugin.images.stream import Named, Prepared, Recipe

AHEAD = 4
"""Images for each process that may wait for one before them; each takes about 2 MB."""

DIED = "the process that decoded it died"

START_LIMIT = 300
"""Seconds that a process may take to begin."""

BEGUN = Prepared("")
"""What a process answers when it has started."""

Task = tuple[int, Named]
"""An image by its number."""


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
    pool = _Pool(recipe, workers, time_limit)
    died: dict[int, Named] = {}  # which may have been for lack of memory that others had
    again: set[int] = set()
    done: dict[int, Prepared] = {}
    given, taken = 0, 0
    try:
        while True:
            while not died and pool.has_idle() and given - taken < AHEAD * workers:
                number, named = next(waiting, (-1, None))
                if named is None:
                    break
                pool.give(number, named)
                given = number + 1
            if died and not pool.is_busy():  # one more time, alone
                number, named = died.popitem()
                pool.give(number, named)
                again.add(number)
            if taken in done:
                yield done.pop(taken)
                taken += 1
            elif taken == given:
                return
            else:
                for number, named, prepared in pool.collect():
                    if (prepared.error or "").startswith(DIED) and number not in again:
                        died[number] = named
                    else:
                        done[number] = prepared
    finally:
        pool.end()


class Decoders:
    """Processes that prepare images for any number of threads, each of which waits for its own.

    Args:
        recipe, workers, time_limit: as for :func:`prepare_images`.
    """

    def __init__(self, recipe: Recipe, workers: int, time_limit: float) -> None:
        self._idle: queue.SimpleQueue[_Pool] = queue.SimpleQueue()
        self._new = functools.partial(_Pool, recipe, 1, time_limit)
        for _ in range(workers):
            self._idle.put(self._new())

    def __call__(self, named: Named) -> Prepared:
        """Prepare an image; one that kills its process or takes too long has an error.

        Raises:
            ChildProcessError: a process cannot start.
        """
        pool = self._idle.get()
        try:
            pool.give(0, named)
            while not (done := pool.collect()):
                pass
            return done[0][2]
        except BaseException:
            pool.end()
            pool = self._new()
            raise
        finally:
            self._idle.put(pool)


class _Pool:
    """Processes that prepare one image each, and are replaced if one costs their life."""

    def __init__(self, recipe: Recipe, workers: int, time_limit: float) -> None:
        self.recipe, self.time_limit = recipe, time_limit
        self.answers: queue.SimpleQueue[tuple[_Worker, Prepared | None]] = queue.SimpleQueue()
        self.workers = [_Worker(recipe, self.answers) for _ in range(workers)]

    def has_idle(self) -> bool:
        return any(worker.task is None for worker in self.workers)

    def is_busy(self) -> bool:
        return any(worker.task is not None for worker in self.workers)

    def give(self, number: int, named: Named) -> None:
        worker = next(worker for worker in self.workers if worker.task is None)
        worker.give((number, named._replace(source=_portable(named.source))))

    def collect(self) -> list[tuple[int, Named, Prepared]]:
        """Wait until an image is ready, a process has died, or one has taken too long."""
        busy = [worker for worker in self.workers if worker.task is not None]
        left = min(worker.seconds_left(self.time_limit) for worker in busy)
        try:
            worker, prepared = self.answers.get(timeout=max(0.0, left))
        except queue.Empty:
            late = [worker for worker in busy if worker.seconds_left(self.time_limit) <= 0]
            reason = f"took longer than {self.time_limit:g} s"
            return [failed for worker in late for failed in self._give_up(worker, reason)]
        if worker not in self.workers or prepared is BEGUN:  # it was given up before, or waits
            return []
        if prepared is None:
            return self._give_up(worker, f"{DIED} ({worker.how_it_ended()})")
        task, worker.task = worker.task, None
        return [] if task is None else [(*task, prepared)]

    def _give_up(self, worker: _Worker, reason: str) -> list[tuple[int, Named, Prepared]]:
        """Fail the image at hand, if there is one, and go on with a new process."""
        worker.end()
        self.workers[self.workers.index(worker)] = _Worker(self.recipe, self.answers)
        if worker.task is None:
            return []
        number, named = worker.task
        return [(number, named, Prepared(named.name, error=reason))]

    def end(self) -> None:
        for worker in self.workers:
            worker.end()


class _Worker:
    """A process, and a thread that talks to it, since either end of a pipe may block for ever."""

    def __init__(
        self, recipe: Recipe, answers: queue.SimpleQueue[tuple[_Worker, Prepared | None]]
    ) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(child, recipe), daemon=True)
        with _one_thread():
            self.process.start()
        child.close()
        self.answers = answers
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.task: Task | None = None
        self.has_started = False
        self.since = time.monotonic()
        threading.Thread(target=self._talk, daemon=True).start()

    def give(self, task: Task) -> None:
        self.task, self.since = task, time.monotonic()
        self.tasks.put(task)

    def seconds_left(self, time_limit: float) -> float:
        """Return how long the image may still take; starting the process does not count."""
        return self.since + (time_limit if self.has_started else START_LIMIT) - time.monotonic()

    def how_it_ended(self) -> str:
        """Return how the process ended.

        Raises:
            ChildProcessError: before it had begun.
        """
        self.process.join(5)
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        if not self.has_started:
            raise ChildProcessError(
                f"a process that decodes ended as it began ({how}); in a script, put what starts it "
                "below if __name__ == '__main__', or use workers=0"
            )
        return how

    def end(self) -> None:
        """End the process; one that hangs in the system cannot be ended, and nobody waits for it."""
        self.tasks.put(None)
        self.process.kill()
        self.process.join(1)
        if self.process.is_alive():
            multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]

    def _talk(self) -> None:
        """Give images to the process, and its answers to all who wait; None when it has died."""
        with self.connection:
            try:
                self.connection.recv()
                self.since = time.monotonic()
                self.has_started = True
                self.answers.put((self, BEGUN))
                while (task := self.tasks.get()) is not None:
                    self.answers.put((self, self._ask(task[1])))
            except (EOFError, OSError):
                self.answers.put((self, None))

    def _ask(self, named: Named) -> Prepared:
        try:
            message = ForkingPickler.dumps(named)
        except Exception as error:  # what the caller's own objects raise
            return Prepared(named.name, error=f"cannot be sent to a process ({error})")
        self.connection.send_bytes(message)
        answer: Prepared = self.connection.recv()
        return answer


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
