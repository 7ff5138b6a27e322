"""What scores are worth: correlations with people by dataset, group and pair; photos that nobody has rated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from lifeiqa_plugin.benchmark.contamination import COLUMN, NOBODY, is_marked, is_trained_on
from lifeiqa_plugin.benchmark.metrics import MetricSpec
from lifeiqa_plugin.benchmark.photos import LEVELS, measure_levels, measure_stability
from lifeiqa_plugin.benchmark.scores import NOT_SCORED
from lifeiqa_plugin.benchmark.tidy import COLUMNS, Number, wide
from lifeiqa_plugin.correlation import (
    CORRELATIONS,
    STATISTICS,
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
from lifeiqa_plugin.distortions.synthetic import TRAINED

SMALLEST_GROUP = 5
"""Images below which a group gets no line."""

SIGNIFICANT = 0.05

WITHIN = "srcc_within"
"""Mean of the SRCC within each group of a dataset's ``within`` column."""

STATUS = ["dataset", "metric", "n", "failed", "missing", "note"]
PAIRS = ["dataset", "a", "b", "n", "difference", "low", "high", "p", "significant"]
FAILURES = ["dataset", "metric", "name", "error"]


@dataclass(frozen=True)
class Results:
    """All that scores say of metrics.

    Attributes:
        datasets: in the order of the tables.
        metrics: their names, in the order of the tables.
        numbers: tidy, see :class:`~lifeiqa_plugin.benchmark.tidy.Number`.
        status: of each dataset and metric: images with a score, those on which it failed and those not scored yet (NaN
            if it was not run), and what a reader has to know.
        pairs: SRCC of metric a minus that of b on the images that both have scored and no metric was trained on,
            Holm-corrected p.
        failures: images on which a metric failed.
    """

    datasets: Sequence[LabelledDataset]
    metrics: Sequence[str]
    numbers: pd.DataFrame
    status: pd.DataFrame
    pairs: pd.DataFrame
    failures: pd.DataFrame

    def of(self, dataset: str, column: str = "") -> pd.DataFrame:
        """Return the numbers of all images of a dataset, or of the groups of a column."""
        chosen = (self.numbers["dataset"] == dataset) & (self.numbers["column"] == column)
        return self.numbers[chosen]

    def value(self, dataset: str, metric: str, statistic: str) -> Interval:
        """Return a statistic of all images; NaN if there is none."""
        found = self.of(dataset)
        found = found[(found["metric"] == metric) & (found["statistic"] == statistic)]
        for line in found.itertuples():
            return Interval(line.value, line.low, line.high)
        return Interval(float("nan"), float("nan"), float("nan"))

    def status_of(self, dataset: str) -> pd.DataFrame:
        """Return the status of every metric on a dataset, by metric."""
        status = self.status[self.status["dataset"] == dataset]
        return status.set_index("metric").reindex(self.metrics)

    def complete(self, dataset: str) -> list[str]:
        """Return the metrics that have scored all images that any has, which alone can be compared."""
        counts = self.status_of(dataset)["n"]
        return [metric for metric, n in counts.items() if n == counts.max() > 0]


def evaluate(
    scores: pd.DataFrame,
    specs: Sequence[MetricSpec],
    datasets: Sequence[LabelledDataset],
    notes: Mapping[str, str],
    samples: int,
) -> Results:
    """Compute all statistics from kept scores.

    Args:
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        specs: the metrics, whose directions are applied.
        datasets: in the order of the lines.
        notes: metric -> why it has no scores.
        samples: bootstrap samples.
    """
    numbers, status, pairs, failures = [], [], [], [pd.DataFrame(columns=FAILURES)]
    directions = {spec.name: -1.0 if spec.lower_better else 1.0 for spec in specs}
    work = list(itertools.product(datasets, specs))
    for dataset, spec in tqdm(work, desc="statistics", unit="metric"):
        rows = scores[(scores["dataset"] == dataset.name) & (scores["metric"] == spec.name)]
        good, is_missing = rows[rows["error"] == ""], rows["error"] == NOT_SCORED
        bad = rows[(rows["error"] != "") & ~is_missing]
        note = notes.get(spec.name, "")
        counts: tuple[float, ...] = (len(good), len(bad), int(is_missing.sum()))
        if spec.mode == "FR" and not dataset.has_references:
            note, counts = "the dataset has no references", (0, np.nan, np.nan)
        elif note and good.empty:
            counts = (0, np.nan, np.nan)
        else:
            failures.append(bad[FAILURES])
            direction = directions[spec.name]
            found, on_curve = _measure(dataset, good, direction, samples)
            note = note or _note_on_training(spec.name, good, direction) or on_curve
            numbers += [(dataset.name, spec.name, *one) for one in found]
        status.append((dataset.name, spec.name, *counts, note))
    for dataset in datasets:
        if dataset.kind == "mos":
            mine = scores[(scores["dataset"] == dataset.name) & (scores["error"] == "")]
            mine = mine[mine[COLUMN] == NOBODY] if is_marked(dataset) else mine
            pairs.append(_pairs(dataset.name, mine, directions, samples))
    return Results(
        datasets,
        list(directions),
        pd.DataFrame(numbers, columns=COLUMNS),
        pd.DataFrame(status, columns=STATUS),
        _concat(pairs, PAIRS),
        _concat(failures, FAILURES),
    )


