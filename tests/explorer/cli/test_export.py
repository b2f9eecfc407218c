"""Test that `sieve export` writes the engine's data and that exported codes can be prepared."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import Sieve, fault
from scipy.sparse import load_npz

from sieve.explorer.annotations.store import attach_annotations
from sieve.model.exclusion import Strictness


@pytest.fixture
def opened(tiny_collection, tiny_checkpoint) -> tuple:
    return (tiny_collection.path, "--checkpoint", tiny_checkpoint.path)


def export(sieve: Sieve, what: str, out: Path, opened: tuple, *more: object) -> dict:
    collection, *checkpoint = opened
    answer = sieve("export", collection, what, "-o", out, *checkpoint, *more, "--json")
    assert answer.code == 0, answer.err
    return answer.data


def test_results_are_the_same_in_all_formats(
    sieve: Sieve, opened: tuple, tiny_engine, tmp_path: Path
) -> None:
    asks = ("--query", "a circle", "--without", "the snow", "--strictness", "never", "-k", 7)
    for kind in ("csv", "json", "parquet"):
        export(sieve, "results", tmp_path / f"r.{kind}", opened, *asks)
    query = tiny_engine.encode("a circle", "the snow")
    outcome = tiny_engine.search(query, strictness=Strictness(never=True), top=7)
    ids = [result.id for result in outcome.results]
    table = list(csv.DictReader((tmp_path / "r.csv").open(encoding="utf-8", newline="")))
    whole = json.loads((tmp_path / "r.json").read_text("utf-8"))
    arrow = pq.read_table(tmp_path / "r.parquet")
    assert [row["id"] for row in table] == ids
    assert [row["id"] for row in whole["results"]] == arrow["id"].to_pylist() == ids
    assert arrow["rank"].to_pylist() == list(range(1, len(ids) + 1))
    assert {row["query"] for row in table} == {"a circle"} and table[0]["without"] == "the snow"
    assert json.loads(table[0]["captions"]) == list(outcome.results[0].captions)
    assert json.loads(table[0]["contributions"]) == whole["results"][0]["contributions"]
    assert whole["off"] == [off.dimension for off in outcome.off] and whole["strictness"] == "never"
    about = json.loads(arrow.schema.metadata[b"sieve"])
    assert about["checkpoint_sha256"] == tiny_engine.checkpoint.sha256
    assert about["off"] == whole["off"]
    for row, result, found in zip(table, whole["results"], outcome.results, strict=True):
        assert row["file"] == result["file"] == found.file
        assert json.loads(row["off"]) == whole["off"] and row["strictness"] == "never"
    assert arrow["off"].to_pylist() == [whole["off"]] * len(ids)
    assert set(arrow["strictness"].to_pylist()) == {"never"}
    assert arrow["file"].to_pylist() == [row["file"] for row in table]


def test_exported_codes_can_be_prepared_again(
    sieve: Sieve, opened: tuple, tiny_engine, tmp_path: Path
) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    output = export(sieve, "codes", folder / "image_codes.npz", opened)
    export(sieve, "codes", folder / "text_codes.npz", opened, "--captions")
    assert output["rows"] == tiny_engine.image_codes.n
    matrix = load_npz(folder / "image_codes.npz")
    assert (matrix != tiny_engine.image_codes.by_row).nnz == 0
    items = tiny_engine.collection.path / "items.parquet"
    out = tmp_path / "again"
    answer = sieve("prepare", "codes", folder, "--items", items, "--out", out, "--json")
    assert answer.code == 0, answer.err
    from sieve.model.collection import Collection
    from sieve.model.engine import SearchEngine

    again = SearchEngine.open(Collection.open(out).path)
    assert np.allclose(
        again.image_codes.by_row.toarray(), tiny_engine.image_codes.by_row.toarray(), atol=1e-6
    )
    assert again.text_codes.by_row.nnz == tiny_engine.text_codes.by_row.nnz


def test_long_format_codes_have_item_dimension_and_value(
    sieve: Sieve, opened: tuple, tiny_engine, tmp_path: Path
) -> None:
    export(sieve, "codes", tmp_path / "codes.parquet", opened)
    table = pq.read_table(tmp_path / "codes.parquet").to_pandas()
    assert list(table.columns) == ["row", "id", "dimension", "value"]
    dimensions, values = tiny_engine.image_codes.row(5)
    of_item = table[table["id"].astype(str) == tiny_engine.collection.items["id"].iloc[5]]
    assert of_item["dimension"].tolist() == dimensions.tolist()
    assert np.allclose(of_item["value"], values)


def test_exported_items_have_a_map_neighbours_concepts_and_images(
    sieve: Sieve, opened: tuple, tiny_engine, tmp_path: Path
) -> None:
    out = tmp_path / "items.parquet"
    assert export(sieve, "items", out, opened)["rows"] == 60
    table = pq.read_table(out)
    rows = table.to_pylist()
    items, codes = tiny_engine.collection.items, tiny_engine.image_codes.by_row
    assert [row["id"] for row in rows] == items["id"].tolist()
    assert rows[0]["text"] == "\n".join(items["captions"][0]) and rows[0]["file"] == "000.png"
    assert all(max(abs(row["x"]), abs(row["y"])) <= 1 for row in rows)
    assert len({(row["x"], row["y"]) for row in rows}) > 10
    cosines = (codes @ codes.T).toarray()
    for at, row in enumerate(rows):
        near = row["neighbors"]
        assert at not in near["ids"] and near["distances"] == sorted(near["distances"])
        assert near["distances"] == pytest.approx(1 - cosines[at, near["ids"]], abs=1e-5)
    strongest = tiny_engine.names().concept(int(codes[[0]].toarray().argmax()))[1]
    assert strongest in rows[0]["concepts"] and rows[0]["concept"] == rows[0]["concepts"][0]
    assert rows[0]["activations"] == sorted(rows[0]["activations"], reverse=True)
    assert rows[0]["activations"][-1] >= 0.1 * rows[0]["activations"][0] > 0
    shown = tiny_engine.thumbnail(rows[0]["id"]).read_bytes()
    assert rows[0]["image"] == {"bytes": shown, "path": "000.png"}
    assert json.loads(table.schema.metadata[b"sieve"])["collection"] == "tiny"
    message = fault(sieve("export", opened[0], "items", "-o", tmp_path / "items.csv"))
    assert message == f"{tmp_path}/items.csv: a file of items must end in .parquet"


def test_embedding_atlas_reads_exported_items(
    sieve: Sieve, opened: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = pytest.importorskip("embedding_atlas.cli")
    from click.testing import CliRunner

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out, site = tmp_path / "items.parquet", tmp_path / "site"
    collection, *checkpoint = opened
    printed = sieve("export", collection, "items", "-o", out, *checkpoint).out
    _, *arguments = shlex.split(printed.splitlines()[1].removeprefix("Open it with: "))
    # With a column of ranks, it does not compile a function that computes them.
    more = ["--degree", "--pagerank", "x", "--export-application", str(site)]
    opened_by_atlas = CliRunner().invoke(cli.main, [*arguments, *more])
    assert opened_by_atlas.exit_code == 0, opened_by_atlas.output
    known = json.loads((site / "data" / "metadata.json").read_text())["props"]["data"]
    assert known["projection"] == {"x": "x", "y": "y"} and known["features"] == "concepts"
    table = pq.read_table(site / "data" / "dataset.parquet").to_pandas()
    assert (len(table), set(table["out_degree"])) == (60, {10})
    assert table["image"][0]["bytes"][:4] == b"RIFF"


def test_exported_names_are_not_formulas(
    sieve: Sieve, opened: tuple, tiny_engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sieve.model.engine import SearchEngine

    table = tiny_engine.dimension_table()
    monkeypatch.setattr(
        SearchEngine, "dimension_table", lambda _: table.assign(name='=HYPERLINK("x")')
    )
    for kind in ("csv", "json", "parquet"):
        output = export(sieve, "dimensions", tmp_path / f"d.{kind}", opened)
        assert output["rows"] == 64
    text = (tmp_path / "d.csv").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {row["name"] for row in rows} == {'\'=HYPERLINK("x")'}
    assert [float(row["mean"]) for row in rows] == pytest.approx(table["mean"].tolist())
    whole = json.loads((tmp_path / "d.json").read_text("utf-8"))["dimensions"]
    assert len(whole) == 64 and whole[0]["name"] == '=HYPERLINK("x")'
    assert pq.read_table(tmp_path / "d.parquet").num_rows == 64
    printed = sieve("dimensions", opened[0], *opened[1:], "--csv").out
    assert "'=HYPERLINK" in printed


@pytest.mark.parametrize(
    ("what", "name", "more", "line"),
    [
        ("results", "r.csv", (), "nothing to search for"),
        (
            "results",
            "r.npz",
            ("--query", "a"),
            "a file of results must end in .csv, .json or .parquet",
        ),
        ("codes", "c.csv", (), "a file of codes must end in .npz or .parquet"),
        ("codes", "c.npz", ("--query", "a"), "remove the query options"),
        ("dimensions", "no/d.csv", (), "there is no folder"),
        ("dimensions", "d.csv", ("--captions",), "--captions requires codes"),
    ],
)
def test_errors_are_one_line_and_leave_no_files(
    sieve: Sieve, opened: tuple, tmp_path: Path, what: str, name: str, more: tuple, line: str
) -> None:
    collection, *checkpoint = opened
    message = fault(sieve("export", collection, what, "-o", tmp_path / name, *checkpoint, *more))
    assert line in message
    assert not list(tmp_path.glob("[!h]*"))


def test_private_umask_makes_all_files_private(
    sieve: Sieve, opened: tuple, tiny_engine, tmp_path: Path, home: Path
) -> None:
    shutil.rmtree(home)  # which the fixture created
    before = os.umask(0o077)
    try:
        export(sieve, "codes", tmp_path / "codes.npz", opened)
        attach_annotations(tiny_engine).write(1, "name", "mine", 0)
        tiny_engine.renamed = dict
    finally:
        os.umask(before)
    made = [*home.rglob("*"), home, tmp_path / "codes.npz"]
    assert {path.suffix for path in made} >= {".npz", ".sqlite", ".npy", ".parquet"}
    assert not [path for path in made if path.stat().st_mode & 0o077]
