"""The exclusion benchmark drawn: AP@10 against violation@10, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model.baselines import TRAINED, TRAINING_FREE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from model.benchmark_results import TrackResult

# Okabe and Ito's colours, told apart with any colour vision; the marker tells the same again.
_KINDS = {
    "Sieve": ("#0072B2", "o"),
    "trained": ("#009E73", "s"),
    "dense": ("#D55E00", "^"),
    "bound": ("#555555", "D"),
}
_LABEL_HEIGHT = 0.034
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
        return "bound"
    return "dense" if method in TRAINING_FREE else "trained"


def _draw(axes: Axes, track: TrackResult) -> None:
    for method in track.methods:
        colour, marker = _KINDS[kind_of(method.method)]
        across = [[method.violation - method.violation_ci.low],
                  [method.violation_ci.high - method.violation]]  # fmt: skip
        up = [[method.ap - method.ci.low], [method.ci.high - method.ap]]
        axes.errorbar(
            method.violation,
            method.ap,
            xerr=[[max(side[0], 0)] for side in across],
            yerr=[[max(side[0], 0)] for side in up],
            color=colour,
            marker=marker,
            markersize=7 if method.method == "Sieve" else 5,
            elinewidth=0.8,
            alpha=0.9,
        )
    axes.set_xlabel("violation@10: share of the first ten that show B too (less is better)")
    axes.set_ylabel("AP@10 of A without B (more is better)")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=-0.005)
    axes.set_title(
        f"{track.track} track: {track.pairs:,} pairs, {track.items:,} test items, 95 % intervals",
        loc="left",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, linewidth=0.6)
    _label(axes, track)


def _label(axes: Axes, track: TrackResult) -> None:
    """Name each point beside it; where names would overlap they are moved apart, on a line."""
    right = axes.get_xlim()[1]
    axes.set_xlim(right=right * 1.25)
    shift = (axes.get_xlim()[1] - axes.get_xlim()[0]) * 0.02
    height = axes.get_ylim()[1] * _LABEL_HEIGHT
    placed: list[tuple[float, float]] = []
    width = (axes.get_xlim()[1] - axes.get_xlim()[0]) * 0.2
    for method in sorted(track.methods, key=lambda method: -method.ap):
        x, y = method.violation + shift, method.ap
        while any(abs(x - px) < width and abs(y - py) < height for px, py in placed):
            y -= height / 4
        placed.append((x, y))
        colour = _KINDS[kind_of(method.method)][0]
        axes.annotate(
            method.method,
            (method.violation, method.ap),
            (x, y),
            va="center",
            color=colour,
            fontsize=8,
            fontweight="bold" if method.method == "Sieve" else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkB": 3},
        )
