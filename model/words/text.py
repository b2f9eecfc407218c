"""Words of English texts: tokens, base forms, and content words of captions.

The table of hypernyms is an excerpt of WordNet (Miller 1995), made by `sieve.data_prep.wordnet`;
`assets/words/SOURCE.md` has its licence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, hstack

from sieve import assets
from sieve.model.words.nouns import benchmark_nouns

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import CountVectorizer

_STOP = """
a about above across after again against all along also am among an and another any are around
as at away back be because been before behind being below beside between both but by can
could did do does doing down during each either else for from get gets getting got had has
have having he her here hers herself him himself his how i if in inside into is it its itself
just like many may me might more most much must my near next no nor not of off on once one
only onto or other others our out outside over own per same several shall she should so some
such than that the their them then there these they this those through to together too
toward towards under until up upon us very was we were what when where which while who whom
whose why will with within without would you your
"""
STOP_WORDS = frozenset(_STOP.split())
"""Function words, which do not describe what an image shows."""

_WORD = re.compile(r"\b[^\W\d_]+(?:'[^\W\d_]+)?\b")
_PARTS = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*['\u2019]?|\s+|[^\s\w]|[\d_]+[^\W_]*")
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot",
    "teeth": "tooth", "mice": "mouse", "geese": "goose", "ran": "run", "sat": "sit",
    "stood": "stand", "lay": "lie", "lying": "lie", "rode": "ride", "ridden": "ride",
    "threw": "throw", "thrown": "throw", "swam": "swim", "caught": "catch", "held": "hold",
    "wore": "wear", "worn": "wear", "ate": "eat", "took": "take", "taken": "take",
}  # fmt: skip
PLURALS = frozenset({
    "clothes", "glasses", "goggles", "headphones", "jeans", "pants", "scissors", "shorts", "stairs",
    "trousers",
})  # fmt: skip
"""Plural nouns that are no plurals of their singular: shorts are nothing short."""
_OTHER_WORDS = PLURALS | {"arms", "blues", "goods", "news", "overalls", "woods"}
"""Words that end like a plural, but mean something else than their singular."""
_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve dozen hundred thousand million
first second third
"""
NUMBER_WORDS = frozenset(_NUMBERS.split())


_SPELLINGS = {
    "colour": "color", "grey": "gray", "jewellery": "jewelry", "moustache": "mustache",
    "tyre": "tire", "pyjamas": "pajamas", "aeroplane": "airplane", "kerb": "curb",
    "theatre": "theater", "centre": "center", "harbour": "harbor", "yoghurt": "yogurt",
    "doughnut": "donut", "plough": "plow", "neighbour": "neighbor", "neighbourhood": "neighborhood",
    "armour": "armor", "fibre": "fiber", "parlour": "parlor", "mould": "mold", "storey": "story",
    "favourite": "favorite", "colourful": "colorful", "travelling": "traveling",
}  # fmt: skip
"""British spellings to American ones."""
_AMERICAN = {american: british for british, american in _SPELLINGS.items()}


class WordReading(NamedTuple):
    """A text in the words that a backbone was trained on."""

    text: str
    """The text with words replaced by listed forms: "sunny beach" for "sunny Beaches"."""
    replaced: tuple[tuple[str, str], ...] = ()
    """Words and the listed forms that replaced them, each once."""
    unknown: tuple[str, ...] = ()
    """Words, numbers and symbols that are not listed in any form, each once."""
    known: str = ""
    """The text without what is unknown; empty if no content word is left."""


