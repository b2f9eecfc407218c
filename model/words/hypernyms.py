"""Hypernyms of nouns: a caption that mentions a dog also implies an animal.

Captions use the most common word for a thing, but queries may use any. The table is an excerpt of
WordNet (Miller 1995), made by `sieve.data_prep.wordnet`; `assets/words/SOURCE.md` has its licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from sieve import assets
from sieve.model.words.text import PLURALS, WordPresence, lemma


@lru_cache(maxsize=1)
def _hypernym_table() -> Mapping[str, tuple[str, ...]]:
    """Read the common synonyms and hypernyms of each noun."""
    table = (assets.ROOT / "words" / "kinds.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines())
    return {noun: tuple(hypernyms.split()) for noun, hypernyms in rows}


def hypernyms_of(word: str) -> frozenset[str]:
    """Return a word, its singular, and their synonyms and hypernyms."""
    table, singular = _hypernym_table(), lemma(word)
    forms = (word, singular) if word in PLURALS else (singular, word)
    noun = next((form for form in forms if form in table), word)
    return frozenset({word, noun, *table.get(noun, ())})


def with_hypernyms(words: WordPresence, min_items: int = 5) -> WordPresence:
    """Add the hypernyms of each item's words.

    Parameters
    ----------
    words : WordPresence
    min_items : int
        Words of fewer items are dropped.
    """
    implied = [hypernyms_of(word) for word in words.words]
    columns = sorted(frozenset(words.words).union(*implied))
    column_of = {word: column for column, word in enumerate(columns)}
    rows = np.repeat(np.arange(len(implied)), [len(of) for of in implied])
    targets = np.array([column_of[word] for of in implied for word in sorted(of)], np.int64)
    ones = np.ones(len(rows), np.float32)
    implies = csr_array((ones, (rows, targets)), shape=(len(implied), len(columns)))
    presence = csr_array(words.presence @ implies)
    presence.data[:] = 1
    frequent = np.flatnonzero(np.asarray(presence.sum(0)).ravel() >= min_items)
    return WordPresence([columns[at] for at in frequent], csr_array(presence[:, frequent]))
