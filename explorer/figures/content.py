"""Content of a figure: search results and dimensions as labels and tiles of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from PIL import Image

from sieve.data_prep.images import open_image_file
from sieve.explorer.figures import Recipe, Row
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import checkpoint_folders
from sieve.model.engine import EncodedQuery, SearchEngine
from sieve.model.exclusion import DEFAULT_STRICTNESS, Strictness
from sieve.model.explain import encode_occluded
from sieve.model.set_difference import compare_sets, set_title, strongest_items
from sieve.model.words.nouns import benchmark_nouns, mentions

Encode = Callable[[str, str, str], "EncodedQuery"]
"""Encodes a text, an excluded text and an item id as a query."""

PUSHED_AWAY = "pushed away"
"""How a row excludes by default; said only where other rows exclude in another way."""
_MAX_NAMES = 4
"""Maximum number of names of off concepts in a label; the others are counted."""


class Tile(NamedTuple):
    """One image of a row."""

    row: int
    """Row of the collection."""
    score: float
    caption: str
    violates: bool
    """Whether labels or captions mention what its row, or a row with the same A, excludes."""
    cells: np.ndarray | None = None
    """Region of the row's concept: see `ConceptRegion.cells`; None if it is not located."""


class Content(NamedTuple):
    """One row of a figure."""

    title: str
    """Query, or name of a dimension."""
    without: str
    """Excluded text, or empty."""
    small: tuple[str, ...]
    """Lines in small print: names of dimensions, strictness."""
    image: int | None
    """Row of the query item, if the query is an image."""
    tiles: tuple[Tile, ...]
    dimensions: tuple[int, ...] = ()
    """Dimensions whose names are shown."""
    strictness: Strictness | None = None
    """How the row excludes; None if nothing is off."""
    sets: tuple[str, str] | None = None
    """The sets that the row's concept distinguishes."""
    concept: int | None = None
    """The row's concept, or the strongest one of its query."""
    number: int = 0
    """Index of the recipe's row that it belongs to."""


def recipe_checkpoint(sha256: str) -> str | None:
    """Return the path of the checkpoint with the hash in a recipe; None for the default one.

    Raises a FileNotFoundError if no installed checkpoint has that hash.
    """
    if not sha256:
        return None
    for folder in checkpoint_folders():
        try:
            checkpoint = Checkpoint.load(folder)
        except (ValueError, FileNotFoundError):
            continue
        if checkpoint.sha256.startswith(sha256):
            return str(folder)
    raise FileNotFoundError(
        f"there is no checkpoint with hash {sha256[:12]}; give its path as the checkpoint, or "
        'remove "checkpoint" from the recipe'
    )


def complete_recipe(engine: SearchEngine, recipe: Recipe) -> Recipe:
    """Add hashes, the version and the user's dimension names to a recipe that lacks them.

    Raises a ValueError if the recipe names another collection or checkpoint than the engine's.
    """
    collection, checkpoint = engine.collection, engine.checkpoint
    opened = {
        "collection": (recipe.collection_sha256, collection.name, collection.sha256),
        "checkpoint": (recipe.checkpoint, checkpoint.name, checkpoint.sha256),
    }
    for what, (wanted, name, sha256) in opened.items():
        if not sha256.startswith(wanted):
            raise ValueError(
                f"the recipe was made with {what} {wanted[:12]}, but {name} is {sha256[:12]}; open "
                "that one, or remove the hash from the recipe"
            )
    names = recipe.names
    if names is None:
        # Complete recipes of versions without user names have none.
        names = {} if recipe.version else dict(engine.renamed())
    return replace(
        recipe,
        rows=_expand_samples(engine, recipe.rows),
        names=names,
        collection=recipe.collection or collection.name,
        collection_sha256=collection.sha256,
        checkpoint=checkpoint.sha256,
        version=version("sieve-explorer"),
    )


