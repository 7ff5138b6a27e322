"""``lifeiqa score``: from arguments to a file of rows that no accident can take away."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lifeiqa_plugin.arguments import UsageError, add_device, add_model, check_target, find_model
from lifeiqa_plugin.images.reading import DECODING, MAX_PIXELS, ImageError
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.journal import read_json
from lifeiqa_plugin.runtimes import (
    ENGINES,
    Choice,
    Engine,
    choose_engine,
    count_cores,
    create_engine,
)
from lifeiqa_plugin.scoring.inputs import (
    Shard,
    check_inputs,
    count,
    expand,
    is_archive,
    key_of,
    list_archives,
    parse_shard,
    stem_of,
)
from lifeiqa_plugin.scoring.output import Output
from lifeiqa_plugin.scoring.placing import place
from lifeiqa_plugin.scoring.rows import Row, ScoredImage, Thresholds, read_rows, to_row
from lifeiqa_plugin.scoring.score import score
from lifeiqa_plugin.scoring.summary import Summary

TIME_LIMIT = 60.0
"""Seconds for one image."""

FEW = 8
"""Images below which no processes are started to decode them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa score`` takes."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, folders, globs, lists (.txt or - for standard input, one path a line), "
        "WebDataset shards (.tar), tables (.parquet)",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help=".parquet, .csv or .jsonl to write, or a folder that gets a Parquet file for each .tar or "
        ".parquet (default: print scores)",
    )
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="take every N-th image from number I on, which counts from 0: for N processes, GPUs or "
        "machines; archives are taken whole",
    )
    parser.add_argument(
        "--shard-rows",
        type=int,
        metavar="N",
        help="write a folder of Parquet files of N rows each instead of one file",
    )
    parser.add_argument("--overwrite", action="store_true", help="begin again, whatever -o holds")
    add_model(parser, "a checkpoint, or what 'lifeiqa export' wrote")
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto", help="what runs it")
    add_device(parser)
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--exact", action="store_true", help="decode large JPEGs in full, as metric(path) does"
    )
    precision.add_argument(
        "--fast", action="store_true", help="8-bit network, for CPUs; scores differ by some .00x"
    )
    parser.add_argument(
        "--batch-size", type=int, help="images in a batch (default: 1 on CPUs, 16 on CUDA)"
    )
    parser.add_argument(
        "--workers", type=int, help="processes that decode (default: one for each core)"
    )
    parser.add_argument(
        "--time-limit", type=float, metavar="S", help=f"for one image (default {TIME_LIMIT:g} s)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help=f"of an image (default {MAX_PIXELS})"
    )
    parser.add_argument("--column", help="of a .parquet, with images or paths (default: found)")
    keep, drop = Thresholds()
    parser.add_argument(
        "--keep", type=float, help=f"verdict 'keep' from this score on, 0 to 1 (default {keep})"
    )
    parser.add_argument(
        "--drop", type=float, help=f"verdict 'drop' below this score, 0 to 1 (default {drop})"
    )
    sort = parser.add_mutually_exclusive_group()
    sort.add_argument(
        "--copy-to", type=Path, metavar="FOLDER", help="copy images to FOLDER/keep, check, drop"
    )
    sort.add_argument("--link-to", type=Path, metavar="FOLDER", help="the same with links")


def run(args: argparse.Namespace) -> int:
    """Score; returns 1 if some images have no score, which the output says."""
    _check(args)
    choice = _choose_engine(args)
    if args.out is None:
        return _print_scores(args, _create_engine(args, choice))
    options = _options(args, choice)
    begun, failed = [], 0
    for one in _divide(args):
        output = _open_output(one, options)
        if output.is_finished():
            failed |= _report_finished(output, one)
        else:
            begun.append(one)
    if begun:
        engine = _create_engine(args, choice)
    for one in begun:
        failed |= _score_into(_output(one, options, engine.names), one, engine)
    return failed


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be, before anything is imported or scored."""
    args.shard = parse_shard(args.shard)
    if args.out is None:
        _refuse_without_out(args)
    check_inputs(args.inputs, args.column)
    args.thresholds = _thresholds(args)
    for name in ("shard_rows", "batch_size", "time_limit", "max_pixels"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0, got {value}")
    if args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers must be 0 or more, got {args.workers}")
    if args.workers == 0 and args.time_limit is not None:
        raise UsageError("--time-limit needs processes that decode, and --workers 0 has none")
    if (args.copy_to or args.link_to) and any(map(is_archive, args.inputs)):
        raise UsageError("--copy-to and --link-to take files, not archives or tables")
    if args.shard_rows and _writes_folder(args):
        raise UsageError(f"-o {args.out}: with --shard-rows the name must end in .parquet")


def _refuse_without_out(args: argparse.Namespace) -> None:
    """Refuse options that only say what a file of rows shall be."""
    for name in ("keep", "drop", "copy_to", "link_to", "shard_rows", "overwrite"):
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


def _divide(args: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the arguments as they are, or for a folder those of each archive.

    Raises:
        UsageError: two archives of one name.
    """
    args.archive = None
    if not _writes_folder(args):
        return [args]
    divided: dict[Path, argparse.Namespace] = {}
    for archive in list_archives(args.inputs, args.shard):
        out = args.out / f"{stem_of(archive)}.parquet"
        if out in divided:
            raise UsageError(f"{archive} and {divided[out].archive} would both become {out}")
        own = {"inputs": [archive], "archive": archive, "out": out, "shard": Shard()}
        divided[out] = argparse.Namespace(**{**vars(args), **own})
    return list(divided.values())


