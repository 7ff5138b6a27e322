"""Tables of agreement: one line for each set and metric, one for each group, one for each pair of metrics, failures."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from lifeiqa_plugin.benchmark.datasets import LabelledDataset
from lifeiqa_plugin.benchmark.metrics import Candidate
from lifeiqa_plugin.benchmark.scores import NOT_SCORED
from lifeiqa_plugin.correlation import CORRELATIONS, STATISTICS, compare, holm, measure

SMALLEST_GROUP = 5
"""Images below which a group gets no line."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Accuracy:
    """All tables.

    ``overall``: set, metric, n, failed, missing, note, and for each statistic its value, ``_low`` and ``_high``.
    ``groups``: set, column, group, metric, n and the same for the correlations.
    ``pairs``: set, a, b, n, SRCC of a minus that of b with interval, p (Williams, Holm-corrected), whether significant.
    ``failures``: set, metric, name, error.
    """

    overall: pd.DataFrame
    groups: pd.DataFrame
    pairs: pd.DataFrame
    failures: pd.DataFrame


def tabulate(
    scores: pd.DataFrame,
    candidates: list[Candidate],
    sets: list[LabelledDataset],
    notes: dict[str, str],
    samples: int,
) -> Accuracy:
    """Compute all tables from kept scores.

    Args:
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        candidates: whose directions are applied.
        sets: in the order of the lines.
        notes: metric -> why it has no scores.
        samples: bootstrap samples.
    """
    directions = {
        candidate.name: -1.0 if candidate.lower_better else 1.0 for candidate in candidates
    }
    overall, groups, pairs, failures = [], [], [], []
    work = [(chosen, candidate) for chosen in sets for candidate in candidates]
    for chosen, candidate in tqdm(work, desc="statistics", unit="metric"):
        name = candidate.name
        if candidate.mode == "FR" and not chosen.has_references:
            overall.append(
                {"set": chosen.name, "metric": name, "n": 0, "note": "the set has no references"}
            )
            continue
        rows = scores[(scores["set"] == chosen.name) & (scores["metric"] == name)]
        good, bad = rows[rows["error"] == ""], rows[rows["error"] != ""]
        line = {"set": chosen.name, "metric": name, "n": len(good), "note": notes.get(name, "")}
        if len(good) or not line["note"]:
            missing = int((bad["error"] == NOT_SCORED).sum())
            line |= {"failed": len(bad) - missing, "missing": missing} | _measured(
                good, directions[name], samples, True
            )
            failures.append(bad.loc[bad["error"] != NOT_SCORED, ["set", "metric", "name", "error"]])
            groups += _groups(good, chosen, name, directions[name], samples)
        overall.append(line)
    for chosen in sets:
        pairs += _pairs(scores[scores["set"] == chosen.name], directions, samples)
    columns = ["set", "metric", "n", "failed", "missing", *_columns(STATISTICS), "note"]
    return Accuracy(
        pd.DataFrame(overall, columns=columns),
        pd.DataFrame(
            groups, columns=["set", "column", "group", "metric", "n", *_columns(CORRELATIONS)]
        ),
        pd.DataFrame(
            pairs, columns=["set", "a", "b", "n", "difference", "low", "high", "p", "significant"]
        ),
        pd.concat(failures, ignore_index=True)
        if failures
        else pd.DataFrame(columns=["set", "metric", "name", "error"]),
    )


def _columns(names: tuple[str, ...]) -> list[str]:
    return [name + suffix for name in names for suffix in ("", "_low", "_high")]


def _measured(rows: pd.DataFrame, direction: float, samples: int, fitted: bool) -> dict[str, float]:
    found = measure(
        direction * rows["score"].to_numpy(float), rows["mos"].to_numpy(float), samples, fitted
    )
    values = [(name, value) for name, value in found.items()]
    return {
        f"{n}{suffix}": x
        for n, v in values
        for suffix, x in zip(("", "_low", "_high"), v, strict=True)
    }


def _groups(
    rows: pd.DataFrame, chosen: LabelledDataset, metric: str, direction: float, samples: int
) -> list[dict[str, object]]:
    """Measure each value of each group column without fitted curves, for which groups are often too small."""
    lines: list[dict[str, object]] = []
    for column in dict.fromkeys(column for image in chosen.images for column in image.groups):
        for group, members in rows.groupby(column):
            if len(members) >= SMALLEST_GROUP:
                about = {
                    "set": chosen.name,
                    "column": column,
                    "group": group,
                    "metric": metric,
                    "n": len(members),
                }
                lines.append(about | _measured(members, direction, samples, False))
    return lines


def _pairs(
    scores: pd.DataFrame, directions: dict[str, float], samples: int
) -> list[dict[str, object]]:
    """Compare every two metrics on the images that both have scored."""
    good = scores[scores["error"] == ""]
    wide = good.pivot(index="name", columns="metric", values="score")
    mos = good.drop_duplicates("name").set_index("name")["mos"]
    lines: list[dict[str, object]] = []
    metrics = [name for name in directions if name in wide]
    for a, b in tqdm(list(itertools.combinations(metrics, 2)), desc="pairs", unit="pair"):
        both = wide[[a, b]].dropna()
        x, y = directions[a] * both[a].to_numpy(float), directions[b] * both[b].to_numpy(float)
        found = compare(x, y, mos.loc[both.index].to_numpy(float), samples)
        difference = found.difference
        lines.append(
            {
                "set": scores["set"].iloc[0],
                "a": a,
                "b": b,
                "n": found.n,
                "difference": difference.value,
            }
            | {"low": difference.low, "high": difference.high, "p": found.p}
        )
    for line, p in zip(
        lines, holm(np.array([line["p"] for line in lines], dtype=float)), strict=True
    ):
        line |= {"p": p, "significant": bool(p < SIGNIFICANT)}
    return lines
