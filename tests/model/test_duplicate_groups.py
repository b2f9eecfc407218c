from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import WordBackbone, write_word_collection

from sieve.model.benchmark.run import check_no_overlap
from sieve.model.collection import DUPLICATES, MANIFEST, Collection, file_sha256
from sieve.model.duplicates import duplicate_groups, evaluation_rows, n_dropped
from sieve.model.evaluation.pairs import PairCriteria, track_pairs
from sieve.model.files import write_checksums
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.data import TrainingData
from sieve.model.words.nouns import benchmark_nouns

COLUMNS = ("id", "image", "duplicate_of", "duplicate_of_image", "kind", "cosine")


def with_duplicates(folder: Path, pairs: list[tuple[int, int, str]]) -> Collection:
    """Write `duplicates.csv` to a collection: (row, row of the similar item, kind)."""
    ids = Collection.open(folder).items["id"].tolist()
    with (folder / DUPLICATES).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows((ids[row], "", ids[of], "", kind, "0.99") for row, of, kind in pairs)
    return with_file(folder, DUPLICATES)


def with_file(folder: Path, name: str) -> Collection:
    """Write a file's size and hash to the manifest."""
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


def test_without_the_file_every_item_is_its_own_group(folder: Path) -> None:
    assert duplicate_groups(Collection.open(folder)).tolist() == list(range(20))


def test_near_duplicates_of_an_earlier_split_are_not_evaluated(folder: Path) -> None:
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
def test_damaged_list_is_rejected_with_one_line(folder: Path, content: str) -> None:
    (folder / DUPLICATES).write_bytes(content.encode("latin-1"))
    made = with_file(folder, DUPLICATES)
    with pytest.raises(ValueError, match=r"duplicates.csv is damaged .*prepare the collection"):
        duplicate_groups(made)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """1,500 items; 30 test and 5 select items duplicate train items, 40 train items each other."""
    folder = write_word_collection(tmp_path_factory.mktemp("l") / "w", 1500, select=12, test=7)
    made = Collection.open(folder)
    train, select, test = (made.rows_of_split([s]).tolist() for s in ("train", "select", "test"))
    pairs = [(row, train[0], "near") for row in test[:20]]
    pairs += [(train[5], row, "same") for row in test[20:30]]
    pairs += [(row, train[9], "same") for row in select[:5]]
    pairs += [(row, train[100], "same") for row in train[101:141]]
    return with_duplicates(folder, pairs)


def test_benchmark_uses_only_items_without_training_duplicates(leaky: Collection) -> None:
    requested = track_pairs(
        leaky, "label", benchmark_nouns(), PairCriteria(relevant=5, violating=3)
    )
    test, select = leaky.rows_of_split(["test"]), leaky.rows_of_split(["select"])
    assert requested.report.rows.tolist() == test[30:].tolist()
    assert requested.tuning.rows.tolist() == select[5:].tolist()
    scored = leaky.items["id"].iloc[requested.report.rows[:1]].tolist()
    check_no_overlap(leaky, leaky.items["id"].iloc[test[:30]].tolist(), "x")  # they are not scored
    with pytest.raises(ValueError, match="trained on 1 of the"):
        check_no_overlap(leaky, scored, "x")


def test_training_treats_equal_images_as_one_item(leaky: Collection) -> None:
    config = TrainingConfig(batch_size=64, kinds=False)
    data = TrainingData(leaky, WordBackbone().encode_texts, config)
    first, *copies = leaky.rows_of_split(["train"])[100:141].tolist()
    seen = np.concatenate([data.batch(step).items.numpy() for step in range(data.steps_per_epoch)])
    assert not set(seen) & set(copies)
    assert (seen == first).sum() > 80  # three captions each
    stated = {
        word for row in (first, *copies) for text in leaky.items["captions"].iloc[row]
        for word in text.replace(" and ", " ").split() if word in data.words.words
    }  # fmt: skip
    present = data.words.presence[[first]].toarray()[0] > 0
    assert {word for word, there in zip(data.words.words, present, strict=True) if there} == stated
