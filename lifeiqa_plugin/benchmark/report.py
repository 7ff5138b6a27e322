"""Tables for the terminal, pyiqa, papers and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.accuracy import Accuracy

EXPLANATION = (
    "Signed by each metric's direction: a negative correlation is a metric that is wrong way round. Intervals: 95 %, "
    "bootstrap over images. PLCC without a curve, and after a monotone logistic curve of 4 and of 5 parameters; RMSE "
    "after the one of 4. Significance of differences in SRCC: Williams' test on ranks, two-sided, Holm-corrected, 5 %; "
    "its interval: paired bootstrap."
)
COST = (
    "Median seconds for one image (quartiles), after untimed runs, all metrics in turn in one process; images per "
    "second in batches; multiply-adds of convolutions and matrix products; peak memory: on the CPU of a whole process "
    "of its own, Python and torch included, on CUDA what torch allocated. Untrained weights do not change the cost."
)
Rows = list[list[str]]


# --------------------------------------------------------------------------------------------------------------- cells


def number(value: object, digits: int = 3) -> str:
    """Return a number with so many decimals; empty where there is none."""
    return (
        ""
        if not isinstance(value, int | float | np.number) or not np.isfinite(value)
        else f"{value:.{digits}f}"
    )


def with_interval(line: pd.Series, name: str) -> str:
    """Return ``value (low to high)``, or the value alone where no samples were drawn."""
    return interval_text(line[name], line[f"{name}_low"], line[f"{name}_high"])


def interval_text(value: float, low: float, high: float) -> str:
    """Return ``value (low to high)``, without the interval where there is none."""
    if not number(low):
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"


def seconds(line: pd.Series) -> str:
    """Return ``median (lower to upper quartile)`` in seconds, with three significant digits."""
    if not np.isfinite(line["seconds"]):
        return ""
    middle, low, high = (f"{line[name]:.3g}" for name in ("seconds", "seconds_q1", "seconds_q3"))
    return f"{middle} ({low} to {high})" if line["rounds"] > 1 else middle


def scaled(value: float, unit: float, digits: int = 1) -> str:
    """Return a count in units of, say, 1e6; empty where there is none."""
    return number(value / unit, digits) if np.isfinite(value) else ""


def accuracy_rows(overall: pd.DataFrame, name: str) -> tuple[list[str], Rows]:
    """Return header and lines of the main table of one set."""
    header = [
        "metric",
        "SRCC",
        "PLCC",
        "PLCC (logistic-4)",
        "PLCC (logistic-5)",
        "KRCC",
        "RMSE",
        "n",
        "failed",
        "note",
    ]
    names = ("srcc", "plcc", "plcc_logistic4", "plcc_logistic5", "krcc", "rmse_logistic4")
    rows = []
    for _, line in overall[overall["set"] == name].iterrows():
        note = line["note"]
        if np.isfinite(line["missing"]) and line["missing"]:
            note = f"incomplete: {line['missing']:.0f} images not scored"
        cells = [with_interval(line, key) for key in names]
        rows.append(
            [line["metric"], *cells, str(line["n"]), number(line["failed"], 0), _short(note)]
        )
    return header, rows


def group_rows(groups: pd.DataFrame, name: str, column: str) -> tuple[list[str], Rows]:
    """Return header and lines of SRCC by group: one line for each value, one column for each metric."""
    chosen = groups[(groups["set"] == name) & (groups["column"] == column)]
    metrics = list(dict.fromkeys(chosen["metric"]))
    rows = []
    for group, members in chosen.groupby("group", sort=True):
        by_metric = {line["metric"]: with_interval(line, "srcc") for _, line in members.iterrows()}
        if any(by_metric.values()):
            rows.append(
                [
                    str(group),
                    str(members["n"].max()),
                    *(by_metric.get(metric, "") for metric in metrics),
                ]
            )
    return [column, "n", *(f"{metric}, SRCC" for metric in metrics)], rows


def pair_rows(pairs: pd.DataFrame, name: str) -> tuple[list[str], Rows]:
    """Return header and lines of the comparisons of one set."""
    rows = []
    for _, line in pairs[pairs["set"] == name].iterrows():
        difference = interval_text(line["difference"], line["low"], line["high"])
        p = f"{line['p']:.2g}" if np.isfinite(line["p"]) else ""
        rows.append(
            [
                line["a"],
                line["b"],
                difference,
                p,
                "yes" if line["significant"] else "no",
                str(line["n"]),
            ]
        )
    return ["metric", "other", "difference in SRCC", "p", "significant", "n"], rows


def cost_rows(efficiency: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return header and lines of the efficiency table, each with its conditions."""
    header = [
        "metric",
        "size",
        "seconds",
        "images/s",
        "parameters (M)",
        "MACs (G)",
        "peak GiB",
        "conditions",
        "note",
    ]
    rows = []
    for _, line in efficiency.iterrows():
        speed = f"{line['images_per_second']:.3g}" if np.isfinite(line["images_per_second"]) else ""
        where = (
            f"{line['device']}, {line['threads']} threads, {line['dtype']}, torch {line['torch']}"
        )
        where += f", {line['rounds']} rounds, batch {line['batch']}"
        note = "" if pd.isna(line["note"]) else str(line["note"])
        if line["weights"] == "untrained":
            note = "; ".join(
                [
                    "untrained",
                    *(part for part in note.split("; ") if not part.startswith("no weights")),
                ]
            )
        sizes = [
            scaled(line["parameters"], 1e6),
            scaled(line["macs"], 1e9),
            number(line["peak_memory_gib"], 2),
        ]
        rows.append(
            [line["metric"], line["size"], seconds(line), speed, *sizes, where, _short(note)]
        )
    return header, rows


