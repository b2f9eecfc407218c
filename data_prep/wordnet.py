"""Write the table of noun hypernyms and synonyms, from WordNet: a dog is an animal.

    python -m sieve.data_prep.wordnet DICT    # WordNet 3.0's folder of data.noun, index.noun, …

Captions use basic terms, but queries use any: training reads "animal" from a caption of a dog
(`sieve.model.words`). Each noun is taken in its most frequent sense. A word that is more often
another part of speech (white, young), or whose first sense is not visible (event, cognition), has
no hypernyms. The table is `assets/words/kinds.tsv`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sieve import assets
from sieve.model.dimensions.vocabulary import english_words

VISIBLE = frozenset({"03", "05", "06", "08", "13", "14", "15", "17", "18", "19", "20", "27"})
"""WordNet lexicographer files of visible things: animals, artifacts, bodies, food, groups, places,
natural objects, people, phenomena, plants, substances, and the roots of these trees."""
SPORT = "sport"
"""Its hyponyms are acts, but visible, and are included too."""
_VAGUE = """
adult area artifact assemblage attribute being cause chemical cognition collection commodity
component container covering creation device entity gathering group implement individual
instrument location material matter minor mixture mortal object organism organization part
people phenomenon piece portion region relation set solid somebody someone structure stuff
substance thing tract unit whole works
"""
VAGUE = frozenset(_VAGUE.split())
"""Hypernyms that say nothing about an image."""
SENSES = {
    "bike": "bicycle",
    "hot dog": "frankfurter",
    "girl": "little girl",
    "path": "footpath",
    "plant": "flora",
    "shorts": "short pants",
}
"""Nouns that captions do not use in WordNet's first sense, each with a synonym of its meaning."""
EXTRA_HYPERNYMS = {word: ("child",) for word in ("boy", "girl", "toddler")}
"""Hypernyms that WordNet lacks."""

_WORD = re.compile(r"[a-z]{3,}(?: [a-z]{3,})?")
_NOUN = "1"
_PLANT = "flora"


class Synset(NamedTuple):
    """A set of synonyms."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    """Offsets of its hypernyms."""
    file: str
    """Number of its lexicographer file."""


class WordNet:
    """WordNet's nouns in their most frequent sense.

    Parameters
    ----------
    folder : Path
        Folder with `data.noun`, `index.noun` and `cntlist.rev`.

    Raises
    ------
    FileNotFoundError
        If one of these files is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.synsets = dict(map(_synset, wordnet_lines(folder / "data.noun")))
        self.first_sense = dict(map(_first_sense, wordnet_lines(folder / "index.noun")))
        self._tagged: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for line in wordnet_lines(folder / "cntlist.rev"):
            key, _, count = line.split()
            lemma, sense = key.split("%")
            self._tagged[_plain(lemma)][sense[0]] += int(count)
        self.inherited = cache(self._inherited)

    def hypernyms(self, noun: str) -> frozenset[str]:
        """Return the synonyms and all hypernyms of a noun, each in its own first sense."""
        offset = self.first_sense.get(SENSES.get(noun, noun))
        if offset is None or not (self._is_noun(noun) and self._is_visible(offset)):
            return frozenset()
        found = self.inherited(offset) | set(EXTRA_HYPERNYMS.get(noun, ()))
        return found - VAGUE - {noun}

    def _inherited(self, offset: str) -> frozenset[str]:
        synset = self.synsets[offset]
        own = {lemma for lemma in synset.lemmas if self.first_sense.get(lemma) == offset}
        return frozenset(own).union(*map(self.inherited, synset.hypernyms))

    def _is_noun(self, word: str) -> bool:
        """Whether at least half of the word's occurrences in WordNet's tagged texts are nouns."""
        counts = self._tagged.get(word, {})
        return 2 * counts.get(_NOUN, 0) >= sum(counts.values())

    def _is_visible(self, offset: str) -> bool:
        return self.synsets[offset].file in VISIBLE or SPORT in self.inherited(offset)


def wordnet_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a WordNet file, without its licence."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; give the folder that holds WordNet 3.0's data.noun"
        )
    with path.open(encoding="latin-1") as stream:
        yield from (line for line in stream if not line.startswith("  "))  # the licence


def _synset(line: str) -> tuple[str, Synset]:
    """Parse a line of `data.noun`: offset, file, type, lemmas with a number each, pointers."""
    offset, file, _, n_lemmas, *rest = line.split("|")[0].split()
    end = 2 * int(n_lemmas, 16)
    lemmas = tuple(map(_plain, rest[:end:2]))
    pointers = rest[end + 1 :]
    hypernyms = tuple(
        target
        for symbol, target in zip(pointers[::4], pointers[1::4], strict=True)
        if symbol == "@"
    )
    return offset, Synset(lemmas, hypernyms, file)


def _first_sense(line: str) -> tuple[str, str]:
    """Parse a line of `index.noun`: lemma, type, senses, pointers, senses, tagged, offsets."""
    fields = line.split()
    return _plain(fields[0]), fields[6 + int(fields[3])]


def _plain(lemma: str) -> str:
    return lemma.replace("_", " ").lower()


def noun_hypernyms(wordnet: WordNet) -> dict[str, tuple[str, ...]]:
    """Return the hypernyms of nouns of one word, or of two words of Sieve's English word list.

    Hypernyms are words of that list. A plant that the list lacks has none, since WordNet has
    thousands of plants.
    """
    listed = frozenset(english_words())

    def is_wanted(noun: str) -> bool:
        return bool(_WORD.fullmatch(noun)) and (" " not in noun or listed.issuperset(noun.split()))

    found = {}
    for noun in sorted({*wordnet.first_sense, *SENSES}):
        hypernyms = sorted(wordnet.hypernyms(noun) & listed) if is_wanted(noun) else []
        if hypernyms and (noun in listed or _PLANT not in hypernyms):
            found[noun] = tuple(hypernyms)
    return found


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("dict", type=Path, help="WordNet 3.0's folder of data.noun")
    parser.add_argument("--out", type=Path, default=assets.ROOT / "words" / "kinds.tsv")
    args = parser.parse_args()
    table = noun_hypernyms(WordNet(args.dict))
    lines = (f"{noun}\t{' '.join(hypernyms)}\n" for noun, hypernyms in table.items())
    args.out.write_text("".join(lines), encoding="utf-8")
    sys.stdout.write(f"{len(table):,} nouns in {args.out}\n")


if __name__ == "__main__":
    main()
