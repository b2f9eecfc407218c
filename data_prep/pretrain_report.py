"""What the small backbone can do: recall on images that it was not trained on."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data_prep.pretrain_training import Domain, Towers
from data_prep.scenes import Scenes, describe, full_caption
from model.backbone import Backbone


def recall(
    texts: np.ndarray, images: np.ndarray, owner: Sequence[int], at: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Text to image recall: the share of texts whose own image is among the first k.

    Parameters
    ----------
    texts : np.ndarray
        (t, d) unit embeddings.
    images : np.ndarray
        (n, d) unit embeddings.
    owner : sequence of int
        Row of each text's image. Ties count against it.
    """
    scores = texts @ images.T
    own = scores[np.arange(len(texts)), np.asarray(owner)]
    rank = (scores >= own[:, None]).sum(1)
    return {f"R@{k}": round(float((rank <= k).mean()), 4) for k in at}


@torch.inference_mode()
def select_figures(towers: Towers, domain: Domain) -> dict[str, float]:
    """Recall of all captions, of each image's last one, and AP@10 of single words."""
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
    figures["word AP@10"] = round(average_precision(words @ images.T, has), 4)
    return figures


def average_precision(scores: np.ndarray, relevant: np.ndarray, top: int = 10) -> float:
    """Mean over queries of AP@top = (1 / min(R, top)) sum of precision at each relevant result.

    Parameters
    ----------
    scores : np.ndarray
        (q, n)
    relevant : np.ndarray
        (q, n) bool, at least one a row.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    best = np.minimum(relevant.sum(1), top)
    return float(((precision * hits).sum(1) / best).mean())


def held_out_figures(name: str, photos: Path) -> dict[str, dict[str, float]]:
    """Text to image recall of a saved backbone, on 1,000 dev photographs and 1,000 fresh scenes."""
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
    """Flickr8k's dev photographs, with their captions."""
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
