"""Backdrops of settlements: a park, a farm, a garden, a stadium and a street."""

from __future__ import annotations

import numpy as np

from sieve.data_prep.scenes.canvas import Brush, Pen, darker, lighter, mix, rgb
from sieve.data_prep.scenes.nature import meadow, rolling

_EVENING = ("dusk", "sunset")
_WALLS = ("#d98f6a", "#e3c28b", "#c9b7a5", "#b6c4c9", "#d9a3a0", "#a9bfa8", "#e8d9b8", "#b5795e",
          "#9fb0c9", "#e6dccf")  # fmt: skip


def park(brush: Brush, horizon: float) -> None:
    """Paint a lawn with a pond, a path and hazy bushes far off."""
    brush.sky(horizon)
    rolling(brush, horizon, ("#6f9a78", "#6a9a62"))
    with brush.pen(horizon - 0.1, horizon + 0.05) as pen:
        for _ in range(34):
            tone = brush.lit(brush.choose("#5f9156", "#6fa35f", "#7aa85c"), 0.34)
            pen.blob(brush.random(), horizon, brush.between(0.015, 0.038), tone, flat=0.8)
    meadow(brush, horizon, "#a2cc69|#5ea043", "#92c46a|#4f9748", "#b1cc70|#6da344")
    _pond(brush, horizon)
    _path(brush, horizon)


def _pond(brush: Brush, horizon: float) -> None:
    top, bottom = horizon + 0.07 * (1 - horizon), horizon + 0.27 * (1 - horizon)
    middle, half = (top + bottom) / 2, (bottom - top) / 2
    rows = slice(int((top - half) * brush.height), int((bottom + half) * brush.height))
    away = ((brush.y[rows] - middle) / half) ** 2
    away = away + ((brush.x - 0.5) / brush.between(0.55, 0.8)) ** 4
    cover = np.clip((1 - away) * brush.height * half * 0.5 + 0.5, 0, 1)
    shore = np.clip((1.22 - away) * 8, 0, 1)
    brush.blend(rows, shore * 0.45, brush.lit("#c9b98a"))
    bank = brush.image[:, rows].copy()
    blue, low = mix(brush.lit("#4f9fc4"), brush.light.middle, 0.35), brush.light.low
    brush.water(top, bottom, mix(blue, low, 0.4), blue, low)
    brush.image[:, rows] = bank + cover * (brush.image[:, rows] - bank)


def _path(brush: Brush, horizon: float) -> None:
    start, bend = brush.between(0.1, 0.9), brush.between(-0.5, 0.5)
    top = horizon + 0.3 * (1 - horizon)
    rows = slice(int(top * brush.height), brush.height)
    t = np.clip((brush.y[rows] - top) / (1 - top), 0, 1)
    middle, half = start + bend * t**2, 0.03 + 0.13 * t
    cover = np.clip((half - np.abs(brush.x - middle)) * 60 + 0.5, 0, 1) * np.clip(t * 9, 0, 1)
    brush.blend(rows, cover * 0.85, brush.lit("#dccaa2"))
    brush.texture("grain", top, 0.03)


def farm(brush: Brush, horizon: float) -> None:
    """Paint a red barn, a fence, crops behind and a yard in front."""
    brush.sky(horizon)
    rolling(brush, horizon, ("#7a9a62", "#8aa85a"))
    meadow(brush, horizon, "#b8bf6a|#7d9a45", "#a4b85e|#6a8f40", "#cdb678|#a38a52")
    left = brush.random() < 0.5
    x = brush.between(0.02, 0.14) if left else brush.between(0.6, 0.72)
    with brush.pen(horizon - 0.26, horizon + 0.14) as pen:
        for i in range(16):
            a = -0.3 + i * 0.1
            pen.polygon([(a, horizon + 0.01), (a + 0.025, horizon + 0.01),
                         (a + 0.02 + (a - 0.5) * 0.3, horizon + 0.07),
                         (a - 0.02 + (a - 0.5) * 0.3, horizon + 0.07)],
                        brush.lit("#6b8f3a"), 0.4)  # fmt: skip
        _barn(pen, brush, x, horizon + 0.05)
        _fence(brush, pen, horizon + 0.1)
    brush.glow(brush.random(), 0.9, 0.4, brush.light.sun, 0.06)