def failure_rows(failures: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return header and lines of images that have no score."""
    return list(failures.columns), failures.astype(str).to_numpy().tolist()


def _short(note: object) -> str:
    text = "" if not isinstance(note, str) else note
    return text if len(text) <= 70 else text[:67] + "..."


# -------------------------------------------------------------------------------------------------------------- tables


def plain_table(header: Sequence[str], rows: Rows) -> str:
    """Return a table for the terminal: columns in line, empty ones left out."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[line[i] for i in kept] for line in [list(header), *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(kept))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def latex_table(header: Sequence[str], rows: Rows, caption: str) -> str:
    """Return a LaTeX table for the package booktabs."""
    special = str.maketrans(
        {c: f"\\{c}" for c in "&%$#_{}"}
        | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
    )
    lines = [
        " & ".join(cell.translate(special) for cell in row) + r" \\"
        for row in [list(header), *rows]
    ]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    columns = "l" * len(header)
    return (
        f"\\begin{{table}}\n\\caption{{{caption.translate(special)}}}\n\\begin{{tabular}}{{{columns}}}\n{body}\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def all_tables(accuracy: Accuracy, efficiency: pd.DataFrame) -> list[tuple[str, list[str], Rows]]:
    """Return caption, header and lines of every table that has lines."""
    tables = []
    for name in dict.fromkeys(accuracy.overall["set"]):
        tables.append((f"Agreement with people on {name}", *accuracy_rows(accuracy.overall, name)))
        groups = accuracy.groups[accuracy.groups["set"] == name]
        for column in dict.fromkeys(groups["column"]):
            tables.append((f"{name} by {column}", *group_rows(groups, name, column)))
        tables.append((f"Differences on {name}", *pair_rows(accuracy.pairs, name)))
    tables.append(("Cost", *cost_rows(efficiency)))
    failures = accuracy.failures.head(100)
    caption = f"Images without a score: {len(accuracy.failures)}, the first {len(failures)}"
    tables.append((caption, *failure_rows(failures)))
    return [table for table in tables if table[2]]


def _document(
    tables: list[tuple[str, list[str], Rows]], draw: Callable[..., str], heading: str
) -> str:
    return "\n\n".join(
        heading.format(caption) + draw(header, rows) for caption, header, rows in tables
    )


def terminal(accuracy: Accuracy, efficiency: pd.DataFrame) -> str:
    """Return all tables for the terminal."""
    return _document(all_tables(accuracy, efficiency), plain_table, "{}\n\n")


def markdown(accuracy: Accuracy, efficiency: pd.DataFrame) -> str:
    """Return all tables for a paper or a README."""
    text = _document(all_tables(accuracy, efficiency), markdown_table, "## {}\n\n")
    return f"# Benchmark\n\n{EXPLANATION}\n\n{COST}\n\n{text}\n"


def latex(accuracy: Accuracy, efficiency: pd.DataFrame) -> str:
    """Return all tables for LaTeX."""
    return "\n".join(
        latex_table(header, rows, caption)
        for caption, header, rows in all_tables(accuracy, efficiency)
    )


def pyiqa_table(overall: pd.DataFrame) -> pd.DataFrame:
    """Return pyiqa's own kind of table, with cells ``PLCC/SRCC/KRCC``, here signed, and empty without scores."""

    def cell(line: pd.Series) -> str:
        values = [line["plcc"], line["srcc"], line["krcc"]]
        return (
            "/".join(str(round(float(value), 4)) for value in values)
            if np.isfinite(values).all()
            else ""
        )

    filled = overall.assign(
        cell=overall.apply(cell, axis=1), column=overall["set"] + "(PLCC/SRCC/KRCC)"
    )
    table = filled.pivot(index="metric", columns="column", values="cell")
    order = list(dict.fromkeys(filled["metric"]))
    return table.loc[order, list(dict.fromkeys(filled["column"]))].rename_axis(
        index="Metric name", columns=None
    )
