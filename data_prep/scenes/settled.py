"""Backdrops that people have built or tend, out of doors."""

from __future__ import annotations

import numpy as np

from data_prep.scenes.brush import Brush, Painter, Pen, mix, rgb
from data_prep.scenes.light import LIGHTS, lit, sky
from data_prep.scenes.nature import choose, meadow, rolling

_WALLS = ("#d98f6a", "#e3c28b", "#c9b7a5", "#b6c4c9", "#d9a3a0", "#a9bfa8", "#e8d9b8", "#b5795e",
          "#9fb0c9", "#e6dccf")  # fmt: skip


def street(brush: Brush, horizon: float, hour: str) -> None:
    """House fronts, pavement and road."""
    sky(brush, horizon, hour)
    with brush.pen(0, horizon + 0.1) as pen:
        _far_town(brush, pen, horizon, hour)
        x = brush.between(-0.15, -0.02)
        while x < 1.0:
            wide = brush.between(0.2, 0.34) / brush.aspect
            _front(brush, pen, x, wide, horizon + 0.055, hour)
            x += wide
    kerb = horizon + 0.3 * (1 - horizon)
    top = horizon + 0.055
    pave = choose(brush, "#c9c2b8", "#bdb9b4", "#cfc5b2")
    brush.gradient(top, kerb, [(0, lit(pave, hour, 0.1)), (1, lit(pave, hour))])
    brush.gradient(kerb, 1.0, [(0, lit("#7b7f88", hour)), (1, lit("#5c6069", hour))])
    brush.texture("grain", top, 0.05, 3.0)
    with brush.pen(top) as pen:
        for i in range(-9, 20):
            a, b = 0.5 + (i / 10 - 0.5) * 0.9, 0.5 + (i / 10 - 0.5) * 1.15
            pen.line([(a, top), (b, kerb)], lit("#8f8a83", hour), 0.0025, 0.5)
        pen.box(0, kerb - 0.008, 1, kerb + 0.006, lit("#e2ded6", hour))
        pen.box(0, kerb + 0.006, 1, kerb + 0.016, lit("#55585f", hour))
        middle, shift = kerb + 0.5 * (1 - kerb), brush.rand.random() * 0.2
        for i in range(-1, 6):
            a = i * 0.22 + shift
            pen.polygon([(a, middle), (a + 0.1, middle), (a + 0.104, middle + 0.016),
                         (a - 0.004, middle + 0.016)], lit("#f1eee2", hour), 0.9)  # fmt: skip
    brush.glow(brush.rand.random(), kerb + 0.1, 0.5, LIGHTS[hour].sun, 0.07)


def _far_town(brush: Brush, pen: Pen, horizon: float, hour: str) -> None:
    x = -0.02
    while x < 1:
        wide = brush.between(0.04, 0.1)
        top = horizon * brush.between(0.2, 0.55)
        pen.box(x, top, x + wide, horizon + 0.08, lit("#8d9bab", hour, brush.between(0.55, 0.75)))
        x += wide * brush.between(0.9, 1.5)


def _front(brush: Brush, pen: Pen, x: float, wide: float, base: float, hour: str) -> None:
    """One house: wall, roof, windows, door or shop."""
    wall = lit(choose(brush, *_WALLS), hour, 0.08)
    top = base - brush.between(0.34, 0.5) * (base / 0.6)
    roof = lit(choose(brush, "#8a4b3c", "#5b5560", "#9a5a44", "#6a5a52"), hour, 0.1)
    if brush.rand.random() < 0.6:
        pen.polygon([(x - 0.008, top), (x + wide * 0.12, top - 0.07), (x + wide * 0.88, top - 0.07),
                     (x + wide + 0.008, top)], roof)  # fmt: skip
    else:
        pen.box(x - 0.004, top - 0.016, x + wide + 0.004, top + 0.004, mix(wall, (1, 1, 1), 0.35))
    pen.box(x, top, x + wide, base, wall)
    pen.box(x + wide * 0.93, top, x + wide, base, mix(wall, (0.1, 0.1, 0.2), 0.16))
    pen.box(x, top, x + wide, top + 0.014, mix(wall, (0.1, 0.1, 0.2), 0.18))
    glowing = hour in ("dusk", "sunset")
    columns = 3 if wide * brush.aspect > 0.25 else 2
    trim = mix(wall, (1, 1, 1), 0.5)
    height, floors = 0.075, max(1, int((base - top - 0.13) / 0.115))
    for row in range(floors):
        for column in range(columns):
            cx = x + wide * (column + 0.5) / columns
            cy = top + 0.035 + row * 0.115
            half = 0.021 / brush.aspect
            glass = rgb("#ffd98a") if glowing and brush.rand.random() < 0.55 else mix(
                lit("#6f93b3", hour), LIGHTS[hour].middle, 0.35)  # fmt: skip
            pen.box(cx - half * 1.25, cy - 0.006, cx + half * 1.25, cy + height + 0.006, trim)
            pen.box(cx - half, cy, cx + half, cy + height, glass)
            pen.polygon([(cx - half, cy + height), (cx - half, cy + 0.03), (cx + half, cy)],
                        (1, 1, 1), 0.16)  # fmt: skip
            pen.box(cx - half * 0.08, cy, cx + half * 0.08, cy + height, trim)
            pen.box(cx - half * 1.45, cy + height + 0.004, cx + half * 1.45, cy + height + 0.014,
                    mix(wall, (0, 0, 0), 0.25))  # fmt: skip
    _ground_floor(brush, pen, x, wide, base, hour, glowing)


def _ground_floor(
    brush: Brush, pen: Pen, x: float, wide: float, base: float, hour: str, glowing: bool
) -> None:
    colour = lit(choose(brush, "#3f6a73", "#8a3f3f", "#3f5a8a", "#5a7a4a", "#7a5a3a"), hour)
    half = 0.024 / brush.aspect
    if brush.rand.random() < 0.5:
        glass = rgb("#ffe2a0") if glowing else mix(lit("#58798f", hour), LIGHTS[hour].low, 0.3)
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


def park(brush: Brush, horizon: float, hour: str) -> None:
    """A lawn with a pond, a path and hazy bushes far off."""
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
    """A red barn, a fence, crops behind and a yard in front."""
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
    """A hedge with flowers before it, a lawn and a few stepping stones."""
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
    """Stands full of far people, floodlights, and a mown pitch."""
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
            pen.polygon([(a, top), (b, top), (0.5 + (b - 0.5) * 2.4, 1), (0.5 + (a - 0.5) * 2.4, 1)],
                        (1, 1, 0.8), 0.1)  # fmt: skip
        white = lit("#f7faf2", hour)
        y = top + brush.between(0.12, 0.25) * (1 - top)
        pen.line([(0, y), (1, y)], white, 0.007, 0.85)
        x = brush.between(0.2, 0.8)
        pen.line([(x, y), (0.5 + (x - 0.5) * 2.0, 1)], white, 0.009, 0.85)
    brush.texture("grain", top, 0.07, 5.0)


PAINTERS: dict[str, Painter] = {
    "street": street,
    "park": park,
    "farm": farm,
    "garden": garden,
    "stadium": stadium,
}
