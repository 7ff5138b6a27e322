"""``lifeiqa prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from lifeiqa_plugin.arguments import UsageError, check_target
from lifeiqa_plugin.datasets.table import Columns, add_columns

OPTIONS = (
    *("scores", "mos_range", "lower_better", "splits", "group", "skip_missing"),
    *("drop_near_duplicates", "group_near_duplicates"),
)
"""Arguments that ``prepare`` takes under the same name."""

SPLITS = 10
"""How many seeded splits are drawn by default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa prepare`` takes."""
    parser.add_argument(
        "dataset",
        help="'folder' for your own images and a csv, 'pairs' for votes between two images, "
        "or one that docs/training.md lists",
    )
    parser.add_argument("root", type=Path, help="folder of the dataset, as it is when unpacked")
    parser.add_argument(
        "--scores",
        type=Path,
        help="csv or xlsx name,mos[,reference] of a 'folder' (default ROOT/scores.csv or .xlsx); "
        "csv left,right,winner or left,right,votes_left,votes_right of 'pairs' (default ROOT/pairs.csv)",
    )
    parser.add_argument(
        "--scale",
        type=Path,
        help="csv name,mos to write too: a scale fitted to the votes of 'pairs'",
    )
    add_columns(parser)
    parser.add_argument(
        "-o", "--out", type=Path, help="csv to write (default meta_info_<dataset>.csv)"
    )
    parser.add_argument(
        "--mos-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="scale of a 'folder'"
    )
    parser.add_argument(
        "--lower-better", action="store_true", help="the scores of a 'folder' are worse when higher"
    )
    parser.add_argument(
        "--splits", type=int, default=SPLITS, help="number of seeded splits (default 10)"
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="leave out rows whose file is not there"
    )
    parser.add_argument(
        "--drop-near-duplicates",
        action="store_true",
        help="keep near-duplicates of official test images out",
    )
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        help="column of a 'folder' whose values no seeded split separates, for example camera",
    )
    parser.add_argument(
        "--group-near-duplicates",
        action="store_true",
        help="keep near-duplicates on one side of every seeded split",
    )


def run(args: argparse.Namespace) -> None:
    """Write the csv and print what it holds."""
    from lifeiqa_plugin.datasets.pairs import prepare_pairs
    from lifeiqa_plugin.datasets.prepare import prepare

    out = args.out or Path(f"meta_info_{args.dataset}.csv")
    check_target(out)
    if args.dataset == "pairs":
        print(prepare_pairs(args.root, _file_of_pairs(args), out, args.scale))
        return
    if args.scale:
        raise UsageError(f"--scale describes pairs, not {args.dataset}")
    columns = Columns(args.mos_column, args.name_column)
    given = {name: getattr(args, name) for name in OPTIONS}
    print(prepare(args.dataset, args.root, out, columns=columns, **given))


def _file_of_pairs(args: argparse.Namespace) -> Path:
    """Return the csv of pairs to read.

    Raises:
        UsageError: an option that is of other datasets is given.
    """
    others = {"mos_column", "name_column", *OPTIONS} - {"scores"}
    if given := sorted(name for name in others if getattr(args, name) not in (None, False, SPLITS)):
        raise UsageError(f"--{given[0].replace('_', '-')} does not describe pairs")
    return Path(args.scores or args.root / "pairs.csv")
