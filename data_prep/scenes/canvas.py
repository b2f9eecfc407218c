"""Drawing tools for backdrops, at any resolution, and the light of each hour.

All coordinates are fractions: x from 0 (left) to 1 (right) of the width, y from 0 (top) to 1 of
the height. The result depends only on the brush's random stream, never on the size, so that a
thumbnail and a print show the same scene.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Annotated, TypeVar

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BeforeValidator, TypeAdapter

from sieve.data_prep.scenes.compose import read_json

T = TypeVar("T")
Colour = tuple[float, float, float]
Point = tuple[float, float]
TILE = 512


def rgb(text: str) -> Colour:
    """Convert `#rrggbb` to three floats from 0 to 1."""
    return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """Blend two colours: a at t = 0, b at t = 1."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def darker(colour: Colour, t: float) -> Colour:
    """Blend a colour with black."""
    return mix(colour, (0, 0, 0), t)


def lighter(colour: Colour, t: float) -> Colour:
    """Blend a colour with white."""
    return mix(colour, (1, 1, 1), t)


def tinted(colour: Colour, tint: Colour) -> Colour:
    """Return a colour under coloured light."""
    return (colour[0] * tint[0], colour[1] * tint[1], colour[2] * tint[2])


def _ink(colour: Colour, alpha: float = 1.0) -> tuple[int, ...]:
    """Convert a colour to Pillow's RGBA."""
    return (*(int(255 * min(max(part, 0), 1) + 0.5) for part in colour), int(255 * alpha))


_Hex = Annotated[Colour, BeforeValidator(rgb)]


@dataclass(frozen=True)
class Light:
    """Colours and light of an hour."""

    zenith: tuple[_Hex, ...]
    """Colours of the upper sky, of which one is drawn."""
    middle: _Hex
    low: _Hex
    sun: _Hex
    cloud: _Hex
    tint: Colour
    """Multiplies the ground and the objects."""
    sun_height: tuple[float, float]
    """Range of the sun's height, as a share of the way from the horizon up."""
    shadow: float
    """Strength of cast shadows."""


LIGHTS = TypeAdapter(dict[str, Light]).validate_python(read_json("lights.json"))