def _barn(pen: Pen, brush: Brush, x: float, base: float) -> None:
    wall = brush.lit(brush.choose("#a83a32", "#b5453a", "#94352f"), 0.1)
    wide, tall = 0.34 / brush.aspect, 0.15
    eaves, peak = base - tall, base - tall - 0.1
    pen.box(x, eaves, x + wide, base, wall)
    pen.polygon([(x, eaves), (x + wide * 0.12, eaves - 0.06), (x + wide * 0.3, peak),
                 (x + wide * 0.48, eaves - 0.06), (x + wide * 0.6, eaves)], wall)  # fmt: skip
    roof = brush.lit("#6a6470", 0.12)
    pen.polygon([(x + wide * 0.3, peak), (x + wide * 0.86, peak), (x + wide * 0.95, eaves - 0.06),
                 (x + wide * 1.04, eaves), (x + wide * 0.6, eaves),
                 (x + wide * 0.48, eaves - 0.06)], roof)  # fmt: skip
    white = brush.lit("#f2ece2", 0.1)
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
    pen.box(x + wide * 0.26, eaves - 0.05, x + wide * 0.34, eaves - 0.012, brush.lit("#4a2a2a"))


def _fence(brush: Brush, pen: Pen, y: float) -> None:
    wood = brush.lit(brush.choose("#f0ebe0", "#b08a5c", "#c9b79a"))
    dark = mix(wood, (0.2, 0.15, 0.1), 0.3)
    for rail in (0.014, 0.034):
        pen.box(0, y - rail - 0.005, 1, y - rail + 0.004, wood)
        pen.box(0, y - rail + 0.004, 1, y - rail + 0.006, dark)
    step, x = 0.075 / brush.aspect, brush.random() * 0.05
    while x < 1:
        pen.box(x, y - 0.05, x + 0.011 / brush.aspect, y + 0.006, wood)
        x += step


def garden(brush: Brush, horizon: float) -> None:
    """Paint a hedge with flowers before it, a lawn and a few stepping stones."""
    brush.sky(horizon)
    top = horizon - 0.16
    hedge = brush.choose("#3f7a3f", "#4a8246", "#5a8a3f")
    light = brush.light
    with brush.pen(top - 0.08, horizon + 0.14) as pen:
        pen.box(0, top, 1, horizon + 0.1, brush.lit(hedge))
        for _ in range(150):
            y = top + brush.random() ** 1.3 * 0.19
            tone = mix(brush.lit(hedge), light.sun, brush.between(-0.02, 0.22) * (horizon - y) * 5)
            pen.blob(brush.random(), y, brush.between(0.012, 0.034), tone, 0.75)
    meadow(brush, horizon + 0.06, "#9ccb62|#5fa244", "#8cc266|#54994a")
    bed = brush.choose("#e8556b|#f4b0c0", "#f2c230|#f7e7a0", "#9a6ad0|#d5b8f0", "#f07a3a|#f7d0a0")
    with brush.pen(horizon - 0.05, horizon + 0.12) as pen:
        for _ in range(90):
            y = horizon + 0.035 + brush.between(-0.03, 0.04)
            pen.blob(brush.random(), y, brush.between(0.009, 0.02), brush.lit("#4f8a45"), 0.9)
        for _ in range(130):
            y = horizon + 0.025 + brush.between(-0.035, 0.045)
            tone = brush.lit(brush.choose(*bed.split("|"), "#fdf6f0"))
            pen.blob(brush.random(), y, brush.between(0.005, 0.0105), tone)
    _stones(brush, horizon)


def _stones(brush: Brush, horizon: float) -> None:
    x, drift = brush.between(0.2, 0.8), brush.between(-0.05, 0.05)
    with brush.pen(horizon + 0.1) as pen:
        for i in range(6):
            depth = i / 5
            y = horizon + 0.14 + depth**1.3 * (0.84 - horizon)
            size = 0.022 + 0.04 * depth
            pen.blob(x, y + size * 0.12, size * 1.03, brush.lit("#4f7a3a"), 0.55, 0.4)
            pen.blob(x, y, size, brush.lit("#c4bfb4"), 0.95, 0.36)
            x += drift + brush.between(-0.03, 0.03)


