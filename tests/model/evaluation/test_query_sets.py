"""Test exclusion queries from files: formats, item names, and bad rows named by line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from collection_files import write_collection
from conftest import WIDTH

from sieve.model.collection import BackboneIdentity, Collection
from sieve.model.evaluation.query_sets import judged_pairs, read_queries

NEGBENCH = """positive_objects,negative_objects,filepath,image_id,captions
"['person', 'cup']","['chair', 'fork']",/data/val2017/0001.jpg,1,"['A man is baking, but there is no chair in sight.', 'No fork is present, but a baker rolls out dough.', 'A man bakes.']"
"['person', 'chair']",['car'],/data/val2017/0002.jpg,2,"[""A man sits, his dog's bed beside him; no car is near.""]"
"""  # noqa: E501


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Six items whose files are 0001.jpg and so on; the last two are not test items."""
    path = write_collection(
        tmp_path_factory.mktemp("queries") / "six",
        BackboneIdentity("words", "ff" * 32, WIDTH),
        name="six",
        captions=[["a dog"]] * 6,
        images=np.eye(6, WIDTH),
        texts=np.eye(6, WIDTH),
        files=[f"/photos/{number:04}.jpg" for number in range(1, 7)],
        split=["test"] * 4 + ["train"] * 2,
    )
    return Collection.open(path)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_judgments_by_id_and_by_file_name(collection: Collection, tmp_path: Path) -> None:
    ids = collection.items["id"].tolist()
    rows = [
        {"query": "a dog", "without": "a beach", "relevant": [ids[0], "0002.jpg"],
         "violating": ["/elsewhere/0003.jpg"]},
        {"query": "a cat", "without": ["snow", "the night"], "relevant": [ids[1], ids[4], "lost"]},
        {"query": "a cow", "without": "snow", "relevant": [ids[5]], "id": "not used"},
    ]  # fmt: skip
    path = write(tmp_path, "q.jsonl", "\n\n".join(map(json.dumps, rows)))
    pairs, notes = judged_pairs(read_queries(path), collection, np.arange(4))
    assert pairs.relevant.tolist() == [[True, True, False, False], [False, True, False, False]]
    assert pairs.violating.tolist() == [[False, False, True, False], [False] * 4]
    assert pairs.literal == ("a dog without a beach", "a cat without snow or the night")
    assert pairs.phrases == (("a beach",), ("snow", "the night"))
    assert pairs.b_names == ("beach", "snow or night")
    assert notes == (
        "1 judged items are not in the collection: lost.",
        f"2 judged items are not ranked, because they are not in the test split: {ids[4]}, "
        f"{ids[5]}.",
        "1 queries have no relevant test item and are left out: “a cow”.",
    )


def test_topics_with_qrels(collection: Collection, tmp_path: Path) -> None:
    ids = collection.items["id"].tolist()
    plain = "7\ta dog without a beach\n8\ta cat but not on a bed\n9\ta cow without snow\n"
    sgml = (
        "<top>\n<num> Number: 7\n<title> a dog without a beach\n<desc> unused\n</top>\n"
        "<top>\n<num>8</num>\n<title>\na cat but not on a bed\n</top>\n"
        "<top><num>9\n<title>a cow without snow</title>\n</top>"
    ).replace("<top><num>9", "<top>\n<num>9")
    qrels = write(
        tmp_path, "q.qrels",
        f"7 0 {ids[0]} 1\n7 0 {ids[1]} 0\n7\t0\t{ids[2]}\t-1\n8 0 0004.jpg 2\n\n9 0 {ids[3]} -1\n",
    )  # fmt: skip
    for text in (plain, sgml):
        found = read_queries(write(tmp_path, "topics.txt", text), qrels)
        assert found.notes == ("1 topics have no relevant item in the qrels and are left out: 9.",)
        pairs = judged_pairs(found, collection, np.arange(4)).pairs
        assert (pairs.a, pairs.b) == (("a dog", "a cat"), ("a beach", "a bed"))
        assert pairs.literal == ("a dog without a beach", "a cat but not on a bed")
        assert [np.flatnonzero(row).tolist() for row in pairs.relevant] == [[0], [3]]
        assert [np.flatnonzero(row).tolist() for row in pairs.violating] == [[2], []]


