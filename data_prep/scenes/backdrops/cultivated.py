"""Backdrops of cultivated places: a park, a farm, a garden and a stadium."""

from __future__ import annotations

import numpy as np

from sieve.data_prep.scenes.backdrops.nature import choose, meadow, rolling
from sieve.data_prep.scenes.canvas import LIGHTS, Brush, Painter, Pen, lit, mix, sky


def park(brush: Brush, horizon: float, hour: str) -> None:
    """Paint a lawn with a pond, a path and hazy bushes far off."""
    sky(brush, horizon, hour)
    rolling(brush, horizon, hour, ("#6f9a78", "#6a9a62"))
    with brush.pen(horizon - 0.1, horizon + 0.05) as pen:
        for _ in range(34):
            tone = lit(choose(brush, "#5f9156", "#6fa35f", "#7aa85c"), hour, 0.34)
            pen.blob(brush.rand.random(), horizon, brush.between(0.015, 0.038), tone, flat=0.8)
    far, near = choose(brush, "#a2cc69|#5ea043", "#92c46a|#4f9748", "#b1cc70|#6da344").split("|")
    meadow(brush, horizon, hour, far, near)
    _pond(brush, horizon, hour)
    _path(brush, horizon, hour)


def _pond(brush: Brush, horizon: float, hour: str) -> None:
    top, bottom = horizon + 0.07 * (1 - horizon), horizon + 0.27 * (1 - horizon)
    middle, half = (top + bottom) / 2, (bottom - top) / 2
    rows = slice(int((top - half) * brush.height), int((bottom + half) * brush.height))
    away = ((brush.y[rows] - middle) / half) ** 2
    away = away + ((brush.x - 0.5) / brush.between(0.55, 0.8)) ** 4
    cover = np.clip((1 - away) * brush.height * half * 0.5 + 0.5, 0, 1)
    shore = np.clip((1.22 - away) * 8, 0, 1)
    brush.blend(rows, shore * 0.45, lit("#c9b98a", hour))
    bank = brush.image[:, rows].copy()
    light = LIGHTS[hour]
    blue = mix(lit("#4f9fc4", hour), light.middle, 0.35)
    brush.water(top, bottom, mix(blue, light.low, 0.4), blue, light.low)
    brush.image[:, rows] = bank + cover * (brush.image[:, rows] - bank)


def _path(brush: Brush, horizon: float, hour: str) -> None:
    start, bend = brush.between(0.1, 0.9), brush.between(-0.5, 0.5)
    top = horizon + 0.3 * (1 - horizon)
    rows = slice(int(top * brush.height), brush.height)
    t = np.clip((brush.y[rows] - top) / (1 - top), 0, 1)
    middle, half = start + bend * t**2, 0.03 + 0.13 * t
    cover = np.clip((half - np.abs(brush.x - middle)) * 60 + 0.5, 0, 1) * np.clip(t * 9, 0, 1)
    brush.blend(rows, cover * 0.85, lit("#dccaa2", hour))
    brush.texture("grain", top, 0.03)


def farm(brush: Brush, horizon: float, hour: str) -> None:
    """Paint a red barn, a fence, crops behind and a yard in front."""
    sky(brush, horizon, hour)
    rolling(brush, horizon, hour, ("#7a9a62", "#8aa85a"))
    far, near = choose(brush, "#b8bf6a|#7d9a45", "#a4b85e|#6a8f40", "#cdb678|#a38a52").split("|")
    meadow(brush, horizon, hour, far, near)
    left = brush.rand.random() < 0.5
    x = brush.between(0.02, 0.14) if left else brush.between(0.6, 0.72)
    with brush.pen(horizon - 0.26, horizon + 0.14) as pen:
        for i in range(16):
            a = -0.3 + i * 0.1
            pen.polygon([(a, horizon + 0.01), (a + 0.025, horizon + 0.01),
                         (a + 0.02 + (a - 0.5) * 0.3, horizon + 0.07),
                         (a - 0.02 + (a - 0.5) * 0.3, horizon + 0.07)],
                        lit("#6b8f3a", hour), 0.4)  # fmt: skip
        _barn(pen, brush, x, horizon + 0.05, hour)
        _fence(brush, pen, horizon + 0.1, hour)
    brush.glow(brush.rand.random(), 0.9, 0.4, LIGHTS[hour].sun, 0.06)


