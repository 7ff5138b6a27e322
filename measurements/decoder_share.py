"""Measure how much of a forward pass the decoder takes, with the Swin-B of the paper on the CPU.

    python measurements/decoder_share.py --rounds 15

Backbone and decoder are timed in turn, on the same crops; the share is decoder / (backbone + decoder).
"""

from __future__ import annotations

import argparse
import statistics

import torch
from measuring import conditions, markdown_table, median_and_quartiles

from lifeiqa_plugin.benchmark.timing import time_in_turn
from lifeiqa_plugin.network.config import PRESETS, SWIN_B
from lifeiqa_plugin.network.lifeiqa import LifeIQA


@torch.inference_mode()
def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--backbone", default=SWIN_B)
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for preset, options in PRESETS.items():
        network = LifeIQA(args.backbone, **options).eval()
        crops = torch.rand(args.batch, 3, network.crop_size, network.crop_size)
        stages = network.backbone(crops)
        if getattr(network.backbone, "output_fmt", None) == "NHWC":
            stages = [stage.permute(0, 3, 1, 2) for stage in stages]
        parts = {
            "backbone": lambda n=network, x=crops: n.backbone(x),
            "decoder": lambda n=network, s=stages: n.decoder(*s),
        }
        seconds = time_in_turn(parts, args.rounds)
        shares = [d / (b + d) for b, d in zip(seconds["backbone"], seconds["decoder"], strict=True)]
        timings = [median_and_quartiles([1000 * s for s in seconds[part]], 1) for part in parts]
        rows.append([preset, *timings, f"{100 * statistics.median(shares):.2f} %"])
    print(f"{conditions()}; {args.backbone}, batch {args.batch}, {args.rounds} rounds in turn\n")
    print(markdown_table(["preset", "backbone, ms", "decoder, ms", "decoder's share"], rows))


if __name__ == "__main__":
    main()
