"""Test recipes: minimal ones, round trips and one-line errors for invalid ones."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve.explorer import components
from sieve.explorer.figures import MARKS, STYLES, Recipe, Row, parse_recipe, read_recipe
from sieve.explorer.figures import write_recipe as write

SHORT = {
    "collection": "scenes",
    "rows": [{"query": "a dog"}, {"query": "a dog", "without": "a beach"}],
    "columns": 6,
    "width_cm": 17,
}
texts = st.text(max_size=40).map(lambda text: " ".join(text.split())).filter(str.isprintable)
off = st.none() | st.sets(st.integers(0, 2000), max_size=5).map(lambda js: tuple(sorted(js)))
strictness = st.sampled_from(("never", "never:0.2")) | st.floats(0, 1)
some_rows = st.one_of(
    st.builds(Row, query=texts.filter(bool), without=texts, off=off, strictness=strictness),
    st.builds(Row, image=st.from_regex(r"[0-9a-f]{16}", fullmatch=True), without=texts, off=off),
    st.builds(Row, dimension=st.integers(0, 2000)),
    st.builds(
        Row,
        dimensions=st.lists(st.integers(0, 2000), min_size=1, max_size=9, unique=True).map(tuple),
    ),
)
recipes = st.builds(
    Recipe,
    rows=st.lists(some_rows, min_size=1, max_size=4).map(tuple),
    columns=st.integers(1, 24),
    width_cm=st.floats(3, 42),
    marks=st.sets(st.sampled_from(MARKS)).map(lambda m: tuple(x for x in MARKS if x in m)),
    tiles=st.sampled_from(("crop", "whole")),
    caption=texts,
    font_size=st.floats(4, 24),
)


def test_minimal_recipe_is_valid() -> None:
    recipe = Recipe.from_json(SHORT)
    assert recipe.rows == (Row("a dog"), Row("a dog", without="a beach"))
    assert (recipe.columns, recipe.width_cm, recipe.font_size) == (6, 17, 8)


@given(recipes)
def test_recipe_round_trips(recipe: Recipe) -> None:
    assert parse_recipe(write(recipe)) == recipe


@pytest.mark.parametrize(
    ("given", "cm"),
    [
        ({"width": "one column"}, 8.46),
        ({"width": "two columns"}, 17.78),
        ({"width_in": 7}, 17.78),
        ({"style": "neurips"}, 13.97),
        ({"style": "acl page", "width_in": 5}, 12.7),
        ({}, 17.78),
    ],
    ids=str,
)
def test_width_units_are_parsed(given: dict, cm: float) -> None:
    assert Recipe.from_json({"rows": [{"query": "a"}], **given}).width_cm == pytest.approx(cm)


def test_page_offers_the_styles() -> None:
    page = (files(components) / "figure_editor.html").read_text()
    assert sorted(re.findall(r'<option data-style="([a-z ]+)">', page)) == sorted(STYLES)


def test_styles_set_the_font_unless_it_is_given() -> None:
    recipe = Recipe.from_json({"rows": [{"query": "a"}], "style": "acl column", "font_size": 7})
    assert (recipe.width_cm, recipe.font, recipe.font_size) == (7.7, "serif", 7)


def with_row(**row: object) -> dict:
    return {"rows": [{"query": "a", **row}]}


HOSTILE = {
    "list": ([], "a recipe must be a JSON object; got []"),
    "nothing": ({}, "rows must have at least 1 item"),
    "unknown field": (SHORT | {"colums": 3}, "a recipe has no field 'colums'; it has: caption,"),
    "unknown in row": (with_row(strict=1), "row 1 has no field 'strict'"),
    "rows no list": ({"rows": "a dog"}, "rows must be a list; got 'a dog'"),
    "row no object": ({"rows": ["a dog"]}, "row 1: it must be a JSON object; got 'a dog'"),
    "10,000 rows": ({"rows": [{"query": "a"}] * 10_000}, "rows must have at most 40 items"),
    "two things": (
        with_row(dimension=3),
        "row 1: a row needs exactly one of query, image, dimension, dimensions, sample, "
        "difference; got query, dimension",
    ),
    "no thing": ({"rows": [{"without": "x"}]}, "row 1: a row needs exactly one of query"),
    "dimensions no list": (
        {"rows": [{"dimensions": "17, 20"}]}, "row 1: dimensions must be a list; got '17, 20'"
    ),
    "dimensions empty": (
        {"rows": [{"dimensions": []}]}, "row 1: dimensions must have at least 1 item; got []"
    ),
    "41 dimensions": (
        {"rows": [{"dimensions": list(range(41))}]}, "row 1: dimensions must have at most 40 items"
    ),
    "dimension of several": (
        {"rows": [{"query": "a"}, {"dimensions": [17, -1]}]},
        "row 2.dimension 2: a dimension is a whole number of at least 0; got -1",
    ),
    "dimension twice": (
        {"rows": [{"dimensions": [17, 20, 17]}]}, "row 1: dimensions must differ; 17 is listed"
    ),
    "dimensions without": (
        {"rows": [{"dimensions": [17], "without": "x"}]}, 'row 1: a row with "dimensions" cannot'
    ),
    "50 dimensions": (
        {"rows": [{"dimensions": list(range(25))}, {"sample": 25}]},
        "a figure has at most 40 rows; got 50",
    ),
    "one set": ({"rows": [{"difference": ["label:dog"]}]}, "row 1: difference must be two sets"),
    "style": (SHORT | {"style": "icml"}, "style must be one of acl column, "),
    "huge columns": (SHORT | {"columns": 10**9}, "columns must be less than or equal to 24; got"),
    "huger columns": (SHORT | {"columns": 10**400}, "columns must be less than or equal to 24"),
    "no columns": (SHORT | {"columns": 0}, "columns must be greater than or equal to 1; got 0"),
    "half columns": (SHORT | {"columns": 2.5}, "columns must be a whole number; got 2.5"),
    "columns true": (SHORT | {"columns": True}, "columns must be a whole number; got True"),
    "NaN width": (SHORT | {"width_cm": float("nan")}, "width_cm must be a finite number; got nan"),
    "wide": (SHORT | {"width_cm": 1e308}, "width_cm must be less than or equal to 42; got 1e+308"),
    "negative": ({**with_row(), "width_in": -7}, "width_cm must be greater than or equal"),
    "two widths": (SHORT | {"width_in": 3}, "give one width, not both width_cm and width_in"),
    "preset": ({**with_row(), "width": "<b>"}, "width must be one of one column"),
    "mark": (SHORT | {"marks": ["violations", "<i>"]}, "mark 2: it must be 'violations', 'names'"),
    "marks": (SHORT | {"marks": "names"}, "marks must be a list; got 'names'"),
    "tiles": (SHORT | {"tiles": ["crop"]}, "tiles must be 'crop', 'whole' or 'focus'; got"),
    "tile": (SHORT | {"tiles": "<b>"}, "tiles must be 'crop', 'whole' or 'focus'; got '<b>'"),
    "size": (SHORT | {"font_size": 400}, "font_size must be less than or equal to 24; got 400"),
    "label": (SHORT | {"label": "a}\\input{/etc/passwd"}, "label must be 1 to 80 letters, digits"),
    "hash": (SHORT | {"checkpoint": "../../x"}, "checkpoint must be a hash, or at least"),
    "long text": (with_row(without="x" * 10_000), "row 1: without must have at most"),
    "query number": ({"rows": [{"query": 3}]}, "row 1: query must be a string; got 3"),
    "strictness": (with_row(strictness=2), "row 1: strictness must be a number "),
    "strict NaN": (with_row(strictness=float("nan")), "row 1: strictness must be a number"),
    "off text": (with_row(off="1,2"), "row 1: off must be a list of dimensions"),
    "off null": (with_row(off=[None]), "row 1: dimension must be a number; got None"),
    "off negative": (with_row(off=[-1]), "row 1: a dimension is a whole number of at least 0"),
    "dimension": ({"rows": [{"dimension": -4}]}, "row 1: a dimension is a whole number"),
    "dimension off": (
        {"rows": [{"dimension": 4, "off": [1]}]},
        'row 1: a row with "dimension" cannot have',
    ),
    "image": ({"rows": [{"image": "../../etc"}]}, "row 1: image must be the ID of an image"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_invalid_recipes_are_one_line(name: str) -> None:
    value, line = HOSTILE[name]
    with pytest.raises(ValueError) as raised:
        Recipe.from_json(value)
    message = str(raised.value)
    assert message.startswith(line)
    assert "\n" not in message and len(message) < 300


def test_text_is_normalised() -> None:
    recipe = parse_recipe('{"rows": [{"query": "a\\u0000 dog\\n\\ud800 <b>"}]}')
    assert recipe.rows[0].query == "a dog ? <b>"
    assert json.loads(write(recipe))["rows"] == [{"query": "a dog ? <b>"}]


def test_other_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    with pytest.raises(FileNotFoundError, match="there is no recipe .*recipe.json; give the path"):
        read_recipe(path)
    for data, line in (
        (b"{rows: 3}", "recipe.json: invalid JSON: "),
        (b"\xff\xfe", "recipe.json: "),
        (b"[" * 100_000, "recipe.json: invalid JSON: "),
        (b" " * (2 << 20), "is larger than a recipe can be"),
        (b'{"rows": []}', "recipe.json: rows must have at least 1 item"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError) as raised:
            read_recipe(path)
        assert line in str(raised.value) and "\n" not in str(raised.value)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SHORT).encode())
    assert read_recipe(path) == Recipe.from_json(SHORT)
