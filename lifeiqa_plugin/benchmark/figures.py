"""Figures for a paper as SVG and PDF: scores against people, accuracy against cost, significance; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lifeiqa_plugin.benchmark.accuracy import Results
from lifeiqa_plugin.benchmark.table import Table
from lifeiqa_plugin.benchmark.tables import Tables
from lifeiqa_plugin.correlation import fit

STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lifeiqa",
    "pdf.fonttype": 42,
}
"""Text stays text in both formats, and the same figure is the same file."""

WIDTH = 3.5
"""Of a column of a paper, in inches."""

COLORS = {"+": "tab:blue", "-": "tab:orange", "=": "0.9", "": "1.0"}


def write_figures(
    folder: Path,
    scores: pd.DataFrame,
    results: Sequence[Results],
    tables: Tables,
    efficiency: pd.DataFrame,
) -> None:
    """Write ``scatter-``, ``cost-`` and ``significance-DATASET`` as ``.svg`` and ``.pdf``.

    Args:
        folder: to write to.
        scores: as :meth:`~lifeiqa_plugin.benchmark.scores.Store.table` returns them.
        results: what they say of each dataset.
        tables: of both.
        efficiency: as :func:`~lifeiqa_plugin.benchmark.speed.read_speed` returns it.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for one in results:
            name = one.dataset.name
            if one.dataset.kind != "mos":
                continue
            good = scores[(scores["dataset"] == name) & (scores["error"] == "")]
            if len(good):
                _save(folder / f"scatter-{name}", draw_scatter(good, one))
            for table in tables.datasets[name]:
                if table.label == f"significance-{name}":
                    _save(folder / table.label, draw_significance(table, one))
            costs = efficiency[np.isfinite(efficiency["seconds"].astype(float))]
            if len(costs) and len(good):
                _save(folder / f"cost-{name}", draw_cost(costs, one))


def _new_figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _in_words(results: Results) -> str:
    return f"{results.dataset.name} ({results.dataset.rows})"


def _save(stem: Path, figure: Any) -> None:
    figure.savefig(f"{stem}.svg", metadata={"Date": None})
    figure.savefig(f"{stem}.pdf", metadata={"CreationDate": None})


def draw_scatter(scores: pd.DataFrame, results: Results) -> Any:
    """Return the scores of every metric against those of people, with the fitted 4-parameter curve."""
    metrics = [metric for metric in results.status.index if metric in set(scores["metric"])]
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    figure = _new_figure(2.3 * columns, 2.2 * lines)
    for i, metric in enumerate(metrics):
        rows = scores[scores["metric"] == metric]
        x, y = rows["score"].to_numpy(float), rows["mos"].to_numpy(float)
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.plot(x, y, ".", markersize=2, alpha=0.5, rasterized=len(x) > 5000)
        curve = fit("logistic4", x, y)
        if curve is not None:
            grid = np.linspace(x.min(), x.max(), 80)
            axes.plot(grid, curve(grid), color="tab:orange")
        srcc = results.values[metric, "srcc"].value
        axes.set_title(f"{metric}, SRCC {srcc:.3f}")
    figure.supxlabel("score")
    figure.supylabel(f"MOS, {_in_words(results)}")
    return figure


def draw_cost(costs: pd.DataFrame, results: Results) -> Any:
    """Return SRCC against seconds for one image, at the size that most metrics were measured at."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    counts = costs.groupby(["size", "device"]).size()
    size, device = counts.idxmax()
    shown = costs[(costs["size"] == size) & (costs["device"] == device)]
    figure = _new_figure(WIDTH, 2.6)
    axes = figure.add_subplot()
    above = True
    for _, line in shown.sort_values("seconds").iterrows():
        srcc = results.values[str(line["metric"]), "srcc"]
        if not np.isfinite(srcc.value):
            continue
        seconds = float(line["seconds"])
        axes.plot(seconds, srcc.value, "o", color="tab:blue", markersize=4)
        if np.isfinite(srcc.low):
            axes.vlines(seconds, srcc.low, srcc.high, color="tab:blue")
        place = (5, 3) if above else (5, -9)
        name = str(line["metric"])
        axes.annotate(name, (seconds, srcc.value), place, textcoords="offset points")
        above = not above
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.4)  # room for the names
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"seconds for one {size} image, {device}")
    axes.set_ylabel(f"SRCC, {_in_words(results)}")
    return figure


def draw_significance(table: Table, results: Results) -> Any:
    """Return the matrix of significant differences: blue where the row's metric is better, orange where worse."""
    metrics = table.header[1:]
    figure = _new_figure(WIDTH, WIDTH)
    axes = figure.add_subplot()
    for i, (_, *cells) in enumerate(table.rows):
        for j, sign in enumerate(cells):
            axes.fill([j, j + 1, j + 1, j], [i, i, i + 1, i + 1], color=COLORS[sign])
            axes.text(j + 0.5, i + 0.5, sign, ha="center", va="center")
    places = np.arange(len(metrics)) + 0.5
    axes.set_xticks(places, metrics, rotation=45, ha="right")
    axes.set_yticks(places, metrics)
    axes.set_xlim(0, len(metrics))
    axes.set_ylim(len(metrics), 0)
    axes.set_aspect("equal")
    axes.set_title(f"{_in_words(results)}")
    return figure
