"""What a noun is a kind of: whoever tells of a dog has told of an animal.

Captions call a thing by its plainest word, and people search by any. The table is WordNet's
(Miller 1995), cut down by `sieve.data_prep.wordnet`; `assets/words/SOURCE.md` has its licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from sieve import assets
from sieve.model.words.text import PLURALS, WordPresence, lemma


@lru_cache(maxsize=1)
def noun_kinds() -> Mapping[str, tuple[str, ...]]:
    """Synonyms and hypernyms of each noun, as far as people use them."""
    table = (assets.ROOT / "words" / "kinds.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines())
    return {noun: tuple(kinds.split()) for noun, kinds in rows}


def hypernyms_of(word: str) -> frozenset[str]:
    """All that a caption with this word tells of: the word, its singular, and what these are."""
    kinds, singular = noun_kinds(), lemma(word)
    forms = (word, singular) if word in PLURALS else (singular, word)
    known = next((form for form in forms if form in kinds), word)
    return frozenset({word, known, *kinds.get(known, ())})


def with_kinds(words: WordPresence, min_items: int = 5) -> WordPresence:
    """Let each item have what its words are kinds of, too.

    Parameters
    ----------
    words : WordPresence
    min_items : int
        Kinds of fewer items are dropped.
    """
    told = [hypernyms_of(word) for word in words.words]
    columns = sorted(frozenset(words.words).union(*told))
    place = {column: at for at, column in enumerate(columns)}
    rows = np.repeat(np.arange(len(told)), [len(of) for of in told])
    targets = np.array([place[column] for of in told for column in sorted(of)], np.int64)
    ones = np.ones(len(rows), np.float32)
    tells = csr_array((ones, (rows, targets)), shape=(len(told), len(columns)))
    presence = csr_array(words.presence @ tells)
    presence.data[:] = 1
    frequent = np.flatnonzero(np.asarray(presence.sum(0)).ravel() >= min_items)
    return WordPresence([columns[at] for at in frequent], csr_array(presence[:, frequent]))
