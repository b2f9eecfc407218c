"""Backdrops of nature: beach, sea, snow, desert, field, mountain, night and forest."""

from __future__ import annotations

import math

import numpy as np

from sieve.data_prep.scenes.canvas import LIGHTS, Brush, Painter, Pen, lit, mix, rgb, sky


def choose(brush: Brush, *options: str) -> str:
    """Draw one of several colours."""
    return options[int(brush.rand.random() * len(options))]


def rolling(brush: Brush, horizon: float, hour: str, colours: tuple[str, ...]) -> None:
    """Paint layers of hills up to the horizon, with haze that grows with distance."""
    for i, colour in enumerate(colours):
        haze = 0.68 * (1 - (i + 1) / (len(colours) + 1))
        line = brush.skyline(horizon - 0.052 + 0.02 * i, 0.034, 0.5)
        brush.ridge(line, lit(colour, hour, haze), lit(colour, hour, min(1, haze + 0.16)), 0.1)


def meadow(brush: Brush, horizon: float, hour: str, far: str, near: str) -> None:
    """Paint grass from the horizon to the lower edge."""
    line = brush.skyline(horizon, 0.008, 0.5)
    brush.ridge(line, lit(far, hour, 0.2), lit(near, hour), 1 - horizon)
    brush.texture("soft", horizon, 0.1, 3.0)
    brush.texture("grain", horizon, 0.11, 5.0)


def _flowers(brush: Brush, horizon: float, hour: str, pen: Pen) -> None:
    colour = lit(choose(brush, "#f7d046", "#f4f1e4", "#c9a6e8", "#ee8f8f"), hour)
    for _ in range(int(brush.between(0, 60))):
        depth = brush.rand.random() ** 1.5
        y = horizon + (0.06 + 0.92 * depth) * (1 - horizon)
        pen.blob(brush.rand.random(), y, 0.0016 + 0.0035 * depth, colour, 0.85)


def beach(brush: Brush, horizon: float, hour: str) -> None:
    """Paint sky, sea, foam and sand."""
    sun_x = sky(brush, horizon, hour)
    light = LIGHTS[hour]
    shore = horizon + 0.36 * (1 - horizon)
    deep = choose(brush, "#1f7fb5", "#1787a8", "#2a6fb0", "#1b9aa8")
    brush.water(horizon, 1.0, lit(deep, hour, 0.25), lit("#5fd0cf", hour), light.sun)
    if hour != "overcast":
        brush.glitter(sun_x, horizon, shore, light.sun, 0.8)
    tilt = brush.between(-0.035, 0.035)
    edge = brush.skyline(shore, 0.016, 0.4) + tilt * (brush.x[0] - 0.5)
    sand = choose(brush, "#ecd6a4", "#e6cf9b", "#f0dcb4", "#e2c590")
    wet = mix(lit(sand, hour), lit("#8d7650", hour), 0.5)
    brush.ridge(edge, lit(sand, hour), lit(sand, hour), 1.0)
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


def sea(brush: Brush, horizon: float, hour: str) -> None:
    """Paint open water to the horizon, sometimes with a distant coast."""
    sun_x = sky(brush, horizon, hour, 0.6)
    light = LIGHTS[hour]
    if brush.rand.random() < 0.4:
        line = brush.skyline(horizon - 0.012, 0.025, 0.5)
        brush.ridge(line, lit("#6d8ba0", hour, 0.6), lit("#6d8ba0", hour, 0.75), 0.08)
    deep = choose(brush, "#12588f", "#16698f", "#1d5fa3", "#0f6f86")
    near = mix(rgb(deep), rgb("#2ea3b8"), brush.between(0.1, 0.5))
    tone = tuple(a * b for a, b in zip(near, light.tint, strict=True))
    brush.water(horizon, 1.0, lit(deep, hour, 0.42), tone, light.low)  # type: ignore[arg-type]
    if hour != "overcast":
        brush.glitter(sun_x, horizon, 1.0, light.sun, 0.85)


def snow(brush: Brush, horizon: float, hour: str) -> None:
    """Paint snowfields with blue shade and a distant dark wood."""
    sky(brush, horizon, hour, 0.7)
    far = brush.skyline(horizon - 0.05, 0.045, 0.5)
    brush.ridge(far, lit("#dfe9f4", hour, 0.3), lit("#b9cde4", hour, 0.3), 0.12)
    with brush.pen(horizon - 0.16, horizon + 0.06) as pen:
        _wood(brush, pen, horizon, hour, "#4d6a72", 0.05)
    line = brush.skyline(horizon + 0.012, 0.014, 0.5)
    brush.ridge(line, lit("#eaf2fa", hour), lit("#fbfdff", hour), 0.4)
    for _ in range(3):
        y = horizon + brush.between(0.1, 0.8) * (1 - horizon)
        drift = brush.skyline(y, 0.03, 0.4)
        brush.under(drift, lit("#b5cbe6", hour), 0.42, 0.03)
    brush.texture("soft", horizon, 0.05, 3.0)
    brush.texture("grain", horizon, 0.018, 6.0)
    if brush.rand.random() < 0.45:
        with brush.pen() as pen:
            for _ in range(90):
                size = 0.0012 + 0.0036 * brush.rand.random() ** 2
                pen.blob(brush.rand.random(), brush.rand.random(), size, (1, 1, 1), 0.8)


