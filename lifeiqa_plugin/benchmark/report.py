"""Tables for the terminal, Markdown, LaTeX and the page; each says which rows were scored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tabulate import tabulate

from lifeiqa_plugin.benchmark.accuracy import WITHIN, Accuracy, Pair, Result
from lifeiqa_plugin.benchmark.datasets import LabelledDataset
from lifeiqa_plugin.correlation import Interval

EXPLANATION = (
    "Signed by each metric's direction: a negative correlation is a metric that is wrong way round. Intervals: 95 %, "
    "bootstrap over images. PLCC without a curve, and after a monotone logistic curve of 4 and of 5 parameters; RMSE "
    "after the one of 4. A fitted curve rises or falls as the plain PLCC says. Significance of differences in SRCC: "
    "Williams' test on ranks, two-sided, Holm-corrected, 5 %; its interval: paired bootstrap."
)
COST = (
    "Median seconds for one image (quartiles), after untimed runs, all metrics in turn in one process; images per "
    "second in batches; multiply-adds of convolutions and matrix products; peak memory: on the CPU of a whole process "
    "of its own, Python and torch included, on CUDA what torch allocated. Untrained weights do not change the cost."
)
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
    """Return a matrix: whether the metric of a row is better (+), worse (-) or not told apart (=) from a column's."""
    pairs = [pair for pair in accuracy.pairs if pair.dataset == dataset.name]
    involved = {name for pair in pairs for name in (pair.a, pair.b)}
    metrics = [metric for metric in accuracy.metrics if metric in involved]
    signs: dict[tuple[str, str], str] = {}
    for pair in pairs:
        signs[pair.a, pair.b] = _sign(pair)
        signs[pair.b, pair.a] = {"+": "-", "-": "+"}.get(_sign(pair), "=")
    rows = []
    for metric in metrics:
        rows.append([metric, *(signs.get((metric, other), "") for other in metrics)])
    caption = (
        f"Significance on {dataset.name} ({dataset.rows}): the metric of the row has a higher (+) or lower (-) "
        "SRCC than that of the column, or is not told apart from it (=)"
    )
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
                    rows.append([metric, kind.kind, use, falling, steps, means])
            share = with_interval(total, 100, 1)
            rows.append([metric, f"all {use}", use, share, "", ""])
    header = ["metric", "distortion", "use", "ladders that fall, %", "steps that fall, %"]
    caption = f"Ladders of {dataset.name} ({dataset.rows})"
    return Table(caption, [*header, "mean scores"], rows, f"ladders-{dataset.name}")


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


# ---- formats


def plain(table: Table) -> str:
    """Return a table for the terminal; empty columns are left out."""
    full = [i for i in range(len(table.header)) if any(row[i] for row in table.rows)]
    header = [flat_header(table)[i] for i in full]
    rows = [[_one_line(row[i]) for i in full] for row in table.rows]
    return str(tabulate(rows, header, tablefmt="plain", disable_numparse=True))


def markdown(table: Table) -> str:
    """Return a Markdown table, the best bold and the second underlined."""
    marks = {BEST: "**{}**", SECOND: "<u>{}</u>", "": "{}"}
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for j, cell in enumerate(row):
            text = _one_line(cell).replace("|", "\\|")
            cells.append(marks[table.marks.get((i, j), "")].format(text))
        rows.append(cells)
    header = [title.replace("|", "\\|") for title in flat_header(table)]
    return str(tabulate(rows, header, tablefmt="github", disable_numparse=True))


def latex(table: Table) -> str:
    """Return a LaTeX table for the package booktabs, with caption and label."""
    marks = {BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}", "": "{}"}
    lines = []
    for i, row in enumerate(table.rows):
        cells = []
        for j, cell in enumerate(row):
            cells.append(marks[table.marks.get((i, j), "")].format(_latex_text(cell)))
        lines.append(" & ".join(cells) + r" \\")
    header = [" & ".join(_latex_text(title) for title in table.header) + r" \\"]
    if table.spans:
        header = [*_latex_spans(table.spans), *header]
    columns = "l" + "c" * (len(table.header) - 1)
    body = [r"\toprule", *header, r"\midrule", *lines, r"\bottomrule"]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(table.caption)}}}",
            rf"\label{{tab:{table.label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            *body,
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_spans(spans: Sequence[tuple[str, int]]) -> list[str]:
    """Return a line of titles over several columns, and the rules below them."""
    cells, rules, first = [], [], 1
    for title, width in spans:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex_text(title)}}}")
        if title:
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    return [" & ".join(cells) + r" \\", " ".join(rules)]


SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
"""Characters that mean something to LaTeX -> how they are written."""


def _latex_text(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in _one_line(text))


def flat_header(table: Table) -> list[str]:
    """Return one header line, with the titles of spans in it."""
    if not table.spans:
        return table.header
    titles: list[str] = []
    for title, width in table.spans:
        titles += [title] * width
    pairs = zip(titles, table.header, strict=True)
    return [f"{title} {name}".strip() for title, name in pairs]


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def write_terminal(tables: Sequence[Table]) -> str:
    """Return all tables for the terminal."""
    return "\n\n".join(f"{table.caption}\n\n{plain(table)}" for table in tables)


def write_markdown(tables: Sequence[Table]) -> str:
    """Return all tables for a paper or a README."""
    parts = ["# Benchmark", EXPLANATION, COST]
    for table in tables:
        parts += [f"## {_one_line(table.caption)}", markdown(table)]
    return "\n\n".join(parts) + "\n"


def write_latex(tables: Sequence[Table]) -> str:
    """Return all tables for LaTeX."""
    return "\n".join(latex(table) for table in tables)


def pyiqa_table(accuracy: Accuracy) -> pd.DataFrame:
    """Return pyiqa's own kind of table, with cells ``PLCC/SRCC/KRCC``, here signed, and empty without scores."""
    table: dict[str, list[str]] = {"Metric name": list(accuracy.metrics)}
    for dataset in accuracy.datasets:
        if dataset.kind != "opinions":
            continue
        cells = []
        for metric in accuracy.metrics:
            result = accuracy.result(dataset.name, metric)
            values = [result.value(name).value for name in ("plcc", "srcc", "krcc")]
            text = "/".join(str(round(value, 4)) for value in values)
            cells.append(text if np.isfinite(values).all() else "")
        table[f"{dataset.name}(PLCC/SRCC/KRCC)"] = cells
    return pd.DataFrame(table).set_index("Metric name")
