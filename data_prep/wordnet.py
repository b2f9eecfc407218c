"""Write word lists from WordNet: hypernyms of nouns, and words that label people.

    python -m sieve.data_prep.wordnet FOLDER [NAMES]

FOLDER is WordNet 3.0's folder of `data.noun`. NAMES is the folder of `dist.female.first`,
`dist.male.first` and `dist.all.last` (US Census Bureau 1990, as in the PyPI package `names`), for
the words that label people. `assets/words/SOURCE.md` describes both lists.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import tyro

from sieve import assets
from sieve.model.dimensions.vocabulary import english_words

CHOICES = json.loads((assets.ROOT / "words" / "choices.json").read_text(encoding="utf-8"))
"""Lists made by hand; `assets/words/SOURCE.md` describes them."""
VISIBLE = frozenset({"03", "05", "06", "08", "13", "14", "15", "17", "18", "19", "20", "27"})
"""WordNet lexicographer files of visible things: animals, artifacts, bodies, food, groups, places,
natural objects, people, phenomena, plants, substances, and the roots of these trees."""
SPORT = "sport"
"""Its hyponyms are acts, but visible, and are included too."""
N_FAMILY_NAMES = 4000
"""Number of family names, most frequent first."""

_PERSON, _GROUP, _PLACES = "18", "14", ("15", "17")
_PLANT = "flora"
_NOUN = re.compile(r"[a-z]{3,}(?: [a-z]{3,})?")
_LABEL = re.compile(r"[a-z]{3,}(?:[-'][a-z]+)*")


class Synset(NamedTuple):
    """A set of synonyms."""

    lemmas: tuple[str, ...]
    """In WordNet's own spelling; see `_plain`."""
    pointers: tuple[tuple[str, str], ...]
    """Symbol and offset of the target."""
    file: str
    """Number of its lexicographer file."""

    def targets(self, symbol: str) -> set[str]:
        """Return the offsets that pointers of one kind lead to."""
        return {target for kind, target in self.pointers if kind == symbol}


