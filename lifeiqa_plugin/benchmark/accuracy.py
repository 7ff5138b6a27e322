"""What scores are worth: correlations with people by dataset, group and pair; photos that nobody has rated."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from lifeiqa_plugin.benchmark.contamination import is_trained_on
from lifeiqa_plugin.benchmark.metrics import MetricSpec
from lifeiqa_plugin.benchmark.pairs import AFC, measure_pairs
from lifeiqa_plugin.benchmark.photos import Number, measure_levels, measure_stability
from lifeiqa_plugin.benchmark.scores import NOT_SCORED
from lifeiqa_plugin.correlation import (
    Floats,
    Interval,
    compare,
    correlations,
    fit,
    holm,
    measure,
    srcc_within,
)
from lifeiqa_plugin.datasets.labelled import LabelledDataset
from lifeiqa_plugin.datasets.trained_on import count_in_words

SMALLEST_GROUP = 5
"""Images below which a group gets no line."""

SIGNIFICANT = 0.05

WITHIN = "srcc_within"
"""Mean of the SRCC within each group of a dataset's ``within`` column."""

COLUMNS = ["dataset", "metric", *Number._fields]
COUNTS = ["n", "failed", "missing"]
STATUS = ["dataset", "metric", *COUNTS, "note", "learnt"]
PAIRS = ["dataset", "a", "b", "n", "difference", "low", "high", "p", "significant"]
FAILURES = ["dataset", "metric", "name", "error"]
NOTHING = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Results:
    """All that scores say of metrics on one dataset.

    Attributes:
        dataset: of which they are.
        numbers: tidy: dataset, metric and what :class:`~lifeiqa_plugin.benchmark.photos.Number` has.
        status: by metric, in the order of the tables: images with a score, those on which it failed and those not
            scored yet (NaN if it was not run), what a reader has to know, whether it was trained on some, and whether
            it has scored all that any metric has.
        pairs: SRCC of metric a minus that of b on the images that both have scored and no metric was trained on,
            Holm-corrected p.
        failures: images on which a metric failed.
    """

    dataset: LabelledDataset
    numbers: pd.DataFrame
    status: pd.DataFrame
    pairs: pd.DataFrame
    failures: pd.DataFrame

    @cached_property
    def values(self) -> Mapping[tuple[str, str], Interval]:
        """Metric and statistic -> its value for all images; NaN if there is none."""
        lines = self.numbers[self.numbers["column"] == ""].itertuples()
        found = {
            (one.metric, one.statistic): Interval(one.value, one.low, one.high) for one in lines
        }
        return defaultdict(lambda: NOTHING, found)


def evaluate(
    scores: pd.DataFrame,
    specs: Sequence[MetricSpec],
    datasets: Sequence[LabelledDataset],
    notes: Mapping[str, str],
    samples: int,
) -> list[Results]:
    """Compute all statistics of each dataset from kept scores.

    Args:
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        specs: the metrics, whose directions are applied.
        datasets: in the order of the tables.
        notes: metric -> why it has no scores.
        samples: bootstrap samples.
    """
    return [
        _evaluate(scores[scores["dataset"] == one.name], specs, one, notes, samples)
        for one in datasets
    ]


def _evaluate(
    scores: pd.DataFrame,
    specs: Sequence[MetricSpec],
    dataset: LabelledDataset,
    notes: Mapping[str, str],
    samples: int,
) -> Results:
    numbers, status, failures, learnt = [], [], [], set()
    directions = {spec.name: -1.0 if spec.lower_better else 1.0 for spec in specs}
    for spec in tqdm(specs, desc=f"statistics of {dataset.name}", unit="metric"):
        rows = scores[scores["metric"] == spec.name]
        hits = is_trained_on(rows, spec.name)
        learnt |= set(rows["name"][hits])
        is_good, is_missing = rows["error"] == "", rows["error"] == NOT_SCORED
        good, bad = rows[is_good], rows[~is_good & ~is_missing]
        note = notes.get(spec.name, "")
        counts: tuple[float, ...] = (len(good), len(bad), int(is_missing.sum()))
        if spec.mode == "FR" and not dataset.has_references:
            note, counts = "the dataset has no references", (0, np.nan, np.nan)
        elif note and good.empty:
            counts = (0, np.nan, np.nan)
        else:
            failures.append(bad[FAILURES])
            found, own_note = _measure(dataset, good, hits[is_good], directions[spec.name], samples)
            note = note or own_note
            numbers += [(dataset.name, spec.name, *one) for one in found]
        status.append((dataset.name, spec.name, *counts, note, bool(hits.any())))
    table = pd.DataFrame(status, columns=STATUS).set_index("metric")
    table["complete"] = table["n"] == max(table["n"].max(), 1)
    compared = scores[(scores["error"] == "") & ~scores["name"].isin(learnt)]
    return Results(
        dataset,
        pd.DataFrame(numbers, columns=COLUMNS),
        table,
        _pairs(dataset, compared, directions, samples),
        concat(failures, FAILURES),
    )


