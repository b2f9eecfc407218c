"""Test that the shipped weights, embeddings and checkpoints belong together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sieve import assets
from sieve.data_prep.bundled import BACKBONE, bundled_path, scenes_embeddings_path
from sieve.data_prep.scenes import Scenes
from sieve.model.backbone.clip import Backbone
from sieve.model.benchmark.results import BenchmarkConfig, list_evaluations, read_evaluation
from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import file_sha256
from sieve.model.dimensions.statistics import live_shares
from sieve.model.engine import Result, SearchEngine
from sieve.model.evaluation.pairs import track_pairs
from sieve.model.exclusion import Strictness
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.training.validation import recall_of_split
from sieve.model.words.nouns import benchmark_nouns

pytestmark = pytest.mark.slow

CHECKPOINTS = sorted(path.parent for path in (assets.ROOT / "checkpoints").glob("*/config.json"))


@pytest.fixture(scope="session")
def engine(scenes_home: Path) -> SearchEngine:
    """The bundled collection with the checkpoint that opens with it."""
    return SearchEngine.open(scenes_home / "collections" / bundled_path().name, device="cpu")


def test_both_checkpoints_ship_for_the_bundled_backbone() -> None:
    assert {path.name for path in CHECKPOINTS} == {"photos", "scenes"}
    sha256 = Backbone.load(BACKBONE, "cpu").sha256
    assert {Checkpoint.load(path).backbone.sha256 for path in CHECKPOINTS} == {sha256}


def test_shipped_embeddings_match_the_scenes() -> None:
    scenes = Scenes()
    records = list(scenes.records())
    rows = np.random.default_rng(0).choice(len(records), 50, replace=False)
    backbone = Backbone.load(BACKBONE, "cpu")
    drawn = backbone.encode_images([scenes.open_image(records[row], 320) for row in rows])
    shipped = np.load(scenes_embeddings_path())[rows].astype(np.float32)
    assert len(np.load(scenes_embeddings_path(), mmap_mode="r")) == len(records)
    assert (drawn * shipped).sum(1).min() >= 0.999


def test_scenes_checkpoint_opens_the_bundled_collection(engine: SearchEngine) -> None:
    assert engine.checkpoint.path.name == "scenes"
    assert engine.collection.n_items == 5000


def test_scenes_checkpoint_was_not_trained_on_bundled_scenes(engine: SearchEngine) -> None:
    assert not set(engine.checkpoint.trained_items) & set(engine.collection.items["id"])


def test_live_dimensions_and_recall(engine: SearchEngine) -> None:
    collection, encoder = engine.collection, engine.checkpoint.encoder
    images = encode_codes(encoder, collection.image_embeddings, IMAGE)
    texts = encode_codes(encoder, collection.text_embeddings, TEXT)
    lives = live_shares(images, texts)
    assert lives["live"] >= 0.95
    assert lives["live_in_both"] >= 0.9
    found = recall_of_split(images, texts, collection, "test")
    for rank, value in found["backbone"].items():
        assert found["codes"][rank] >= 0.9 * value, rank


def share(results: tuple[Result, ...], label: str) -> float:
    return float(np.mean([label in result.labels for result in results]))


def test_exclusion_keeps_a_and_drops_b(engine: SearchEngine) -> None:
    pairs = (
        ("dog", "ball"), ("beach", "umbrella"), ("animal", "snow"), ("horse", "field"),
        ("girl", "beach"), ("food", "kitchen"), ("car", "street"), ("stadium", "person"),
    )  # fmt: skip
    with_a, with_b = [], []
    for wanted, unwanted in pairs:
        query = engine.encode(f"a {wanted}", f"a {unwanted}")
        found = [
            engine.search(query, off=(), top=10).results,
            engine.search(query, top=10).results,
            engine.search(query, strictness=Strictness(never=True), top=10).results,
        ]
        with_a.append([share(results, wanted) for results in found])
        with_b.append([share(results, unwanted) for results in found])
    (_, *preserved), (before, *dropped) = np.mean(with_a, 0), np.mean(with_b, 0)
    assert min(preserved) >= 0.85
    assert before >= 0.25
    assert max(dropped) <= 0.1


def test_shipped_results_are_those_of_the_shipped_checkpoint_and_pairs(
    engine: SearchEngine,
    home: Path,  # noqa: ARG001
) -> None:
    """If this fails, run `python -m tests.benchmarks.shipped_results --quick`."""
    images = file_sha256(scenes_embeddings_path())
    (summary,), faults = list_evaluations("of another machine", images)
    assert not faults and summary.collection.name == "scenes" and summary.code
    checkpoint = Checkpoint.load(assets.ROOT / "checkpoints" / "scenes")
    assert summary.checkpoint == ("scenes", checkpoint.sha256)
    nouns = json.loads(summary.path.read_bytes())["nouns_sha256"]
    assert nouns == benchmark_nouns().sha256
    tracks = read_evaluation(summary.path).tracks
    assert [track.track for track in tracks] == ["label", "caption"]
    criteria = BenchmarkConfig().criteria
    for track in tracks:
        pairs = track_pairs(engine.collection, track.track, benchmark_nouns(), criteria)
        assert (track.pairs, track.tuning_pairs) == (len(pairs.report), len(pairs.tuning))
    assert all(track.failures and track.answers for track in tracks)
    assert list_evaluations("of another machine", "00" * 32) == ([], [])
