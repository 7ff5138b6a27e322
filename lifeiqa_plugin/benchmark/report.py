"""How tables are written: for the terminal, as Markdown, as LaTeX, and as csv, also as pyiqa's own script does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.accuracy import COLUMNS, COUNTS, PAIRS, WITHIN, Results, concat
from lifeiqa_plugin.benchmark.pairs import AFC, CEILING
from lifeiqa_plugin.benchmark.photos import LEVELS
from lifeiqa_plugin.benchmark.table import Table, latex, markdown, one_line, plain
from lifeiqa_plugin.benchmark.tables import Tables, all_failures
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


def write_tables(folder: Path, results: Sequence[Results], tables: Tables) -> None:
    """Write all tables as csv, Markdown and LaTeX, and print them; LaTeX has the short summary, but no failures."""
    for name, frame in csv_tables(results).items() if results else ():
        frame.to_csv(folder / f"{name}.csv", index=False)
    rest = [*tables.of_datasets, tables.cost]
    listed = [one for one in (tables.summary, *rest, tables.failures) if one and one.rows]
    short = [one for one in (tables.short_summary, *rest) if one and one.rows]
    texts = {"md": write_markdown(listed), "tex": write_latex(short)}
    for ending, text in texts.items():
        (folder / f"benchmark.{ending}").write_bytes(text.encode("utf-8", "replace"))
    print(write_terminal(listed))


def write_terminal(tables: Sequence[Table]) -> str:
    """Return all tables for the terminal."""
    return "\n\n".join(f"{table.caption}\n\n{plain(table)}" for table in tables)


def write_markdown(tables: Sequence[Table]) -> str:
    """Return all tables for a paper or a README."""
    parts = ["# Benchmark", EXPLANATION, COST]
    for table in tables:
        parts += [f"## {one_line(table.caption)}", markdown(table)]
    return "\n\n".join(parts) + "\n"


def write_latex(tables: Sequence[Table]) -> str:
    """Return all tables for LaTeX."""
    return "\n".join(latex(table) for table in tables)


# ---- as csv files


def csv_tables(results: Sequence[Results]) -> dict[str, pd.DataFrame]:
    """Return every table of one dataset or more in full: name of its csv -> content."""
    numbers, keys = concat([one.numbers for one in results], COLUMNS), ["dataset", "metric"]
    status = pd.concat([one.status.reset_index() for one in results], ignore_index=True)
    overall = _wide(numbers[numbers["column"] == ""], keys, (*STATISTICS, WITHIN))
    accuracy = status[[*keys, *COUNTS]].merge(overall, "left", on=keys)
    kinds = {one.dataset.name: one.dataset.kind for one in results}
    of_groups = numbers[numbers["column"] != ""]
    kind = of_groups["dataset"].map(kinds)
    by_group = ["dataset", "column", "group", "metric", "n"]
    tables = {
        "accuracy": accuracy.assign(note=status["note"]),
        "groups": _wide(of_groups[kind == "mos"], by_group, CORRELATIONS),
        "pairs": concat([one.pairs for one in results], PAIRS),
        "failures": all_failures(results),
        "pyiqa": pyiqa_table(results),
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
