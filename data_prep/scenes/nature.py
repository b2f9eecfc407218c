"""Backdrops of nature: beach, sea, snow, desert, field, mountain, night and forest."""

from __future__ import annotations

import math

import numpy as np

from sieve.data_prep.scenes.canvas import Brush, Colour, Pen, mix, rgb, tinted


def rolling(brush: Brush, horizon: float, colours: tuple[str, ...]) -> None:
    """Paint layers of hills up to the horizon, with haze that grows with distance."""
    for i, colour in enumerate(colours):
        haze = 0.68 * (1 - (i + 1) / (len(colours) + 1))
        line = brush.skyline(horizon - 0.052 + 0.02 * i, 0.034, 0.5)
        brush.ridge(line, brush.lit(colour, haze), brush.lit(colour, min(1, haze + 0.16)), 0.1)


def meadow(brush: Brush, horizon: float, *colours: str) -> None:
    """Paint grass from the horizon to the lower edge; of the pairs `FAR|NEAR`, one is drawn."""
    far, near = brush.choose(*colours).split("|")
    line = brush.skyline(horizon, 0.008, 0.5)
    brush.ridge(line, brush.lit(far, 0.2), brush.lit(near), 1 - horizon)
    brush.texture("soft", horizon, 0.1, 3.0)
    brush.texture("grain", horizon, 0.11, 5.0)


def _flowers(brush: Brush, horizon: float) -> None:
    colour = brush.lit(brush.choose("#f7d046", "#f4f1e4", "#c9a6e8", "#ee8f8f"))
    with brush.pen(horizon) as pen:
        for _ in range(int(brush.between(0, 60))):
            depth = brush.random() ** 1.5
            y = horizon + (0.06 + 0.92 * depth) * (1 - horizon)
            pen.blob(brush.random(), y, 0.0016 + 0.0035 * depth, colour, 0.85)


def beach(brush: Brush, horizon: float) -> None:
    """Paint sky, sea, foam and sand."""
    sun_x = brush.sky(horizon)
    light = brush.light
    shore = horizon + 0.36 * (1 - horizon)
    deep = brush.choose("#1f7fb5", "#1787a8", "#2a6fb0", "#1b9aa8")
    brush.water(horizon, 1.0, brush.lit(deep, 0.25), brush.lit("#5fd0cf"), light.sun)
    if brush.hour != "overcast":
        brush.glitter(sun_x, horizon, shore, light.sun, 0.8)
    tilt = brush.between(-0.035, 0.035)
    edge = brush.skyline(shore, 0.016, 0.4) + tilt * (brush.x[0] - 0.5)
    sand = brush.choose("#ecd6a4", "#e6cf9b", "#f0dcb4", "#e2c590")
    wet = mix(brush.lit(sand), brush.lit("#8d7650"), 0.5)
    brush.ridge(edge, brush.lit(sand), brush.lit(sand), 1.0)
    rows = slice(int((shore - 0.05) * brush.height), brush.height)
    away = brush.y[rows] - edge[None, :]
    land = np.clip(away * brush.height, 0, 1)
    grain = 0.05 * brush.plane("soft", shore - 0.05, 2.5)
    grain += 0.075 * brush.plane("grain", shore - 0.05, 5.0)
    brush.image[:, rows] *= 1 + land * grain[-land.shape[0] :]
    brush.blend(rows, 0.55 * land * np.exp(-((away / 0.07) ** 2)), wet)
    for shift, alpha in ((0.0, 0.9), (-0.045, 0.5), (-0.085, 0.3)):
        wave = edge + shift + 0.006 * np.sin(brush.x[0] * brush.between(9, 19))
        brush.under(wave.astype(np.float32), (0.98, 0.99, 0.99), alpha, 0.0085 + shift * 0.04)


def sea(brush: Brush, horizon: float) -> None:
    """Paint open water to the horizon, sometimes with a distant coast."""
    sun_x = brush.sky(horizon, 0.6)
    light = brush.light
    if brush.random() < 0.4:
        line = brush.skyline(horizon - 0.012, 0.025, 0.5)
        brush.ridge(line, brush.lit("#6d8ba0", 0.6), brush.lit("#6d8ba0", 0.75), 0.08)
    deep = brush.choose("#12588f", "#16698f", "#1d5fa3", "#0f6f86")
    near = mix(rgb(deep), rgb("#2ea3b8"), brush.between(0.1, 0.5))
    brush.water(horizon, 1.0, brush.lit(deep, 0.42), tinted(near, light.tint), light.low)
    if brush.hour != "overcast":
        brush.glitter(sun_x, horizon, 1.0, light.sun, 0.85)


