"""Example queries for a collection, derived from its captions.

A good example is a pair of concepts that often occur together, so that excluding the second one
changes the results.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from sieve.model.engine import SearchEngine
from sieve.model.words.text import content_words, word_presence

N_EXAMPLES = 5
_SAMPLE = 3000
_WORD = re.compile(r"[a-z][a-z'-]*")
_ARTICLES = {"a", "an", "the", "some", "his", "her", "their", "its"}
_PREPOSITIONS = {"in", "on", "at", "near", "through", "with", "into", "over", "beside", "by", "of"}
_WRITTEN = {
    "scenes": (
        ("a horse", "a field"),
        ("a girl", "a beach"),
        ("food", "a kitchen"),
        ("a dog", "a ball"),
        ("a car", "a street"),
    )
}


class ExampleQuery(NamedTuple):
    """An example query: A, and optionally B to exclude."""

    q: str
    without: str


def examples(engine: SearchEngine) -> tuple[ExampleQuery, ...]:
    """Return example queries for a collection; none without captions or a text encoder."""
    written = _WRITTEN.get(engine.collection.name)
    if written:
        return tuple(ExampleQuery(*pair) for pair in written)
    found = examples_from_captions(engine.collection.items["captions"].iloc[:_SAMPLE].tolist())
    if not engine.collection.codes:
        return found
    return tuple(pair for pair in found if all(map(engine.understands, pair)))


def examples_from_captions(captions: list[list[str]]) -> tuple[ExampleQuery, ...]:
    """Return pairs (A, B) where A is a frequent subject and B co-occurs with it above chance.

    `captions` are those of each item.
    """
    found = word_presence(captions, min_items=max(3, len(captions) // 200))
    if not found.words:
        return ()
    subjects, settings = _roles(captions)
    # `found` counts plurals with their singulars; roles count each form on its own.
    is_subject, is_setting = (
        np.array([role[word] for word in found.words]) >= found.counts / 5
        for role in (subjects, settings)
    )
    chosen: list[ExampleQuery] = []
    used: set[int] = set()
    frequent = [int(a) for a in np.argsort(-found.counts, kind="stable") if is_subject[a]]
    for a in frequent[:40]:
        together = np.asarray(found.presence.T @ found.presence[:, [a]].toarray()).ravel()
        share = together / found.counts[a]
        lift = share * len(captions) / found.counts
        score = np.where(is_setting & (share > 0.1) & (share < 0.7) & (lift > 1.2), lift * share, 0)
        score[[a, *used]] = 0
        b = int(score.argmax())
        if a in used or score[b] <= 0:
            continue
        used |= {a, b}
        chosen.append(ExampleQuery(found.words[a], found.words[b]))
    rest = [ExampleQuery(found.words[a], "") for a in frequent if a not in used]
    return tuple([*chosen, *rest][:N_EXAMPLES])


def _roles(captions: list[list[str]]) -> tuple[Counter[str], Counter[str]]:
    """Count words as the subject of a caption, and as the object of a preposition.

    In "A black dog on green grass" these are the last word of the first run of content words and
    that of the run after "on". This separates nouns from colours and verbs without a parser.
    """
    subjects: Counter[str] = Counter()
    settings: Counter[str] = Counter()
    for text in (text for texts in captions for text in texts):
        heads = _heads([*_WORD.findall(text.lower()), ""])
        subjects.update(head for _, head in heads[:1] if not head.endswith("ing"))
        settings.update({head for before, head in heads[1:] if before in _PREPOSITIONS})
    return subjects, settings


def _heads(words: list[str]) -> list[tuple[str, str]]:
    """Return the last word of each run of content words, after the word before its article."""
    heads: list[tuple[str, str]] = []
    before, run = "", []
    for word in words:
        if content_words(word):
            run.append(word)
            continue
        if run and word not in ("and", "or"):  # "a black and white dog" is not about black
            cut = 1 if len(run) > 1 and run[1].endswith("ing") else len(run)
            heads.append((before, run[cut - 1]))
        if run or word not in _ARTICLES:
            before = word
        run = []
    return heads
