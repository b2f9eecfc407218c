"""Texts read from a collection's caption embeddings, for a backbone that is not available.

A text that is a caption of the collection has that caption's embedding. Any other text is read by
its words: a word's direction leads from the mean caption to the mean of the captions that contain
the word, or a word that implies it (a caption with "dog" also tells of an animal), and a text is
the mean direction of its words:

    u_w = unit(mean_{c ∋ w} t_c − t̄),   t(text) = t̄ + λ Σ_w u_w,   λ > 0 such that |t(text)| = 1

So what is left after a sparse encoder has subtracted the mean caption t̄ is the words' direction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from sieve.model.collection import Collection
from sieve.model.words.hypernyms import with_kinds
from sieve.model.words.text import content_words, with_phrases, word_presence
from sieve.model.words.word_codes import CodedWords

_WORD = re.compile(r"\w+(?:['’]\w+)?")
_ARTICLES = frozenset({"a", "an", "the"})
_CAPTIONS_AT_ONCE = 65_536
_SHORTEST = 1e-3
"""A word whose captions differ less from all captions says nothing: most captions contain it."""


class CaptionEncoder:
    """Embed texts by the captions of a collection.

    Parameters
    ----------
    captions : sequence of str
    embeddings : (c, d) float16 or float32
        Of the captions, L2-normalised; may be memory-mapped.
    """

    sha256 = ""
    """Nothing derived from these embeddings is cached under a backbone's hash."""

    def __init__(self, captions: Sequence[str], embeddings: np.ndarray) -> None:
        if not len(captions):
            raise ValueError("there are no captions to read texts by")
        self._captions = captions
        self._embeddings = embeddings

    @classmethod
    def of_collection(
        cls, collection: Collection, rows: np.ndarray | None = None
    ) -> CaptionEncoder:
        """Read texts by all captions of a collection, or by those of some item rows."""
        if rows is None:
            return cls(list(collection.caption_texts), collection.text_embeddings)
        captions = collection.captions_of_rows(rows)
        texts = [collection.caption_texts[caption] for caption in captions.tolist()]
        return cls(texts, collection.text_embeddings[captions])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (n, d) float32, unit rows; the mean caption for a text without a word."""
        width = self._embeddings.shape[1]
        return np.array([self._encode(text) for text in texts], np.float32).reshape(-1, width)

    def unknown_words(self, text: str) -> list[str]:
        """Content words of a text that no caption has, in order, each once."""
        if _key(text) in self._rows_of_caption:
            return []
        said = set(content_words(text))
        return [word for word in self._words.read(text).unknown if word in said]

    def reads(self, text: str) -> bool:
        """Whether a text is a caption, or any of its words is in one."""
        return _key(text) in self._rows_of_caption or bool(self._words.read(text).rows)

    def _encode(self, text: str) -> np.ndarray:
        rows = self._rows_of_caption.get(_key(text))
        if rows:
            return _unit(np.asarray(self._embeddings[rows], np.float32).mean(0))
        direction = self._words.code(text)
        if not direction.any():
            return _unit(self._mean)
        # Where the ray from the mean caption, which lies inside the unit sphere, leaves it.
        along = float(direction @ self._mean)
        inside = 1 - float(self._mean @ self._mean)
        return _unit(self._mean + (np.sqrt(along**2 + max(inside, 0)) - along) * direction)

    @cached_property
    def _rows_of_caption(self) -> dict[tuple[str, ...], list[int]]:
        found: dict[tuple[str, ...], list[int]] = {}
        for row, caption in enumerate(self._captions):
            if key := _key(caption):
                found.setdefault(key, []).append(row)
        return found

    @cached_property
    def _mean(self) -> np.ndarray:
        everywhere = csr_array(np.ones((len(self._captions), 1), np.float32))
        return self._means(everywhere)[0]

    @cached_property
    def _words(self) -> CodedWords:
        singly = [(caption,) for caption in self._captions]
        said = with_kinds(with_phrases(word_presence(singly, 1), singly), 1)
        directions = self._means(said.presence) - self._mean
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        directions = np.where(lengths > _SHORTEST, directions / np.maximum(lengths, 1e-12), 0)
        return CodedWords(said.words, _Directions(directions.astype(np.float32)))

    def _means(self, presence: csr_array) -> np.ndarray:
        """Mean embedding of the captions that have each word: (c, w) → (w, d) float32."""
        counts = np.asarray(presence.sum(0)).reshape(-1, 1)
        total = np.zeros((len(counts), self._embeddings.shape[1]), np.float32)
        for start in range(0, len(self._captions), _CAPTIONS_AT_ONCE):
            part = slice(start, start + _CAPTIONS_AT_ONCE)
            total += csr_array(presence[part]).T @ np.asarray(self._embeddings[part], np.float32)
        return total / np.maximum(counts, 1)


class _Directions:
    """Rows of a dense array, read as `CodedWords` reads codes."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self.m = rows.shape[1]

    def dense(self, row: int) -> np.ndarray:
        return self._rows[row]


def _key(text: str) -> tuple[str, ...]:
    """Words of a text without case, punctuation and articles: what two captions are compared by."""
    return tuple(word for word in _WORD.findall(text.casefold()) if word not in _ARTICLES)


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
