"""The benchmark's fixed nouns with their forms, synonyms and hypernyms.

The table is in `assets/benchmark/nouns.json`; every result records its hash, so that only results
with the same nouns are compared. A text has a noun if it contains the noun, a synonym or a hyponym:
"a boy runs" has a boy, a child and a person, so it is no right answer to "grass without a child".

`mentions` decides by labels and captions, never by a model, whether an item shows something. A
caption may omit what an image shows, so an item that is not mentioned is not proven right.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from sieve import assets

_TOKEN = re.compile(r"[a-z]+(?:['-][a-z]+)*")
_LONGEST = 3
"""Words of the longest form (double decker bus)."""


Match = TypeVar("Match")


def longest_matches(
    words: tuple[str, ...], longest: int, find: Callable[[tuple[str, ...]], Match | None]
) -> Iterator[tuple[str, Match | None]]:
    """Find the longest phrases from left to right.

    Yields the first word of each phrase with what `find` returns, and each other word with None.
    """
    start = 0
    while start < len(words):
        end, found = start + 1, None
        for end in range(min(start + longest, len(words)), start, -1):
            if (found := find(words[start:end])) is not None:
                break
        yield words[start], found
        start = end


class NounTable:
    """Nouns with their forms, synonyms and hypernyms.

    Parameters
    ----------
    entries : mapping
        For each lemma: `asked` (its text in a query), `forms`, `synonyms`, `hypernyms` (direct
        ones) and `related` (no hypernym, but never paired as "A without B").
    sha256 : str
        Hash of the file.
    """

    def __init__(self, entries: Mapping[str, Mapping], sha256: str = "") -> None:
        self.sha256 = sha256
        self.lemmas: tuple[str, ...] = tuple(sorted(entries))
        self._entries = entries
        self._of_form = {
            form: lemma
            for lemma in self.lemmas
            for form in (*entries[lemma]["forms"], *entries[lemma]["synonyms"])
        }
        self._of_words = {tuple(form.split(" ")): lemma for form, lemma in self._of_form.items()}
        self._hypernyms = {lemma: frozenset(self._climb(lemma)) for lemma in self.lemmas}

    @classmethod
    def load(cls, path: Path) -> NounTable:
        """Read a table from a JSON file."""
        data = path.read_bytes()
        return cls(json.loads(data)["nouns"], hashlib.sha256(data).hexdigest())

    def _climb(self, lemma: str) -> Iterable[str]:
        yield lemma
        for hypernym in self._entries[lemma]["hypernyms"]:
            yield from self._climb(hypernym)

    def lemma_of(self, form: str) -> str | None:
        """Return the noun that a word or phrase is a form of, or None."""
        return self._of_form.get(form.lower())

    def query_text(self, lemma: str) -> str:
        """Return a noun's text in a query: "a dog", "snow", "the sky"."""
        return str(self._entries[lemma]["asked"])

    def wordings(self, name: str) -> tuple[str, str, str, str, str]:
        """Return "dog", "a photo of a dog", "dogs", "there is a dog" and "a hound" for any noun.

        One without a synonym has "the dog" instead of the last.
        """
        entry: Mapping = self._entries.get(name, {})
        one = str(entry.get("asked") or with_article(name))
        forms = [form for form in entry.get("forms", ()) if form != name and form[0] == name[0]]
        many = forms[-1] if forms else name if entry else f"{name}s"
        synonyms = entry.get("synonyms")
        other = with_article(synonyms[0]) if synonyms else f"the {name}"
        return name, f"a photo of {one}", many, f"there is {one}", other

    def hypernyms(self, lemma: str) -> frozenset[str]:
        """Return a noun and all its hypernyms."""
        return self._hypernyms[lemma]

    def can_pair(self, one: str, other: str) -> bool:
        """Return whether "one without other" makes sense: neither is a hypernym or related."""
        entries = self._entries
        related = other in entries[one]["related"] or one in entries[other]["related"]
        implied = one in self._hypernyms[other] or other in self._hypernyms[one]
        return not (related or implied)

    def nouns_in(self, text: str) -> set[str]:
        """Return the nouns of a text and their hypernyms; a hot dog is no dog."""
        words = tuple(_TOKEN.findall(text.lower()))
        matches = longest_matches(words, _LONGEST, self._of_words.get)
        found = [self._hypernyms[lemma] for _, lemma in matches if lemma is not None]
        return set().union(*found)

    def presence(self, captions: Iterable[Iterable[str]]) -> np.ndarray:
        """Return which item has which noun in any of its captions: (n, lemmas) bool."""
        column = {lemma: j for j, lemma in enumerate(self.lemmas)}
        items = [set().union(*map(self.nouns_in, texts), set()) for texts in captions]
        has = np.zeros((len(items), len(self.lemmas)), bool)
        for row, lemmas in enumerate(items):
            has[row, [column[lemma] for lemma in lemmas]] = True
        return has


@lru_cache(maxsize=1)
def benchmark_nouns() -> NounTable:
    """Load the bundled table."""
    return NounTable.load(assets.ROOT / "benchmark" / "nouns.json")


def with_article(word: str) -> str:
    """Put the indefinite article before a label."""
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


_WORD = re.compile(r"\w+")
_ARTICLES = {"a", "an", "the", "some"}


def mentions(wanted: str, captions: Sequence[str], labels: Sequence[str], nouns: NounTable) -> bool:
    """Return whether an item's labels or captions mention everything in a text.

    Nouns of the table also match by their forms, synonyms and hyponyms: a puppy is a dog. A text
    without such a noun matches if a label or a caption contains it word by word.
    """
    if named := nouns.nouns_in(wanted):
        found = set().union(*(nouns.nouns_in(text) for text in (*captions, *labels)))
        return named <= found
    phrase = f" {bare_phrase(wanted)} "
    return bool(phrase.strip()) and any(
        phrase in f" {bare_phrase(text)} " for text in (*captions, *labels)
    )


def bare_phrase(text: str) -> str:
    """Return the case-folded words of a text, without punctuation and leading articles."""
    words = _WORD.findall(text.casefold())
    while words and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)