def snow(brush: Brush, horizon: float) -> None:
    """Paint snowfields with blue shade and a distant dark wood."""
    brush.sky(horizon, 0.7)
    far = brush.skyline(horizon - 0.05, 0.045, 0.5)
    brush.ridge(far, brush.lit("#dfe9f4", 0.3), brush.lit("#b9cde4", 0.3), 0.12)
    _wood(brush, horizon)
    line = brush.skyline(horizon + 0.012, 0.014, 0.5)
    brush.ridge(line, brush.lit("#eaf2fa"), brush.lit("#fbfdff"), 0.4)
    for _ in range(3):
        drift = brush.skyline(horizon + brush.between(0.1, 0.8) * (1 - horizon), 0.03, 0.4)
        brush.under(drift, brush.lit("#b5cbe6"), 0.42, 0.03)
    brush.texture("soft", horizon, 0.05, 3.0)
    brush.texture("grain", horizon, 0.018, 6.0)
    if brush.random() < 0.45:
        with brush.pen() as pen:
            for _ in range(90):
                size = 0.0012 + 0.0036 * brush.random() ** 2
                pen.blob(brush.random(), brush.random(), size, (1, 1, 1), 0.8)


def _wood(brush: Brush, base: float) -> None:
    """Draw a distant line of firs, too small and hazy to count as trees."""
    x = -0.01
    middle, reach = brush.random(), brush.between(0.2, 0.7)
    with brush.pen(base - 0.16, base + 0.06) as pen:
        while x < 1.01:
            near = math.exp(-(((x - middle) / reach) ** 2))
            tall = 0.05 * near * brush.between(0.6, 1.15)
            tone = brush.lit("#4d6a72", 0.3 + 0.25 * brush.random())
            half = tall * 0.26 / brush.aspect
            pen.polygon([(x - half, base + 0.02), (x, base - tall), (x + half, base + 0.02)], tone)
            x += 0.011 / brush.aspect * brush.between(0.6, 1.4)


def desert(brush: Brush, horizon: float) -> None:
    """Paint dunes with a lit and a shaded side, sometimes with mesas behind."""
    brush.sky(horizon, 0.25)
    sand = brush.choose("#e3a85c", "#e8b878", "#d9965a", "#e6bb86")
    if brush.random() < 0.45:
        with brush.pen(horizon - 0.22, horizon + 0.03) as pen:
            for _ in range(int(brush.between(2, 5))):
                _mesa(brush, pen, horizon)
    for i, (depth, haze) in enumerate(((0.0, 0.4), (0.05, 0.2), (0.16, 0.08), (0.34, 0.0))):
        y = horizon - 0.02 + depth * (1 - horizon) * 1.2
        line = brush.skyline(y, 0.03 + 0.018 * i, 0.35)
        light = mix(brush.lit(sand, haze), (1, 0.95, 0.82), 0.16)
        brush.ridge(line, light, brush.lit(sand, haze), 0.16 + 0.1 * i)
        shade = mix(brush.lit(sand), brush.lit("#8a4f2c"), 0.5)
        brush.under(line + 0.03, shade, 0.22, 0.02 + 0.012 * i)
    brush.texture("ripple", horizon, 0.05, 5.0)
    brush.texture("grain", horizon, 0.06, 5.0)


def _mesa(brush: Brush, pen: Pen, base: float) -> None:
    x, wide, tall = brush.random(), brush.between(0.05, 0.16), brush.between(0.05, 0.15)
    rock = brush.lit(brush.choose("#b5623a", "#a85838"), 0.45)
    points = [(x - wide, base + 0.03), (x - wide * 0.7, base - tall * 0.5),
              (x - wide * 0.6, base - tall), (x + wide * 0.55, base - tall * 0.97),
              (x + wide * 0.68, base - tall * 0.45), (x + wide, base + 0.03)]  # fmt: skip
    pen.polygon(points, rock)
    pen.polygon([(x, base - tall), *points[3:], (x + wide * 0.2, base + 0.03)],
                mix(rock, (0.35, 0.2, 0.25), 0.22))  # fmt: skip


def field(brush: Brush, horizon: float) -> None:
    """Paint hills and grass."""
    brush.sky(horizon)
    rolling(brush, horizon, ("#5f8f6a", "#6fa05a", "#7fae55"))
    grass = ("#9ec25f|#5f9a3c", "#b7c36a|#7ea046", "#86b868|#4a8a44", "#d9c46e|#b3a04a")
    meadow(brush, horizon, *grass)
    _flowers(brush, horizon)


