"""What a figure's rows show: the engine is asked, and its answers become labels and tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sieve.explorer.figures.recipe import Recipe, Row
from sieve.model.words.nouns import benchmark_nouns, mentions

if TYPE_CHECKING:
    from sieve.model.engine import EncodedQuery, Engine

Encode = Callable[[str, str, str], "EncodedQuery"]
"""Makes a query of a text, what it goes without, and an item's id."""

_NAMED = 4
"""Names of off dimensions that a label gives; the others are counted."""


class Tile(NamedTuple):
    """One image of a row."""

    row: int
    """Of the collection."""
    score: float
    caption: str
    violates: bool
    """Whether labels or captions name what its row, or a row with the same A, excludes."""


class Content(NamedTuple):
    """One row of a figure."""

    title: str
    """What is asked, or a dimension's name."""
    without: str
    """What is excluded, in words, or nothing."""
    small: tuple[str, ...]
    """Names of dimensions, and how strictly they count."""
    image: int | None
    """Row of the item that is searched by."""
    tiles: tuple[Tile, ...]
    dimensions: tuple[int, ...] = ()
    """Those that are named."""


def sieve_version() -> str:
    """Version of Sieve; `unknown` where it runs without being installed."""
    try:
        return version("sieve-explorer")
    except PackageNotFoundError:
        return "unknown"


def complete_recipe(engine: Engine, recipe: Recipe) -> Recipe:
    """Add what a short recipe leaves open: hashes of what is open, people's names, the version.

    Raises
    ------
    ValueError
        If the recipe is of another collection or checkpoint than the engine's.
    """
    collection, checkpoint = engine.collection, engine.checkpoint
    if not collection.sha256.startswith(recipe.collection_sha256):
        raise ValueError(
            f"the recipe was made from a collection with hash {recipe.collection_sha256[:12]}, but "
            f"{collection.name} has {collection.sha256[:12]}; name that collection, or take "
            "collection_sha256 out of the recipe"
        )
    if not checkpoint.sha256.startswith(recipe.checkpoint):
        raise ValueError(
            f"the recipe was made with checkpoint {recipe.checkpoint[:12]}, but "
            f"{checkpoint.path.name} is {checkpoint.sha256[:12]}; open that one, or take "
            "checkpoint out of the recipe"
        )
    names = recipe.names
    if names is None:
        # A full recipe without names is of a time when there were none.
        names = {} if recipe.version else dict(engine.renamed())
    return replace(
        recipe,
        names=names,
        collection=recipe.collection or collection.name,
        collection_sha256=collection.sha256,
        checkpoint=checkpoint.sha256,
        version=sieve_version(),
    )


def keep_names(recipe: Recipe, content: Iterable[Content]) -> Recipe:
    """Keep in a complete recipe only the names that its figure uses."""
    named = {dimension for row in content for dimension in row.dimensions}
    used = {j: name for j, name in (recipe.names or {}).items() if j in named}
    return replace(recipe, names=used)


def figure_content(
    engine: Engine, recipe: Recipe, encode: Encode | None = None
) -> tuple[Content, ...]:
    """Find what each row of a recipe shows.

    Parameters
    ----------
    engine : Engine
    recipe : Recipe
        A complete one: its names are those of the figure.
    encode : callable, optional
        By default the engine's own; a server passes one that shares the model.

    Raises
    ------
    ValueError
        In one line that names the row.
    """
    given = recipe.names or {}

    def names(dimension: int) -> str:
        return given.get(dimension) or engine.checkpoint.name_of(dimension)

    queries: dict[int, EncodedQuery] = {}
    for number, row in enumerate(recipe.rows, 1):
        if row.dimension is None:
            with _row_named(number):
                queries[number] = (encode or engine.encode)(row.query, row.without, row.image)
    found = []
    for number, row in enumerate(recipe.rows, 1):
        with _row_named(number):
            if row.dimension is None:
                query = queries[number]
                excluded = _excluded(query, queries.values())
                found.append(_searched(engine, row, query, excluded, recipe.columns, names))
            else:
                found.append(_dimension(engine, row.dimension, recipe.columns, names))
    return tuple(found)


@contextmanager
def _row_named(number: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from None


def _excluded(query: EncodedQuery, others: Iterable[EncodedQuery]) -> tuple[str, ...]:
    """Return the texts by which a row's violations are judged.

    A row that excludes nothing is judged by what the rows with the same A exclude: only then can
    a reader compare how many of its images violate the exclusion.
    """
    if query.excluded:
        return query.excluded
    same = (other for other in others if (other.text, other.item) == (query.text, query.item))
    return tuple(dict.fromkeys(phrase for other in same for phrase in other.excluded))


def _searched(
    engine: Engine,
    row: Row,
    query: EncodedQuery,
    excluded: tuple[str, ...],
    columns: int,
    names: Callable[[int], str],
) -> Content:
    outcome = engine.search(query, row.off, row.push, row.never, columns)
    tiles = tuple(
        Tile(
            result.row,
            result.score,
            result.captions[0] if result.captions else ", ".join(result.labels),
            _violates(excluded, result.captions, result.labels),
        )
        for result in outcome.results
    )
    pushed = [part.dimension for part in sorted(outcome.off, key=lambda part: -part.weight)]
    off = _names(map(names, pushed))
    strict = "strictness never" if row.never else _strictness(row.push)
    small = (f"off: {off}", *([strict] if strict else [])) if off else ()
    image = engine.row_of(query.item) if query.item else None
    return Content(
        "" if query.item else query.text, query.without, small, image, tiles, tuple(pushed)
    )


def _dimension(
    engine: Engine, dimension: int, columns: int, names: Callable[[int], str]
) -> Content:
    engine.check_dimension(dimension)
    rows, values = engine.image_codes.postings(dimension)
    items = engine.collection.items
    tiles = []
    for at in np.argsort(-values, kind="stable")[:columns]:
        captions = items["captions"].iloc[int(rows[at])]
        caption = str(captions[0]) if len(captions) else ""
        tiles.append(Tile(int(rows[at]), float(values[at]), caption, False))
    small = (f"dimension {dimension}",)
    return Content(names(dimension), "", small, None, tuple(tiles), (dimension,))


def _violates(
    excluded: tuple[str, ...], captions: tuple[str, ...], labels: tuple[str, ...]
) -> bool:
    return any(mentions(text, captions, labels, benchmark_nouns()) for text in excluded)


def _strictness(push: float) -> str:
    return f"strictness {f'{push:g}'.replace('0.', '.', 1)}" if push < 1 else ""


def _names(names: Iterable[str]) -> str:
    """Give the first few names by their first word: `beach ×6, kite, crab, 3 more`."""
    heads = Counter(name.split(" · ")[0] for name in names)
    shown = [
        head if count == 1 else f"{head} ×{count}" for head, count in list(heads.items())[:_NAMED]
    ]
    left = sum(list(heads.values())[_NAMED:])
    return ", ".join([*shown, *([f"{left} more"] if left else [])])
