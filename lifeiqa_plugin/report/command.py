"""``lifeiqa report``: a folder, or scores that are there already, as one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import lifeiqa_plugin
from lifeiqa_plugin.arguments import (
    PARTIAL,
    UsageError,
    add_device,
    add_model,
    check_target,
    choose_device,
    find_model,
)
from lifeiqa_plugin.checkpoints.models import Model

if TYPE_CHECKING:
    from lifeiqa_plugin.network.lifeiqa import LifeIQA
    from lifeiqa_plugin.scoring.rows import ScoredImage

PAGES = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source",
        type=Path,
        help="folder of images, or what 'lifeiqa score -o' wrote (.parquet, .csv, .jsonl)",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="page to write, .html")
    parser.add_argument(
        "--images", type=Path, help="folder to which the paths of a table are relative (default .)"
    )
    parser.add_argument(
        "--maps",
        type=int,
        default=60,
        metavar="N",
        help="quality maps and attention of the N images with the lowest scores (default 60)",
    )
    add_model(parser, "a checkpoint; for scores that are there, the model that gave them")
    parser.add_argument("--workers", type=int, help="processes that decode a folder (default 0)")
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the page if it is there")


def run(args: argparse.Namespace) -> int:
    """Score the folder or read the scores, and write the page.

    Returns:
        0, or 3 if some images have no score; the page lists them.

    Raises:
        UsageError: arguments that cannot be.
        FileExistsError: the page is there.
        FileNotFoundError: no such source, or none of the images of a table.
        ValueError: no image has a score, or the table is of other weights than the maps would be.
    """
    _check(args)
    model = find_model(args.model)
    from lifeiqa_plugin.checkpoints.factory import load
    from lifeiqa_plugin.report.collect import has_score, write_report

    if is_table(args.source):
        _check_weights(args.source, model, args.maps)
    network = load(model).to(choose_device(args.device))
    rows = _read(args, network) if is_table(args.source) else _score(args, network)
    print(write_report(rows, args.images or Path(), args.out, network, args.maps))
    failed = [row for row in rows if not has_score(row)]
    for row in failed:
        print(f"{row.name}: {row.error or 'no score'}", file=sys.stderr)
    return PARTIAL if failed else 0


def is_table(source: Path) -> bool:
    """Say whether a source holds scores already, and no images."""
    return source.suffix == ".parquet" or source.is_file()


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be, before anything is computed."""
    if args.out.suffix.lower() not in PAGES:
        raise UsageError(f"-o {args.out}: a page is written, so the name must end in .html")
    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f"{args.out}: exists; choose another name, or pass --overwrite")
    check_target(args.out)
    if args.maps < 0:
        raise UsageError(f"--maps must be at least 0, got {args.maps}")
    if not args.source.exists():
        raise FileNotFoundError(f"{args.source}: no such file or folder")
    if args.images is not None and not args.images.is_dir():
        raise FileNotFoundError(f"--images {args.images}: no such folder")
    if is_table(args.source):
        if args.workers is not None:
            raise UsageError(f"--workers has no effect on the scores of {args.source}")
    elif args.images is not None:
        raise UsageError(f"--images has no effect on a folder of images, {args.source}")
    elif args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers must be 0 or more, got {args.workers}")


def _check_weights(table: Path, model: Model, maps: int) -> None:
    """See that the maps would be of the weights that gave the scores, as far as the table's manifest says."""
    from lifeiqa_plugin.scoring.output import read_identity

    identity = read_identity(table)
    if not maps or identity is None:
        return
    if identity["weights_sha256"] not in model.digests():
        raise ValueError(
            f"{table}: scored by other weights than {model.name!r} has here, so the maps would not fit; it was scored "
            f"with --model {identity['model']}. Give that model, score again, or pass --maps 0"
        )


def _read(args: argparse.Namespace, network: LifeIQA) -> list[ScoredImage]:
    """Read a table, and see that its images are there."""
    from lifeiqa_plugin.scoring.rows import parse_row, read_rows

    rows = []
    for number, row in enumerate(read_rows(args.source), start=1):
        try:
            rows.append(parse_row(row, network.distortion_names))
        except ValueError as error:
            raise ValueError(f"{args.source}: row {number}: {error}") from error
    root = args.images or Path()
    missing = [row.name for row in rows if row.error is None and not (root / row.name).is_file()]
    if missing and len(missing) == sum(row.error is None for row in rows):
        raise FileNotFoundError(
            f"none of the {len(missing)} images is below {root.absolute()}, the first is {missing[0]!r}; "
            "--images FOLDER says where they are"
        )
    if missing:
        print(
            f"{len(missing)} of {len(rows)} images are not there, the first is {missing[0]!r}; "
            "they have no picture on the page",
            file=sys.stderr,
        )
    return rows


def _score(args: argparse.Namespace, network: LifeIQA) -> list[ScoredImage]:
    from tqdm import tqdm

    from lifeiqa_plugin.images.folders import count_skipped, describe_skipped
    from lifeiqa_plugin.runtimes.torch_engine import TorchEngine

    says = describe_skipped(count_skipped(args.source)) if args.source.is_dir() else ""
    if says:
        print(says, file=sys.stderr)
    engine = TorchEngine(network)
    scored = lifeiqa_plugin.score(args.source, engine=engine, workers=args.workers or 0)
    return list(tqdm(scored, desc="scores", unit="image"))