def _wood(brush: Brush, pen: Pen, base: float, hour: str, colour: str, height: float) -> None:
    """Draw a distant line of firs, too small and hazy to count as trees."""
    x, step = -0.01, 0.011 / brush.aspect
    middle, reach = brush.rand.random(), brush.between(0.2, 0.7)
    while x < 1.01:
        near = math.exp(-(((x - middle) / reach) ** 2))
        tall = height * near * brush.between(0.6, 1.15)
        tone = lit(colour, hour, 0.3 + 0.25 * brush.rand.random())
        half = tall * 0.26 / brush.aspect
        pen.polygon([(x - half, base + 0.02), (x, base - tall), (x + half, base + 0.02)], tone)
        x += step * brush.between(0.6, 1.4)


def desert(brush: Brush, horizon: float, hour: str) -> None:
    """Paint dunes with a lit and a shaded side, sometimes with mesas behind."""
    sky(brush, horizon, hour, 0.25)
    sand = choose(brush, "#e3a85c", "#e8b878", "#d9965a", "#e6bb86")
    if brush.rand.random() < 0.45:
        with brush.pen(horizon - 0.22, horizon + 0.03) as pen:
            for _ in range(int(brush.between(2, 5))):
                _mesa(brush, pen, horizon, hour)
    for i in range(4):
        y = horizon - 0.02 + (0.0, 0.05, 0.16, 0.34)[i] * (1 - horizon) * 1.2
        line = brush.skyline(y, 0.03 + 0.018 * i, 0.35)
        haze = (0.4, 0.2, 0.08, 0.0)[i]
        light = mix(lit(sand, hour, haze), (1, 0.95, 0.82), 0.16)
        brush.ridge(line, light, lit(sand, hour, haze), 0.16 + 0.1 * i)
        crest = line + 0.03
        brush.under(crest, mix(lit(sand, hour), lit("#8a4f2c", hour), 0.5), 0.22, 0.02 + 0.012 * i)
    brush.texture("ripple", horizon, 0.05, 5.0)
    brush.texture("grain", horizon, 0.06, 5.0)


def _mesa(brush: Brush, pen: Pen, base: float, hour: str) -> None:
    x, wide, tall = brush.rand.random(), brush.between(0.05, 0.16), brush.between(0.05, 0.15)
    rock = lit(choose(brush, "#b5623a", "#a85838"), hour, 0.45)
    points = [(x - wide, base + 0.03), (x - wide * 0.7, base - tall * 0.5),
              (x - wide * 0.6, base - tall), (x + wide * 0.55, base - tall * 0.97),
              (x + wide * 0.68, base - tall * 0.45), (x + wide, base + 0.03)]  # fmt: skip
    pen.polygon(points, rock)
    pen.polygon([(x, base - tall), *points[3:], (x + wide * 0.2, base + 0.03)],
                mix(rock, (0.35, 0.2, 0.25), 0.22))  # fmt: skip


def field(brush: Brush, horizon: float, hour: str) -> None:
    """Paint hills and grass."""
    sky(brush, horizon, hour)
    greens = ("#5f8f6a", "#6fa05a", "#7fae55")
    rolling(brush, horizon, hour, greens)
    pair = choose(brush, "#9ec25f|#5f9a3c", "#b7c36a|#7ea046", "#86b868|#4a8a44", "#d9c46e|#b3a04a")
    far, near = pair.split("|")
    meadow(brush, horizon, hour, far, near)
    with brush.pen(horizon) as pen:
        _flowers(brush, horizon, hour, pen)


