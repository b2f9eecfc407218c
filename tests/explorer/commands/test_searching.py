"""`sieve search`: what the engine finds, as JSON and for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import Sieve

from sieve.model.engine import Engine


def test_search_prints_its_json(sieve: Sieve, opened: tuple) -> None:
    found = sieve("search", *opened, "a circle", "--without", "a night", "-k", "7", "--json").data
    assert list(found) == ["query", "without", "off", "results", "notes", "seconds"]
    assert (found["query"], found["without"]) == ("a circle", "a night")
    assert found["off"] and set(found["off"][0]) == {"dimension", "name", "weight"}
    assert len(found["results"]) == 7
    assert 0 <= found["seconds"] < 5
    for result in found["results"]:
        assert list(result) == ["id", "score", "captions", "labels", "contributions"]
        earned = sum(part["value"] for part in result["contributions"])
        assert result["score"] == pytest.approx(earned, abs=1e-5)
        assert set(result["contributions"][0]) == {"dimension", "name", "value"}
    scores = [result["score"] for result in found["results"]]
    assert scores == sorted(scores, reverse=True)


def test_search_is_the_engines(sieve: Sieve, opened: tuple, tiny_engine: Engine) -> None:
    for flags, options in (
        (("--strictness", "0"), {"strictness": 0.0}),
        (("--strictness", "never"), {"never": True}),
        (("--off", "3,5"), {"off": (3, 5)}),
        (("--off", ""), {"off": ()}),
    ):
        found = sieve("search", *opened, "a circle", "--without", "night", *flags, "--json").data
        query = tiny_engine.encode("a circle", "night")
        expected = tiny_engine.search(query, top=10, **options)
        assert [r["id"] for r in found["results"]] == [r.id for r in expected.results], flags
        assert [d["dimension"] for d in found["off"]] == [d.dimension for d in expected.off]


def test_search_by_item_and_by_image(
    sieve: Sieve, opened: tuple, tiny_engine: Engine, pictures: Path
) -> None:
    item = tiny_engine.collection.items["id"].iloc[4]
    by_item = sieve("search", *opened, "--item", item, "--json").data
    assert by_item["results"] and item not in [r["id"] for r in by_item["results"]]
    by_image = sieve("search", *opened, "--image", pictures / "images" / "004.png", "--json").data
    assert item in [r["id"] for r in by_image["results"][:3]]


def test_search_for_people(sieve: Sieve, opened: tuple) -> None:
    answer = sieve("search", *opened, "a circle but not in the night", "-k", "3")
    assert answer.code == 0
    assert "Read as “a circle” without “the night”." in answer.out
    assert re.search(r"^  1  \+0\.\d{3}  [0-9a-f]{16}  a ", answer.out, re.MULTILINE)
    assert re.search(r"^3 results in \d+\.\d ms$", answer.out, re.MULTILINE)
