"""What tables say: correlations, comparisons, distorted photos, cost; each caption names the rows that were scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.accuracy import FAILURES, WITHIN, Results, concat
from lifeiqa_plugin.benchmark.pairs import AFC, CEILING
from lifeiqa_plugin.benchmark.photos import LEVELS
from lifeiqa_plugin.benchmark.table import Table, rank
from lifeiqa_plugin.correlation import Interval
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
"""Images without a score that texts list."""

MOST_ON_PAGE = 1000
"""The same of the page."""


class Tables(NamedTuple):
    """Every table of a comparison, as all formats take them.

    Attributes:
        summary: of all datasets, if there are two or more; else None.
        short_summary: of all datasets without intervals, for a paper; None without datasets.
        datasets: the tables of each dataset that have lines.
        cost: perhaps without lines.
        failures: the first images without a score.
        more_failures: more of them.
        failure_count: how many there are.
    """

    summary: Table | None
    short_summary: Table | None
    datasets: dict[str, list[Table]]
    cost: Table
    failures: Table
    more_failures: Table
    failure_count: int

    @property
    def of_datasets(self) -> list[Table]:
        """The tables of all datasets, one after the other."""
        return [table for tables in self.datasets.values() for table in tables]


def all_tables(results: Sequence[Results], efficiency: pd.DataFrame) -> Tables:
    """Return every table.

    Args:
        results: what scores say of each dataset.
        efficiency: as :func:`~lifeiqa_plugin.benchmark.speed.read_speed` returns it.
    """
    failures = all_failures(results)
    return Tables(
        summary_table(results, intervals=True) if len(results) > 1 else None,
        summary_table(results, intervals=False) if results else None,
        {one.dataset.name: [t for t in _dataset_tables(one) if t.rows] for one in results},
        cost_table(efficiency),
        failure_table(failures, MOST_FAILURES),
        failure_table(failures, MOST_ON_PAGE),
        len(failures),
    )


def all_failures(results: Sequence[Results]) -> pd.DataFrame:
    """Return the images on which a metric failed, of all datasets."""
    return concat([one.failures for one in results], FAILURES)


def _dataset_tables(results: Results) -> list[Table]:
    if results.dataset.kind == "levels":
        return [levels_table(results)]
    if results.dataset.kind == "stability":
        return [stability_table(results)]
    if results.dataset.kind == "pairs":
        return [table_of_pairs(results)]
    matrix = significance_table(results)
    return [accuracy_table(results), *group_tables(results), pair_table(results), matrix]


# ---- one dataset


def accuracy_table(results: Results) -> Table:
    """Return the correlations of all metrics on a dataset."""
    rows = []
    for metric, line in results.status.iterrows():
        found = [with_interval(results.values[metric, name]) for name in STATISTICS]
        missing = f"incomplete: {line['missing']:.0f} images not scored"
        note = missing if line["missing"] > 0 else _short(line["note"])
        rows.append([metric, *found, str(line["n"]), number(line["failed"], 0), note])
    header = ["metric", *STATISTICS.values(), "n", "failed", "note"]
    caption = _titled(results, "Correlation with people") + _ceiling(results)
    return Table(caption, header, rows, f"accuracy-{results.dataset.name}")


def _ceiling(results: Results) -> str:
    srcc, plcc = (number(value) for value in results.dataset.ceiling.values())
    return f"; raters' noise lets no metric pass SRCC {srcc}, PLCC {plcc}" if srcc else ""


def group_tables(results: Results) -> list[Table]:
    """Return, for each group column, the SRCC of all metrics by its values."""
    name, tables = results.dataset.name, []
    found = results.numbers[results.numbers["statistic"] == "srcc"]
    for column, mine in found[found["column"] != ""].groupby("column", sort=False):
        metrics = list(mine["metric"].unique())
        rows = []
        for group, members in mine.groupby("group"):
            lines = members.set_index("metric")[["value", "low", "high"]].reindex(metrics)
            cells = [with_interval(Interval(*line)) for line in lines.to_numpy(float)]
            if any(cells):
                rows.append([str(group), str(members["n"].max()), *cells])
        header = [column, "n", *(f"{metric}, SRCC" for metric in metrics)]
        caption = f"{name} by {column} ({results.dataset.rows})"
        tables.append(Table(caption, header, rows, f"groups-{name}-{column}"))
    return tables


def pair_table(results: Results) -> Table:
    """Return the comparisons of every two metrics on a dataset."""
    rows = []
    for pair in results.pairs.itertuples():
        p = f"{pair.p:.2g}" if np.isfinite(pair.p) else ""
        difference = with_interval(Interval(pair.difference, pair.low, pair.high))
        verdict = "yes" if pair.significant else "no"
        rows.append([pair.a, pair.b, difference, p, verdict, str(pair.n)])
    header = ["metric", "other", "difference in SRCC", "p", "significant", "n"]
    caption = _titled(results, "Differences") + _left_out(results)
    return Table(caption, header, rows, f"pairs-{results.dataset.name}")


def _left_out(results: Results) -> str:
    is_marked = results.status["learnt"].any()
    return ", without those that a metric was trained on" if is_marked else ""


def significance_table(results: Results) -> Table:
    """Return a matrix: whether the metric of a row is better (+), worse (-) or not told apart (=) from a column's.

    All of it is of the same images: a metric that has not scored all that others have is left out.
    """
    status, pairs = results.status, results.pairs
    metrics = list(status.index[status["complete"]])
    fewer = status["n"][~status["complete"] & (status["n"] > 0)]
    signs = {}
    for pair in pairs[pairs["n"] == pairs["n"].max()].itertuples():
        sign = "=" if not pair.significant else "+" if pair.difference > 0 else "-"
        signs[pair.a, pair.b] = sign
        signs[pair.b, pair.a] = {"+": "-", "-": "+"}.get(sign, "=")
    rows = [[metric, *(signs.get((metric, other), "") for other in metrics)] for metric in metrics]
    caption = (
        f"{_titled(results, 'Significance')}: the metric of the row has a higher (+) or lower (-) "
        f"SRCC than that of the column, or is not told apart from it (=), all on the same {pairs['n'].max():.0f} images"
    )
    caption += _left_out(results)
    if len(fewer):
        names = ", ".join(f"{name} ({n})" for name, n in fewer.items())
        caption += f"; left out, as they have scores of fewer: {names}"
    label = f"significance-{results.dataset.name}"
    return Table(caption, ["", *metrics], rows if signs else [], label)


def table_of_pairs(results: Results) -> Table:
    """Return the 2AFC accuracy of all metrics on a dataset of pairs."""
    rows = []
    for line in results.numbers[results.numbers["statistic"] == AFC].itertuples():
        found = (results.values[line.metric, name] for name in (AFC, CEILING))
        note = results.status.loc[line.metric, "note"]
        rows.append([line.metric, *(with_interval(one) for one in found), str(line.n), note])
    header = ["metric", "2AFC", "most that scores can reach", "pairs", "note"]
    caption = _titled(results, "Agreement with votes")
    return Table(caption, header, rows, f"2afc-{results.dataset.name}")


# ---- photos that nobody has rated


def levels_table(results: Results) -> Table:
    """Return the share of photos whose score falls with each level, by kind of distortion."""
    rows = []
    for metric, numbers in results.numbers.groupby("metric", sort=False):
        photos = str(numbers.loc[numbers["statistic"] == "falling_trained", "n"].iloc[0])
        of_kinds = numbers[numbers["column"] != ""]
        kinds = of_kinds.pivot(index="group", columns="statistic", values="value")
        levels = [f"mean_{level}" for level in ("0", *LEVELS)]
        for use, members in (("trained", TRAINED), ("held out", HELD_OUT)):
            for kind in members:
                line = kinds.loc[kind]
                means = " ".join(f"{line[name]:.2f}" for name in levels if name in line)
                shares = [number(100 * line[name], 1) for name in ("falling", "steps_falling")]
                rows.append([metric, kind, use, *shares, means, photos])
            total = results.values[metric, f"falling_{use.replace(' ', '_')}"]
            rows.append([metric, f"all {use}", use, with_interval(total, 100, 1), "", "", photos])
    header = ["metric", "distortion", "use", "photos that fall, %", "steps that fall, %"]
    caption, label = _titled(results, "Ranking consistency"), f"levels-{results.dataset.name}"
    return Table(caption, [*header, "mean scores", "n"], rows, label)


def stability_table(results: Results) -> Table:
    """Return how far scores move under changes that nobody sees."""
    moves, shares = (
        results.numbers[results.numbers["statistic"] == name] for name in ("move", "move_of_spread")
    )
    rows = []
    for line, share in zip(moves.itertuples(), shares["value"], strict=True):
        move = with_interval(Interval(line.value, line.low, line.high), digits=4)
        rows.append([line.metric, line.group, move, number(100 * share, 1), str(line.n)])
    header = ["metric", "change", "mean move of the score", "% of the photos' spread", "n"]
    caption = _titled(results, "Stability")
    return Table(caption, header, rows, f"stability-{results.dataset.name}")


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
    "pairs": [SummaryColumn(AFC, "2AFC")],
    "levels": [
        SummaryColumn("falling_trained", "trained kinds that fall, %", 100, 1),
        SummaryColumn("falling_held_out", "held-out kinds that fall, %", 100, 1),
    ],
    "stability": [SummaryColumn("largest_move_of_spread", "largest move, % of spread", 100, 1, -1)],
}
WITHIN_COLUMN = SummaryColumn(WITHIN, "SRCC within")


def summary_table(results: Sequence[Results], intervals: bool) -> Table:
    """Return one row for each metric and columns for each dataset; the best of a column is marked, and the second.

    A metric that has not scored all images that others have, or was trained on some, is not marked.

    Args:
        results: of one dataset or more.
        intervals: write them beside the values.
    """
    metrics = list(results[0].status.index)
    header, spans, cells = ["metric"], [("", 1)], [metrics]
    marks: dict[tuple[int, int], str] = {}
    for one in results:
        columns = [*SUMMARY[one.dataset.kind], *([WITHIN_COLUMN] if one.dataset.within else [])]
        spans.append((one.dataset.name, len(columns)))
        is_ranked = one.status["complete"] & ~one.status["learnt"]
        for column in columns:
            ranked, texts = [], []
            for metric in metrics:
                found = one.values[metric, column.statistic]
                rounded = column.sign * round(column.factor * found.value, column.digits)
                ranked.append(rounded if is_ranked[metric] else float("nan"))
                shown = found if intervals else Interval(found.value, np.nan, np.nan)
                text = with_interval(shown, column.factor, column.digits)
                texts.append(f"{text}*" if text and one.status["learnt"][metric] else text)
            marks |= {(i, len(cells)): mark for i, mark in rank(ranked).items()}
            cells.append(texts)
            header.append(column.title)
    described = "; ".join(f"{one.dataset.name}: {one.dataset.rows}" for one in results)
    caption = f"Best in bold, second underlined. Rows: {described}"
    if any(one.dataset.within for one in results):
        caption += ". Within: mean of the SRCC within the dataset's own groups"
    if any("*" in cell for column in cells[1:] for cell in column):
        caption += ". * was trained on some of these images, and is not ranked"
    rows = [list(row) for row in zip(*cells, strict=True)]
    return Table(caption, header, rows, "summary", marks, spans)


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


def failure_table(failures: pd.DataFrame, most: int) -> Table:
    """Return the first images that have no score, and how many there are."""
    shown = failures.head(most)
    caption = f"Images without a score: {len(failures)}, the first {len(shown)}"
    rows = shown.astype(str).to_numpy().tolist()
    return Table(caption, list(failures.columns), rows, "failures")


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


def _short(note: str) -> str:
    return note if len(note) <= 70 else f"{note[:67]}..."


def _titled(results: Results, what: str) -> str:
    return f"{what} on {results.dataset.name} ({results.dataset.rows})"
