"""One explanation as one figure: the photo with its worst place, bars of what is wrong, a sentence."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lifeiqa_plugin.images.stream import TOO_SMALL
from lifeiqa_plugin.words import ANY_BLUR, BLURS, DARK, FLAT, PHRASES, cut_of, join_blurs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lifeiqa_plugin.explanation.explanation import Explanation

WIDTH = 10.0
"""Of a figure, in inches."""

BARS = 3
DOUBT = 2
"""Standard deviations of the score by which a place has to be worse than the mean to be shown."""

LOW, OTHER = "#d55e00", "#c8c8c8"
"""Colors of low places and named flaws, and of what is not named; the color-blind can tell them apart."""


class Bar(NamedTuple):
    """How much of one distortion there is."""

    name: str
    length: float  # share of photos with as much of it in the worst third, or its strength
    is_named: bool


def draw(explanation: Explanation, kind: str) -> bytes:
    """Return the figure as the bytes of a ``png`` or ``svg`` file.

    Raises:
        ImportError: matplotlib is missing.
    """
    matplotlib, figure_class = load_matplotlib()
    height, width = explanation.image.shape[:2]
    is_wide = width > 2 * height
    of_photo = (
        (WIDTH, WIDTH * height / width)
        if is_wide
        else (0.65 * WIDTH, 0.65 * WIDTH * min(height / width, 1.4))
    )
    with matplotlib.rc_context({"svg.hashsalt": "lifeiqa", "font.size": 9}):
        figure = figure_class(
            figsize=(WIDTH, of_photo[1] + (2.9 if is_wide else 1.2)), layout="constrained"
        )
        grid = {"height_ratios": [of_photo[1], 1.7]} if is_wide else {"width_ratios": [65, 35]}
        left, right = figure.subplots(*((2, 1) if is_wide else (1, 2)), gridspec_kw=grid)
        _write_title(figure, explanation)
        _draw_photo(left, explanation)
        _draw_bars(right, explanation)
        return to_file(figure, kind)


def load_matplotlib() -> tuple[Any, Any]:
    """Import matplotlib, without ``pyplot`` and what it opens, and its ``Figure``.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: pip install 'lifeiqa_plugin[explain]'"
        ) from error
    return matplotlib, Figure


def to_file(figure: Figure, kind: str) -> bytes:
    """Return a figure as bytes; the same explanation is the same file."""
    file = io.BytesIO()
    date: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a file's name
        figure.savefig(file, format=kind, dpi=160, metadata=date)
    return file.getvalue()


def _write_title(figure: Figure, explanation: Explanation) -> None:
    sentence = textwrap.fill(explanation.sentence, 75)
    name = textwrap.shorten(explanation.name, 90, placeholder=" ...")
    figure.suptitle(
        f"{sentence}\n{name}, score {explanation.score:.2f}", fontsize=13, parse_math=False
    )


def _draw_photo(axis: Axes, explanation: Explanation) -> None:
    """Show the photo, tinted where its quality is below the mean, with a line around the worst place."""
    quality = explanation.quality_map
    mean, lowest = float(quality.mean()), float(quality.min())
    axis.imshow(explanation.image)
    axis.set_anchor("N")
    axis.set_xticks([])
    axis.set_yticks([])
    least = max(DOUBT * explanation.std, 1e-3)
    if not mean - lowest > least:  # as with a std of NaN
        axis.set_xlabel("no place is worse than the rest by more than the doubt")
        return
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    tint = np.empty((*quality.shape, 4), np.float32)
    tint[..., :3] = to_rgb(LOW)
    tint[..., 3] = 0.6 * ((mean - quality) / (mean - lowest)).clip(0, 1)
    axis.imshow(tint)
    line = axis.contour(quality, [lowest + 0.25 * (mean - lowest)], colors="white", linewidths=1.8)
    line.set_path_effects([withStroke(linewidth=3.4, foreground="black")])
    axis.set_xlabel(
        f"tinted: quality below the mean of the photo, {mean:.2f}; outlined: the worst place, {lowest:.2f}"
    )


def _draw_bars(axis: Axes, explanation: Explanation) -> None:
    bars = bars_of(explanation)
    axis.set_anchor("N")
    axis.set_axis_off()
    if not bars or explanation.sentence in (FLAT, TOO_SMALL):
        return
    has_shares = any(cut.get("shares") for cut in (explanation.naming or {}).values())
    lengths = [bar.length for bar in bars]
    colors = [LOW if bar.is_named else OTHER for bar in bars]
    axis.barh(range(len(bars)), lengths, height=0.25, color=colors)
    axis.set_xlim(0, 1)
    axis.set_ylim(BARS - 0.3, -0.7)
    for i, bar in enumerate(bars):
        weight = "bold" if bar.is_named else "normal"
        axis.text(0, i - 0.25, bar.name, va="bottom", weight=weight)
        axis.text(1, i - 0.25, f"{bar.length:.0%}", va="bottom", ha="right", weight=weight)
    means = "how firmly it is named"
    if has_shares:
        means = "of photos with as much of it,\nso many are rated in the worst third"
        axis.plot([1 / 3] * 2, [-0.2, BARS - 0.6], ":", color="black", linewidth=1)
        axis.text(1 / 3, BARS - 0.55, "of all photos 33%", va="top", ha="center", fontsize=8)
    axis.set_title(f"{means} (gray: not named)", fontsize=9, loc="left")


def bars_of(explanation: Explanation) -> list[Bar]:
    """Return what is named, then what is nearest to its cut, ``BARS`` in all."""
    named = {flaw.name for flaw in explanation.flaws}
    local = explanation.local_flaw
    if local and local.name != DARK and local.place in explanation.sentence:
        named.add(local.name)
    bars = []
    for name, strength in join_blurs(explanation.distortions).items():
        own = named.intersection(BLURS) if name == ANY_BLUR else named & {name}
        shown = next(iter(own), name)
        cut = cut_of(name, explanation.naming)
        share = cut.share(strength)
        bar = Bar(PHRASES.get(shown, shown), strength if np.isnan(share) else share, shown in named)
        bars.append((not bar.is_named, -strength / cut.likely, bar))
    return [bar for *_, bar in sorted(bars)[:BARS]]