def _slope(line: np.ndarray) -> np.ndarray:
    """Return the smoothed slope of a line, so that rock faces appear as broad planes."""
    span = max(3, line.size // 28)
    padded = np.pad(line, span, mode="edge")
    broad = np.convolve(padded, np.ones(span, np.float32) / span, mode="same")
    return np.gradient(broad)[span:-span] * line.size


def mountain(brush: Brush, horizon: float) -> None:
    """Paint peaks with a lit and a shaded side over an alpine meadow."""
    brush.sky(horizon)
    rock = brush.choose("#6d7f95", "#7d7a86", "#8a7a72", "#667a80")
    for drop, swing, haze in ((0.24, 0.1, 0.58), (0.12, 0.1, 0.26)):
        line = brush.skyline(horizon - drop, swing, 0.46, sharp=True)
        brush.ridge(line, brush.lit(rock, haze), brush.lit(rock, min(1, haze + 0.3)), 0.3)
        rows = slice(int(float(line.min()) * brush.height), int(horizon * brush.height) + 1)
        side = np.clip(_slope(line) * 0.9, -1, 1)[None, :]
        below = brush.y[rows] - line[None, :]
        face = np.clip(below * 60, 0, 1) * np.exp(-np.clip(below, 0, 1) / 0.16)
        brush.image[:, rows] *= 1 - 0.2 * face * side
        brush.image[:, rows] += 0.07 * face * np.clip(-side, 0, 1)
    rolling(brush, horizon, ("#5d8160", "#6b9257"))
    meadow(brush, horizon, "#93b36a|#5d8a44", "#a3b06f|#74883f", "#86ab72|#4f7f4a")
    _flowers(brush, horizon)


def night(brush: Brush, horizon: float) -> None:
    """Paint a starry sky over dark hills."""
    brush.sky(horizon, 0.2)
    glow_x = brush.random()
    brush.glow(glow_x, horizon, 0.4, rgb("#4f6cae"), 0.5)
    with brush.pen(0, horizon) as pen:
        for _ in range(150):
            x, y = brush.random(), brush.random() ** 1.2 * (horizon - 0.04)
            bright = brush.random() ** 4
            pen.blob(x, y, 0.0012 + 0.0028 * bright, (0.95, 0.96, 1), 0.35 + 0.6 * bright)
    rolling(brush, horizon, ("#3c5a86", "#3a5a78", "#3d6272"))
    meadow(brush, horizon, "#4f7f6a|#2f5a4c", "#56787e|#365660", "#6a7a6a|#3f5348")


def forest(brush: Brush, horizon: float) -> None:
    """Paint trunks and foliage in layers, light between them, and a mossy floor."""
    light = brush.light
    leaf = brush.choose("#5f9a4a", "#4d8f55", "#7a9a3f", "#8a9440")
    glow = mix(light.low, brush.lit("#d8ecb0"), 0.55)
    brush.gradient(0, horizon + 0.05, [(0, mix(brush.lit(leaf), glow, 0.35)), (1, glow)])
    brush.glow(brush.between(0.25, 0.75), horizon * 0.6, 0.4, (1, 0.99, 0.86), 0.55)
    firs = brush.random() < 0.4
    with brush.pen(0, horizon + 0.12) as pen:
        for layer, count in enumerate((13, 10, 7)):
            for _ in range(count):
                _tree(brush, pen, horizon, layer, leaf, firs, glow)
    line = brush.skyline(horizon + 0.035, 0.01, 0.5)
    floor = brush.choose("#8fa05a|#4f6a34", "#a08a5c|#5f5232", "#7d9a5a|#3f5f36").split("|")
    brush.ridge(line, brush.lit(floor[0], 0.12), brush.lit(floor[1]), 0.8 * (1 - horizon))
    brush.texture("soft", horizon, 0.2, 4.0)
    brush.texture("grain", horizon, 0.15, 5.0)
    brush.glow(brush.between(0.3, 0.7), horizon + 0.18, 0.22, (1, 0.98, 0.75), 0.2)


def _tree(
    brush: Brush, pen: Pen, horizon: float, layer: int, leaf: str, firs: bool, glow: Colour
) -> None:
    base, haze = horizon + (0.0, 0.025, 0.055)[layer], (0.66, 0.4, 0.1)[layer]
    x = brush.between(-0.05, 1.05)
    if layer == 2 and 0.3 < x < 0.7:
        x = brush.between(-0.05, 0.3) if brush.random() < 0.5 else brush.between(0.7, 1.05)
    trunk = mix(rgb("#5a4632"), glow, haze)
    crown = mix(tuple(v * brush.between(0.62, 0.95) for v in rgb(leaf)), glow, haze)  # type: ignore[arg-type]
    wide = (0.007, 0.012, 0.02)[layer] / brush.aspect
    if firs:
        tall = base * brush.between(0.7, 1.15)
        pen.box(x - wide / 2, base - tall * 0.5, x + wide / 2, base, trunk)
        for i in range(6):
            top = base - tall + i * tall * 0.14
            half = (0.018 + 0.022 * i) * (0.8 + 0.25 * layer) / brush.aspect
            tone = mix(crown, (0, 0.08, 0.06), 0.07 * i)
            pen.polygon([(x - half, top + tall * 0.23), (x, top), (x + half, top + tall * 0.23)],
                        tone)  # fmt: skip
        return
    pen.polygon([(x - wide * 0.75, base), (x - wide * 0.45, 0), (x + wide * 0.45, 0),
                 (x + wide * 0.75, base)], trunk)  # fmt: skip
    pen.box(x + wide * 0.1, 0, x + wide * 0.45, base - 0.01, mix(trunk, glow, 0.25), 0.6)
    for _ in range(9):
        tone = mix(crown, (1, 1, 0.6), 0.2 * brush.random())
        pen.blob(x + brush.between(-0.11, 0.11) / brush.aspect * (1 + layer * 0.4),
                 base * brush.between(-0.02, 0.4), brush.between(0.025, 0.06) * (1 + 0.25 * layer),
                 tone, 0.92)  # fmt: skip
