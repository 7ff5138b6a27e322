"""``lifeiqa report``: a folder, or scores that are there already, as one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import lifeiqa_plugin
from lifeiqa_plugin.arguments import add_device, choose_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source",
        type=Path,
        help="folder of images, or what 'lifeiqa score -o' wrote (.parquet, .csv, .jsonl)",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="page to write, .html")
    parser.add_argument(
        "--images",
        type=Path,
        default=Path(),
        help="folder to which the paths of a table are relative",
    )
    parser.add_argument(
        "--maps",
        type=int,
        default=60,
        metavar="N",
        help="quality maps and attention of the N images with the lowest scores (default 60)",
    )
    parser.add_argument("--model", type=Path, help="checkpoint (default: the bundled one)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default 0)")
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the page if it is there")


def run(args: argparse.Namespace) -> int:
    """Score the folder or read the scores, and write the page.

    Returns:
        0, or 1 if some images have no score; the page lists them.

    Raises:
        FileExistsError: the page is there.
        ValueError: no image has a score; arguments out of their range.
    """
    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f"{args.out}: exists; choose another name, or pass --overwrite")
    if args.maps < 0:
        raise ValueError(f"--maps must be at least 0, got {args.maps}")
    if not args.source.exists():
        raise FileNotFoundError(f"{args.source}: no such file or folder")
    from tqdm import tqdm

    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
    from lifeiqa_plugin.report.collect import has_score, write_report
    from lifeiqa_plugin.report.rows import read_rows

    network = build_lifeiqa(pretrained_model_path=args.model).to(choose_device(args.device))
    if args.source.suffix == ".parquet" or args.source.is_file():
        rows = read_rows(args.source)
    else:
        from lifeiqa_plugin.runtimes.torch_engine import TorchEngine

        engine = TorchEngine(network)
        scored = lifeiqa_plugin.score(args.source, engine=engine, workers=args.workers)
        rows = list(tqdm(scored, desc="scores", unit="image"))
    print(write_report(rows, args.images, args.out, network, args.maps))
    failed = [row for row in rows if not has_score(row)]
    for row in failed:
        print(f"{row.name}: {row.error or 'no score'}", file=sys.stderr)
    return int(bool(failed))