@lru_cache(maxsize=8)
def noise_tile(kind: str) -> Image.Image:
    """Make a fixed tile of fractal noise, mode L, mean near 128.

    `grain` is fine (sand, grass), `soft` is broad (clouds, snow), `ripple` is wide (water).
    """
    state = np.random.RandomState({"grain": 11, "soft": 12, "ripple": 13}[kind])
    octaves = {"grain": (16, 64, 128, 256), "soft": (4, 8, 16, 32, 64), "ripple": (24, 48, 96)}
    weight = {"grain": (0.9, 0.8, 0.9, 1.0), "soft": (1, 0.6, 0.38, 0.22, 0.12)}
    total = np.zeros((TILE, TILE), np.float32)
    for i, cells in enumerate(octaves[kind]):
        wide = max(4, cells // 5) if kind == "ripple" else cells
        grid = state.rand(cells, wide).astype(np.float32) - 0.5
        layer = Image.fromarray(grid).resize((TILE, TILE), Image.Resampling.BICUBIC)
        total += np.asarray(layer) * weight.get(kind, (1.0, 0.8, 0.6))[i]
    total *= 42.0 / float(total.std())
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


class Brush:
    """A float RGB image in progress, the light of its hour, and a random stream of its details."""

    def __init__(self, width: int, height: int, seed: int, hour: str) -> None:
        self.width, self.height = width, height
        self.aspect = width / height
        self.random = Random(seed).random
        self.hour, self.light = hour, LIGHTS[hour]
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
        self.image = np.zeros((3, height, width), np.float32)
        """Planes of red, green and blue: NumPy blends them several times faster than pixels."""

    def between(self, low: float, high: float) -> float:
        """Draw a uniform number between two bounds."""
        return low + self.random() * (high - low)

    def choose(self, *options: T) -> T:
        """Draw one of several options."""
        return options[int(self.random() * len(options))]

    def lit(self, colour: str, haze: float = 0.0) -> Colour:
        """Return a colour under the light of the hour, with a share `haze` of haze."""
        air = mix(self.light.low, self.light.middle, 0.45)
        return mix(tinted(rgb(colour), self.light.tint), air, haze)

    def rows(self, top: float, bottom: float) -> slice:
        """Return the pixel rows between two heights."""
        last = min(self.height, math.ceil(bottom * self.height))
        return slice(max(0, int(top * self.height)), max(last, 0))

    def gradient(self, top: float, bottom: float, stops: Sequence[tuple[float, Colour]]) -> None:
        """Fill a band with a gradient; stops are (fraction of the band, colour)."""
        rows = self.rows(top, bottom)
        t = (self.y[rows, 0] - top) / max(bottom - top, 1e-6)
        where = [stop for stop, _ in stops]
        for channel in range(3):
            values = [colour[channel] for _, colour in stops]
            self.image[channel, rows] = np.interp(t, where, values)[:, None]

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Add a round glow; the radius is in image heights."""
        rows = self.rows(y - 2.3 * radius, y + 2.3 * radius)
        reach = 2.3 * radius / self.aspect
        left, right = (max(0, int(edge * self.width)) for edge in (x - reach, x + reach))
        gx = np.exp(-(((self.x[:, left:right] - x) * self.aspect / radius) ** 2))
        gy = np.exp(-(((self.y[rows] - y) / radius) ** 2))
        self.blend(rows, gy * (gx * strength), colour, slice(left, right))

    def blend(
        self, rows: slice, cover: np.ndarray, colour: Colour, columns: slice = slice(None)
    ) -> None:
        """Blend rows towards a colour; cover (rows, columns) from 0 to 1."""
        for plane, value in zip(self.image[:, rows, columns], colour, strict=True):
            plane += cover * (value - plane)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a disc with an antialiased edge."""
        rows = self.rows(y - radius * 1.1, y + radius * 1.1)
        away = np.hypot((self.x - x) * self.aspect, self.y[rows] - y)
        self.blend(rows, np.clip((radius - away) * self.height + 0.5, 0, 1), colour)

    def skyline(self, base: float, swing: float, detail: float, sharp: bool = False) -> np.ndarray:
        """Return a random hill line, (width,) float32: y of its upper edge; `sharp` makes peaks."""
        u = self.x[0] * self.aspect
        line, frequency, weight = np.zeros_like(u), self.between(0.9, 1.5), 1.0
        for _ in range(7 if sharp else 4):
            wave = u * frequency + self.random() * 7
            wave = 2 * np.abs(wave % 1.0 - 0.5) * 2 - 1 if sharp else np.sin(wave * math.pi)
            line += weight * wave
            frequency *= self.between(1.8, 2.3)
            weight *= detail
        return (base - swing * line).astype(np.float32)

    def ridge(self, line: np.ndarray, top: Colour, bottom: Colour, depth: float) -> None:
        """Fill below a line, from one colour to another over `depth`."""
        rows = self.rows(float(line.min()) - 0.01, 1.0)
        below = self.y[rows] - line[None, :]
        cover = np.clip(below * self.height + 0.5, 0, 1)
        t = np.clip(below / depth, 0, 1)
        for plane, a, b in zip(self.image[:, rows], top, bottom, strict=True):
            plane += cover * (a + t * (b - a) - plane)

    def clouds(self, bottom: float, colour: Colour, amount: float) -> None:
        """Paint soft clouds above a height; amount from 0 (clear) to 1 (covered)."""
        rows = self.rows(0, bottom)
        n = rows.stop - rows.start
        left, top = self.random() * 250, self.random() * 330
        box = (left, top, left + 150 * self.aspect, top + 170)
        patch = noise_tile("soft").resize((self.width, n), Image.Resampling.BICUBIC, box=box)
        level = np.asarray(patch, np.float32) / 255
        low = 0.66 - 0.3 * amount
        cover = np.clip((level - low) / 0.26, 0, 1)
        cover *= cover * (3 - 2 * cover)
        cover *= np.clip((bottom - self.y[rows]) / (0.45 * bottom), 0, 1) * 0.9
        shade = 1.0 - 0.1 * np.clip((level - low - 0.1) / 0.3, 0, 1)
        for plane, value in zip(self.image[:, rows], colour, strict=True):
            plane += cover * (value * shade - plane)

    def plane(self, kind: str, top: float, near: float = 5.0, bottom: float = 1.0) -> np.ndarray:
        """Return noise on a ground plane in perspective: (rows, width) float32 around 0.

        `near` is the scale of the texture at the lower edge, relative to the horizon.
        """
        rows = self.rows(top, bottom)
        n = max(1, rows.stop - rows.start)
        h = (near - 1) / n
        a, half = TILE / self.width, TILE / 2
        if self.random() < 0.5:
            a = -a
        coefficients = (a, half * h, half - a * self.width / 2, 0, -TILE / n, TILE, 0, h)
        seen = noise_tile(kind).transform(
            (self.width, n), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
        )
        return np.asarray(seen, np.float32) / 127.5 - 1

    def texture(
        self, kind: str, top: float, strength: float, near: float = 5.0, bottom: float = 1.0
    ) -> None:
        """Lighten and darken the ground by a texture in perspective."""
        rows = self.rows(top, bottom)
        if rows.stop <= rows.start:
            return
        fade = np.clip((self.y[rows] - top) / (0.5 * (bottom - top)), 0.15, 1)
        self.image[:, rows] *= 1 + strength * fade * self.plane(kind, top, near, bottom)

    def sky(self, horizon: float, cloudy: float = 0.5) -> float:
        """Paint the sky with sun and clouds; return x of the sun."""
        light, hour = self.light, self.hour
        zenith = mix(self.choose(*light.zenith), light.middle, self.between(0, 0.25))
        self.gradient(horizon, horizon + 0.12, [(0, light.low), (1, light.low)])
        self.gradient(0, horizon + 0.02, [(0, zenith), (0.58, light.middle), (1, light.low)])
        sun_x = self.between(0.08, 0.92)
        sun_y = horizon * (1 - self.between(*light.sun_height))
        warm = hour in ("sunset", "dusk", "morning")
        if hour != "night":
            self.glow(sun_x, sun_y, 0.5 if warm else 0.34, light.sun, 0.55 if warm else 0.4)
            self.glow(sun_x, sun_y, 0.13, light.sun, 0.75 if hour != "overcast" else 0.2)
            if warm and sun_y < horizon:
                self.disc(sun_x, sun_y, 0.034, lighter(light.sun, 0.5))
        amount = 0.95 if hour == "overcast" else self.between(0.1, 0.75) * cloudy * 2
        if amount > 0.12:
            self.clouds(horizon, light.cloud, min(1.0, amount))
        return sun_x

    def water(self, top: float, bottom: float, far: Colour, near: Colour, shine: Colour) -> None:
        """Paint water in perspective: a gradient, waves, and light on their crests."""
        self.gradient(top, bottom, [(0, far), (0.12, mix(far, near, 0.35)), (1, near)])
        rows = self.rows(top, bottom)
        waves = self.plane("ripple", top, 6.0, bottom)
        self.image[:, rows] *= 1 + 0.13 * waves
        self.blend(rows, np.clip((waves - 0.34) * 1.2, 0, 0.375), shine)

    def glitter(self, x: float, top: float, bottom: float, colour: Colour, amount: float) -> None:
        """Paint the sun's path on water."""
        rows = self.rows(top, bottom)
        depth = (self.y[rows] - top) / max(bottom - top, 1e-6)
        path = np.exp(-(((self.x - x) * self.aspect / (0.05 + 0.16 * depth)) ** 2))
        spark = np.clip(self.plane("ripple", top, 4.0, bottom) * 1.6 + 0.35, 0, 1)
        self.blend(rows, path * spark * amount, colour)

    def under(self, edge: np.ndarray, colour: Colour, alpha: float, soft: float) -> None:
        """Paint a soft band of colour just below a line, such as foam or a shadow."""
        rows = self.rows(float(edge.min()) - soft, float(edge.max()) + 3 * soft)
        away = (self.y[rows] - edge[None, :]) / soft
        self.blend(rows, np.exp(-(away**2)) * alpha, colour)

    @contextmanager
    def pen(self, top: float = 0.0, bottom: float = 1.0) -> Iterator[Pen]:
        """Draw shapes with smooth edges between two heights, at twice the resolution."""
        rows = self.rows(top, bottom)
        band = _pixels(self.image[:, rows])
        size = (self.width * 2, 2 * (rows.stop - rows.start))
        sheet = band.resize(size, Image.Resampling.NEAREST)
        yield Pen(sheet, self.width * 2, self.height * 2, rows.start * 2)
        drawn = np.asarray(sheet.reduce(2)).transpose(2, 0, 1)
        np.multiply(drawn, np.float32(1 / 255), out=self.image[:, rows])

    def finish(self) -> Image.Image:
        """Return the image, slightly darker in its corners."""
        away = ((self.x - 0.5) ** 2 + (self.y - 0.46) ** 2) * 0.32
        self.image *= 1 - away
        return _pixels(self.image)


def _pixels(planes: np.ndarray) -> Image.Image:
    """Convert planes, (3, h, w) from 0 to 1, to an image."""
    bands = []
    for plane in planes:
        level = plane * np.float32(255)
        np.clip(level, 0, 255, out=level)
        level += np.float32(0.5)
        bands.append(Image.fromarray(level.astype(np.uint8)))
    return Image.merge("RGB", bands)


class Pen:
    """Draw shapes, in fractions of the image, on a part of it."""

    def __init__(self, sheet: Image.Image, width: int, height: int, offset: int) -> None:
        self._draw = ImageDraw.Draw(sheet, "RGBA")
        self._width, self._height, self._offset = width, height, offset

    def _points(self, points: Sequence[Point]) -> list[Point]:
        w, h, down = self._width, self._height, self._offset
        return [(x * w, y * h - down) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: float = 1.0) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._points(points), fill=_ink(colour, alpha))

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, alpha: float = 1.0
    ) -> None:
        """Fill a rectangle."""
        (a, b), (c, d) = self._points([(x0, y0), (x1, y1)])
        if c > a and d > b:
            self._draw.rectangle((a, b, max(a, c - 1), max(b, d - 1)), fill=_ink(colour, alpha))

    def rounded(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float
    ) -> None:
        """Fill a rectangle with round corners; the radius is in image heights."""
        (a, b), (c, d) = self._points([(x0, y0), (x1, y1)])
        if c > a + 1 and d > b + 1:
            self._draw.rounded_rectangle((a, b, c, d), radius * self._height, fill=_ink(colour))

    def blob(
        self, x: float, y: float, radius: float, colour: Colour, alpha: float = 1.0,
        flat: float = 1.0,
    ) -> None:  # fmt: skip
        """Fill an ellipse; the radius is in image heights, `flat` scales its height."""
        (cx, cy), r = self._points([(x, y)])[0], radius * self._height
        self._draw.ellipse((cx - r, cy - r * flat, cx + r, cy + r * flat), fill=_ink(colour, alpha))

    def line(
        self, points: Sequence[Point], colour: Colour, width: float, alpha: float = 1.0
    ) -> None:
        """Draw a line; the width is in image heights."""
        thick = max(1, round(width * self._height))
        self._draw.line(self._points(points), fill=_ink(colour, alpha), width=thick, joint="curve")


Painter = Callable[[Brush, float], None]
"""Function that paints a backdrop with a brush, up to a horizon."""
