"""Whether what is known of an item says that it shows something, as "a beach".

For framing violations: labels and captions are asked, never a model. Absence in captions is not
absence in the picture, so an item that is not framed is not proven right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sieve.model.words.nouns import NounTable

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
