"""What a dimension is called, how surely, and where the name is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sieve.model.words.person_labels import labels_people

CAPTIONS = "captions"
VOCABULARY = "vocabulary"
GIVEN = "given"
PERSON = "person"
"""Source of a name that a person gave in the explorer; none of a checkpoint's own."""


@dataclass(frozen=True)
class DimensionName:
    """A dimension's name, and how sure it is.

    The fields from `source` on are missing in names.json of older checkpoints.
    """

    name: str
    score: float
    """How well the word fits the dimension, in [0, 1]; only names of one source compare."""
    runner_up: str
    """The next best word, or nothing."""
    runner_up_score: float = 0.0
    source: str = CAPTIONS
    """Where the name is from: captions, vocabulary, or given with the codes, and then unscored."""
    vocabulary: str = ""
    """The word of the vocabulary that fits best, or nothing."""
    vocabulary_score: float = 0.0
    vocabulary_runner_up: str = ""
    vocabulary_runner_up_score: float = 0.0

    def without_labels(self) -> DimensionName | None:
        """Replace automatic words that label people by the next best; None if none is left.

        Names that were given with the codes, or by a person, stay.
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
        """Read an entry of names.json, whatever else it holds."""
        given: dict[str, Any] = {
            field.name: (float if field.type == "float" else str)(entry[field.name])
            for field in fields(cls)
            if field.name in entry
        }
        return cls(**given)
