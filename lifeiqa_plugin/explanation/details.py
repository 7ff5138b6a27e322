"""What is inside the network as it scores one image: a second figure, for those who study it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lifeiqa_plugin.explanation.figure import WIDTH, load_matplotlib, to_file

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

    from lifeiqa_plugin.explanation.explanation import Explanation

SEQUENTIAL = "cividis"
DIVERGING = "PuOr"
FLAW = "magma"
ATTENTION = "viridis"


def draw_details(explanation: Explanation, kind: str) -> bytes:
    """Return maps, attention and experts as the bytes of a ``png`` or ``svg`` file.

    Raises:
        ImportError: matplotlib is missing.
    """
    matplotlib, figure_class = load_matplotlib()
    height, width = explanation.image.shape[:2]
    panels = 1 + bool(explanation.distortions) + (explanation.attribution is not None)
    top = WIDTH / panels * height / width * 0.95 + 1.2
    layers, queries = explanation.attention.shape[:2]
    bottom = max(2.8, WIDTH * 0.62 / queries * layers * height / width + 0.8)
    with matplotlib.rc_context({"svg.hashsalt": "lifeiqa", "font.size": 8.5}):
        figure = figure_class(figsize=(WIDTH, top + bottom), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[top, bottom])
        _draw_maps(upper, explanation, panels)
        left, right = lower.subfigures(1, 2, width_ratios=[0.64, 0.36])
        _draw_attention(left, explanation)
        _draw_experts(right, explanation)
        return to_file(figure, kind)


def _draw_maps(figure: SubFigure, explanation: Explanation, panels: int) -> None:
    figure.suptitle(explanation.name, fontsize=11, parse_math=False)
    drawn = figure.subplots(1, panels, squeeze=False, subplot_kw={"anchor": "N"})
    axes = iter(drawn[0])
    low, high = quality_limits(explanation)
    axis = next(axes)
    shown = _show(axis, "quality", explanation.quality_map, cmap=SEQUENTIAL, vmin=low, vmax=high)
    _add_bar(figure, shown, axis)
    if explanation.distortions:
        name, values = main_flaw(explanation)
        axis = next(axes)
        shown = _show(axis, f"strength of {name}", values, cmap=FLAW, vmin=0, vmax=1)
        _add_bar(figure, shown, axis)
    if explanation.attribution is not None:
        smooth = _smooth(explanation.attribution, 8)
        limit = float(np.abs(smooth).max()) or 1.0
        axis = next(axes)
        shown = _show(
            axis,
            "what detail adds to the score",
            smooth,
            cmap=DIVERGING,
            vmin=-limit,
            vmax=limit,
        )
        bar = _add_bar(figure, shown, axis, ticks=[-limit, 0, limit])
        bar.ax.set_xticklabels(["lowers", "0", "raises"])
        bar.ax.get_xticklabels()[0].set_horizontalalignment("left")
        bar.ax.get_xticklabels()[-1].set_horizontalalignment("right")


def main_flaw(explanation: Explanation) -> tuple[str, NDArray[np.float32]]:
    """Return name and map (H, W) of the distortion whose place is said, else of the strongest one."""
    names = list(explanation.distortions)
    local = explanation.local_flaw
    name = local.name if local else max(names, key=explanation.distortions.__getitem__)
    return name, explanation.distortion_maps[names.index(name)]


def quality_limits(explanation: Explanation) -> tuple[float, float]:
    """Return the scores that the darkest and the lightest color of a quality map stand for.

    At least four standard deviations apart, so that differences within the uncertainty look as small as they are.
    """
    low, high = float(explanation.quality_map.min()), float(explanation.quality_map.max())
    missing = max(0.0, 4 * explanation.std - (high - low), 1e-3 - (high - low))
    return low - missing / 2, high + missing / 2


def _draw_attention(figure: SubFigure, explanation: Explanation) -> None:
    layers, queries = explanation.attention.shape[:2]
    figure.suptitle("attention of each layer and query, 1 = even", fontsize=9)
    grid = figure.subplots(layers, queries, squeeze=False)
    highest = max(2.0, float(np.quantile(explanation.attention, 0.999)))
    for layer, row in enumerate(grid):
        for query, axis in enumerate(row):
            small = explanation.attention[layer, query, ::4, ::4]
            axis.set_anchor("N" if layer else "S")  # close together
            shown = _show(axis, "", small, cmap=ATTENTION, vmin=0, vmax=highest)
            if layer == 0:
                axis.set_title(f"query {query + 1}", fontsize=8)
            if query == 0:
                axis.set_ylabel(f"layer {layer + 1}", fontsize=8)
    figure.colorbar(shown, ax=grid, shrink=0.75, aspect=30)


def _draw_experts(figure: SubFigure, explanation: Explanation) -> None:
    queries, experts = explanation.expert_share.shape
    upper, lower = figure.subplots(2, 1)
    shown = upper.imshow(explanation.expert_share, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    upper.set_title("share of each expert, by query", fontsize=9)
    upper.set_xticks(range(experts), range(1, experts + 1))
    upper.set_yticks(range(queries), range(1, queries + 1))
    upper.set_ylabel("query")
    figure.colorbar(shown, ax=upper)
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    first = explanation.expert_map[:, ::4, ::4].argmax(0) + 1
    edges = np.arange(experts + 1) + 0.5
    colors = colormaps["viridis"].resampled(experts)
    shown = _show(
        lower, "main expert by region", first, cmap=colors,
        norm=BoundaryNorm(edges, experts), interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(shown, ax=lower, ticks=range(1, experts + 1))


def _show(axis: Any, title: str, values: Any, **options: Any) -> Any:
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    return axis.imshow(values, **options)


def _add_bar(figure: SubFigure, shown: Any, axis: Any, **options: Any) -> Any:
    return figure.colorbar(shown, ax=axis, orientation="horizontal", pad=0.03, aspect=30, **options)


def _smooth(values: Any, side: int) -> Any:
    """Return means over squares of that side: single pixels say nothing to the eye."""
    height, width = (length // side * side for length in values.shape)
    blocks = values[:height, :width].reshape(height // side, side, width // side, side)
    return blocks.mean((1, 3))
