"""Synthetic embeddings with a known structure: sums of word directions and a modality gap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collection_files import write_collection

from sieve.model.benchmark.results import BenchmarkConfig
from sieve.model.benchmark.run import Benchmark
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import BackboneIdentity, Collection
from sieve.model.engine import SearchEngine
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.trainer import train
from sieve.model.words.text import WordList, WordReading

WORDS = ("dog", "cat", "beach", "tree", "car", "boat", "snow", "girl", "boy", "ball")
WIDTH = 48
QUICK = TrainingConfig(m=64, k=8, epochs=12, batch_size=256, n_words=8, learning_rate=5e-3)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class WordBackbone:
    """A backbone stand-in: a text is the sum of the directions of its words."""

    def __init__(self) -> None:
        self.sha256 = "ff" * 32
        self.directions = np.random.default_rng(0).standard_normal((len(WORDS), WIDTH))

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        has = np.array([[word in text.split() for word in WORDS] for text in texts], float)
        return unit(has @ self.directions - 1.5).astype(np.float32)

    def encode_images(self, has: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        noise = 0.4 * generator.standard_normal((len(has), WIDTH))
        return unit(has @ self.directions + 1.5 + noise)

    def unknown_words(self, text: str) -> list[str]:
        return [word for word in text.split() if word == "xylophone"]

    def read_words(self, text: str, singular: bool = False) -> WordReading:
        return WordList([*WORDS, "animal", "bus"]).read(text, singular)

    def words_read(self, text: str) -> int:
        return len(text.split())


def write_word_collection(
    folder: Path,
    n: int = 400,
    backbone_hash: str = "ff" * 32,
    *,
    select: int = 10,
    test: int = 10,
    seed: int = 1,
) -> Path:
    """Write a collection of `n` items made of WORDS, three captions each.

    Every `test`-th item is test, every `select`-th of the others select. Ids begin with the seed.
    """
    generator = np.random.default_rng(seed)
    backbone = WordBackbone()
    has = generator.random((n, len(WORDS))) < 0.25
    mentioned = [has[i // 3] & (generator.random(len(WORDS)) < 0.8) for i in range(3 * n)]
    texts = [
        " and ".join(f"a {word}" for word, there in zip(WORDS, t, strict=True) if there)
        for t in mentioned
    ]
    return write_collection(
        folder,
        BackboneIdentity("words", backbone_hash, WIDTH),
        name="words",
        captions=[texts[3 * i : 3 * i + 3] for i in range(n)],
        images=backbone.encode_images(has, generator),
        texts=backbone.encode_texts(texts),
        labels=[[w for w, there in zip(WORDS, has[i], strict=True) if there] for i in range(n)],
        split=[
            "test" if i % test == test - 1 else "select" if i % select == 8 else "train"
            for i in range(n)
        ],
        first_digit=seed - 1,
    )


def word_benchmark(collection: Collection, config: BenchmarkConfig, **options: Any) -> Benchmark:
    """Create a benchmark whose texts are encoded by `WordBackbone`."""
    encode_texts = WordBackbone().encode_texts
    quiet = {"device": "cpu", "progress": False, **options}
    return Benchmark(collection, config, open_text_encoder=lambda _: encode_texts, **quiet)


@pytest.fixture(scope="session")
def word_backbone() -> WordBackbone:
    return WordBackbone()


@pytest.fixture(scope="session")
def word_collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return Collection.open(write_word_collection(tmp_path_factory.mktemp("words") / "words"))


@pytest.fixture(scope="session")
def word_checkpoint(
    word_collection: Collection,
    word_backbone: WordBackbone,
    tmp_path_factory: pytest.TempPathFactory,
) -> Checkpoint:
    out = tmp_path_factory.mktemp("checkpoints") / "words"
    return train(word_collection, out, QUICK, device="cpu", backbone=word_backbone, progress=False)


@pytest.fixture(scope="session")
def large_word_collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Enough items for pairs: 1,500, of which 210 test and 120 select, with three captions each."""
    return Collection.open(
        write_word_collection(tmp_path_factory.mktemp("words") / "large", 1500, select=12, test=7)
    )


@pytest.fixture
def engine(
    word_collection: Collection,
    word_checkpoint: Checkpoint,
    word_backbone: WordBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> SearchEngine:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    opened = SearchEngine(word_collection, word_checkpoint)
    monkeypatch.setitem(opened.__dict__, "backbone", word_backbone)
    return opened