def _barn(pen: Pen, brush: Brush, x: float, base: float, hour: str) -> None:
    wall = lit(choose(brush, "#a83a32", "#b5453a", "#94352f"), hour, 0.1)
    wide, tall = 0.34 / brush.aspect, 0.15
    eaves, peak = base - tall, base - tall - 0.1
    pen.box(x, eaves, x + wide, base, wall)
    pen.polygon([(x, eaves), (x + wide * 0.12, eaves - 0.06), (x + wide * 0.3, peak),
                 (x + wide * 0.48, eaves - 0.06), (x + wide * 0.6, eaves)], wall)  # fmt: skip
    roof = lit("#6a6470", hour, 0.12)
    pen.polygon([(x + wide * 0.3, peak), (x + wide * 0.86, peak), (x + wide * 0.95, eaves - 0.06),
                 (x + wide * 1.04, eaves), (x + wide * 0.6, eaves),
                 (x + wide * 0.48, eaves - 0.06)], roof)  # fmt: skip
    white = lit("#f2ece2", hour, 0.1)
    for points in (
        [(x, eaves), (x + wide * 0.12, eaves - 0.06), (x + wide * 0.3, peak)],
        [(x + wide * 0.3, peak), (x + wide * 0.48, eaves - 0.06), (x + wide * 0.6, eaves)],
    ):
        pen.line(points, white, 0.007)
    a, b = x + wide * 0.19, x + wide * 0.41
    pen.box(a, base - 0.105, b, base, mix(wall, (0.1, 0, 0), 0.35))
    for line in ([(a, base - 0.105), (b, base)], [(b, base - 0.105), (a, base)],
                 [(a, base), (a, base - 0.105), (b, base - 0.105), (b, base)]):  # fmt: skip
        pen.line(line, white, 0.006)
    pen.box(x + wide * 0.26, eaves - 0.05, x + wide * 0.34, eaves - 0.012, lit("#4a2a2a", hour))


def _fence(brush: Brush, pen: Pen, y: float, hour: str) -> None:
    wood = lit(choose(brush, "#f0ebe0", "#b08a5c", "#c9b79a"), hour)
    dark = mix(wood, (0.2, 0.15, 0.1), 0.3)
    for rail in (0.014, 0.034):
        pen.box(0, y - rail - 0.005, 1, y - rail + 0.004, wood)
        pen.box(0, y - rail + 0.004, 1, y - rail + 0.006, dark)
    step, x = 0.075 / brush.aspect, brush.rand.random() * 0.05
    while x < 1:
        pen.box(x, y - 0.05, x + 0.011 / brush.aspect, y + 0.006, wood)
        x += step


def garden(brush: Brush, horizon: float, hour: str) -> None:
    """Paint a hedge with flowers before it, a lawn and a few stepping stones."""
    sky(brush, horizon, hour)
    top = horizon - 0.16
    hedge = choose(brush, "#3f7a3f", "#4a8246", "#5a8a3f")
    light = LIGHTS[hour]
    with brush.pen(top - 0.08, horizon + 0.14) as pen:
        pen.box(0, top, 1, horizon + 0.1, lit(hedge, hour))
        for _ in range(150):
            y = top + brush.rand.random() ** 1.3 * 0.19
            tone = mix(lit(hedge, hour), light.sun, brush.between(-0.02, 0.22) * (horizon - y) * 5)
            pen.blob(brush.rand.random(), y, brush.between(0.012, 0.034), tone, 0.75)
    far, near = choose(brush, "#9ccb62|#5fa244", "#8cc266|#54994a").split("|")
    meadow(brush, horizon + 0.06, hour, far, near)
    bed = choose(brush, "#e8556b|#f4b0c0", "#f2c230|#f7e7a0", "#9a6ad0|#d5b8f0", "#f07a3a|#f7d0a0")
    with brush.pen(horizon - 0.05, horizon + 0.12) as pen:
        for _ in range(90):
            y = horizon + 0.035 + brush.between(-0.03, 0.04)
            pen.blob(brush.rand.random(), y, brush.between(0.009, 0.02), lit("#4f8a45", hour), 0.9)
        for _ in range(130):
            y = horizon + 0.025 + brush.between(-0.035, 0.045)
            tone = lit(choose(brush, *bed.split("|"), "#fdf6f0"), hour)
            pen.blob(brush.rand.random(), y, brush.between(0.005, 0.0105), tone)
    _stones(brush, horizon, hour)


