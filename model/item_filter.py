"""Filters of items by facets, which also name the sets that are compared.

    label:dog split:test caption:umbrella concept:"beach">0.5
    not file:2023/* search:a dog without a beach

A filter is a list of facets separated by spaces, and selects the items that have all of them. A
value ends where the next facet begins; one with spaces or signs is printed in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array

from sieve.model.collection import Collection
from sieve.model.words.text import is_content_word, lemma, plural_forms

FacetKind = Literal["label", "split", "caption", "file", "tag", "concept", "map", "id", "search"]
KINDS = get_args(FacetKind)
LISTED: tuple[FacetKind, ...] = ("label", "split", "file", "caption")
"""Kinds whose values `ItemFacets.counts` lists from the table of items."""
SINGLE = ("split", "file")
"""Kinds of which an item has one value; their counts ignore facets of the same kind."""
MAX_FACETS = 16
MAX_CHARACTERS = 10_000
DEFAULT_PROBABILITY = 0.5
_MAX_CAPTIONS = 1_000_000
"""With more captions, their words are not counted: this takes about 5 s for a million."""
_MIN_ITEMS = 2
"""Words of fewer items are not listed."""
_START = rf"(?:not )?(?:{'|'.join(KINDS)}):"
_FACET = re.compile(
    rf"(?P<negated>not )?(?P<kind>{'|'.join(KINDS)}): ?"
    r'(?:"(?P<quoted>(?:[^"]|"")*)"(?: ?> ?(?P<above>[\d.]+))?|(?P<plain>.+?))'
    rf"(?:$| (?={_START}))",
    re.IGNORECASE,
)
_ABOVE = re.compile(r"(.*?) ?> ?([\d.]+)")
_SIMPLE = re.compile(r'[^\s">]+')
_NO_LETTER = r"[^\p{L}\p{N}'-]"


@dataclass(frozen=True)
class Facet:
    """One condition on an item."""

    kind: FacetKind
    value: str
    """A label, the name of a split, a tag of a dimension that the image activates, a word or phrase
    of a caption, a pattern of file names, a concept (its name or one of its dimensions), the
    corners of a polygon on the map of items, item IDs, or a query (its best 100 results)."""
    negated: bool = False
    above: float = DEFAULT_PROBABILITY
    """Smallest probability of a concept, in (0, 1]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", " ".join(self.value.split()))
        if not self.value:
            raise ValueError(f"facet {self.kind} needs a value, as in {self.kind}:dog")
        if not 0 < self.above <= 1:
            raise ValueError(f"a concept's probability is in (0, 1]; got {self.above:g}")

    @property
    def of_checkpoint(self) -> bool:
        """Whether it refers to a dimension or the map of one checkpoint."""
        return self.kind in ("map", "tag") or (self.kind == "concept" and self.value.isdecimal())

    @property
    def title(self) -> str:
        """A short description, without quotation marks, coordinates and IDs."""
        if self.kind == "map":
            title = "selection"
        elif self.kind == "id":
            n = self.value.count(",") + 1
            title = "1 image" if n == 1 else f"{n} images"
        elif self.kind in ("label", "caption", "concept") and not self.of_checkpoint:
            title = self.value
        else:
            title = f"{self.kind} {self.value}"
        return f"not {title}" if self.negated else title

    def __str__(self) -> str:
        escaped = self.value.replace('"', '""')
        value = self.value if _SIMPLE.fullmatch(self.value) else f'"{escaped}"'
        above = f">{self.above:g}" if self.kind == "concept" else ""
        return f"{'not ' if self.negated else ''}{self.kind}:{value}{above}"


@dataclass(frozen=True)
class ItemFilter:
    """Facets that an item must all have; `str()` gives a text that parses to the same facets."""

    facets: tuple[Facet, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ItemFilter:
        """Parse a filter; an empty text and `all` are the filter without facets.

        Raises a ValueError of one line if a part of the text is no facet.
        """
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"a filter has at most {MAX_CHARACTERS:,} characters; got {len(text)}")
        text = " ".join(text.split())
        if text in ("", "all"):
            return cls()
        facets: dict[Facet, None] = {}
        at = 0
        while at < len(text):
            found = _FACET.match(text, at)
            if not found or (found["above"] and found["kind"].lower() != "concept"):
                known = ", ".join(f"{kind}:…" for kind in KINDS)
                raise ValueError(f"a set of items is {known} or all; got {text[at:][:60]!r}")
            facets[_facet_of(found)] = None
            at = found.end()
        if len(facets) > MAX_FACETS:
            raise ValueError(f"a filter has at most {MAX_FACETS} facets; got {len(facets)}")
        return cls(tuple(facets))

    def __str__(self) -> str:
        return " ".join(map(str, self.facets))


