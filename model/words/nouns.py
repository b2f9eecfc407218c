"""The benchmark's frozen nouns: what counts as a dog, and what a dog is a kind of.

The table ships in `assets/benchmark/nouns.json`; its hash stands in every result, so that two
results can be told to speak of the same words. A text has a noun where it says the noun, a synonym,
or a kind of it: "a boy runs" has a boy, a child and a person, so it does not count as an answer to
"grass without a child".

Whether what is known of an item says that it shows something, as "a beach".

For framing violations: labels and captions are asked, never a model. Absence in captions is not
absence in the picture, so an item that is not framed is not proven right.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from sieve import assets

_TOKEN = re.compile(r"[a-z]+(?:['-][a-z]+)*")
_LONGEST = 3
"""Words of the longest form (double decker bus)."""


class NounTable:
    """Nouns with their forms, synonyms and hypernyms.

    Parameters
    ----------
    entries : mapping
        By lemma: `asked` (how a person types it), `forms`, `synonyms`, `hypernyms` (direct ones)
        and `related` (no kind of each other, but never asked for as A without B).
    sha256 : str
        Hash of the file.

    Raises
    ------
    ValueError
        If a form belongs to two nouns or a relation names an unknown one.
    """

    def __init__(self, entries: Mapping[str, Mapping], sha256: str = "") -> None:
        self.sha256 = sha256
        self.lemmas: tuple[str, ...] = tuple(sorted(entries))
        self._entries = entries
        self._of_form: dict[str, str] = {}
        for lemma in self.lemmas:
            for form in (*entries[lemma]["forms"], *entries[lemma]["synonyms"]):
                if self._of_form.setdefault(form, lemma) != lemma:
                    raise ValueError(f"{form!r} stands for {self._of_form[form]!r} and {lemma!r}")
        self._kinds = {lemma: frozenset(self._climb(lemma, ())) for lemma in self.lemmas}

    @classmethod
    def load(cls, path: Path) -> NounTable:
        """Read a table."""
        data = path.read_bytes()
        return cls(json.loads(data)["nouns"], hashlib.sha256(data).hexdigest())

    def _climb(self, lemma: str, below: tuple[str, ...]) -> Iterable[str]:
        if lemma in below:
            raise ValueError(f"{lemma!r} is a kind of itself, by {' and '.join(below)}")
        if lemma not in self._entries:
            raise ValueError(f"{below[-1]!r} is a kind of {lemma!r}, which is no noun of the table")
        yield lemma
        for hypernym in self._entries[lemma]["hypernyms"]:
            yield from self._climb(hypernym, (*below, lemma))

    def lemma_of(self, form: str) -> str | None:
        """Find the noun that a word or phrase is a form of."""
        return self._of_form.get(form.lower())

    def asked(self, lemma: str) -> str:
        """How a person asks for a noun: "a dog", "snow", "the sky"."""
        return str(self._entries[lemma]["asked"])

    def kinds(self, lemma: str) -> frozenset[str]:
        """Give a noun and everything that it is a kind of."""
        return self._kinds[lemma]

    def apart(self, one: str, other: str) -> bool:
        """Whether "one without other" may be asked: neither is a kind of the other, or related."""
        entries = self._entries
        near = other in entries[one]["related"] or one in entries[other]["related"]
        return not near and one not in self._kinds[other] and other not in self._kinds[one]

    def found_in(self, text: str) -> set[str]:
        """All nouns that a text has, the longest form first: a hot dog is no dog."""
        words = _TOKEN.findall(text.lower())
        found: set[str] = set()
        place = 0
        while place < len(words):
            step = 1
            for length in range(min(_LONGEST, len(words) - place), 0, -1):
                lemma = self._of_form.get(" ".join(words[place : place + length]))
                if lemma is not None:
                    found |= self._kinds[lemma]
                    step = length
                    break
            place += step
        return found

    def presence(self, captions: Iterable[Iterable[str]]) -> np.ndarray:
        """Which item has which noun in any of its captions: (n, lemmas) bool."""
        column = {lemma: j for j, lemma in enumerate(self.lemmas)}
        items = [set().union(*map(self.found_in, texts), set()) for texts in captions]
        has = np.zeros((len(items), len(self.lemmas)), bool)
        for row, lemmas in enumerate(items):
            has[row, [column[lemma] for lemma in lemmas]] = True
        return has


@lru_cache(maxsize=1)
def benchmark_nouns() -> NounTable:
    """Open the table that ships."""
    return NounTable.load(assets.ROOT / "benchmark" / "nouns.json")


def with_article(word: str) -> str:
    """Say a label as a person would search for it."""
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


_WORD = re.compile(r"\w+")
_ARTICLES = {"a", "an", "the", "some"}


def mentions(wanted: str, captions: Sequence[str], labels: Sequence[str], nouns: NounTable) -> bool:
    """Tell whether labels or captions name all that a text asks for.

    Nouns of the table also count by their forms, synonyms and kinds: a puppy is a dog. A text
    without such a noun counts where it stands, word by word, in a label or a caption.

    Parameters
    ----------
    wanted : str
        As a person types it: "a beach", "dogs and cats".
    captions, labels : sequence of str
        Of one item.
    nouns : NounTable
    """
    asked = _named(wanted, nouns)
    if asked:
        said = set().union(*(nouns.found_in(text) for text in (*captions, *labels)))
        return asked <= said
    phrase = f" {bare_phrase(wanted)} "
    return bool(phrase.strip()) and any(
        phrase in f" {bare_phrase(text)} " for text in (*captions, *labels)
    )


def _named(text: str, nouns: NounTable) -> set[str]:
    """Nouns that a text names, without those that it only implies: a dog, but not an animal."""
    found = nouns.found_in(text)
    return {one for one in found if not any(one != k and one in nouns.kinds(k) for k in found)}


def bare_phrase(text: str) -> str:
    """Words of a text, in small letters between single spaces, without articles at its head."""
    words = _WORD.findall(text.casefold())
    while words and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)
