"""``lifeiqa train``; the names of pyiqa's own command are kept."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

from lifeiqa_plugin.arguments import UsageError, signal_handler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa train`` takes."""
    parser.add_argument(
        "-opt",
        metavar="RECIPE",
        help="option file, or the name of one that comes along, such as quick",
    )
    parser.add_argument(
        "--new",
        type=Path,
        metavar="FILE",
        help="write a commented option file to begin with, from -opt or quick, and train nothing",
    )
    parser.add_argument(
        "--force-yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes, train:optim:lr=1e-4",
    )
    parser.add_argument(
        "--grid",
        nargs="+",
        metavar="KEY=VALUE,VALUE",
        help="a run for each combination of values, train:optim:lr=1e-4,3e-4; validation chooses which is tested",
    )
    parser.add_argument(
        "--auto-resume", action="store_true", help="go on from the last saved state of this name"
    )
    parser.add_argument("--splits", type=int, help="train splits 1 .. N and report them together")
    parser.add_argument(
        "--launcher", choices=["none", "pytorch"], default="none", help="pytorch: below torchrun"
    )


def run(args: argparse.Namespace) -> None:
    """Train, print the test results if there are any; or write an option file."""
    from lifeiqa_plugin.training.recipes import find_options, write_start

    if args.new is not None:
        _check_alone(args)
        write_start(args.new, find_options(args.opt or "quick"))
        print(f"wrote {args.new}; edit it, then: lifeiqa train -opt {args.new}")
        return
    if args.opt is None:
        raise UsageError(
            "-opt is missing: a recipe such as quick, or an option file; --new FILE writes one"
        )
    if args.grid and (args.splits is not None or args.launcher != "none"):
        raise UsageError("--grid trains one run after the other; leave out --splits and --launcher")
    _train(find_options(args.opt), args)


def _check_alone(args: argparse.Namespace) -> None:
    """Refuse what has no effect beside ``--new``."""
    given = {
        "--force-yml": args.force_yml,
        "--import": args.modules,
        "--auto-resume": args.auto_resume,
        "--splits": args.splits,
        "--grid": args.grid,
        "--launcher": args.launcher != "none",
    }
    if useless := [name for name, value in given.items() if value]:
        raise UsageError(f"--new trains nothing; leave out {', '.join(useless)}")


def _train(option_file: Path, args: argparse.Namespace) -> None:
    from lifeiqa_plugin.training.grid import read_grid, train_grid
    from lifeiqa_plugin.training.options import read_options

    if args.grid:
        runs = read_grid(option_file, args.force_yml, args.grid)
    else:
        runs = [read_options(option_file, args.force_yml)]
    for options in runs:
        options["import"] += args.modules
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    from pyiqa.utils.dist_util import get_dist_info

    from lifeiqa_plugin.training import launch
    from lifeiqa_plugin.training.splits import train_splits

    # Ctrl-C ends the process, which Python would not before a step is over; a killed run is resumed like any
    with signal_handler(signal.SIGINT, signal.SIG_DFL), launch.processes(args.launcher):
        if args.splits is not None:
            train_splits(runs[0], args.splits)
            return
        result = train_grid(runs) if args.grid else launch.run(runs[0], args.auto_resume)
        if result and get_dist_info()[0] == 0:
            print(json.dumps(result))