def _concat(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True) if full else pd.DataFrame(columns=columns)


def _measure(
    dataset: LabelledDataset, rows: pd.DataFrame, direction: float, samples: int
) -> tuple[list[Number], str]:
    """Return all numbers of a metric on a dataset, and what a reader has to know of the fitted ones."""
    if dataset.kind == "levels":
        return measure_levels(rows, direction, samples), ""
    if dataset.kind == "stability":
        return measure_stability(rows, samples), ""
    scores, mos = direction * rows["score"].to_numpy(float), rows["mos"].to_numpy(float)
    values = measure(scores, mos, samples)
    if dataset.within:
        parts = []
        for _, members in rows.groupby(dataset.within):
            if len(members) >= SMALLEST_GROUP:
                own = direction * members["score"].to_numpy(float)
                parts.append((own, members["mos"].to_numpy(float)))
        values[WITHIN] = srcc_within(parts, samples)
    found = [Number(name, *value, n=len(rows)) for name, value in values.items()]
    columns = dict.fromkeys(column for image in dataset.images for column in image.groups)
    for column in columns:
        found += _measure_groups(rows, column, direction, samples)
    return found, _note_on_curve(scores, mos, values)


def _measure_groups(
    rows: pd.DataFrame, column: str, direction: float, samples: int
) -> list[Number]:
    """Measure each value of a group column without fitted curves, for which groups are often too small."""
    found = []
    for group, members in rows.groupby(column):
        if len(members) >= SMALLEST_GROUP:
            scores, mos = (
                direction * members["score"].to_numpy(float),
                members["mos"].to_numpy(float),
            )
            for name, value in measure(scores, mos, samples, fitted=False).items():
                found.append(Number(name, *value, n=len(members), column=column, group=str(group)))
    return found


def _note_on_training(metric: str, rows: pd.DataFrame, direction: float) -> str:
    """Say on how many images a metric was trained, and what it is worth on the others; empty if on none."""
    hits = is_trained_on(rows.get(COLUMN, [""] * len(rows)), metric)
    if not hits.any():
        return ""
    note = count_in_words(int(hits.sum()), len(rows))
    left = rows[~hits]
    if len(left) < SMALLEST_GROUP:
        return note
    srcc = correlations(direction * left["score"].to_numpy(float), left["mos"])["srcc"]
    return f"{note}, SRCC {srcc:.3f}"


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


def _pairs(
    dataset: str, scores: pd.DataFrame, directions: Mapping[str, float], samples: int
) -> pd.DataFrame:
    """Compare every two metrics on the images that both have scored."""
    wide_scores = scores.pivot(index="name", columns="metric", values="score")
    mos = scores.drop_duplicates("name").set_index("name")["mos"]
    metrics = [name for name in directions if name in wide_scores]
    found = []
    work = list(itertools.combinations(metrics, 2))
    for a, b in tqdm(work, desc="pairs", unit="pair"):
        both = wide_scores[[a, b]].dropna()
        x, y = (directions[name] * both[name].to_numpy(float) for name in (a, b))
        one = compare(x, y, mos.loc[both.index].to_numpy(float), samples)
        found.append((dataset, a, b, one.n, *one.difference, one.p))
    table = pd.DataFrame(found, columns=PAIRS[:-1])
    table["p"] = holm(table["p"].to_numpy(float))
    return table.assign(significant=table["p"] < SIGNIFICANT)


# ---- as csv files


def frames(results: Results) -> dict[str, pd.DataFrame]:
    """Return every table in full: name of its csv -> content."""
    numbers, keys = results.numbers, ["dataset", "metric"]
    overall = wide(numbers[numbers["column"] == ""], keys, (*STATISTICS, WITHIN))
    accuracy = results.status.merge(overall, "left", on=keys)
    kinds = {dataset.name: dataset.kind for dataset in results.datasets}
    kind = numbers["dataset"].map(kinds)
    by_group = ["dataset", "column", "group", "metric", "n"]
    tables = {
        "accuracy": accuracy[[column for column in accuracy if column != "note"] + ["note"]],
        "groups": wide(
            numbers[(numbers["column"] != "") & (kind == "mos")], by_group, CORRELATIONS
        ),
        "pairs": results.pairs,
        "failures": results.failures,
    }
    if "levels" in kinds.values():
        tables["levels"] = _levels(numbers[(kind == "levels") & (numbers["column"] != "")])
    if "stability" in kinds.values():
        tables["stability"] = _stability(numbers[(kind == "stability") & (numbers["column"] != "")])
    return tables


def _levels(numbers: pd.DataFrame) -> pd.DataFrame:
    statistics = ["falling", "steps_falling", *(f"mean_{level}" for level in ("0", *LEVELS))]
    table = wide(numbers, ["dataset", "metric", "group", "n"], statistics)
    table.insert(3, "use", np.where(table["group"].isin(list(TRAINED)), "trained", "held out"))
    table = table.rename(columns={"group": "distortion", "n": "photos"})
    return table[["dataset", "metric", "distortion", "use", "photos", *statistics]]


def _stability(numbers: pd.DataFrame) -> pd.DataFrame:
    keys = ["dataset", "metric", "group", "n"]
    table = wide(numbers, keys, ["move", "move_of_spread"])
    table = table.rename(columns={"group": "change", "n": "photos"})
    return table.drop(columns=["move_of_spread_low", "move_of_spread_high"])