class WordList:
    """The words that a small backbone was trained on: those of its tokeniser.

    A word is known if it and a listed word may have the same base form (dogs and dog, running and
    run). This is lenient on purpose, because false warnings teach users to ignore all warnings.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._listed = frozenset(word.lower() for word in words)
        self._bases = frozenset(base for word in self._listed for base in _bases(word))

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that share no base form with a listed word, each once.

        Function words, numbers and single letters are never unknown.
        """
        return list(
            dict.fromkeys(
                word
                for word in split_words(text)
                if len(word) > 1 and is_content_word(word) and self._bases.isdisjoint(_bases(word))
            )
        )

    def read(self, text: str, singular: bool = False) -> WordReading:
        """Replace words that are not listed by a listed form: singular, spelling, inflection.

        With `singular`, also replace listed plurals whose singular is listed.
        """
        replaced: dict[str, str] = {}
        unknown: dict[str, None] = {}
        parts: list[str] = []
        known: list[str] = []
        has_content = False
        for part in _PARTS.findall(text):
            plain = part.lower().replace("\u2019", "'").removesuffix("'s").rstrip("'")
            form = self._form(plain, singular) if _WORD.fullmatch(plain) else None
            is_function_word = plain in STOP_WORDS or len(plain) == 1 and plain.isalpha()
            changed = form is not None and form != plain
            if changed:
                replaced[part] = str(form)
            parts.append(str(form) if changed else part)
            if form is not None or is_function_word:
                known.append(parts[-1])
                has_content |= not is_function_word
            elif says_something(part):
                unknown[part] = None
            else:
                known.append(part)
        left = " ".join("".join(known).split()) if has_content else ""
        return WordReading("".join(parts), tuple(replaced.items()), tuple(unknown), left)

    def _form(self, word: str, prefer_singular: bool) -> str | None:
        """Return a listed form of a lower-case word, preferably itself or its singular."""
        singular = word if word in _OTHER_WORDS else lemma(word)
        if word in STOP_WORDS:
            return word
        if word in self._listed:
            return singular if prefer_singular and singular in self._listed else word
        spelled = (
            table.get(form) for table in (_SPELLINGS, _AMERICAN) for form in (word, singular)
        )
        noun = benchmark_nouns().lemma_of(word)
        inflected = sorted(_inflections(word) - STOP_WORDS, key=len, reverse=True)
        return next(
            (form for form in (singular, *spelled, noun, *inflected) if form in self._listed), None
        )


def split_words(text: str) -> list[str]:
    """Return the lower-case words of a text without punctuation, digits and possessive endings."""
    plain = text.lower().replace("\u2019", "'")
    return [word.split("'")[0] for word in _WORD.findall(plain)]


def drop_words(text: str, words: Iterable[str]) -> str:
    """Remove lower-case words from a text, in any case."""
    dropped = frozenset(words)
    if not dropped:
        return text
    parts = (p for p in _PARTS.findall(text) if dropped.isdisjoint(split_words(p)))
    return " ".join("".join(parts).split())


