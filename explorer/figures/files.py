"""Figures for whoever asks over the web: read with care, drawn, and handed over as files."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sieve.explorer.figures.drawing import KINDS, FigureFile, draw_figure
from sieve.explorer.figures.latex import latex_block
from sieve.explorer.figures.recipe import Recipe, write_recipe

if TYPE_CHECKING:
    from sieve.explorer.figures.content import Encode
    from sieve.model.engine import Engine

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
    """A file to hand over."""

    name: str
    mime: str
    data: bytes


def recipe_for(engine: Engine, value: Any) -> Recipe:
    """Read a recipe for the collection that is open.

    Parameters
    ----------
    engine : Engine
    value : object
        What JSON gave.

    Raises
    ------
    ValueError
        In one line: a fault of the recipe, or another collection's.
    """
    recipe = Recipe.from_json(value)
    collection = engine.collection
    known = {"", collection.name, collection.path.name}
    if not recipe.collection_sha256 and Path(recipe.collection).name not in known:
        raise ValueError(
            f"the recipe is for collection {recipe.collection[:60]!r}; here {collection.name!r} "
            "is open"
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
    """Make one of the files of a figure: itself, its LaTeX block or its full recipe.

    Parameters
    ----------
    engine : Engine
    recipe : Recipe
    kind : str
        pdf, svg, png, tex or json.
    encode : callable, optional
        Makes a query, in place of the engine's own method.
    originals : bool
        As for `draw_figure`.

    Raises
    ------
    ValueError
        In one line.
    """
    if kind not in MIME:
        raise ValueError(f"kind must be one of {', '.join(MIME)}; got {str(kind)[:20]!r}")
    # A LaTeX block and a recipe are of a figure that can be drawn.
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
    """Choose where figures are kept, below the folder that the web server may hand out."""
    return uploads / "figures"


def keep_file(download: Download, folder: Path) -> Path:
    """Write a file where the web server may hand it out; only the newest of the last hour stay.

    Parameters
    ----------
    download : Download
    folder : Path
        Of these files alone.
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
