"""Backdrops of interiors: a kitchen, a workshop, a restaurant, a bedroom and a living room."""

from __future__ import annotations

import numpy as np

from sieve.data_prep.scenes.canvas import Brush, Colour, Pen, darker, lighter, mix


def _wall(brush: Brush, bottom: float, colour: Colour) -> float:
    """Paint a wall lit from one side; return x of the light."""
    top, low = darker(colour, 0.1), darker(colour, 0.06)
    brush.gradient(0, bottom, [(0, top), (0.6, colour), (1, low)])
    x = brush.between(0.05, 0.95)
    brush.glow(x, bottom * 0.4, 0.6, mix(colour, (1, 0.98, 0.9), 0.75), 0.6)
    return x


def _window(brush: Brush, pen: Pen, x: float, y: float, wide: float, tall: float) -> None:
    """Draw a window with a view of sky and hills; x and wide are fractions of the width."""
    light, white = brush.light, (0.97, 0.96, 0.94)
    pen.box(x - 0.012, y - 0.016, x + wide + 0.012, y + tall + 0.016, darker(white, 0.12))
    pen.box(x - 0.009, y - 0.012, x + wide + 0.009, y + tall + 0.012, white)
    for i in range(12):
        tone = mix(light.middle, light.low, i / 11)
        pen.box(x, y + tall * i / 12, x + wide, y + tall * (i + 1) / 12 + 0.002, tone)
    hill = brush.lit("#7fa87a", 0.35)
    rise = brush.between(0.1, 0.3)
    pen.polygon([(x, y + tall), (x, y + tall * (1 - rise)), (x + wide * 0.35, y + tall * 0.74),
                 (x + wide * 0.7, y + tall * 0.84), (x + wide, y + tall * (0.68 + rise * 0.3)),
                 (x + wide, y + tall)], hill)  # fmt: skip
    pen.polygon([(x, y + tall * 0.7), (x + wide * 0.5, y), (x + wide * 0.75, y),
                 (x, y + tall)], (1, 1, 1), 0.13)  # fmt: skip
    pen.box(x + wide / 2 - 0.005, y, x + wide / 2 + 0.005, y + tall, white)
    pen.box(x, y + tall * 0.48, x + wide, y + tall * 0.48 + 0.012, white)
    pen.box(x - 0.02, y + tall + 0.012, x + wide + 0.02, y + tall + 0.03, darker(white, 0.06))


def _surface(brush: Brush, top: float, colour: str, wood: bool) -> None:
    """Paint a table or worktop seen from the front, to the lower edge, with its face."""
    face = 1 - 0.07 * (1 - top) / 0.4
    base = brush.lit(colour)
    brush.gradient(top, face, [(0, lighter(base, 0.16)), (1, base)])
    if wood:
        brush.image[:, brush.rows(top, face)] *= 1 + 0.07 * brush.plane("ripple", top, 2.0, face)
    else:
        brush.texture("grain", top, 0.05, 2.0, face)
    brush.gradient(face, 1, [(0, darker(base, 0.22)), (1, darker(base, 0.42))])
    with brush.pen(top - 0.03) as pen:
        pen.box(0, face - 0.004, 1, face + 0.004, lighter(base, 0.45), 0.8)
        if wood:
            for i in range(1, 4):
                y = top + (face - top) * (i / 4) ** 1.4
                pen.line([(0, y), (1, y)], darker(base, 0.4), 0.0025, 0.45)
    brush.glow(brush.random(), top + 0.1, 0.35, brush.light.sun, 0.16)
    edge = np.full(brush.width, top, np.float32)
    brush.under(edge, darker(base, 0.5), 0.5, 0.006)