def test_negbench_captions_are_split_at_the_negated_object(
    collection: Collection, tmp_path: Path
) -> None:
    found = read_queries(write(tmp_path, "coco.csv", NEGBENCH))
    pairs, notes = judged_pairs(found, collection, np.arange(4))
    assert pairs.a == (
        "A man is baking", "a baker rolls out dough", "A man sits, his dog's bed beside him",
    )  # fmt: skip
    assert pairs.b == ("chair", "fork", "car")
    assert pairs.literal[1] == "No fork is present, but a baker rolls out dough."
    assert [np.flatnonzero(row).tolist() for row in pairs.relevant] == [[0], [0], [1]]
    assert [np.flatnonzero(row).tolist() for row in pairs.violating] == [[1], [], []]
    assert notes == (
        "1 captions of coco.csv name no negative object beside another clause, and are left out.",
    )


@pytest.mark.parametrize(
    ("name", "text", "qrels", "lines"),
    [
        ("q.jsonl", '{"query": "a dog", "without": "x", "relevant": ["a"]}\n{"query": "b"}\n[]',
         None, ["q.jsonl:2: without is required", "q.jsonl:3: it must be a JSON object"]),
        ("q.jsonl", '{"query": " ", "without": "x", "relevant": ["a"]}', None,
         ['q.jsonl:1: query must have words, such as a beach; got " "; expected {']),
        ("q.jsonl", '{"query": "a", "without": {"b": 1}, "relevant": ["a"]}', None,
         ["q.jsonl:1: without must be a string; got a JSON object"]),
        ("q.jsonl", '{"query": "a", "without": "b", "relevant": "a"}', None,
         ['q.jsonl:1: relevant must be a list; got "a"']),
        ("q.jsonl", '{"query": "a", "without": "x", "relevant": ["z"], "violating": ["z"]}', None,
         ["q.jsonl:1: z is both relevant and violating"]),
        ("q.jsonl", "{" * 100_000, None, ["q.jsonl:1: "]),
        ("q.jsonl", "", None, ["has no queries"]),
        ("t.tsv", "7 a dog without snow\n8\ta dog", "7 0 a 1\n7 0 a\n",
         ["t.qrels:2: expected four", "t.tsv:1: expected the id", "t.tsv:2: expected a text"]),
        ("n.csv", "filepath,captions\n", None, ["n.csv:1: lacks the columns positive_objects"]),
        ("n.csv", NEGBENCH.replace("['car']", "__import__('os').getcwd()"), None,
         ["n.csv:3: expected lists of texts"]),
        ("n.csv", NEGBENCH.replace("/data/val2017/0002.jpg", ""), None, ["n.csv:3: expected the"]),
    ],
)  # fmt: skip
def test_bad_rows_are_named(
    tmp_path: Path, name: str, text: str, qrels: str | None, lines: list[str]
) -> None:
    path = write(tmp_path, name, text)
    judged = write(tmp_path, "t.qrels", qrels) if qrels else None
    with pytest.raises(ValueError, match=r"expected") as error:
        read_queries(path, judged)
    message = str(error.value)
    assert "\n" not in message and len(message) < 1200
    assert [line for line in lines if line not in message] == []


def test_queries_without_a_relevant_item_are_refused(
    collection: Collection, tmp_path: Path
) -> None:
    path = write(tmp_path, "q.jsonl", '{"query": "a", "without": "b", "relevant": ["nowhere"]}')
    with pytest.raises(ValueError, match=r"no query of q.jsonl has .* 4 test items .*: nowhere"):
        judged_pairs(read_queries(path), collection, np.arange(4))


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b'{}\n{"query": "caf\xe9"}')
    with pytest.raises(ValueError, match=r"q.jsonl:2: expected UTF-8"):
        read_queries(path)
