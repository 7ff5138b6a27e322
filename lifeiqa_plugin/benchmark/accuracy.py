"""What scores are worth: correlations with people by dataset, group and pair; ladders and stability of photos."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from lifeiqa_plugin.benchmark.datasets import LabelledDataset
from lifeiqa_plugin.benchmark.metrics import Candidate
from lifeiqa_plugin.benchmark.photos import (
    Ladders,
    Stability,
    measure_ladders,
    measure_stability,
)
from lifeiqa_plugin.benchmark.scores import NOT_SCORED
from lifeiqa_plugin.correlation import (
    CORRELATIONS,
    STATISTICS,
    Floats,
    Interval,
    compare,
    fit,
    holm,
    measure,
    srcc_within,
)

SMALLEST_GROUP = 5
"""Images below which a group gets no line."""
SIGNIFICANT = 0.05
WITHIN = "srcc_within"
"""Mean of the SRCC within each group of a dataset's ``within`` column."""
NO_INTERVAL = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Result:
    """One metric on one dataset, or on one group of its images.

    Attributes:
        dataset: its name.
        metric: its name.
        n: images with a score.
        failed: images on which the metric failed; None if it was not run.
        missing: images that were not scored yet; None likewise.
        values: statistic -> value with interval; empty if there are no scores.
        note: what a reader has to know.
        column: group column; empty for all images.
        group: its value.
    """

    dataset: str
    metric: str
    n: int = 0
    failed: int | None = None
    missing: int | None = None
    values: Mapping[str, Interval] = field(default_factory=dict)
    note: str = ""
    column: str = ""
    group: str = ""

    def value(self, statistic: str) -> Interval:
        """Return a statistic, NaN if there is none."""
        return self.values.get(statistic, NO_INTERVAL)


@dataclass(frozen=True)
class Pair:
    """Two metrics on the images that both have scored: SRCC of ``a`` minus that of ``b``, and Holm-corrected p."""

    dataset: str
    a: str
    b: str
    n: int
    difference: Interval
    p: float

    @property
    def is_significant(self) -> bool:
        """Whether the difference is, at 5 %."""
        return bool(self.p < SIGNIFICANT)


@dataclass(frozen=True)
class Accuracy:
    """All that scores say of metrics; of photos without opinion scores by (dataset, metric)."""

    datasets: Sequence[LabelledDataset]
    metrics: Sequence[str]
    results: list[Result]
    groups: list[Result]
    pairs: list[Pair]
    ladders: Mapping[tuple[str, str], Ladders]
    stability: Mapping[tuple[str, str], list[Stability]]
    failures: pd.DataFrame

    def result(self, dataset: str, metric: str) -> Result:
        """Return the line of a metric on a dataset."""
        for result in self.results:
            if (result.dataset, result.metric) == (dataset, metric):
                return result
        return Result(dataset, metric)


