"""Test file names in results and the folding of duplicate images."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Sieve, fault
from PIL import Image

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.folder import Folder
from sieve.data_prep.sources.img2dataset import Img2Dataset
from sieve.explorer.tabs.search import SearchHandlers
from sieve.model.engine import SearchEngine
from sieve.model.explain import explain

N_COPIES = 4


@pytest.fixture(scope="module")
def folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures in two folders, with four copies of 004.png, one of them a JPEG."""
    out = tmp_path_factory.mktemp("photos") / "photos"
    shutil.copytree(pictures / "images", out / "first one")
    copies = out / "copies"
    copies.mkdir()
    source = out / "first one" / "004.png"
    for number in range(N_COPIES - 1):
        shutil.copy(source, copies / f"copy {number}.png")
    Image.open(source).convert("RGB").save(copies / "again.jpg", quality=98, subsampling=0)
    return out


@pytest.fixture(scope="module")
def engine(
    folder: Path, tiny_backbone, tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> SearchEngine:
    made = prepare(
        Folder(folder), tiny_backbone, tmp_path_factory.mktemp("c") / "photos", progress=False
    )
    return SearchEngine.open(made.path, tiny_checkpoint.path, "cpu")


@pytest.fixture
def opened(engine: SearchEngine) -> tuple[object, ...]:
    return engine.collection.path, "--checkpoint", engine.checkpoint.path


GROUP = {"first one/004.png", "copies/again.jpg", *(f"copies/copy {n}.png" for n in range(3))}


def files(found: list[dict]) -> list[str]:
    return [one["file"] for one in found]


def test_copies_share_one_result(sieve: Sieve, opened: tuple) -> None:
    plain = sieve("search", *opened, "a circle", "-k", "60", "--json").data["results"]
    every = sieve("search", *opened, "a circle", "-k", "64", "--copies", "--json").data["results"]
    assert len(GROUP & set(files(every))) == len(GROUP)
    assert all(one["copies"] == [] for one in every)
    (shown,) = [one for one in plain if one["file"] in GROUP]
    assert {shown["file"], *files(shown["copies"])} == GROUP
    assert shown["file"] == next(one["file"] for one in every if one["file"] in GROUP)
    rest = [one["id"] for one in every if one["file"] not in GROUP]
    assert [one["id"] for one in plain if one is not shown] == rest


@pytest.mark.parametrize("top", [1, 5, 24])
def test_folding_preserves_the_number_of_results(sieve: Sieve, opened: tuple, top: int) -> None:
    found = sieve("search", *opened, "a square", "-k", top, "--off", "3", "--json").data
    assert len(found["results"]) == top
    assert len(sieve("search", *opened, "a square", "-k", top, "--copies").out.splitlines()) >= top


def test_item_query_does_not_return_its_copies(
    sieve: Sieve, opened: tuple, engine: SearchEngine
) -> None:
    row = list(engine.collection.items["image"].str.endswith("004.png")).index(True)
    item = engine.collection.items["id"].iloc[row]
    found = sieve("search", *opened, "--item", item, "-k", "60", "--json").data["results"]
    assert not GROUP & set(files(found))
    unfolded = sieve("search", *opened, "--item", item, "-k", "64", "--copies", "--json").data
    assert GROUP & set(files(unfolded["results"])) == GROUP - {"first one/004.png"}


def test_ranks_of_explanations_ignore_copies(engine: SearchEngine) -> None:
    query = engine.encode("a circle")
    results = engine.search(query, top=60).results
    for one in results[::7]:
        found = explain(engine, query, one.id, results[0].id)
        assert found.left.rank == one.rank
        assert found.ranked == len(results)


def test_text_output_shows_files_and_counts(sieve: Sieve, opened: tuple) -> None:
    out = sieve("search", *opened, "a circle", "-k", "60").out
    (line,) = [line for line in out.splitlines() if f"+{N_COPIES} copies" in line]
    assert any(name in line for name in GROUP)


def test_exports_list_the_copies(sieve: Sieve, opened: tuple, tmp_path: Path) -> None:
    asks = ("--query", "a circle", "-k", "60", "--off", "3,5", "--strictness", "0.5")
    for kind in ("csv", "parquet"):
        path = tmp_path / f"r.{kind}"
        assert sieve("export", opened[0], "results", "-o", path, *opened[1:], *asks).code == 0
    rows = list(csv.DictReader((tmp_path / "r.csv").open(newline="")))
    (shown,) = [row for row in rows if row["file"] in GROUP]
    assert {shown["file"], *json.loads(shown["copies"])} == GROUP
    assert {(row["off"], row["strictness"]) for row in rows} == {("[3, 5]", "0.5")}
    (arrow,) = [row for row in pq.read_table(tmp_path / "r.parquet").to_pylist() if row["copies"]]
    assert {arrow["file"], *arrow["copies"]} == GROUP
    assert (arrow["off"], arrow["strictness"]) == ([3, 5], "0.5")
    path = tmp_path / "all.csv"
    sieve("export", opened[0], "results", "-o", path, *opened[1:], *asks, "--copies")
    unfolded = [row["file"] for row in csv.DictReader(path.open(newline=""))]
    assert len(GROUP & set(unfolded)) > 1


def test_paths_output_is_machine_readable(sieve: Sieve, opened: tuple, folder: Path) -> None:
    given = sieve("search", *opened, "a circle", "-k", "9", "--paths").out.splitlines()
    found = sieve("search", *opened, "a circle", "-k", "9", "--json").data["results"]
    assert given == [str(folder / one["file"]) for one in found]
    ends = sieve("search", *opened, "a circle", "-k", "9", "--paths", "-0").out
    assert ends.split("\0") == [*given, ""]
    listed = subprocess.run(
        ["xargs", "-0", "ls", "--"], input=ends, capture_output=True, text=True, check=True
    )
    assert sorted(listed.stdout.splitlines()) == sorted(given)
    assert "not both" in fault(sieve("search", *opened, "a circle", "--paths", "--json"))


def test_only_the_original_image_is_printed_as_path(
    sieve: Sieve, folder: Path, tiny_backbone, tiny_checkpoint, tmp_path: Path
) -> None:
    """A replaced file, or a file named by a malicious collection, is not returned."""
    moved = tmp_path / "moved"
    shutil.copytree(folder / "first one", moved)
    made = prepare(Folder(moved), tiny_backbone, tmp_path / "c", progress=False)
    (moved / "000.png").write_text("a key")
    Image.new("RGB", (10, 10)).save(moved / "001.png")
    (moved / "002.png").unlink()
    arguments = ("--checkpoint", tiny_checkpoint.path, "-k", "60", "--paths")
    out = sieve("search", made.path, "a circle", *arguments).out.splitlines()
    names = {os.path.basename(path): path for path in out}
    assert {names[f"00{n}.png"] for n in range(3)} & set(out) == {"000.png", "001.png", "002.png"}
    assert names["003.png"] == str(moved / "003.png")


def test_page_shows_file_names_but_no_paths(
    engine: SearchEngine, folder: Path, tmp_path: Path
) -> None:
    handlers = SearchHandlers(engine, tmp_path, public=True)
    answers = [handlers.ask({"item": item}) for item in engine.collection.items["id"][:20]]
    shown = [one for each in answers for one in each["results"] if one["file"] in GROUP]
    assert shown and {shown[0]["file"], *files(shown[0]["copies"])} == GROUP
    item = handlers.item(shown[0]["id"])
    assert item["file"] == shown[0]["file"]
    assert {item["file"], *files(item["copies"])} == GROUP
    assert str(folder) not in json.dumps([answers, item, handlers.open("")])


def test_items_of_shards_show_their_key(
    sieve: Sieve, pictures: Path, tiny_backbone, tiny_checkpoint, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "00003.tar", "w") as tar:
        for number in range(12):
            tar.add(pictures / "images" / f"{number:03}.png", f"00003{number:04}.png")
    made = prepare(Img2Dataset(shards), tiny_backbone, tmp_path / "c", progress=False)
    found = sieve(
        "search", made.path, "a circle", "--checkpoint", tiny_checkpoint.path, "-k", "12", "--json"
    ).data["results"]
    assert found and set(files(found)) <= {f"00003.tar/00003{n:04}" for n in range(12)}