def kitchen(brush: Brush, horizon: float) -> None:
    """Paint tiles, a window, wall cupboards and a worktop."""
    wall = brush.lit(brush.choose("#e9e2d2", "#dfe8e6", "#f0e3cf", "#d8e2ea", "#e6e6dc"))
    _wall(brush, horizon, wall)
    tile = brush.lit(brush.choose("#f4f1ea", "#d3e6e2", "#cfe0ee", "#f2dfc0", "#e7d5d0"))
    top = horizon - brush.between(0.2, 0.27)
    left = brush.random() < 0.5
    with brush.pen(0, horizon) as pen:
        _tiles(brush, pen, top, horizon, tile)
        x = brush.between(0.56, 0.64) if left else brush.between(0.06, 0.12)
        _window(brush, pen, x, 0.06, 0.28, horizon - 0.22)
        _cupboards(brush, pen, 0.0 if left else 0.5, top - 0.06)
    brush.glow(x + 0.14, horizon * 0.4, 0.34, brush.light.sun, 0.22)
    wood = brush.random() < 0.55
    woods, stones = ("#b98452", "#c9975f", "#a06f45"), ("#d5d2cc", "#8c9094", "#c9c2b6", "#5f666b")
    _surface(brush, horizon, brush.choose(*(woods if wood else stones)), wood)


def _tiles(brush: Brush, pen: Pen, top: float, bottom: float, tile: Colour) -> None:
    size = 0.062
    wide, row, y = size / brush.aspect, 0, bottom
    pen.box(0, top, 1, bottom, mix(tile, (0.35, 0.35, 0.35), 0.22))
    brick = brush.random() < 0.5
    while y > top:
        x = -wide * (0.5 * (row % 2) if brick else 0.3)
        while x < 1:
            shade = (1, 1, 1) if brush.random() < 0.5 else (0.5, 0.5, 0.5)
            tone = mix(tile, shade, 0.13 * brush.random())
            pen.box(x, max(top, y - size), x + wide * 0.955, y - size * 0.05, tone)
            x += wide
        y -= size
        row += 1
    pen.box(0, top - 0.008, 1, top + 0.004, darker(tile, 0.14))


def _cupboards(brush: Brush, pen: Pen, x: float, bottom: float) -> None:
    colour = brush.lit(brush.choose("#7fa3a0", "#f4efe6", "#a9b98f", "#6a86a3", "#c98f6a"))
    wide = 0.5 / 3
    pen.box(x, 0, x + 0.5, bottom + 0.012, darker(colour, 0.3))
    for i in range(3):
        a = x + i * wide + 0.004
        pen.box(a, 0, a + wide - 0.008, bottom, colour)
        pen.box(a + 0.018, 0, a + wide - 0.026, bottom - 0.03, darker(colour, 0.1))
        pen.box(a + 0.022, 0, a + wide - 0.028, bottom - 0.035, lighter(colour, 0.08))
        pen.blob(a + (0.02 if i % 2 else wide - 0.03), bottom - 0.016, 0.006, (0.85, 0.8, 0.65))


def workshop(brush: Brush, horizon: float) -> None:
    """Paint a plank or pegboard wall and a workbench."""
    _wall(brush, horizon, brush.lit(brush.choose("#b59a78", "#9fa8a6", "#c2ad8d", "#8d9aa3")))
    peg = brush.random() < 0.5
    with brush.pen(0, horizon) as pen:
        if peg:
            pen.rounded(0.05, 0.07, 0.95, horizon - 0.06, brush.lit("#c9a873"), 0.012)
            for row in range(int((horizon - 0.17) / 0.04)):
                for column in range(22):
                    pen.blob(0.08 + column * 0.04, 0.1 + row * 0.04, 0.0034, (0.3, 0.2, 0.1), 0.5)
        else:
            for i in range(9):
                x = i / 8 + brush.between(-0.01, 0.01)
                pen.box(x - 0.0015, 0, x + 0.0015, horizon, (0.2, 0.15, 0.1), 0.35)
                tone = (1, 1, 1) if i % 2 else (0, 0, 0)
                pen.box(x, 0, x + 0.125, horizon, tone, 0.035)
            _window(brush, pen, brush.between(0.1, 0.6), 0.06, 0.28, horizon * 0.4)
    brush.glow(brush.between(0.2, 0.8), 0.02, 0.4, (1, 0.93, 0.75), 0.4)
    _surface(brush, horizon, brush.choose("#a87948", "#94683f", "#b58a5a"), True)


