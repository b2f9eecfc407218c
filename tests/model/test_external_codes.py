"""Test an engine of external codes: exact results and unsupported queries."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from corruption import reseal
from PIL import Image
from scipy.sparse import save_npz
from tiny_codes import IMAGES, NAMES, matrix, write_codes

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import find_checkpoint
from sieve.model.collection import Collection, file_sha256
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness
from sieve.model.explain import encode_occluded
from sieve.model.interpretability import interpretability_report
from sieve.model.query_encoder import Capabilities
from sieve.model.training.trainer import train

UNIT = np.array(IMAGES) / np.linalg.norm(IMAGES, axis=1, keepdims=True)


def prepare_codes(folder: Path, out: Path, text_encoder: str = "") -> Collection:
    source = Codes(
        CodeFiles.find(folder), folder / "photos", text_encoder=text_encoder, name="mine"
    )
    return prepare(source, None, out, precomputed=source.precomputed(), progress=False)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("codes")
    return prepare_codes(write_codes(folder / "splice"), folder / "made")


@pytest.fixture
def engine(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchEngine:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    return SearchEngine.open(collection.path)


def rows(outcome) -> list[int]:  # noqa: ANN001
    return [result.row for result in outcome.results]


def test_external_codes_open_with_their_own_checkpoint(
    engine: SearchEngine, collection: Collection
) -> None:
    assert find_checkpoint(collection) == collection.path
    assert engine.checkpoint.codes == collection.codes
    assert engine.checkpoint.calibration.push == 1.0
    assert [engine.name_of(j) for j in range(4)] == list(NAMES)
    assert engine.can == Capabilities(True, False, False, "", engine.can.no_image)


def test_text_is_encoded_by_the_codes_of_its_words(engine: SearchEngine) -> None:
    outcome = engine.search(engine.encode("a dog"))
    assert rows(outcome) == [1, 2, 0, 5]
    found = [result.score for result in outcome.results]
    np.testing.assert_allclose(found, [1, np.sqrt(0.5), 0.6, 0.6], atol=1e-6)


def test_exclusion_switches_dimensions_off_and_results_are_explained(engine: SearchEngine) -> None:
    query = engine.encode("a dog but not on a beach")
    assert (query.text, query.without, query.proposed) == ("a dog", "a beach", (1,))
    outcome = engine.search(query)
    assert rows(outcome) == [1, 2, 5, 0, 4, 3]
    scores = UNIT[:, 0] - UNIT[:, 1]
    np.testing.assert_allclose([r.score for r in outcome.results], scores[rows(outcome)], atol=1e-6)
    parts = {part.name: part.value for part in outcome.results[3].contributions}
    assert parts == pytest.approx({"dog": 0.6, "beach": -0.8})
    assert rows(engine.search(query, strictness=Strictness(never=True))) == [1, 2, 5]
    assert rows(engine.search(query, off=())) == rows(engine.search(engine.encode("a dog")))


def test_item_is_searched_by_its_code(engine: SearchEngine) -> None:
    first = engine.collection.items["id"].iloc[0]
    outcome = engine.search(engine.encode(item=first))
    expected = UNIT @ UNIT[0]
    order = [row for row in np.argsort(-expected, kind="stable").tolist() if row != 0]
    assert rows(outcome) == [row for row in order if expected[row] > 0]
    without = engine.search(engine.encode(item=first, without="dogs"))
    assert without.off[0].name == "dog" and rows(without)[0] == 3


def test_unknown_words_are_reported(engine: SearchEngine) -> None:
    query = engine.encode("a dog with a xylophone")
    assert query.notes == (
        "No image here is likely to show “a dog with a xylophone”: no caption or label mentions "
        "it.",
        "“xylophone” has no code in this collection; it was ignored.",
    )
    assert rows(engine.search(query)) == rows(engine.search(engine.encode("dog")))
    with pytest.raises(ValueError, match="no word of “xylophone” has a code in this collection"):
        engine.encode("xylophone")
    assert engine.encode("dog", "a xylophone").proposed == ()


def test_image_and_dense_search_are_rejected_with_one_line(engine: SearchEngine) -> None:
    with pytest.raises(ValueError, match="no backbone that could encode an image") as raised:
        engine.encode(image=Image.new("RGB", (8, 8)))
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="no backbone that could encode an image"):
        engine.encode("image:missing.png")
    with pytest.raises(ValueError) as raised:
        encode_occluded(engine, Image.new("RGB", (8, 8)))
    assert str(raised.value) == (
        "concepts cannot be located in an image: external codes have no backbone that could encode "
        "an image"
    )
    with pytest.raises(ValueError, match="has no backbone"):
        engine.search_dense(engine.encode("dog"))


def test_dimensions_have_tables_and_pages(engine: SearchEngine) -> None:
    table = engine.dimension_table()
    assert table["firing_images"].tolist() == pytest.approx([4 / 6, 3 / 6, 1 / 6, 2 / 6])
    assert table["firing_texts"].tolist() == pytest.approx([5 / 7, 3 / 7, 1 / 7, 2 / 7])
    assert table["name_source"].eq("given").all() and table["name_score"].isna().all()
    assert table["monosemanticity"].isna().all()
    page = engine.dimension(1)
    assert [example.row for example in page.top_images] == [3, 0, 4]
    assert {near.name for near in page.coactive} == {"dog", "cat"} and page.similar == ()
    assert page.top_captions[0].text == "a beach"
    report = interpretability_report(engine)
    assert report.naming.given == 4 and report.live == 1.0


def test_without_caption_codes_no_caption_statistics_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path / "home"))
    folder = write_codes(tmp_path / "splice", texts=False, words=False)
    engine = SearchEngine.open(prepare_codes(folder, tmp_path / "made").path)
    assert engine.dimension_table()[["firing_texts", "agreement"]].isna().all(axis=None)
    assert "agreement" not in engine.dimension(0).statistics
    assert not engine.can.text_queries
    with pytest.raises(ValueError, match="not of words; search by an item"):
        engine.encode("a dog")
    with pytest.raises(ValueError, match="not of words"):
        engine.encode(item=engine.collection.items["id"].iloc[0], without="dog")
    assert rows(engine.search(engine.encode(item=engine.collection.items["id"].iloc[1])))


ENCODER = """
import numpy as np
LOADED = True
def encode(texts):
    assert isinstance(texts, list)
    words = ("hund", "strand", "schnee", "katze")
    return np.array([[float(word in text) for word in words] for text in texts])
