"""The exclusion benchmark drawn: AP@10 against violation@10, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sieve.model.benchmark import TRAINED, TRAINING_FREE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from sieve.model.benchmark import MethodResult, TrackResult

# Okabe and Ito's colours, told apart with any colour vision; the marker tells the same again.
_KINDS = {
    "Sieve": ("#0072B2", "o"),
    "trained": ("#009E73", "s"),
    "dense": ("#D55E00", "^"),
    "other": ("#555555", "D"),
}
_LABEL_HEIGHT = 0.042
"""Of a label, as a share of the axis."""


def save_plot(track: TrackResult, path: Path) -> None:
    """Draw a track's methods and save them as PNG and SVG.

    Parameters
    ----------
    track : TrackResult
    path : Path
        Without suffix.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The same result gives the same file: no date, no random ids.
    with rc_context({"svg.hashsalt": "sieve", "font.size": 9}):
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        _draw(axes, track)
        figure.savefig(path.with_suffix(".png"), dpi=200)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def kind_of(method: str) -> str:
    """Which colour a method takes."""
    if method == "Sieve":
        return method
    if method in TRAINED or method == "SpLiCE":
        return "trained"
    if method in ("A only", "oracle"):
        return "other"
    return "dense" if method in TRAINING_FREE else "trained"


def _draw(axes: Axes, track: TrackResult) -> None:
    shown = [method for method in track.methods if method.method != "oracle"]
    for method in shown:
        colour, marker = _KINDS[kind_of(method.method)]
        x, y = method.violation, method.ap
        axes.errorbar(
            x,
            y,
            xerr=[[x - method.violation_ci.low], [method.violation_ci.high - x]],
            yerr=[[y - method.ci.low], [method.ci.high - y]],
            color=colour,
            marker=marker,
            markersize=8 if method.method == "Sieve" else 5,
            elinewidth=0.6,
            alpha=0.85,
            zorder=3 if method.method == "Sieve" else 2,
        )
    axes.set_xlabel("violation@10: share of the first ten that show B too (less is better)")
    axes.set_ylabel("AP@10 of A without B (more is better)")
    axes.set_title(
        f"{track.track} track: {track.pairs:,} pairs, {track.items:,} test items, 95 % intervals; "
        "a perfect ranking has 1 at 0",
        loc="left",
        fontsize=8,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, linewidth=0.6)
    axes.set_xlim(left=0)
    _label(axes, shown)


def _label(axes: Axes, methods: Sequence[MethodResult]) -> None:
    """Name the points in a column at the right, each at the end of a thin line from its point."""
    low, high = axes.get_ylim()
    step = (high - low) * _LABEL_HEIGHT
    column = axes.get_xlim()[1]
    axes.set_xlim(right=column)
    places = _spread([method.ap for method in methods], step, low, high)
    for method, place in zip(methods, places, strict=True):
        colour = _KINDS[kind_of(method.method)][0]
        axes.annotate(
            f"{method.method}  {method.ap:.3f}",
            (method.violation, method.ap),
            (column, place),
            va="center",
            annotation_clip=False,
            color=colour,
            fontsize=8,
            fontweight="bold" if method.method == "Sieve" else "normal",
            arrowprops={
                "arrowstyle": "-",
                "linestyle": ":",
                "color": colour,
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkB": 3,
            },
        )


def _spread(values: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Move values at least `step` apart, in order, each as near its own place as they can be."""
    import numpy as np
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(values, kind="stable")
    steps = step * np.arange(len(order))
    # Places with their steps taken off must not fall: that is isotonic regression.
    lowest = isotonic_regression(np.asarray(values)[order] - steps)
    placed = np.empty(len(order))
    placed[order] = np.clip(lowest, low, max(high - steps.max(initial=0), low)) + steps
    return placed.tolist()
