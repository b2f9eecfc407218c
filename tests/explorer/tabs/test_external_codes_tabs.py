"""Test external codes on the command line and in the handlers of the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Sieve
from tiny_codes import write_codes

from sieve.explorer.tabs.dimensions import page_view, table_view
from sieve.explorer.tabs.search import SearchHandlers
from sieve.model.engine import SearchEngine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_codes(tmp_path / "splice")


@pytest.fixture
def engine(sieve: Sieve, folder: Path, tmp_path: Path) -> SearchEngine:
    assert sieve("prepare", "codes", folder, "--images", folder / "photos").code == 0
    return SearchEngine.open(tmp_path / "home" / "collections" / "splice")


def test_external_codes_can_be_prepared_and_searched(sieve: Sieve, folder: Path) -> None:
    made = sieve("prepare", "codes", folder, "--images", folder / "photos", "--json")
    facts = json.loads(made.out)
    assert (facts["items"], facts["captions"], facts["backbone"]) == (6, 7, None)
    found = sieve("search", "splice", "a dog but not on a beach", "--json")
    report = json.loads(found.out)
    assert [result["captions"][0] for result in report["results"]] == [
        "a dog", "a dog in snow", "a dog and a cat", "a dog on a beach", "a cat on a beach",
        "a beach",
    ]  # fmt: skip
    assert [off["name"] for off in report["off"]] == ["beach"]
    output = json.loads(sieve("info", "splice", "--json").out)
    assert (output["dimensions"], output["live"], output["asked_by"]) == (4, 4, "texts, items")
    listed = json.loads(sieve("dimensions", "splice", "--json").out)
    assert [row["name"] for row in listed] == ["dog", "beach", "snow", "cat"]
    summary = json.loads(sieve("dimensions", "splice", "--summary", "--json").out)
    assert summary["naming"]["given"] == 4


def test_other_file_names_can_be_set(sieve: Sieve, folder: Path, tmp_path: Path) -> None:
    renamed = {
        "image_codes.npz": "i.npz", "text_codes.npz": "t.npz", "word_codes.npz": "w.npz",
        "words.txt": "v.txt", "names.txt": "n.txt", "items.csv": "table.csv",
    }  # fmt: skip
    for old, new in renamed.items():
        (folder / old).rename(folder / new)
    assert "there is no image_codes.npz" in sieve("prepare", "codes", folder).err
    made = sieve(
        *("prepare", "codes", folder, "--image-codes", "i.npz", "--text-codes", folder / "t.npz"),
        *("--word-codes", "w.npz", "--words", "v.txt", "--names", "n.txt", "--items", "table.csv"),
        *("--out", tmp_path / "made"),
    )
    assert made.code == 0, made.err
    assert "a dog on a beach" in sieve("search", tmp_path / "made", "beach").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "splice"), "has no backbone: it can be explored and searched, but not trained"),
        (("evaluate", "splice"), "has no backbone"),
        (("add", "splice", "FOLDER"), "has no backbone"),
        (("search", "splice", "--image", "FOLDER/0.jpg"), "no backbone that could encode an image"),
        (("search", "splice", "xylophone"), "no word of “xylophone” has a code in this collection"),
        (("info", "splice", "--checkpoint", "photos"), "leave out --checkpoint"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_unsupported_operations_are_rejected_with_one_line(
    sieve: Sieve, engine: SearchEngine, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert engine.can.text_queries
    photos = str(folder / "photos")
    output = sieve(*(argument.replace("FOLDER", photos) for argument in arguments))
    assert output.code == 1 and message in output.err and output.err.count("\n") == 1, output


def test_code_is_loaded_only_with_allow_code(
    sieve: Sieve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_encoder.py").write_text(
        "open('ran', 'w')\ndef encode(texts): return [[0, 1, 0, 0] for _ in texts]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = write_codes(tmp_path / "splice", words=False)
    bad = sieve("prepare", "codes", folder, "--text-encoder", "rm -rf")
    assert bad.code == 1 and "expected package.module:function" in bad.err
    assert sieve("prepare", "codes", folder, "--text-encoder", "their_encoder:encode").code == 0
    closed = sieve("search", "splice", "the sea")
    assert closed.code == 1 and "if you trust it, start Sieve with --allow-code" in closed.err
    assert not (tmp_path / "ran").exists()
    opened = sieve("search", "splice", "the sea", "-k", "1", "--allow-code", "--json")
    assert (tmp_path / "ran").exists()
    assert json.loads(opened.out)["results"][0]["captions"] == ["a beach"]


def test_handlers_report_the_supported_queries(engine: SearchEngine, tmp_path: Path) -> None:
    handlers = SearchHandlers(engine, tmp_path)
    handlers.warm_up()
    about = handlers.about()
    assert about["backbone"] == ""
    assert about["can"]["text_queries"] and not about["can"]["image_queries"]
    answer = handlers.ask({"q": "a dog", "compare": True, "list": True})
    assert answer["dense"] is None and len(answer["results"]) == 4
    assert [row["name"] for row in answer["dimensions"]] == ["dog"]
    for example in about["examples"]:
        assert engine.understands(example["q"]) and engine.understands(example["without"])


def test_pages_offer_only_words_with_codes(engine: SearchEngine) -> None:
    assert page_view(engine, engine.dimension(2))["search"] == "snow"
    assert table_view(engine)["mono"] == [None] * 4


def test_page_works_for_codes_without_words(sieve: Sieve, tmp_path: Path) -> None:
    folder = write_codes(tmp_path / "mute", texts=False, words=False)
    assert sieve("prepare", "codes", folder).code == 0
    engine = SearchEngine.open(tmp_path / "home" / "collections" / "mute")
    handlers = SearchHandlers(engine, tmp_path)
    assert handlers.about()["examples"] == []
    assert "search by an item" in handlers.open("?q=a+dog")["error"]
    assert page_view(engine, engine.dimension(0))["search"] == ""
    assert table_view(engine)["texts"] == [None] * 4
    json.dumps(table_view(engine), allow_nan=False)
    json.dumps(page_view(engine, engine.dimension(0)), allow_nan=False)
