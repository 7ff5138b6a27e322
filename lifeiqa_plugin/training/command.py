"""``lifeiqa train``; the names of pyiqa's own command are kept."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lifeiqa_plugin.arguments import add_import, check_file
from lifeiqa_plugin.training.options import read_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa train`` takes."""
    parser.add_argument("-opt", required=True, type=Path, help="option file")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes, train:optim:lr=1e-4",
    )
    add_import(parser)
    parser.add_argument(
        "--auto_resume", action="store_true", help="go on from the last saved state of this name"
    )
    parser.add_argument("--splits", type=int, help="train splits 1 .. N and report them together")
    parser.add_argument(
        "--launcher", choices=["none", "pytorch"], default="none", help="pytorch: below torchrun"
    )


def run(args: argparse.Namespace) -> None:
    """Train, print the test results if there are any."""
    check_file(args.opt, "an option file")
    options = read_options(args.opt, args.force_yml)
    options["import"] += args.modules
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    from pyiqa.utils.dist_util import get_dist_info

    from lifeiqa_plugin.training import launch
    from lifeiqa_plugin.training.splits import train_splits

    with launch.processes(args.launcher):
        if args.splits is not None:
            train_splits(options, args.splits)
            return
        result = launch.run(options, args.auto_resume)
        if result and get_dist_info()[0] == 0:
            print(json.dumps(result))
