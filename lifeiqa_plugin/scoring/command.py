"""``lifeiqa score``: from arguments to a file of rows that no accident can take away."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from lifeiqa_plugin import __version__
from lifeiqa_plugin.arguments import UsageError, add_device, check_target
from lifeiqa_plugin.images.reading import MAX_PIXELS, ImageError
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.journal import read_json
from lifeiqa_plugin.runtimes import ENGINES, Engine, count_cores, create_engine
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
from lifeiqa_plugin.scoring.rows import Row, ScoredImage, to_row
from lifeiqa_plugin.scoring.score import score
from lifeiqa_plugin.scoring.summary import Summary

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
    parser.add_argument("--model", type=Path, help="checkpoint, or what 'lifeiqa export' wrote")
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
        "--time-limit", type=float, default=60, metavar="S", help="for one image (default 60 s)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help=f"of an image (default {MAX_PIXELS})"
    )
    parser.add_argument("--column", help="of a .parquet, with images or paths (default: found)")
    parser.add_argument(
        "--keep", type=float, default=0.6, help="verdict 'keep' from this score on (default 0.6)"
    )
    parser.add_argument(
        "--drop", type=float, default=0.3, help="verdict 'drop' below this score (default 0.3)"
    )
    sort = parser.add_mutually_exclusive_group()
    sort.add_argument(
        "--copy-to", type=Path, metavar="FOLDER", help="copy images to FOLDER/keep, check, drop"
    )
    sort.add_argument("--link-to", type=Path, metavar="FOLDER", help="the same with links")


def run(args: argparse.Namespace) -> int:
    """Score; returns 1 if some images have no score, which the output says."""
    _check(args)
    if args.out is None:
        return _print_scores(args, _create_engine(args))
    options = _options(args)
    begun, failed = [], 0
    for one in _divide(args):
        output = _open_output(one, options)
        if output.is_finished():
            failed |= _report_finished(output)
        else:
            begun.append(one)
    if begun:
        engine = _create_engine(args)
    for one in begun:
        failed |= _score_into(_output(one, options, engine.names), one, engine)
    return failed


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be, before anything is imported or scored."""
    args.shard = parse_shard(args.shard)
    check_inputs(args.inputs, args.column)
    if not args.drop <= args.keep:
        raise UsageError(f"--drop {args.drop} must not be above --keep {args.keep}")
    for name in ("shard_rows", "batch_size", "time_limit", "max_pixels"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0, got {value}")
    if args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers must be 0 or more, got {args.workers}")
    if args.model is not None and not args.model.exists():
        raise UsageError(f"--model {args.model}: no such file")
    if (args.copy_to or args.link_to) and any(map(is_archive, args.inputs)):
        raise UsageError("--copy-to and --link-to take files, not archives or tables")
    if args.out is None and (args.shard_rows or args.overwrite):
        raise UsageError("--shard-rows and --overwrite need -o")
    if args.shard_rows and _writes_folder(args):
        raise UsageError(f"-o {args.out}: with --shard-rows the name must end in .parquet")


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
    return Output(args.out, options, distortions, args.shard_rows, args.archive is not None)


def _open_output(args: argparse.Namespace, options: Row) -> Output:
    output = _output(args, options)
    if args.overwrite:
        output.delete()
    if args.shard_rows is None:
        check_target(args.out)
    return output


def _options(args: argparse.Namespace) -> Row:
    """Return what scores and verdicts depend on."""
    return {
        "version": __version__,
        "weights": _weights(args),
        "engine": args.engine,
        "exact": args.exact,
        "max_pixels": args.max_pixels,
        "keep": args.keep,
        "drop": args.drop,
        "shard": None if _writes_folder(args) else list(args.shard),
    }


def _weights(args: argparse.Namespace) -> str:
    if args.model is not None:
        return _digest(args.model)
    return "bundled, 8 bits" if args.fast else "bundled"


def _digest(path: Path) -> str:
    if path.is_dir():
        return str(path.resolve())
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _create_engine(args: argparse.Namespace) -> Engine:
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    try:
        return create_engine(args.engine, args.model, args.device, args.fast)
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
        time_limit=args.time_limit,
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
        summary.add(row)
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
                row = to_row(scored, args.keep, args.drop)
                if args.archive is not None:
                    row["key"] = key_of(scored.name, args.archive)
                _place(args, row, paths)
                output.add([row])
                summary.add(row)
                progress.set_postfix(failed=summary.failed, refresh=False)
                progress.update()
        output.finish(summary.as_dict())
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


def _report_finished(output: Output) -> int:
    about = read_json(output.manifest)
    print(
        f"{output.path}: finished before, {about['rows']} images, {about['failed']} failed; "
        "--overwrite scores them again"
    )
    return 1 if about["failed"] else 0
