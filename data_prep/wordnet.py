"""What a noun is a kind of, from WordNet: who says "dog" says "animal" too.

    python -m sieve.data_prep.wordnet DICT    # WordNet 3.0's folder of data.noun, index.noun, …

Captions call a thing by its plainest word, and people search by any: training reads "animal" from a
caption of a dog (`sieve.model.words`). A noun is taken in its most frequent sense; one that is more
often another part of speech (white, young), or whose first sense cannot be seen (event, cognition),
has no kinds. Written to `assets/words/kinds.tsv`.
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
"""Lexicographer files of what a picture can show: animals, artifacts, bodies, food, groups, places,
natural objects, people, phenomena, plants, substances, and the tops of these trees."""
SPORT = "sport"
"""An act, and yet seen: all that are kinds of it are kept too."""
_VAGUE = """
adult area artifact assemblage attribute being cause chemical cognition collection commodity
component container covering creation device entity gathering group implement individual
instrument location material matter minor mixture mortal object organism organization part
people phenomenon piece portion region relation set solid somebody someone structure stuff
substance thing tract unit whole works
"""
VAGUE = frozenset(_VAGUE.split())
"""Kinds that say nothing of a picture."""
SENSES = {
    "bike": "bicycle",
    "hot dog": "frankfurter",
    "girl": "little girl",
    "path": "footpath",
    "plant": "flora",
    "shorts": "short pants",
}
"""Nouns that captions do not use in WordNet's first sense, by a word for what they do mean."""
BESIDE = {word: ("child",) for word in ("boy", "girl", "toddler")}
"""Kinds that WordNet does not tell."""

_WORD = re.compile(r"[a-z]{3,}(?: [a-z]{3,})?")
_NOUN = "1"
_PLANT = "flora"


class Synset(NamedTuple):
    """A set of synonyms."""

    lemmas: tuple[str, ...]
    above: tuple[str, ...]
    """Offsets of what it is a kind of."""
    file: str
    """Its lexicographer file."""


class WordNet:
    """WordNet's nouns, by their most frequent sense.

    Parameters
    ----------
    folder : Path
        With `data.noun`, `index.noun` and `cntlist.rev`.

    Raises
    ------
    FileNotFoundError
        If one of these is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.synsets = dict(map(_synset, wordnet_lines(folder / "data.noun")))
        self.first_sense = dict(map(_first_sense, wordnet_lines(folder / "index.noun")))
        self._tagged: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for line in wordnet_lines(folder / "cntlist.rev"):
            key, _, count = line.split()
            lemma, sense = key.split("%")
            self._tagged[_plain(lemma)][sense[0]] += int(count)
        self.climb = cache(self._climb)

    def kinds(self, noun: str) -> frozenset[str]:
        """Synonyms of a noun, and all that it is a kind of, in their own first sense."""
        meant = SENSES.get(noun, noun)
        offset = self.first_sense.get(meant)
        if offset is None or not (self._is_noun(noun) and self._is_visible(offset)):
            return frozenset()
        found = self.climb(offset) | set(BESIDE.get(noun, ()))
        return found - VAGUE - {noun}

    def _climb(self, offset: str) -> frozenset[str]:
        synset = self.synsets[offset]
        own = {lemma for lemma in synset.lemmas if self.first_sense.get(lemma) == offset}
        return frozenset(own).union(*map(self.climb, synset.above))

    def _is_noun(self, word: str) -> bool:
        """Whether WordNet's tagged texts have it as a noun in half the cases or more."""
        counts = self._tagged.get(word, {})
        return 2 * counts.get(_NOUN, 0) >= sum(counts.values())

    def _is_visible(self, offset: str) -> bool:
        return self.synsets[offset].file in VISIBLE or SPORT in self.climb(offset)


def wordnet_lines(path: Path) -> Iterator[str]:
    """Read the lines of one of WordNet's files, without its licence."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; give the folder that holds WordNet 3.0's data.noun"
        )
    with path.open(encoding="latin-1") as stream:
        yield from (line for line in stream if not line.startswith("  "))  # the licence


def _synset(line: str) -> tuple[str, Synset]:
    """Read a line of `data.noun`: offset, file, type, lemmas with a number each, pointers."""
    offset, file, _, n_lemmas, *rest = line.split("|")[0].split()
    end = 2 * int(n_lemmas, 16)
    lemmas = tuple(map(_plain, rest[:end:2]))
    pointers = rest[end + 1 :]
    above = tuple(
        target
        for symbol, target in zip(pointers[::4], pointers[1::4], strict=True)
        if symbol == "@"
    )
    return offset, Synset(lemmas, above, file)


def _first_sense(line: str) -> tuple[str, str]:
    """Read a line of `index.noun`: lemma, type, senses, pointers, senses again, tagged, offsets."""
    fields = line.split()
    return _plain(fields[0]), fields[6 + int(fields[3])]


def _plain(lemma: str) -> str:
    return lemma.replace("_", " ").lower()


def noun_hypernyms(wordnet: WordNet) -> dict[str, tuple[str, ...]]:
    """Kinds of every noun of one word, or of two that are in Sieve's list of English words.

    Kinds are of that list; a plant has none where the list lacks it, for there are thousands.
    """
    listed = frozenset(english_words())

    def is_wanted(noun: str) -> bool:
        return bool(_WORD.fullmatch(noun)) and (" " not in noun or listed.issuperset(noun.split()))

    found = {}
    for noun in sorted({*wordnet.first_sense, *SENSES}):
        kinds = sorted(wordnet.kinds(noun) & listed) if is_wanted(noun) else []
        if kinds and (noun in listed or _PLANT not in kinds):
            found[noun] = tuple(kinds)
    return found


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("dict", type=Path, help="WordNet 3.0's folder of data.noun")
    parser.add_argument("--out", type=Path, default=assets.ROOT / "words" / "kinds.tsv")
    asked = parser.parse_args()
    kinds = noun_hypernyms(WordNet(asked.dict))
    lines = (f"{noun}\t{' '.join(of)}\n" for noun, of in kinds.items())
    asked.out.write_text("".join(lines), encoding="utf-8")
    sys.stdout.write(f"{len(kinds):,} nouns in {asked.out}\n")


if __name__ == "__main__":
    main()
