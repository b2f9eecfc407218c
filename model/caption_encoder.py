"""Text encoder that uses a collection's caption embeddings, for an unavailable backbone.

A text that is a caption of the collection gets that caption's embedding. Any other text is embedded
by its words. The direction of a word leads from the mean caption to the mean of the captions that
contain the word or a hyponym ("dog" for "animal"), and a text is the sum of its words' directions:

    u_w = unit(mean_{c ∋ w} t_c − t̄),   t(text) = t̄ + λ Σ_w u_w,   λ > 0 such that |t(text)| = 1

After a sparse encoder has subtracted the mean caption t̄, the words' direction remains.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from sieve.model.collection import Collection
from sieve.model.words.hypernyms import with_hypernyms
from sieve.model.words.text import content_words, with_phrases, word_presence
from sieve.model.words.word_codes import CodedWords

_WORD = re.compile(r"\w+(?:['’]\w+)?")
_ARTICLES = frozenset({"a", "an", "the"})
_CAPTIONS_AT_ONCE = 65_536
_MIN_LENGTH = 1e-3
"""Words whose mean differs less from the mean caption are ignored: most captions contain them."""


class CaptionEncoder:
    """Text encoder of captions with their embeddings.

    Parameters
    ----------
    captions : sequence of str
    embeddings : (c, d) float16 or float32
        Embeddings of the captions, L2-normalised; may be memory-mapped.
    """

    sha256 = ""
    """Empty, so that nothing is cached under a backbone's hash."""

    def __init__(self, captions: Sequence[str], embeddings: np.ndarray) -> None:
        if not len(captions):
            raise ValueError("expected at least one caption to encode texts by; got none")
        self._captions = captions
        self._embeddings = embeddings

    @classmethod
    def of_collection(
        cls, collection: Collection, rows: np.ndarray | None = None
    ) -> CaptionEncoder:
        """Use all captions of a collection, or those of some item rows."""
        if rows is None:
            return cls(list(collection.caption_texts), collection.text_embeddings)
        captions = collection.captions_of_rows(rows)
        texts = [collection.caption_texts[caption] for caption in captions.tolist()]
        return cls(texts, collection.text_embeddings[captions])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (n, d) float32, unit rows; the mean caption if no word is known."""
        width = self._embeddings.shape[1]
        return np.array([self._encode(text) for text in texts], np.float32).reshape(-1, width)

    def unknown_words(self, text: str) -> list[str]:
        """Return the content words of a text that no caption contains, in order, each once."""
        if _key(text) in self._rows_of_caption:
            return []
        content = set(content_words(text))
        return [word for word in self._words.read(text).unknown if word in content]

    def reads(self, text: str) -> bool:
        """Return whether a text is a caption, or has a word of one."""
        return _key(text) in self._rows_of_caption or bool(self._words.read(text).rows)

    def _encode(self, text: str) -> np.ndarray:
        rows = self._rows_of_caption.get(_key(text))
        if rows:
            return _unit(np.asarray(self._embeddings[rows], np.float32).mean(0))
        direction = self._words.code(text)
        if not direction.any():
            return _unit(self._mean)
        # The mean caption is inside the unit sphere; take the point where the ray leaves it.
        along = float(direction @ self._mean)
        inside = 1 - float(self._mean @ self._mean)
        return _unit(self._mean + (np.sqrt(along**2 + max(inside, 0)) - along) * direction)

    @cached_property
    def _rows_of_caption(self) -> dict[tuple[str, ...], list[int]]:
        rows: dict[tuple[str, ...], list[int]] = {}
        for row, caption in enumerate(self._captions):
            if key := _key(caption):
                rows.setdefault(key, []).append(row)
        return rows

    @cached_property
    def _mean(self) -> np.ndarray:
        all_captions = csr_array(np.ones((len(self._captions), 1), np.float32))
        return self._means(all_captions)[0]

    @cached_property
    def _words(self) -> CodedWords:
        items = [(caption,) for caption in self._captions]
        words = with_hypernyms(with_phrases(word_presence(items, 1), items), 1)
        directions = self._means(words.presence) - self._mean
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        directions = np.where(lengths > _MIN_LENGTH, directions / np.maximum(lengths, 1e-12), 0)
        return CodedWords(words.words, _Directions(directions.astype(np.float32)))

    def _means(self, presence: csr_array) -> np.ndarray:
        """Return the mean embedding of the captions with each word: (c, w) → (w, d) float32."""
        counts = np.asarray(presence.sum(0)).reshape(-1, 1)
        total = np.zeros((len(counts), self._embeddings.shape[1]), np.float32)
        for start in range(0, len(self._captions), _CAPTIONS_AT_ONCE):
            part = slice(start, start + _CAPTIONS_AT_ONCE)
            total += csr_array(presence[part]).T @ np.asarray(self._embeddings[part], np.float32)
        return total / np.maximum(counts, 1)


class _Directions:
    """Adapter of a dense array to `WordVectors`."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self.m = rows.shape[1]

    def dense(self, row: int) -> np.ndarray:
        return self._rows[row]


def _key(text: str) -> tuple[str, ...]:
    """Return the words of a text without case, punctuation and articles, to compare captions."""
    return tuple(word for word in _WORD.findall(text.casefold()) if word not in _ARTICLES)


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
