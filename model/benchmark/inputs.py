"""What a benchmark may be given: items that nothing was trained on, and backbones that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from sieve.model.benchmark.methods import METHODS
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows


def refuse_overlap(collection: Collection, trained: Iterable[str], what: str) -> None:
    """Refuse to score items that something was trained on.

    Raises
    ------
    ValueError
        The message names how many items there are.
    """
    scored = set(collection.items["id"].iloc[_scored_rows(collection)])
    shared = len(scored.intersection(trained))
    if shared:
        raise ValueError(
            f"{what} was trained on {shared:,} of the {len(scored):,} select and test items of "
            f"{collection.name} that would be scored; train on other items (--train)"
        )


def check_inputs(
    collection: Collection,
    train: Collection,
    checkpoint: Checkpoint | None,
    peers: Mapping[str, Collection],
) -> None:
    """Refuse what does not fit together.

    Raises
    ------
    ValueError
        If a backbone differs, scored items were trained on, or a peer lacks items.
    """
    given = [(f"collection {train.name}", train.backbone)]
    given += [(f"checkpoint {checkpoint.path}", checkpoint.backbone)] if checkpoint else []
    for name, backbone in given:
        if backbone.sha256 != collection.backbone.sha256:
            raise ValueError(
                f"{name} is of {backbone}, but collection {collection.name} of "
                f"{collection.backbone}; prepare or train with the same one"
            )
    trained = train.items["id"].iloc[train.rows_of_split(["train"])].tolist()
    refuse_overlap(collection, trained, f"what {train.name} offers to train on")
    if checkpoint is not None:
        if not checkpoint.trained_items:
            raise ValueError(
                f"checkpoint {checkpoint.path} does not say what it was trained on, so it cannot "
                "be scored; train again with `sieve train COLLECTION`"
            )
        refuse_overlap(collection, checkpoint.trained_items, f"checkpoint {checkpoint.path}")
    scored = collection.items["id"].iloc[_scored_rows(collection)]
    for name, peer in peers.items():
        if name in METHODS:
            raise ValueError(f"{name!r} is a method already; give the peer another name")
        missing = sum(item not in peer.row_of_id for item in scored)
        if missing:
            raise ValueError(
                f"peer {name} lacks {missing:,} of the {len(scored):,} items that are scored; "
                "prepare its collection of the same images"
            )


def _scored_rows(collection: Collection) -> np.ndarray:
    """Return the select and test items that are scored: (r,) int64."""
    return np.concatenate([evaluation_rows(collection, split) for split in ("select", "test")])


def modality_means(collection: Collection) -> np.ndarray:
    """Mean image and mean caption of the train split: (2, d) float32; 0 where there is none."""
    rows = collection.rows_of_split(["train"])
    means = np.zeros((2, collection.backbone.width), np.float32)
    captions = collection.captions_of_rows(rows)
    for j, (embeddings, chosen) in enumerate(
        ((collection.image_embeddings, rows), (collection.text_embeddings, captions))
    ):
        if len(chosen):
            means[j] = np.asarray(embeddings[chosen], np.float32).mean(0)
    return means
