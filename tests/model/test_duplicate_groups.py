from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import write_word_collection

from sieve.model.checksums import write_checksums
from sieve.model.collection import DUPLICATES, MANIFEST, Collection, file_sha256
from sieve.model.duplicates import duplicate_groups, evaluation_rows, n_dropped

COLUMNS = ("id", "image", "duplicate_of", "duplicate_of_image", "kind", "cosine")


def with_duplicates(folder: Path, pairs: list[tuple[int, int, str]]) -> Collection:
    """Write `duplicates.csv` into a collection: (row, row that it resembles, kind)."""
    ids = Collection.open(folder).items["id"].tolist()
    with (folder / DUPLICATES).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows((ids[row], "", ids[of], "", kind, "0.99") for row, of, kind in pairs)
    return with_file(folder, DUPLICATES)


def with_file(folder: Path, name: str) -> Collection:
    """Put a file's size and hash into the manifest."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    facts = {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
    manifest["files"][name] = facts
    path.write_text(json.dumps(manifest))
    write_checksums(folder, [MANIFEST])
    return Collection.open(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 items: rows 9 and 19 are in the test split, 8 and 18 in select."""
    return write_word_collection(tmp_path / "words", n=20)


def test_copies_of_copies_are_one_group(folder: Path) -> None:
    made = with_duplicates(
        folder, [(3, 1, "same"), (7, 3, "near"), (12, 7, "same"), (9, 5, "same")]
    )
    groups = duplicate_groups(made, near=True).tolist()
    assert [groups[row] for row in (1, 3, 7, 12)] == [1, 1, 1, 1]
    assert groups[9] == 5 and groups[4] == 4
    same = duplicate_groups(made).tolist()
    assert [same[row] for row in (1, 3, 7, 12)] == [1, 1, 7, 7]


def test_without_the_file_every_item_stands_alone(folder: Path) -> None:
    assert duplicate_groups(Collection.open(folder)).tolist() == list(range(20))


def test_items_that_resemble_an_earlier_split_are_not_evaluated(folder: Path) -> None:
    made = with_duplicates(folder, [(9, 2, "near"), (19, 18, "same"), (8, 3, "same")])
    assert made.rows_of_split(["select"]).tolist() == [8, 18]
    assert evaluation_rows(made, "select").tolist() == [18]
    assert evaluation_rows(made, "test").tolist() == []
    assert n_dropped(made, "test") == 2
    assert evaluation_rows(made, "train").tolist() == made.rows_of_split(["train"]).tolist()


@pytest.mark.parametrize(
    "content",
    ["id,kind\nx,same\n", "id,duplicate_of,kind\n0000000000000000,1,same\n", "id,\xff\nx,y\n"],
)
def test_a_damaged_list_is_refused_in_a_line(folder: Path, content: str) -> None:
    (folder / DUPLICATES).write_bytes(content.encode("latin-1"))
    made = with_file(folder, DUPLICATES)
    with pytest.raises(ValueError, match=r"duplicates.csv is damaged .*prepare the collection"):
        duplicate_groups(made)
