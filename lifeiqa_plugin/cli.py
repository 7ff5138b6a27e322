"""The command ``lifeiqa``: ``prepare`` a set of pictures, ``train`` on it, ``evaluate`` the result.

Each subcommand imports what it needs when it runs, so that ``lifeiqa --help`` is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``lifeiqa prepare``."""
    parser = commands.add_parser("prepare", help="write the meta csv of a set, with splits, and check its files")
    parser.add_argument("set", help="'folder' for your own pictures and a csv, or a set that docs/training.md lists")
    parser.add_argument("root", type=Path, help="folder of the set, as it is when unpacked")
    parser.add_argument("--scores", type=Path, help="csv name,mos[,reference] of a 'folder' (default ROOT/scores.csv)")
    parser.add_argument("--out", type=Path, help="csv to write (default meta_info_<set>.csv)")
    parser.add_argument("--mos-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="scale of a 'folder'")
    parser.add_argument("--lower-better", action="store_true", help="the scores of a 'folder' are worse when higher")
    parser.add_argument("--splits", type=int, default=10, help="number of seeded splits (default 10)")
    parser.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> None:
    """Write the meta csv and print what it holds."""
    from lifeiqa_plugin.prepare import prepare

    out = args.out or Path(f"meta_info_{args.set}.csv")
    print(prepare(args.set, args.root, out, args.scores, args.mos_range, args.lower_better, args.splits))


def add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``lifeiqa train``; the names of pyiqa's own command are kept."""
    parser = commands.add_parser("train", help="train as an option file says")
    parser.add_argument("-opt", required=True, type=Path, help="option file")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="changes, train:optim:lr=1e-4")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the last saved state of this name")
    parser.add_argument("--splits", type=int, help="train splits 1 .. N and report them together")
    parser.add_argument("--launcher", choices=["none", "pytorch"], default="none", help="pytorch: below torchrun")
    parser.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> None:
    """Train, print the test results if there are any."""
    from pyiqa.utils.dist_util import get_dist_info

    from lifeiqa_plugin.launch import processes, train, train_splits

    with processes(args.launcher):
        if args.splits is not None:
            train_splits(args.opt, args.splits, args.force_yml)
            return
        result = train(args.opt, args.force_yml, args.auto_resume)
        if result and get_dist_info()[0] == 0:
            print(json.dumps(result))


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``lifeiqa evaluate``."""
    parser = commands.add_parser("evaluate", help="agreement of a checkpoint with the scores of a prepared set")
    parser.add_argument("meta", type=Path, help="csv written by 'lifeiqa prepare'")
    parser.add_argument("root", type=Path, help="folder of the set")
    parser.add_argument("--model", type=Path, help="checkpoint (default: the bundled one)")
    parser.add_argument("--split", help="split column, for example official_split (default: all rows)")
    parser.add_argument("--phase", default="test", choices=["train", "val", "test"], help="of the split (default test)")
    parser.add_argument("--out", type=Path, help="csv name,mos,score to write")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> None:
    """Score the rows, print SRCC, PLCC, KRCC and RMSE as JSON."""
    from lifeiqa_plugin.data import LifeIQADataset
    from lifeiqa_plugin.evaluation import evaluate
    from lifeiqa_plugin.weights import build_lifeiqa

    opt = {"phase": args.phase, "meta_info_file": str(args.meta), "dataroot_target": str(args.root)}
    dataset = LifeIQADataset(opt | {"split_index": args.split})
    dataset.phase = "test"  # whole pictures, whichever rows they are
    dataset.check_files()
    network = build_lifeiqa(pretrained_model_path=args.model).to(args.device)
    print(json.dumps(evaluate(network, dataset, args.out)))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; an error that the user can act on is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(prog="lifeiqa", description="Train and evaluate Life-IQA.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_prepare, add_train, add_evaluate):
        add(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (OSError, ValueError, TypeError, FloatingPointError) as error:
        print(f"lifeiqa: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
