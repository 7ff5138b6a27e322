"""What scores say of pairs: how often a metric prefers the image that people prefer (2AFC accuracy)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.photos import Number
from lifeiqa_plugin.correlation import Floats, Interval, interval, resamples
from lifeiqa_plugin.datasets.pairs import NAMES, VOTES

AFC = "2afc"
CEILING = "2afc_ceiling"


def measure_pairs(
    pairs: pd.DataFrame, rows: pd.DataFrame, direction: float, samples: int
) -> list[Number]:
    """Measure the share of votes that went to the image with the higher score; equal scores get half of them.

    Args:
        pairs: left, right, votes_left, votes_right.
        rows: name, score; pairs of which a score is missing count for nothing.
        direction: -1 for a metric that is lower better, else 1.
        samples: bootstrap samples of the pairs.

    Returns:
        that share, and the most that any scores can reach: the share of votes that went with the majority.
    """
    scores = direction * rows.set_index("name")["score"].astype(float)
    pairs = pairs[pairs[NAMES].isin(scores.index).all(axis=1)]
    left, right = (scores.loc[pairs[side]].to_numpy(float) for side in NAMES)
    votes = pairs[VOTES].to_numpy(float)
    share = (1 + np.sign(left - right)) / 2
    agreeing = votes[:, 0] * share + votes[:, 1] * (1 - share)
    found = {AFC: agreeing, CEILING: votes.max(axis=1)}
    return [
        Number(name, *_share(won, votes.sum(axis=1), samples), n=len(pairs))
        for name, won in found.items()
    ]


def _share(won: Floats, votes: Floats, samples: int) -> Interval:
    """Return the share of the votes of all pairs, and its interval over bootstrap samples of the pairs."""
    if not len(votes):
        return Interval(float("nan"), float("nan"), float("nan"))
    picked = resamples(len(votes), samples)
    drawn = won[picked].sum(axis=1) / votes[picked].sum(axis=1)
    return Interval(float(won.sum() / votes.sum()), *interval(drawn))
