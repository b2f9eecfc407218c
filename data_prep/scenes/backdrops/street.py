"""Backdrop of a street: house fronts, pavement and road."""

from __future__ import annotations

from sieve.data_prep.scenes.backdrops.nature import choose
from sieve.data_prep.scenes.canvas import LIGHTS, Brush, Painter, Pen, lit, mix, rgb, sky

_WALLS = ("#d98f6a", "#e3c28b", "#c9b7a5", "#b6c4c9", "#d9a3a0", "#a9bfa8", "#e8d9b8", "#b5795e",
          "#9fb0c9", "#e6dccf")  # fmt: skip


def street(brush: Brush, horizon: float, hour: str) -> None:
    """Paint house fronts, pavement and road."""
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
    """Draw one house: wall, roof, windows, door or shop."""
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


PAINTERS: dict[str, Painter] = {"street": street}
