"""Texts encoded by a table of word codes: the code of a text is the mean of its words' codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from sieve.model.words.text import is_content_word, lemma, split_words


class Reading(NamedTuple):
    """Entries of a table that a text consists of."""

    rows: tuple[int, ...]
    unknown: tuple[str, ...]
    """Content words that are not in the table, each once."""


class WordVectors(Protocol):
    """Vectors of the entries, such as `SparseCodes`."""

    @property
    def m(self) -> int:
        """Number of dimensions."""
        ...

    def dense(self, row: int) -> np.ndarray:
        """Return the vector of one row: (m,) float32."""
        ...


class CodedWords:
    """Table of words and short texts with their codes.

    A text that is an entry as a whole is read as that entry. Otherwise the longest entries are
    matched from left to right, in singular or plural, and function words are skipped.

    Parameters
    ----------
    words : sequence of str
    codes : WordVectors
        One row for each of `words`.
    """

    def __init__(self, words: Sequence[str], codes: WordVectors) -> None:
        self._codes = codes
        self._whole: dict[str, int] = {}
        for row, word in enumerate(words):
            self._whole.setdefault(" ".join(word.lower().split()), row)
        self._phrases: dict[tuple[str, ...], int] = {}
        for forms in (tuple, _folded):  # exact entries take precedence over singulars
            for row, word in enumerate(words):
                if parts := split_words(word):
                    self._phrases.setdefault(forms(parts), row)
        self._longest = max(map(len, self._phrases), default=0)

    def read(self, text: str) -> Reading:
        """Find the entries that a text consists of."""
        whole = self._whole.get(" ".join(text.lower().split()))
        if whole is not None:
            return Reading((whole,), ())
        words = split_words(text)
        rows: list[int] = []
        unknown: dict[str, None] = {}
        at = 0
        while at < len(words):
            row, length = self._entry_at(words, at)
            if row is not None:
                rows.append(row)
            elif is_content_word(words[at]):
                unknown[words[at]] = None
            at += length
        return Reading(tuple(rows), tuple(unknown))

    def code(self, text: str) -> np.ndarray:
        """Return the normalised sum of a text's entries: (m,) float32; zeros if it has none.

        Repeated entries count repeatedly.
        """
        total = np.zeros(self._codes.m, np.float64)
        for row in self.read(text).rows:
            total += self._codes.dense(row)
        length = float(np.linalg.norm(total))
        return (total / length if length else total).astype(np.float32)

    def _entry_at(self, words: list[str], at: int) -> tuple[int | None, int]:
        """Return the longest entry that begins at a word, and its number of words."""
        for length in range(min(self._longest, len(words) - at), 0, -1):
            part = words[at : at + length]
            if length == 1 and not is_content_word(part[0]):
                break
            for key in (tuple(part), _folded(part)):
                if key in self._phrases:
                    return self._phrases[key], length
        return None, 1


def _folded(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(lemma, words))
