"""Test that every command works on embeddings without their backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from command_line import CommandResult, Sieve, fault
from unavailable_backbone import BACKBONE, PLACES, text_of, write_embeddings

from sieve.explorer.tabs.benchmark import EvaluationManager
from sieve.explorer.tabs.search import SearchHandlers
from sieve.model.backbone.checked_files import BackboneUnavailable
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.engine import SearchEngine
from sieve.model.text_encoder import CaptionEncoder

REASON = f"unknown backbone '{BACKBONE}'"
REMEDY = "--text-encoder NAME"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A prepared collection, and a checkpoint that was trained on it."""
    from sieve.explorer.cli import main

    folder = tmp_path_factory.mktemp("own")
    files = write_embeddings(folder / "files")
    for command in (
        ("prepare", "embeddings", files, "--backbone", BACKBONE, "--out", folder / "own"),
        ("train", folder / "own", "--out", folder / "codes", "--m", "64", "--k", "8"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, command)))
        assert not ended.value.code, command
    return folder / "own", folder / "codes"


def captions(answer: CommandResult) -> list[str]:
    assert answer.code == 0, answer.err
    return [result["captions"][0] for result in answer.data["results"]]


def search(sieve: Sieve, artifacts: tuple[Path, Path], *query: str | Path) -> CommandResult:
    collection, checkpoint = artifacts
    return sieve("search", collection, *query, "--checkpoint", checkpoint, "--json")


def test_training_reports_the_text_encoder(artifacts: tuple[Path, Path]) -> None:
    training = json.loads((artifacts[1] / "training.json").read_text())
    assert training["words_by"] == "captions of the train split"
    quality = training["quality"]
    assert quality["codes"]["recall@10"] >= 0.8 * quality["backbone"]["recall@10"] > 0
    names = {entry["name"] for entry in json.loads((artifacts[1] / "names.json").read_text())}
    assert names >= {"dog", "cat", "horse", "boat", *PLACES}


def test_search_uses_words_of_captions(sieve: Sieve, artifacts: tuple[Path, Path]) -> None:
    found = search(sieve, artifacts, "a dog", "-k", "20")
    assert all("dog" in caption for caption in captions(found))
    (note,) = found.data["notes"]
    assert REASON in note and REMEDY in note
    without = search(sieve, artifacts, "a dog", "--without", "a beach", "-k", "15")
    assert all("dog" in text and "beach" not in text for text in captions(without))
    animals = search(sieve, artifacts, "animals", "-k", "20")
    assert not any("boat" in caption for caption in captions(animals))


def test_text_equal_to_a_caption_gets_its_embedding(artifacts: tuple[Path, Path]) -> None:
    engine = SearchEngine.open(*artifacts)
    thing, place = text_of(54)
    caption = list(engine.collection.caption_texts).index(f"a {thing} on a {place}, seen 54 times")
    own = engine.collection.text_embeddings[caption]
    for text in (
        f"a {thing} on a {place}, seen 54 times",
        f"{thing} ON THE {place} — seen 54 times.",
    ):
        np.testing.assert_allclose(engine.encode_text(text).embedding, own, atol=2e-3)


def test_search_by_item_works(sieve: Sieve, artifacts: tuple[Path, Path]) -> None:
    item = Collection.open(artifacts[0]).items.iloc[0]
    found = search(sieve, artifacts, "--item", item["id"], "-k", "5")
    thing, place = text_of(int(item["image"].split(".")[0]))
    assert all(thing in text and place in text for text in captions(found))
    assert found.data["notes"] == []


def test_unknown_words_are_reported(sieve: Sieve, artifacts: tuple[Path, Path]) -> None:
    found = search(sieve, artifacts, "a dog and a quokka", "--without", "a xylophone", "-k", "5")
    assert found.data["off"] == []
    assert all("dog" in caption for caption in captions(found))
    assert {"quokka", "xylophone"} <= {
        word for note in found.data["notes"] for word in ("quokka", "xylophone") if word in note
    }
    collection, checkpoint = artifacts
    line = fault(sieve("search", collection, "a quokka", "--checkpoint", checkpoint))
    assert "quokka" in line and REASON in line and REMEDY in line


def test_every_other_command_works_or_explains(
    sieve: Sieve, artifacts: tuple[Path, Path], tmp_path: Path
) -> None:
    collection, checkpoint = artifacts
    opened = (collection, "--checkpoint", checkpoint)
    assert sieve("info", *opened, "--json").data["asked_by"] == "texts, items"
    assert len(sieve("dimensions", *opened, "--json").data) == 64
    summary = sieve("dimensions", *opened, "--summary", "--json").data
    assert summary["naming"]["words"] >= len(PLACES)
    results = sieve("export", collection, "results", "--query", "a cat", "-o",
                    tmp_path / "cats.json", "--checkpoint", checkpoint)  # fmt: skip
    assert results.code == 0, results.err
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"collection": str(collection), "rows": [{"query": "a cat"}]}))
    drawn = sieve("figure", recipe, "-o", tmp_path / "cats.png", "--checkpoint", checkpoint)
    assert drawn.code == 0, drawn.err
    line = fault(sieve("evaluate", *opened, "--quick"))
    assert REASON in line and REMEDY in line
    (tmp_path / "more").mkdir()
    added = fault(sieve("add", collection, tmp_path / "more"))
    assert REASON in added


def test_attached_function_encodes_texts(sieve: Sieve, artifacts: tuple[Path, Path]) -> None:
    named = ("--text-encoder", "unavailable_backbone:embed_texts")
    line = fault(sieve("search", artifacts[0], "a dog", "--checkpoint", artifacts[1], *named))
    assert "--allow-code" in line
    found = search(sieve, artifacts, "a dog", *named, "--allow-code", "-k", "20")
    assert all("dog" in caption for caption in captions(found))
    assert found.data["notes"] == []
    wide = ("--text-encoder", "unavailable_backbone:wide_texts", "--allow-code")
    line = fault(sieve("search", artifacts[0], "a dog", "--checkpoint", artifacts[1], *wide))
    assert "(1, 33)" in line and "(1, 32)" in line


