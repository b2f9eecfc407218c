"""Figures that the browser draws with Plotly, as plain JSON.

Colours are left to the page, which knows whether it is light or dark.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

if TYPE_CHECKING:
    from sieve.model.dimensions import Histogram


def histogram_figure(histogram: Histogram) -> dict[str, Any]:
    """Draw how often a dimension fires how strongly, images and captions beside each other.

    Parameters
    ----------
    histogram : Histogram

    Returns
    -------
    dict
        `data` and `layout` as plotly.js takes them.
    """
    edges = histogram.edges
    centres = (edges[:-1] + edges[1:]) / 2
    figure = go.Figure()
    for name, counts in (("images", histogram.images), ("captions", histogram.texts)):
        # Shares, not counts: there are several captions to an image.
        share = counts / max(int(counts.sum()), 1)
        figure.add_bar(
            name=name,
            x=centres.round(5).tolist(),
            y=share.round(5).tolist(),
            customdata=counts.tolist(),
            hovertemplate=f"%{{customdata}} {name} around %{{x:.2f}}<extra></extra>",
        )
    figure.update_layout(
        barmode="group",
        bargap=0.08,
        bargroupgap=0,
        height=200,
        margin={"l": 40, "r": 8, "t": 8, "b": 36},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": "activation"}, "rangemode": "tozero", "fixedrange": True},
        yaxis={"tickformat": ".0%", "fixedrange": True, "nticks": 4},
        template="none",
    )
    return json.loads(figure.to_json() or "{}")
