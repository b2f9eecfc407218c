"""Words that label people, which are never used as automatic names of dimensions.

They are labels by ethnicity, religion, nationality, sexual orientation or disability, and names of
persons. `sieve.data_prep.wordnet` builds the list, and `assets/words/SOURCE.md`
describes it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sieve import assets
from sieve.model.words.text import lemma

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
