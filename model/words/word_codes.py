"""Words that have codes: a text is read as the mean of the codes of its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from sieve.model.words.text import NUMBER_WORDS, STOP_WORDS, lemma, split_words


class Reading(NamedTuple):
    """A text as entries of the table."""

    rows: tuple[int, ...]
    unknown: tuple[str, ...]
    """Words that say something and are not there, each once."""


class WordVectors(Protocol):
    """A vector for each entry: sparse codes, or any other."""

    @property
    def m(self) -> int:
        """Width."""
        ...

    def dense(self, row: int) -> np.ndarray:
        """One row: (m,) float32."""
        ...


class CodedWords:
    """A table of words and short texts with their codes.

    A whole text that is an entry is that entry; else the longest entries are taken from the left,
    in singular or plural, function words left out.

    Parameters
    ----------
    words : sequence of str
    codes : WordVectors
        A row each, as `SparseCodes`.
    """

    def __init__(self, words: Sequence[str], codes: WordVectors) -> None:
        self._codes = codes
        self._whole: dict[str, int] = {}
        for row, word in enumerate(words):
            self._whole.setdefault(" ".join(word.lower().split()), row)
        self._phrases: dict[tuple[str, ...], int] = {}
        for forms in (tuple, _folded):  # what is written so goes before what may be meant so
            for row, word in enumerate(words):
                if parts := split_words(word):
                    self._phrases.setdefault(forms(parts), row)
        self._longest = max(map(len, self._phrases), default=0)

    def read(self, text: str) -> Reading:
        """Find the entries that a text is made of."""
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
            elif _says_something(words[at]):
                unknown[words[at]] = None
            at += length
        return Reading(tuple(rows), tuple(unknown))

    def code(self, text: str) -> np.ndarray:
        """Give the mean of its entries' codes, of length 1: (m,) float32; zeros where it has none.

        An entry that comes twice counts twice.
        """
        total = np.zeros(self._codes.m, np.float64)
        for row in self.read(text).rows:
            total += self._codes.dense(row)
        length = float(np.linalg.norm(total))
        return (total / length if length else total).astype(np.float32)

    def _entry_at(self, words: list[str], at: int) -> tuple[int | None, int]:
        """Find the longest entry that begins at a word, and how many words it takes."""
        for length in range(min(self._longest, len(words) - at), 0, -1):
            part = words[at : at + length]
            if length == 1 and not _says_something(part[0]):
                break
            for key in (tuple(part), _folded(part)):
                if key in self._phrases:
                    return self._phrases[key], length
        return None, 1


def _folded(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(lemma, words))


def _says_something(word: str) -> bool:
    return word not in STOP_WORDS and word not in NUMBER_WORDS
