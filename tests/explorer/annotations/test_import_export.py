"""Test exports and imports of annotations: lossless, safe in spreadsheets, and validated."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.import_export import (
    Origin,
    apply_plan,
    export_text,
    plan_import,
    read_annotation_file,
    write_csv,
)
from sieve.explorer.annotations.store import Annotations, Field, read_field

M = 64
ORIGIN = Origin("squares", "codes", "c" * 64, "d" * 64)
LINK = "?q=a+dog&collection=squares&checkpoint=codes"


def opened(folder: Path, name: str = "notes") -> Annotations:
    return Annotations(Database(folder / f"{name}.sqlite", "c" * 64, "d" * 64), M)


def take(store: Annotations, data: bytes, kind: str, *, replace: bool = False):
    plan = plan_import(read_annotation_file(data, kind, M), store, ORIGIN, replace=replace)
    return plan, apply_plan(plan, store)


@pytest.fixture
def full(tmp_path: Path) -> Annotations:
    store = opened(tmp_path)
    store.write(9, "name", "=HYPERLINK()", 0)
    store.write(2, "note", 'two\nlines, “quoted”, "so"', 0)
    store.write(2, "tags", "b, a", 0)
    store.write(2, "starred", True, 0)
    gone = store.write(5, "name", "gone", 0).field
    store.write(5, "name", "", gone.version)
    store.searches.save("a dog", LINK)
    return store


def test_json_is_deterministic_with_one_dimension_per_line(full: Annotations) -> None:
    text = export_text(full, ORIGIN, "json")
    assert text == export_text(full, ORIGIN, "json")
    lines = [line.strip().rstrip(",") for line in text.splitlines() if '"dimension":' in line]
    assert [json.loads(line)["dimension"] for line in lines] == [2, 9]
    assert json.loads(text)["dimensions"][0]["tags"] == ["a", "b"]
    assert json.loads(text)["searches"][0]["link"] == LINK


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_export_and_import_round_trip(full: Annotations, tmp_path: Path, kind: str) -> None:
    text = export_text(full, ORIGIN, kind)
    other = opened(tmp_path, "other")
    plan, left = take(other, text.encode(), kind)
    assert left == () and len(plan.changes) == 4 and not plan.kept
    assert export_text(other, ORIGIN, kind) == text
    again, _ = take(other, text.encode(), kind)
    assert (again.changes, again.same, again.searches) == ((), 4, ())


def test_cells_are_not_formulas(full: Annotations) -> None:
    text = export_text(full, ORIGIN, "csv")
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert "'=HYPERLINK()" in cells
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))]


@given(
    st.sampled_from(["name", "note"]), st.text(max_size=80) | st.from_regex(r"'{0,3}[=+@-].{0,9}")
)
def test_any_text_round_trips_through_csv(field: str, text: str) -> None:
    value = read_field(field, text[:80])
    saved = {7: {field: Field(value, 1, "2026-01-31T12:00:00.000Z")}}
    stated = read_annotation_file(write_csv(saved).encode(), "csv", M).values
    assert [(one.dimension, one.field, one.value) for one in stated] == (
        [(7, field, value)] if value else []
    )


def test_summary_counts_each_kind_of_field(tmp_path: Path) -> None:
    plan, _ = take(opened(tmp_path), b"dimension,name,tags\n1,dog,a\n2,,a;b\n", "csv")
    assert plan.summary() == "1 name, 2 sets of tags to import, 0 unchanged"


def test_newer_local_values_are_preserved_unless_replaced(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write(1, "name", "here", 0)
    old = b"dimension,name,name_changed\n1,file,2020-01-01T00:00:00Z\n2,new,\n"
    plan, _ = take(store, old, "csv")
    assert store.names() == {1: "here", 2: "new"}
    assert plan.summary() == "1 name to import, 0 unchanged; 1 newer value kept"
    assert plan.lines() == ["1 name: “here” kept instead of “file”", "2 name: nothing → “new”"]
    take(store, old, "csv", replace=True)
    assert store.names() == {1: "file", 2: "new"}
    newer = b"dimension,name,name_changed\n1,later,2024-01-01T00:00:00+02:00\n"
    take(store, newer, "csv")
    assert store.names()[1] == "later"
    assert store.of(1)["name"].changed == "2023-12-31T22:00:00.000Z"


def test_future_timestamps_are_limited_to_now(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write(1, "name", "here", 0)
    take(store, b"dimension,name,name_changed\n1,file,9999-01-01T00:00:00Z\n", "csv")
    assert store.of(1)["name"].changed < "9000"


def test_local_deletion_is_newer_than_older_import(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write(1, "name", "", store.write(1, "name", "x", 0).field.version)
    take(store, b"dimension,name,name_changed\n1,x,2020-01-01T00:00:00Z\n", "csv")
    assert store.names() == {}


def test_values_changed_after_the_preview_are_preserved(tmp_path: Path) -> None:
    store = opened(tmp_path)
    plan = plan_import(read_annotation_file(b"dimension,name\n1,file\n", "csv", M), store, ORIGIN)
    store.write(1, "name", "edited", 0)
    (note,) = apply_plan(plan, store)
    assert note.startswith("1 value not imported")
    assert store.names() == {1: "edited"}


def test_annotations_of_another_checkpoint_or_collection_are_rejected(
    full: Annotations, tmp_path: Path
) -> None:
    given = read_annotation_file(export_text(full, ORIGIN, "json").encode(), "json", M)
    other = opened(tmp_path, "other")
    with pytest.raises(ValueError, match="whose dimensions are different ones"):
        plan_import(given, other, ORIGIN._replace(checkpoint_sha256="e" * 64))
    plan = plan_import(given, other, ORIGIN._replace(collection_sha256="e" * 64))
    assert plan.searches == () and "another collection" in plan.notes[0]


def test_search_with_an_invalid_link_is_skipped(tmp_path: Path) -> None:
    links = ["javascript:alert(1)", "?q=x&off=999", "?tab=train", LINK]
    searches = [{"name": "s", "link": link} for link in links]
    data = json.dumps({"sieve_annotations": 1, "searches": searches}).encode()
    store = opened(tmp_path)
    plan, _ = take(store, data, "json")
    assert len(plan.notes) == 3
    assert [search.link for search in store.searches.all()] == [LINK]


def test_search_without_a_valid_name_is_skipped(
    tmp_path: Path,
) -> None:
    searches = [{"name": name, "link": LINK} for name in ("", "n" * 121, "a", "b")]
    data = json.dumps({"sieve_annotations": 1, "searches": searches}).encode()
    store = opened(tmp_path)
    plan, left = take(store, data, "json")
    assert (len(plan.notes), left) == (2, ())
    assert [search.name for search in store.searches.all()] == ["a"] and len(plan.searches) == 1


HOSTILE = {
    b"\xff\xfe\x00": "not UTF-8",
    b"{": "invalid JSON",
    b"[" * 100_000: "invalid JSON",
    b"[]": "must be a JSON object",
    b"{}": "sieve_annotations is required",
    b'{"sieve_annotations": 1, "rows": []}': "has no field 'rows'",
    b'{"sieve_annotations": 1, "dimensions": {}}': "dimensions must be a list",
    b'{"sieve_annotations": 1, "dimensions": [7]}': "entry 1: an entry must be a JSON object",
    b'{"sieve_annotations": 1, "dimensions": [{"dimension": 64}]}': "there is no dimension 64",
    b'{"sieve_annotations": 1, "dimensions": [{"dimension": true}]}': "entry 1: dimension must",
    b'{"sieve_annotations": 1, "dimensions": [{"dimension": 1, "tags": 3}]}': "tags must be a",
    b'{"sieve_annotations": 1, "dimensions": [{"dimension": 1, "name": "x", "name_changed": "?"}]}':
        "must be a time",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_invalid_json_gives_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=HOSTILE[data]) as raised:
        read_annotation_file(data, "json", M)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


HOSTILE_CSV = {
    b"": "must have a column",
    b"name\nx\n": "must have a column",
    b"dimension,colour\n1,red\n": "has no field 'colour'",
    b"dimension,name\n1,a,b\n": "line 2: more cells than columns",
    b"dimension,name\nx,a\n": "line 2: a dimension is a whole number",
    b"dimension,name\n1,a\n1,b\n": "line 3: dimension 1 occurs twice",
    b'dimension,name\n1,"a': "this is not CSV",
    b"dimension,name\n1," + b"x" * 200_000 + b"\n": "this is not CSV",
    b"dimension,name\n1," + b"x" * 81 + b"\n": "line 2: a name has 81 characters",
    b"dimension,starred\n1,maybe\n": "line 2: starred must be one of",
}


@pytest.mark.parametrize("data", HOSTILE_CSV, ids=range(len(HOSTILE_CSV)))
def test_invalid_csv_gives_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=HOSTILE_CSV[data]) as raised:
        read_annotation_file(data, "csv", M)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
