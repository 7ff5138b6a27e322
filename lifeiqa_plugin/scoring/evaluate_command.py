"""``lifeiqa evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lifeiqa_plugin.arguments import (
    UsageError,
    add_device,
    add_import,
    check_file,
    check_target,
    choose_device,
    import_modules,
)
from lifeiqa_plugin.datasets.columns import Columns, add_columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa evaluate`` takes."""
    parser.add_argument("meta", type=Path, help="csv written by 'lifeiqa prepare'")
    parser.add_argument("root", type=Path, help="folder of the dataset")
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        default=[None],
        help="checkpoints, a line of results for each (default: the bundled one)",
    )
    parser.add_argument(
        "--split", help="split column, for example official_split (default: all rows)"
    )
    parser.add_argument(
        "--phase",
        default="test",
        choices=["train", "val", "test"],
        help="of the split (default test)",
    )
    add_columns(parser)
    parser.add_argument("--out", type=Path, help="csv name,mos,score,std to write, of one model")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default 0)")
    add_device(parser)
    add_import(parser)


def run(args: argparse.Namespace) -> None:
    """Score the rows, print SRCC, PLCC, KRCC and RMSE as JSON, with bootstrap 95 % intervals."""
    check_file(args.meta, "a csv written by 'lifeiqa prepare'")
    for model in args.model:
        if model is not None:
            check_file(model, "a checkpoint")
    if args.out is not None:
        if len(args.model) > 1:
            raise UsageError("--out takes the scores of one model")
        check_target(args.out)
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    import_modules(args.modules)
    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
    from lifeiqa_plugin.correlation import correlations
    from lifeiqa_plugin.datasets.table import read_labelled
    from lifeiqa_plugin.scoring.evaluation import (
        intervals,
        opinions,
        score_dataset,
        write_scores,
    )

    device = choose_device(args.device)
    columns = Columns(args.mos_column, args.name_column)
    dataset = read_labelled(args.meta, args.root, args.split, args.phase, columns)
    mos = opinions(dataset)
    for model in args.model:
        network = build_lifeiqa(pretrained_model_path=model).to(device)
        scores, stds = score_dataset(network, dataset, args.workers, progress=True)
        if args.out is not None:
            write_scores(args.out, dataset, scores, stds)
        about = {} if len(args.model) == 1 else {"model": str(model)}
        result = {"images": float(len(mos)), **correlations(scores, mos)}
        print(json.dumps(about | result | {"intervals": intervals(scores, mos)}), flush=True)
