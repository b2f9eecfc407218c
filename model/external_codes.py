"""External sparse codes, which a collection may hold instead of embeddings.

Such a collection is its own checkpoint: it also has `names.json` and a `config.json` of kind
`codes`, but no weights, no backbone and no embeddings.

    image_….npy, text_….npy   codes of the images and optionally of the captions: see `SparseCodes`
    word_….npy, words.json    optional codes of words, for text queries
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sieve.model.codes import SparseCodes, code_files, csr_fault
from sieve.model.files import UNREADABLE, reason_of

IMAGE_CODES, TEXT_CODES, WORD_CODES = "image", "text", "word"
WORDS = "words.json"
NO_BACKBONE = (
    "holds external sparse codes and has no backbone: it can be explored and searched, but not "
    "trained on, evaluated or added to; for that prepare its images with `sieve prepare folder`"
)


def code_file_names(folder: Path) -> list[str]:
    """Return the names of the files of codes that exist in a folder."""
    parts = (IMAGE_CODES, TEXT_CODES, WORD_CODES)
    names = [name for part in parts for name in code_files(part)] + [WORDS]
    return [name for name in names if (folder / name).is_file()]


def has_codes(folder: Path, part: str) -> bool:
    """Return whether a folder has codes of images, texts or words."""
    return all((folder / name).is_file() for name in code_files(part))


def read_codes(folder: Path, part: str, n: int, m: int) -> SparseCodes:
    """Read codes of images, texts or words; return all-zero codes if there are none.

    Raises
    ------
    ValueError
        If the arrays are not valid codes of `n` rows.
    """
    if not has_codes(folder, part):
        return SparseCodes(np.zeros(n + 1, np.int32), np.empty(0, np.int32), np.empty(0), m)
    paths = [folder / name for name in code_files(part)]
    try:
        indptr, indices, values = (np.load(path, allow_pickle=False) for path in paths)
    except UNREADABLE as error:
        raise ValueError(
            f"codes of {folder} cannot be read ({reason_of(error)}); prepare it again"
        ) from None
    fault = csr_fault(indptr, indices, values, (n, m))
    if fault:
        raise ValueError(f"{paths[0]} is damaged: {fault}; prepare the collection again")
    return SparseCodes(indptr, indices, values.astype(np.float32, copy=False), m)


def read_words(folder: Path) -> list[str]:
    """Read the words that have codes; return an empty list if there is no table.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = folder / WORDS
    if not path.is_file():
        return []
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); prepare the collection again") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{path} is not a list of words; prepare the collection again")
    return words
