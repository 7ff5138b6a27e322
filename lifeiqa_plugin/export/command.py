"""``lifeiqa export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from lifeiqa_plugin.arguments import UsageError, add_model, find_model
from lifeiqa_plugin.runtimes.metadata import OUTPUTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``lifeiqa export`` takes."""
    add_model(parser, "a checkpoint")
    parser.add_argument(
        "--format",
        choices=["onnx", "openvino", "torch-export", "pyiqa"],
        help="default: what the ending says, .onnx, .xml (openvino, which writes .bin too), .pt2 (torch-export) or "
        ".pth (pyiqa: weights for its load_weights)",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--outputs",
        nargs="+",
        choices=OUTPUTS,
        help="default: all that the model has; lifeiqa score needs score and std",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="torch-export: of the images (default: a square of the working size)",
    )
    parser.add_argument(
        "--link-weights",
        action="store_true",
        help="onnx: refer to the weights in the checkpoint, which stays beside the file",
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="PHOTOS",
        help="onnx: convolutions in 8 bits, calibrated with images of this folder; says how far scores are off",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def run(args: argparse.Namespace) -> None:
    """Export, and say what was written."""
    from lifeiqa_plugin.export.write import FORMATS, export_checkpoint

    by_ending = {suffix: name for name, (suffix, _) in FORMATS.items()}
    if not args.format and args.out.suffix not in by_ending:
        raise UsageError(f"-o {args.out}: the name must end in one of {', '.join(by_ending)}")
    metadata = export_checkpoint(
        args.out,
        args.format or by_ending[args.out.suffix],
        find_model(args.model),
        outputs=tuple(args.outputs) if args.outputs else None,
        size=tuple(args.size) if args.size else None,
        link_weights=args.link_weights,
        photos=args.int8,
        overwrite=args.overwrite,
    )
    kind = "whole images" if metadata.whole_image else f"crops of {metadata.crop_size}"
    size = f"{args.out.stat().st_size:,} bytes"
    print(f"{args.out}: {size}, {kind}, {metadata.precision}, weights {metadata.weights_sha256}")
