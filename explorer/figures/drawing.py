"""Draw paper figures with Matplotlib, deterministically, and serve them as files.

Text stays text, and images have the resolution of the print. Matplotlib's settings are global to
the process, so a lock allows one drawing at a time.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from sieve.data_prep.images import open_original, open_thumbnail
from sieve.explorer.figures import CM_PER_INCH, MARKS, Recipe, write_recipe
from sieve.explorer.figures.content import (
    Content,
    Encode,
    complete_recipe,
    describe_level,
    figure_content,
    keep_names,
)
from sieve.explorer.figures.fonts import FontMetrics
from sieve.explorer.figures.layout import (
    INK,
    POINTS_PER_INCH,
    Layout,
    Picture,
    lay_out,
)
from sieve.explorer.json_validation import check_choice
from sieve.model.engine import SearchEngine

Kind = Literal["pdf", "svg", "png", "tex", "json"]
KINDS = ("pdf", "svg", "png")
MIME: dict[str, str] = {
    "pdf": "application/pdf",
    "svg": "image/svg+xml",
    "png": "image/png",
    "tex": "text/x-tex",
    "json": "application/json",
}
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
_COMMANDS = {
    "\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum", "<": "textless",
    ">": "textgreater", "|": "textbar",
}  # fmt: skip
_ESCAPES = str.maketrans(
    {sign: f"\\{sign}" for sign in "{}$&#%_"}
    | {sign: f"\\{name}{{}}" for sign, name in _COMMANDS.items()}
    | {'"': r"{\char34}", "≥": r"$\geq$"}
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NARROW_CM = 9.0
_FADED = 0.3
"""Opacity of an image outside of a region."""
_MAX_NAME = 60
_MAX_DESCRIBED = 6
KEPT_SECONDS = 3600
KEPT_FILES = 100
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


def draw_figure(
    engine: SearchEngine,
    recipe: Recipe,
    kind: str,
    encode: Encode | None = None,
    *,
    originals: bool = True,
    dpi: int = DPI,
) -> FigureFile:
    """Draw a figure as pdf, svg or png; tex and json give the LaTeX block or the recipe of the PDF.

    `encode` replaces `engine.encode`. Without `originals`, images are drawn from thumbnails only.
    `dpi` is the resolution of images; the layout does not depend on it. Raises a ValueError for an
    unknown kind, an invalid row, or columns that do not fit.
    """
    check_choice("kind", kind, tuple(MIME))
    full = complete_recipe(engine, recipe)
    content = figure_content(engine, full, encode)
    full = keep_names(full, content)
    gone: set[int] = set()
    small: set[int] = set()

    def read(picture: Picture, size: tuple[int, int]) -> np.ndarray:
        collection, row = engine.collection, picture.row
        if originals:
            found = open_original(collection, row, max(size))
        else:
            found = open_thumbnail(collection, row)
        if found.is_thumbnail:
            gone.add(row)
        scales = [box / side for box, side in zip(size, found.image.size, strict=True)]
        is_whole = full.tiles == "whole"
        if (min(scales) if is_whole else max(scales)) > 1:
            small.add(row)
        where = _focus(picture.cells, found.image.size) if full.tiles == "focus" else (0.5, 0.5)
        cells = picture.cells if "regions" in full.marks else None
        image = found.image if cells is None else _fade(found.image, cells)
        if is_whole:
            fitted = ImageOps.pad(image, size, Image.Resampling.LANCZOS, color="white")
        else:
            fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS, centering=where)
        return np.asarray(fitted)

    with _drawing, style.context(["default", _SETTINGS]):  # ignores the user's settings
        face = FontMetrics(full.font, full.font_size)
        layout = lay_out(full, content, face, _shape(engine, full, content))
        figure = _compose(layout, face, read, dpi)
        data = _save(figure, kind if kind in KINDS else "pdf", dpi, engine, full, len(content))
    if kind == "tex":
        data = latex_block(full, content, f"{file_stem(content)}.pdf").encode()
    elif kind == "json":
        data = write_recipe(full).encode()
    height = layout.height * CM_PER_INCH
    notes = _notes(face.missing, len(gone) if dpi == DPI else 0, len(small) if dpi == DPI else 0)
    if height > PAGE_CM:
        notes.append(f"The figure is {height:.0f} cm high, more than a typical page.")
    if recipe.version not in ("", full.version):
        notes.append(_OTHER_VERSION.format(recipe.version, full.version))
    return FigureFile(data, full, content, tuple(notes), full.width_cm, round(height, 2))


def preview_figure(
    engine: SearchEngine, recipe: Recipe, encode: Encode | None = None
) -> FigureFile:
    """Draw a PNG preview from thumbnails at 150 dpi, with the layout of the print."""
    return draw_figure(engine, recipe, "png", encode, originals=False, dpi=PREVIEW_DPI)


def _compose(
    layout: Layout,
    face: FontMetrics,
    read: Callable[[Picture, tuple[int, int]], np.ndarray],
    dpi: int,
) -> Figure:
    """Create the Matplotlib figure; axes units are inches."""
    figure = Figure(figsize=(layout.width, layout.height), dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    for picture in layout.pictures:
        x, y, width, height, _, violates, _ = picture
        # Already at print resolution: no resampling.
        extent = (x, x + width, y + height, y)
        shown = AxesImage(axes, interpolation="none", extent=extent, origin="upper")
        shown.set_data(read(picture, (round(width * dpi), round(height * dpi))))
        shown.set_clip_on(False)
        axes.add_artist(shown)
        if violates:
            _frame(axes, x, y, width, height)
    for line in layout.words:
        _write(axes, face, *line)
    if layout.key is not None:
        _draw_legend(axes, layout.key, face)
    return figure


def _focus(cells: np.ndarray | None, size: tuple[int, int]) -> tuple[float, float]:
    """Return where to crop a square around a region, as `centering` of `ImageOps.fit`."""
    if cells is None or cells.max() <= 0:
        return 0.5, 0.5
    weights = np.maximum(cells, 0) ** 2
    at = (np.arange(len(cells)) + 0.5) / len(cells)
    centre = (weights.sum(0) @ at / weights.sum(), weights.sum(1) @ at / weights.sum())
    shown = [min(size) / side for side in size]
    x, y = (
        float(np.clip((middle - part / 2) / (1 - part), 0, 1)) if part < 1 else 0.5
        for middle, part in zip(centre, shown, strict=True)
    )
    return x, y


def _fade(image: Image.Image, cells: np.ndarray) -> Image.Image:
    """Fade an image to white outside of a region."""
    shares = np.clip(cells / max(float(cells.max()), 1e-6), 0, 1)
    kept = Image.fromarray((255 * (_FADED + (1 - _FADED) * shares)).astype(np.uint8))
    mask = kept.resize(image.size, Image.Resampling.BICUBIC)
    return Image.composite(image.convert("RGB"), Image.new("RGB", image.size, "white"), mask)


def _write(
    axes: Axes, face: FontMetrics, x: float, y: float, text: str, size: float, colour: str
) -> None:
    properties = face.properties(size)
    axes.text(x, y, text, color=colour, parse_math=False, va="baseline", fontproperties=properties)


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
        _write(axes, face, x + 2.1 * size, y + 0.9 * size, line, face.small, INK)


def _shape(engine: SearchEngine, recipe: Recipe, content: tuple[Content, ...]) -> float:
    """Return height / width of the tiles: below 1 if all uncropped images are wide."""
    rows = [tile.row for row in content for tile in row.tiles]
    if recipe.tiles != "whole" or not rows:
        return 1.0
    items = engine.collection.items.iloc[rows]
    return float(np.clip((items["height"] / items["width"]).max(), 0.25, 1))


def _save(
    figure: Figure, kind: str, dpi: int, engine: SearchEngine, recipe: Recipe, rows: int
) -> bytes:
    """Return the file's bytes, with the origin as metadata and without a date."""
    collection = engine.collection
    title = f"{collection.name}: {rows} × {recipe.columns} images"
    description = (
        f"collection {collection.name} {collection.sha256}, checkpoint {recipe.checkpoint}, "
        f"sieve {recipe.version}"
    )
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


