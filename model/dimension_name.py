"""Names of dimensions with their scores and sources.

Words that label people by ethnicity, religion, nationality, body or sexual orientation, and names
of persons, are never used as automatic names. `assets/words/SOURCE.md` describes the lists of them:
one is built by `sieve.data_prep.wordnet`, the other, with reasons, by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from sieve import assets
from sieve.model.files import Line
from sieve.model.words.text import lemma

CAPTIONS = "captions"
VOCABULARY = "vocabulary"
GIVEN = "given"
PERSON = "person"
"""Source of a name that a user gave in the explorer; no checkpoint has it."""
CONFIDENT = 0.8
"""A name is certain if the AUC that is expected of it on other items is at least this."""

_COLOURS = frozenset(
    {"black", "blind", "brown", "colored", "dark", "pale", "tan", "tanned", "white", "yellow"}
)
_PERSONS = frozenset(
    """
    adult baby boy child couple crowd dude family father female gentleman girl guy infant kid lady
    male man mother people person skin skinned teen teenager toddler woman youth
    """.split()  # noqa: SIM905
)
_PART = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_GUESS = re.compile(r"#\d+, perhaps ")


def guess(dimension: int, name: str) -> str:
    """Format a name that did not pass its test: `#17, perhaps dog`."""
    return f"#{dimension}, perhaps {name}"


def numbered(dimension: int, name: str, quotes: str = "") -> str:
    """Format a dimension's number and name: `#17 dog`, `#17 “dog”`, or `#17, perhaps dog`."""
    if _GUESS.match(name):
        return name
    return f"#{dimension} {quotes[:1]}{name}{quotes[1:]}"


@dataclass(frozen=True)
class DimensionName:
    """A dimension's name with its score and source.

    The fields from `source` on are missing in names.json of older checkpoints.
    """

    name: Line
    score: float
    """Fit of the word to the dimension, in [0, 1]; comparable only for names of one source."""
    runner_up: Line
    """The second-best word, or empty."""
    runner_up_score: float = 0.0
    source: Line = CAPTIONS
    """Source of the name: captions, vocabulary, or given with external codes, without a score."""
    vocabulary: Line = ""
    """The best word of the vocabulary, or empty."""
    vocabulary_score: float = 0.0
    vocabulary_runner_up: Line = ""
    vocabulary_runner_up_score: float = 0.0
    auc: float | None = None
    """AUC with which having the name predicts the activation, as expected on items that did not
    choose the name: see `sieve.model.dimensions.naming`. 0.5 if none of the testing items has the
    name; None if it was not tested at all."""

    @property
    def confident(self) -> bool:
        """Whether the name passed its test, or is not automatic."""
        return bool(self.name) and (self.auc is None or self.auc >= CONFIDENT)

    def without_labels(self) -> DimensionName | None:
        """Replace automatic words that label people by the next best; return None if none is left.

        Names that came with external codes or from users are not changed.
        """
        if self.source not in (CAPTIONS, VOCABULARY):
            return self
        word = self.name.split(" · ")[0] if labels_people(self.name) else self.name
        source = self.source
        first, second = _allowed((word, self.score), (self.runner_up, self.runner_up_score))
        general = _allowed(
            (self.vocabulary, self.vocabulary_score),
            (self.vocabulary_runner_up, self.vocabulary_runner_up_score),
        )
        if not first[0]:
            first, source = general[0], VOCABULARY
        if not first[0]:
            return None
        untested = self.auc is not None and first[0] != self.name
        auc = 0.5 if untested else self.auc
        return DimensionName(*first, *second, source, *general[0], *general[1], auc)


def allowed_names(names: Mapping[int, DimensionName]) -> dict[int, DimensionName]:
    """Replace the names of all dimensions by `without_labels`; no two get the same name."""
    allowed = {j: name.without_labels() for j, name in names.items()}
    taken = {name.name for j, name in names.items() if allowed[j] == name}
    found: dict[int, DimensionName] = {}
    for j, name in allowed.items():
        if name is None or (name != names[j] and name.name != names[j].name and name.name in taken):
            continue
        taken.add(name.name)
        found[j] = name
    return found


def _allowed(*fits: tuple[str, float]) -> list[tuple[str, float]]:
    """Remove words that label people; the list keeps its length."""
    allowed = [fit for fit in fits if not labels_people(fit[0])]
    return [*allowed, *[("", 0.0)] * (len(fits) - len(allowed))]


@lru_cache(maxsize=1)
def _listed() -> tuple[frozenset[str], frozenset[str]]:
    """Read the words and phrases, and those that do not label people: french fries."""
    folder = assets.ROOT / "words"
    lines = [
        line
        for name in ("person_labels.txt", "person_labels_extra.txt")
        for line in (folder / name).read_text(encoding="utf-8").split("\n")
        if line and not line.startswith("#")
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
        " ".join(part) not in phrases
        # Also the parts of a word: african-american, obama's.
        and any(labels.intersection({word, *re.split("[-'’]", word)}) for word in part)
        or any(" ".join(pair) in labels for pair in pairwise(part))
        for part in parts
    )
