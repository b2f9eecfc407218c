"""Train the default encoder with several seeds, and match their dimensions."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from sieve.model.backbone.clip import resolve_device
from sieve.model.codes import SparseCodes, encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.vocabulary import TextTower
from sieve.model.hyperparameters import IMAGE, TrainingConfig
from sieve.model.training.trainer import train
from tests.benchmarks.gpu.measuring import Case, Row, Setup
from tests.benchmarks.training import encode_texts, synthetic_collection

_RECURS = 0.7
"""Correlation from which matched dimensions count as the same."""


class SyntheticBackbone:
    """The text encoder of the synthetic collection."""

    sha256 = ""
    encode_texts = staticmethod(encode_texts)

    def unknown_words(self, text: str) -> list[str]:  # noqa: ARG002
        """Return nothing: all words are known."""
        return []


def correlations(one: SparseCodes, other: SparseCodes) -> np.ndarray:
    """Return the Pearson correlation of each pair of dimensions: (m, m); 0 if constant."""
    standard = []
    for codes in (one, other):
        dense = codes.by_row.toarray()
        dense = dense - dense.mean(0)
        standard.append(dense / np.maximum(np.linalg.norm(dense, axis=0), 1e-12))
    return standard[0].T @ standard[1]


def consistency(codes: list[SparseCodes]) -> Row:
    """Match the dimensions of each pair of seeds by the Hungarian algorithm."""
    matched = []
    recur = np.ones(codes[0].m, bool)
    for (i, one), (_, other) in itertools.combinations(enumerate(codes), 2):
        table = correlations(one, other)
        rows, columns = linear_sum_assignment(-table)
        matched.append(float(table[rows, columns].mean()))
        if i == 0:
            recur &= table[rows, columns] >= _RECURS
    return {
        "mean_correlation_of_matched_dimensions": float(np.mean(matched)),
        "lowest_of_two_seeds": min(matched),
        "recur_in_all_seeds": float(recur.mean()),
    }


def measure_seeds(setup: Setup, path: Path | None) -> Row:
    """Train with as many seeds as there is time for."""
    backbone: TextTower | None = None
    config = TrainingConfig()
    if path is None:
        collection = synthetic_collection(setup.folder / "seeds", setup.sizes.training_items, 2)
        backbone = SyntheticBackbone()
        m, k, batch_size = setup.sizes.curve_shape
        config = replace(config, m=m, k=k, batch_size=batch_size, epochs=1, n_words=8, kinds=False)
    else:
        collection = Collection.open(path)
    seconds, codes = [], []
    for seed in range(setup.sizes.seeds):
        if seconds and not setup.is_tiny and setup.clock.left < max(seconds):
            break
        started = time.perf_counter()
        checkpoint = train(
            collection,
            setup.folder / f"seed-{collection.name}-{seed}",
            replace(config, seed=seed),
            device=resolve_device(setup.device.type).type,
            backbone=backbone,
            progress=False,
        )
        seconds.append(time.perf_counter() - started)
        codes.append(encode_codes(checkpoint.encoder, collection.image_embeddings, IMAGE))
    return {
        "collection": collection.name,
        "seeds": len(codes),
        "seconds_per_training": float(np.median(seconds)),
        **(consistency(codes) if len(codes) > 1 else {}),
    }


def cases(setup: Setup) -> list[Case]:
    """Return one case for each collection; a tiny run trains on a synthetic one."""
    if setup.is_tiny:
        return [Case("synthetic", partial(measure_seeds, setup, None), 0.0)]
    return [
        Case(path.name, partial(measure_seeds, setup, path), 40.0) for path in setup.collections
    ]
