"""One result of ``lifeiqa score``: what has no row yet is scored, and the rows are put in place."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lifeiqa_plugin.arguments import UsageError
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.journal import read_json
from lifeiqa_plugin.scoring.containers import Found
from lifeiqa_plugin.scoring.done import Done
from lifeiqa_plugin.scoring.inputs import Inputs
from lifeiqa_plugin.scoring.output import Output
from lifeiqa_plugin.scoring.placing import place
from lifeiqa_plugin.scoring.rows import Row, ScoredImage, distortion_names, read_rows, to_row
from lifeiqa_plugin.scoring.summary import Summary

LOG_EVERY = 60.0
"""Seconds between the lines of progress where nobody watches."""

Scoring = Callable[[Iterator[Named], "int | None"], Iterator[ScoredImage]]
"""Scores images, of which there are so many if that is known."""


class Task(NamedTuple):
    """Inputs whose rows go into one result."""

    inputs: Inputs
    output: Output


def is_done(task: Task, args: argparse.Namespace) -> bool:
    """Say whether nothing has to be scored.

    Raises:
        UsageError: a result that cannot be gone on with; one whose inputs have changed, without ``--append``.
    """
    output = task.output
    if args.overwrite or not output.is_finished(args.append) or args.append:
        return False
    about = read_json(output.manifest)
    if about["digest"] != task.inputs.digest():
        raise UsageError(
            f"{output.path} is finished, with {about['rows']} rows, and its inputs have changed since; "
            "--append scores what is new, --overwrite begins again"
        )
    return not (args.retry_failed and about["failed"])


def report_done(task: Task, args: argparse.Namespace) -> int:
    """Say what a finished result holds; apply other thresholds and place images where that is asked for.

    Returns:
        How many images have no score.
    """
    output = task.output
    about = read_json(output.manifest)
    judged = about["thresholds"] != output.thresholds._asdict()
    if judged:
        output.open(distortion_names(about["columns"]))
        try:
            output.finish(_summarize(output).as_dict() | {k: about[k] for k in ("model", "digest")})
        finally:
            output.close()
    if args.copy_to or args.link_to:
        for row in read_rows(output.path):
            _place(args, row, row["path"])
    print(
        f"{output.path}: finished before, {about['rows']} images, {about['failed']} failed"
        f"{'; verdicts by the new thresholds' * judged}; --overwrite scores them again"
    )
    return int(about["failed"])


def run_task(task: Task, args: argparse.Namespace, names: tuple[str, ...], scoring: Scoring) -> int:
    """Score what has no row yet, and put the result in place.

    Args:
        task: inputs and result.
        args: of the command.
        names: of the distortions.
        scoring: what scores.

    Returns:
        How many images have no score.

    Raises:
        OSError: the rows cannot be written; those that are there are kept.
    """
    output = task.output
    output.open(names, args.overwrite, args.retry_failed)
    try:
        summary = _add_rows(task, args, scoring)
        summary.skipped = task.inputs.skipped()
        output.finish(summary.as_dict() | {"model": args.model, "digest": task.inputs.seen})
    except KeyboardInterrupt:
        print(f"{_kept(output, args)} from there", file=sys.stderr)
        raise
    except OSError as error:
        raise OSError(f"{error}. {_kept(output, args)}") from error
    finally:
        output.close()
    if output.of_archive:
        print(f"{output.path}: {summary.describe_counts()}", flush=True)
    else:
        print(summary.describe())
        print(f"written: {output.path}")
    return summary.failed


def _kept(output: Output, args: argparse.Namespace) -> str:
    without = ", without --overwrite," if args.overwrite else ""
    return f"{output.rows} rows are kept in {output.journal}; the same command{without} goes on"


def _add_rows(task: Task, args: argparse.Namespace, scoring: Scoring) -> Summary:
    """Score what has no row yet, and return what all rows say."""
    from tqdm import tqdm  # not for those who wait for one score

    output, done = task.output, Done()
    summary = _summarize(output, done)
    if output.rows:
        print(f"{output.path}: {output.rows} images are scored already; going on", file=sys.stderr)
    total = task.inputs.count()
    every = 0.1 if sys.stderr.isatty() else LOG_EVERY
    waiting: deque[Found] = deque()
    images = _remaining(task.inputs, args, done, waiting)
    with tqdm(
        total=total,
        initial=output.rows,
        unit="image",
        smoothing=0.05,
        mininterval=every,
        maxinterval=max(10.0, every),
    ) as progress:
        for scored in scoring(images, total):
            found = waiting.popleft()
            row = to_row(scored) | {"size": found.size, "mtime": found.mtime}
            if output.of_archive:
                row["key"] = found.key
            row = output.thresholds.judge(row)
            if args.copy_to or args.link_to:
                _place(args, row, str(found.source))
            output.add(row)
            summary.add(row)
            progress.set_postfix(failed=summary.failed, refresh=False)
            progress.update()
    if done:
        output.drop(done.is_outdated)
        summary = _summarize(output)
    return summary


def _summarize(output: Output, done: Done | None = None) -> Summary:
    """Read all rows that are there."""
    summary = Summary(distortion_names(output.columns))
    for row in output:
        summary.add(output.thresholds.judge(row))
        if done is not None:
            done.add(row)
    return summary


def _remaining(
    inputs: Inputs, args: argparse.Namespace, done: Done, waiting: deque[Found]
) -> Iterator[Named]:
    """Yield the images that have no row; ``waiting`` gets what is known of them, in the same order."""
    for found in inputs.images():
        if done.take(found):
            continue
        if (args.copy_to or args.link_to) and isinstance(found.source, bytes):
            raise UsageError(f"{found.name}: --copy-to and --link-to take files, not archives")
        waiting.append(found)
        yield Named(found.name, found.source)


def _place(args: argparse.Namespace, row: Row, source: str) -> None:
    """Copy or link a file by its verdict; a file of which that cannot be is said, and the run goes on."""
    if not row.get("verdict"):
        return
    try:
        place(source, args.copy_to or args.link_to, row["verdict"], link=args.link_to is not None)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ENOENT):
            raise
        what = "linked" if args.link_to else "copied"
        print(f"{row['path']}: not {what} ({os.strerror(error.errno)})", file=sys.stderr)
