"""Draw paper figures with Matplotlib, deterministically, and serve them as files.

Text stays text, and images have the resolution of the print. Matplotlib's settings are global to
the process, so a lock allows one drawing at a time.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from sieve.data_prep.images import Original, open_original, open_thumbnail
from sieve.explorer.figures.content import (
    Content,
    Encode,
    complete_recipe,
    figure_content,
    keep_names,
)
from sieve.explorer.figures.fonts import POINTS_PER_INCH, FontMetrics
from sieve.explorer.figures.latex import latex_block
from sieve.explorer.figures.layout import INK, Layout, lay_out
from sieve.explorer.figures.recipe import CM_PER_INCH, Recipe, write_recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sieve.model.engine import Engine

KINDS = ("pdf", "svg", "png")
DPI = 300
"""Resolution of images in all formats, and of PNG files."""
PREVIEW_DPI = 150
PAGE_CM = 24.0
"""Height of the text block of a typical page."""
FRAME = "#D55E00"
"""Vermilion of Okabe and Ito, distinct with any colour vision; frames are also dashed."""
_KEY = "shows what is excluded, by its labels or captions"
_OTHER_VERSION = "The recipe was made with Sieve {:.20}; with {} the figure may differ."
_SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType, so that text can be selected, searched and edited
    "svg.fonttype": "none",
    "svg.hashsalt": "sieve",
    "image.composite_image": False,
    "text.usetex": False,
    "text.hinting": "no_hinting",
    "path.simplify": False,
}
_drawing = Lock()


class FigureFile(NamedTuple):
    """A drawn figure."""

    data: bytes
    """Content of the file."""
    recipe: Recipe
    """Complete recipe; drawing it again gives the same bytes."""
    content: tuple[Content, ...]
    notes: tuple[str, ...]
    """Warnings for the user: missing characters, small images."""
    width_cm: float
    height_cm: float


class _Images(NamedTuple):
    """Access to the images, and the rows with problems found while drawing."""

    open: Callable[[int, int], Original]
    whole: bool
    small: set[int]
    """Rows whose image has fewer pixels than the print resolution."""
    gone: set[int]
    """Rows whose original file is missing."""


def draw_figure(
    engine: Engine,
    recipe: Recipe,
    kind: str,
    encode: Encode | None = None,
    *,
    originals: bool = True,
) -> FigureFile:
    """Draw a figure for print.

    Parameters
    ----------
    engine : Engine
    recipe : Recipe
    kind : str
        pdf, svg or png (300 dpi).
    encode : callable, optional
        Encodes a query, instead of `engine.encode`.
    originals : bool
        Use the original images, instead of thumbnails only.

    Raises
    ------
    ValueError
        For an unknown kind, an invalid row, or columns that do not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind[:20]!r}")
    return _draw(engine, recipe, kind, encode, DPI, originals)


def preview_figure(engine: Engine, recipe: Recipe, encode: Encode | None = None) -> FigureFile:
    """Draw a PNG preview from thumbnails at 150 dpi, with the layout of the print."""
    return _draw(engine, recipe, "png", encode, PREVIEW_DPI, originals=False)


def _draw(
    engine: Engine, recipe: Recipe, kind: str, encode: Encode | None, dpi: int, originals: bool
) -> FigureFile:
    full = complete_recipe(engine, recipe)
    content = figure_content(engine, full, encode)
    full = keep_names(full, content)

    def find(row: int, pixels: int) -> Original:
        if originals:
            return open_original(engine.collection, row, pixels)
        return open_thumbnail(engine.collection, row)

    images = _Images(find, full.tiles == "whole", set(), set())
    with _drawing, style.context(["default", _SETTINGS]):  # ignores the user's settings
        face = FontMetrics(full.font, full.font_size)
        layout = lay_out(full, content, face, _shape(engine, full, content))
        data = _save(_compose(layout, face, images, dpi), kind, dpi, engine, full)
    height = layout.height * CM_PER_INCH
    notes = _notes(face, images if dpi == DPI else None, height)
    if recipe.version not in ("", full.version):
        notes += (_OTHER_VERSION.format(recipe.version, full.version),)
    return FigureFile(data, full, content, notes, full.width_cm, round(height, 2))