def stadium(brush: Brush, horizon: float) -> None:
    """Paint stands with a crowd, floodlights and a mown pitch."""
    brush.sky(horizon)
    top = horizon * brush.between(0.42, 0.55)
    with brush.pen(0, horizon + 0.05) as pen:
        pen.polygon([(0, top - 0.07), (0.5, top), (1, top - 0.07), (1, horizon + 0.04),
                     (0, horizon + 0.04)], brush.lit("#6d7688", 0.15))  # fmt: skip
        _crowd(brush, pen, top, horizon)
        pen.polygon([(0, top - 0.1), (0.5, top - 0.02), (1, top - 0.1), (1, top - 0.07),
                     (0.5, top), (0, top - 0.07)], brush.lit("#e6e9ee", 0.1))  # fmt: skip
        for x in (0.1, 0.9):
            pen.box(x - 0.004, top - 0.2, x + 0.004, top - 0.06, brush.lit("#8c94a0"))
            pen.box(x - 0.045, top - 0.235, x + 0.045, top - 0.19, brush.lit("#4b5360"))
            for i in range(10):
                pen.blob(x - 0.036 + 0.018 * (i % 5), top - 0.223 + 0.02 * (i // 5), 0.0075,
                         (1, 1, 0.92))  # fmt: skip
        board = brush.lit(brush.choose("#1f4f9a", "#b8323a", "#1f7a5a"))
        pen.box(0, horizon - 0.005, 1, horizon + 0.04, board)
        for i in range(7):
            a = i * 0.16 + 0.02
            pen.box(a, horizon + 0.008, a + 0.08, horizon + 0.026, (1, 1, 1), 0.5)
    _pitch(brush, horizon + 0.04)
    for x in (0.1, 0.9):
        brush.glow(x, top - 0.21, 0.12, (1, 1, 0.92), 0.5 if brush.hour in _EVENING else 0.25)


def _crowd(brush: Brush, pen: Pen, top: float, horizon: float) -> None:
    colours = [brush.lit(c, 0.25) for c in ("#d9534f", "#f2c94c", "#4f7fd0", "#f2f2f2", "#7a5aa8")]
    rows = 11
    for row in range(rows):
        y = top + 0.012 + (horizon - top - 0.02) * row / rows
        x = brush.random() * 0.012
        while x < 1:
            bow = -0.07 * (abs(x - 0.5) * 2) * (1 - row / rows)
            if brush.random() < 0.85:
                pen.blob(x, y + bow, 0.0062, brush.choose(*colours), 0.85)
            x += 0.0185 / brush.aspect * 1.2


def _pitch(brush: Brush, top: float) -> None:
    brush.gradient(top, 1, [(0, brush.lit("#7fb85a")), (1, brush.lit("#4f9a43"))])
    with brush.pen(top) as pen:
        for i in range(-4, 12, 2):
            a, b = i / 8, (i + 1) / 8
            near = (0.5 + (b - 0.5) * 2.4, 1), (0.5 + (a - 0.5) * 2.4, 1)
            pen.polygon([(a, top), (b, top), *near], (1, 1, 0.8), 0.1)
        white = brush.lit("#f7faf2")
        y = top + brush.between(0.12, 0.25) * (1 - top)
        pen.line([(0, y), (1, y)], white, 0.007, 0.85)
        x = brush.between(0.2, 0.8)
        pen.line([(x, y), (0.5 + (x - 0.5) * 2.0, 1)], white, 0.009, 0.85)
    brush.texture("grain", top, 0.07, 5.0)


def street(brush: Brush, horizon: float) -> None:
    """Paint house fronts, pavement and road."""
    brush.sky(horizon)
    with brush.pen(0, horizon + 0.1) as pen:
        _far_town(brush, pen, horizon)
        x = brush.between(-0.15, -0.02)
        while x < 1.0:
            wide = brush.between(0.2, 0.34) / brush.aspect
            _front(brush, pen, x, wide, horizon + 0.055)
            x += wide
    kerb = horizon + 0.3 * (1 - horizon)
    top = horizon + 0.055
    pave = brush.choose("#c9c2b8", "#bdb9b4", "#cfc5b2")
    brush.gradient(top, kerb, [(0, brush.lit(pave, 0.1)), (1, brush.lit(pave))])
    brush.gradient(kerb, 1.0, [(0, brush.lit("#7b7f88")), (1, brush.lit("#5c6069"))])
    brush.texture("grain", top, 0.05, 3.0)
    with brush.pen(top) as pen:
        for i in range(-9, 20):
            a, b = 0.5 + (i / 10 - 0.5) * 0.9, 0.5 + (i / 10 - 0.5) * 1.15
            pen.line([(a, top), (b, kerb)], brush.lit("#8f8a83"), 0.0025, 0.5)
        pen.box(0, kerb - 0.008, 1, kerb + 0.006, brush.lit("#e2ded6"))
        pen.box(0, kerb + 0.006, 1, kerb + 0.016, brush.lit("#55585f"))
        middle, shift = kerb + 0.5 * (1 - kerb), brush.random() * 0.2
        for i in range(-1, 6):
            a = i * 0.22 + shift
            pen.polygon([(a, middle), (a + 0.1, middle), (a + 0.104, middle + 0.016),
                         (a - 0.004, middle + 0.016)], brush.lit("#f1eee2"), 0.9)  # fmt: skip
    brush.glow(brush.random(), kerb + 0.1, 0.5, brush.light.sun, 0.07)


def _far_town(brush: Brush, pen: Pen, horizon: float) -> None:
    x = -0.02
    while x < 1:
        wide = brush.between(0.04, 0.1)
        top = horizon * brush.between(0.2, 0.55)
        pen.box(x, top, x + wide, horizon + 0.08, brush.lit("#8d9bab", brush.between(0.55, 0.75)))
        x += wide * brush.between(0.9, 1.5)


def _front(brush: Brush, pen: Pen, x: float, wide: float, base: float) -> None:
    """Draw one house: wall, roof, windows, door or shop."""
    wall = brush.lit(brush.choose(*_WALLS), 0.08)
    top = base - brush.between(0.34, 0.5) * (base / 0.6)
    roof = brush.lit(brush.choose("#8a4b3c", "#5b5560", "#9a5a44", "#6a5a52"), 0.1)
    if brush.random() < 0.6:
        pen.polygon([(x - 0.008, top), (x + wide * 0.12, top - 0.07), (x + wide * 0.88, top - 0.07),
                     (x + wide + 0.008, top)], roof)  # fmt: skip
    else:
        pen.box(x - 0.004, top - 0.016, x + wide + 0.004, top + 0.004, lighter(wall, 0.35))
    pen.box(x, top, x + wide, base, wall)
    pen.box(x + wide * 0.93, top, x + wide, base, mix(wall, (0.1, 0.1, 0.2), 0.16))
    pen.box(x, top, x + wide, top + 0.014, mix(wall, (0.1, 0.1, 0.2), 0.18))
    columns = 3 if wide * brush.aspect > 0.25 else 2
    trim = lighter(wall, 0.5)
    height, floors = 0.075, max(1, int((base - top - 0.13) / 0.115))
    for row in range(floors):
        for column in range(columns):
            cx = x + wide * (column + 0.5) / columns
            cy = top + 0.035 + row * 0.115
            half = 0.021 / brush.aspect
            glass = mix(brush.lit("#6f93b3"), brush.light.middle, 0.35)
            if brush.hour in _EVENING and brush.random() < 0.55:
                glass = rgb("#ffd98a")
            pen.box(cx - half * 1.25, cy - 0.006, cx + half * 1.25, cy + height + 0.006, trim)
            pen.box(cx - half, cy, cx + half, cy + height, glass)
            pen.polygon([(cx - half, cy + height), (cx - half, cy + 0.03), (cx + half, cy)],
                        (1, 1, 1), 0.16)  # fmt: skip
            pen.box(cx - half * 0.08, cy, cx + half * 0.08, cy + height, trim)
            sill = cy + height + 0.004
            pen.box(cx - half * 1.45, sill, cx + half * 1.45, sill + 0.01, darker(wall, 0.25))
    _ground_floor(brush, pen, x, wide, base)


def _ground_floor(brush: Brush, pen: Pen, x: float, wide: float, base: float) -> None:
    colour = brush.lit(brush.choose("#3f6a73", "#8a3f3f", "#3f5a8a", "#5a7a4a", "#7a5a3a"))
    half = 0.024 / brush.aspect
    if brush.random() < 0.5:
        day = mix(brush.lit("#58798f"), brush.light.low, 0.3)
        glass = rgb("#ffe2a0") if brush.hour in _EVENING else day
        pen.box(x + wide * 0.08, base - 0.1, x + wide * 0.62, base - 0.015, glass)
        pen.polygon([(x + wide * 0.04, base - 0.1), (x + wide * 0.08, base - 0.128),
                     (x + wide * 0.62, base - 0.128), (x + wide * 0.66, base - 0.1)],
                    colour)  # fmt: skip
        for i in range(4):
            a = x + wide * (0.08 + 0.155 * i)
            pen.box(a, base - 0.128, a + wide * 0.07, base - 0.1, (1, 1, 1), 0.4)
        door = x + wide * 0.79
    else:
        door = x + wide * brush.between(0.3, 0.7)
    pen.rounded(door - half, base - 0.105, door + half, base + 0.004, colour, 0.008)
    pen.blob(door + half * 0.6, base - 0.05, 0.003, (0.95, 0.85, 0.5))
