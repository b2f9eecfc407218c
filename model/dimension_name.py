"""Names of dimensions with their scores and sources.

Words that label people by ethnicity, religion, nationality, sexual orientation or disability, and
names of persons, are never used as automatic names. `sieve.data_prep.wordnet_person_labels` builds
the list of them, which `assets/words/SOURCE.md` describes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from sieve import assets
from sieve.model.words.text import lemma

CAPTIONS = "captions"
VOCABULARY = "vocabulary"
GIVEN = "given"
PERSON = "person"
"""Source of a name that a user gave in the explorer; no checkpoint has it."""

_COLOURS = frozenset(
    {"black", "white", "brown", "yellow", "dark", "dark-skinned", "light-skinned", "colored"}
)
_PERSONS = frozenset(
    """
    baby boy child crowd dude family female gentleman girl guy infant kid lady male man people
    person teen teenager toddler woman youth
    """.split()  # noqa: SIM905
)
_PART = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class DimensionName:
    """A dimension's name with its score and source.

    The fields from `source` on are missing in names.json of older checkpoints.
    """

    name: str
    score: float
    """Fit of the word to the dimension, in [0, 1]; comparable only for names of one source."""
    runner_up: str
    """The second-best word, or empty."""
    runner_up_score: float = 0.0
    source: str = CAPTIONS
    """Source of the name: captions, vocabulary, or given with external codes, without a score."""
    vocabulary: str = ""
    """The best word of the vocabulary, or empty."""
    vocabulary_score: float = 0.0
    vocabulary_runner_up: str = ""
    vocabulary_runner_up_score: float = 0.0

    def without_labels(self) -> DimensionName | None:
        """Replace automatic words that label people by the next best; return None if none is left.

        Names that came with external codes or from users are not changed.
        """
        if self.source not in (CAPTIONS, VOCABULARY):
            return self
        found = self
        if labels_people(found.vocabulary_runner_up):
            found = replace(found, vocabulary_runner_up="", vocabulary_runner_up_score=0.0)
        if labels_people(found.vocabulary):
            found = replace(
                found,
                vocabulary=found.vocabulary_runner_up,
                vocabulary_score=found.vocabulary_runner_up_score,
                vocabulary_runner_up="",
                vocabulary_runner_up_score=0.0,
            )
        if labels_people(found.runner_up):
            found = replace(found, runner_up="", runner_up_score=0.0)
        if not labels_people(found.name):
            return found
        word = found.name.split(" · ")[0]
        if not labels_people(word):
            return replace(found, name=word)
        if found.runner_up:
            return replace(
                found,
                name=found.runner_up,
                score=found.runner_up_score,
                runner_up="",
                runner_up_score=0.0,
            )
        if found.vocabulary:
            return replace(
                found, name=found.vocabulary, score=found.vocabulary_score, source=VOCABULARY
            )
        return None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> DimensionName:
        """Read an entry of names.json and ignore unknown fields."""
        given: dict[str, Any] = {
            field.name: (float if field.type == "float" else str)(entry[field.name])
            for field in fields(cls)
            if field.name in entry
        }
        return cls(**given)


@lru_cache(maxsize=1)
def _listed() -> tuple[frozenset[str], frozenset[str]]:
    """Read the words, and the phrases of such words that do not label people: french fries."""
    folder = assets.ROOT / "words"
    lines = [
        line
        for name in ("person_labels.txt", "person_labels_extra.txt")
        for line in (folder / name).read_text(encoding="utf-8").split("\n")
        if line
    ]
    phrases = frozenset(line[1:] for line in lines if line.startswith("+"))
    return frozenset(line for line in lines if not line.startswith("+")), phrases


@lru_cache(maxsize=65_536)
def labels_people(name: str) -> bool:
    """Return whether a word, a phrase or a name such as "man · black" labels people."""
    labels, phrases = _listed()
    parts = [_PART.findall(part.lower()) for part in name.split("·")]
    words = {word for part in parts for word in part}
    if words & _COLOURS and _PERSONS & {lemma(word) for word in words}:
        return True
    return any(
        " ".join(part) not in phrases and any(map(labels.intersection, map(_forms, part)))
        for part in parts
    )


def _forms(word: str) -> set[str]:
    """Return a word and its parts: african-american, obama's."""
    return {word, *re.split("[-'’]", word)}
