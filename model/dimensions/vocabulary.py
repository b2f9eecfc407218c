r"""Name dimensions after words of a general vocabulary, without captions.

A word fits a dimension if it activates the dimension and is close to the images that have it:

    fit_jw = √(cos⁺(W_enc_j, x̃_w) · cos⁺(c_j, x̃_w)),  c_j = Σ_i z_ij³ x̃_i

with x̃ centred embeddings of a word w or an image i. Discover-then-Name (Rao et al. 2024, arXiv
2407.14499) uses the word nearest to the decoder column; CLIP-Dissect (Oikarinen & Weng 2023, arXiv
2204.10965) uses the images. Here a name must hold in both modalities.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sieve import assets
from sieve.model.codes import encode_codes
from sieve.model.dimensions.statistics import SHARPNESS
from sieve.model.evaluation.rules import unit
from sieve.model.files import UNREADABLE, atomic_file, sieve_home
from sieve.model.hyperparameters import IMAGE, TEXT

if TYPE_CHECKING:
    from sieve.model.encoder import SparseEncoder

log = logging.getLogger(__name__)

_DIMENSIONS_A_BATCH = 256


class TextTower(Protocol):
    """Interface of a text encoder: a backbone, or its replacement."""

    sha256: str
    """Hash of the weights; empty if results must not be cached under it."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Embed texts: (n, d) float32, unit rows."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """Return the words that the backbone was not trained on."""
        ...


class WordFit(NamedTuple):
    """The best word for a dimension, and the runner-up."""

    word: str
    score: float
    """In [0, 1]."""
    runner_up: str
    runner_up_score: float


@lru_cache(maxsize=1)
def english_words() -> tuple[str, ...]:
    """Return the vocabulary of names; see `assets/words/SOURCE.md` for its source."""
    return tuple((assets.ROOT / "words" / "english.txt").read_text(encoding="utf-8").split())


def vocabulary_of(backbone: TextTower) -> list[str]:
    """Return the vocabulary words that a backbone knows; all if it has no word list."""
    return [word for word in english_words() if not backbone.unknown_words(word)]


def word_embeddings(words: Sequence[str], backbone: TextTower, sha256: str) -> np.ndarray:
    """Embed words: (w, d) float32; cached in `$SIEVE_HOME/words` by the hash of the backbone.

    If the hash is empty, nothing is cached.
    """
    if not sha256:
        return np.asarray(backbone.encode_texts(list(words)), np.float32)
    listed = hashlib.sha256("\n".join(words).encode()).hexdigest()
    path = sieve_home() / "words" / f"{sha256[:16]}-{listed[:16]}.npy"
    try:
        found = np.load(path, allow_pickle=False)
        if found.ndim == 2 and len(found) == len(words) and found.dtype.kind == "f":
            return found.astype(np.float32)
    except UNREADABLE:
        pass  # missing or damaged: computed below
    log.info("embedding %s words for the names of dimensions", len(words))
    found = np.asarray(backbone.encode_texts(list(words)), np.float32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            np.save(temporary, found.astype(np.float16))
    except OSError as error:
        log.warning("word embeddings are not cached: %s", error)
    return found


def fit_words(
    encoder: SparseEncoder, images: np.ndarray, words: Sequence[str], embeddings: np.ndarray
) -> dict[int, WordFit]:
    """Return the best vocabulary word for every dimension that any image has.

    `images` are (n, d) embeddings, float16 or float32, and `embeddings` (w, d) those of the words.
    """
    if not len(words) or not len(images):
        return {}
    import torch  # slow to import, and named dimensions do not need it

    with torch.inference_mode():
        read = encoder.centred(torch.from_numpy(embeddings), TEXT).cpu().numpy()  # (w, d)
        seen = encoder.centred(
            torch.from_numpy(np.asarray(images, np.float32)).to(encoder.encode_md.device), IMAGE
        )
    codes = encode_codes(encoder, images, IMAGE).by_row
    centres = unit((codes**SHARPNESS).T @ seen.cpu().numpy())  # (m, d)
    reader = unit(encoder.encode_md.detach().cpu().numpy())  # (m, d)
    found: dict[int, WordFit] = {}
    for start in range(0, len(centres), _DIMENSIONS_A_BATCH):
        part = slice(start, start + _DIMENSIONS_A_BATCH)
        by_text, by_image = reader[part] @ read.T, centres[part] @ read.T
        fits = np.sqrt(np.maximum(by_text, 0) * np.maximum(by_image, 0))  # (b, w)
        for j, fit in enumerate(fits, start):
            best = best_words(fit, words)
            if best is not None:
                found[j] = best
    return found


def best_words(scores: np.ndarray, words: Sequence[str]) -> WordFit | None:
    """Return the best word and the next unrelated one, or None if no score is positive."""
    order = np.argsort(-scores, kind="stable")[:8]
    ranked = [int(at) for at in order if scores[at] > 0]
    if not ranked:
        return None
    best = ranked[0]
    second = next((at for at in ranked if not are_related(words[best], words[at])), None)
    fits = [
        ("", 0.0) if at is None else (words[at], min(float(scores[at]), 1.0))
        for at in (best, second)
    ]
    return WordFit(*fits[0], *fits[1])


def are_related(one: str, other: str) -> bool:
    """Whether two names share a word, or one is a prefix of the other: snow and snowy."""
    if set(one.split()) & set(other.split()):
        return True
    short, long = sorted((one, other), key=len)
    return len(short) > 2 and long.startswith(short)