def _compose(layout: Layout, face: FontMetrics, images: _Images, dpi: int) -> Figure:
    """Create the Matplotlib figure; axes units are inches."""
    figure = Figure(figsize=(layout.width, layout.height), dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    for picture in layout.pictures:
        size = (round(picture.width * dpi), round(picture.height * dpi))
        found = images.open(picture.row, max(size))
        fit = _fit(found.image, size, images.whole)
        if found.is_thumbnail:
            images.gone.add(picture.row)
        if fit.enlarged:
            images.small.add(picture.row)
        right, low = picture.x + picture.width, picture.y + picture.height
        # Already at print resolution: no resampling.
        shown = AxesImage(
            axes, interpolation="none", extent=(picture.x, right, low, picture.y), origin="upper"
        )
        shown.set_data(fit.pixels)
        shown.set_clip_on(False)
        axes.add_artist(shown)
        if picture.violates:
            _frame(axes, *picture[:4])
    for line in layout.words:
        axes.text(
            line.x, line.y, line.text, color=line.colour, parse_math=False, va="baseline",
            fontproperties=face.properties(line.size),
        )  # fmt: skip
    if layout.key is not None:
        _draw_legend(axes, layout.key, face)
    return figure


def _frame(axes: Axes, x: float, y: float, width: float, height: float, line: float = 1.6) -> None:
    """Draw a dashed frame on white inside the box, visible on any image and in greyscale."""
    inset = line / 2 / POINTS_PER_INCH
    box = ((x + inset, y + inset), width - 2 * inset, height - 2 * inset)
    plain = {"fill": False, "linewidth": line, "joinstyle": "miter", "clip_on": False}
    axes.add_patch(Rectangle(*box, edgecolor="white", **plain))
    axes.add_patch(
        Rectangle(*box, edgecolor=FRAME, linestyle=(0, (2.2, 1.1)), capstyle="butt", **plain)
    )


def _draw_legend(axes: Axes, place: tuple[float, float], face: FontMetrics) -> None:
    x, y = place
    size = face.small / POINTS_PER_INCH
    _frame(axes, x, y, 1.6 * size, 1.1 * size, 0.8)
    room = axes.get_xlim()[1] - x - 2.1 * size
    for line in face.wrap(_KEY, face.small, room, 1):
        axes.text(
            x + 2.1 * size, y + 0.9 * size, line, color=INK, parse_math=False, va="baseline",
            fontproperties=face.properties(face.small),
        )  # fmt: skip


class _Fitted(NamedTuple):
    """Pixels of an image scaled to its box."""

    pixels: np.ndarray
    """(height, width, 3) uint8"""
    enlarged: bool
    """Whether the image has fewer pixels than the box."""


def _fit(image: Image.Image, size: tuple[int, int], whole: bool) -> _Fitted:
    """Crop an image to a box, or pad it with white."""
    scales = [box / side for box, side in zip(size, image.size, strict=True)]
    scale = min(scales) if whole else max(scales)
    if whole:
        fitted = ImageOps.pad(image, size, Image.Resampling.LANCZOS, color="white")
    else:
        fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return _Fitted(np.asarray(fitted), scale > 1)


def _shape(engine: Engine, recipe: Recipe, content: tuple[Content, ...]) -> float:
    """Return height / width of the tiles: below 1 if all uncropped images are wide."""
    rows = [tile.row for row in content for tile in row.tiles]
    if recipe.tiles != "whole" or not rows:
        return 1.0
    items = engine.collection.items.iloc[rows]
    return float(np.clip((items["height"] / items["width"]).max(), 0.25, 1))


def _save(figure: Figure, kind: str, dpi: int, engine: Engine, recipe: Recipe) -> bytes:
    """Return the file's bytes, with the origin as metadata and without a date."""
    collection = engine.collection
    title = f"{collection.name}: {len(recipe.rows)} × {recipe.columns} images"
    origin = {
        "collection": f"{collection.name} {collection.sha256}",
        "checkpoint": recipe.checkpoint,
        "sieve": recipe.version,
    }
    description = ", ".join(f"{name} {value}" for name, value in origin.items())
    maker = f"Sieve {recipe.version}"
    metadata = {
        "pdf": {"Title": title, "Subject": description, "Keywords": description, "Creator": maker,
                "CreationDate": None},
        "svg": {"Title": title, "Description": description, "Keywords": [description],
                "Creator": [maker], "Date": None},
        "png": {"Title": title, "Description": description, "Software": maker},
    }  # fmt: skip
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=dpi, metadata=metadata[kind])
    return stream.getvalue()


