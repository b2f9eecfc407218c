"""Which words of a query a small backbone has never met, so that a person can be told.

A word list holds surface forms. A query's word counts as known when it and a listed word may come
of the same base form (dogs and dog, running and run). The folding is generous on purpose: a false
alarm would teach people to ignore the warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_STOP = """
a about above across after again against all along also am among an and another any are around
as at away back be because been before behind being below beside between both but by can
could did do does doing down during each either else for from get gets getting got had has
have having he her here hers herself him himself his how i if in inside into is it its itself
just like many may me might more most much must my near next no nor not of off on once one
only onto or other others our out outside over own per same several shall she should so some
such than that the their them then there these they this those through to together too
toward towards under until up upon us very was we were what when where which while who whom
whose why will with within without would you your
"""
STOP_WORDS = frozenset(_STOP.split())
"""Function words: they say nothing of what a picture shows."""

_WORD = re.compile(r"\b[^\W\d_]+(?:'[^\W\d_]+)?\b")
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot",
    "teeth": "tooth", "mice": "mouse", "geese": "goose", "ran": "run", "sat": "sit",
    "stood": "stand", "lay": "lie", "lying": "lie", "rode": "ride", "ridden": "ride",
    "threw": "throw", "thrown": "throw", "swam": "swim", "caught": "catch", "held": "hold",
    "wore": "wear", "worn": "wear", "ate": "eat", "took": "take", "taken": "take",
}  # fmt: skip
_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve dozen hundred thousand million
first second third
"""
NUMBER_WORDS = frozenset(_NUMBERS.split())


def split_words(text: str) -> list[str]:
    """Lower-case words of a text, without punctuation, digits and possessive endings."""
    plain = text.lower().replace("\u2019", "'")
    return [word.split("'")[0] for word in _WORD.findall(plain)]


def lemma(word: str) -> str:
    """Fold a noun's plural into its singular: one cautious form, for counting words."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def known_bases(words: Iterable[str]) -> frozenset[str]:
    """All base forms that the listed words may have."""
    return frozenset(base for word in words for base in _bases(word.lower()))


def unknown_words(text: str, known: frozenset[str]) -> list[str]:
    """Words of a text that share no base form with the known ones, in order, each once.

    Parameters
    ----------
    text : str
    known : frozenset of str
        From `known_bases`.
    """
    found: dict[str, None] = {}
    for word in split_words(text):
        quiet = len(word) < 2 or word in STOP_WORDS or word in NUMBER_WORDS
        if not quiet and known.isdisjoint(_bases(word)):
            found[word] = None
    return list(found)


def _bases(word: str) -> set[str]:
    """Forms that a word may be an inflection of, itself among them."""
    bases = {word, lemma(word)}
    if word in _IRREGULAR:
        return bases
    for ending in ("ing", "ed", "er", "est", "es", "ly", "y"):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 3:
            continue
        bases |= {stem, stem + "e"}
        if stem[-1] == stem[-2]:
            bases.add(stem[:-1])
        if stem.endswith("i"):
            bases.add(stem[:-1] + "y")
    return bases
