"""The command ``lifeiqa``: ``prepare`` a set of images, ``train`` on it, ``evaluate`` the result, ``benchmark`` it.

Each subcommand imports what it needs when it runs, so that ``lifeiqa --help`` is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``lifeiqa prepare``."""
    parser = commands.add_parser(
        "prepare", help="write the meta csv of a set, with splits, and check its files"
    )
    parser.add_argument(
        "set", help="'folder' for your own images and a csv, or a set that docs/training.md lists"
    )
    parser.add_argument("root", type=Path, help="folder of the set, as it is when unpacked")
    parser.add_argument(
        "--scores",
        type=Path,
        help="csv name,mos[,reference] of a 'folder' (default ROOT/scores.csv)",
    )
    parser.add_argument("--out", type=Path, help="csv to write (default meta_info_<set>.csv)")
    parser.add_argument(
        "--mos-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="scale of a 'folder'"
    )
    parser.add_argument(
        "--lower-better", action="store_true", help="the scores of a 'folder' are worse when higher"
    )
    parser.add_argument(
        "--splits", type=int, default=10, help="number of seeded splits (default 10)"
    )
    parser.add_argument(
        "--drop-near-duplicates",
        action="store_true",
        help="keep near-duplicates of official test images out",
    )
    parser.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> None:
    """Write the meta csv and print what it holds."""
    from lifeiqa_plugin.datasets.prepare import prepare

    out = args.out or Path(f"meta_info_{args.set}.csv")
    described = prepare(
        args.set,
        args.root,
        out,
        args.scores,
        args.mos_range,
        args.lower_better,
        args.splits,
        args.drop_near_duplicates,
    )
    print(described)


def add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``lifeiqa train``; the names of pyiqa's own command are kept."""
    parser = commands.add_parser("train", help="train as an option file says")
    parser.add_argument("-opt", required=True, type=Path, help="option file")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes, train:optim:lr=1e-4",
    )
    parser.add_argument(
        "--auto_resume", action="store_true", help="go on from the last saved state of this name"
    )
    parser.add_argument("--splits", type=int, help="train splits 1 .. N and report them together")
    parser.add_argument(
        "--launcher", choices=["none", "pytorch"], default="none", help="pytorch: below torchrun"
    )
    parser.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> None:
    """Train, print the test results if there are any."""
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    from pyiqa.utils.dist_util import get_dist_info

    from lifeiqa_plugin.training.launch import processes, train, train_splits

    with processes(args.launcher):
        if args.splits is not None:
            train_splits(args.opt, args.splits, args.force_yml)
            return
        result = train(args.opt, args.force_yml, args.auto_resume)
        if result and get_dist_info()[0] == 0:
            print(json.dumps(result))


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``lifeiqa evaluate``."""
    parser = commands.add_parser(
        "evaluate", help="agreement of a checkpoint with the scores of a prepared set"
    )
    parser.add_argument("meta", type=Path, help="csv written by 'lifeiqa prepare'")
    parser.add_argument("root", type=Path, help="folder of the set")
    parser.add_argument("--model", type=Path, help="checkpoint (default: the bundled one)")
    parser.add_argument(
        "--split", help="split column, for example official_split (default: all rows)"
    )
    parser.add_argument(
        "--phase",
        default="test",
        choices=["train", "val", "test"],
        help="of the split (default test)",
    )
    parser.add_argument("--out", type=Path, help="csv name,mos,score,std to write")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> None:
    """Score the rows, print SRCC, PLCC, KRCC and RMSE as JSON."""
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
    from lifeiqa_plugin.scoring.evaluation import evaluate
    from lifeiqa_plugin.training.dataset import LifeIQADataset

    opt = {"phase": args.phase, "meta_info_file": str(args.meta), "dataroot_target": str(args.root)}
    dataset = LifeIQADataset(opt | {"split_index": args.split})
    dataset.phase = "test"  # whole images, whichever rows they are
    dataset.check_files()
    network = build_lifeiqa(pretrained_model_path=args.model).to(args.device)
    print(json.dumps(evaluate(network, dataset, args.out)))


def add_benchmark(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``lifeiqa benchmark``; the names of pyiqa's own script are kept."""
    parser = commands.add_parser(
        "benchmark", help="agreement and cost of metrics of pyiqa, side by side"
    )
    parser.add_argument(
        "-m", nargs="+", default=[], metavar="METRIC", help="metrics of pyiqa, see pyiqa -ls"
    )
    parser.add_argument(
        "-d",
        nargs="+",
        default=[],
        metavar="SET",
        help="CSV[@FOLDER[@SPLIT[=PHASE]]], or a set that pyiqa knows",
    )
    parser.add_argument(
        "--metric_opt", type=Path, metavar="YML", help="further metrics, in pyiqa's format"
    )
    parser.add_argument(
        "--data_opt", type=Path, metavar="YML", help="further sets, in pyiqa's format"
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
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="for scores (default: cuda if there is one)"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default 0)")
    parser.add_argument(
        "--samples", type=int, default=1000, help="bootstrap samples (default 1000)"
    )
    parser.add_argument(
        "--thumbnails", type=int, default=2000, help="small images of a set to embed (default 2000)"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="tables of kept scores only; computes none"
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
    parser.set_defaults(run=run_benchmark)


def run_benchmark(args: argparse.Namespace) -> None:
    """Compare; raises KeyboardInterrupt again once what was done is written."""
    import torch

    from lifeiqa_plugin.benchmark.run import Request, benchmark
    from lifeiqa_plugin.benchmark.speed import SIZES, Protocol, parse_size

    sizes = tuple(parse_size(text) for text in args.sizes) or SIZES
    protocol = Protocol(sizes, args.rounds, args.batch, args.slow, not args.no_memory)
    has_cuda = torch.cuda.is_available()
    request = Request(
        args.m, args.d, args.metric_opt, args.data_opt, args.out, tuple(args.by),
        device=args.device or ("cuda" if has_cuda else "cpu"),
        speed_devices=("cpu", "cuda") if has_cuda and not args.cpu_only else ("cpu",),
        protocol=None if args.no_speed else protocol,
        workers=args.workers, samples=args.samples, thumbnails=args.thumbnails, redraw=args.redraw,
    )  # fmt: skip
    if not benchmark(request):
        raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run the command line; an error that the user can act on is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="lifeiqa", description="Train, evaluate and compare Life-IQA."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_prepare, add_train, add_evaluate, add_benchmark):
        add(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (OSError, ValueError, TypeError, FloatingPointError) as error:
        print(f"lifeiqa: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
