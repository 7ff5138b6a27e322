"""``lifeiqa benchmark``; the names of pyiqa's own script are kept."""

from __future__ import annotations

import argparse
from pathlib import Path

from lifeiqa_plugin.arguments import UsageError, add_device, check_file, check_target
from lifeiqa_plugin.datasets.table import add_columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa benchmark`` takes."""
    parser.add_argument(
        "-m",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="metrics of pyiqa, see pyiqa -ls, or checkpoints of Life-IQA",
    )
    parser.add_argument(
        "-d",
        nargs="+",
        default=[],
        metavar="DATASET",
        help="CSV, CSV@FOLDER or CSV@FOLDER@SPLIT=PHASE, or a dataset that pyiqa knows",
    )
    parser.add_argument(
        "--metric-opt", type=Path, metavar="YML", help="further metrics, in pyiqa's format"
    )
    parser.add_argument(
        "--data-opt",
        type=Path,
        metavar="YML",
        help="further datasets, in pyiqa's format or as in options/benchmark/cross.yml",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("benchmark"),
        help="folder to write (default benchmark)",
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="further columns of the csv to group by",
    )
    add_columns(parser)
    add_device(parser)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default 0)")
    parser.add_argument(
        "--samples", type=int, default=1000, help="bootstrap samples (default 1000)"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="tables of kept scores only; computes none"
    )
    parser.add_argument(
        "--figures", action="store_true", help="figures as SVG and PDF too; needs matplotlib"
    )
    parser.add_argument("--no-speed", action="store_true", help="do not measure cost")
    parser.add_argument("--cpu-only", action="store_true", help="do not measure cost on CUDA")
    parser.add_argument(
        "--sizes", nargs="+", default=[], metavar="WxH", help="default 512x384 1080x800 4000x3000"
    )
    parser.add_argument("--rounds", type=int, help="timings of each metric and size (default 5)")
    parser.add_argument("--batch", type=int, help="images in a batch, 1 for no batches (default 4)")
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure peak memory on the CPU"
    )


def run(args: argparse.Namespace) -> None:
    """Compare; raises KeyboardInterrupt again once what was done is written."""
    check(args)
    from lifeiqa_plugin.benchmark.protocol import Protocol, parse_size
    from lifeiqa_plugin.benchmark.run import benchmark

    given = {
        name: getattr(args, name) for name in ("rounds", "batch") if getattr(args, name) is not None
    }
    if args.sizes:
        given["sizes"] = tuple(parse_size(text) for text in args.sizes)
    protocol = None if args.no_speed else Protocol(**given, memory=not args.no_memory)
    if not benchmark(args, protocol):
        raise KeyboardInterrupt


def check(args: argparse.Namespace) -> None:
    """Refuse arguments that cannot be, or that would change nothing.

    Raises:
        UsageError, FileNotFoundError: says which.
    """
    for path in (args.metric_opt, args.data_opt):
        if path is not None:
            check_file(path, "an option file")
    if args.out.is_file():
        raise UsageError(f"-o {args.out}: a file; expected a folder to write to")
    check_target(args.out / "benchmark.html")
    for name, lowest in LOWEST.items():
        value = getattr(args, name)
        if value is not None and value < lowest:
            raise UsageError(f"--{name} takes a number from {lowest} on, got {value}")
    useless = []
    if args.no_speed or args.redraw:
        reason = "--no-speed" if args.no_speed else "--redraw"
        useless = [(name, f"cost is not measured with {reason}") for name in COST]
    if not any(item.partition("@")[0].endswith(".csv") for item in args.d):
        reason = "it is of a csv given with -d, and there is none"
        useless += [(name, reason) for name in ("mos_column", "name_column")]
    if not args.d and not args.data_opt:
        useless.append(("by", "there is no dataset"))
    for name, reason in useless:
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} changes nothing: {reason}")


LOWEST = {"samples": 0, "workers": 0, "rounds": 1, "batch": 1}
COST = ("sizes", "rounds", "batch", "no_memory", "cpu_only")