def _stones(brush: Brush, horizon: float, hour: str) -> None:
    x, drift = brush.between(0.2, 0.8), brush.between(-0.05, 0.05)
    with brush.pen(horizon + 0.1) as pen:
        for i in range(6):
            depth = i / 5
            y = horizon + 0.14 + depth**1.3 * (0.84 - horizon)
            size = 0.022 + 0.04 * depth
            pen.blob(x, y + size * 0.12, size * 1.03, lit("#4f7a3a", hour), 0.55, 0.4)
            pen.blob(x, y, size, lit("#c4bfb4", hour), 0.95, 0.36)
            x += drift + brush.between(-0.03, 0.03)


def stadium(brush: Brush, horizon: float, hour: str) -> None:
    """Paint stands with a crowd, floodlights and a mown pitch."""
    sky(brush, horizon, hour)
    top = horizon * brush.between(0.42, 0.55)
    with brush.pen(0, horizon + 0.05) as pen:
        pen.polygon([(0, top - 0.07), (0.5, top), (1, top - 0.07), (1, horizon + 0.04),
                     (0, horizon + 0.04)], lit("#6d7688", hour, 0.15))  # fmt: skip
        _crowd(brush, pen, top, horizon, hour)
        pen.polygon([(0, top - 0.1), (0.5, top - 0.02), (1, top - 0.1), (1, top - 0.07),
                     (0.5, top), (0, top - 0.07)], lit("#e6e9ee", hour, 0.1))  # fmt: skip
        for x in (0.1, 0.9):
            pen.box(x - 0.004, top - 0.2, x + 0.004, top - 0.06, lit("#8c94a0", hour))
            pen.box(x - 0.045, top - 0.235, x + 0.045, top - 0.19, lit("#4b5360", hour))
            for i in range(10):
                pen.blob(x - 0.036 + 0.018 * (i % 5), top - 0.223 + 0.02 * (i // 5), 0.0075,
                         (1, 1, 0.92))  # fmt: skip
        board = choose(brush, "#1f4f9a", "#b8323a", "#1f7a5a")
        pen.box(0, horizon - 0.005, 1, horizon + 0.04, lit(board, hour))
        for i in range(7):
            pen.box(
                i * 0.16 + 0.02, horizon + 0.008, i * 0.16 + 0.1, horizon + 0.026, (1, 1, 1), 0.5
            )
    _pitch(brush, horizon + 0.04, hour)
    for x in (0.1, 0.9):
        brush.glow(x, top - 0.21, 0.12, (1, 1, 0.92), 0.5 if hour in ("dusk", "sunset") else 0.25)


def _crowd(brush: Brush, pen: Pen, top: float, horizon: float, hour: str) -> None:
    colours = [lit(c, hour, 0.25) for c in ("#d9534f", "#f2c94c", "#4f7fd0", "#f2f2f2", "#7a5aa8")]
    rows = 11
    for row in range(rows):
        y = top + 0.012 + (horizon - top - 0.02) * row / rows
        x = brush.rand.random() * 0.012
        while x < 1:
            bow = -0.07 * (abs(x - 0.5) * 2) * (1 - row / rows)
            if brush.rand.random() < 0.85:
                tone = colours[int(brush.rand.random() * len(colours))]
                pen.blob(x, y + bow, 0.0062, tone, 0.85)
            x += 0.0185 / brush.aspect * 1.2


def _pitch(brush: Brush, top: float, hour: str) -> None:
    brush.gradient(top, 1, [(0, lit("#7fb85a", hour)), (1, lit("#4f9a43", hour))])
    with brush.pen(top) as pen:
        for i in range(-4, 12, 2):
            a, b = i / 8, (i + 1) / 8
            near = (0.5 + (b - 0.5) * 2.4, 1), (0.5 + (a - 0.5) * 2.4, 1)
            pen.polygon([(a, top), (b, top), *near], (1, 1, 0.8), 0.1)
        white = lit("#f7faf2", hour)
        y = top + brush.between(0.12, 0.25) * (1 - top)
        pen.line([(0, y), (1, y)], white, 0.007, 0.85)
        x = brush.between(0.2, 0.8)
        pen.line([(x, y), (0.5 + (x - 0.5) * 2.0, 1)], white, 0.009, 0.85)
    brush.texture("grain", top, 0.07, 5.0)


PAINTERS: dict[str, Painter] = {
    "park": park,
    "farm": farm,
    "garden": garden,
    "stadium": stadium,
}
