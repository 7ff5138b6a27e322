"""``lifeiqa report``: photos, or scores that are there already, as one page."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from lifeiqa_plugin.arguments import (
    PARTIAL,
    UsageError,
    check_target,
    choose_device,
    find_model,
)
from lifeiqa_plugin.checkpoints.models import DEFAULT
from lifeiqa_plugin.report.collect import write_report
from lifeiqa_plugin.report.photos import read_photos, score_photos
from lifeiqa_plugin.scoring.command import add_scoring, thresholds_of
from lifeiqa_plugin.scoring.output import read_identity
from lifeiqa_plugin.scoring.rows import FORMATS

if TYPE_CHECKING:
    from lifeiqa_plugin.network.lifeiqa import LifeIQA

PAGES = (".html", ".htm")

OF_SCORING = ("engine", "exact", "fast", "batch_size", "workers", "time_limit", "column")
"""Options without effect on scores that are there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, folders, globs, lists (.txt), or by itself what 'lifeiqa score -o' wrote "
        "(.parquet, .csv, .jsonl)",
    )
    add(
        "-o",
        "--out",
        type=Path,
        metavar="PAGE",
        help="page to write, .html (default: FOLDER-report.html, beside the folder)",
    )
    add("--open", action="store_true", help="open the page in the browser")
    add("--images", type=Path, help="folder to which the paths of a table are relative (default .)")
    add(
        "--maps",
        type=int,
        default=60,
        metavar="N",
        help="quality maps and attention of the N photos with the lowest scores (default 60)",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--append", action="store_true", help="renew the page; score what is new")
    again.add_argument("--overwrite", action="store_true", help="the same, and score all again")
    add_scoring(parser)
    parser.set_defaults(model=None)


def run(args: argparse.Namespace) -> int:
    """Score the photos as ``lifeiqa score`` does, or read the scores, and write the page.

    Returns:
        0, or 3 if some images have no score; the page lists them.

    Raises:
        UsageError: arguments that cannot be.
        FileExistsError: the page is there.
        FileNotFoundError: no such source, or none of the images of a table.
        ValueError: no image has a score, or the table is of other weights than the maps would be.
    """
    table = find_table(args.inputs)
    _check(args, table)
    if table is None:
        photos, network = score_photos(args), _load_network(args)
    else:
        _check_weights(args, table)
        network = _load_network(args)
        photos = read_photos(
            table, args.images or Path(), network.distortion_names if network else ()
        )
    print(write_report(photos, args.out, thresholds_of(args), network, args.maps))
    if args.open:
        webbrowser.open(args.out.absolute().as_uri())
    failed = [row for row, _ in photos if not row.has_score]
    for row in failed if table else ():
        print(f"{row.name}: {row.error or 'no score'}", file=sys.stderr)
    return PARTIAL if failed else 0


def find_table(inputs: list[str]) -> Path | None:
    """Return the scores that are given instead of images, if they are."""
    source = Path(inputs[0])
    return source if len(inputs) == 1 and source.suffix in FORMATS else None


def default_out(inputs: list[str]) -> Path:
    """Return the page that is written where none is named: beside the folder or the scores, else here.

    >>> default_out(["a.jpg", "b.jpg"]).name
    'report.html'
    """
    source = Path(inputs[0])
    if len(inputs) > 1 or not (source.is_dir() or find_table(inputs)):
        return Path("report.html")
    if source.name in ("", ".."):  # of this folder, its name is not in what was given
        source = source.resolve()
    return source.with_name(f"{source.stem if source.is_file() else source.name}-report.html")


def _check(args: argparse.Namespace, table: Path | None) -> None:
    """Refuse what cannot be, before anything is computed."""
    args.out = args.out or default_out(args.inputs)
    if args.out.suffix.lower() not in PAGES:
        raise UsageError(f"-o {args.out}: a page is written, so the name must end in .html")
    if args.out.exists() and not (args.overwrite or args.append):
        raise FileExistsError(
            f"{args.out}: exists; --append renews it, --overwrite scores all again, -o names another"
        )
    check_target(args.out)
    if args.maps < 0:
        raise UsageError(f"--maps must be at least 0, got {args.maps}")
    if table is None:
        if args.images is not None:
            raise UsageError("--images has no effect on images; it is for paths of a table")
        return
    if not table.exists():
        raise FileNotFoundError(f"{table}: no such file or folder")
    if args.images is not None and not args.images.is_dir():
        raise FileNotFoundError(f"--images {args.images}: no such folder")
    for name in OF_SCORING:
        if getattr(args, name) not in (None, False, "auto"):
            raise UsageError(f"--{name.replace('_', '-')} has no effect on the scores of {table}")


def _check_weights(args: argparse.Namespace, table: Path) -> None:
    """Take the model of the table's manifest, or see that the one that is given made the scores."""
    identity = read_identity(table)
    if identity is None or not args.maps:
        return
    named = args.model
    args.model = args.model or identity["model"]
    try:
        digests = find_model(args.model).digests()
    except UsageError as error:
        hint = "" if named else f"; {table} was scored with it. Say where it is, or pass --maps 0"
        raise UsageError(f"{error}{hint}") from error
    if identity["weights_sha256"] not in digests:
        raise ValueError(
            f"{table}: scored by other weights than {args.model!r} has here, so the maps would not fit; it was scored "
            f"with --model {identity['model']}. Give that model, score again, or pass --maps 0"
        )


def _load_network(args: argparse.Namespace) -> LifeIQA | None:
    """Return the network that draws the maps; None, and a line that says why, if there can be none."""
    if not args.maps:
        return None
    model = find_model(args.model or DEFAULT)
    if model.kind != "checkpoint":
        print(f"no quality maps: they need a checkpoint, and {model.path} is none", file=sys.stderr)
        return None
    if importlib.util.find_spec("torch") is None:
        print("no quality maps: they need torch, which is not installed", file=sys.stderr)
        return None
    from lifeiqa_plugin.checkpoints.factory import load

    return load(model).to(choose_device(args.device))
