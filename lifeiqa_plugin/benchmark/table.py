"""A table of text, and how it is written: for the terminal, as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tabulate import tabulate

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

    @property
    def flat_header(self) -> list[str]:
        """One header line, with the titles of spans in it."""
        titles = [title for title, width in self.spans for _ in range(width)]
        pairs = zip(titles or [""] * len(self.header), self.header, strict=True)
        return [f"{title} {name}".strip() for title, name in pairs]


def rank(values: Sequence[float]) -> dict[int, str]:
    """Mark the positions of the largest value and of the second largest, ties alike, if there are two to compare."""
    finite = sorted({value for value in values if np.isfinite(value)}, reverse=True)
    if len(finite) < 2:
        return {}
    names = {finite[0]: BEST, finite[1]: SECOND}
    return {i: names[value] for i, value in enumerate(values) if value in names}


EMPTY = "."
"""What stands in a cell without a value; a dash means worse in one of the tables."""


def _full_columns(table: Table) -> list[int]:
    """Return the columns that are not empty."""
    return [i for i in range(len(table.header)) if any(row[i] for row in table.rows)]


def plain(table: Table) -> str:
    """Return a table for the terminal; empty columns are left out."""
    full = _full_columns(table)
    header = [table.flat_header[i] for i in full]
    rows = [[one_line(row[i]) or EMPTY for i in full] for row in table.rows]
    return str(tabulate(rows, header, tablefmt="plain", disable_numparse=True))


def markdown(table: Table) -> str:
    """Return a Markdown table, the best bold and the second underlined; empty columns are left out."""
    full = _full_columns(table)
    marks = {BEST: "**{}**", SECOND: "<u>{}</u>", "": "{}"}
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for j in full:
            text = one_line(row[j]).replace("|", "\\|") or EMPTY
            cells.append(marks[table.marks.get((i, j), "")].format(text))
        rows.append(cells)
    header = [table.flat_header[j].replace("|", "\\|") for j in full]
    return str(tabulate(rows, header, tablefmt="github", disable_numparse=True))


def latex(table: Table) -> str:
    """Return a LaTeX table for the package booktabs, with caption and label; of an error, only its kind."""
    marks = {BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}", "": "{}"}
    lines = []
    for i, row in enumerate(table.rows):
        cells = [
            marks[table.marks.get((i, j), "")].format(_latex_text(ERROR.sub(r"\1", cell)) or EMPTY)
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


ERROR = re.compile(r"\b(no weights|\w*Error): .*", re.DOTALL)
"""An error in a note, and what it is about."""

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
    return "".join(SPECIAL.get(character, character) for character in one_line(text))


def one_line(text: str) -> str:
    """Return text with a space for each run of white space."""
    return re.sub(r"\s+", " ", text)