class WordNet:
    """WordNet's nouns, adjectives and first senses, from a folder of its database files.

    Raise FileNotFoundError if `data.noun`, `index.noun` or `cntlist.rev` is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nouns = self.synsets("noun")
        fields = (line.split() for line in self._lines("index.noun"))
        self.first_sense = {_plain(each[0]): each[6 + int(each[3])] for each in fields}
        self._tagged: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for line in self._lines("cntlist.rev"):
            key, _, count = line.split()
            lemma, sense = key.split("%")
            self._tagged[_plain(lemma)][sense[0]] += int(count)
        self.inherited = cache(self._inherited)

    def synsets(self, part: str) -> dict[str, Synset]:
        """Read all synonym sets of a part of speech, by offset."""
        found = {}
        for line in self._lines(f"data.{part}"):
            offset, file, _, n_lemmas, *rest = line.split("|")[0].split()
            end = 2 * int(n_lemmas, 16)
            lemmas = tuple(re.sub(r"\([a-z]+\)$", "", lemma) for lemma in rest[:end:2])
            pointers = rest[end + 1 : end + 1 + 4 * int(rest[end])]
            targets = tuple(zip(pointers[::4], pointers[1::4], strict=True))
            found[offset] = Synset(lemmas, targets, file)
        return found

    def _lines(self, name: str) -> Iterator[str]:
        path = self.folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing; give the folder that holds WordNet 3.0's data.noun"
            )
        with path.open(encoding="latin-1") as stream:
            yield from (line for line in stream if not line.startswith("  "))  # the licence

    def hypernyms(self, noun: str) -> frozenset[str]:
        """Return the synonyms and all hypernyms of a noun, each in its own first sense.

        A word that is more often another part of speech (white, young), or whose first sense is
        not visible (event, cognition), has none.
        """
        offset = self.first_sense.get(CHOICES["senses"].get(noun, noun))
        counts = self._tagged.get(noun, {})  # in WordNet's tagged texts, by part of speech
        if offset is None or 2 * counts.get("1", 0) < sum(counts.values()):
            return frozenset()
        found = self.inherited(offset)
        if self.nouns[offset].file not in VISIBLE and SPORT not in found:
            return frozenset()
        extra = CHOICES["extra_hypernyms"].get(noun, ())
        return found.union(extra).difference(CHOICES["vague"], [noun])

    def _inherited(self, offset: str) -> frozenset[str]:
        synset = self.nouns[offset]
        own = {word for word in map(_plain, synset.lemmas) if self.first_sense.get(word) == offset}
        return frozenset(own).union(*map(self.inherited, synset.targets("@")))


def _plain(lemma: str) -> str:
    return lemma.replace("_", " ").lower()


def noun_hypernyms(wordnet: WordNet) -> dict[str, tuple[str, ...]]:
    """Return the hypernyms of nouns of one word, or of two words of Sieve's English word list.

    Hypernyms are words of that list. A plant that the list lacks has none, since WordNet has
    thousands of plants.
    """
    listed = frozenset(english_words())
    found = {}
    for noun in sorted({*wordnet.first_sense, *CHOICES["senses"]}):
        if _NOUN.fullmatch(noun) and (" " not in noun or listed.issuperset(noun.split())):
            hypernyms = sorted(wordnet.hypernyms(noun) & listed)
            if hypernyms and (noun in listed or _PLANT not in hypernyms):
                found[noun] = tuple(hypernyms)
    return found


def label_words(wordnet: WordNet, known: set[str]) -> set[str]:
    """Return nouns, each in its most frequent sense, and adjectives that label people, and names.

    A person's name among the `known` words, which name something else, is no label.
    """
    nouns = wordnet.nouns
    below, instances = defaultdict(set), defaultdict(set)
    for offset, synset in nouns.items():
        for symbol, target in synset.pointers:
            if symbol in ("@", "@i"):
                (below if symbol == "@" else instances)[target].add(offset)

    def tree(roots: Iterable[str], *files: str) -> set[str]:
        seen: set[str] = set()
        todo = [o for o, s in nouns.items() if set(roots) & set(s.lemmas) and s.file in files]
        while todo:
            offset = todo.pop()
            if offset not in seen:
                seen.add(offset)
                todo += below[offset]
        return seen

    labels = tree(CHOICES["person_roots"], _PERSON) | tree(("ethnic_group", "disabled"), _GROUP)
    origins = tree(("inhabitant",), _PERSON)
    people = {o for parent in tree(("person",), "03") for o in instances[parent]}
    places = {o for found in instances.values() for o in found if nouns[o].file in _PLACES}
    religions = tree(("religion", "faith"), "09", _GROUP)
    found = {
        _plain(lemma)
        for offset in labels
        for lemma in nouns[offset].lemmas
        # Inhabitants in lower case (resident, tenant) do not state an origin.
        if wordnet.first_sense.get(_plain(lemma)) == offset
        and (offset not in origins or lemma[0].isupper())
    }
    found |= {_plain(lemma) for offset in people for lemma in nouns[offset].lemmas} - known
    for synset in wordnet.synsets("adj").values():
        if synset.targets("\\") & (labels | places | religions):
            found |= {_plain(lemma) for lemma in synset.lemmas if lemma[0].isupper()}
    return {word for word in found if _LABEL.fullmatch(word)}


def names_of_people(folder: Path, known: set[str]) -> set[str]:
    """Return given and family names that are neither words nor places."""
    limits = {"dist.female.first": None, "dist.male.first": None, "dist.all.last": N_FAMILY_NAMES}
    found = {
        line.split()[0].lower()
        for name, limit in limits.items()
        for line in (folder / name).read_text(encoding="ascii").splitlines()[:limit]
    }
    return {name for name in found - known if _LABEL.fullmatch(name)}


def person_labels(wordnet: WordNet, names: Path) -> list[str]:
    """Return the lines of the list of labels: words, and phrases that name no person, with `+`."""
    known = set(english_words())
    for part in ("noun", "adj", "verb", "adv"):
        for synset in wordnet.synsets(part).values():
            is_person = synset.file in (_PERSON, _GROUP)
            known |= {_plain(one) for one in synset.lemmas if one[0].islower() or not is_person}
    labels = label_words(wordnet, known)
    labels |= {re.sub("mans$", "men", f"{word}s") for word in labels}
    labels = (labels | names_of_people(names, known)).difference(CHOICES["not_labels"])
    phrases = {
        _plain(lemma)
        for synset in wordnet.nouns.values()
        if synset.file not in (_PERSON, _GROUP)
        for lemma in synset.lemmas
        if len(words := _plain(lemma).split()) == 2 and labels & set(words)
    }
    return [*sorted(labels), *(f"+{phrase}" for phrase in sorted(phrases))]


def main(
    folder: tyro.conf.Positional[Path],
    names: tyro.conf.Positional[Path | None] = None,
    out: Path = assets.ROOT / "words",
) -> None:
    """Write the lists into a folder."""
    wordnet = WordNet(folder)
    table = noun_hypernyms(wordnet)
    lines = (f"{noun}\t{' '.join(hypernyms)}\n" for noun, hypernyms in table.items())
    (out / "kinds.tsv").write_text("".join(lines), encoding="utf-8")
    if names is not None:
        labels = "\n".join(person_labels(wordnet, names)) + "\n"
        (out / "person_labels.txt").write_text(labels, encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
