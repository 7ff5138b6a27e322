"""How tables are written: for the terminal, as Markdown, as LaTeX, and as csv, also as pyiqa's own script does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from lifeiqa_plugin.benchmark.accuracy import COUNTS, WITHIN, Comparison, Results
from lifeiqa_plugin.benchmark.pairs import AFC, CEILING
from lifeiqa_plugin.benchmark.photos import LEVELS
from lifeiqa_plugin.benchmark.tables import BEST, SECOND, Table, Tables
from lifeiqa_plugin.correlation import CORRELATIONS, STATISTICS
from lifeiqa_plugin.distortions.synthetic import TRAINED

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


def write_tables(folder: Path, found: Comparison, tables: Tables) -> None:
    """Write all tables as csv, Markdown and LaTeX, and print them; LaTeX has the short summary, but no failures."""
    for name, frame in csv_tables(found).items() if found.datasets else ():
        frame.to_csv(folder / f"{name}.csv", index=False)
    rest = [*tables.of_datasets, tables.cost]
    listed = [one for one in (tables.summary, *rest, tables.failures) if one and one.rows]
    short = [one for one in (tables.short_summary, *rest) if one and one.rows]
    texts = {"md": write_markdown(listed), "tex": write_latex(short)}
    for ending, text in texts.items():
        (folder / f"benchmark.{ending}").write_bytes(text.encode("utf-8", "replace"))
    print(write_terminal(listed))


EMPTY = "."
"""What stands in a cell without a value; a dash means worse in one of the tables."""


def _full_columns(table: Table) -> list[int]:
    """Return the columns that are not empty."""
    return [i for i in range(len(table.header)) if any(row[i] for row in table.rows)]


def plain(table: Table) -> str:
    """Return a table for the terminal; empty columns are left out."""
    full = _full_columns(table)
    header = [table.flat_header[i] for i in full]
    rows = [[_one_line(row[i]) or EMPTY for i in full] for row in table.rows]
    return str(tabulate(rows, header, tablefmt="plain", disable_numparse=True))


def markdown(table: Table) -> str:
    """Return a Markdown table, the best bold and the second underlined; empty columns are left out."""
    full = _full_columns(table)
    marks = {BEST: "**{}**", SECOND: "<u>{}</u>", "": "{}"}
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for j in full:
            text = _one_line(row[j]).replace("|", "\\|") or EMPTY
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
    return "".join(SPECIAL.get(character, character) for character in _one_line(text))


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


# ---- as csv files


def csv_tables(found: Comparison) -> dict[str, pd.DataFrame]:
    """Return every table in full: name of its csv -> content."""
    numbers, keys = found.numbers, ["dataset", "metric"]
    overall = _wide(numbers[numbers["column"] == ""], keys, (*STATISTICS, WITHIN))
    accuracy = found.status[[*keys, *COUNTS]].merge(overall, "left", on=keys)
    kinds = {one.dataset.name: one.dataset.kind for one in found.datasets}
    of_groups = numbers[numbers["column"] != ""]
    kind = of_groups["dataset"].map(kinds)
    by_group = ["dataset", "column", "group", "metric", "n"]
    tables = {
        "accuracy": accuracy.assign(note=found.status["note"]),
        "groups": _wide(of_groups[kind == "mos"], by_group, CORRELATIONS),
        "pairs": found.pairs,
        "failures": found.failures,
        "pyiqa": pyiqa_table(found.datasets),
    }
    if "pairs" in kinds.values():
        of_pairs = numbers[numbers["dataset"].map(kinds) == "pairs"]
        tables["2afc"] = _wide(of_pairs, [*keys, "n"], (AFC, CEILING))
    if "levels" in kinds.values():
        tables["levels"] = _levels(of_groups[kind == "levels"])
    if "stability" in kinds.values():
        tables["stability"] = _stability(of_groups[kind == "stability"])
    return tables


def _levels(numbers: pd.DataFrame) -> pd.DataFrame:
    statistics = ["falling", "steps_falling", *(f"mean_{level}" for level in ("0", *LEVELS))]
    table = _wide(numbers, ["dataset", "metric", "group", "n"], statistics)
    table.insert(3, "use", np.where(table["group"].isin(list(TRAINED)), "trained", "held out"))
    table = table.rename(columns={"group": "distortion", "n": "photos"})
    return table[["dataset", "metric", "distortion", "use", "photos", *statistics]]


def _stability(numbers: pd.DataFrame) -> pd.DataFrame:
    keys = ["dataset", "metric", "group", "n"]
    table = _wide(numbers, keys, ["move", "move_of_spread"])
    table = table.rename(columns={"group": "change", "n": "photos"})
    return table.drop(columns=["move_of_spread_low", "move_of_spread_high"])


def _wide(tidy: pd.DataFrame, keys: list[str], statistics: Sequence[str]) -> pd.DataFrame:
    """Return the keys, each combination once and in its order, and value, low and high of each statistic."""
    table = tidy[keys].drop_duplicates(ignore_index=True)
    index = pd.MultiIndex.from_frame(table)
    for name in statistics:
        found = tidy[tidy["statistic"] == name].set_index(keys).reindex(index)
        for part, end in (("value", ""), ("low", "_low"), ("high", "_high")):
            table[f"{name}{end}"] = found[part].to_numpy(float)
    return table


def pyiqa_table(results: Sequence[Results]) -> pd.DataFrame:
    """Return pyiqa's own kind of table, with cells ``PLCC/SRCC/KRCC``, here signed, and empty without scores."""
    table = {"Metric name": list(results[0].status.index)}
    for one in results:
        if one.dataset.kind == "mos":
            cells = []
            for metric in table["Metric name"]:
                values = [one.values[metric, name].value for name in ("plcc", "srcc", "krcc")]
                text = "/".join(str(round(value, 4)) for value in values)
                cells.append(text if np.isfinite(values).all() else "")
            table[f"{one.dataset.name}(PLCC/SRCC/KRCC)"] = cells
    return pd.DataFrame(table)