def lemma(word: str) -> str:
    """Return the singular of a noun, or the word itself if it does not look like a plural."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def plural_forms(word: str) -> set[str]:
    """Return the forms of a noun that have the same singular, including itself."""
    singular = lemma(word)
    forms = {singular + "s", singular + "es", singular[:-1] + "ies", *_IRREGULAR}
    return {word, singular, *(form for form in forms if lemma(form) == singular)}


def is_content_word(word: str) -> bool:
    """Return whether a lower-case word is neither a function word nor a number."""
    return word not in STOP_WORDS and word not in NUMBER_WORDS


def _bases(word: str) -> set[str]:
    """Return the base forms that a word may have, including itself."""
    bases = {word, lemma(word)}
    if word in _IRREGULAR:
        return bases
    for ending in ("ing", "ed", "er", "est", "es", "ly", "y"):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 3:
            continue
        bases |= {stem, stem + "e"}
        if stem[-1] == stem[-2]:
            bases.add(stem[:-1])
        if stem.endswith("i"):
            bases.add(stem[:-1] + "y")
    return bases


def _inflections(word: str) -> set[str]:
    """Return forms that a word may have as a verb: jogs, jogged, jogging."""
    stems = {word, lemma(word)}
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3:
            stems |= {stem, stem + "e", stem[:-1] if stem[-1] == stem[-2] else stem}
    doubled = {stem + stem[-1] for stem in stems}  # jog, jogging
    forms = {stem + ending for stem in stems | doubled for ending in ("s", "es", "ing", "ed")}
    return stems | forms


def says_something(part: str) -> bool:
    """Return whether a text has a letter, a digit or a symbol such as an emoji."""
    return any(unicodedata.category(character)[0] in "LNS" for character in part)


COMPOUNDS = (
    "cotton candy", "dragon fruit", "ferris wheel", "guinea pig", "hot dog", "ice cream",
    "roller coaster", "sea horse", "sea lion", "teddy bear",
)  # fmt: skip
"""Compounds that count as one word: a hot dog is no dog."""
# Trained vocabularies depend on these tokens and stop words, which differ from those above.
_CAPTION_TOKEN = re.compile(rf"\b(?:{'|'.join(COMPOUNDS)})s?\b|[a-z][a-z'-]*[a-z]")


@cache
def _caption_stop_words() -> frozenset[str]:
    # Imported here because most commands do not need scikit-learn, which takes half a second.
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    # The three words that are taken out are content words in captions.
    return (ENGLISH_STOP_WORDS - {"fire", "system", "computer"}) | {
        "photo", "picture", "image", "scene", "shot", "view", "wearing", "looking", "look",
        "there's",
    }  # fmt: skip


class WordPresence(NamedTuple):
    """Words, and the items whose captions contain them."""

    words: list[str]
    presence: csr_array
    """(n, w) float32 of 0 and 1"""

    @property
    def counts(self) -> np.ndarray:
        """Number of items that have each word: (w,) int64."""
        return np.asarray(self.presence.sum(0)).ravel().astype(np.int64)


def content_words(text: str) -> list[str]:
    """Return the lower-case content words of a caption, in order, with repetitions."""
    tokens, stop_words = _CAPTION_TOKEN.findall(text.lower()), _caption_stop_words()
    return [word for word in tokens if word not in stop_words]


def singular_forms(vocabulary: Iterable[str]) -> dict[str, str]:
    """Map each regular plural to its singular, if both are in the vocabulary.

    `dogs` is mapped to `dog`, but `grass` to nothing, as no caption contains `gras`.
    """
    listed = set(vocabulary)
    forms: dict[str, str] = {}
    for word in listed - PLURALS:
        candidates = [word[:-1]] if word.endswith("s") else []
        candidates += [word[:-2]] if word.endswith("es") else []
        candidates += [word[:-3] + "y"] if word.endswith("ies") else []
        singular = next((form for form in candidates if len(form) > 2 and form in listed), None)
        if singular:
            forms[word] = singular
    return forms


def with_phrases(
    words: WordPresence, captions: Sequence[Sequence[str]], min_items: int = 5
) -> WordPresence:
    """Add the phrases of two adjacent words that the captions of each item use ("palm tree").

    A phrase must be in at least `min_items` items, and in a quarter of those that have the rarer of
    its two words, so that words that are adjacent by chance are left out.
    """
    column = {word: at for at, word in enumerate(words.words)}
    forms = singular_forms({word for item in captions for t in item for word in content_words(t)})
    items_of: dict[tuple[str, str], list[int]] = {}
    for row, item in enumerate(captions):
        pairs = {(one, forms.get(other, other)) for text in item for one, other in _adjacent(text)}
        for pair in pairs:
            items_of.setdefault(pair, []).append(row)
    counts = words.counts
    kept: dict[str, list[int]] = {}
    for (one, other), rows in sorted(items_of.items()):
        rarer = min(
            (counts[column[w]] for w in (forms.get(one, one), other) if w in column), default=0
        )
        if len(rows) >= max(min_items, rarer / 4) and one != other:
            kept[f"{one} {other}"] = rows
    phrases = _indicator([*kept.values()], len(captions)).T
    return WordPresence([*words.words, *kept], csr_array(hstack([words.presence, phrases])))


def _indicator(columns_of: Sequence[Sequence[int]], n_columns: int) -> csr_array:
    """Return a matrix of 0 and 1, float32, from the columns of each row."""
    rows = np.repeat(np.arange(len(columns_of)), [len(columns) for columns in columns_of])
    columns = np.array([column for columns in columns_of for column in columns], np.int64)
    ones = np.ones(len(rows), np.float32)
    return csr_array((ones, (rows, columns)), shape=(len(columns_of), n_columns))


def _frequent(words: Sequence[str], presence: csr_array, min_items: int) -> WordPresence:
    columns = np.flatnonzero(np.asarray(presence.sum(0)).ravel() >= min_items)
    return WordPresence(
        [words[column] for column in columns.tolist()], csr_array(presence[:, columns])
    )


def _adjacent(text: str) -> list[tuple[str, str]]:
    """Return the pairs of content words that are separated by one space."""
    return [
        (one.group(), other.group())
        for one, other in pairwise(_CAPTION_TOKEN.finditer(text.lower()))
        if text[one.end() : other.start()] == " "
        and _caption_stop_words().isdisjoint({one.group(), other.group()})
    ]


def word_presence(captions: Sequence[Sequence[str]], min_items: int = 5) -> WordPresence:
    """Return the content words of the captions of each item, plurals as singulars.

    Words of fewer than `min_items` items are dropped.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    texts = ["\n".join(item) for item in captions]
    forms = singular_forms({word for text in texts for word in content_words(text)})

    def words_of(text: str) -> list[str]:
        return [forms.get(word, word) for word in content_words(text)]

    analyzer: Any = words_of  # scikit-learn's stubs declare only the names of its analyzers
    vectorizer = CountVectorizer(analyzer=analyzer, binary=True)
    try:
        presence = csr_array(vectorizer.fit_transform(texts), dtype=np.float32)
    except ValueError:  # scikit-learn's "empty vocabulary": no caption has a content word
        return WordPresence([], csr_array((len(captions), 0), dtype=np.float32))
    return _frequent(vectorizer.get_feature_names_out().tolist(), presence, min_items)


