"""Embeddings of a backbone that is not installed: images and captions of things in places."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

THINGS = ("dog", "cat", "horse", "boat")
PLACES = ("beach", "street", "field")
WIDTH = 32
N = 120
BACKBONE = "my-lab/own-clip"


def text_of(number: int) -> tuple[str, str]:
    return THINGS[number % 4], PLACES[number // 4 % 3]


def embed(words: tuple[str, ...], shift: float, seed: int) -> np.ndarray:
    """Embed words as this backbone would: the sum of their directions, away from a shift."""
    directions = np.random.default_rng(0).standard_normal((len(THINGS + PLACES), WIDTH))
    places = [(THINGS + PLACES).index(word) for word in words]
    noise = 0.6 * np.random.default_rng(seed).standard_normal(WIDTH)
    vector = directions[places].sum(0) + shift + noise
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def embed_texts(texts: list[str]) -> np.ndarray:
    """The function that `--text-encoder unavailable_backbone:embed_texts` calls."""
    known = set(THINGS + PLACES)
    return np.array([embed(tuple(w for w in t.split() if w in known), 1, 0) for t in texts])


def wide_texts(texts: list[str]) -> np.ndarray:
    return np.ones((len(texts), WIDTH + 1))


def write_embeddings(folder: Path) -> Path:
    """Write the layout that `sieve prepare embeddings` reads: two arrays and a table."""
    folder.mkdir(parents=True)
    text = [text_of(number) for number in range(N)]
    np.save(folder / "image_features.npy", [embed(words, -1, i) for i, words in enumerate(text)])
    np.save(folder / "text_features.npy", [embed(words, 1, N + i) for i, words in enumerate(text)])
    splits = [("train", "train", "train", "select", "test")[i % 5] for i in range(N)]
    with (folder / "items.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("image", "caption", "split"))
        for i, (thing, place) in enumerate(text):
            rows.writerow((f"{i}.jpg", f"a {thing} on a {place}, seen {i} times", splits[i]))
    return folder
