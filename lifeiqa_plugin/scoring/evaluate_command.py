"""``lifeiqa evaluate``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from lifeiqa_plugin.arguments import (
    UsageError,
    add_device,
    check_file,
    check_target,
    choose_device,
    find_model,
)
from lifeiqa_plugin.checkpoints.models import BUNDLED, DEFAULT
from lifeiqa_plugin.datasets.table import Columns, add_columns
from lifeiqa_plugin.scoring.workers import add_workers, check_workers, count_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa evaluate`` takes."""
    parser.add_argument("meta", type=Path, help="csv written by 'lifeiqa prepare'")
    parser.add_argument("root", type=Path, help="folder of the dataset")
    parser.add_argument(
        "--model",
        nargs="+",
        default=[DEFAULT],
        help=f"{', '.join(BUNDLED)} or checkpoints, a line of results for each (default {DEFAULT})",
    )
    parser.add_argument(
        "--split", help="split column, for example official_split (default: all rows)"
    )
    parser.add_argument(
        "--phase",
        choices=["train", "val", "test"],
        help="of the split (default test)",
    )
    add_columns(parser)
    parser.add_argument(
        "-o", "--out", type=Path, help="csv name,mos,score,std to write, of one model"
    )
    add_workers(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Score the rows, print SRCC, PLCC, KRCC and RMSE as JSON, with bootstrap 95 % intervals."""
    check_file(args.meta, "a csv of images and scores")
    if not args.root.is_dir():
        raise UsageError(f"{args.root}: no such folder; expected that of the images")
    if args.phase is not None and args.split is None:
        raise UsageError("--phase chooses rows of a split column; name it with --split")
    check_workers(args.workers)
    models = {name: find_model(name) for name in args.model}
    for model in models.values():
        if model.kind != "checkpoint":
            raise UsageError(f"--model {model.name}: {model.kind}; evaluate takes checkpoints")
    if args.out is not None:
        if len(models) > 1:
            raise UsageError("--out takes the scores of one model")
        if args.out.suffix.lower() != ".csv":
            raise UsageError(f"--out {args.out}: expected the name of a csv to write")
        if args.out.resolve() == args.meta.resolve():
            raise UsageError(f"--out {args.out}: this is the csv that is read; give another name")
        check_target(args.out)
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    from lifeiqa_plugin.checkpoints.factory import load
    from lifeiqa_plugin.datasets.labelled import check_images, read_labelled
    from lifeiqa_plugin.datasets.table import check_mos_range
    from lifeiqa_plugin.datasets.trained_on import count_in_words, trained_on
    from lifeiqa_plugin.scoring.evaluation import evaluate

    device = choose_device(args.device)
    only = {} if args.split is None else {args.split: args.phase or "test"}
    columns = Columns(args.mos_column, args.name_column)
    dataset = read_labelled(args.meta, args.root, columns=columns, only=only)
    networks = {name: load(model) for name, model in models.items()}
    mos = [image.mos for image in dataset.images]
    for network in networks.values():
        check_mos_range(mos, network.score_range, str(args.meta))
    check_images(dataset.images)
    highest = {name: round(value, 4) for name, value in dataset.ceiling.items()}
    for name, network in networks.items():
        network.to(device)
        result = evaluate(
            network,
            dataset.images,
            args.out,
            count_workers(args.workers, len(mos)),
            progress=True,
            with_intervals=True,
            learnt=trained_on(models[name]),
        )
        if result["trained_on"]:
            count = count_in_words(result["trained_on"], len(mos))
            print(f"{name}: {count}, see not_trained_on", file=sys.stderr)
        about = {} if len(networks) == 1 else {"model": name}
        if math.isfinite(highest["srcc"]):
            result["ceiling"] = highest
        print(json.dumps(about | result), flush=True)