def concept_presence(captions: Sequence[Sequence[str]], min_items: int = 5) -> WordPresence:
    """Return the content words and phrases: see `word_presence` and `with_phrases`."""
    return with_phrases(word_presence(captions, min_items), captions, min_items)


def presence_in(words: Sequence[str], texts: Sequence[str], kinds: bool = False) -> csr_array:
    """Return which of some words and phrases each text has: (t, w) float32 of 0 and 1.

    Plurals count as their singulars. With `kinds`, a text also has the hypernyms of its words.
    """
    return csr_array(_mentions(texts, kinds, words).transform(texts), dtype=np.float32)


def mentioned_words(texts: Sequence[str]) -> WordPresence:
    """Return all content words and phrases of texts, with the hypernyms of the words.

    Plurals count as their singulars.
    """
    vectorizer = _mentions(texts, kinds=True)
    try:
        presence = csr_array(vectorizer.fit_transform(texts), dtype=np.float32)
    except ValueError:  # scikit-learn's "empty vocabulary": no text has a content word
        return WordPresence([], csr_array((len(texts), 0), dtype=np.float32))
    return WordPresence(vectorizer.get_feature_names_out().tolist(), presence)


def _mentions(
    texts: Sequence[str], kinds: bool, words: Sequence[str] | None = None
) -> CountVectorizer:
    from sklearn.feature_extraction.text import CountVectorizer

    forms = singular_forms({word for text in texts for word in content_words(text)})
    implied = lru_cache(maxsize=None)(hypernyms_of)

    def concepts_of(text: str) -> set[str]:
        singular = [forms.get(word, word) for word in content_words(text)]
        phrases = {f"{one} {forms.get(other, other)}" for one, other in _adjacent(text)}
        return phrases.union(singular, *(map(implied, singular) if kinds else ()))

    analyzer: Any = concepts_of
    return CountVectorizer(analyzer=analyzer, binary=True, vocabulary=words)


@lru_cache(maxsize=1)
def _hypernym_table() -> Mapping[str, tuple[str, ...]]:
    """Read the common synonyms and hypernyms of each noun."""
    table = (assets.ROOT / "words" / "kinds.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines())
    return {noun: tuple(hypernyms.split()) for noun, hypernyms in rows}


def hypernyms_of(word: str) -> frozenset[str]:
    """Return a word, its singular, and their synonyms and hypernyms."""
    table, singular = _hypernym_table(), lemma(word)
    forms = (word, singular) if word in PLURALS else (singular, word)
    noun = next((form for form in forms if form in table), word)
    return frozenset({word, noun, *table.get(noun, ())})


def with_hypernyms(words: WordPresence, min_items: int = 5) -> WordPresence:
    """Add the hypernyms of each item's words: a caption with a dog also implies an animal.

    Words of fewer than `min_items` items are dropped.
    """
    implied = [hypernyms_of(word) for word in words.words]
    columns = sorted(frozenset(words.words).union(*implied))
    column_of = {word: column for column, word in enumerate(columns)}
    implies = _indicator([[column_of[word] for word in sorted(of)] for of in implied], len(columns))
    presence = csr_array(words.presence @ implies)
    presence.data[:] = 1
    return _frequent(columns, presence, min_items)
