"""Test that a custom name of a dimension is shown everywhere."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Sieve, fault

from sieve.explorer.annotations.store import attach_annotations
from sieve.explorer.app import build_app
from sieve.explorer.errors import json_errors
from sieve.explorer.figures import Recipe
from sieve.explorer.figures.drawing import draw_figure
from sieve.explorer.serialize import page_json, query_json
from sieve.explorer.tabs.annotations import AnnotationHandlers
from sieve.explorer.tabs.dimensions import table_view
from sieve.explorer.tabs.search import SearchHandlers, item_view
from sieve.model.dimensions.concepts import Concepts

MINE = "a name of mine"
EDITS = {"notes_write", "notes_import", "search_save", "search_rename", "search_delete"}


@pytest.fixture
def engine(tiny_engine, home: Path):  # noqa: ARG001
    """The tiny engine with the annotations of this test only."""
    return copy.copy(tiny_engine)


@pytest.fixture
def handlers(engine, tmp_path: Path) -> SearchHandlers:
    return SearchHandlers(engine, tmp_path)


def proposed(engine) -> int:
    return engine.encode("a circle", "the snow").proposed[0]


def test_name_appears_on_every_screen_at_once_despite_caches(
    engine, handlers: SearchHandlers
) -> None:
    notes = attach_annotations(engine)
    j = proposed(engine)
    payload = {"q": "a circle", "without": "the snow", "list": True}
    before = handlers.ask(payload)
    version = notes.write(j, "name", MINE, 0).field.version
    after = handlers.ask(payload)
    assert {row["d"]: row["name"] for row in after["dimensions"]}[j] == MINE
    assert after["names"][str(j)] == MINE
    assert {part["dimension"]: part["name"] for part in query_json(handlers.encode("the snow"))[
        "dimensions"]}[j] == MINE  # fmt: skip
    item = str(engine.collection.items["id"].iloc[engine.image_codes.postings(j)[0][0]])
    assert {part["dimension"]: part["name"] for part in item_view(engine, item)["code"]}[j] == MINE
    assert table_view(engine)["name"][j] == MINE
    page = page_json(engine.dimension(j))
    assert (page["name"], page["suggested"]) == (MINE, engine.checkpoint.name_of(j))
    near = page["coactive"][0]["dimension"]
    others = engine.dimension(near).coactive
    assert {one.name for one in others if one.dimension == j} <= {MINE}
    notes.write(j, "name", "", version)
    again = handlers.ask(payload)
    assert {**again, "seconds": 0} == {**before, "seconds": 0}


def test_encoder_metrics_use_its_own_names(engine) -> None:
    from sieve.model.interpretability import naming_report

    before = naming_report(engine)
    attach_annotations(engine).write(0, "name", MINE, 0)
    table = engine.dimension_table()
    assert (table["name"][0], table["name_source"][0]) == (MINE, "person")
    assert naming_report(engine) == before


def test_figure_uses_custom_names_and_its_recipe_reproduces_it(engine) -> None:
    j = proposed(engine)
    rows = [{"query": "a circle", "without": "the snow"}, {"dimension": j}]
    short = Recipe.from_json({"rows": rows})
    plain = draw_figure(engine, short, "svg")
    notes = attach_annotations(engine)
    version = notes.write(j, "name", MINE, 0).field.version
    notes.write((j + 1) % engine.checkpoint.m, "note", "no name", 0)
    mine = draw_figure(engine, short, "svg")
    assert MINE.encode() in mine.data and MINE.encode() not in plain.data
    assert mine.recipe.names == {j: MINE} and plain.recipe.names == {}
    # Independently of later names, also after a JSON round trip.
    notes.write(j, "name", "another", version)
    for drawn in (plain, mine):
        recipe = Recipe.from_json(json.loads(json.dumps(drawn.recipe.as_json())))
        assert draw_figure(engine, recipe, "svg").data == drawn.data
    old = {name: value for name, value in plain.recipe.as_json().items() if name != "names"}
    assert draw_figure(engine, Recipe.from_json(old), "svg").data == plain.data


def test_figure_names_an_off_dimension_that_does_not_lead_its_concept(engine) -> None:
    engine.concepts = Concepts(np.zeros(engine.checkpoint.m, np.int32))
    rows = [{"query": "a circle", "off": [3]}]
    for names in ({"3": MINE}, {"0": "the concept", "3": MINE}):
        drawn = draw_figure(engine, Recipe.from_json({"rows": rows, "names": names}), "svg")
        assert MINE.encode() in drawn.data and drawn.recipe.names == {3: MINE}
    both = Recipe.from_json({"rows": [{"query": "a circle", "off": [3, 4]}], "names": names})
    drawn = draw_figure(engine, both, "svg")
    assert b"the concept" in drawn.data and drawn.recipe.names == {0: "the concept"}


@pytest.mark.parametrize("names", [[], {"x": "a"}, {"1": 7}, {"-1": "a"}])
def test_names_in_a_recipe_are_validated(names: object) -> None:
    with pytest.raises(ValueError, match="names|text"):
        Recipe.from_json({"rows": [{"query": "a"}], "names": names})


def test_read_only_page_has_no_writing_handler(engine) -> None:
    def handlers(editing: bool) -> set[str]:
        app = build_app(engine, public=not editing)
        return {name for block in app.blocks.values() for name in getattr(block, "server_fns", [])
                or [] for name in [name.__name__.removeprefix("sieve_")]}  # fmt: skip

    attach_annotations(engine).write(3, "name", MINE, 0)
    assert handlers(True) >= EDITS | {"notes_state"}
    assert handlers(False) & EDITS == set() and "notes_state" in handlers(False)
    state = AnnotationHandlers(engine, editing=False).notes_state(None)
    assert (state["editing"], state["marks"]["3"]["name"]) == (False, MINE)


@pytest.mark.parametrize(
    "payload",
    [None, [], {}, {"dimension": "x"}, {"dimension": 3, "version": 0, "field": "rank", "value": ""},
     {"dimension": 3, "field": "name", "value": "x"}, {"dimension": 1 << 40, "version": 0},
     {"dimension": 64, "field": "name", "value": "x", "version": 0}],
)  # fmt: skip
def test_invalid_writes_are_rejected(engine, payload: object) -> None:
    handlers = AnnotationHandlers(engine)
    for handler in handlers.all()[3:]:
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            handler(payload)
    assert handlers.annotations.all() == {}


def test_unreadable_annotations_are_reported_on_the_page(engine, home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "annotations").write_text("a file where a folder should be")
    handlers = AnnotationHandlers(engine)
    saved = handlers.for_page(3)
    assert saved["suggested"] == engine.checkpoint.name_of(3)
    assert handlers.notes_state(None)["fault"].startswith("notes cannot be saved: ")
    assert engine.name_of(3) == engine.checkpoint.name_of(3)


def test_public_page_shows_names_but_no_notes_or_saved_searches(engine) -> None:
    saved = attach_annotations(engine)
    saved.write(3, "name", MINE, 0)
    saved.write(3, "note", "SECRET", 0)
    saved.write(4, "note", "SECRET", 0)
    saved.searches.save("SECRET", "?q=a+circle")
    own, strangers = AnnotationHandlers(engine), AnnotationHandlers(engine, editing=False)
    requested: list[tuple[str, dict[str, object]]] = [("notes_state", {})]
    requested += [("notes_of", {"dimension": j}) for j in (3, 4)]
    requested += [("notes_export", {"kind": kind}) for kind in ("json", "csv")]
    for handler, payload in requested:
        assert "SECRET" in json.dumps(getattr(own, handler)(payload))
        assert "SECRET" not in json.dumps(getattr(strangers, handler)(payload))
    assert "SECRET" not in json.dumps(strangers.for_page(3))
    assert strangers.notes_state(None)["marks"] == {"3": {"name": MINE}}
    assert MINE in strangers.notes_export({"kind": "csv"})["text"]


def test_public_page_shows_no_path_if_annotations_are_unreadable(engine, home: Path) -> None:
    (home / "annotations").mkdir(parents=True)
    handlers = AnnotationHandlers(engine, editing=False)
    handlers.annotations.write(3, "name", MINE, 0)
    (file,) = (home / "annotations").iterdir()
    file.write_bytes(b"no database" * 100)
    requested = [handlers.notes_state, handlers.notes_of, handlers.notes_export]
    for reported in (
        json_errors(handler)({"dimension": 3, "kind": "csv"}) for handler in requested
    ):
        assert reported == {"error": "Notes cannot be read here."}
    assert handlers.for_page(3)["fault"] == "notes cannot be read here"


def test_command_line_exports_imports_and_shows_names(
    sieve: Sieve, tmp_path: Path, tiny_collection, tiny_checkpoint
) -> None:
    opened = (tiny_collection.path, "--checkpoint", tiny_checkpoint.path)
    file, out = tmp_path / "notes.csv", tmp_path / "out.json"
    file.write_text(f'dimension,name,tags,starred\n3,{MINE},"b, a",true\n4,\'=x,,\n')
    command = ("annotations", "import", tiny_collection.path, file, *opened[1:])
    dry = sieve(*command, "--dry-run")
    assert f"3 name: nothing → “{MINE}”\n" in dry.out
    assert dry.out.endswith("1 star to import, 0 unchanged (nothing was changed)\n")
    assert sieve(*command).out == dry.out.replace(" (nothing was changed)", "")
    assert sieve(*command, "--json").data["changes"] == 0
    output = sieve("annotations", "export", tiny_collection.path, out, *opened[1:])
    assert output.out == f"{out}: 2 dimensions\n"
    assert [one["name"] for one in json.loads(out.read_text())["dimensions"]] == [MINE, "=x"]
    listed = sieve("dimensions", *opened, "--json").data
    assert (listed[3]["name"], listed[3]["name_source"]) == (MINE, "person")
    found = sieve("search", opened[0], "a circle", "--off", "3", "--json", *opened[1:]).data
    assert found["off"][0]["name"] == MINE


def test_command_line_errors_are_one_line(
    sieve: Sieve, tmp_path: Path, tiny_collection, tiny_checkpoint
) -> None:
    end = ("--checkpoint", tiny_checkpoint.path)
    bad = tmp_path / "bad.csv"
    bad.write_text("dimension,name\n9999,x\n")
    command = ("annotations", "import", tiny_collection.path)
    assert "line 2: there is no dimension 9999" in fault(sieve(*command, bad, *end))
    assert "there is no file" in fault(sieve(*command, tmp_path / "none.json", *end))
    other = bad.rename(tmp_path / "x.txt")
    assert "a file of annotations must end in .json or .csv" in fault(sieve(*command, other, *end))
    command = ("annotations", "export", tiny_collection.path)
    assert "there is no folder" in fault(sieve(*command, tmp_path / "no" / "x.csv", *end))