def test_attached_backbone_must_match(
    sieve: Sieve, artifacts: tuple[Path, Path], tiny_backbone_dir: Path
) -> None:
    fits = ("--text-encoder", f"local-dir:{tiny_backbone_dir}")  # width 32, as the embeddings
    assert search(sieve, artifacts, "a dog", *fits).code == 0
    other = ("--text-encoder", "sieve-lite")
    line = fault(sieve("search", artifacts[0], "a dog", "--checkpoint", artifacts[1], *other))
    assert "has 512 dimensions, but the collection's embeddings have 32" in line


def test_different_known_weights_are_rejected(
    sieve: Sieve, opened: tuple, tiny_backbone_dir: Path
) -> None:
    assert (
        sieve("search", *opened, "red", "--text-encoder", f"local-dir:{tiny_backbone_dir}").code
        == 0
    )
    assert "does not fit" in fault(sieve("search", *opened, "red", "--text-encoder", "sieve-lite"))


def test_page_reports_the_text_encoder(artifacts: tuple[Path, Path], tmp_path: Path) -> None:
    engine = SearchEngine.open(*artifacts)
    handlers = SearchHandlers(engine, tmp_path)
    can = handlers.about()["can"]
    assert can["text_queries"] and can["texts_by_captions"] and not can["image_queries"]
    assert REASON in can["no_image"]
    answer = handlers.ask({"q": "a dog", "without": "a beach", "compare": True, "list": True})
    assert "dog" in answer["results"][0]["captions"][0] and len(answer["dense"]) == 24
    assert REASON in EvaluationManager(engine.collection).refusal()


def test_collection_without_captions_is_searched_by_items(
    sieve: Sieve, artifacts: tuple[Path, Path], tmp_path: Path
) -> None:
    files = write_embeddings(tmp_path / "mute")
    (files / "text_features.npy").unlink()
    assert (
        sieve("prepare", "embeddings", files, "--backbone", BACKBONE, "--out", tmp_path / "m").code
        == 0
    )
    opened = (tmp_path / "m", "--checkpoint", artifacts[1])
    line = fault(sieve("search", *opened[:1], "a dog", *opened[1:]))
    assert REASON in line and REMEDY in line
    item = Collection.open(tmp_path / "m").items["id"].iloc[0]
    assert sieve("search", *opened[:1], "--item", item, *opened[1:]).code == 0
    assert SearchEngine.open(tmp_path / "m", artifacts[1]).can.no_text


def test_backbone_that_fails_to_load_is_tried_once(artifacts: tuple[Path, Path]) -> None:
    """Simulate weights that are not on this machine, which only loading can detect."""
    tried = []

    def offline() -> NoReturn:
        tried.append(1)
        raise BackboneUnavailable("no connection; try again later")

    collection = Collection.open(artifacts[0])
    engine = SearchEngine(collection, Checkpoint.load(artifacts[1]), open_backbone=offline)
    for text in ("a dog", "a cat"):
        assert "no connection" in engine.encode(text).notes[-1]
    assert engine.can.texts_by_captions and len(tried) == 1


@pytest.mark.parametrize("name", ["ViT-B-32/openai", "ViT-B-32", "ViT-B/32", "sieve-lite"])
def test_impossible_width_for_the_model_is_rejected(
    sieve: Sieve, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing may be loaded to compare widths")

    monkeypatch.setattr("sieve.data_prep.sources.embeddings.Backbone.load", never)
    files = write_embeddings(tmp_path / "files")
    line = fault(sieve("prepare", "embeddings", files, "--backbone", name, "--out", tmp_path / "x"))
    assert "32 wide" in line and "512" in line


def test_text_is_encoded_as_the_mean_direction_of_its_words() -> None:
    corners = np.eye(4, dtype=np.float32)
    encoder = CaptionEncoder(["a dog", "a cat", "a dog and a cat", "grass"], corners)
    mean = corners.mean(0)
    np.testing.assert_allclose(encoder.encode_texts(["The dog!"])[0], corners[0])
    (dogs,) = encoder.encode_texts(["dogs"])
    np.testing.assert_allclose(np.linalg.norm(dogs), 1, rtol=1e-6)
    wanted = corners[[0, 2]].mean(0) - mean
    np.testing.assert_allclose(
        (dogs - mean) / np.linalg.norm(dogs - mean), wanted / np.linalg.norm(wanted), atol=1e-6
    )
    assert encoder.unknown_words("a dog and a quokka") == ["quokka"]
    assert encoder.unknown_words("a photo of grass") == []
    assert not encoder.reads("a quokka") and encoder.reads("an animal")


def test_notes_contain_no_local_path(artifacts: tuple[Path, Path], tmp_path: Path) -> None:
    def gone() -> NoReturn:
        raise BackboneUnavailable(
            f"backbone 'local-dir:{tmp_path}/own': no folder at {tmp_path}/own"
        )

    engine = SearchEngine(
        Collection.open(artifacts[0]), Checkpoint.load(artifacts[1]), open_backbone=gone
    )
    handlers = SearchHandlers(engine, tmp_path, public=True)
    handlers.ask({"q": "a dog"})
    answer = handlers.ask({"q": "a dog", "list": True})
    assert answer["reading_note"] and answer["notes"] == []
    output = json.dumps([answer["reading_note"], handlers.about()["can"]])
    assert "/own" in output and str(tmp_path) not in output