def _expand_samples(engine: SearchEngine, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Replace each sample by its dimensions, in ascending order."""
    live = np.flatnonzero(np.diff(engine.image_codes.by_dimension.indptr))
    found: list[Row] = []
    for number, row in enumerate(rows, 1):
        if row.sample is None:
            found.append(row)
            continue
        if row.sample > len(live):
            raise ValueError(
                f"row {number}: a sample of {row.sample} dimensions is too large: "
                f"{len(live)} are live"
            )
        chosen = np.random.default_rng(row.seed).choice(live, row.sample, replace=False)
        found.append(Row(dimensions=tuple(sorted(chosen.tolist()))))
    return tuple(found)


def keep_names(recipe: Recipe, content: Iterable[Content]) -> Recipe:
    """Remove the names that the figure does not show from a complete recipe."""
    named = {dimension for row in content for dimension in row.dimensions}
    used = {j: name for j, name in (recipe.names or {}).items() if j in named}
    return replace(recipe, names=used)


def figure_content(
    engine: SearchEngine, recipe: Recipe, encode: Encode | None = None
) -> tuple[Content, ...]:
    """Return the content of each row of a complete recipe.

    A server passes `encode`, which limits concurrent encoding and opens no file, instead of
    `engine.encode`; regions are then refused. Raises a ValueError that names the row if one is
    invalid.
    """
    if recipe.needs_regions and encode is not None:
        raise ValueError(
            "locating regions takes too long here; draw the recipe with `sieve figure`"
        )
    user_names = recipe.names or {}
    encode = encode or partial(engine.encode, open_image=open_image_file)

    def names(dimension: int) -> str:
        return user_names.get(dimension) or engine.checkpoint.name_of(dimension)

    queries: dict[int, EncodedQuery] = {}
    for number, row in enumerate(recipe.rows, 1):
        if row.searches:
            with _row_errors(number):
                queries[number] = encode(row.query, row.without, row.image)
    content: list[Content] = []
    for number, row in enumerate(recipe.rows, 1):
        with _row_errors(number):
            if row.difference is not None:
                drawn = _difference_rows(engine, row, row.difference, recipe.columns, names)
            elif row.searches:
                query = queries[number]
                # A row without exclusion has the violations of the rows with the same A, so that
                # readers can compare their number.
                a = (query.text, query.item)
                same = [other for other in queries.values() if (other.text, other.item) == a]
                phrases = [phrase for other in same for phrase in other.excluded]
                excluded = query.excluded or tuple(dict.fromkeys(phrases))
                drawn = [
                    _search_row(engine, row, query, excluded, recipe.columns, names, user_names)
                ]
            else:
                listed = row.dimensions or (() if row.dimension is None else (row.dimension,))
                drawn = [_dimension_row(engine, j, recipe.columns, names) for j in listed]
        content += [one._replace(number=number - 1) for one in drawn]
    if len({row.strictness for row in content if row.strictness}) > 1:  # so that rows differ
        content = [
            row._replace(small=(*row.small, PUSHED_AWAY))
            if row.strictness == DEFAULT_STRICTNESS
            else row
            for row in content
        ]
    return (
        tuple(_located(engine, row) for row in content) if recipe.needs_regions else tuple(content)
    )


def _located(engine: SearchEngine, row: Content) -> Content:
    """Locate a row's concept in its images."""
    if row.concept is None:
        return row
    members = engine.concepts.members(row.concept).tolist()
    tiles = []
    for tile in row.tiles:
        item_id = engine.collection.items["id"].iloc[tile.row]
        with Image.open(engine.thumbnail(item_id)) as image:
            occluded = encode_occluded(engine, image)
        is_active = occluded.codes[[0]][:, members].sum() > 0
        tiles.append(tile._replace(cells=occluded.cells(members) if is_active else None))
    return row._replace(tiles=tuple(tiles))


@contextmanager
def _row_errors(number: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from None


def _search_row(
    engine: SearchEngine,
    row: Row,
    query: EncodedQuery,
    excluded: tuple[str, ...],
    columns: int,
    names: Callable[[int], str],
    user_names: Mapping[int, str],
) -> Content:
    outcome = engine.search(query, row.off, row.level, columns, where=row.where)
    tiles = []
    for found in outcome.results:
        caption = found.captions[0] if found.captions else ", ".join(found.labels)
        known = (found.captions, found.labels, benchmark_nouns())
        violates = any(mentions(text, *known) for text in excluded)
        tiles.append(Tile(found.row, found.score, caption, violates))
    pushed = [part.dimension for part in sorted(outcome.off, key=lambda part: -part.weight)]
    named = [  # the user's name of a single dimension takes precedence over its concept's
        members[0] if len(members) == 1 and members[0] in user_names else leading
        for leading, members in engine.concepts.grouped(pushed).items()
    ]
    small = (f"off: {_names(map(names, named))}", describe_level(row.level)) if pushed else ()
    image = engine.row_of(query.item) if query.item else None
    shown = tuple(filter(None, small))
    without = ", ".join(one.title for one in query.terms if one.excluded)
    level = row.level if pushed else None
    wanted = [part.dimension for part in query.dimensions if part.dimension not in pushed]
    concept = next(iter(engine.concepts.grouped(wanted)), None)
    return Content(
        query.title, without, shown, image, tuple(tiles), tuple(named), level, concept=concept
    )


def _difference_rows(
    engine: SearchEngine,
    row: Row,
    sets: tuple[str, str],
    columns: int,
    names: Callable[[int], str],
) -> list[Content]:
    """Return a row for each of the concepts that distinguish two sets most."""
    found = compare_sets(engine, *sets)
    left, right = set_title(sets[0]), set_title(sets[1]) or "all others"
    content = []
    for one in found.significant.head(row.concepts).to_dict("records"):
        is_left = one["left_rate"] > one["right_rate"]
        rates = (f"{left}: {one['left_rate']:.0%}", f"{right}: {one['right_rate']:.0%}")
        concept, rows = int(one["concept"]), found.left if is_left else found.right
        value = _values(engine, concept)
        tiles = [
            Tile(at, value[at], _caption(engine, at), False)
            for at in strongest_items(engine, concept, rows, columns)
        ]
        small = rates if is_left else rates[::-1]
        content.append(
            Content(
                names(concept),
                "",
                small,
                None,
                tuple(tiles),
                (concept,),
                sets=(left, right),
                concept=concept,
            )
        )
    if not content:
        raise ValueError(f"no concept distinguishes {left} from {right} significantly")
    return content


def _values(engine: SearchEngine, concept: int) -> list[float]:
    codes = engine.image_codes.by_row[:, engine.concepts.members(concept)]
    return np.asarray(codes.sum(1)).ravel().tolist()


def _caption(engine: SearchEngine, row: int) -> str:
    captions = engine.collection.items["captions"].iloc[row]
    return str(captions[0]) if len(captions) else ""


def _dimension_row(
    engine: SearchEngine, dimension: int, columns: int, names: Callable[[int], str]
) -> Content:
    engine.check_dimension(dimension)
    rows, values = engine.image_codes.postings(dimension)
    tiles = []
    for at in np.argsort(-values, kind="stable")[:columns]:
        row = int(rows[at])
        tiles.append(Tile(row, float(values[at]), _caption(engine, row), False))
    named = engine.checkpoint.names.get(dimension)
    tested = (
        named.auc if named and names(dimension) == engine.checkpoint.name_of(dimension) else None
    )
    small = (f"dimension {dimension}", *([] if tested is None else [f"name AUC {tested:.2f}"]))
    (concept,) = engine.concepts.grouped([dimension])
    return Content(names(dimension), "", small, None, tuple(tiles), (dimension,), concept=concept)


def describe_level(level: Strictness) -> str:
    """Describe how a row excludes; empty for the default, to push away."""
    if level.never:
        return f"never, P ≥ {level.limit:.0%}"
    if level.value == 0:
        return "ignored"
    return f"{PUSHED_AWAY} at {level.value:.0%}" if level.value < 1 else ""


def _names(names: Iterable[str]) -> str:
    """Join the first part of each name, with counts: `beach ×6, kite, crab, 3 more`."""
    heads = Counter(name.split(" · ")[0] for name in names)
    shown = [f"{head} ×{n}" if n > 1 else head for head, n in heads.items()][:_MAX_NAMES]
    left = sum(list(heads.values())[_MAX_NAMES:])
    return ", ".join([*shown, f"{left} more"] if left else shown)
