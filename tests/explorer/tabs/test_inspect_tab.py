"""Test the handlers of the Inspect tab."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_codes import write_codes

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.explorer.errors import json_errors
from sieve.explorer.serialize import describe_difference, format_number
from sieve.explorer.tabs.inspect import RegionHandlers, inspect_view, why_view
from sieve.explorer.tabs.search import SearchHandlers
from sieve.model.engine import SearchEngine
from sieve.model.explain import ItemComparison, Part, Standing


@pytest.fixture(scope="module")
def handlers(tiny_engine, tmp_path_factory: pytest.TempPathFactory) -> SearchHandlers:
    return SearchHandlers(tiny_engine, tmp_path_factory.mktemp("uploads"))


@pytest.fixture
def external_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchHandlers:
    """Handlers of external codes, without a backbone and without words."""
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path / "home"))
    files = CodeFiles.find(write_codes(tmp_path / "codes", words=False))
    source = Codes(files, tmp_path / "codes" / "photos", name="given")
    made = prepare(
        source, None, tmp_path / "made", precomputed=source.precomputed(), progress=False
    )
    return SearchHandlers(SearchEngine.open(made.path), tmp_path)


def ids(handlers: SearchHandlers, *rows: int) -> list[str]:
    return handlers.engine.collection.items["id"].iloc[list(rows)].tolist()


def test_item_shows_its_dimensions_and_what_they_retrieve(
    handlers: SearchHandlers,
) -> None:
    found = inspect_view(handlers, {"left": {"text": "a circle"}, "off": None, "list": True})["one"]
    query = handlers.engine.encode("a circle")
    assert {row["d"] for row in found["dimensions"]} == set(np.flatnonzero(query.code).tolist())
    strongest = found["dimensions"][0]["d"]
    switched = inspect_view(handlers, {"right": {"text": "a circle"}, "off": [strongest]})["one"]
    assert "dimensions" not in switched
    expected = handlers.engine.search(query, (strongest,), top=12).results
    assert [item["id"] for item in switched["results"]] == [result.id for result in expected]


def test_filter_limits_the_results_and_the_ranking(handlers: SearchHandlers) -> None:
    engine, where = handlers.engine, "split:test"
    query = engine.encode("a circle")
    expected = [one.id for one in engine.search(query, top=12, where=where).results]
    found = inspect_view(handlers, {"left": {"text": "a circle"}, "where": where})["one"]
    assert [item["id"] for item in found["results"]] == expected
    why = why_view(handlers, {"q": "a circle", "where": where})["why"]
    assert [why[side]["id"] for side in ("left", "right")] == expected[:2]
    assert [why[side]["rank"] for side in ("left", "right")] == [1, 2]
    mask = engine.facets.mask(where)
    assert mask is not None
    outside = ids(handlers, int(np.flatnonzero(~mask)[0]))[0]
    standing = why_view(handlers, {"q": "a circle", "where": where, "a": outside})["why"]["left"]
    assert standing["rank"] is None and not standing["removed"]
    assert standing["rank_text"] == "not a result: it does not pass the filter"
    with pytest.raises(ValueError, match="selects no item"):
        inspect_view(handlers, {"left": {"text": "a circle"}, "where": "label:nothing"})


def test_contributions_of_two_inputs_sum_to_their_cosine(handlers: SearchHandlers) -> None:
    (item,) = ids(handlers, 4)
    found = inspect_view(handlers, {"left": {"item": item}, "right": {"text": "a circle"}})
    pair = found["pair"]
    image, text = handlers.engine.image_codes.dense(4), handlers.engine.encode("a circle").code
    assert pair["cosine"] == pytest.approx(float(image @ text), abs=1e-5)
    assert sum(row["share"] for row in pair["shared"]) == pytest.approx(1)
    embedding = handlers.engine.collection.image_embeddings[4].astype(np.float32)
    stated = handlers.engine.encode_text("a circle").embedding
    cosine = embedding @ stated / np.linalg.norm(embedding) / np.linalg.norm(stated)
    assert pair["backbone"] == pytest.approx(float(cosine), abs=1e-4)
    assert found["slots"]["left"]["item"]["id"] == item
    json.dumps(found, allow_nan=False)


def test_first_result_and_first_removed_item_are_explained_by_default(
    handlers: SearchHandlers,
) -> None:
    outcome = handlers.engine.search(handlers.encode("a circle", "the snow", "", ""))
    found = why_view(handlers, {"q": "a circle", "without": "the snow"})
    assert found["why"]["left"]["id"] == outcome.results[0].id
    assert found["why"]["right"]["id"] == outcome.left[0].id
    plain = why_view(handlers, {"q": "a circle", "off": []})
    first = handlers.engine.search(handlers.encode("a circle", "", "", "")).results
    assert [plain["why"][side]["id"] for side in ("left", "right")] == [r.id for r in first[:2]]
    second = why_view(handlers, {"q": "a circle", "off": [], "a": first[1].id})
    assert second["why"]["right"]["id"] == first[2].id


def test_any_two_items_are_explained_with_rank_and_score(handlers: SearchHandlers) -> None:
    query = handlers.encode("a circle", "", "", "")
    results = handlers.engine.search(query, top=60).results
    a, b = results[-1].id, results[0].id
    why = why_view(handlers, {"q": "a circle", "a": a, "b": b})["why"]
    assert (why["left"]["rank"], why["right"]["rank"]) == (len(results), 1)
    assert why["left"]["rank_text"].startswith(f"number {len(results)} with a score of ")
    assert why["sentence"].startswith(f"The right is {format_number(-why['difference'])} ahead: #")
    for side in ("left", "right"):
        total = sum(part[side] for part in why["parts"])
        assert total == pytest.approx(why[side]["score"], abs=1e-4)


def test_removed_items_report_their_off_dimensions(handlers: SearchHandlers) -> None:
    payload = {"q": "a circle", "without": "the snow", "strictness": 1.0, "never": True}
    why = why_view(handlers, payload)["why"]
    assert why["right"]["removed"]
    assert why["right"]["rank_text"].startswith("hidden by “never”")
    assert why["sentence"].startswith(
        "“Never” hides the right because it probably has what is off: #"
    )


def make_standing(row: int, score: float) -> Standing:
    return Standing(row, score, row + 1, False, row + 1)


def test_reasons_form_a_sentence() -> None:
    parts = (Part(4, 0.21, 0.0, False), Part(9, 0.0, -0.12, True), Part(2, 0.05, 0.11, False))
    found = ItemComparison(make_standing(0, 0.26), make_standing(1, -0.01), parts, parts[:2], 60)
    names = {4: "snow · ice", 9: "beach", 2: "dog"}
    assert describe_difference(found, names.__getitem__) == (
        "The left is 0.27 ahead: #4 “snow” adds 0.21 to the left, nothing to the right; "
        "#9 “beach” is off and subtracts 0.12 from the right, nothing from the left, "
        "together 0.33; other dimensions partly offset this."
    )
    same = ItemComparison(make_standing(0, 0.26), make_standing(0, 0.26), parts, (), 60)
    assert "same item" in describe_difference(same, names.__getitem__)


@pytest.mark.parametrize(
    "payload",
    [
        None, {}, {"left": "a dog"}, {"left": {"text": 3}}, {"left": {"item": "../.."}},
        {"left": {"item": "f" * 16}}, {"left": {"upload": "gone"}}, {"left": {"text": "x" * 2000}},
        {"left": {"text": "a circle"}, "off": [10**6]}, {"left": {"text": "a circle"}, "off": "4"},
    ],
)  # fmt: skip
def test_invalid_slot_is_one_line(handlers: SearchHandlers, payload: object) -> None:
    line = json_errors(lambda given: inspect_view(handlers, given))(payload)["error"]
    assert line and "\n" not in line and "failed" not in line


@pytest.mark.parametrize(
    "payload",
    [
        None, {}, {"q": "a circle", "a": 3}, {"q": "a circle", "a": "f" * 16},
        {"q": "a circle", "off": [10**6]}, {"q": "a circle", "upload": []},
    ],
)  # fmt: skip
def test_invalid_explanation_request_is_one_line(handlers: SearchHandlers, payload: object) -> None:
    line = json_errors(lambda given: why_view(handlers, given))(payload)["error"]
    assert line and "\n" not in line and "failed" not in line


def test_codes_without_a_backbone_are_inspected_by_item(external_handlers: SearchHandlers) -> None:
    one, other, third = ids(external_handlers, 0, 1, 2)
    pair = inspect_view(external_handlers, {"left": {"item": one}, "right": {"item": other}})[
        "pair"
    ]
    assert (pair["backbone"], pair["cosine"]) == (None, pytest.approx(0.6))
    assert [row["name"] for row in pair["shared"]] == ["dog"]
    why = why_view(external_handlers, {"item": one, "a": other, "b": third})["why"]
    assert why["left"]["rank"] is not None
    refused = json_errors(lambda given: inspect_view(external_handlers, given))(
        {"left": {"text": "a dog"}}
    )
    assert "search by an item" in refused["error"]


def test_regions_are_encoded_once_per_item(handlers: SearchHandlers) -> None:
    (item,), calls = ids(handlers, 0), []
    encode = handlers.engine.encode_images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            handlers.engine, "encode_images", lambda all_: calls.append(1) or encode(all_)
        )
        finder = RegionHandlers(handlers)
        assert finder.regions(item) == finder.regions(item)
    assert len(calls) == 5


def test_external_codes_have_no_regions(external_handlers: SearchHandlers) -> None:
    (item,) = ids(external_handlers, 0)
    refusal = json_errors(RegionHandlers(external_handlers).regions)(item)
    assert "image" in refusal["error"]