def judge(
    scores: pd.DataFrame,
    candidates: Sequence[Candidate],
    datasets: Sequence[LabelledDataset],
    notes: Mapping[str, str],
    samples: int,
) -> Accuracy:
    """Compute all statistics from kept scores.

    Args:
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        candidates: whose directions are applied.
        datasets: in the order of the lines.
        notes: metric -> why it has no scores.
        samples: bootstrap samples.
    """
    directions = {one.name: -1.0 if one.lower_better else 1.0 for one in candidates}
    results, groups, pairs = [], [], []
    ladders: dict[tuple[str, str], Ladders] = {}
    stability: dict[tuple[str, str], list[Stability]] = {}
    failures = [pd.DataFrame(columns=["dataset", "metric", "name", "error"])]
    work = list(itertools.product(datasets, candidates))
    for dataset, candidate in tqdm(work, desc="statistics", unit="metric"):
        metric, direction = candidate.name, directions[candidate.name]
        if candidate.mode == "FR" and not dataset.has_references:
            note = "the dataset has no references"
            results.append(Result(dataset.name, metric, note=note))
            continue
        rows = scores[(scores["dataset"] == dataset.name) & (scores["metric"] == metric)]
        is_missing = rows["error"] == NOT_SCORED
        good = rows[rows["error"] == ""]
        bad = rows[(rows["error"] != "") & ~is_missing]
        note = notes.get(metric, "")
        result = Result(dataset.name, metric, n=len(good), note=note)
        if len(good) or not note:
            failures.append(bad[["dataset", "metric", "name", "error"]])
            result = replace(result, failed=len(bad), missing=int(is_missing.sum()))
            key = (dataset.name, metric)
            if dataset.kind == "ladders":
                ladders[key] = measure_ladders(good, direction, samples)
            elif dataset.kind == "stability":
                stability[key] = measure_stability(good, samples)
            else:
                result = _correlate(result, good, dataset, direction, samples)
                groups += _groups(good, dataset, metric, direction, samples)
        results.append(result)
    for dataset in datasets:
        if dataset.kind == "opinions":
            mine = scores[scores["dataset"] == dataset.name]
            pairs += _pairs(dataset.name, mine, directions, samples)
    found = pd.concat([part for part in failures if len(part)] or failures[:1], ignore_index=True)
    names = list(directions)
    return Accuracy(datasets, names, results, groups, pairs, ladders, stability, found)


def _correlate(
    result: Result, rows: pd.DataFrame, dataset: LabelledDataset, direction: float, samples: int
) -> Result:
    """Fill in all statistics of a metric on a dataset."""
    scores, mos = direction * rows["score"].to_numpy(float), rows["mos"].to_numpy(float)
    values = measure(scores, mos, samples)
    if dataset.within:
        parts = []
        for _, members in rows.groupby(dataset.within):
            if len(members) >= SMALLEST_GROUP:
                own = direction * members["score"].to_numpy(float)
                parts.append((own, members["mos"].to_numpy(float)))
        values[WITHIN] = srcc_within(parts, samples)
    note = result.note or _note_on_curve(scores, mos, values)
    return replace(result, values=values, note=note)


def _note_on_curve(scores: Floats, mos: Floats, values: Mapping[str, Interval]) -> str:
    """Say where the fitted statistics are not what a reader takes them for; empty if they are."""
    curve = fit("logistic4", scores, mos)
    if curve is None:
        return ""
    if not curve.has_converged:
        return "the fit of the logistic curve was stopped before it converged"
    if values["srcc"].value * values["plcc"].value < 0:
        return "the fitted curves have the direction of PLCC, which is not that of SRCC"
    return ""


def _groups(
    rows: pd.DataFrame, dataset: LabelledDataset, metric: str, direction: float, samples: int
) -> list[Result]:
    """Measure each value of each group column without fitted curves, for which groups are often too small."""
    columns: dict[str, None] = {}
    for image in dataset.images:
        columns.update(dict.fromkeys(image.groups))
    found = []
    for column in columns:
        for group, members in rows.groupby(column):
            if len(members) < SMALLEST_GROUP:
                continue
            scores = direction * members["score"].to_numpy(float)
            values = measure(scores, members["mos"].to_numpy(float), samples, fitted=False)
            found.append(
                Result(
                    dataset.name,
                    metric,
                    n=len(members),
                    values=values,
                    column=column,
                    group=str(group),
                )
            )
    return found


