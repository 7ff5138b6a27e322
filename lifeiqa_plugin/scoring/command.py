"""``lifeiqa score``: from arguments to a file of rows that no accident can take away."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lifeiqa_plugin.arguments import PARTIAL, UsageError, add_device, add_model, find_model
from lifeiqa_plugin.images.reading import DECODING, MAX_PIXELS
from lifeiqa_plugin.runtimes import ENGINES, Choice, choose_engine
from lifeiqa_plugin.scoring.containers import stem_of
from lifeiqa_plugin.scoring.inputs import Inputs, parse_shard
from lifeiqa_plugin.scoring.output import Output
from lifeiqa_plugin.scoring.rows import CHECK, DROP, KEEP, Row, Thresholds, read_rows
from lifeiqa_plugin.scoring.score import TIME_LIMIT, Scorer
from lifeiqa_plugin.scoring.tasks import (
    Task,
    find_done,
    report_done,
    run_task,
    score_images,
)
from lifeiqa_plugin.scoring.workers import add_workers, check_workers

COLORS = {KEEP: 32, CHECK: 33, DROP: 31}
"""Of the terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa score`` takes."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, folders, globs, lists (.txt or - for standard input, one path a line), "
        "WebDataset shards (.tar), tables (.parquet)",
    )
    _add_results(parser.add_argument_group("results"))
    _add_places(add_scoring(parser))


