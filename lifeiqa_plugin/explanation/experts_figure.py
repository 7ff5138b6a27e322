"""The tables of ``lifeiqa experts`` as heat maps."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from lifeiqa_plugin.explanation.experts import Finding
from lifeiqa_plugin.explanation.figure import SEQUENTIAL, WIDTH, load_matplotlib, without_date


def draw(findings: Sequence[Finding], kind: str) -> bytes:
    """Return one heat map per finding as the bytes of a ``png`` or ``svg`` file.

    Raises:
        ImportError: matplotlib is missing.
    """
    matplotlib, figure_class = load_matplotlib()
    rows = -(-len(findings) // 2)
    heights = [
        1.6 + 0.17 * max(len(finding.rows) for finding in findings[2 * i : 2 * i + 2])
        for i in range(rows)
    ]
    with matplotlib.rc_context({"svg.hashsalt": "lifeiqa", "font.size": 8}):
        figure = figure_class(figsize=(WIDTH, sum(heights)), layout="constrained")
        grid = figure.subplots(rows, 2, squeeze=False, height_ratios=heights).ravel()
        for axis in grid[len(findings) :]:
            axis.set_axis_off()
        for axis, finding in zip(grid, findings, strict=False):
            shown = axis.imshow(finding.table, cmap=SEQUENTIAL, vmin=0, aspect="auto")
            axis.set_title("\n".join(textwrap.wrap(finding.sentence, 62)), fontsize=8.5)
            axis.set_xticks(range(len(finding.columns)), finding.columns, rotation=30, ha="right")
            axis.set_yticks(range(len(finding.rows)), finding.rows)
            figure.colorbar(shown, ax=axis, label="share of the row")
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=160, metadata=without_date(kind))
    return file.getvalue()