def _pairs(
    dataset: str, scores: pd.DataFrame, directions: Mapping[str, float], samples: int
) -> list[Pair]:
    """Compare every two metrics on the images that both have scored."""
    good = scores[scores["error"] == ""]
    wide = good.pivot(index="name", columns="metric", values="score")
    mos = good.drop_duplicates("name").set_index("name")["mos"]
    metrics = [name for name in directions if name in wide]
    found = []
    work = list(itertools.combinations(metrics, 2))
    for a, b in tqdm(work, desc="pairs", unit="pair"):
        both = wide[[a, b]].dropna()
        x = directions[a] * both[a].to_numpy(float)
        y = directions[b] * both[b].to_numpy(float)
        labels = mos.loc[both.index].to_numpy(float)
        one = compare(x, y, labels, samples)
        found.append(Pair(dataset, a, b, one.n, one.difference, one.p))
    corrected = holm(np.array([pair.p for pair in found], dtype=float))
    return [replace(pair, p=float(p)) for pair, p in zip(found, corrected, strict=True)]


# ---- as csv files


def frames(accuracy: Accuracy) -> dict[str, pd.DataFrame]:
    """Return every table in full: name of its csv -> content."""
    overall = [_line(result, (*STATISTICS, WITHIN)) for result in accuracy.results]
    groups = [_line(result, CORRELATIONS) for result in accuracy.groups]
    about = ["dataset", "metric", "n", "failed", "missing"]
    by_group = ["dataset", "column", "group", "metric", "n"]
    tables = {
        "accuracy": pd.DataFrame(
            overall, columns=[*about, *_columns((*STATISTICS, WITHIN)), "note"]
        ),
        "groups": pd.DataFrame(groups, columns=[*by_group, *_columns(CORRELATIONS)]),
        "pairs": pd.DataFrame(
            [_pair_line(pair) for pair in accuracy.pairs],
            columns=["dataset", "a", "b", "n", "difference", "low", "high", "p", "significant"],
        ),
        "failures": accuracy.failures,
    }
    if accuracy.ladders:
        tables["ladders"] = pd.DataFrame(_ladder_lines(accuracy))
    if accuracy.stability:
        tables["stability"] = pd.DataFrame(_stability_lines(accuracy))
    return tables


def _columns(statistics: Sequence[str]) -> list[str]:
    columns = []
    for name in statistics:
        columns += [name, f"{name}_low", f"{name}_high"]
    return columns


def _line(result: Result, statistics: Sequence[str]) -> dict[str, object]:
    line: dict[str, object] = {
        "dataset": result.dataset,
        "column": result.column,
        "group": result.group,
        "metric": result.metric,
        "n": result.n,
        "failed": result.failed,
        "missing": result.missing,
        "note": result.note,
    }
    for name in statistics:
        found = result.value(name)
        line[name] = found.value
        line[f"{name}_low"] = found.low
        line[f"{name}_high"] = found.high
    return line


def _pair_line(pair: Pair) -> dict[str, object]:
    return {
        "dataset": pair.dataset,
        "a": pair.a,
        "b": pair.b,
        "n": pair.n,
        "difference": pair.difference.value,
        "low": pair.difference.low,
        "high": pair.difference.high,
        "p": pair.p,
        "significant": pair.is_significant,
    }


def _ladder_lines(accuracy: Accuracy) -> list[dict[str, object]]:
    lines = []
    for (dataset, metric), ladders in accuracy.ladders.items():
        for kind in ladders.kinds:
            line: dict[str, object] = {
                "dataset": dataset,
                "metric": metric,
                "distortion": kind.kind,
                "use": kind.use,
                "photos": kind.photos,
                "falling": kind.falling,
                "steps_falling": kind.steps,
            }
            line.update({f"mean_{degree}": mean for degree, mean in enumerate(kind.means)})
            lines.append(line)
    return lines


def _stability_lines(accuracy: Accuracy) -> list[dict[str, object]]:
    lines = []
    for (dataset, metric), changes in accuracy.stability.items():
        for one in changes:
            lines.append(
                {
                    "dataset": dataset,
                    "metric": metric,
                    "change": one.change,
                    "photos": one.photos,
                    "move": one.move.value,
                    "move_low": one.move.low,
                    "move_high": one.move.high,
                    "move_of_spread": one.of_spread,
                }
            )
    return lines
