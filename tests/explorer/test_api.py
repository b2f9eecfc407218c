"""Test the API with Gradio's client and by plain HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from page_api import serve
from processes import FIRST_PORT

from sieve.explorer.figures import Recipe
from sieve.explorer.figures.drawing import draw_figure
from sieve.explorer.json_validation import read_strictness
from sieve.explorer.serialize import describe_hidden, search_report
from sieve.model.exclusion import Strictness
from sieve.model.explain import GRID


@pytest.fixture(scope="module")
def url(tiny_engine) -> Iterator[str]:
    yield from serve(tiny_engine, port=FIRST_PORT)


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, download_files=False, verbose=False)


def without_time(report: dict) -> dict:
    return {name: value for name, value in report.items() if name != "seconds"}


def test_only_the_documented_endpoints_are_public(client: Client) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]  # type: ignore[index]
    assert set(named) == {
        "/encode", "/search", "/regions", "/dimension", "/facets", "/difference", "/figure",
    }  # fmt: skip
    search = {one["parameter_name"] for one in named["/search"]["parameters"]}
    assert search == {"text", "without", "off", "strictness", "top", "copies", "where"}


def test_search_returns_the_results_of_the_engine(client: Client, tiny_engine) -> None:
    found = client.predict("a circle", "the snow", None, "never:0.3", 5, api_name="/search")
    query = tiny_engine.encode("a circle", "the snow")
    outcome = tiny_engine.search(query, strictness=Strictness(never=True, limit=0.3), top=5)
    assert found["hides"] == "images with P(snow) ≥ 30%"
    assert without_time(found) == without_time(search_report(query, outcome))
    assert found["seconds"] < 1


def test_few_of_the_concepts_that_hide_images_are_named(tiny_engine) -> None:
    query = tiny_engine.encode("a red circle in the snow")
    everything = [part.dimension for part in query.dimensions]
    hides = describe_hidden(tiny_engine.search(query, everything, Strictness(never=True)))
    n = len(tiny_engine.concepts.grouped(everything))
    assert n > 4 and hides.count(" or ") == 3 and hides.endswith(f"one of {n - 3} more concepts")


def test_filter_is_one_of_the_listed_facets(client: Client) -> None:
    listed = client.predict("split:test", "circle", api_name="/facets")
    (word,) = (one for one in listed["facets"] if one["kind"] == "caption")
    assert (word["value"], word["above"], listed["where"]) == ("circle", 0.5, "split:test")
    where = f"{listed['where']} {word['facet']}"
    found = client.predict("a circle", "", None, 1, 200, True, where, api_name="/search")
    assert (found["where"], found["passing"]) == (where, word["items"])
    assert 0 < len(found["results"]) <= word["items"]
    with pytest.raises(Exception, match="selects no item"):
        client.predict("a circle", "", None, 1, 5, True, "label:unicorn", api_name="/search")


def test_off_replaces_the_proposed_dimensions(client: Client, tiny_engine) -> None:
    first = tiny_engine.encode("a circle").dimensions[0].dimension
    found = client.predict("a circle", "", [first], 0.5, 3, api_name="/search")
    assert [off["dimension"] for off in found["off"]] == [first]
    assert len(found["results"]) == 3
    none = client.predict("a circle", "the snow", [], api_name="/search")
    assert none["off"] == [] and len(none["results"]) == 10


def test_encode_proposes_dimensions(client: Client, tiny_engine) -> None:
    found = client.predict("a circle", "the snow", api_name="/encode")
    off = [row["dimension"] for row in found["dimensions"] if row["off"]]
    assert tuple(off) == tiny_engine.encode("a circle", "the snow").proposed
    assert set(found) == {
        "query", "without", "excluded", "terms", "dimensions", "concepts", "notes", "suggestion"
    }  # fmt: skip


def test_concepts_are_returned_beside_dimensions(client: Client) -> None:
    found = client.predict("a circle", "the snow", api_name="/encode")
    by_concept = {}
    for row in found["dimensions"]:
        by_concept.setdefault(row["concept"], []).append(row)
    assert {row["concept"] for row in found["concepts"]} == set(by_concept)
    for row in found["concepts"]:
        parts = by_concept[row["concept"]]
        assert [one["dimension"] for one in row["dimensions"]] == [
            one["dimension"] for one in parts
        ]
        for name in ("strength", "without_strength"):
            assert row[name] == pytest.approx(sum(one[name] for one in parts), abs=1e-5)
        states = {one["off"] for one in parts}
        assert row["off"] == (None if len(states) == 2 else states.pop())
    searched = client.predict("a circle", "the snow", api_name="/search")
    off = [one["dimension"] for one in searched["off"]]
    assert sorted(j for row in searched["off_concepts"] for j in row["dimensions"]) == sorted(off)
    for result in searched["results"]:
        values = [part["value"] for part in result["concepts"]]
        assert sum(values) == pytest.approx(result["score"], abs=1e-5)
        assert values == sorted(values, reverse=True)


def test_dimension_is_described(client: Client, tiny_engine) -> None:
    j = int(tiny_engine.dimension_table()["firing_images"].to_numpy().argmax())
    found = client.predict(j, api_name="/dimension")
    known = tiny_engine.dimension(j)
    assert found["name"] == known.name
    assert found["naming"]["source"] in ("captions", "vocabulary")
    assert found["statistics"]["monosemanticity"] == pytest.approx(
        known.statistics["monosemanticity"], abs=1e-5
    )
    assert [one["id"] for one in found["top_images"]] == [one.id for one in known.top_images]
    directions = tiny_engine.checkpoint.encoder.directions
    near = found["similar"][0]
    cosines = np.delete(directions @ directions[j], j)
    assert near["dimension"] != j and near["similarity"] == pytest.approx(cosines.max(), abs=1e-5)
    leading = client.predict(found["concept_dimension"], api_name="/dimension")
    assert leading["name"] == leading["name_in_concept"] == found["concept_name"]


def test_examples_of_a_dimension_are_filtered(client: Client, tiny_engine) -> None:
    j = int(tiny_engine.dimension_table()["firing_images"].to_numpy().argmax())
    found = client.predict(j, "split:test", api_name="/dimension")
    known = tiny_engine.dimension(j, where="split:test")
    assert [one["id"] for one in found["top_images"]] == [one.id for one in known.top_images]
    assert (found["where"], found["passing"]) == ("split:test", known.passing)
    with pytest.raises(Exception, match="a set of items is"):
        client.predict(j, "nothing", api_name="/dimension")


def test_regions_are_rows_of_cells(client: Client, tiny_engine) -> None:
    item = tiny_engine.collection.items["id"].iloc[0]
    first = client.predict(item, api_name="/regions")["concepts"][0]
    assert np.shape(first["cells"]) == (GRID, GRID)
    assert first["name"] == tiny_engine.names().concept(first["concept"])[1]
    with pytest.raises(Exception, match="has no item 'nothing'"):
        client.predict("nothing", api_name="/regions")


def test_difference_lists_concepts_with_examples(client: Client, tiny_engine) -> None:
    label = tiny_engine.collection.items["labels"].iloc[0][0]
    found = client.predict(f"label:{label}", api_name="/difference")
    assert found["left"] + found["right"] == tiny_engine.collection.n_items
    assert set(found["concepts"][0]["examples"]) == {"left", "right"}
    with pytest.raises(Exception, match="selects no item"):
        client.predict("label:unicorn", api_name="/difference")


def test_figure_is_a_file(url: str, tiny_engine, tmp_path: Path) -> None:
    recipe = {"rows": [{"query": "a circle", "without": "the snow"}], "columns": 4}
    client = Client(url, download_files=tmp_path, verbose=False)
    for kind in ("pdf", "svg", "png"):
        path = Path(client.predict(recipe, kind, api_name="/figure"))
        assert (path.name, path.is_relative_to(tmp_path)) == (
            f"a-circle-without-the-snow.{kind}",
            True,
        )
        drawn = draw_figure(tiny_engine, Recipe.from_json(recipe), kind)
        assert path.read_bytes() == drawn.data
    block = Path(client.predict(recipe, "tex", api_name="/figure")).read_text()
    assert r"\includegraphics[width=17.78cm]{a-circle-without-the-snow.pdf}" in block
    for bad, line in (
        ({}, "rows must have at least 1 item"),
        ([], "a recipe must be a JSON object"),
        ({"rows": [{"dimensions": [3, 9999]}]}, "row 1: there is no dimension 9999"),
    ):
        with pytest.raises(Exception, match=line):
            client.predict(bad, "pdf", api_name="/figure")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("", "", None, 1.0, 5), "othing to search for"),
        (("a", "", None, 7, 5), "strictness must be a number from 0 to 1"),
        (("a", "", None, "soon", 5), "strictness must be a number from 0 to 1"),
        (("a", "", [99999], 1.0, 5), "no dimension 99999"),
        (("a", "", None, 1.0, 0), "top must be between 1 and 200"),
        (("a", "", None, 1.0, 2.5), "top must be a whole number"),
        (("a", "", "12", 1.0, 5), "off must be a list"),
    ],
)
def test_errors_are_one_line(client: Client, arguments: tuple, line: str) -> None:
    with pytest.raises(Exception, match=line) as raised:
        client.predict(*arguments, api_name="/search")
    assert "Traceback" not in str(raised.value) and "\n" not in str(raised.value).strip()


def test_example_of_the_guide_prints_three_results(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (Path(__file__).parents[2] / "explorer" / "GUIDE.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (block,) = (block for block in blocks if "http://127.0.0.1:7860" in block)
    exec(block.replace("http://127.0.0.1:7860", url), {})
    reported = capsys.readouterr().out.strip().splitlines()
    assert len([line for line in reported if re.match(r"-?\d\.\d{3} \S", line)]) == 3


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("never", (1.0, True, 0.5)),
        ("never:0.2", (1.0, True, 0.2)),
        (0.25, (0.25, False, 0.5)),
        ("1", (1.0, False, 0.5)),
    ],
)
def test_strictness_is_a_number_or_never(value: object, read: tuple[float, bool, float]) -> None:
    assert read_strictness(value) == read  # type: ignore[arg-type]
