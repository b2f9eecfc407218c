from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, WORDS, WordBackbone

from sieve.model.benchmark.measurement import draw_settings, tune
from sieve.model.benchmark.methods import (
    BackboneEmbeddings,
    codes_of,
    splice,
    train_method,
)
from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation.metrics import measure_rankings
from sieve.model.evaluation.pairs import PairCriteria, PairSet, track_pairs
from sieve.model.hyperparameters import IMAGE, PAPER, TEXT
from sieve.model.training.data import TrainingData
from sieve.model.training.losses import soft_contrast
from sieve.model.training.objectives import Paper
from sieve.model.words.nouns import benchmark_nouns

SHORT = replace(QUICK, epochs=2)


@pytest.fixture(scope="module")
def source(large_word_collection: Collection) -> BackboneEmbeddings:
    return BackboneEmbeddings(large_word_collection, WordBackbone().encode_texts)


@pytest.fixture(scope="module")
def questions(large_word_collection: Collection) -> PairSet:
    return track_pairs(large_word_collection, "label", benchmark_nouns(), PairCriteria()).report


def test_splice_finds_the_words_of_an_item(
    source: BackboneEmbeddings, questions: PairSet, large_word_collection: Collection
) -> None:
    (spaces,) = splice(source, WORDS).represent(questions)
    concepts = spaces["λ = 0.1"].images.toarray() > 0
    labels = large_word_collection.items["labels"].iloc[questions.rows]
    has = np.array([[word in item for word in WORDS] for item in labels])
    assert concepts[has].mean() > 3 * concepts[~has].mean()


@pytest.mark.parametrize("name", ["paper", "reconstruction", "VDR-like", "dense control", "Sieve"])
def test_every_trained_baseline_is_trained_once(
    name: str, large_word_collection: Collection, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoder(seed: int = 0):  # noqa: ANN202
        config = replace(SHORT, seed=seed)
        return train_method(
            name, large_word_collection, config, WordBackbone().encode_texts,
            n_words=len(WORDS), device="cpu", progress=False,
        ).encoder  # fmt: skip

    first = encoder()
    images = codes_of(first, large_word_collection.image_embeddings[:50], IMAGE)
    dense = images if isinstance(images, np.ndarray) else images.toarray()
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-4)
    assert (dense.min() < 0) == (name == "dense control")
    assert len(list((home / "peers").iterdir())) == 1
    other = encoder(seed=1)
    assert not torch.equal(first.encode_md, other.encode_md)
    # The second time nothing is trained.
    monkeypatch.setattr("sieve.model.benchmark.methods.Trainer", None)
    assert torch.equal(encoder().encode_md, first.encode_md)


@pytest.mark.usefixtures("home")
def test_paper_codes_are_divided_by_their_maxima(large_word_collection: Collection) -> None:
    config = replace(SHORT, m=300, k=300)
    checkpoint = train_method(
        "paper", large_word_collection, config, WordBackbone().encode_texts,
        n_words=len(WORDS), device="cpu", progress=False,
    )  # fmt: skip
    assert checkpoint.encoder.config.k == PAPER.k
    rows = large_word_collection.rows_of_split(["train"])
    pairs = large_word_collection.captions_of_rows(rows)
    peaks = []
    for embeddings, modality in (
        (large_word_collection.image_embeddings[rows], IMAGE),
        (large_word_collection.text_embeddings[pairs], TEXT),
    ):
        given = checkpoint.encoder.centred(
            torch.from_numpy(embeddings.astype(np.float32)), modality
        )
        peaks.append(checkpoint.encoder.activations(given, modality).amax(0))
    peak = torch.maximum(*peaks)
    torch.testing.assert_close(peak[peak > 0], torch.ones(int((peak > 0).sum())), atol=0.02, rtol=0)


def test_dimension_without_training_items_is_zero(
    large_word_collection: Collection,
) -> None:
    config = replace(PAPER, m=300, k=256)
    data = TrainingData(large_word_collection, WordBackbone().encode_texts, config)
    objective = Paper(data, config)
    encoder = SparseEncoder(config.shape(data.collection.backbone.width))
    objective.begin(encoder)
    with torch.no_grad():
        encoder.bias[:, 7] = -1.000001 * encoder.encode_md[7].norm()  # no unit vector reaches it
        encoder.bias[:, 8] = 1e-7 - encoder.encode_md[8].norm()  # nor any of these
    objective.finish(encoder)
    given = torch.from_numpy(data.collection.image_embeddings[data.rows].astype(np.float32))
    active = encoder.activations(encoder.centred(given, IMAGE), IMAGE)
    assert not active[:, [7, 8]].any()
    assert active.max() <= 1 + 1e-5
    assert encoder.encode_md.half().isfinite().all()
    assert encoder.encode_md[9].any()


@pytest.mark.usefixtures("home")
def test_each_word_of_a_vocabulary_code_is_a_dimension(large_word_collection: Collection) -> None:
    checkpoint = train_method(
        "VDR-like", large_word_collection, replace(QUICK, k=3), WordBackbone().encode_texts,
        n_words=len(WORDS), device="cpu", progress=False,
    )  # fmt: skip
    requested = WordBackbone().encode_texts([f"a {word}" for word in sorted(WORDS)])
    codes = encode_codes(checkpoint.encoder, requested, TEXT).by_row.toarray()
    assert codes.argmax(1).tolist() == list(range(len(WORDS)))


def test_soft_contrast_is_zero_only_for_matching_pairs() -> None:
    codes = 10 * torch.eye(4)
    assert float(soft_contrast(codes, codes)) == pytest.approx(0, abs=1e-4)
    assert float(soft_contrast(codes, codes.flip(0))) > 10


def test_trials_are_diverse_and_reproducible(
    questions: PairSet, source: BackboneEmbeddings
) -> None:
    method = splice(source, WORDS)
    spaces = method.represent(questions)
    drawn = draw_settings(method.rules, list(spaces[0]), 24, seed=0)
    assert len(drawn) == 24
    assert drawn == draw_settings(method.rules, list(spaces[0]), 24, seed=0)
    assert {setting.rule.name for setting in drawn} == {rule.name for rule in method.rules}
    tuned = tune(method.rules, spaces, questions.relevant, 24)
    each = [
        np.nanmean(measure_rankings(setting.scores(spaces[0]), questions.relevant).ap)
        for setting in drawn
    ]
    assert tuned.ap == pytest.approx(max(each))
    assert tuned.setting == drawn[int(np.argmax(each))]