def _notes(face: FontMetrics, images: _Images | None, height: float) -> tuple[str, ...]:
    """Return warnings for the user; `images` is None for a preview."""
    notes = []
    if face.missing:
        some = "".join(sorted(face.missing)[:20])
        notes.append(
            f"No font has {some}: these characters are shown as boxes. Set font to an installed "
            "family that has them."
        )
    if images and images.gone:
        notes.append(
            f"{_counted(images.gone, 'original was', 'originals were')} not found; thumbnails are "
            "used instead."
        )
    if images and images.small:
        notes.append(
            f"{_counted(images.small, 'image has', 'images have')} less than {DPI} dpi at this "
            "size."
        )
    if height > PAGE_CM:
        notes.append(f"The figure is {height:.0f} cm high, more than a typical page.")
    return tuple(notes)


def _counted(rows: set[int], one: str, many: str) -> str:
    return f"{len(rows)} {one if len(rows) == 1 else many}"


Kind = Literal["pdf", "svg", "png", "tex", "json"]
MIME: dict[str, str] = {
    "pdf": "application/pdf",
    "svg": "image/svg+xml",
    "png": "image/png",
    "tex": "text/x-tex",
    "json": "application/json",
}
KEPT_SECONDS = 3600
KEPT_FILES = 100
_NAME = "figure"


class Download(NamedTuple):
    """A file to download."""

    name: str
    mime: str
    data: bytes


def recipe_for(engine: Engine, value: Any) -> Recipe:
    """Read a recipe for the open collection.

    Parameters
    ----------
    engine : Engine
    value : object
        Parsed JSON.

    Raises
    ------
    ValueError
        If the recipe is invalid or for another collection.
    """
    recipe = Recipe.from_json(value)
    collection = engine.collection
    known = {"", collection.name, collection.path.name}
    if not recipe.collection_sha256 and Path(recipe.collection).name not in known:
        raise ValueError(
            f"the recipe is for collection {recipe.collection[:60]!r}, but {collection.name!r} is "
            "open"
        )
    return recipe


def figure_download(
    engine: Engine,
    recipe: Recipe,
    kind: str,
    encode: Encode | None = None,
    *,
    originals: bool = True,
) -> Download:
    """Make a file of a figure: the drawing, its LaTeX block or its complete recipe.

    Parameters
    ----------
    engine : Engine
    recipe : Recipe
    kind : str
        pdf, svg, png, tex or json.
    encode : callable, optional
        Encodes a query, instead of `engine.encode`.
    originals : bool
        As for `draw_figure`.

    Raises
    ------
    ValueError
        As for `draw_figure`.
    """
    if kind not in MIME:
        raise ValueError(f"kind must be one of {', '.join(MIME)}; got {str(kind)[:20]!r}")
    # LaTeX blocks and recipes are only made for figures that can be drawn.
    shape = kind if kind in KINDS else "pdf"
    drawn = draw_figure(engine, recipe, shape, encode, originals=originals)
    return Download(f"{_NAME}.{kind}", MIME[kind], _data(drawn, kind))


def _data(drawn: FigureFile, kind: str) -> bytes:
    if kind == "tex":
        return latex_block(drawn.recipe, drawn.content, f"{_NAME}.pdf").encode()
    if kind == "json":
        return write_recipe(drawn.recipe).encode()
    return drawn.data


def figures_folder(uploads: Path) -> Path:
    """Return the folder of served figures, inside the folder that the web server may serve."""
    return uploads / "figures"


def keep_file(download: Download, folder: Path) -> Path:
    """Save a file for the web server, and delete files that are old or too many.

    Parameters
    ----------
    download : Download
    folder : Path
        Used for these files only.
    """
    oldest = time.time() - KEPT_SECONDS
    times = {old: old.stat().st_mtime for old in folder.glob("*/*")}
    for number, old in enumerate(sorted(times, key=lambda old: -times[old]), start=2):
        if times[old] < oldest or number > KEPT_FILES:
            old.unlink(missing_ok=True)
            with suppress(OSError):
                old.parent.rmdir()
    path = folder / hashlib.sha256(download.data).hexdigest() / download.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(download.data)
    return path
