"""``lifeiqa benchmark``; the names of pyiqa's own script are kept."""

from __future__ import annotations

import argparse
from pathlib import Path

from lifeiqa_plugin.arguments import add_device, add_import, check_file, choose_device
from lifeiqa_plugin.datasets.columns import Columns, add_columns


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
        help="CSV[@FOLDER[@SPLIT[=PHASE]]], or a dataset that pyiqa knows",
    )
    parser.add_argument(
        "--metric_opt", type=Path, metavar="YML", help="further metrics, in pyiqa's format"
    )
    parser.add_argument(
        "--data_opt",
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
    add_import(parser)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default 0)")
    parser.add_argument(
        "--samples", type=int, default=1000, help="bootstrap samples (default 1000)"
    )
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=2000,
        help="small images of a dataset to embed (default 2000)",
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
    parser.add_argument(
        "--rounds", type=int, default=5, help="timings of each metric and size (default 5)"
    )
    parser.add_argument(
        "--batch", type=int, default=4, help="images in a batch, 1 for no batches (default 4)"
    )
    parser.add_argument(
        "--slow",
        type=float,
        default=30,
        help="seconds from which a metric is timed once (default 30)",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure peak memory on the CPU"
    )


def run(args: argparse.Namespace) -> None:
    """Compare; raises KeyboardInterrupt again once what was done is written."""
    for path in (args.metric_opt, args.data_opt):
        if path is not None:
            check_file(path, "an option file")
    import torch

    from lifeiqa_plugin.benchmark.protocol import SIZES, Protocol, parse_size
    from lifeiqa_plugin.benchmark.run import Request, benchmark

    protocol = Protocol(
        sizes=tuple(parse_size(text) for text in args.sizes) or SIZES,
        rounds=args.rounds,
        batch=args.batch,
        slow=args.slow,
        memory=not args.no_memory,
    )
    has_cuda = torch.cuda.is_available()
    request = Request(
        metrics=args.m,
        datasets=args.d,
        metric_opt=args.metric_opt,
        data_opt=args.data_opt,
        modules=tuple(args.modules),
        out=args.out,
        by=tuple(args.by),
        columns=Columns(args.mos_column, args.name_column),
        device=choose_device(args.device),
        speed_devices=("cpu", "cuda") if has_cuda and not args.cpu_only else ("cpu",),
        protocol=None if args.no_speed else protocol,
        workers=args.workers,
        samples=args.samples,
        thumbnails=args.thumbnails,
        redraw=args.redraw,
        figures=args.figures,
    )
    if not benchmark(request):
        raise KeyboardInterrupt
