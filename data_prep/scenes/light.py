"""The hours of a scene: colours of its sky, and the light that falls on everything in it."""

from __future__ import annotations

from dataclasses import dataclass

from sieve.data_prep.scenes.brush import Brush, Colour, mix, rgb, tinted


@dataclass(frozen=True)
class Light:
    """What an hour looks like."""

    zenith: tuple[Colour, ...]
    """Colours that the upper sky is drawn from."""
    middle: Colour
    low: Colour
    sun: Colour
    cloud: Colour
    tint: Colour
    """Multiplies the ground and the objects."""
    sun_height: tuple[float, float]
    """Range of the sun's height, as a share of the way from the horizon up."""
    shadow: float
    """Strength of cast shadows."""


def _colours(*texts: str) -> tuple[Colour, ...]:
    return tuple(rgb(text) for text in texts)


LIGHTS: dict[str, Light] = {
    "day": Light(_colours("#2f86d8", "#3f95e0", "#2878c8", "#4aa3dd"), rgb("#8cc6f0"),
                 rgb("#dff1fb"), rgb("#fffbe6"), rgb("#ffffff"), (1.0, 1.0, 1.0),
                 (0.55, 0.9), 0.42),
    "morning": Light(_colours("#6fb3e6", "#7fb6dc", "#86a8e0"), rgb("#bfdcf0"), rgb("#fde9d2"),
                     rgb("#fff1c9"), rgb("#fff8f0"), (1.02, 0.985, 0.94), (0.12, 0.4), 0.36),
    "overcast": Light(_colours("#9fb0bf", "#a9b7c2"), rgb("#c8d2d9"), rgb("#e6eaec"),
                      rgb("#f4f6f6"), rgb("#f2f4f5"), (0.93, 0.95, 0.97), (0.6, 0.9), 0.26),
    "sunset": Light(_colours("#54619f", "#6a6db0", "#48659f"), rgb("#e9987f"), rgb("#ffd493"),
                    rgb("#fff0b8"), rgb("#ffc2a0"), (1.03, 0.91, 0.8), (0.04, 0.22), 0.42),
    "dusk": Light(_colours("#2a3163", "#38336b", "#263a66"), rgb("#7d6096"), rgb("#ee9f8c"),
                  rgb("#ffc9a0"), rgb("#b98aa6"), (0.84, 0.78, 0.9), (-0.12, 0.0), 0.3),
    "night": Light(_colours("#050a24", "#0a0d2c", "#071530"), rgb("#16265a"), rgb("#35508c"),
                   rgb("#9fb8ea"), rgb("#2a3a6c"), (0.56, 0.62, 0.86), (0.5, 0.9), 0.36),
}  # fmt: skip


def sky(brush: Brush, horizon: float, hour: str, cloudy: float = 0.5) -> float:
    """Paint the sky with its sun and clouds; returns x of the sun."""
    light = LIGHTS[hour]
    zenith = light.zenith[int(brush.rand.random() * len(light.zenith))]
    zenith = mix(zenith, light.middle, brush.between(0, 0.25))
    brush.gradient(horizon, horizon + 0.12, [(0, light.low), (1, light.low)])
    brush.gradient(0, horizon + 0.02, [(0, zenith), (0.58, light.middle), (1, light.low)])
    sun_x = brush.between(0.08, 0.92)
    sun_y = horizon * (1 - brush.between(*light.sun_height))
    warm = hour in ("sunset", "dusk", "morning")
    if hour != "night":
        brush.glow(sun_x, sun_y, 0.5 if warm else 0.34, light.sun, 0.55 if warm else 0.4)
        brush.glow(sun_x, sun_y, 0.13, light.sun, 0.75 if hour != "overcast" else 0.2)
        if warm and sun_y < horizon:
            brush.disc(sun_x, sun_y, 0.034, mix(light.sun, (1, 1, 1), 0.5))
    amount = 0.95 if hour == "overcast" else brush.between(0.1, 0.75) * cloudy * 2
    if amount > 0.12:
        brush.clouds(horizon, light.cloud, min(1.0, amount))
    return sun_x


def lit(colour: str, hour: str, haze: float = 0.0) -> Colour:
    """Put a colour under the light of an hour, hidden to a share `haze` by the air."""
    light = LIGHTS[hour]
    return mix(tinted(rgb(colour), light.tint), mix(light.low, light.middle, 0.45), haze)