def _output(args: argparse.Namespace, options: Row, distortions: tuple[str, ...] = ()) -> Output:
    of_archive = args.archive is not None
    return Output(args.out, options, distortions, args.thresholds, args.shard_rows, of_archive)


def _open_output(args: argparse.Namespace, options: Row) -> Output:
    output = _output(args, options)
    if args.overwrite:
        output.delete()
    if args.shard_rows is None:
        check_target(args.out)
    return output


def _options(args: argparse.Namespace, choice: Choice) -> Row:
    """Return all that scores depend on: rows of other weights or of another reading are never mixed."""
    return {
        "weights_sha256": choice.model.sha256,
        "engine": choice.engine,
        "decoding": DECODING,
        "exact": args.exact,
        "max_pixels": args.max_pixels,
        "shard": None if _writes_folder(args) else list(args.shard),
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


def _score(
    args: argparse.Namespace, engine: Engine, images: Iterator[Named], workers: int
) -> Iterator[ScoredImage]:
    on_cuda = str(getattr(engine, "device", "cpu")).startswith("cuda")
    return score(
        images,
        engine=engine,
        batch_size=args.batch_size or (16 if on_cuda else 1),
        workers=workers,
        exact=args.exact,
        max_pixels=args.max_pixels,
        time_limit=args.time_limit or TIME_LIMIT,
    )


def _workers(args: argparse.Namespace, total: int | None) -> int:
    if args.workers is not None:
        return int(args.workers)
    return 0 if total is not None and total < FEW else count_cores()


def _print_scores(args: argparse.Namespace, engine: Engine) -> int:
    """Print a line for each image as it is scored: the score, or the error, and the name."""
    failed = 0
    workers = _workers(args, count(args.inputs, args.column, args.shard))
    images = expand(args.inputs, args.column, args.shard)
    for scored in _score(args, engine, images, workers):
        failed += scored.error is not None
        says = f"{scored.score:.4f}" if scored.error is None else f"error: {scored.error}"
        print(f"{says}\t{scored.name}", flush=True)
    return 1 if failed else 0


def _score_into(output: Output, args: argparse.Namespace, engine: Engine) -> int:
    from tqdm import tqdm  # not for those who wait for one score

    summary = Summary(engine.names)
    done = set()
    for row in output.open():
        summary.add(args.thresholds.judge(row))
        done.add(hash(row["path"]))
    total = count(args.inputs, args.column, args.shard)
    if done:
        print(f"{args.out}: {len(done)} images are scored already; going on", file=sys.stderr)
    paths: dict[str, str] = {}
    images = _remaining(args, done, paths)
    progress = tqdm(total=total, initial=len(done), unit="image", smoothing=0.05)
    try:
        with progress:
            for scored in _score(args, engine, images, _workers(args, total)):
                row = args.thresholds.judge(to_row(scored))
                if args.archive is not None:
                    row["key"] = key_of(scored.name, args.archive)
                _place(args, row, paths)
                output.add([row])
                summary.add(row)
                progress.set_postfix(failed=summary.failed, refresh=False)
                progress.update()
        output.finish(summary.as_dict() | {"model": args.model})
    except KeyboardInterrupt:
        print(f"{_kept(output, summary)}; the same command goes on from there", file=sys.stderr)
        raise
    except OSError as error:
        raise OSError(f"{error}. {_kept(output, summary)}; the same command goes on") from error
    finally:
        output.close()
    if args.archive is not None:
        print(f"{args.out}: {summary.describe_counts()}", flush=True)
    else:
        print(summary.describe())
        print(f"written: {args.out}")
    return 1 if summary.failed else 0


def _remaining(args: argparse.Namespace, done: set[int], paths: dict[str, str]) -> Iterator[Named]:
    """Yield the images that have no row yet; ``paths`` remembers where those are that will be placed."""
    for named in expand(args.inputs, args.column, args.shard):
        if hash(named.name) in done:
            continue
        if args.copy_to or args.link_to:
            if isinstance(named.source, bytes | ImageError):
                raise UsageError(f"{named.name}: --copy-to and --link-to take files, not archives")
            paths[named.name] = str(named.source)
        yield named


def _place(args: argparse.Namespace, row: Row, paths: dict[str, str]) -> None:
    folder = args.copy_to or args.link_to
    if folder is not None:
        source = paths.pop(row["path"])
        if row.get("verdict"):
            place(source, folder, row["verdict"], link=args.link_to is not None)


def _kept(output: Output, summary: Summary) -> str:
    return f"{summary.rows} rows are kept in {output.journal}"


def _report_finished(output: Output, args: argparse.Namespace) -> int:
    """Say that nothing has to be scored; apply other thresholds, and place images, where that is asked for."""
    judged = output.judge_again()
    if args.copy_to or args.link_to:
        for path in output.files():
            for row in read_rows(path):
                _place(args, row, {row["path"]: row["path"]})
    about = read_json(output.manifest)
    print(
        f"{output.path}: finished before, {about['rows']} images, {about['failed']} failed"
        f"{'; verdicts by the new thresholds' * judged}; --overwrite scores them again"
    )
    return 1 if about["failed"] else 0
