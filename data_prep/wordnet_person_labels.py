"""Write the list of words that label people, which never become names of dimensions.

    python -m sieve.data_prep.wordnet_person_labels DICT NAMES

DICT is WordNet 3.0's folder of `data.noun`; NAMES is the folder of `dist.female.first`,
`dist.male.first` and `dist.all.last` (US Census Bureau 1990, as in the PyPI package `names`).
The list is `assets/words/person_labels.txt`, described in `assets/words/SOURCE.md`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sieve import assets
from sieve.data_prep.wordnet import wordnet_lines
from sieve.model.dimensions.vocabulary import english_words

ROOTS = (
    "inhabitant", "person_of_color", "White_person", "Jew", "Christian", "Muslim", "Hindu",
    "Buddhist", "Sikh", "heathen", "Protestant", "Catholic", "believer", "homosexual", "bisexual",
    "transvestite", "handicapped_person", "cripple", "retard", "native", "ethnic", "midget",
    "albino", "deaf-mute",
)  # fmt: skip
"""Persons whose hyponyms are labels: by origin, religion, orientation, disability."""
GROUPS = ("ethnic_group", "disabled")
_ALLOWED = """
alpine antarctic arctic atlantic attic badger believer calif caribbean claus colored
continental dike dummy federal ferris frank gothic martian mediterranean mickey mohawk moor
mystic olympic ottoman pacific paddy polish pueblo quiche rebel santa sooner wasp white
wolverine
"""
ALLOWED = frozenset(_ALLOWED.split())
"""Words that captions use in another sense (a mohawk is a haircut), or that are harmless."""
N_FAMILY_NAMES = 4000
"""Number of family names, most frequent first."""
_PERSON = "18"
_PLACES = ("15", "17")
_WORD = re.compile(r"[a-z]{3,}(?:[-'][a-z]+)*")


class Sense(NamedTuple):
    """A synset with its lemmas in their original case."""

    lemmas: tuple[str, ...]
    pointers: tuple[tuple[str, str, str], ...]
    """Symbol, offset of the target, part of speech of the target."""
    file: str


def read_senses(path: Path) -> dict[str, Sense]:
    """Read the senses of `data.noun` or `data.adj` by offset."""
    found = {}
    for line in wordnet_lines(path):
        offset, file, _, count, *rest = line.split("|")[0].split()
        end = 2 * int(count, 16)
        pointers = rest[end + 1 : end + 1 + 4 * int(rest[end])]
        found[offset] = Sense(
            tuple(re.sub(r"\([a-z]+\)$", "", lemma) for lemma in rest[:end:2]),
            tuple(zip(pointers[::4], pointers[1::4], pointers[2::4], strict=True)),
            file,
        )
    return found


def first_senses(path: Path) -> dict[str, str]:
    """Read the most frequent sense of each lower-case noun from `index.noun`."""
    fields = (line.split() for line in wordnet_lines(path))
    return {one[0]: one[6 + int(one[3])] for one in fields}


def label_words(
    nouns: dict[str, Sense],
    first: dict[str, str],
    adjectives: dict[str, Sense],
    known: set[str],
) -> set[str]:
    """Return nouns and adjectives that label people, and names of persons.

    Parameters
    ----------
    nouns, adjectives : dict
        Senses by offset.
    first : dict
        Most frequent sense of each noun; others are ignored.
    known : set of str
        Words that name something other than a person; a person's name among them is no label.
    """
    below = defaultdict(set)
    instances = defaultdict(set)
    for offset, sense in nouns.items():
        for symbol, target, _ in sense.pointers:
            if symbol == "@":
                below[target].add(offset)
            elif symbol == "@i":
                instances[target].add(offset)

    def tree(roots: tuple[str, ...], *files: str) -> set[str]:
        seen: set[str] = set()
        todo = [o for o, s in nouns.items() if set(roots) & set(s.lemmas) and s.file in files]
        while todo:
            offset = todo.pop()
            if offset not in seen:
                seen.add(offset)
                todo += below[offset]
        return seen

    labels = tree(ROOTS, _PERSON) | tree(GROUPS, "14")
    origins = tree(("inhabitant",), _PERSON)
    people = {o for parent in tree(("person",), "03") for o in instances[parent]}
    places = {o for found in instances.values() for o in found if nouns[o].file in _PLACES}
    religions = tree(("religion", "faith"), "09", "14")
    found = set()
    for offset in labels:
        for lemma in nouns[offset].lemmas:
            word = lemma.lower()
            # Inhabitants in lower case (resident, tenant) do not state an origin.
            if first.get(word) == offset and (offset not in origins or lemma[0].isupper()):
                found.add(word)
    found |= {lemma.lower() for offset in people for lemma in nouns[offset].lemmas} - known
    for sense in adjectives.values():
        targets = {target for symbol, target, _ in sense.pointers if symbol == "\\"}
        if targets & (labels | places | religions):
            found |= {lemma.lower() for lemma in sense.lemmas if lemma[0].isupper()}
    return {word for word in found if _WORD.fullmatch(word)}


def names_of_people(folder: Path, known: set[str]) -> set[str]:
    """Return given and family names that are neither words nor places."""
    found: set[str] = set()
    for name, limit in (
        ("dist.female.first", None),
        ("dist.male.first", None),
        ("dist.all.last", N_FAMILY_NAMES),
    ):
        lines = (folder / name).read_text(encoding="ascii").splitlines()[:limit]
        found |= {line.split()[0].lower() for line in lines}
    return {name for name in found - known if _WORD.fullmatch(name)}


def other_phrases(nouns: dict[str, Sense], labels: set[str]) -> Iterator[str]:
    """Yield phrases of two words with a label that name no person, such as german shepherd."""
    for sense in nouns.values():
        for lemma in sense.lemmas:
            words = lemma.lower().split("_")
            if len(words) == 2 and labels & set(words) and sense.file not in (_PERSON, "14"):
                yield " ".join(words)


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("dict", type=Path, help="WordNet 3.0's folder of data.noun")
    parser.add_argument("names", type=Path, help="folder of dist.all.last")
    parser.add_argument("--out", type=Path, default=assets.ROOT / "words" / "person_labels.txt")
    args = parser.parse_args()
    nouns = read_senses(args.dict / "data.noun")
    adjectives = read_senses(args.dict / "data.adj")
    known = {
        lemma.lower()
        for part in ("noun", "adj", "verb", "adv")
        for sense in read_senses(args.dict / f"data.{part}").values()
        for lemma in sense.lemmas
        if lemma[0].islower() or sense.file not in (_PERSON, "14")
    }
    known |= set(english_words())
    labels = label_words(nouns, first_senses(args.dict / "index.noun"), adjectives, known)
    labels |= {
        re.sub("man$", "men", word) if word.endswith("man") else f"{word}s" for word in labels
    }
    labels = (labels | names_of_people(args.names, known)) - ALLOWED
    phrases = sorted(set(other_phrases(nouns, labels)))
    lines = [*sorted(labels), *(f"+{phrase}" for phrase in phrases)]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(labels):,} words and {len(phrases):,} phrases in {args.out}\n")


if __name__ == "__main__":
    main()
