"""Test `sieve search`: results of the engine as JSON and as text."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from command_line import Sieve
from PIL import Image

from sieve.data_prep.bundled import locate_collection
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness


def test_search_prints_json(sieve: Sieve, opened: tuple) -> None:
    found = sieve("search", *opened, "a circle", "--without", "the snow", "-k", "7", "--json").data
    assert list(found) == [
        "query", "without", "excluded", "terms", "off", "off_concepts", "hides", "where",
        "passing", "results",
        "notes", "suggestion", "seconds",
    ]  # fmt: skip
    assert (found["query"], found["without"]) == ("a circle", "the snow")
    assert found["off"] and set(found["off"][0]) == {"dimension", "name", "weight", "concept"}
    assert len(found["results"]) == 7
    assert 0 <= found["seconds"] < 5
    for result in found["results"]:
        assert list(result) == [
            "id", "file", "score", "captions", "labels", "copies", "contributions", "concepts",
            "terms", "presence",
        ]  # fmt: skip
        assert re.fullmatch(r"\d{3}\.png", result["file"]) and result["copies"] == []
        earned = sum(part["value"] for part in result["contributions"])
        assert result["score"] == pytest.approx(earned, abs=1e-5)
        by_concept = sum(part["value"] for part in result["concepts"])
        assert result["score"] == pytest.approx(by_concept, abs=1e-5)
        assert set(result["contributions"][0]) == {"dimension", "name", "value", "concept"}
    scores = [result["score"] for result in found["results"]]
    assert scores == sorted(scores, reverse=True)


def test_a_sum_of_texts_and_images_is_searched_and_shown(
    sieve: Sieve, opened: tuple, tiny_engine: SearchEngine, tmp_path: Path
) -> None:
    item, other = tiny_engine.collection.items["id"].iloc[:2]
    file = tmp_path / "ball.png"
    Image.open(tiny_engine.thumbnail(item)).convert("RGB").save(file)
    query = f"2:a circle + image:{file} - snow - 0.5:item:{other}"
    found = sieve("search", *opened, query, "--json").data
    assert [list(term.values())[1:] for term in found["terms"]] == [
        ["text", 2.0, False],
        ["image", 1.0, False],
        ["text", 1.0, True],
        ["item", 0.5, True],
    ]
    again = sieve("search", *opened, found["query"], "--without", found["without"], "--json").data
    assert again["results"] == found["results"]
    for result in found["results"]:
        assert sum(result["terms"]) == pytest.approx(result["score"], abs=1e-5)
    shown = sieve("search", *opened, query).out
    assert "find: “2 × a circle + like the image”  without: “snow” or “0.5 × like " in shown
    both = sieve("search", *opened, "2:a circle", "--image", file, "--json").data
    alone = sieve("search", *opened, f'2:a circle + image:"{file}"', "--json").data
    assert [one["id"] for one in both["results"]] == [one["id"] for one in alone["results"]]
    gone = sieve("search", *opened, "a circle + no.png")
    assert gone.err == "sieve: image no.png: file is missing; give another one\n"


def test_exclusions_are_parsed_and_shown(sieve: Sieve, opened: tuple) -> None:
    for query in (
        "a circle -night -snow",
        'a circle -"night" NOT snow',
        "a circle, no night or snow",
    ):
        found = sieve("search", *opened, query, "--json").data
        assert (found["query"], found["excluded"]) == ("a circle", ["night", "snow"])
        assert found["without"] == "night, snow"
        shown = sieve("search", *opened, query).out
        assert "Read as “a circle” without “night” or “snow”.\n" in shown
        assert "find: “a circle”  without: “night” or “snow”\n" in shown


def test_ambiguous_wording_is_searched_as_written_with_a_suggestion(
    sieve: Sieve, opened: tuple
) -> None:
    found = sieve("search", *opened, "a circle - night", "--json").data
    assert (found["query"], found["excluded"]) == ("a circle - night", [])
    assert found["suggestion"] == {"query": "a circle", "without": "night"}
    shown = sieve("search", *opened, "a circle - night").out
    assert "“-” was searched as written, not read as an exclusion.\n" in shown
    assert 'To exclude it: "a circle" --without "night"\n' in shown


@pytest.mark.parametrize("query", ["not a circle", "-night", "without the night"])
def test_query_that_only_excludes_is_rejected(sieve: Sieve, opened: tuple, query: str) -> None:
    answer = sieve("search", *opened, "--", query)
    assert answer.code == 1
    assert "nothing to search for: the query only excludes “" in answer.err
    assert "Traceback" not in answer.err


def test_plurals_unknown_words_and_symbols_are_handled(
    sieve: Sieve, scenes_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(scenes_home))
    engine = SearchEngine.open(locate_collection("scenes"), device="cpu")
    # Each command would load the backbone again.
    monkeypatch.setattr(SearchEngine, "open", lambda *_, **__: engine)

    @cache
    def found(without: str) -> dict:
        return sieve(
            "search", "scenes", "an animal", "--without", without, "-k", "1", "--json"
        ).data

    beach = found("beach")
    assert any("beach" in off["name"] for off in beach["off"])
    for plural in ("beaches", "BEACHES"):
        assert found(plural)["off"] == beach["off"]
        assert f"“{plural}” is read as “beach”." in found(plural)["notes"]
    assert found("cars")["off"] == found("car")["off"] != []
    assert found("aeroplanes")["off"] == found("airplane")["off"] != []
    assert found("quokka beach")["off"] == beach["off"]
    for nothing in ("quokka", "🏖️", "42", "???", "the"):
        answer = found(nothing)
        assert answer["off"] == []
        assert any(f"“{nothing}” " in note for note in answer["notes"])


def test_search_equals_the_engine(sieve: Sieve, opened: tuple, tiny_engine: SearchEngine) -> None:
    for flags, options in (
        (("--strictness", "0"), {"strictness": Strictness(0.0)}),
        (("--strictness", "never"), {"strictness": Strictness(never=True)}),
        (("--strictness", "never:0.05"), {"strictness": Strictness(never=True, limit=0.05)}),
        (("--off", "3,5"), {"off": (3, 5)}),
        (("--off", ""), {"off": ()}),
    ):
        found = sieve("search", *opened, "a circle", "--without", "night", *flags, "--json").data
        query = tiny_engine.encode("a circle", "night")
        expected = tiny_engine.search(query, top=10, **options)
        assert [r["id"] for r in found["results"]] == [r.id for r in expected.results], flags
        assert [d["dimension"] for d in found["off"]] == [d.dimension for d in expected.off]
        for one, other in zip(found["results"], expected.results, strict=True):
            assert [p["name"] for p in one["presence"]] == [p.name for p in other.presence]
    asked = ("a circle", "--without", "the snow", "--strictness", "never:0.05")
    assert "hides: images with P(snow) ≥ 5%\n" in sieve("search", *opened, *asked).out


def test_search_accepts_items_and_images(
    sieve: Sieve, opened: tuple, tiny_engine: SearchEngine, pictures: Path
) -> None:
    item = tiny_engine.collection.items["id"].iloc[4]
    by_item = sieve("search", *opened, "--item", item, "--json").data
    assert by_item["results"] and item not in [r["id"] for r in by_item["results"]]
    by_image = sieve("search", *opened, "--image", pictures / "images" / "004.png", "--json").data
    assert item in [r["id"] for r in by_image["results"][:3]]


def test_search_prints_readable_output(sieve: Sieve, opened: tuple) -> None:
    answer = sieve("search", *opened, "a circle but not in the night", "-k", "3")
    assert answer.code == 0
    assert "Read as “a circle” without “the night”." in answer.out
    assert re.search(r"^  1  \+0\.\d{3}  [0-9a-f]{16}  \d{3}\.png  a ", answer.out, re.MULTILINE)
    assert re.search(r"^3 results in \d+\.\d ms$", answer.out, re.MULTILINE)


def test_concepts_are_printed(
    sieve: Sieve, scenes_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(scenes_home))
    found = sieve("search", "scenes", "a dog", "--without", "a beach", "-k", "3")
    assert re.search(r"^off: beach \((#\d+, )*#\d+\)$", found.out, re.M), found.out
    listed = [line for line in found.out.splitlines() if re.match(r" *\d+  \+0", line)]
    assert len(listed) == 3 and all("  dog +0." in line for line in listed), found.out