def _facet_of(found: re.Match[str]) -> Facet:
    kind: FacetKind = found["kind"].lower()  # pyright: ignore[reportAssignmentType]
    value, above = found["plain"] or (found["quoted"] or "").replace('""', '"'), found["above"]
    if kind == "concept" and found["plain"] and (given := _ABOVE.fullmatch(value)):
        value, above = given.groups()
    try:
        probability = float(above) if above else DEFAULT_PROBABILITY
    except ValueError:
        raise ValueError(f"a concept's probability is a number; got {above[:20]!r}") from None
    return Facet(kind, value, bool(found["negated"]), probability)


class FacetCount(NamedTuple):
    """A facet, and the number of items that have it and pass the filter."""

    facet: Facet
    label: str
    items: int


class _Values(NamedTuple):
    """The values of a facet, and the items that have them."""

    names: list[str]
    presence: csr_array
    """(n, v) int32 of 0 and 1"""


class ItemFacets:
    """Facets of the items of a collection. Thread-safe; what is read from the table is cached.

    Parameters
    ----------
    collection : Collection
    selectors : mapping of str to callable
        For the kinds of facet that need more than the table of items: returns which items have a
        facet, regardless of its negation: (n,) bool.
    """

    def __init__(
        self, collection: Collection, selectors: Mapping[str, Callable[[Facet], np.ndarray]]
    ) -> None:
        self._collection = collection
        own = {
            "label": lambda facet: self._with_value("label", facet.value),
            "split": lambda facet: self._with_value("split", facet.value),
            "caption": lambda facet: self._with_words(facet.value),
            "file": lambda facet: self._in_file(facet.value),
            "id": lambda facet: self._with_id(facet.value),
        }
        cached = {kind: lru_cache(maxsize=32)(select) for kind, select in own.items()}
        self._selectors = {**cached, **selectors}
        self._values = lru_cache(maxsize=None)(self._read_values)

    def mask(self, where: ItemFilter | str) -> np.ndarray | None:
        """Return which items pass a filter: (n,) bool, or None for a filter without facets.

        Raises a ValueError of one line if the text is no filter, or one of its facets selects no
        item on its own.
        """
        parsed = ItemFilter.parse(where) if isinstance(where, str) else where
        found: np.ndarray | None = None
        for facet in parsed.facets:
            has = self._selectors[facet.kind](replace(facet, negated=False))
            has = ~has if facet.negated else has
            if not has.any():
                name = self._collection.name
                raise ValueError(f"{str(facet)[:80]!r} selects no item of collection {name}")
            found = has if found is None else found & has
        return found

    def counts(
        self,
        where: ItemFilter,
        find: str = "",
        more: Mapping[Facet, str] | None = None,
        most: int = 8,
    ) -> list[FacetCount]:
        """Count the items that pass a filter by label, split, folder and caption word.

        Parameters
        ----------
        where : ItemFilter
        find : str
            Only list values with this text.
        more : mapping of Facet to str, optional
            Other facets to count, with their labels.
        most : int
            Maximum number of values of each kind, the most frequent ones.
        """
        found: list[FacetCount] = []
        for kind in LISTED:
            others = tuple(
                one for one in where.facets if kind not in SINGLE or one.kind != kind or one.negated
            )
            mask = self.mask(ItemFilter(others))
            names, presence = self._values(kind)
            each = (
                np.ones(self._collection.n_items, np.int32)
                if mask is None
                else mask.astype(np.int32)
            )
            counts = np.asarray(each @ presence)
            if find:
                wanted = (find.casefold() in name.casefold() for name in names)
                counts *= np.fromiter(wanted, bool, len(names))
            for at in np.argsort(-counts, kind="stable")[:most]:
                if counts[at]:
                    value = names[at] + ("*" if kind == "file" else "")
                    found.append(FacetCount(Facet(kind, value), names[at], int(counts[at])))
        for facet, label in (more or {}).items():
            has = self._selectors[facet.kind](facet)
            mask = self.mask(where)
            count = int(has.sum() if mask is None else (has & mask).sum())
            found += [FacetCount(facet, label, count)] if count else []
        return found

    def _read_values(self, kind: FacetKind) -> _Values:
        items = self._collection.items
        if kind == "caption":
            return self._words()
        if kind == "label":
            return _values_of(items["labels"])
        if kind == "split":
            return _values_of([[split] if split else [] for split in items["split"].fillna("")])
        return _values_of(
            [
                [name[: at + 1] for at, sign in enumerate(name) if sign == "/"]
                for name in self._files
            ]
        )

    def _words(self) -> _Values:
        """Return the content words of captions, plurals as singulars."""
        collection = self._collection
        if collection.n_captions > _MAX_CAPTIONS or not collection.n_captions:
            return _Values([], csr_array((collection.n_items, 0), dtype=np.int32))
        lower = pc.call_function("utf8_lower", [collection.caption_texts.array])
        options = pc.SplitPatternOptions(_NO_LETTER + "+")
        split = pc.call_function("split_pattern_regex", [lower], options)
        words, captions, columns = _encoded(split)
        bases = sorted({lemma(word) for word in words if len(word) > 2 and is_content_word(word)})
        column_of = {base: column for column, base in enumerate(bases)}
        columns = np.array([column_of.get(lemma(word), -1) for word in words], np.int64)[columns]
        listed = columns >= 0
        items = collection.caption_item[captions[listed]]
        found = _indicator(items, columns[listed], (collection.n_items, len(bases)))
        frequent = np.flatnonzero(np.asarray(found.sum(0)) >= _MIN_ITEMS)
        return _Values([bases[at] for at in frequent], csr_array(found[:, frequent]))

    @cached_property
    def _files(self) -> list[str]:
        files = self._collection.file_names
        return [files[row] for row in range(self._collection.n_items)]

    def _with_value(self, kind: FacetKind, value: str) -> np.ndarray:
        names, presence = self._values(kind)
        if value not in names:
            return np.zeros(self._collection.n_items, bool)
        return presence[:, [names.index(value)]].toarray().ravel() > 0

    def _with_words(self, words: str) -> np.ndarray:
        """Return which items have a caption with a word or phrase, in singular or plural."""
        *before, last = words.lower().split()
        forms = "|".join(map(re.escape, sorted(plural_forms(last))))
        pattern = " ".join([*map(re.escape, before), f"(?:{forms})"])
        options = pc.MatchSubstringOptions(
            f"(?:^|{_NO_LETTER}){pattern}(?:{_NO_LETTER}|$)", ignore_case=True
        )
        texts = self._collection.caption_texts.array
        matches = pc.call_function("match_substring_regex", [texts], options)
        captions = np.flatnonzero(matches.to_numpy())
        return rows_mask(self._collection.n_items, self._collection.caption_item[captions])

    def _in_file(self, pattern: str) -> np.ndarray:
        is_match = re.compile(translate(pattern)).match
        return np.array([is_match(name) is not None for name in self._files])

    def _with_id(self, ids: str) -> np.ndarray:
        rows = [self._collection.existing_row(one.strip()) for one in ids.split(",")]
        return rows_mask(self._collection.n_items, rows)


