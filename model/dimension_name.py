"""Names of dimensions with their scores and sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sieve.model.words.person_labels import labels_people

CAPTIONS = "captions"
VOCABULARY = "vocabulary"
GIVEN = "given"
PERSON = "person"
"""Source of a name that a user gave in the explorer; no checkpoint has it."""


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