def _slope(line: np.ndarray) -> np.ndarray:
    """Return the smoothed slope of a line, so that rock faces appear as broad planes."""
    span = max(3, line.size // 28)
    padded = np.pad(line, span, mode="edge")
    broad = np.convolve(padded, np.ones(span, np.float32) / span, mode="same")
    return np.gradient(broad)[span:-span] * line.size


def mountain(brush: Brush, horizon: float, hour: str) -> None:
    """Paint peaks with a lit and a shaded side over an alpine meadow."""
    sky(brush, horizon, hour)
    rock = choose(brush, "#6d7f95", "#7d7a86", "#8a7a72", "#667a80")
    for drop, swing, haze in ((0.24, 0.1, 0.58), (0.12, 0.1, 0.26)):
        line = brush.skyline(horizon - drop, swing, 0.46, sharp=True)
        brush.ridge(line, lit(rock, hour, haze), lit(rock, hour, min(1, haze + 0.3)), 0.3)
        rows = slice(int(float(line.min()) * brush.height), int(horizon * brush.height) + 1)
        side = np.clip(_slope(line) * 0.9, -1, 1)[None, :]
        below = brush.y[rows] - line[None, :]
        face = np.clip(below * 60, 0, 1) * np.exp(-np.clip(below, 0, 1) / 0.16)
        brush.image[:, rows] *= 1 - 0.2 * face * side
        brush.image[:, rows] += 0.07 * face * np.clip(-side, 0, 1)
    rolling(brush, horizon, hour, ("#5d8160", "#6b9257"))
    far, near = choose(brush, "#93b36a|#5d8a44", "#a3b06f|#74883f", "#86ab72|#4f7f4a").split("|")
    meadow(brush, horizon, hour, far, near)
    with brush.pen(horizon) as pen:
        _flowers(brush, horizon, hour, pen)


def night(brush: Brush, horizon: float, hour: str) -> None:
    """Paint a starry sky over dark hills."""
    sky(brush, horizon, hour, 0.2)
    glow_x = brush.rand.random()
    brush.glow(glow_x, horizon, 0.4, rgb("#4f6cae"), 0.5)
    with brush.pen(0, horizon) as pen:
        for _ in range(150):
            x, y = brush.rand.random(), brush.rand.random() ** 1.2 * (horizon - 0.04)
            bright = brush.rand.random() ** 4
            pen.blob(x, y, 0.0012 + 0.0028 * bright, (0.95, 0.96, 1), 0.35 + 0.6 * bright)
    rolling(brush, horizon, hour, ("#3c5a86", "#3a5a78", "#3d6272"))
    ground = choose(brush, "#4f7f6a|#2f5a4c", "#56787e|#365660", "#6a7a6a|#3f5348")
    far, near = ground.split("|")
    meadow(brush, horizon, hour, far, near)


def forest(brush: Brush, horizon: float, hour: str) -> None:
    """Paint trunks and foliage in layers, light between them, and a mossy floor."""
    light = LIGHTS[hour]
    leaf = choose(brush, "#5f9a4a", "#4d8f55", "#7a9a3f", "#8a9440")
    glow = mix(light.low, lit("#d8ecb0", hour), 0.55)
    brush.gradient(0, horizon + 0.05, [(0, mix(lit(leaf, hour), glow, 0.35)), (1, glow)])
    brush.glow(brush.between(0.25, 0.75), horizon * 0.6, 0.4, (1, 0.99, 0.86), 0.55)
    firs = brush.rand.random() < 0.4
    with brush.pen(0, horizon + 0.12) as pen:
        for layer in range(3):
            haze = (0.66, 0.4, 0.1)[layer]
            for _ in range((13, 10, 7)[layer]):
                _tree(
                    brush, pen, horizon + (0.0, 0.025, 0.055)[layer], haze, layer, leaf, firs, glow
                )
    line = brush.skyline(horizon + 0.035, 0.01, 0.5)
    floor = choose(brush, "#8fa05a|#4f6a34", "#a08a5c|#5f5232", "#7d9a5a|#3f5f36").split("|")
    brush.ridge(line, lit(floor[0], hour, 0.12), lit(floor[1], hour), 0.8 * (1 - horizon))
    brush.texture("soft", horizon, 0.2, 4.0)
    brush.texture("grain", horizon, 0.15, 5.0)
    brush.glow(brush.between(0.3, 0.7), horizon + 0.18, 0.22, (1, 0.98, 0.75), 0.2)


def _tree(
    brush: Brush, pen: Pen, base: float, haze: float, layer: int, leaf: str, firs: bool,
    glow: tuple[float, float, float],
) -> None:  # fmt: skip
    x = brush.between(-0.05, 1.05)
    if layer == 2 and 0.3 < x < 0.7:
        x = brush.between(-0.05, 0.3) if brush.rand.random() < 0.5 else brush.between(0.7, 1.05)
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
        tone = mix(crown, (1, 1, 0.6), 0.2 * brush.rand.random())
        pen.blob(x + brush.between(-0.11, 0.11) / brush.aspect * (1 + layer * 0.4),
                 base * brush.between(-0.02, 0.4), brush.between(0.025, 0.06) * (1 + 0.25 * layer),
                 tone, 0.92)  # fmt: skip


PAINTERS: dict[str, Painter] = {
    "beach": beach,
    "sea": sea,
    "snow": snow,
    "desert": desert,
    "field": field,
    "mountain": mountain,
    "night": night,
    "forest": forest,
}