def _values_of(lists: object) -> _Values:
    """Return the values in the lists of all items, and the items that have them."""
    column = pa.array(lists, pa.list_(pa.string()))
    names, rows, columns = _encoded(column)
    return _Values(names, _indicator(rows, columns, (len(column), len(names))))


def _encoded(lists: pa.Array | pa.ChunkedArray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the distinct texts in lists, and for each text in them its list and its number."""
    whole = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    parents = pc.call_function("list_parent_indices", [whole]).to_numpy(zero_copy_only=False)
    encoded = whole.flatten().dictionary_encode()
    return encoded.dictionary.to_pylist(), parents, encoded.indices.to_numpy(zero_copy_only=False)


def _indicator(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Return a matrix of 0 and 1, int32."""
    found = csr_array(coo_array((np.ones(len(rows), np.int32), (rows, columns)), shape))
    found.data[:] = 1
    return found


def inside_polygon(corners: str, positions: np.ndarray) -> np.ndarray:
    """Return which positions, (n, 2) float, are inside of a polygon, `x,y,x,y,…`: (n,) bool.

    Raises a ValueError if there are fewer than three corners.
    """
    from matplotlib.path import Path  # slow to import

    try:
        numbers = [float(number) for number in corners.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 6 or len(numbers) % 2 or not np.isfinite(numbers).all():
        raise ValueError(
            "a selection on the map is at least three corners, map:x,y,x,y,x,y with numbers from "
            f"-1 to 1; got {corners[:60]!r}"
        )
    return Path(np.reshape(numbers, (-1, 2))).contains_points(positions)


def rows_mask(n: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return a mask of n rows from their numbers."""
    found = np.zeros(n, bool)
    found[rows] = True
    return found