def restaurant(brush: Brush, horizon: float) -> None:
    """Paint a warm room, panelled below, lamps above, and a laid table."""
    colour = brush.choose("#a8563f", "#3f6a5f", "#c99a5a", "#5a4a6a", "#8a3f45", "#3f5a73")
    _wall(brush, horizon, brush.lit(colour))
    rail = horizon * brush.between(0.62, 0.72)
    panel = brush.lit(brush.choose("#6a4630", "#5a3f2f", "#7d5a3f"))
    with brush.pen(0, horizon) as pen:
        pen.box(0, rail, 1, horizon, panel)
        pen.box(0, rail - 0.012, 1, rail + 0.008, mix(panel, (1, 0.9, 0.7), 0.3))
        step = 0.16 / brush.aspect
        for i in range(int(1 / step) + 1):
            a, b = i * step + 0.012, (i + 1) * step - 0.012
            pen.box(a, rail + 0.03, b, horizon, darker(panel, 0.18))
        if brush.random() < 0.6:
            _window(brush, pen, brush.between(0.06, 0.66), 0.1, 0.26, rail - 0.2)
        shade = brush.lit(brush.choose("#2f2f33", "#c9883a", "#e8dcc0", "#7a2f2f"))
        lamps = [brush.between(0.1, 0.3), brush.between(0.45, 0.6), brush.between(0.75, 0.92)]
        for x in lamps:
            half = 0.045 / brush.aspect
            pen.line([(x, 0), (x, 0.06)], (0.12, 0.1, 0.1), 0.005)
            pen.polygon([(x - half * 0.3, 0.05), (x + half * 0.3, 0.05), (x + half, 0.1),
                         (x - half, 0.1)], shade)  # fmt: skip
            pen.blob(x, 0.101, 0.022, (1, 0.95, 0.78), 1.0, 0.5)
    for x in lamps:
        brush.glow(x, 0.11, 0.16, (1, 0.87, 0.6), 0.5)
    _surface(brush, horizon, brush.choose("#8a5a38", "#a8774a", "#6f4a33"), True)
    if brush.random() < 0.45:
        _cloth(brush, horizon)


def _cloth(brush: Brush, top: float) -> None:
    """Paint a checked tablecloth in perspective."""
    red = brush.lit(brush.choose("#c23b3b", "#3f6fb5", "#3f8a5a"))
    white, bottom = brush.lit("#f7f3ea"), 0.945
    rows = brush.rows(top + 0.012, bottom)
    depth = (brush.y[rows] - top) / (1 - top)
    across = np.sin((brush.x - 0.5) * 46 / (0.75 + 0.55 * depth))
    along = np.sin(40 / (0.5 + 0.6 * depth))
    check = 0.5 * (np.clip(across * 6, 0, 1) + np.clip(along * 6, 0, 1))
    shade = 0.9 + 0.12 * depth
    for plane, a, b in zip(brush.image[:, rows], white, red, strict=True):
        plane[:] = (a + 0.8 * check * (b - a)) * shade
    brush.glow(0.5, top + 0.12, 0.4, (1, 0.95, 0.85), 0.15)


def _room(brush: Brush, horizon: float, walls: tuple[str, ...]) -> None:
    """Paint a wall, a window with curtains, a skirting board, floor boards and a rug."""
    wall = brush.lit(brush.choose(*walls))
    _wall(brush, horizon, wall)
    stripes, left = brush.random() < 0.5, brush.random() < 0.5
    x = brush.between(0.08, 0.16) if left else brush.between(0.56, 0.64)
    with brush.pen(0, horizon) as pen:
        if stripes:
            step = 0.07 / brush.aspect
            for i in range(int(1 / step) + 1):
                pen.box(i * step, 0, (i + 0.5) * step, horizon, lighter(wall, 0.4), 0.35)
        _window(brush, pen, x, 0.09, 0.28, horizon * 0.52)
        _curtains(brush, pen, x, horizon)
        pen.box(0, horizon - 0.03, 1, horizon, (0.95, 0.94, 0.91))
        pen.box(0, horizon - 0.033, 1, horizon - 0.029, darker(wall, 0.2))
    brush.glow(x + 0.14, horizon * 0.4, 0.36, brush.light.sun, 0.25)
    _boards(brush, horizon, x + 0.14)


