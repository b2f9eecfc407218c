"""The LaTeX `figure` block of a drawn figure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sieve.explorer.figures.recipe import MARKS

if TYPE_CHECKING:
    from sieve.explorer.figures.content import Content
    from sieve.explorer.figures.recipe import Recipe

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NARROW_CM = 9.0
_MAX_DESCRIBED = 6


def latex_escape(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def latex_block(recipe: Recipe, rows: tuple[Content, ...], file: str) -> str:
    """Return the `figure` block that includes a figure file.

    Figures wider than a column use `figure*`. The width is that of the recipe, so that the font
    size is unchanged.

    Parameters
    ----------
    recipe : Recipe
    rows : tuple of Content
    file : str
        Name of the figure file; characters that are special in LaTeX are replaced by dashes.
    """
    star = "*" if recipe.width_cm > _NARROW_CM else ""
    name = _UNSAFE.sub("-", file)
    caption = latex_escape(recipe.caption) if recipe.caption else _default_caption(recipe, rows)
    return "\n".join(
        (
            f"% Sieve {recipe.version}; collection {recipe.collection_sha256[:12]}, "
            f"checkpoint {recipe.checkpoint[:12]}",
            rf"\begin{{figure{star}}}",
            r"  \centering",
            rf"  \includegraphics[width={recipe.width_cm:g}cm]{{{name}}}",
            rf"  \caption{{{caption}}}",
            rf"  \label{{{recipe.label}}}",
            rf"\end{{figure{star}}}",
            "",
        )
    )


def _default_caption(recipe: Recipe, rows: tuple[Content, ...]) -> str:
    """Describe the figure, for a recipe without a caption."""
    descriptions = [_describe(row) for row in rows[:_MAX_DESCRIBED]]
    if len(rows) > _MAX_DESCRIBED:
        descriptions.append(f"and {len(rows) - _MAX_DESCRIBED} more rows")
    parts = [f"Top {recipe.columns} images of each row: {'; '.join(descriptions)}."]
    if MARKS[0] in recipe.marks and any(tile.violates for row in rows for tile in row.tiles):
        parts.append("Dashed frames: labels or captions name what is excluded.")
    return " ".join(parts)


def _describe(row: Content) -> str:
    title = f"``{latex_escape(row.title)}''" if row.title else "images like the one shown"
    return f"{title} without ``{latex_escape(row.without)}''" if row.without else title
