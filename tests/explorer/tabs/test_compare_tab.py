"""Test the handlers of the Compare tab."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corruption import reseal
from PIL import Image

from sieve.explorer.errors import json_errors
from sieve.explorer.tabs.compare import MAX_OPEN_ENGINES, CompareHandlers
from sieve.explorer.tabs.search import SearchHandlers
from sieve.model.compare import DENSE_METHODS, dense_scores, embed_query
from sieve.model.exclusion import best


@pytest.fixture
def handlers(tiny_engine, tmp_path: Path, home: Path) -> CompareHandlers:  # noqa: ARG001
    return CompareHandlers(SearchHandlers(tiny_engine, tmp_path))


@pytest.fixture
def copies(tiny_checkpoint, home: Path) -> list[str]:
    """Names of three checkpoints in $SIEVE_HOME that match the tiny collection."""
    names = [f"copy-{number}" for number in range(MAX_OPEN_ENGINES + 1)]
    for name in names:
        shutil.copytree(
            tiny_checkpoint.path,
            home / "checkpoints" / name,
        )
        names_file = home / "checkpoints" / name / "names.json"
        names_file.write_text(
            json.dumps(json.loads(names_file.read_text())) + f"\n{' ' * len(name)}"
        )
        reseal(names_file.parent)
    return names


ASKED = {"q": "a circle", "without": "the snow"}


@pytest.mark.parametrize("name", DENSE_METHODS)
def test_both_columns_equal_the_results_of_their_methods(
    handlers: CompareHandlers, tiny_engine, name: str
) -> None:
    found = handlers.compare({**ASKED, "method": name})
    sparse, dense = ([item["id"] for item in one["results"]] for one in found["columns"])
    query = tiny_engine.encode("a circle", "the snow")
    assert sparse == [result.id for result in tiny_engine.search(query, top=20).results]
    scores = dense_scores(tiny_engine, embed_query(tiny_engine, query), DENSE_METHODS[name])
    rows = best(scores, 20).rows
    assert dense == tiny_engine.collection.items["id"].iloc[rows].tolist()
    assert found["both"] == len(set(sparse) & set(dense))
    assert "embedding" in found["columns"][1]["how"]


@pytest.mark.parametrize("name", DENSE_METHODS)
def test_method_is_described_by_what_it_excludes(handlers: CompareHandlers, name: str) -> None:
    plain = handlers.compare({"q": "a circle", "method": name})["columns"][1]
    assert plain["how"].endswith("embedding of A; nothing is excluded")
    excluding = handlers.compare({**ASKED, "method": name})["columns"][1]
    assert (excluding["how"] == plain["how"]) == (name == "A only")


@pytest.mark.parametrize(("quantile", "share"), [(0.9, "10%"), (0.95, "5%"), (0.995, "0.5%")])
def test_filter_describes_the_share_it_hides(
    handlers: CompareHandlers, quantile: float, share: str
) -> None:
    column = handlers.compare({**ASKED, "method": "filter", "hyperparameter": quantile})["columns"]
    assert f"without the {share} of images closest to B" in column[1]["how"]


def test_filter_limits_both_columns_and_what_is_judged(
    handlers: CompareHandlers, tiny_engine
) -> None:
    where = "split:test"
    found = handlers.compare({**ASKED, "method": "literal", "where": where})
    mask = tiny_engine.facets.mask(where)
    rows = tiny_engine.collection.row_of_id
    for column in found["columns"]:
        assert column["results"] and all(mask[rows[one["id"]]] for one in column["results"])
    query = tiny_engine.encode("a circle", "the snow")
    expected = [result.id for result in tiny_engine.search(query, top=20, where=where).results]
    assert [one["id"] for one in found["columns"][0]["results"]] == expected
    assert found["passing"] == mask.sum()
    everything = handlers.compare({**ASKED, "method": "literal"})
    assert 0 < found["relevance"]["relevant"] < everything["relevance"]["relevant"]
    with pytest.raises(ValueError, match="selects no item"):
        handlers.compare({**ASKED, "where": "label:nothing"})


def test_labels_named_by_the_query_define_relevance(handlers: CompareHandlers, tiny_engine) -> None:
    found = handlers.compare(ASKED)
    relevance = found["relevance"]
    labels = [set(one) for one in tiny_engine.collection.items["labels"]]
    assert (relevance["track"], relevance["a"], relevance["b"]) == ("label", "circle", "snow")
    assert relevance["relevant"] == sum("circle" in one and "snow" not in one for one in labels)
    assert relevance["violating"] == sum({"circle", "snow"} <= one for one in labels)
    for column in found["columns"]:
        first = column["results"][:10]
        right = sum(item["mark"] == "right" for item in first)
        assert column["measures"]["precision"] == pytest.approx(right / 10)
        for item in column["results"]:
            has = {"circle", "snow"} & set(item["labels"])
            expected = {frozenset({"circle"}): "right", frozenset({"circle", "snow"}): "both"}
            assert item["mark"] == expected.get(frozenset(has), "other")
    json.dumps(found, allow_nan=False)


def test_labels_can_be_chosen_if_the_query_names_none(handlers: CompareHandlers) -> None:
    odd = {"q": "something round", "without": "winter"}
    found = handlers.compare(odd)
    assert found["columns"][0]["measures"] is None
    assert found["relevance"]["a"] == ""
    assert set(found["relevance"]["names"]) >= {"circle", "snow"}
    chosen = handlers.compare({**odd, "track": "label", "a": "circle", "b": "snow"})
    assert chosen["columns"][0]["measures"] is not None
    half = handlers.compare({**odd, "without": "the snow", "track": "label", "a": "circle"})
    assert (half["relevance"]["a"], half["relevance"]["b"]) == ("circle", "snow")
    by_caption = handlers.compare({**ASKED, "track": "caption", "a": "snow"})
    assert by_caption["relevance"]["track"] == "caption"


def test_other_checkpoints_open_on_selection_and_two_stay_loaded(
    handlers: CompareHandlers, copies: list[str]
) -> None:
    assert set(copies) <= set(handlers.compare_options(None)["checkpoints"])
    for name in copies:
        found = handlers.compare({**ASKED, "method": f"checkpoint {name}"})
        own, other = found["columns"]
        assert other["title"] == f"Sparse · {name}"
        assert own["results"] == other["results"]
    assert len(handlers._opened) == MAX_OPEN_ENGINES


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (None, "a view must be a JSON object"),
        ({"q": " "}, "nothing to compare"),
        ({**ASKED, "method": "magic"}, "method must be one of"),
        ({**ASKED, "method": "checkpoint ../../etc"}, "checkpoint must be one of"),
        ({**ASKED, "hyperparameter": "1"}, "hyperparameter must be a number"),
        ({**ASKED, "hyperparameter": float("nan")}, "weight of subtraction must be"),
        ({**ASKED, "hyperparameter": 10**400}, "hyperparameter must be a number"),
        (
            {**ASKED, "track": "label", "a": "zorb", "b": "snow"},
            "this collection has no label 'zorb'",
        ),
        ({**ASKED, "a": 3}, "a must be a string"),
    ],
)
def test_invalid_comparison_is_one_line(
    handlers: CompareHandlers, payload: object, message: str
) -> None:
    line = json_errors(handlers.compare)(payload)["error"]
    assert message in line[0].lower() + line[1:] and "\n" not in line


def test_item_and_image_queries_are_compared(
    tiny_engine,
    tmp_path: Path,
    home: Path,  # noqa: ARG001
) -> None:
    handlers = SearchHandlers(tiny_engine, tmp_path)
    asks = CompareHandlers(handlers)
    items = tiny_engine.collection.items
    item = str(items["id"].iloc[3])
    chosen = {"without": "the snow", "track": "label", "a": "circle", "b": "snow"}
    found = asks.compare({"item": item, **chosen, "method": "literal"})
    sparse, dense = ([one["id"] for one in column["results"]] for column in found["columns"])
    query = tiny_engine.encode("", "the snow", item)
    assert sparse == [result.id for result in tiny_engine.search(query, top=20).results]
    assert item not in dense and found["like"][0]["id"] == item
    alone = tiny_engine.search_dense(tiny_engine.encode("", "", item), 20)
    scores = [one["score"] for one in found["columns"][1]["results"]]
    assert scores == pytest.approx([result.score for result in alone], abs=1e-3)  # it has no words
    rows = [set(one) for one, row in zip(items["labels"], items["id"], strict=True) if row != item]
    right = sum("circle" in one and "snow" not in one for one in rows)
    assert found["relevance"]["relevant"] == right

    file = tmp_path / "mine.png"
    thumbnail = tiny_engine.thumbnail(item)
    Image.open(thumbnail).save(file)
    upload = handlers.upload(str(file))["key"]
    shown = asks.compare({"upload": upload, "q": "ignored", "without": "the snow"})
    assert shown["q"] == "" and shown["columns"][0]["measures"] is None
    first = handlers.ask({"upload": upload, "without": "the snow"})["results"][0]["id"]
    assert shown["columns"][0]["results"][0]["id"] == first


def test_one_request_at_a_time_uses_the_model(
    tiny_engine, tmp_path: Path, copies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = SearchHandlers(tiny_engine, tmp_path)
    read = type(tiny_engine.backbone).encode_texts
    held: list[bool] = []

    def watched(*given: Any, **more: Any) -> Any:
        held.append(handlers.model.locked())
        return read(*given, **more)

    monkeypatch.setattr(type(tiny_engine.backbone), "encode_texts", watched)
    odd = {"q": "a triangle", "without": "the dusk"}
    for method in ("subtraction", "literal", f"checkpoint {copies[0]}"):
        CompareHandlers(handlers).compare({**odd, "method": method})
    assert held and all(held)
