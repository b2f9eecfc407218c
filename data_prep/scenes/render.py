"""Draw a composed scene at any size: backdrop, shadows, reflections and sprites."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from sieve.data_prep.scenes import interiors, nature, settlements
from sieve.data_prep.scenes.canvas import LIGHTS, Brush, Painter
from sieve.data_prep.scenes.compose import PLACES, Placement, Scene, compose, describe, sprite

_PAINTERS: tuple[Painter, ...] = (
    nature.beach, nature.sea, nature.snow, nature.desert, nature.field, nature.mountain,
    nature.night, nature.forest, settlements.park, settlements.farm, settlements.garden,
    settlements.stadium, settlements.street, interiors.kitchen, interiors.workshop,
    interiors.restaurant, interiors.bedroom, interiors.living_room,
)  # fmt: skip
PAINTERS = {painter.__name__.replace("_", " "): painter for painter in _PAINTERS}
"""Painters of backdrops by place; each function is named after its place."""
MAX_SIZE = 8192


def render_scene(reference: str, size: int) -> Image.Image:
    """Draw the scene of a reference, `scene:SEED:INDEX`; raise ValueError if it is invalid."""
    return draw_scene(describe(reference), size)


def draw_scene(scene: Scene, size: int) -> Image.Image:
    """Draw a composed scene in RGB; its layout is the same at every size.

    `size` is the long side in pixels, 16 to 8192; ValueError is raised for any other.
    """
    if not 16 <= size <= MAX_SIZE:
        raise ValueError(f"size must be 16 to {MAX_SIZE} pixels; got {size}")
    width = size if scene.aspect >= 1 else round(size * scene.aspect)
    height = size if scene.aspect <= 1 else round(size / scene.aspect)
    brush = Brush(width, height, scene.backdrop_seed, scene.hour)
    PAINTERS[scene.place](brush, scene.horizon)
    # A counterfactual keeps the table of its original, even without anything on it.
    original = compose(scene.seed, scene.index) if scene.change else scene
    has_table = any(placed.zone == "table" for placed in original.placements)
    if has_table and scene.place in ("bedroom", "living room"):
        interiors.low_table(brush)
    picture = brush.finish()
    sun = 1 if scene.backdrop_seed % 2 else -1
    for placed in scene.placements:
        _place(picture, placed, scene, sun)
    return picture


def _place(picture: Image.Image, placed: Placement, scene: Scene, sun: int) -> None:
    unit = picture.height
    shape = (max(1, round(placed.width * unit)), max(1, round(placed.height * unit)))
    art = sprite(placed.sprite)
    box = (0, 0, art.width, art.height * placed.visible)
    art = art.resize(shape, Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)
    if placed.mirror:
        art = art.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    art = _under_light(art, placed, scene)
    left, top = round((placed.x - placed.width / 2) * unit), round(placed.y * unit) - shape[1]
    if placed.zone == "water":
        _reflect(picture, art, left, round(placed.y * unit))
    elif placed.zone == "wall":
        _wall_shadow(picture, art, left, top, unit)
    elif placed.zone in ("ground", "road", "table", "back"):
        strength = 0.42 if PLACES[scene.place].indoors else LIGHTS[scene.hour].shadow
        _contact(picture, placed, unit, strength, sun)
    picture.paste(art, (left, top), art)


def _under_light(art: Image.Image, placed: Placement, scene: Scene) -> Image.Image:
    """Tint a sprite by the light of the hour, and add haze to far objects."""
    light = LIGHTS[scene.hour]
    tint = np.asarray(light.tint, np.float32)
    if scene.hour == "night":
        tint = 0.25 + 0.75 * tint  # moonlight, so that colours remain recognisable
    veil = 0.0
    if not PLACES[scene.place].indoors and placed.zone in ("back", "water", "ground", "road"):
        depth = (placed.y - scene.horizon) / (1 - scene.horizon)
        veil = max(0.0, 0.14 * (1 - depth / 0.45))
    if veil < 0.01 and np.all(np.abs(tint - 1) < 0.01):
        return art
    pixels, air = np.array(art, np.float32), 255 * np.asarray(light.low, np.float32)
    pixels[..., :3] = pixels[..., :3] * tint * (1 - veil) + air * veil
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")


@lru_cache(maxsize=1)
def _soft_ellipse() -> Image.Image:
    """Return the mask of a contact shadow: dark at the centre, fading outwards."""
    x, y = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 48))
    away = np.hypot(x, y)
    return Image.fromarray((255 * np.clip(1 - away, 0, 1) ** 1.15).astype(np.uint8))


@lru_cache(maxsize=16)
def _fainter(share: float) -> list[int]:
    return [round(value * share) for value in range(256)]


def _contact(picture: Image.Image, placed: Placement, unit: int, strength: float, sun: int) -> None:
    wide = max(4, round(placed.width * 1.22 * unit))
    high = max(3, round(min(0.2 * placed.width, 0.11) * unit))
    mask = _soft_ellipse().resize((wide, high), Image.Resampling.BILINEAR)
    mask = mask.point(_fainter(min(1.0, 1.75 * strength)))
    x = round((placed.x + sun * 0.035 * placed.width) * unit) - wide // 2
    y = round((placed.y - 0.004) * unit) - round(high * 0.55)
    picture.paste((18, 20, 38), (x, y), mask)


def _wall_shadow(picture: Image.Image, art: Image.Image, left: int, top: int, unit: int) -> None:
    small = (max(2, art.width // 4), max(2, art.height // 4))
    blurred = art.getchannel("A").resize(small, Image.Resampling.BOX)
    mask = blurred.resize(art.size, Image.Resampling.BICUBIC).point(_fainter(0.25))
    shift = max(1, round(0.012 * unit))
    picture.paste((30, 24, 30), (left + shift, top + shift), mask)


def _reflect(picture: Image.Image, art: Image.Image, left: int, y: int) -> None:
    """Draw a faint, rippled mirror image on the water."""
    depth = max(2, round(art.height * 0.42))
    mirrored = art.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirrored = mirrored.resize((art.width, depth), Image.Resampling.BILINEAR)
    pixels = np.asarray(mirrored).copy()
    t = np.linspace(0, 1, depth)
    sway = np.sin(t * 22) * 0.012 * art.width * (0.3 + t)
    columns = np.arange(art.width)[None, :] + np.round(sway).astype(int)[:, None]
    pixels = np.take_along_axis(pixels, np.clip(columns, 0, art.width - 1)[..., None], axis=1)
    fade = (0.42 * (1 - t) ** 1.3 * (0.8 + 0.2 * np.sin(t * 40)))[:, None]
    mask = Image.fromarray((pixels[..., 3] * fade).astype(np.uint8))
    picture.paste(Image.fromarray(pixels[..., :3]), (left, y - 1), mask)
