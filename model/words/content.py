"""Content words of captions: which word stands in which item's captions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from sieve.model.words.known import PLURALS

_COMPOUNDS = (
    "cotton candy", "dragon fruit", "ferris wheel", "guinea pig", "hot dog", "ice cream",
    "roller coaster", "sea horse", "sea lion", "teddy bear",
)  # fmt: skip
# Each is a word of its own: whoever asks for a dog does not want a hot dog.
_TOKEN = re.compile(rf"\b(?:{'|'.join(_COMPOUNDS)})s?\b|[a-z][a-z'-]*[a-z]")
# scikit-learn's list takes these for function words; in captions they name what is seen.
_STOP_WORDS = (ENGLISH_STOP_WORDS - {"fire", "system", "computer"}) | {
    "photo", "picture", "image", "scene", "shot", "view", "wearing", "looking", "look", "there's",
}  # fmt: skip


class WordPresence(NamedTuple):
    """Which word stands in which item's captions."""

    words: list[str]
    presence: csr_array
    """(n, w) float32 of 0 and 1"""

    @property
    def counts(self) -> np.ndarray:
        """(w,) int64: in how many items each word stands."""
        return np.asarray(self.presence.sum(0)).ravel().astype(np.int64)


def content_words(text: str) -> list[str]:
    """Lower-case words that carry meaning, in order, with repetitions."""
    return [word for word in _TOKEN.findall(text.lower()) if word not in _STOP_WORDS]


def singular_forms(vocabulary: Iterable[str]) -> dict[str, str]:
    """Map each plain plural to its singular where both are in the vocabulary.

    `dogs` becomes `dog`, but `grass` stays, as no caption speaks of `gras`.
    """
    known = set(vocabulary)
    forms: dict[str, str] = {}
    for word in known - PLURALS:
        candidates = [word[:-1]] if word.endswith("s") else []
        candidates += [word[:-2]] if word.endswith("es") else []
        candidates += [word[:-3] + "y"] if word.endswith("ies") else []
        found = next((form for form in candidates if len(form) > 2 and form in known), None)
        if found:
            forms[word] = found
    return forms


def with_phrases(
    words: WordPresence, captions: Sequence[Sequence[str]], min_items: int = 5
) -> WordPresence:
    """Add the phrases of two words that the captions use: "palm tree", "hot dog".

    Only words that stand side by side, and in at least a quarter of the items that have the rarer
    of them: chance neighbours are no phrase.

    Parameters
    ----------
    words : WordPresence
        Of the same captions.
    captions : sequence of sequence of str
    min_items : int
        Phrases of fewer items are dropped.
    """
    place = {word: at for at, word in enumerate(words.words)}
    forms = singular_forms({word for item in captions for t in item for word in content_words(t)})
    items_of: dict[tuple[str, str], list[int]] = {}
    for row, item in enumerate(captions):
        pairs = {(one, forms.get(other, other)) for text in item for one, other in _adjacent(text)}
        for pair in pairs:
            items_of.setdefault(pair, []).append(row)
    counts = words.counts
    kept: dict[str, list[int]] = {}
    for (one, other), rows in sorted(items_of.items()):
        rarer = min(
            (counts[place[w]] for w in (forms.get(one, one), other) if w in place), default=0
        )
        if len(rows) >= max(min_items, rarer / 4) and one != other:
            kept[f"{one} {other}"] = rows
    columns = np.repeat(np.arange(len(kept)), [len(rows) for rows in kept.values()])
    rows = np.array([row for rows in kept.values() for row in rows], np.int64)
    ones = np.ones(len(rows), np.float32)
    phrases = csr_array((ones, (rows, columns)), shape=(len(captions), len(kept)))
    return WordPresence([*words.words, *kept], csr_array(hstack([words.presence, phrases])))


def _adjacent(text: str) -> list[tuple[str, str]]:
    """Pairs of content words with nothing but a space between them."""
    found = list(_TOKEN.finditer(text.lower()))
    return [
        (one.group(), other.group())
        for one, other in pairwise(found)
        if text[one.end() : other.start()] == " " and not {one.group(), other.group()} & _STOP_WORDS
    ]


def word_presence(captions: Sequence[Sequence[str]], min_items: int = 5) -> WordPresence:
    """Find the content words of every item.

    Parameters
    ----------
    captions : sequence of sequence of str
        Captions of each item.
    min_items : int
        Words of fewer items are dropped.
    """
    texts = ["\n".join(item) for item in captions]
    forms = singular_forms({word for text in texts for word in content_words(text)})

    def words_of(text: str) -> list[str]:
        return [forms.get(word, word) for word in content_words(text)]

    analyzer: Any = words_of  # scikit-learn's stubs know only the names of its own analyzers
    vectorizer = CountVectorizer(analyzer=analyzer, binary=True)
    try:
        presence = csr_array(vectorizer.fit_transform(texts), dtype=np.float32)
    except ValueError:  # scikit-learn's "empty vocabulary": no caption has a content word
        return WordPresence([], csr_array((len(captions), 0), dtype=np.float32))
    frequent = np.flatnonzero(np.asarray(presence.sum(0)).ravel() >= min_items)
    words = vectorizer.get_feature_names_out()[frequent].tolist()
    return WordPresence(words, csr_array(presence[:, frequent]))


def concept_presence(captions: Sequence[Sequence[str]], min_items: int = 5) -> WordPresence:
    """Find the words and the phrases of two words that training asks for; see both parts."""
    return with_phrases(word_presence(captions, min_items), captions, min_items)