def concat(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Put frames of these columns below each other; the empty ones have no say in the types."""
    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True) if full else pd.DataFrame(columns=list(columns))


def _measure(
    dataset: LabelledDataset,
    rows: pd.DataFrame,
    hits: NDArray[np.bool_],
    direction: float,
    samples: int,
) -> tuple[list[Number], str]:
    """Return all numbers of a metric on a dataset, and what a reader has to know of them.

    ``hits`` says which images it was trained on. Groups have no fitted curves, for which they are often too small.
    """
    if dataset.kind == "levels":
        return measure_levels(rows, direction, samples), ""
    if dataset.kind == "stability":
        return measure_stability(rows, samples), ""
    if dataset.kind == "pairs":
        found = measure_pairs(dataset.pairs, rows, direction, samples)
        return found, _note_on_pairs(dataset.pairs, rows, hits, direction)
    scores, mos = direction * rows["score"].to_numpy(float), rows["mos"].to_numpy(float)
    rows = rows.reset_index(drop=True)
    columns = dict.fromkeys(column for image in dataset.images for column in image.groups)
    groups = [
        (column, str(group), members.index.to_numpy())
        for column in columns
        for group, members in rows.groupby(column)
        if len(members) >= SMALLEST_GROUP
    ]
    values = measure(scores, mos, samples)
    if dataset.within:
        parts = [(scores[at], mos[at]) for column, _, at in groups if column == dataset.within]
        values[WITHIN] = srcc_within(parts, samples)
    found = [Number(name, *value, n=len(rows)) for name, value in values.items()]
    for column, group, at in groups:
        for name, value in measure(scores[at], mos[at], samples, fitted=False).items():
            found.append(Number(name, *value, len(at), column, group))
    curve = fit("logistic4", scores, mos)
    note = ""
    if curve is not None and not curve.has_converged:
        note = "the fit of the logistic curve was stopped before it converged"
    elif curve is not None and values["srcc"].value * values["plcc"].value < 0:
        note = "the fitted curves have the direction of PLCC, which is not that of SRCC"
    return found, _note_on_training(scores, mos, hits) or note


def _note_on_training(scores: Floats, mos: Floats, hits: NDArray[np.bool_]) -> str:
    """Say on how many images a metric was trained, and what it is worth on the others; empty if on none."""
    if not hits.any():
        return ""
    note = count_in_words(int(hits.sum()), len(hits))
    if (~hits).sum() < SMALLEST_GROUP:
        return note
    return f"{note}, SRCC {correlations(scores[~hits], mos[~hits])['srcc']:.3f}"


def _note_on_pairs(
    pairs: pd.DataFrame, rows: pd.DataFrame, hits: NDArray[np.bool_], direction: float
) -> str:
    """Say the same of a metric on pairs; the others are those of two images that it was not trained on."""
    if not hits.any():
        return ""
    left = {one.statistic: one for one in measure_pairs(pairs, rows[~hits], direction, 0)}[AFC]
    note = count_in_words(int(hits.sum()), len(hits))
    return f"{note}, 2AFC {left.value:.3f} on their {left.n:,} pairs" if left.n else note


def _pairs(
    dataset: LabelledDataset, scores: pd.DataFrame, directions: Mapping[str, float], samples: int
) -> pd.DataFrame:
    """Compare every two metrics on the images that both have scored."""
    if dataset.kind != "mos":
        return pd.DataFrame(columns=PAIRS)
    wide_scores = scores.pivot(index="name", columns="metric", values="score")
    mos = scores.drop_duplicates("name").set_index("name")["mos"]
    metrics = [name for name in directions if name in wide_scores]
    found = []
    work = list(itertools.combinations(metrics, 2))
    for a, b in tqdm(work, desc=f"pairs on {dataset.name}", unit="pair"):
        both = wide_scores[[a, b]].dropna()
        x, y = (directions[name] * both[name].to_numpy(float) for name in (a, b))
        one = compare(x, y, mos.loc[both.index].to_numpy(float), samples)
        found.append((dataset.name, a, b, one.n, *one.difference, one.p))
    table = pd.DataFrame(found, columns=PAIRS[:-1])
    table["p"] = holm(table["p"].to_numpy(float))
    return table.assign(significant=table["p"] < SIGNIFICANT)
