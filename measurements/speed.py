"""Measure seconds per image on the CPU, beside three metrics of pyiqa.

    python measurements/speed.py --rounds 5

The others are built untrained, as their weights would have to be downloaded and do not change the time. maniqa needs
minutes per image on two cores; ``--others musiq topiq_nr`` leaves it out.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import pyiqa
import timm
import torch
from measuring import (
    add_metric_arguments,
    conditions,
    create_lifeiqa,
    markdown_table,
    median_and_quartiles,
    median_ratio,
    time_in_turn,
)

OTHERS: dict[str, dict[str, Any]] = {
    "musiq": {},
    "topiq_nr": {"backbone_pretrain": False},
    "maniqa": {},
}
"""Metric of pyiqa -> its options for a network without downloads, beside ``pretrained=False``."""


def create_untrained(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Create a metric of pyiqa with random weights; maniqa asks timm for weights whatever its options say."""
    create_model = timm.create_model

    def without_weights(*args: Any, **kwargs: Any) -> torch.nn.Module:
        return create_model(*args, **kwargs | {"pretrained": False})

    with mock.patch.object(timm, "create_model", without_weights):
        return pyiqa.create_metric(name, device="cpu", pretrained=False, **OTHERS[name])


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--size", type=int, nargs=2, default=(1080, 800), metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument(
        "--others",
        nargs="*",
        choices=list(OTHERS),
        default=list(OTHERS),
        help="metrics to compare with",
    )
    add_metric_arguments(parser)
    args = parser.parse_args()
    torch.manual_seed(0)
    width, height = args.size
    image = torch.rand(1, 3, height, width)
    metrics = {"lifeiqa": create_lifeiqa(args)} | {
        name: create_untrained(name) for name in args.others
    }
    seconds = time_in_turn(
        {name: functools.partial(metric, image) for name, metric in metrics.items()}, args.rounds
    )
    rows = [
        [name, median_and_quartiles(times), f"{median_ratio(times, seconds['lifeiqa']):.1f}"]
        for name, times in seconds.items()
    ]
    print(f"{conditions()}; one {width}x{height} image, {args.rounds} rounds in turn\n")
    print(markdown_table(["metric", "seconds, median (quartiles)", "times lifeiqa"], rows))


if __name__ == "__main__":
    main()
