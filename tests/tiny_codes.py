"""A small collection of synthetic codes whose results are known in advance."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix, save_npz

NAMES = ("dog", "beach", "snow", "cat")
IMAGES = (
    (3, 4, 0, 0),
    (1, 0, 0, 0),
    (2, 0, 2, 0),
    (0, 5, 0, 0),
    (0, 1, 0, 1),
    (6, 0, 0, 8),
)
"""Codes of six items, not normalised."""
CAPTIONS = (
    ("a dog on a beach", "a wet dog"),
    ("a dog",),
    ("a dog in snow",),
    ("a beach",),
    ("a cat on a beach",),
    ("a dog and a cat",),
)
TEXTS = (
    (1, 1, 0, 0), (1, 0, 0, 0),
    (1, 0, 0, 0),
    (1, 0, 1, 0),
    (0, 1, 0, 0),
    (0, 1, 0, 1),
    (1, 0, 0, 1),
)  # fmt: skip
WORDS = ("dogs", "beach", "snow", "cat", "animal", "polar bear")
WORD_CODES = ((2, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 1), (0, 0, 1, 0))


def matrix(rows: Sequence[Sequence[float]]) -> csr_matrix:
    return csr_matrix(np.array(rows, np.float64))


def write_codes(folder: Path, *, texts: bool = True, words: bool = True) -> Path:
    """Write the layout that `sieve prepare codes` reads; the last image is missing."""
    (folder / "photos").mkdir(parents=True)
    save_npz(folder / "image_codes.npz", matrix(IMAGES))
    if texts:
        save_npz(folder / "text_codes.npz", matrix(TEXTS))
    if words:
        save_npz(folder / "word_codes.npz", matrix(WORD_CODES))
        (folder / "words.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    rows = [("id", "image", "caption")]
    for number, captions in enumerate(CAPTIONS):
        rows += [(f"item {number}", f"{number}.jpg", caption) for caption in captions]
    for number in range(len(IMAGES) - 1):
        picture = Image.new("RGB", (80, 60), (40 * number, 90, 160))
        picture.save(folder / "photos" / f"{number}.jpg")
    with (folder / "items.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


def write_many_codes(folder: Path, m: int, n: int = 300, k: int = 100) -> Path:
    """Write random codes of `m` dimensions, each in some image, for `n` items without photographs.

    The first caption is one very long word.
    """
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    columns = np.concatenate([np.arange(m), generator.integers(0, m, max(n * k - m, 0))])
    places = (generator.integers(0, n, len(columns)), columns)
    codes = csr_matrix((generator.random(len(columns)) + 0.1, places), shape=(n, m))
    save_npz(folder / "image_codes.npz", codes)
    save_npz(folder / "text_codes.npz", codes)
    (folder / "names.txt").write_text("".join(f"thing {j}\n" for j in range(m)))
    captions = ["w" * 5_000, *(f"caption {i}" for i in range(1, n))]
    rows = [(f"item {i}", f"{i}.jpg", caption) for i, caption in enumerate(captions)]
    with (folder / "items.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("id", "image", "caption"), *rows])
    return folder
