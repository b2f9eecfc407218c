"""A track's methods as a figure that the browser draws: AP@10 against violation@10."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from sieve.explorer.benchmark.plot import kind_of

if TYPE_CHECKING:
    from sieve.model.benchmark import MethodResult, TrackResult


def track_figure(track: TrackResult) -> dict[str, Any]:
    """Draw a track's methods with their 95 % intervals, one trace each.

    Parameters
    ----------
    track : TrackResult

    Returns
    -------
    dict
        `data` and `layout` as plotly.js takes them; a trace's `meta` says what kind of method it
        is. Colours and names beside the points are left to the page, which knows its width.
    """
    figure = go.Figure()
    for method in track.methods:
        if method.method != "oracle":
            figure.add_scatter(**_trace(method))
    figure.update_layout(
        height=380,
        margin={"l": 56, "r": 16, "t": 8, "b": 48},
        showlegend=False,
        hovermode="closest",
        xaxis={"title": {"text": "violation@10 (less is better)"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "AP@10 (more is better)"}, "nticks": 6},
        template="none",
    )
    return json.loads(figure.to_json() or "{}")


def _trace(method: MethodResult) -> dict[str, Any]:
    x, y = method.violation, method.ap
    (left, right), (low, high) = method.violation_ci, method.ci
    told = (
        f"AP@10 {y:.3f} [{low:.3f}, {high:.3f}]<br>violation@10 {x:.3f} [{left:.3f}, {right:.3f}]"
    )
    return {
        "name": method.method,
        "meta": kind_of(method.method),
        "mode": "markers",
        "x": [x],
        "y": [y],
        "error_x": _reach(x - left, right - x),
        "error_y": _reach(y - low, high - y),
        "hovertemplate": f"%{{fullData.name}}<br>{told}<extra></extra>",
    }


def _reach(down: float, up: float) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "array": [round(up, 6)], "arrayminus": [round(down, 6)],
        "thickness": 1, "width": 0,
    }  # fmt: skip
