"""``lifeiqa score``: from arguments to a file of rows that no accident can take away."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lifeiqa_plugin.arguments import PARTIAL, UsageError, add_device, add_model, find_model
from lifeiqa_plugin.images.reading import DECODING, MAX_PIXELS
from lifeiqa_plugin.runtimes import ENGINES, Choice, Engine, choose_engine, create_engine
from lifeiqa_plugin.scoring.containers import stem_of
from lifeiqa_plugin.scoring.inputs import Inputs, parse_shard
from lifeiqa_plugin.scoring.output import Output
from lifeiqa_plugin.scoring.rows import Row, Thresholds
from lifeiqa_plugin.scoring.tasks import (
    TIME_LIMIT,
    Task,
    find_done,
    report_done,
    run_task,
    score_images,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa score`` takes."""
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, folders, globs, lists (.txt or - for standard input, one path a line), "
        "WebDataset shards (.tar), tables (.parquet)",
    )
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
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true", help="begin again, whatever -o holds")
    again.add_argument(
        "--append", action="store_true", help="score what -o has no row of: new and changed files"
    )
    add("--retry-failed", action="store_true", help="score images again whose row has an error")
    add_model(parser, "a checkpoint, or what 'lifeiqa export' wrote")
    add("--engine", choices=["auto", *ENGINES], default="auto", help="what runs it")
    add_device(parser)
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--exact", action="store_true", help="decode large JPEGs in full, as metric(path) does"
    )
    precision.add_argument(
        "--fast", action="store_true", help="8-bit network, for CPUs; scores differ by some .00x"
    )
    add("--batch-size", type=int, help="images in a batch (default: 1 on CPUs, 16 on CUDA)")
    add("--workers", type=int, help="processes that decode (default: one for each core)")
    add("--time-limit", type=float, metavar="S", help=f"for one image (default {TIME_LIMIT:g} s)")
    add("--max-pixels", type=int, default=MAX_PIXELS, help=f"of an image (default {MAX_PIXELS})")
    add(
        "--memory",
        metavar="SIZE",
        help="of a process that decodes, such as 1G; images that would need more are refused",
    )
    add("--column", help="of a .parquet, with images or paths (default: found)")
    keep, drop = Thresholds()
    add("--keep", type=float, help=f"verdict 'keep' from this score on, 0 to 1 (default {keep})")
    add("--drop", type=float, help=f"verdict 'drop' below this score, 0 to 1 (default {drop})")
    sort = parser.add_mutually_exclusive_group()
    sort.add_argument(
        "--copy-to", type=Path, metavar="FOLDER", help="copy images to FOLDER/keep, check, drop"
    )
    sort.add_argument("--link-to", type=Path, metavar="FOLDER", help="the same with links")


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
    choice = _choose_engine(args)
    if args.out is None:
        return PARTIAL if _print_scores(args, inputs, _create_engine(args, choice)) else 0
    failed, left = 0, []
    for task in _divide(args, inputs, _options(args, choice, inputs)):
        about = find_done(task, args)
        if about is None:
            left.append(task)
        else:
            failed += report_done(task.output, about, args)
    if left:
        engine = _create_engine(args, choice)
        failed += sum(run_task(task, args, engine) for task in left)
    return PARTIAL if failed else 0


def _check(args: argparse.Namespace) -> Inputs:
    """Refuse what cannot be, before anything is imported or scored."""
    args.place_in = args.copy_to or args.link_to
    if args.out is None:
        _refuse_without_out(args)
    inputs = Inputs(args.inputs, args.column, parse_shard(args.shard))
    args.thresholds = _thresholds(args)
    _check_numbers(args)
    args.memory = parse_bytes(args.memory) if args.memory else None
    container = inputs.find_container() if args.place_in else None
    if container is not None:
        raise UsageError(f"{container}: --copy-to and --link-to take files, not archives or tables")
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
    if args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers must be 0 or more, got {args.workers}")
    if args.workers == 0 and args.time_limit is not None:
        raise UsageError("--time-limit needs processes that decode, and --workers 0 has none")


def _refuse_without_out(args: argparse.Namespace) -> None:
    """Refuse options that only say what a file of rows shall be."""
    only = ("keep", "drop", "copy_to", "link_to", "shard_rows")
    for name in (*only, "overwrite", "append", "retry_failed"):
        if getattr(args, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} has no effect without -o; give -o FILE")


def _thresholds(args: argparse.Namespace) -> Thresholds:
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
        "max_pixels": args.max_pixels,
        "column": args.column,
        "shard": None if _writes_folder(args) else list(inputs.shard),
    }


def _choose_engine(args: argparse.Namespace) -> Choice:
    try:
        return choose_engine(args.engine, find_model(args.model), args.device, args.fast)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error


def _create_engine(args: argparse.Namespace, choice: Choice) -> Engine:
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    try:
        return create_engine(*choice, args.device)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error


def _print_scores(args: argparse.Namespace, inputs: Inputs, engine: Engine) -> int:
    """Print a line for each image as it is scored, the score or the error, and the name; returns how many errors."""
    failed = 0
    for scored in score_images(args, engine, inputs.images(), inputs.count()):
        failed += scored.error is not None
        says = f"{scored.score:.4f}" if scored.error is None else f"error: {scored.error}"
        print(f"{says}\t{scored.name}", flush=True)
    return failed
