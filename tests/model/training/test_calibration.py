from __future__ import annotations

import numpy as np
from conftest import WordBackbone

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.evaluation.pairs import PairCriteria, split_pairs
from sieve.model.exclusion import Calibration
from sieve.model.training import validation
from sieve.model.training.validation import LIMITS, PUSHES, RATIOS, calibrate


def test_calibration_is_on_the_grid_and_never_worse_than_the_default(
    word_collection: Collection,
    word_checkpoint: Checkpoint,
    word_backbone: WordBackbone,
    monkeypatch,
) -> None:
    criteria = PairCriteria(relevant=2, violating=2, tuning=1)
    monkeypatch.setattr(validation, "CALIBRATION_CRITERIA", criteria)
    encode = word_backbone.encode_texts
    found = calibrate(word_checkpoint.encoder, word_collection, encode)
    assert found.push in PUSHES
    assert found.proposal_ratio in RATIOS
    assert found.proposal_limit in LIMITS
    pair_set = split_pairs(word_collection, "select", criteria, tuning=True)
    assert pair_set is not None
    space = validation.code_space(
        word_checkpoint.encoder, word_collection, pair_set, encode(pair_set.texts)
    )

    def ap(push: float, ratio: float, limit: int) -> float:
        values = {"push": push, "ratio": ratio, "limit": limit}
        return validation.mean_ap(validation.FEW, space, values, pair_set)

    chosen = ap(found.push, found.proposal_ratio, found.proposal_limit)
    assert chosen >= max(ap(1.0, 1.0, limit) for limit in LIMITS) - validation.AS_GOOD
    assert np.isfinite(chosen)


def test_too_few_pairs_keep_the_defaults(
    tiny_collection: Collection, tiny_checkpoint: Checkpoint, tiny_backbone
) -> None:
    found = calibrate(tiny_checkpoint.encoder, tiny_collection, tiny_backbone.encode_texts)
    assert found == Calibration()