def add_scoring(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare what ``lifeiqa report`` takes as well; returns the group of the verdicts."""
    verdicts = parser.add_argument_group("verdicts")
    add, (keep, drop) = verdicts.add_argument, Thresholds()
    add("--keep", type=float, help=f"verdict 'keep' from this score on, 0 to 1 (default {keep})")
    add("--drop", type=float, help=f"verdict 'drop' below this score, 0 to 1 (default {drop})")
    _add_network(parser.add_argument_group("network"))
    _add_reading(parser.add_argument_group("reading"))
    return verdicts


def _add_results(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help=".parquet, .csv or .jsonl to write, or a folder that gets a Parquet file for each .tar or "
        ".parquet (default: print scores)",
    )
    add(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="take every N-th image from number I on, which counts from 0: for N processes, GPUs or "
        "machines; archives are taken whole",
    )
    add(
        "--shard-rows",
        type=int,
        metavar="N",
        help="write a folder of Parquet files of N rows each instead of one file",
    )
    again = group.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true", help="begin again, whatever -o holds")
    again.add_argument(
        "--append", action="store_true", help="score what -o has no row of: new and changed files"
    )
    add("--retry-failed", action="store_true", help="score images again whose row has an error")


def _add_places(group: argparse._ArgumentGroup) -> None:
    sort = group.add_mutually_exclusive_group()
    sort.add_argument(
        "--copy-to", type=Path, metavar="FOLDER", help="copy images to FOLDER/keep, check, drop"
    )
    sort.add_argument("--link-to", type=Path, metavar="FOLDER", help="the same with links")
    stars = group.add_mutually_exclusive_group()
    stars.add_argument(
        "--xmp", action="store_true", help="write verdicts as stars into sidecars, for photo tools"
    )
    stars.add_argument("--xmp-undo", action="store_true", help="delete these sidecars again")


def _add_network(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add_model(group, "a checkpoint, or what 'lifeiqa export' wrote")
    add("--engine", choices=["auto", *ENGINES], default="auto", help="what runs it")
    add_device(group)
    precision = group.add_mutually_exclusive_group()
    precision.add_argument(
        "--exact", action="store_true", help="decode large JPEGs in full, as metric(path) does"
    )
    precision.add_argument(
        "--fast", action="store_true", help="8-bit network, for CPUs; scores differ by some .00x"
    )
    add(
        "--detail",
        choices=["on", "off"],
        default="on",
        help="look at the part of a large photo that has most detail, too",
    )
    add("--batch-size", type=int, help="images in a batch (default: 1 on CPUs, 16 on CUDA)")


def _add_reading(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add_workers(group)
    add("--time-limit", type=float, metavar="S", help=f"for one image (default {TIME_LIMIT:g} s)")
    add("--max-pixels", type=int, default=MAX_PIXELS, help=f"of an image (default {MAX_PIXELS})")
    add(
        "--memory",
        metavar="SIZE",
        help="of a process that decodes, such as 1G; images that would need more are refused",
    )
    add("--column", help="of a .parquet, with images or paths (default: found)")


def parse_bytes(text: str) -> int:
    """Read a size such as ``1G`` or ``500M``, in thousands.

    Raises:
        UsageError: it is nothing of that kind.
    """
    number, unit = text[:-1], text[-1:].upper()
    if not number.isdecimal() or unit not in ("M", "G"):
        raise UsageError(f"--memory {text}: expected a size such as 1G or 500M")
    return int(number) * (10**9 if unit == "G" else 10**6)


def run(args: argparse.Namespace) -> int:
    """Score; returns 3 if some images have no score, which the output says."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a log's encoding lacks
    inputs = _check(args)
    if args.xmp_undo:
        from lifeiqa_plugin.scoring.stars import remove_stars

        print(remove_stars(read_rows(args.out)))
        return 0
    choice = _choose_engine(args)
    if args.out is None:
        return PARTIAL if _print_scores(args, inputs, _create_scorer(args, choice)) else 0
    failed, left = 0, []
    for task in _divide(args, inputs, _options(args, choice, inputs)):
        about = find_done(task, args)
        if about is None:
            left.append(task)
        else:
            failed += report_done(task.output, about, args)
    if left:
        scorer = _create_scorer(args, choice)
        failed += sum(run_task(task, args, scorer) for task in left)
    return PARTIAL if failed else 0


def _check(args: argparse.Namespace) -> Inputs:
    """Refuse what cannot be, before anything is imported or scored."""
    args.place_in = args.copy_to or args.link_to
    if args.out is None:
        _refuse_without_out(args)
    inputs = Inputs(args.inputs, args.column, parse_shard(args.shard))
    args.thresholds = thresholds_of(args)
    _check_numbers(args)
    args.memory = parse_bytes(args.memory) if args.memory else None
    container = inputs.find_container() if args.place_in or args.xmp else None
    if container is not None:
        raise UsageError(
            f"{container}: --copy-to, --link-to and --xmp take files, not archives or tables"
        )
    if args.retry_failed and args.overwrite:
        raise UsageError("--retry-failed has no effect with --overwrite, which scores all again")
    if args.shard_rows and _writes_folder(args):
        raise UsageError(f"-o {args.out}: with --shard-rows the name must end in .parquet")
    return inputs


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("shard_rows", "batch_size", "time_limit", "max_pixels"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0, got {value}")
    check_workers(args.workers)
    if args.workers == 0 and args.time_limit is not None:
        raise UsageError("--time-limit needs processes that decode, and --workers 0 has none")


def _refuse_without_out(args: argparse.Namespace) -> None:
    """Refuse options that only say what a file of rows shall be."""
    only = ("copy_to", "link_to", "xmp", "xmp_undo", "shard_rows")
    for name in (*only, "overwrite", "append", "retry_failed"):
        if getattr(args, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} has no effect without -o; give -o FILE")


def thresholds_of(args: argparse.Namespace) -> Thresholds:
    """Return those of ``--keep`` and ``--drop``.

    Raises:
        UsageError: no such thresholds.
    """
    given = {name: getattr(args, name) for name in Thresholds._fields}
    try:
        return Thresholds(**{name: v for name, v in given.items() if v is not None}).check("--")
    except ValueError as error:
        raise UsageError(str(error)) from error


def _writes_folder(args: argparse.Namespace) -> bool:
    return args.out is not None and not args.out.suffix


def _divide(args: argparse.Namespace, inputs: Inputs, options: Row) -> list[Task]:
    """Return one task, or for a folder that of each archive.

    Raises:
        UsageError: two archives of one name; a result that cannot be written.
    """
    if not _writes_folder(args):
        output = Output(args.out, options, inputs.texts, args.thresholds, args.shard_rows)
        return [Task(inputs, output)]
    divided: dict[Path, Task] = {}
    for archive in inputs.containers():
        out = args.out / f"{stem_of(archive.path)}.parquet"
        if out in divided:
            before = divided[out].inputs.texts[0]
            raise UsageError(f"{archive.path} and {before} would both become {out}")
        own = Inputs([archive.path], args.column)
        output = Output(out, options, own.texts, args.thresholds, of_archive=True)
        divided[out] = Task(own, output)
    return list(divided.values())


def _options(args: argparse.Namespace, choice: Choice, inputs: Inputs) -> Row:
    """Return all that scores depend on: rows of other weights or of another reading are never mixed."""
    limit = {"memory": args.memory} if args.memory else {}
    return limit | {
        "weights_sha256": choice.model.sha256,
        "engine": choice.engine,
        "decoding": DECODING,
        "exact": args.exact,
        "detail": args.detail == "on",
        "max_pixels": args.max_pixels,
        "column": args.column,
        "shard": None if _writes_folder(args) else list(inputs.shard),
    }


def _choose_engine(args: argparse.Namespace) -> Choice:
    try:
        return choose_engine(args.engine, find_model(args.model), args.device, args.fast)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error


def _create_scorer(args: argparse.Namespace, choice: Choice) -> Scorer:
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    try:
        scorer = Scorer(
            choice.model,
            choice.engine,
            args.device,
            exact=args.exact,
            detail=args.detail == "on",
            max_pixels=args.max_pixels,
            max_memory=args.memory,
            time_limit=args.time_limit or TIME_LIMIT,
        )
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error
    if args.fast:
        from lifeiqa_plugin.runtimes.onnxruntime_engine import has_vnni

        if has_vnni() is False:
            print("--fast gains nothing on this CPU, which has no VNNI", file=sys.stderr)
    return scorer


def _print_scores(args: argparse.Namespace, inputs: Inputs, scorer: Scorer) -> int:
    """Print a line for each image as it is scored, the score or the error, and the name; returns how many errors."""
    failed = 0
    for scored in score_images(args, scorer, inputs.images(), inputs.count()):
        failed += scored.error is not None
        if scored.error is None:
            verdict = _in_color(scored.to_dict(args.thresholds)["verdict"])
            print(f"{scored.score:.4f}\t{scored.name}\t{verdict}\t{scored.sentence}", flush=True)
        else:
            print(f"error: {scored.error}\t{scored.name}", flush=True)
    return failed


def _in_color(verdict: str | None) -> str:
    """Return a verdict, green, yellow or red where somebody looks who has not set NO_COLOR."""
    if verdict is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return verdict or ""
    return f"\x1b[{COLORS[verdict]}m{verdict}\x1b[0m"
