"""HTTP API, also for `gradio_client` and MCP: `/encode`, `/search`, `/dimension` and others."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api
from gradio.utils import get_upload_folder

from sieve.explorer.concurrency import (
    FIGURE_CONCURRENCY,
    MAX_RESPONSE_BYTES,
    MODEL_CONCURRENCY,
)
from sieve.explorer.errors import one_line
from sieve.explorer.figures import drawing
from sieve.explorer.json_validation import (
    check_text,
    read_off,
    read_strictness,
    read_whole,
    short_repr,
)
from sieve.explorer.serialize import (
    difference_json,
    facets_report,
    page_json,
    query_json,
    search_report,
)
from sieve.explorer.tabs.search import SearchHandlers
from sieve.explorer.view_state import MAX_TEXT_CHARACTERS
from sieve.model.encoded_query import EncodedQuery
from sieve.model.set_difference import compare_sets

P = ParamSpec("P")
R = TypeVar("R")


def add_api(
    handlers: SearchHandlers, find_regions: Callable[[str], dict[str, Any]], *, mcp: bool = False
) -> None:
    """Add the endpoints; call inside a `gr.Blocks`.

    `find_regions` returns the regions of an item by its ID. With `mcp`, the listed endpoints are
    also tools of the Model Context Protocol. These must be read-only, so `/figure` is not listed
    then; public handlers leave it out, since it writes files, and `/regions`, which is slow.
    """
    engine = handlers.engine

    def encoded(text: str, without: str) -> EncodedQuery:
        for name, value in {"text": text, "without": without}.items():
            check_text(name, value, MAX_TEXT_CHARACTERS)
        return handlers.encode(text, without)

    @_raise_gradio_errors
    def encode(text: str, without: str = "") -> dict[str, Any]:
        """Return the dimensions of a query, and those that "without" proposes to switch off.

        Args:
            text: What to find, in words, or a sum of terms such as "2:a dog + item:ID - 0.5:grass".
            without: What to exclude, separated by commas; empty for nothing.

        Returns:
            query, without, excluded (its phrases), terms (term, kind: text, item, image or concept,
            weight, excluded), dimensions (dimension, name, strength,
            without_strength, off, concept), concepts (concept, name, strength, without_strength,
            off: null for a part, dimensions), notes and suggestion (another reading, or null). A
            concept is identified by its leading dimension.
        """  # noqa: D406, D407
        return query_json(encoded(text, without))

    @_raise_gradio_errors
    def search(
        text: str,
        without: str = "",
        off: list[int] | None = None,
        strictness: float | str = 1.0,
        top: int = 10,
        copies: bool = False,
        where: str = "",
    ) -> dict[str, Any]:
        """Find images that show one thing without another, with dimensions of the code off.

        Args:
            text: What to find, in words, or a sum of terms such as "2:a dog + item:ID - 0.5:grass".
            without: What to exclude, separated by commas; empty for nothing.
            off: The complete set of dimensions that are off; null for those proposed.
            strictness: From 0 (off dimensions are ignored) to 1 (they lower the score), "never"
                (hides images that have what is off with a probability of at least 0.5), or
                "never:0.2" (at least 0.2).
            top: Number of results, 1 to 200.
            copies: Whether every copy of a picture is a result of its own.
            where: Filter of the images: label:dog split:test caption:umbrella file:2023/*
                concept:beach>0.5, each also with "not " before it; empty for all.

        Returns:
            query, without, terms, off, off_concepts, hides (what `never` hides), where, passing
            (the number of images that pass the filter, null without one), results (id, file,
            score, captions, labels, copies, contributions, concepts and terms: contributions by
            concept and by term, presence) and notes.
        """  # noqa: D406, D407
        query = encoded(text, without)
        level, number = read_strictness(strictness), read_whole("top", top)
        if not isinstance(copies, bool):
            raise ValueError(f"copies must be true or false; got {short_repr(copies)}")
        dimensions = None if off is None else read_off(off)
        filtered = check_text("where", where, MAX_TEXT_CHARACTERS)
        outcome = engine.search(query, dimensions, level, number, fold=not copies, where=filtered)
        return search_report(query, outcome)

    @_raise_gradio_errors
    def dimension(dimension: int, where: str = "") -> dict[str, Any]:
        """Return the name, statistics and examples of one dimension.

        Args:
            dimension: Its number, from 0.
            where: Filter of the examples, as for /search; empty for all. Statistics cover all.

        Returns:
            name, naming, label, statistics, words, top_images, top_captions, concept_dimension and
            concept_name, name_in_concept, concept (its other dimensions), coactive (over the
            images), similar (by decoder direction), where, passing (the number of images with it
            that pass the filter, null without one).
        """  # noqa: D406, D407
        number = read_whole("dimension", dimension)
        filtered = check_text("where", where, MAX_TEXT_CHARACTERS)
        return page_json(engine.dimension(number, where=filtered))

    @_raise_gradio_errors
    def regions(item: str) -> dict[str, Any]:
        """Locate the concepts of an item in its image.

        Parts of the image are covered, one at a time; where this lowers the activation of a
        concept, the image shows it.

        Args:
            item: ID of the item, as in the results of /search.

        Returns:
            concepts (concept, name, activation, cells: rows from the top, with the share of the
            activation that is lost if a cell is covered; negative if the activation rises).
        """  # noqa: D406, D407
        return find_regions(item)

    @_raise_gradio_errors
    def difference(left: str, right: str = "") -> dict[str, Any]:
        """Find the concepts that distinguish two sets of images.

        Args:
            left: A set: a filter as for /search, such as label:dog split:test, also id:ID,ID,
                search:a dog without a beach (its best 100) or all; "not label:dog" is all others.
            right: The other set; empty for all images that are not in the first.

        Returns:
            left, right and shared (numbers of images; those in both sets count in neither) and
            concepts that differ significantly (concept, name, left_rate, right_rate, difference,
            low, high: its 95% interval, q, left_mean, right_mean, examples: item IDs).
        """  # noqa: D406, D407
        for name, value in {"left": left, "right": right}.items():
            check_text(name, value, MAX_TEXT_CHARACTERS)
        found = compare_sets(engine, left, right)
        return difference_json(engine, found._replace(concepts=found.significant))

    @_raise_gradio_errors
    def facets(where: str = "", find: str = "") -> dict[str, Any]:
        """List the facets of the images that pass a filter, with the number of images of each.

        Args:
            where: A filter as for /search; empty for all images.
            find: Text that the values contain; empty for the most frequent ones.

        Returns:
            where, passing (the number of images), active (the facets of the filter) and facets
            (facet: as in a filter, kind, value, negated, above: the probability of a concept,
            items: the number of images with it that pass the filter).
        """  # noqa: D406, D407
        for name, value in {"where": where, "find": find}.items():
            check_text(name, value, MAX_TEXT_CHARACTERS)
        return facets_report(engine, where, find)

    @_raise_gradio_errors
    def figure(recipe: dict[str, Any], kind: drawing.Kind = "pdf") -> FileData:
        """Draw a paper figure from a recipe.

        Args:
            recipe: As for `sieve figure`; the collection may be left out.
            kind: pdf, svg or png for the figure; tex for its LaTeX block; json for its full recipe.

        Returns:
            The file.
        """  # noqa: D406, D407
        read = drawing.recipe_for(engine, recipe)
        drawn = drawing.draw_figure(engine, read, kind, handlers.encode)
        name = f"{drawing.file_stem(drawn.content)}.{kind}"
        folder = drawing.figures_folder(Path(get_upload_folder()))
        path = drawing.keep_file(name, drawn.data, folder)
        return FileData(path=str(path), orig_name=name, mime_type=drawing.MIME[kind])

    model = {"concurrency_id": "model", "concurrency_limit": MODEL_CONCURRENCY}
    api(encode, api_name="encode", **model)
    api(search, api_name="search", **model)
    api(dimension, api_name="dimension")
    api(facets, api_name="facets", **model)
    api(difference, api_name="difference", **model)
    if not handlers.public:
        api(regions, api_name="regions", **model)
        visibility = "undocumented" if mcp else "public"
        limit = {"concurrency_id": "figure", "concurrency_limit": FIGURE_CONCURRENCY}
        api(figure, api_name="figure", api_visibility=visibility, **limit)


def _raise_gradio_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Limit the size of a response, and raise user errors as a `gr.Error` of one line."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            response = function(*args, **kwargs)
            if isinstance(response, dict) and len(json.dumps(response)) > MAX_RESPONSE_BYTES:
                limit = MAX_RESPONSE_BYTES >> 20
                raise ValueError(f"the response exceeds {limit} MB; ask for fewer results")
        except (ValueError, FileNotFoundError) as error:
            raise gr.Error(one_line(error), print_exception=False) from None
        return response

    return call
