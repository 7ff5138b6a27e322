"""How tables are written: for the terminal, as Markdown, as LaTeX, and as pyiqa's own script writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tabulate import tabulate

from lifeiqa_plugin.benchmark.accuracy import Results
from lifeiqa_plugin.benchmark.tables import BEST, SECOND, Table

EXPLANATION = (
    "Signed by each metric's direction: a negative correlation is a metric that is sign-inverted. Intervals: 95 %, "
    "bootstrap over images. PLCC without a curve, and after a monotone logistic curve of 4 and of 5 parameters; RMSE "
    "after the one of 4. A fitted curve rises or falls as the plain PLCC says. Significance of differences in SRCC: "
    "Williams' test on ranks, two-sided, Holm-corrected, 5 %; its interval: paired bootstrap."
)
COST = (
    "Median seconds for one image (quartiles), after untimed runs, all metrics in turn in one process; images per "
    "second in batches; multiply-adds of convolutions and matrix products; peak memory: on the CPU of a whole process "
    "of its own, Python and torch included, on CUDA what torch allocated. Untrained weights do not change the cost."
)


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
        cells = [
            marks[table.marks.get((i, j), "")].format(_latex_text(cell))
            for j, cell in enumerate(row)
        ]
        lines.append(" & ".join(cells) + r" \\")
    header = [" & ".join(_latex_text(title) for title in table.header) + r" \\"]
    if table.spans:
        header = [*_latex_spans(table.spans), *header]
    columns = "l" + "c" * (len(table.header) - 1)
    parts = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(table.caption)}}}",
        rf"\label{{tab:{table.label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *header,
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(parts)


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


def pyiqa_table(results: Results) -> pd.DataFrame:
    """Return pyiqa's own kind of table, with cells ``PLCC/SRCC/KRCC``, here signed, and empty without scores."""
    table = pd.DataFrame(index=pd.Index(results.metrics, name="Metric name"))
    for dataset in results.datasets:
        if dataset.kind == "mos":
            cells = []
            for metric in results.metrics:
                names = ("plcc", "srcc", "krcc")
                values = [results.value(dataset.name, metric, name).value for name in names]
                text = "/".join(str(round(value, 4)) for value in values)
                cells.append(text if np.isfinite(values).all() else "")
            table[f"{dataset.name}(PLCC/SRCC/KRCC)"] = cells
    return table
