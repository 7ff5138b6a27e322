"""Measure whether a score reads as an expected opinion score, and whether a larger ``std`` means a larger error.

    lifeiqa prepare biq2021 BIQ2021_FOLDER --drop-near-duplicates
    lifeiqa evaluate meta_info_biq2021.csv BIQ2021_FOLDER --split official_split -o scores.csv
    python measurements/calibration.py scores.csv

It scores nothing itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lifeiqa_plugin.correlation import correlations


class Calibration(NamedTuple):
    """What scores say of opinions, and ``std`` of errors.

    Attributes:
        slope: of the line from scores to opinions.
        offset: of the same.
        bias: mean of score - opinion.
        rmse: of score - opinion.
        std_srcc: rank correlation of ``std`` with the absolute error.
        inside: share of errors within one ``std``.
        inside_two: the same of two.
    """

    slope: float
    offset: float
    bias: float
    rmse: float
    std_srcc: float
    inside: float
    inside_two: float


def calibrate(table: pd.DataFrame) -> Calibration:
    """Compare ``score`` and ``std`` with ``mos``."""
    scores, std, mos = (table[name].to_numpy(float) for name in ("score", "std", "mos"))
    off = np.abs(scores - mos)
    return Calibration(
        *np.polyfit(scores, mos, 1),
        (scores - mos).mean(),
        correlations(scores, mos)["rmse"],
        correlations(std, off)["srcc"],
        (off < std).mean(),
        (off < 2 * std).mean(),
    )


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scores", type=Path, help="csv with mos, score and std")
    table = pd.read_csv(parser.parse_args().scores)
    found = calibrate(table)
    print(f"{len(table)} images: opinion = {found.slope:.3f} x score + {found.offset:+.3f}")
    print(f"score - opinion: mean {found.bias:+.4f}, RMSE {found.rmse:.4f}")
    print(f"SRCC of std with |error|: {found.std_srcc:.3f}")
    print(f"errors within 1 std: {found.inside:.1%}, within 2: {found.inside_two:.1%}")


if __name__ == "__main__":
    main()
