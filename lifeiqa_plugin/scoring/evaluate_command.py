"""``lifeiqa evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lifeiqa_plugin.arguments import add_device, check_file, choose_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa evaluate`` takes."""
    parser.add_argument("meta", type=Path, help="csv written by 'lifeiqa prepare'")
    parser.add_argument("root", type=Path, help="folder of the dataset")
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
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Score the rows, print SRCC, PLCC, KRCC and RMSE as JSON."""
    check_file(args.meta, "a csv written by 'lifeiqa prepare'")
    if args.model is not None:
        check_file(args.model, "a checkpoint")
    from lifeiqa_plugin.allocator import keep_freed_memory

    keep_freed_memory()  # before anything large is allocated
    from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
    from lifeiqa_plugin.scoring.evaluation import evaluate
    from lifeiqa_plugin.training.dataset import LifeIQADataset

    device = choose_device(args.device)
    opt = {"phase": args.phase, "meta_info_file": str(args.meta), "dataroot_target": str(args.root)}
    dataset = LifeIQADataset(opt | {"split_index": args.split})
    dataset.phase = "test"  # whole images, whichever rows they are
    dataset.check_files()
    network = build_lifeiqa(pretrained_model_path=args.model).to(device)
    print(json.dumps(evaluate(network, dataset, args.out)))
