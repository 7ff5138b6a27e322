"""One result of ``lifeiqa score``: what has no row yet is scored, and the rows are put in place."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.scoring.done import Done
from lifeiqa_plugin.scoring.inputs import Inputs
from lifeiqa_plugin.scoring.output import Output
from lifeiqa_plugin.scoring.placing import place
from lifeiqa_plugin.scoring.rows import Row, ScoredImage, distortion_names, read_rows
from lifeiqa_plugin.scoring.score import Scorer
from lifeiqa_plugin.scoring.summary import Summary
from lifeiqa_plugin.scoring.workers import count_workers

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_EVERY = 60.0
"""Seconds between the lines of progress where nobody watches."""


class Task(NamedTuple):
    """Inputs whose rows go into one result."""

    inputs: Inputs
    output: Output


def find_done(task: Task, args: argparse.Namespace) -> Row | None:
    """Return the manifest of a result for which nothing has to be scored; None if something has.

    Raises:
        UsageError: a result that cannot be gone on with; one whose inputs have changed, without ``--append``.
    """
    about = None if args.overwrite else task.output.find_finished(args.append)
    if about is None or args.append:
        return None
    if about["digest"] != task.inputs.look():
        raise UsageError(
            f"{task.output.path} is finished, with {about['rows']} rows, and its inputs have changed since; "
            "--append scores what is new, --overwrite begins again"
        )
    return None if args.retry_failed and about["failed"] else about


def report_done(output: Output, about: Row, args: argparse.Namespace) -> int:
    """Say what a finished result holds; apply other thresholds and place images where that is asked for.

    Returns:
        How many images have no score.
    """
    judged = about["thresholds"] != output.thresholds._asdict()
    if judged:
        with output.open(distortion_names(about["columns"])):
            output.finish(_summarize(output).as_dict() | {k: about[k] for k in ("model", "digest")})
    for row in read_rows(output.path) if args.place_in else ():
        _place(args, row, row["path"])
    _write_stars(output, args)
    print(
        f"{output.path}: finished before, {about['rows']} images, {about['failed']} failed"
        f"{'; verdicts by the new thresholds' * judged}; --overwrite scores them again"
    )
    return int(about["failed"])


def run_task(task: Task, args: argparse.Namespace, scorer: Scorer) -> int:
    """Score what has no row yet, and put the result in place.

    Returns:
        How many images have no score.

    Raises:
        OSError: the rows cannot be written; those that are there are kept.
    """
    inputs, output = task
    with output.open(scorer.engine.names, args.overwrite), _say_what_is_kept(output, args):
        if args.retry_failed:
            output.drop(lambda row: row.get("error"))
        summary = _add_rows(task, args, scorer)
        summary.skipped = inputs.skipped()
        output.finish(summary.as_dict() | {"model": args.model, "digest": inputs.seen})
    _write_stars(output, args)
    if output.of_archive:
        print(f"{output.path}: {summary.describe_counts()}", flush=True)
    else:
        print(f"{summary.describe()}\nwritten: {output.path}")
    return summary.failed


@contextmanager
def _say_what_is_kept(output: Output, args: argparse.Namespace) -> Iterator[None]:
    """Say where the rows are if a run stops."""
    without = ", without --overwrite," if args.overwrite else ""
    where = f"rows are kept in {output.journal}; the same command{without} goes on"
    try:
        yield
    except KeyboardInterrupt:
        print(f"{output.rows} {where} from there", file=sys.stderr)
        raise
    except OSError as error:
        raise OSError(f"{error}. {output.rows} {where}") from error


def _add_rows(task: Task, args: argparse.Namespace, scorer: Scorer) -> Summary:
    """Score what has no row yet, and return what all rows say."""
    (inputs, output), done = task, Done()
    summary = _summarize(output, done)
    if output.rows:
        print(f"{output.path}: {output.rows} images are scored already; going on", file=sys.stderr)
    total = inputs.count()
    waiting: deque[Named] = deque()
    images = _remaining(inputs, args, done, waiting)
    with _progress(total, output.rows) as progress:
        for scored in score_images(args, scorer, images, total):
            image = waiting.popleft()
            row = scored.to_dict(output.thresholds)
            row |= {"size": image.size, "mtime": image.mtime, "key": image.key}
            _place(args, row, image.source)
            output.add(row)
            summary.add(row)
            progress.set_postfix(failed=summary.failed, refresh=False)
            progress.update()
    if done:
        output.drop(done.is_outdated)
        summary = _summarize(output)
    return summary


def _progress(total: int | None, done: int) -> tqdm[Any]:
    """Return a bar, or a line a minute where nobody watches."""
    from tqdm import tqdm  # not for those who wait for one score

    every = 0.1 if sys.stderr.isatty() else LOG_EVERY
    longest = max(10.0, every)
    return tqdm(
        total=total,
        initial=done,
        unit="image",
        smoothing=0.05,
        mininterval=every,
        maxinterval=longest,
    )


def score_images(
    args: argparse.Namespace, scorer: Scorer, images: Iterator[Named], total: int | None
) -> Iterator[ScoredImage]:
    """Score images, of which there are ``total`` if that is known, as the command says."""
    workers = count_workers(args.workers, total)
    return scorer.many(images, batch_size=args.batch_size, workers=workers)


def _summarize(output: Output, done: Done | None = None) -> Summary:
    """Read all rows that are there."""
    summary = Summary()
    for row in output:
        summary.add(output.thresholds.judge(row))
        if done is not None:
            done.add(row)
    return summary


def _remaining(
    inputs: Inputs, args: argparse.Namespace, done: Done, waiting: deque[Named]
) -> Iterator[Named]:
    """Yield the images that have no row; ``waiting`` gets them too, until their rows are written."""
    for image in inputs.images():
        if done.take(image):
            continue
        if args.place_in and isinstance(image.source, bytes):
            raise UsageError(f"{image.name}: --copy-to and --link-to take files, not archives")
        waiting.append(image)
        yield image


def _write_stars(output: Output, args: argparse.Namespace) -> None:
    if args.xmp:
        from lifeiqa_plugin.scoring.stars import write_stars

        print(write_stars(read_rows(output.path)))


def _place(args: argparse.Namespace, row: Row, source: Any) -> None:
    """Copy or link a file by its verdict; a file of which that cannot be is said, and the run goes on."""
    if not (args.place_in and row.get("verdict")):
        return
    try:
        place(source, args.place_in, row["verdict"], link=args.link_to is not None)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ENOENT):
            raise
        what = "linked" if args.link_to else "copied"
        print(f"{row['path']}: not {what} ({os.strerror(error.errno)})", file=sys.stderr)