def _notes(missing: set[str], n_gone: int, n_small: int) -> list[str]:
    """Return warnings for the user about missing characters and images of low resolution."""
    notes = []
    if missing:
        notes.append(
            f"No font has {''.join(sorted(missing)[:20])}: these characters are shown as boxes. "
            "Set font to an installed family that has them."
        )
    if n_gone:
        were = "original was" if n_gone == 1 else "originals were"
        notes.append(f"{n_gone} {were} not found; thumbnails are used instead.")
    if n_small:
        have = "image has" if n_small == 1 else "images have"
        notes.append(f"{n_small} {have} less than {DPI} dpi at this size.")
    return notes


def recipe_for(engine: SearchEngine, value: Any) -> Recipe:
    """Read a recipe from parsed JSON; raise a ValueError if it is for another collection."""
    recipe = Recipe.from_json(value)
    collection = engine.collection
    known = {"", collection.name, collection.path.name}
    if not recipe.collection_sha256 and Path(recipe.collection).name not in known:
        wanted = recipe.collection[:60]
        raise ValueError(f"recipe for collection {wanted!r}, but {collection.name!r} is open")
    return recipe


def figures_folder(uploads: Path) -> Path:
    """Return the folder of served figures, inside the folder that the web server may serve."""
    return uploads / "figures"


