"""Tests of filters of items: their language, the items that they select, and filtered searches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve.explorer.figures import Recipe
from sieve.explorer.figures.content import complete_recipe, figure_content
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness
from sieve.model.item_filter import KINDS, Facet, ItemFilter, inside_polygon

facets = st.builds(
    Facet,
    kind=st.sampled_from(KINDS),
    value=st.text(min_size=1, max_size=20).filter(str.strip)
    | st.sampled_from(("a dog", 'a "dog"', "x split:test", "not label:a", "2023/*", "a>0.5")),
    negated=st.booleans(),
)
concepts = st.builds(
    Facet,
    kind=st.just("concept"),
    value=st.sampled_from(("beach", "hot dog", "17")),
    above=st.integers(1, 100).map(lambda n: n / 100),
)


@given(st.lists(facets | concepts, max_size=5, unique=True))
def test_printed_filter_parses_to_itself(some: list[Facet]) -> None:
    wanted = ItemFilter(tuple(some))
    assert ItemFilter.parse(str(wanted)) == wanted


def test_values_end_where_the_next_facet_begins() -> None:
    parsed = ItemFilter.parse(
        'label:traffic light not split:test search:a dog -beach concept:"a sea">.3'
    )
    assert parsed.facets == (
        Facet("label", "traffic light"),
        Facet("split", "test", negated=True),
        Facet("search", "a dog -beach"),
        Facet("concept", "a sea", above=0.3),
    )


@pytest.mark.parametrize(
    "text",
    [
        "a dog",
        "label:",
        "colour:red",
        "concept:a>2",
        "concept:a>..",
        'label:""',
    ],
)
def test_faulty_filters_are_one_line(text: str) -> None:
    with pytest.raises(ValueError) as error:
        ItemFilter.parse(text)
    assert "\n" not in str(error.value)


def selected(engine: SearchEngine, where: str) -> set[int]:
    mask = engine.facets.mask(where)
    assert mask is not None
    return set(np.flatnonzero(mask).tolist())


def test_facets_select_the_items_that_have_them(tiny_engine: SearchEngine) -> None:
    items = tiny_engine.collection.items
    label = items["labels"].iloc[0][0]
    in_test = {row for row, split in enumerate(items["split"]) if split == "test"}
    labelled = {row for row, labels in enumerate(items["labels"]) if label in labels}
    assert selected(tiny_engine, f'label:"{label}" split:test') == in_test & labelled
    assert selected(tiny_engine, f'label:"{label}" not split:test') == labelled - in_test
    said = {row for row, texts in enumerate(items["captions"]) if "circle" in " ".join(texts)}
    assert selected(tiny_engine, "caption:circles") == said
    name = tiny_engine.collection.file_names[3]
    assert 3 in selected(tiny_engine, f'file:"{name}"')


def test_a_concept_is_selected_by_its_probability(tiny_engine: SearchEngine) -> None:
    leading = tiny_engine.encode("a red circle").concepts[0].concept

    def likely(probability: float) -> set[int]:
        try:
            return selected(tiny_engine, f"concept:{leading}>{probability}")
        except ValueError:  # no item is that likely
            return set()

    found = [likely(percent / 100) for percent in range(5, 100, 5)]
    assert all(more >= fewer for more, fewer in pairwise(found))
    assert len({len(rows) for rows in found}) > 2
    members = tiny_engine.concepts.members(leading)
    active = np.flatnonzero(tiny_engine.image_codes.by_dimension[:, members].sum(1))
    certain = next(rows for rows in reversed(found) if rows)
    assert certain <= set(active.tolist())


def test_a_selection_on_the_map_is_a_polygon() -> None:
    positions = np.array([[0, 0], [0.5, 0.5], [0.9, -0.9]])
    assert inside_polygon("-0.1,-0.1,0.6,-0.1,0.6,0.6,-0.1,0.6", positions).tolist() == [
        True, True, False,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="three corners"):
        inside_polygon("0,0,1,nan", positions)


def test_filtered_search_ranks_only_the_selected_items(tiny_engine: SearchEngine) -> None:
    query = tiny_engine.encode("a circle", "snow")
    everything = tiny_engine.search(query, top=200, fold=False)
    rows = selected(tiny_engine, "split:test")
    found = tiny_engine.search(query, top=10, fold=False, where="split:test")
    wanted = [one.id for one in everything.results if one.row in rows]
    assert [one.id for one in found.results] == wanted[:10]
    assert {one.row for one in found.left} <= rows
    assert (found.where, found.passing) == ("split:test", len(rows))
    dense = tiny_engine.search_dense(query, top=10, where="split:test")
    assert {one.row for one in dense} <= rows
    hidden = tiny_engine.search(query, None, Strictness(never=True), 200, where="split:test")
    assert {one.row for one in hidden.results} <= rows


def test_a_filter_that_nothing_passes_gives_no_results(tiny_engine: SearchEngine) -> None:
    found = tiny_engine.search(tiny_engine.encode("a circle"), where="split:test not split:test")
    assert (found.results, found.passing) == ((), 0)


def test_counts_follow_the_filter(tiny_engine: SearchEngine) -> None:
    items = tiny_engine.collection.items
    where = ItemFilter.parse("split:test")
    for one in tiny_engine.facets.counts(where):
        both = ItemFilter((*where.facets, one.facet)) if one.facet.kind != "split" else None
        mask = tiny_engine.facets.mask(both or ItemFilter((one.facet,)))
        assert mask is not None and one.items == mask.sum(), one
    found = tiny_engine.facets.counts(where, find="circle")
    assert {one.label for one in found if one.facet.kind == "caption"} >= {"circle"}
    splits = {
        one.label: one.items
        for one in tiny_engine.facets.counts(where)
        if "split" in one.facet.kind
    }
    assert splits == items["split"].value_counts().to_dict()


def test_a_row_of_a_figure_keeps_the_filter(tiny_engine: SearchEngine) -> None:
    rows = [{"query": "a circle", "where": "split:test"}]
    recipe = complete_recipe(tiny_engine, Recipe.from_json({"rows": rows}))
    (content,) = figure_content(tiny_engine, recipe)
    assert {tile.row for tile in content.tiles} <= selected(tiny_engine, "split:test")
    assert recipe.as_json()["rows"] == rows
    with pytest.raises(ValueError, match='cannot have .* or "where"'):
        Recipe.from_json({"rows": [{"dimension": 3, "where": "split:test"}]})
