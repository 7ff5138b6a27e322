"""What tables say: correlations, comparisons, ladders, cost; each caption names the rows that were scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.accuracy import WITHIN, Accuracy, Pair, Result
from lifeiqa_plugin.benchmark.datasets import LabelledDataset
from lifeiqa_plugin.correlation import Interval

STATISTICS = {
    "SRCC": "srcc",
    "PLCC": "plcc",
    "PLCC (logistic-4)": "plcc_logistic4",
    "PLCC (logistic-5)": "plcc_logistic5",
    "KRCC": "krcc",
    "RMSE": "rmse_logistic4",
}
MOST_FAILURES = 100

Rows = list[list[str]]
Marks = Mapping[tuple[int, int], str]
BEST, SECOND = "best", "second"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: what it shows, of which rows.
        header: of each column.
        rows: cells; a number with its interval is ``value (low to high)``.
        label: for references in LaTeX and in the page.
        marks: (row, column) -> ``best`` or ``second``.
        spans: title and width of groups of columns above the header; none for one header line.
    """

    caption: str
    header: list[str]
    rows: Rows
    label: str
    marks: Marks = field(default_factory=dict)
    spans: Sequence[tuple[str, int]] = ()


# ---- cells


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals; empty where there is none."""
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:.{digits}f}"


def with_interval(found: Interval, factor: float = 1, digits: int = 3) -> str:
    """Return ``value (low to high)``; the value alone where no samples were drawn, nothing where there is none."""
    value, low, high = (number(factor * part, digits) for part in found)
    return f"{value} ({low} to {high})" if value and low else value


def seconds(line: pd.Series) -> str:
    """Return ``median (lower to upper quartile)`` in seconds, with three significant digits."""
    if not np.isfinite(line["seconds"]):
        return ""
    middle, low, high = (f"{line[name]:.3g}" for name in ("seconds", "seconds_q1", "seconds_q3"))
    return f"{middle} ({low} to {high})" if line["rounds"] > 1 else middle


def scaled(value: float, unit: float) -> str:
    """Return a count in units of, say, 1e6; empty where there is none."""
    return number(value / unit, 1)


def _short(note: str) -> str:
    return note if len(note) <= 70 else f"{note[:67]}..."


# ---- one dataset


def accuracy_table(accuracy: Accuracy, dataset: LabelledDataset) -> Table:
    """Return the correlations of all metrics on a dataset."""
    rows = []
    for metric in accuracy.metrics:
        result = accuracy.result(dataset.name, metric)
        cells = [with_interval(result.value(name)) for name in STATISTICS.values()]
        counts = [str(result.n), number(result.failed, 0)]
        rows.append([metric, *cells, *counts, _short(_note(result))])
    caption = f"Correlation with people on {dataset.name} ({dataset.rows})"
    header = ["metric", *STATISTICS, "n", "failed", "note"]
    return Table(caption, header, rows, f"accuracy-{dataset.name}")


def _note(result: Result) -> str:
    if result.missing:
        return f"incomplete: {result.missing} images not scored"
    return result.note


def group_tables(accuracy: Accuracy, dataset: LabelledDataset) -> list[Table]:
    """Return, for each group column, the SRCC of all metrics by its values."""
    mine = [result for result in accuracy.groups if result.dataset == dataset.name]
    tables = []
    for column in dict.fromkeys(result.column for result in mine):
        found = [result for result in mine if result.column == column]
        metrics = list(dict.fromkeys(result.metric for result in found))
        rows = []
        for group in sorted({result.group for result in found}):
            members = {result.metric: result for result in found if result.group == group}
            cells = []
            for metric in metrics:
                one = members.get(metric)
                cells.append(with_interval(one.value("srcc")) if one else "")
            if any(cells):
                count = max(result.n for result in members.values())
                rows.append([group, str(count), *cells])
        header = [column, "n", *(f"{metric}, SRCC" for metric in metrics)]
        caption = f"{dataset.name} by {column} ({dataset.rows})"
        tables.append(Table(caption, header, rows, f"groups-{dataset.name}-{column}"))
    return tables


def pair_table(accuracy: Accuracy, dataset: LabelledDataset) -> Table:
    """Return the comparisons of every two metrics on a dataset."""
    rows = []
    for pair in accuracy.pairs:
        if pair.dataset == dataset.name:
            p = f"{pair.p:.2g}" if np.isfinite(pair.p) else ""
            verdict = "yes" if pair.is_significant else "no"
            difference = with_interval(pair.difference)
            rows.append([pair.a, pair.b, difference, p, verdict, str(pair.n)])
    caption = f"Differences on {dataset.name} ({dataset.rows})"
    header = ["metric", "other", "difference in SRCC", "p", "significant", "n"]
    return Table(caption, header, rows, f"pairs-{dataset.name}")


def significance_table(accuracy: Accuracy, dataset: LabelledDataset) -> Table:
    """Return a matrix: whether the metric of a row is better (+), worse (-) or not told apart (=) from a column's.

    All of it is of the same images: a metric that has not scored all that others have is left out.
    """
    scored = {metric: accuracy.result(dataset.name, metric).n for metric in accuracy.metrics}
    most = max(scored.values(), default=0)
    pairs = [pair for pair in accuracy.pairs if pair.dataset == dataset.name and pair.n == most]
    involved = {name for pair in pairs for name in (pair.a, pair.b)}
    metrics = [metric for metric in accuracy.metrics if metric in involved]
    left_out = [f"{name} ({n})" for name, n in scored.items() if n and name not in involved]
    signs: dict[tuple[str, str], str] = {}
    for pair in pairs:
        signs[pair.a, pair.b] = _sign(pair)
        signs[pair.b, pair.a] = {"+": "-", "-": "+"}.get(_sign(pair), "=")
    rows = []
    for metric in metrics:
        rows.append([metric, *(signs.get((metric, other), "") for other in metrics)])
    caption = (
        f"Significance on {dataset.name} ({dataset.rows}): the metric of the row has a higher (+) or lower (-) "
        f"SRCC than that of the column, or is not told apart from it (=), all on the same {most} images"
    )
    if left_out:
        caption += f"; left out, as they have scores of fewer: {', '.join(left_out)}"
    return Table(caption, ["", *metrics], rows, f"significance-{dataset.name}")


def _sign(pair: Pair) -> str:
    if not pair.is_significant:
        return "="
    return "+" if pair.difference.value > 0 else "-"


# ---- photos that nobody has scored


def ladder_table(accuracy: Accuracy, dataset: LabelledDataset) -> Table:
    """Return the share of ladders that fall, by kind of distortion."""
    found = {
        metric: one for (name, metric), one in accuracy.ladders.items() if name == dataset.name
    }
    rows: Rows = []
    for metric, ladders in found.items():
        for use, total in (("trained", ladders.trained), ("held out", ladders.held_out)):
            for kind in ladders.kinds:
                if kind.use == use:
                    means = " ".join(f"{mean:.2f}" for mean in kind.means)
                    falling, steps = number(100 * kind.falling, 1), number(100 * kind.steps, 1)
                    rows.append([metric, kind.kind, use, falling, steps, means, str(kind.photos)])
            share = with_interval(total, 100, 1)
            rows.append([metric, f"all {use}", use, share, "", "", str(ladders.kinds[0].photos)])
    header = ["metric", "distortion", "use", "ladders that fall, %", "steps that fall, %"]
    caption = f"Ladders of {dataset.name} ({dataset.rows})"
    return Table(caption, [*header, "mean scores", "n"], rows, f"ladders-{dataset.name}")


def stability_table(accuracy: Accuracy, dataset: LabelledDataset) -> Table:
    """Return how far scores move under changes that nobody sees."""
    rows: Rows = []
    for (name, metric), changes in accuracy.stability.items():
        if name == dataset.name:
            for one in changes:
                move = with_interval(one.move, digits=4)
                of_spread = number(100 * one.of_spread, 1)
                rows.append([metric, one.change, move, of_spread, str(one.photos)])
    header = ["metric", "change", "mean move of the score", "% of the photos' spread", "n"]
    caption = f"Stability on {dataset.name} ({dataset.rows})"
    return Table(caption, header, rows, f"stability-{dataset.name}")


# ---- all datasets in one table


def summary_table(accuracy: Accuracy, intervals: bool) -> Table:
    """Return one row for each metric and columns for each dataset; the best of a column is marked, and the second.

    Args:
        accuracy: what to show.
        intervals: write them beside the values.
    """
    spans = [("", 1)]
    columns: list[SummaryColumn] = []
    for dataset in accuracy.datasets:
        found = _summary_columns(accuracy, dataset)
        spans.append((dataset.name, len(found)))
        columns += found
    rows = []
    for i, metric in enumerate(accuracy.metrics):
        cells = [metric]
        for column in columns:
            shown = column.values[i]
            if not intervals:
                shown = Interval(shown.value, float("nan"), float("nan"))
            cells.append(with_interval(shown, digits=column.digits))
        rows.append(cells)
    marks: dict[tuple[int, int], str] = {}
    for j, column in enumerate(columns, 1):
        values = [column.sign * round(one.value, column.digits) for one in column.values]
        for i, mark in _rank(values).items():
            marks[i, j] = mark
    header = ["metric", *(column.title for column in columns)]
    described = "; ".join(f"{one.name}: {one.rows}" for one in accuracy.datasets)
    caption = (
        "Metrics on all datasets. Best in bold, second underlined; within: mean of the SRCC within the dataset's own "
        f"groups. Rows: {described}"
    )
    return Table(caption, header, rows, "summary", marks, spans)


@dataclass(frozen=True)
class SummaryColumn:
    """A column of the summary: its title, a value for each metric, decimals, and -1 where less is better."""

    title: str
    values: list[Interval]
    digits: int = 3
    sign: int = 1


def _summary_columns(accuracy: Accuracy, dataset: LabelledDataset) -> list[SummaryColumn]:
    if dataset.kind == "ladders":
        trained, held_out = [], []
        for metric in accuracy.metrics:
            ladders = accuracy.ladders.get((dataset.name, metric))
            trained.append(_percent(ladders.trained) if ladders else NOTHING)
            held_out.append(_percent(ladders.held_out) if ladders else NOTHING)
        titles = ("trained kinds that fall, %", "held-out kinds that fall, %")
        return [SummaryColumn(titles[0], trained, 1), SummaryColumn(titles[1], held_out, 1)]
    if dataset.kind == "stability":
        moves = []
        for metric in accuracy.metrics:
            changes = accuracy.stability.get((dataset.name, metric), [])
            worst = max((100 * one.of_spread for one in changes), default=float("nan"))
            moves.append(Interval(worst, float("nan"), float("nan")))
        return [SummaryColumn("largest move, % of spread", moves, 1, -1)]
    statistics = {"SRCC": "srcc", "PLCC": "plcc"}
    if dataset.within:
        statistics["SRCC within"] = WITHIN
    columns = []
    for title, name in statistics.items():
        values = [accuracy.result(dataset.name, metric).value(name) for metric in accuracy.metrics]
        columns.append(SummaryColumn(title, values))
    return columns


NOTHING = Interval(float("nan"), float("nan"), float("nan"))


def _percent(share: Interval) -> Interval:
    return Interval(*(100 * part for part in share))


def _rank(values: Sequence[float]) -> dict[int, str]:
    """Mark the positions of the largest value and of the second largest, ties alike, if there are two to compare."""
    finite = sorted({value for value in values if np.isfinite(value)}, reverse=True)
    if len(finite) < 2:
        return {}
    marks = {}
    for i, value in enumerate(values):
        if value == finite[0]:
            marks[i] = BEST
        elif value == finite[1]:
            marks[i] = SECOND
    return marks


# ---- cost and failures


def cost_table(efficiency: pd.DataFrame) -> Table:
    """Return what metrics cost, each line with its conditions."""
    rows = []
    for _, line in efficiency.iterrows():
        speed = f"{line['images_per_second']:.3g}" if np.isfinite(line["images_per_second"]) else ""
        where = (
            f"{line['device']}, {line['threads']} threads, {line['dtype']}, torch {line['torch']}, "
            f"{line['rounds']} rounds, batch {line['batch']}"
        )
        rows.append(
            [
                str(line["metric"]),
                str(line["size"]),
                seconds(line),
                speed,
                scaled(line["parameters"], 1e6),
                scaled(line["macs"], 1e9),
                number(line["peak_memory_gib"], 2),
                where,
                _short(_cost_note(line)),
            ]
        )
    header = ["metric", "size", "seconds", "images/s", "parameters (M)", "MACs (G)", "peak GiB"]
    return Table("Cost", [*header, "conditions", "note"], rows, "cost")


def _cost_note(line: pd.Series) -> str:
    """Say that weights are missing, but not why, which the tables of accuracy do."""
    parts = [] if pd.isna(line["note"]) else str(line["note"]).split("; ")
    if line["weights"] != "untrained":
        return "; ".join(parts)
    rest = [part for part in parts if not part.startswith("no weights")]
    return "; ".join(["untrained", *rest])


def failure_table(failures: pd.DataFrame, most: int = MOST_FAILURES) -> Table:
    """Return the first images that have no score, and how many there are."""
    shown = failures.head(most)
    caption = f"Images without a score: {len(failures)}, the first {len(shown)}"
    rows = shown.astype(str).to_numpy().tolist()
    return Table(caption, list(failures.columns), rows, "failures")


def dataset_tables(accuracy: Accuracy, dataset: LabelledDataset) -> list[Table]:
    """Return every table of one dataset."""
    if dataset.kind == "ladders":
        return [ladder_table(accuracy, dataset)]
    if dataset.kind == "stability":
        return [stability_table(accuracy, dataset)]
    tables = [accuracy_table(accuracy, dataset), *group_tables(accuracy, dataset)]
    return [*tables, pair_table(accuracy, dataset), significance_table(accuracy, dataset)]


def all_tables(accuracy: Accuracy, efficiency: pd.DataFrame, intervals: bool = True) -> list[Table]:
    """Return every table that has lines; the summary only if there are two datasets or more."""
    tables = []
    if len(accuracy.datasets) > 1:
        tables.append(summary_table(accuracy, intervals))
    for dataset in accuracy.datasets:
        tables += dataset_tables(accuracy, dataset)
    tables += [cost_table(efficiency), failure_table(accuracy.failures)]
    return [table for table in tables if table.rows]