def keep_file(name: str, data: bytes, folder: Path) -> Path:
    """Save a file for the web server, and delete files of the folder that are old or too many."""
    oldest = time.time() - KEPT_SECONDS
    times = {old: old.stat().st_mtime for old in folder.glob("*/*")}
    for number, old in enumerate(sorted(times, key=lambda old: -times[old]), start=2):
        if times[old] < oldest or number > KEPT_FILES:
            old.unlink(missing_ok=True)
            with suppress(OSError):
                old.parent.rmdir()
    path = folder / hashlib.sha256(data).hexdigest() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def file_stem(rows: tuple[Content, ...]) -> str:
    """Return a file name for a figure, without a suffix: a-dog-without-a-beach."""
    first = max(rows[:2], key=lambda row: bool(row.without))
    title = " vs ".join(first.sets) if first.sets else first.title or "similar images"
    words = f"{title} without {first.without}" if first.without else title
    return _UNSAFE.sub("-", words.replace(".", " ")).strip("-")[:_MAX_NAME].strip("-") or "figure"


def latex_escape(text: str) -> str:
    """Escape a text for LaTeX."""
    return text.translate(_ESCAPES)


def latex_block(recipe: Recipe, rows: tuple[Content, ...], file: str) -> str:
    """Return the LaTeX `figure` block that includes a figure file.

    Figures wider than a column use `figure*`. The width is that of the recipe, so that the font
    size is unchanged. Characters of the file name that are special in LaTeX become dashes.
    """
    star = "*" if recipe.width_cm > _NARROW_CM else ""
    name = _UNSAFE.sub("-", file)
    caption = latex_escape(recipe.caption) if recipe.caption else _default_caption(recipe, rows)
    collection, checkpoint = recipe.collection_sha256[:12], recipe.checkpoint[:12]
    return f"""\
% Sieve {recipe.version}; collection {collection}, checkpoint {checkpoint}
\\begin{{figure{star}}}
  \\centering
  \\includegraphics[width={recipe.width_cm:g}cm]{{{name}}}
  \\caption{{{caption}}}
  \\label{{{recipe.label}}}
\\end{{figure{star}}}
"""


def _default_caption(recipe: Recipe, rows: tuple[Content, ...]) -> str:
    """Describe the figure, for a recipe without a caption."""
    descriptions = [_describe(row) for row in rows[:_MAX_DESCRIBED]]
    if len(rows) > _MAX_DESCRIBED:
        descriptions.append(f"and {len(rows) - _MAX_DESCRIBED} more rows")
    parts = [f"Top {recipe.columns} images of each row: {'; '.join(descriptions)}."]
    levels = [row.strictness for row in rows if row.strictness is not None]
    if limits := sorted({level.limit for level in levels if level.never}):
        percent = " or ".join(latex_escape(f"{limit:.0%}") for limit in limits)
        parts.append(
            "Never: images that show what is excluded with a probability of at least "
            f"{percent} are hidden."
        )
    if any(level.value and not level.never for level in levels):
        parts.append("Push away: what is excluded lowers an image's score.")
    if any(row.sets for row in rows):
        parts.append(
            "Percentages: images of each set in which the concept is active; the set that has it "
            "more often is first and is shown."
        )
    if any("name AUC" in line for row in rows for line in row.small):
        parts.append("Name AUC: how well the name predicts where the dimension is active.")
    if MARKS[0] in recipe.marks and any(tile.violates for row in rows for tile in row.tiles):
        parts.append("Dashed frames: labels or captions name what is excluded.")
    if "regions" in recipe.marks:
        parts.append("Images are faded where they do not carry the row's concept, by occlusion.")
    return " ".join(parts)


def _describe(row: Content) -> str:
    title = f"``{latex_escape(row.title)}''" if row.title else "images like the one shown"
    if row.sets:
        return f"{title} ({latex_escape(', '.join(row.small))})"
    level = row.strictness
    if level is None:
        return f"{title} without ``{latex_escape(row.without)}''" if row.without else title
    how = describe_level(level) or "push away"
    what = f" without ``{latex_escape(row.without)}''" if row.without else ", concepts off"
    return f"{title}{what} ({latex_escape(how)})"