def _curtains(brush: Brush, pen: Pen, x: float, horizon: float) -> None:
    colours = ("#d98f8f", "#8fb0c9", "#e3c98a", "#a9c2a0", "#b79fc9", "#f0ead9")
    cloth = brush.lit(brush.choose(*colours))
    pen.box(x - 0.08, 0.055, x + 0.36, 0.066, (0.4, 0.32, 0.25))
    for a in (x - 0.07, x + 0.26):
        for i in range(5):
            tone = darker(cloth, 0.12 * (i % 2))
            pen.box(a + i * 0.018, 0.06, a + (i + 1) * 0.018, horizon * 0.72, tone)


def _boards(brush: Brush, horizon: float, light_x: float) -> None:
    wood = brush.lit(brush.choose("#b98a5a", "#c9a06f", "#9a7048", "#d3b48a"))
    brush.gradient(horizon, 1, [(0, darker(wood, 0.12)), (1, lighter(wood, 0.06))])
    brush.texture("ripple", horizon, 0.05, 3.0)
    rug = brush.random() < 0.75
    with brush.pen(horizon) as pen:
        for a in (i / 12 for i in range(-14, 26)):
            joint = [(a, horizon), (0.5 + (a - 0.5) * 2.6, 1)]
            pen.line(joint, darker(wood, 0.45), 0.0025, 0.45)
        if rug:
            colour = brush.lit(brush.choose("#b5544f", "#4f7a8f", "#d9b56a", "#8a9a6f", "#a8789a"))
            x, y = brush.between(0.38, 0.62), horizon + 0.5 * (1 - horizon)
            for scale, tone in ((1.03, darker(colour, 0.35)), (1.0, colour),
                                (0.86, lighter(colour, 0.4)), (0.8, colour),
                                (0.5, lighter(colour, 0.22))):  # fmt: skip
                pen.blob(x, y, 0.42 * scale, tone, flat=0.3)
    brush.glow(light_x, horizon + 0.2, 0.28, brush.light.sun, 0.28)
    brush.under(np.full(brush.width, horizon, np.float32), (0.15, 0.1, 0.08), 0.35, 0.012)


def bedroom(brush: Brush, horizon: float) -> None:
    """Paint a soft-coloured room."""
    _room(brush, horizon, ("#e8c9d3", "#cfd9ec", "#dcd3ea", "#d5e6da", "#f0dcc2"))


def living_room(brush: Brush, horizon: float) -> None:
    """Paint a warm-coloured room."""
    _room(brush, horizon, ("#e6d3b0", "#c9d6c4", "#d9b89a", "#e9e0cd", "#b5c7cf", "#e0c07f"))


def low_table(brush: Brush) -> None:
    """Draw a low table for small objects along the lower edge of a room."""
    top, base = 0.84, brush.lit(brush.choose("#5f3f2c", "#efe9de", "#46626b", "#7a4a3a"))
    brush.under(np.full(brush.width, top, np.float32), (0.1, 0.06, 0.04), 0.5, 0.016)
    with brush.pen(top - 0.02) as pen:
        pen.box(0, top, 1, 0.975, lighter(base, 0.1))
        for i in range(5):
            y = top + 0.02 * i
            pen.box(0, y, 1, y + 0.02, (0, 0, 0), 0.02 * i)
        pen.box(0, 0.97, 1, 1.0, darker(base, 0.4))
        pen.box(0, 0.966, 1, 0.973, lighter(base, 0.5))
        pen.line([(0, top), (1, top)], darker(base, 0.3), 0.004)