def wide(texts): return np.ones((len(texts), 9))
def negative(texts): return -np.ones((len(texts), 4))
def broken(texts): raise RuntimeError("out\\nof order")
number = 5
"""


@pytest.fixture
def encoder_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"encoder_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path / "home"))
    return name


def test_text_encoder_is_loaded_only_with_allow_code(tmp_path: Path, encoder_module: str) -> None:
    folder = write_codes(tmp_path / "splice", words=False)
    path = prepare_codes(folder, tmp_path / "made", f"{encoder_module}:encode").path
    closed = SearchEngine.open(path)
    assert not closed.can.text_queries and encoder_module not in sys.modules
    with pytest.raises(ValueError, match=f"encoded by {encoder_module}:encode.*--allow-code"):
        closed.encode("hund")
    assert encoder_module not in sys.modules
    engine = SearchEngine.open(path, allow_code=True)
    assert rows(engine.search(engine.encode("ein hund", "am strand"))) == [1, 2, 5, 0, 4, 3]
    with pytest.raises(ValueError, match="has a code in this collection"):
        engine.encode("nichts")


def test_text_encoder_can_be_attached_later(tmp_path: Path, encoder_module: str) -> None:
    path = prepare_codes(write_codes(tmp_path / "splice", words=False), tmp_path / "made").path
    assert not SearchEngine.open(path).can.text_queries
    named = f"{encoder_module}:encode"
    for wrong, allowed in ((named, False), ("sieve-lite", True)):
        with pytest.raises(ValueError, match=r"package\.module:function"):
            SearchEngine.open(path, allow_code=allowed, text_encoder=wrong)
    assert encoder_module not in sys.modules
    engine = SearchEngine.open(path, allow_code=True, text_encoder=named)
    assert rows(engine.search(engine.encode("ein hund", "am strand"))) == [1, 2, 5, 0, 4, 3]


def made_with(tmp_path: Path, module: str, function: str) -> Path:
    """Prepare codes without words, whose texts a function encodes."""
    folder = write_codes(tmp_path / "splice", words=False)
    return prepare_codes(folder, tmp_path / "made", f"{module}:{function}").path


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wide", "must return a code of 4 dimensions"),
        ("negative", "negative value"),
        ("broken", "RuntimeError: out of order"),
    ],
)
def test_text_encoder_output_is_validated(
    tmp_path: Path, encoder_module: str, function: str, message: str
) -> None:
    engine = SearchEngine.open(made_with(tmp_path, encoder_module, function), allow_code=True)
    with pytest.raises(ValueError, match=message) as raised:
        engine.encode("hund")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("os.system('x'):y", "expected package.module:function"),
        ("no_such_module_at_all:encode", "cannot be loaded .*ModuleNotFoundError"),
        ("MODULE:nothing", "cannot be loaded .*AttributeError"),
        ("MODULE:number", "to be a function; got int"),
    ],
)
def test_modified_config_cannot_name_a_function(
    tmp_path: Path, encoder_module: str, entry: str, message: str
) -> None:
    path = made_with(tmp_path, encoder_module, "encode")
    config = json.loads((path / "config.json").read_text())
    config["text_encoder"] = entry.replace("MODULE", encoder_module)
    manifest = json.loads((path / "collection.json").read_text())
    (path / "config.json").write_text(json.dumps(config))
    manifest["files"]["config.json"]["bytes"] = (path / "config.json").stat().st_size
    (path / "collection.json").write_text(json.dumps(manifest))
    reseal(path)
    with pytest.raises(ValueError, match=message):
        SearchEngine.open(path, allow_code=True)


def test_modified_codes_are_rejected(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path / "home"))
    copy = Path(shutil.copytree(collection.path, tmp_path / "copy"))
    indices = np.load(copy / "image_indices.npy")
    indices[0] = 2**30
    np.save(copy / "image_indices.npy", indices)
    manifest = json.loads((copy / "collection.json").read_text())
    facts = manifest["files"]["image_indices.npy"]
    facts["sha256"] = file_sha256(copy / "image_indices.npy")
    (copy / "collection.json").write_text(json.dumps(manifest))
    reseal(copy)
    with pytest.raises(ValueError, match="is damaged: row 0 has dimension 1073741824"):
        SearchEngine.open(copy)


def test_checkpoint_of_other_codes_is_rejected(
    collection: Collection, word_checkpoint: Checkpoint, word_collection: Collection, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="but collection mine holds codes of 4 dimensions"):
        SearchEngine(collection, word_checkpoint)
    with pytest.raises(ValueError, match="is for codes of 4 dimensions"):
        SearchEngine(word_collection, Checkpoint.load(collection.path))
    folder = write_codes(tmp_path / "splice", texts=False)
    save_npz(folder / "image_codes.npz", matrix(IMAGES[::-1]))
    other = prepare_codes(folder, tmp_path / "other")
    with pytest.raises(ValueError, match="leave out --checkpoint"):
        SearchEngine(collection, Checkpoint.load(other.path))


def test_external_codes_cannot_be_trained_on(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no backbone: it can be explored"):
        train(collection, tmp_path / "out", device="cpu", progress=False)
    assert list(tmp_path.iterdir()) == []
