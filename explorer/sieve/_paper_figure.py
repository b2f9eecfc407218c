"""Paper figures of the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sieve.explorer.cli.export import output_format, write_file
from sieve.explorer.errors import python_errors
from sieve.explorer.figures import Recipe, read_recipe
from sieve.explorer.figures.drawing import KINDS, draw_figure, latex_block, recipe_for
from sieve.explorer.json_validation import check_choice

if TYPE_CHECKING:
    from sieve.model.engine import SearchEngine

_CSS_PIXELS_PER_CM = 96 / 2.54


@dataclass(frozen=True)
class PaperFigure:
    """A drawn figure; `bytes(figure)` is the file.

    Examples
    --------
    >>> figure = engine.figure(rows=["a dog", "a cat"], kind="pdf")
    >>> figure.save("animals.pdf")
    """

    data: bytes
    """Content of the file."""
    kind: str
    """pdf, svg or png."""
    recipe: dict[str, Any]
    """Complete recipe, with the hashes of the collection and the checkpoint: drawing it again gives
    the same bytes."""
    latex: str
    """LaTeX block that includes the figure as `figure.KIND`."""
    notes: tuple[str, ...]
    """Warnings, such as images that are too small for print."""
    width_cm: float
    """Width in print, in cm."""
    height_cm: float
    """Height in print, in cm."""

    @python_errors
    def save(self, path: str | Path) -> Path:
        """Write the file, with the extension of its kind; overwrite it if it exists.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        ValueError
            If the path has another extension.
        """
        target = Path(path)
        if output_format(target, KINDS, "a figure") != self.kind:
            raise ValueError(f"{target}: the figure is a .{self.kind} file; draw it with out=PATH")
        write_file(target, self.data)
        return target

    def __bytes__(self) -> bytes:
        return self.data

    def __repr__(self) -> str:
        size = f"{self.width_cm:g} × {self.height_cm:g} cm, {len(self.data) / 1000:,.0f} kB"
        return "; ".join([f"PaperFigure({self.kind}, {size})", *self.notes])

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show a png or svg figure in a notebook in its size in print."""
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self.kind == "png":
            bundle["image/png"] = self.data
        elif self.kind == "svg":
            bundle["image/svg+xml"] = self.data.decode()
        return bundle, {"image/png": {"width": round(self.width_cm * _CSS_PIXELS_PER_CM)}}


def draw_recipe(
    engine: SearchEngine,
    recipe: Mapping[str, Any] | str | Path | None,
    out: str | Path | None,
    kind: str,
    fields: Mapping[str, Any],
) -> PaperFigure:
    """Draw a figure with an open engine; see `Engine.figure`."""
    read = parse_recipe_fields(recipe, fields)
    return draw(engine, recipe_for(engine, read.as_json()), out, kind)


def draw(engine: SearchEngine, recipe: Recipe, out: str | Path | None, kind: str) -> PaperFigure:
    """Draw a recipe, and write it to `out` if that is given."""
    suffix = output_format(Path(out), KINDS, "a figure") if out else ""
    kind = check_choice("kind", kind or suffix or "png", KINDS)
    if suffix and suffix != kind:
        raise ValueError(f"{out} is a .{suffix} file, but kind is {kind!r}; leave out kind")
    drawn = draw_figure(engine, recipe, kind)
    if out:
        write_file(Path(out), drawn.data)
    block = latex_block(drawn.recipe, drawn.content, Path(out or f"figure.{kind}").name)
    size = drawn.width_cm, drawn.height_cm
    return PaperFigure(drawn.data, kind, drawn.recipe.as_json(), block, drawn.notes, *size)


def parse_recipe_fields(
    recipe: Mapping[str, Any] | str | Path | None, fields: Mapping[str, Any]
) -> Recipe:
    """Read a recipe, with some fields replaced; a row may be a text or a dimension."""
    if isinstance(recipe, str | Path):
        recipe = read_recipe(Path(recipe)).as_json()
    given = {**(recipe or {}), **fields}
    if isinstance(given.get("rows"), list | tuple):
        given["rows"] = [_row(row) for row in given["rows"]]
    return Recipe.from_json(given)


def _row(row: Any) -> Any:
    if isinstance(row, str):
        return {"query": row}
    return {"dimension": row} if isinstance(row, int) and not isinstance(row, bool) else row
