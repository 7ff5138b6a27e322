"""Measure whether a model names distortions right: on clean photos that are distorted in one way each.

    python measurements/naming.py FOLDER                     all images of a folder of clean photos
    python measurements/naming.py FOLDER --checkpoint FILE   of other weights

Larger photos are first reduced to a shorter side of 512. Every generator of each kind in ``distortions/kinds.py``
distorts every photo at severities .25, .5 and .75. Printed for each kind: the area under the ROC curve of its strength
at .5, against all other kinds at .5 and clean photos; how often it is the largest there, and which other is; the rank
correlation of its strength with the severity. The largest strength on clean photos says how often something is named
where nothing is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from measuring import conditions, markdown_table
from scipy.stats import mannwhitneyu
from torch import Generator
from tqdm import tqdm

from lifeiqa_plugin.benchmark.photos import find_photos, read_reduced
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.correlation import correlations
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.network.lifeiqa import LifeIQA

SEVERITIES = (0.25, 0.5, 0.75)
MIDDLE = 0.5
CLEAN = "clean"


def name_all(network: LifeIQA, photos: list[Path], side: int, seed: int) -> pd.DataFrame:
    """Return a row for each distorted photo: kind, severity, and the strength of each kind that the network names."""
    rows: list[dict[str, Any]] = []

    def add(image: Any, kind: str, severity: float) -> None:
        strengths = network(image[None], return_details=True).distortions[0].tolist()
        named = dict(zip(network.distortion_names, strengths, strict=True))
        rows.append({"kind": kind, "severity": severity} | named)

    for photo in tqdm(photos, unit="photo"):
        clean = read_reduced(str(photo), side)
        add(clean, CLEAN, 0.0)
        for kind in network.distortion_names:
            for distort in KINDS[kind].generators:
                for severity in SEVERITIES:
                    generator = Generator().manual_seed(seed)
                    add(distort(clean, severity, generator), kind, severity)
    return pd.DataFrame(rows)


class Found(NamedTuple):
    """How well one distortion is named, see above."""

    kind: str
    area: float
    named: float
    taken_for: str
    rank: float


def evaluate(table: pd.DataFrame, kind: str) -> Found:
    """Return how well a kind is named."""
    names = [name for name in table if name in KINDS]
    middle = table[table.severity.isin((MIDDLE, 0.0))]
    own = middle[middle.kind == kind]
    others = middle[middle.kind != kind]
    area = mannwhitneyu(own[kind], others[kind]).statistic / (len(own) * len(others))
    largest = own[names].idxmax(axis=1)
    wrong = largest[largest != kind].value_counts()
    taken_for = ", ".join(f"{name} {count}" for name, count in wrong.items())
    levels = table[table.kind == kind]
    rank = correlations(levels[kind], levels.severity)["srcc"]
    return Found(kind, area, (largest == kind).mean(), taken_for, rank)


def evaluate_all(table: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return the share named right at each severity, and median and 90 % of the largest strength on clean photos."""
    names = [name for name in table if name in KINDS]
    is_right = table[names].idxmax(axis=1) == table.kind
    clean = table.loc[table.kind == CLEAN, names].max(axis=1)
    shares = [float(is_right[table.severity == severity].mean()) for severity in SEVERITIES]
    return shares, list(np.quantile(clean, [0.5, 0.9]))


def main() -> None:
    """Parse the command line, distort, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="clean photos")
    parser.add_argument("--count", type=int, help="photos to take (default: all)")
    parser.add_argument("--side", type=int, default=512, help="shorter side (default 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the random distortions")
    parser.add_argument("--checkpoint", type=Path, help="default: the weights that ship")
    args = parser.parse_args()
    network = build_lifeiqa(pretrained_model_path=args.checkpoint).eval()
    if not network.distortion_names:
        raise SystemExit("this model names no distortions; give one with network: distortions")
    photos = find_photos(args.folder, args.count)
    table = name_all(network, photos, args.side, args.seed)
    print(f"{conditions()}; {len(photos)} photos, seed {args.seed}\n")
    header = ["distortion", "area at .5", "named", "else taken for", "rank of severity"]
    found = [evaluate(table, kind) for kind in network.distortion_names]
    rows = [
        [f.kind, f"{f.area:.3f}", f"{f.named:.0%}", f.taken_for, f"{f.rank:.2f}"] for f in found
    ]
    print(markdown_table(header, rows))
    shares, (low, high) = evaluate_all(table)
    right = ", ".join(f"{share:.1%}" for share in shares)
    print(f"\nnamed right at {', '.join(map(str, SEVERITIES))}: {right}")
    print(f"largest strength on clean photos: median {low:.2f}, 90 % below {high:.2f}")


if __name__ == "__main__":
    main()
