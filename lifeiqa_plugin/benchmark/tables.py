"""What tables say: correlations, comparisons, distorted photos, cost; each caption names the rows that were scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.accuracy import WITHIN, Results
from lifeiqa_plugin.benchmark.contamination import COLUMN, is_marked, is_trained_on
from lifeiqa_plugin.benchmark.photos import LEVELS
from lifeiqa_plugin.benchmark.tidy import number, spread, with_interval
from lifeiqa_plugin.correlation import Interval
from lifeiqa_plugin.datasets.labelled import LabelledDataset
from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED

STATISTICS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic4": "PLCC (logistic-4)",
    "plcc_logistic5": "PLCC (logistic-5)",
    "krcc": "KRCC",
    "rmse_logistic4": "RMSE",
}
MOST_FAILURES = 100

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
    rows: list[list[str]]
    label: str
    marks: Marks = field(default_factory=dict)
    spans: Sequence[tuple[str, int]] = ()


def _table(frame: pd.DataFrame, caption: str, label: str) -> Table:
    """Return a frame of text whose index is the first column."""
    frame = frame.reset_index()
    return Table(caption, list(map(str, frame)), frame.astype(str).to_numpy().tolist(), label)


def _short(note: str) -> str:
    return note if len(note) <= 70 else f"{note[:67]}..."


# ---- one dataset


def accuracy_table(results: Results, dataset: LabelledDataset) -> Table:
    """Return the correlations of all metrics on a dataset."""
    status = results.status_of(dataset.name)
    table = spread(results.of(dataset.name), "metric", "statistic")
    table = table.reindex(results.metrics, fill_value="").reindex(
        columns=list(STATISTICS), fill_value=""
    )
    table = table.rename(columns=STATISTICS).rename_axis("metric")
    table["n"] = status["n"].astype(int)
    table["failed"] = [number(failed, 0) for failed in status["failed"]]
    table["note"] = [
        f"incomplete: {line.missing:.0f} images not scored"
        if line.missing > 0
        else _short(line.note)
        for line in status.itertuples()
    ]
    caption = f"Correlation with people on {dataset.name} ({dataset.rows})"
    return _table(table, caption, f"accuracy-{dataset.name}")


def group_tables(results: Results, dataset: LabelledDataset) -> list[Table]:
    """Return, for each group column, the SRCC of all metrics by its values."""
    mine = results.numbers[results.numbers["dataset"] == dataset.name]
    tables = []
    for column in mine["column"].unique():
        found = mine[(mine["column"] == column) & (mine["statistic"] == "srcc")]
        table = spread(found, "group", "metric").sort_index()
        table = table[(table != "").any(axis=1)].add_suffix(", SRCC")
        table.insert(0, "n", found.groupby("group")["n"].max())
        caption = f"{dataset.name} by {column} ({dataset.rows})"
        if column:
            label = f"groups-{dataset.name}-{column}"
            tables.append(_table(table.rename_axis(column), caption, label))
    return tables


def pair_table(results: Results, dataset: LabelledDataset) -> Table:
    """Return the comparisons of every two metrics on a dataset."""
    rows = []
    for pair in results.pairs[results.pairs["dataset"] == dataset.name].itertuples():
        p = f"{pair.p:.2g}" if np.isfinite(pair.p) else ""
        difference = with_interval(Interval(pair.difference, pair.low, pair.high))
        verdict = "yes" if pair.significant else "no"
        rows.append([pair.a, pair.b, difference, p, verdict, str(pair.n)])
    caption = f"Differences on {dataset.name} ({dataset.rows})" + _left_out(dataset)
    header = ["metric", "other", "difference in SRCC", "p", "significant", "n"]
    return Table(caption, header, rows, f"pairs-{dataset.name}")


def _left_out(dataset: LabelledDataset) -> str:
    return ", without those that a metric was trained on" if is_marked(dataset) else ""


def significance_table(results: Results, dataset: LabelledDataset) -> Table:
    """Return a matrix: whether the metric of a row is better (+), worse (-) or not told apart (=) from a column's.

    All of it is of the same images: a metric that has not scored all that others have is left out.
    """
    metrics = results.complete(dataset.name)
    counts, pairs = results.status_of(dataset.name)["n"], results.pairs
    pairs = pairs[pairs["dataset"] == dataset.name]
    left_out = [f"{name} ({n})" for name, n in counts.items() if n and name not in metrics]
    signs = {}
    for pair in pairs.itertuples():
        sign = "=" if not pair.significant else "+" if pair.difference > 0 else "-"
        if pair.n == pairs["n"].max():
            signs[pair.a, pair.b] = sign
            signs[pair.b, pair.a] = {"+": "-", "-": "+"}.get(sign, "=")
    rows = [[metric, *(signs.get((metric, other), "") for other in metrics)] for metric in metrics]
    caption = (
        f"Significance on {dataset.name} ({dataset.rows}): the metric of the row has a higher (+) or lower (-) "
        f"SRCC than that of the column, or is not told apart from it (=), all on the same {pairs['n'].max():.0f} images"
    )
    caption += _left_out(dataset)
    if left_out:
        caption += f"; left out, as they have scores of fewer: {', '.join(left_out)}"
    return Table(caption, ["", *metrics], rows if signs else [], f"significance-{dataset.name}")


# ---- photos that nobody has rated


def levels_table(results: Results, dataset: LabelledDataset) -> Table:
    """Return the share of photos whose score falls with each level, by kind of distortion."""
    rows = []
    for metric in results.of(dataset.name)["metric"].unique():
        kinds = results.of(dataset.name, "distortion")
        kinds = kinds[kinds["metric"] == metric].pivot(
            index="group", columns="statistic", values="value"
        )
        photos = str(results.of(dataset.name)["n"].max())
        for use, members in (("trained", TRAINED), ("held out", HELD_OUT)):
            for kind in members:
                line = kinds.loc[kind]
                means = [
                    f"{line.get(f'mean_{level}'):.2f}"
                    for level in ("0", *LEVELS)
                    if "mean_0" in line
                ]
                shares = [number(100 * line[name], 1) for name in ("falling", "steps_falling")]
                rows.append([metric, kind, use, *shares, " ".join(means), photos])
            total = results.value(dataset.name, metric, f"falling_{use.replace(' ', '_')}")
            rows.append([metric, f"all {use}", use, with_interval(total, 100, 1), "", "", photos])
    header = ["metric", "distortion", "use", "photos that fall, %", "steps that fall, %"]
    caption = f"Ranking consistency on {dataset.name} ({dataset.rows})"
    return Table(caption, [*header, "mean scores", "n"], rows, f"levels-{dataset.name}")


def stability_table(results: Results, dataset: LabelledDataset) -> Table:
    """Return how far scores move under changes that nobody sees."""
    found = results.of(dataset.name, "change")
    moves = found[found["statistic"] == "move"]
    shares = found[found["statistic"] == "move_of_spread"]["value"]
    rows = []
    for line, share in zip(moves.itertuples(), shares, strict=True):
        move = with_interval(Interval(line.value, line.low, line.high), digits=4)
        rows.append([line.metric, line.group, move, number(100 * share, 1), str(line.n)])
    header = ["metric", "change", "mean move of the score", "% of the photos' spread", "n"]
    caption = f"Stability on {dataset.name} ({dataset.rows})"
    return Table(caption, header, rows, f"stability-{dataset.name}")


# ---- all datasets in one table


class SummaryColumn(NamedTuple):
    """A column of the summary: statistic, title, factor, decimals, and -1 where less is better."""

    statistic: str
    title: str
    factor: float = 1
    digits: int = 3
    sign: int = 1


SUMMARY = {
    "mos": [SummaryColumn("srcc", "SRCC"), SummaryColumn("plcc", "PLCC")],
    "levels": [
        SummaryColumn("falling_trained", "trained kinds that fall, %", 100, 1),
        SummaryColumn("falling_held_out", "held-out kinds that fall, %", 100, 1),
    ],
    "stability": [SummaryColumn("largest_move_of_spread", "largest move, % of spread", 100, 1, -1)],
}


def summary_table(results: Results, intervals: bool) -> Table:
    """Return one row for each metric and columns for each dataset; the best of a column is marked, and the second.

    A metric that has not scored all images that others have, or was trained on some, is not marked.

    Args:
        results: what to show.
        intervals: write them beside the values.
    """
    header, spans, cells = ["metric"], [("", 1)], [list(results.metrics)]
    marks: dict[tuple[int, int], str] = {}
    for dataset in results.datasets:
        columns = list(SUMMARY[dataset.kind])
        if dataset.within:
            columns.append(SummaryColumn(WITHIN, "SRCC within"))
        spans.append((dataset.name, len(columns)))
        complete = results.complete(dataset.name)
        groups = [image.groups.get(COLUMN, "") for image in dataset.images]
        learnt = [name for name in results.metrics if is_trained_on(groups, name).any()]
        for column in columns:
            found = [
                results.value(dataset.name, name, column.statistic) for name in results.metrics
            ]
            ranked = [
                column.sign * round(column.factor * one.value, column.digits)
                if metric in complete and metric not in learnt
                else float("nan")
                for metric, one in zip(results.metrics, found, strict=True)
            ]
            marks |= {(i, len(cells)): mark for i, mark in _rank(ranked).items()}
            shown = found if intervals else [Interval(one.value, np.nan, np.nan) for one in found]
            texts = [with_interval(one, column.factor, column.digits) for one in shown]
            cells.append(
                [
                    f"{text}*" if text and metric in learnt else text
                    for metric, text in zip(results.metrics, texts, strict=True)
                ]
            )
            header.append(column.title)
    described = "; ".join(f"{one.name}: {one.rows}" for one in results.datasets)
    caption = (
        "Metrics on all datasets. Best in bold, second underlined; within: mean of the SRCC within the dataset's own "
        f"groups. Rows: {described}"
    )
    if any("*" in cell for column in cells[1:] for cell in column):
        caption += ". * was trained on some of these images, and is not ranked"
    rows = [list(row) for row in zip(*cells, strict=True)]
    return Table(caption, header, rows, "summary", marks, spans)


def _rank(values: Sequence[float]) -> dict[int, str]:
    """Mark the positions of the largest value and of the second largest, ties alike, if there are two to compare."""
    finite = sorted({value for value in values if np.isfinite(value)}, reverse=True)
    if len(finite) < 2:
        return {}
    names = {finite[0]: BEST, finite[1]: SECOND}
    return {i: names[value] for i, value in enumerate(values) if value in names}


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
        counts = [number(line["parameters"] / 1e6, 1), number(line["macs"] / 1e9, 1)]
        memory, note = number(line["peak_memory_gib"], 2), _short(_cost_note(line))
        name, size = str(line["metric"]), str(line["size"])
        rows.append([name, size, seconds(line), speed, *counts, memory, where, note])
    header = ["metric", "size", "seconds", "images/s", "parameters (M)", "MACs (G)", "peak GiB"]
    return Table("Cost", [*header, "conditions", "note"], rows, "cost")


def seconds(line: pd.Series) -> str:
    """Return ``median (lower to upper quartile)`` in seconds, with three significant digits."""
    if not np.isfinite(line["seconds"]):
        return ""
    middle, low, high = (f"{line[name]:.3g}" for name in ("seconds", "seconds_q1", "seconds_q3"))
    return f"{middle} ({low} to {high})" if line["rounds"] > 1 else middle


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


def dataset_tables(results: Results, dataset: LabelledDataset) -> list[Table]:
    """Return every table of one dataset."""
    if dataset.kind == "levels":
        return [levels_table(results, dataset)]
    if dataset.kind == "stability":
        return [stability_table(results, dataset)]
    tables = [accuracy_table(results, dataset), *group_tables(results, dataset)]
    return [*tables, pair_table(results, dataset), significance_table(results, dataset)]


def all_tables(results: Results, efficiency: pd.DataFrame, intervals: bool = True) -> list[Table]:
    """Return every table that has lines; the summary only if there are two datasets or more."""
    tables = []
    if len(results.datasets) > 1:
        tables.append(summary_table(results, intervals))
    for dataset in results.datasets:
        tables += dataset_tables(results, dataset)
    tables += [cost_table(efficiency), failure_table(results.failures)]
    return [table for table in tables if table.rows]
