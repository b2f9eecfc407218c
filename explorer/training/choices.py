"""The collections to train on: the open one, those in `$SIEVE_HOME`, the bundled ones.

A person chooses by a word of this list; what a page sends never becomes part of a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sieve.data_prep.bundled import (
    BACKBONE,
    BUNDLED,
    bundled_path,
    collection_word,
    kept_collections,
    open_collection_path,
)
from sieve.explorer.faults import one_line
from sieve.model.collection import MANIFEST, Collection


class Choice(NamedTuple):
    """A collection to train on."""

    word: str
    """What opens it on the command line: a name, or the path of the open one."""
    collection: Collection | None
    """None for a bundled one that is first drawn, or one that cannot be opened."""
    fault: str = ""
    """Why it cannot be opened, in one line."""

    def as_json(self, open_one: Collection) -> dict[str, Any]:
        """Tell it to the page; `fits`: its checkpoint reads the embeddings of the open one too."""
        found = self.collection
        if found is None:
            bare = {"name": self.word, "captions": None, "backbone": "", "fits": False}
            return {"word": self.word, **bare, "refusal": self.fault} | self._drawn(open_one)
        given = found.codes or open_one.codes
        same = not given and found.backbone.sha256 == open_one.backbone.sha256
        return {
            "word": self.word,
            "name": found.name,
            "captions": found.n_captions,
            "backbone": "" if found.codes else Path(found.backbone.name).name,
            "fits": same,
            "refusal": quick_refusal(found),
        }

    def _drawn(self, open_one: Collection) -> dict[str, Any]:
        """Tell what is known of a bundled one before it is there."""
        if self.fault:
            return {}
        named = "" if open_one.codes else Path(open_one.backbone.name).name
        return {"backbone": BACKBONE, "fits": named == BACKBONE}


def choices(open_one: Collection) -> list[Choice]:
    """List the collections to choose from, the open one first."""
    own = collection_word(open_one.path)
    words = dict.fromkeys([*BUNDLED, *kept_collections()])
    others = (_choice(word) for word in words if word != own)
    return [Choice(own, open_one), *others]


def find_choice(open_one: Collection, word: Any) -> Choice:
    """Find a collection by its word; an empty one means the open one.

    Raises
    ------
    ValueError
        If there is none of that word, or it cannot be opened.
    """
    found = choices(open_one)
    if word in ("", None):
        return found[0]
    for choice in found:
        if choice.word == word:
            if choice.fault:
                raise ValueError(choice.fault)
            return choice
    known = ", ".join(choice.word for choice in found)
    raise ValueError(f"there is no collection {str(word)[:60]!r} to train on; there are: {known}")


def quick_refusal(collection: Collection) -> str:
    """Tell why a collection cannot be trained on, as far as its manifest says."""
    if collection.codes:
        return f"{collection.name} holds codes that were made elsewhere: there is nothing to train"
    return "" if collection.n_captions else f"{collection.name} has no captions to learn from"


def _choice(word: str) -> Choice:
    if word in BUNDLED and not (bundled_path() / MANIFEST).is_file():
        return Choice(word, None)
    try:
        return Choice(word, Collection.open(open_collection_path(word)))
    except (ValueError, OSError) as error:
        return Choice(word, None, one_line(error))
