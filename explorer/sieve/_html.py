"""HTML for notebooks. `Markup.format` escapes every value, so that data cannot add markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from sieve.data_prep.images import read_thumbnail
from sieve.explorer.downloads import data_url
from sieve.explorer.serialize import format_number

if TYPE_CHECKING:
    from sieve.model.engine import SearchEngine

_MAX_BARS = 4
"""Bars in a tile: the contributions with the largest absolute value."""
_MIN_BAR = 0.01
"""Shortest bar in a tile, as a share of the longest one."""
_STYLE = Markup("<style>{}</style>").format(
    Markup(Path(__file__).with_name("notebook.css").read_text(encoding="utf-8"))
)


class Bar(NamedTuple):
    """A named number, drawn as a bar."""

    name: str
    value: float
    off: bool


class ResultTile(NamedTuple):
    """An image with what is shown below it."""

    id: str
    caption: str
    left: str
    right: str
    bars: Sequence[Bar]


def page(*parts: Markup) -> str:
    """Return parts with their style, as one element."""
    return str(Markup('{}<div class="sieve">{}</div>').format(_STYLE, _join(parts)))


def heading(text: str) -> Markup:
    """Return a title."""
    return Markup('<p class="title">{}</p>').format(text)


def lead(text: str) -> Markup:
    """Return sentences that come first."""
    return Markup('<p class="lead">{}</p>').format(text)


def off_line(off: Iterable[Mapping[str, Any]]) -> Markup:
    """Return the concepts that are off as chips; empty if there are none.

    `off` is from `sieve.explorer.serialize.off_concepts`.
    """
    chip = Markup('<span class="chip" title="off: {}"><s>{}</s>{}</span>')
    chips = [
        chip.format(
            ", ".join(f"#{j}" for j in one["dimensions"]),
            one["name"],
            f" ×{len(one['dimensions'])}" if len(one["dimensions"]) > 1 else "",
        )
        for one in off
    ]
    if not chips:
        return Markup()
    return Markup('<p><span class="muted">Off: </span>{}</p>').format(_join(chips))


def notes(lines: Iterable[str]) -> Markup:
    """Return remarks, one paragraph each."""
    return _join(Markup('<p class="muted">{}</p>').format(line) for line in lines)


def facts(values: Mapping[str, str]) -> Markup:
    """Return numbers with what they measure, in one row."""
    fact = Markup('<span><b>{}</b> <span class="muted">{}</span></span>')
    return Markup('<p class="facts">{}</p>').format(
        _join(fact.format(value, name) for name, value in values.items())
    )


def grid(tiles: Sequence[ResultTile], engine: SearchEngine) -> Markup:
    """Return thumbnails, as data URLs, with their captions and bars of one scale."""
    if not tiles:
        return Markup()
    longest = max((abs(bar.value) for tile in tiles for bar in tile.bars), default=0)
    cells = _join(_cell(tile, engine, longest) for tile in tiles)
    return Markup('<div class="grid">{}</div>').format(cells)


def columns(lists: Mapping[str, Sequence[Bar]]) -> Markup:
    """Return lists of bars side by side, each with its title and its own scale."""
    parts = [
        Markup("<div>{}{}</div>").format(
            Markup("<h4>{}</h4>").format(title) if title else "",
            _bars(bars, max(abs(bar.value) for bar in bars)),
        )
        for title, bars in lists.items()
        if bars
    ]
    return Markup('<div class="columns">{}</div>').format(_join(parts))


def link(url: str, text: str) -> str:
    """Return a link that opens a new tab."""
    return str(Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(url, text))


def _cell(tile: ResultTile, engine: SearchEngine, longest: float) -> Markup:
    try:
        data = read_thumbnail(engine.collection.path, tile.id)
        url = data_url("image/webp", data)
        image = Markup('<img src="{}" alt="{}">').format(url, tile.caption)
    except (ValueError, OSError):  # results without an image are better than none
        image = Markup('<span class="none muted">no image</span>')
    head = Markup()
    if tile.left or tile.right:
        head = Markup('<div class="head"><b>{}</b><span class="muted">{}</span></div>').format(
            tile.left, tile.right
        )
    caption = Markup('<div class="caption" title="{0}">{0}</div>').format(tile.caption)
    visible = [bar for bar in tile.bars if abs(bar.value) >= _MIN_BAR * longest]
    shown = sorted(visible, key=lambda bar: -abs(bar.value))[:_MAX_BARS]
    return Markup('<div class="tile" title="{}">{}{}{}{}</div>').format(
        tile.id, image, head, caption if tile.caption else "", _bars(shown, longest)
    )


def _bars(bars: Iterable[Bar], longest: float) -> Markup:
    bar = Markup(
        '<div class="bar{}"><span class="name" title="{}">{}</span><span class="track">'
        '<i style="width: {:.0f}%"></i></span><span class="value">{}</span></div>'
    )
    return _join(
        bar.format(
            " off" if off else "", name, name, 100 * abs(value) / (longest or 1),
            format_number(value),
        )
        for name, value, off in bars
    )  # fmt: skip


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
