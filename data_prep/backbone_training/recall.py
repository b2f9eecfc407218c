"""Evaluate the small backbone: recall on images that it was not trained on."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sieve.data_prep.backbone_training.fit import Domain, Towers
from sieve.data_prep.scenes import Scenes, describe, full_caption
from sieve.model.backbone import Backbone
from sieve.model.evaluation import measure_rankings, recall_at


def recall(
    texts: np.ndarray, images: np.ndarray, owner: Sequence[int], at: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    """Return the text-to-image recall; see `sieve.model.evaluation.metrics.recall_at`.

    Parameters
    ----------
    texts : np.ndarray
        (t, d) unit embeddings.
    images : np.ndarray
        (n, d) unit embeddings.
    owner : sequence of int
        Row of each text's image. Ties count as misses.
    """
    found = recall_at(texts @ images.T, np.asarray(owner), at)
    return {f"R@{k}": round(found[f"recall@{k}"], 4) for k in at}


@torch.inference_mode()
def evaluate_select(towers: Towers, domain: Domain) -> dict[str, float]:
    """Return recall of all captions and of each image's last one, and AP@10 of single words."""
    images = towers.images(domain.features[:, 0]).numpy()
    every = [(text, row) for row, texts in enumerate(domain.captions) for text in texts]
    texts = towers.texts([text for text, _ in every]).numpy()
    last = np.cumsum([len(texts) for texts in domain.captions]) - 1
    figures = recall(texts, images, [row for _, row in every])
    figures["last R@10"] = recall(texts[last], images, range(len(images)), (10,))["R@10"]
    columns = [
        column for column, term in enumerate(domain.book.terms)
        if " " not in term and domain.book.has[:, column].sum() >= 10
    ]  # fmt: skip
    words = towers.texts([f"a {domain.book.terms[column]}" for column in columns]).numpy()
    has = domain.book.has[:, columns].T.numpy()
    figures["word AP@10"] = round(float(np.nanmean(measure_rankings(words @ images.T, has).ap)), 4)
    return figures


def evaluate_held_out(name: str, photos: Path) -> dict[str, dict[str, float]]:
    """Return the text-to-image recall of a saved backbone on held-out photographs and scenes."""
    backbone = Backbone.load(name, "cpu")
    images, captions = dev_photos(photos)
    scenes = Scenes(1000, 2)
    records = list(scenes.records())
    drawn = backbone.encode_images([scenes.open_image(record, 320) for record in records])
    full = [[full_caption(describe(record.image))] for record in records]
    return {
        "1,000 dev photographs": _figures(backbone, backbone.encode_images(images), captions),
        "1,000 fresh scenes, full captions": _figures(backbone, drawn, full),
        "1,000 fresh scenes, all captions": _figures(
            backbone, drawn, [record.captions for record in records]
        ),
    }


def dev_photos(photos: Path, limit: int | None = None) -> tuple[list[Image.Image], list[list[str]]]:
    """Load Flickr8k's dev photographs with their captions."""
    names = (photos / "dev_images.txt").read_text(encoding="utf-8").split()[:limit]
    written: defaultdict[str, list[str]] = defaultdict(list)
    with open(photos / "captions.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            written[row["image"]].append(row["caption"])
    images = [Image.open(photos / "images" / name).convert("RGB") for name in names]
    return images, [written[name] for name in names]


def _figures(
    backbone: Backbone, images: np.ndarray, captions: Sequence[Sequence[str]]
) -> dict[str, float]:
    texts = backbone.encode_texts([text for texts in captions for text in texts])
    return recall(texts, images, [row for row, texts in enumerate(captions) for _ in texts])
