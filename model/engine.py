"""Engine: one opened collection with one checkpoint; what the CLI, the tabs and the API call.

Everything here is read-only after opening and safe to share between threads. Handlers parse, call
one method and format what comes back.

Retrieving with some dimensions off, and telling what that changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

from sieve.model.backbone import Backbone, BackboneUnavailable
from sieve.model.checkpoint import Checkpoint, find_checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection, thumbnail_path
from sieve.model.dimensions import (
    CodeCache,
    DimensionPage,
    describe_dimension,
    open_code_cache,
    rename_rows,
)
from sieve.model.dimensions.vocabulary import english_words
from sieve.model.duplicates import Copies, duplicate_groups
from sieve.model.exclusion import Query, best, contributions, off_weights, propose_off
from sieve.model.files import checked_once
from sieve.model.index import Index, LocalIndex, QdrantIndex
from sieve.model.query_encoder import (
    Capabilities,
    encode_exclusions,
    query_encoder,
    query_notes,
    shortened,
)
from sieve.model.query_parser import ParsedQuery, describe, parse_query
from sieve.model.search_results import (
    Contribution,
    Copy,
    EncodedQuery,
    OffDimension,
    Result,
    SearchOutcome,
    list_active,
)
from sieve.model.text_encoder import FunctionEncoder, open_text_encoder
from sieve.model.words.nouns import bare_phrase
from sieve.model.words.text import lemma, says_something

Names = Callable[[int], str]
"""Gives a dimension's name."""


class _Hit(NamedTuple):
    """A row with its score."""

    row: int
    score: float


class _Ranked(NamedTuple):
    """A row with its score, and where its code stands among those found."""

    row: int
    score: float
    codes: SparseCodes
    place: int


Hit = TypeVar("Hit", _Hit, _Ranked)


@dataclass(frozen=True)
class Retriever:
    """Searches the codes of a collection, and says of every result what earned it."""

    collection: Collection
    checkpoint: Checkpoint
    index: Index
    copies: Callable[[], Copies]
    """Reads which items show the same picture; called only by searches that fold them."""

    def search(
        self,
        query: EncodedQuery,
        off: tuple[int, ...],
        strictness: float,
        never: bool,
        top: int,
        names: Names,
        itself: int | None = None,
        fold: bool = True,
    ) -> SearchOutcome:
        """Retrieve with some dimensions off.

        Parameters
        ----------
        query : EncodedQuery
        off : tuple of int
            The complete set of dimensions that are off, each once.
        strictness : float
            s in [0, 1].
        never : bool
            Also remove what has an off dimension.
        top : int
        names : callable
            Gives a dimension's name.
        itself : int, optional
            Row of the item that is searched with, which is no result.
        fold : bool
            Show items of the same picture as one result.

        Raises
        ------
        ValueError
            If the strictness is out of range.
        """
        asked = self.question(query, off, strictness, never)
        copies = self.copies() if fold else None
        is_on = np.setdiff1d(np.flatnonzero(query.code), off)
        started = time.perf_counter()
        after = self._ranked(asked, top, itself, copies) if len(is_on) or not off else []
        seconds = time.perf_counter() - started
        before = self._ranked(Query(query.code), top, itself, copies) if off else after
        named = tuple(
            OffDimension(j, names(j), w) for j, w in zip(asked.off, asked.weights, strict=True)
        )
        results, left = self._compared(asked, names, before, after, copies)
        return SearchOutcome(named, results, left, seconds, bool(off) and not len(is_on))

    def question(
        self, query: EncodedQuery, off: tuple[int, ...], strictness: float, never: bool
    ) -> Query:
        """Make what is scored of a query and what is off; parameters as for `search`."""
        weights = off_weights(
            query.code, query.without_code, np.array(off, np.int64), self.index.mean_positive
        )
        return Query(
            query.code,
            off,
            tuple(map(float, weights)),
            strictness,
            never,
            self.checkpoint.calibration,
        )

    def search_dense(
        self, query: EncodedQuery, top: int, itself: int | None = None, fold: bool = True
    ) -> tuple[Result, ...]:
        """Retrieve with the backbone alone, "A without B" as its literal text, to compare."""
        copies = self.copies() if fold else None
        total = self.collection.image_embeddings @ query.embedding.astype(np.float16)
        total = total.astype(np.float32)

        def find(top: int) -> list[_Hit]:
            hits = best(total, top)
            return list(map(_Hit, hits.rows.tolist(), hits.scores.tolist()))

        kept = self._distinct(find, top, itself, copies)
        return tuple(
            self._shown(hit.row, hit.score, rank, copies=copies) for rank, hit in enumerate(kept, 1)
        )

    def _ranked(
        self, query: Query, top: int, itself: int | None, copies: Copies | None
    ) -> list[_Ranked]:
        def find(top: int) -> list[_Ranked]:
            found = self.index.search(query, top)
            pairs = enumerate(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
            return [_Ranked(row, score, found.codes, place) for place, (row, score) in pairs]

        found = self._distinct(find, top, itself, copies)
        if not query.never:
            return found
        # With much left out, what shares nothing with the query would fill the places.
        return [one for one in found if _shares(query, one)]

    def _distinct(
        self, find: Callable[[int], list[Hit]], top: int, itself: int | None, copies: Copies | None
    ) -> list[Hit]:
        """Find the best items without the one searched with, each picture once if folded."""
        wanted = top + (itself is not None)
        while True:
            found = find(wanted)
            seen = set() if itself is None else {_picture(itself, copies)}
            kept = []
            for one in found:
                picture = _picture(one.row, copies)
                if picture not in seen:
                    kept.append(one)
                    if copies:
                        seen.add(picture)
            if len(kept) >= top or len(found) < wanted or not copies:
                return kept[:top]
            wanted *= 2

    def _compared(
        self,
        asked: Query,
        names: Names,
        before: list[_Ranked],
        after: list[_Ranked],
        copies: Copies | None,
    ) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
        """Results, each with its rank before, and those that were among the top before."""
        rank_before = {_picture(one.row, copies): rank for rank, one in enumerate(before, 1)}
        kept = {_picture(one.row, copies) for one in after}
        results = tuple(
            self._shown(
                one.row,
                one.score,
                rank,
                rank_before.get(_picture(one.row, copies)),
                self._parts(asked, names, one),
                copies,
            )
            for rank, one in enumerate(after, 1)
        )
        gone = [
            (rank, one)
            for rank, one in enumerate(before, 1)
            if _picture(one.row, copies) not in kept
        ]
        left = []
        for rank, one in gone:
            parts = self._parts(asked, names, one)
            left.append(
                self._shown(one.row, sum(part.value for part in parts), 0, rank, parts, copies)
            )
        return tuple(results), tuple(left)

    def _parts(self, query: Query, names: Names, one: _Ranked) -> tuple[Contribution, ...]:
        found = contributions(one.codes, query, one.place)
        return tuple(
            Contribution(j, names(j), value)
            for j, value in zip(found.dimensions.tolist(), found.values.tolist(), strict=True)
        )

    def _shown(
        self,
        row: int,
        score: float,
        rank: int,
        before: int | None = None,
        parts: tuple[Contribution, ...] = (),
        copies: Copies | None = None,
    ) -> Result:
        others = copies.of(row) if copies else ()
        item = self.collection.items.iloc[row]
        return Result(
            id=item["id"],
            row=row,
            score=score,
            captions=tuple(item["captions"]),
            labels=tuple(item["labels"]),
            contributions=parts,
            rank=rank,
            rank_before=before,
            file=self.collection.file_names[row],
            copies=tuple(self._copy(other) for other in others),
        )

    def _copy(self, row: int) -> Copy:
        return Copy(self.collection.items["id"].iloc[row], self.collection.file_names[row])


def _picture(row: int, copies: Copies | None) -> int:
    """Return what identifies a row's picture: the row itself if copies are not folded."""
    return copies.group(row) if copies else row


def _shares(query: Query, one: _Ranked) -> bool:
    """Whether a row has a dimension of the query that is on."""
    return bool((contributions(one.codes, query, one.place).values > 0).any())


MAX_TOP = 200
_KEPT_NUMBERS = 1 << 22
"""Encoded texts are kept with their zeros, so many numbers of them: 4,096 texts at m = 1024."""


class Engine:
    """One opened collection with one checkpoint.

    Attributes
    ----------
    collection : Collection
    checkpoint : Checkpoint
    index : Index
        What is searched: by default the codes in this process.
    renamed : callable
        Tells people's names, which go before the checkpoint's; quick, as it is asked often.
    """

    def __init__(
        self,
        collection: Collection,
        checkpoint: Checkpoint,
        device: str = "auto",
        allow_code: bool = False,
        index: Index | None = None,
        text_encoder: str = "",
        open_backbone: Callable[[], Backbone | FunctionEncoder] | None = None,
    ) -> None:
        checkpoint.check_fits(collection)
        self.collection = collection
        self.checkpoint = checkpoint
        self.index = index or LocalIndex(self.image_codes, self.derived.mean_positive)
        self._retriever = Retriever(collection, checkpoint, self.index, lambda: self.copies)
        self._open_backbone = open_backbone or partial(
            open_text_encoder, collection, device, text_encoder, allow_code
        )
        self.renamed: Callable[[], Mapping[int, str]] = dict
        if text_encoder and not collection.codes:
            self.backbone  # noqa: B018  # one that does not fit is refused before the first query
        self._queries = query_encoder(
            collection, checkpoint, lambda: self.backbone, allow_code, text_encoder
        )
        kept = max(_KEPT_NUMBERS // checkpoint.m, 16)
        self.encode_text = lru_cache(maxsize=kept)(self._queries.encode_text)

    @classmethod
    def open(
        cls,
        collection: str | Path,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        allow_code: bool = False,
        index: str = "",
        text_encoder: str = "",
    ) -> Engine:
        """Open a collection folder with a checkpoint folder, by default the one that fits.

        Parameters
        ----------
        collection, checkpoint : path
        device : str
        allow_code : bool
            Load the Python function that given codes name to read texts with; it may do anything.
        index : str
            Address of an index to search in place of the codes here: see
            `sieve.model.index.qdrant`.

        Raises
        ------
        FileNotFoundError, ValueError
            In one line that says what to do.
        """
        opened = Collection.open(collection)
        path = Path(checkpoint) if checkpoint else find_checkpoint(opened)
        loaded = Checkpoint.load(path)
        loaded.check_fits(opened)
        elsewhere = QdrantIndex.open(index, opened, loaded) if index else None
        return cls(opened, loaded, device, allow_code, elsewhere, text_encoder)

    @cached_property
    def derived(self) -> CodeCache:
        """Codes and dimension statistics, computed once and cached in `$SIEVE_HOME`."""
        return open_code_cache(self.collection, self.checkpoint)

    @property
    def can(self) -> Capabilities:
        """Supported kinds of query; fewer once the backbone is found to be unavailable."""
        return self._queries.can

    @cached_property
    def backbone(self) -> Backbone | FunctionEncoder:
        """The backbone that made the collection, or the attached one, loaded when first needed.

        Raises
        ------
        BackboneUnavailable
            At every access after it could not be loaded once.
        """
        if isinstance(self._loaded_backbone, BackboneUnavailable):
            raise self._loaded_backbone
        return self._loaded_backbone

    @cached_property
    def _loaded_backbone(self) -> Backbone | FunctionEncoder | BackboneUnavailable:
        try:
            return self._open_backbone()
        except BackboneUnavailable as error:
            return error  # offline, another try would take as long

    def with_checkpoint(self, checkpoint: Checkpoint) -> Engine:
        """Open the same collection with another checkpoint; both share the backbone."""
        return Engine(self.collection, checkpoint, open_backbone=lambda: self.backbone)

    def warm_up(self) -> None:
        """Load what reads texts, so that the first query does not wait for it."""
        if self.can.text_queries:
            self.encode_text("a photo")

    def vocabulary(self) -> list[str]:
        """Words of the general vocabulary that queries can use."""
        if not self.can.text_queries:
            return []
        return [word for word in english_words() if not self._queries.unknown(word)]

    @cached_property
    def copies(self) -> Copies:
        """Groups of items that show the same picture, from the collection's `duplicates.csv`."""
        return Copies(duplicate_groups(self.collection, near=True))

    @property
    def image_codes(self) -> SparseCodes:
        """Codes of all images."""
        return self.derived.image_codes

    @property
    def text_codes(self) -> SparseCodes:
        """Codes of all captions."""
        return self.derived.text_codes

    def names(self) -> Callable[[int], str]:
        """Look up what dimensions are called now, all at one time."""
        renamed = self.renamed()
        return lambda dimension: renamed.get(dimension) or self.checkpoint.name_of(dimension)

    def name_of(self, dimension: int) -> str:
        """Return a dimension's name: a person's, else the checkpoint's."""
        return self.names()(dimension)

    def dimension_table(self) -> pd.DataFrame:
        """One row a dimension: see `sieve.model.dimensions.table`."""
        return rename_rows(self.derived.dimensions, self.renamed())

    def dimension(self, dimension: int, seed: int = 0) -> DimensionPage:
        """Everything about one dimension; `seed` picks the random examples.

        Raises
        ------
        ValueError
            If there is no such dimension.
        """
        self.collection.check_unchanged()
        self.check_dimension(dimension)
        return describe_dimension(
            self.collection, self.checkpoint, self.derived, dimension, self.names(), seed
        )

    def thumbnail(self, item_id: str) -> Path:
        """Find an item's thumbnail.

        Raises
        ------
        ValueError
            If the collection has no such item.
        """
        self.row_of(item_id)
        return self.collection.path / thumbnail_path(item_id)

    def row_of(self, item_id: str) -> int:
        """Find the row of an item id; ValueError if there is none."""
        row = self.collection.row_of(item_id)
        if row is None:
            raise ValueError(
                f"collection {self.collection.name} has no item {item_id[:40]!r}; "
                "item ids are the 16 hex digits shown with each result"
            )
        return row

    def encode(
        self,
        text: str = "",
        without: str = "",
        item: str = "",
        image: Image.Image | None = None,
    ) -> EncodedQuery:
        """Make a query of what a person asks for.

        Parameters
        ----------
        text : str
            A. Exclusions in it are split off: see `sieve.model.query_parser`.
        without : str
            B; several phrases with commas, "or" or "and" are encoded one by one.
        item : str
            Id of an item whose image takes A's place.
        image : PIL image, optional
            An image that takes A's place.

        Raises
        ------
        ValueError
            If there is nothing to search for, no such item, or nothing that can read it.
        """
        parsed = parse_query(text, without)
        text, without, notes = parsed.text, parsed.without_field, [*parsed.notes]
        if item:
            text, row = "", self.row_of(item)
            code, embedding = self.index.code(row), lambda: self._embedding_of(row)
        elif image is not None:
            text, encoded = "", self._queries.encode_image(image)
            code, embedding = encoded.code, lambda: encoded.embedding
        else:
            self._check_text(parsed)
            whole = self.encode_text(f"{text} without {without}" if without else text)
            code, embedding = self.encode_text(text).code, lambda: whole.embedding
            if not code.any():
                raise ValueError(self._queries.nothing_known(text))
        notes += query_notes(self._queries, text)
        without_codes, unknown = encode_exclusions(
            self._queries, self.encode_text, parsed.without, len(code)
        )
        notes += unknown
        notes += filter(None, [self._queries.about_reading(f"{text} {without}")])
        proposed = propose_off(code, without_codes, self.checkpoint.calibration)
        if without_codes.any() and not len(proposed):
            notes.append(_nothing_proposed(text, parsed.without))
        without_code = without_codes.max(axis=0, initial=0)
        return EncodedQuery(
            parsed.find_field if text else "",
            without,
            item,
            code,
            without_code,
            embedding,
            list_active(code, without_code, proposed, self.names()),
            tuple(dict.fromkeys(notes)),
            parsed.without,
            None if item or image is not None else parsed.suggestion,
        )

    @staticmethod
    def _check_text(parsed: ParsedQuery) -> None:
        """Raise a ValueError if a query does not say what to find."""
        if says_something(parsed.text):
            return
        if parsed.without:
            raise ValueError(
                f"nothing to search for: the query is read as {describe('', parsed.without)}; "
                "enter something to find as well"
            )
        if parsed.text:
            raise ValueError(f"“{shortened(parsed.text)}” has no words to search for; enter some")
        raise ValueError("nothing to search for: give a text, an image or an item")

    def search(
        self,
        query: EncodedQuery,
        off: tuple[int, ...] | None = None,
        strictness: float = 1.0,
        never: bool = False,
        top: int = 24,
        fold: bool = True,
    ) -> SearchOutcome:
        """Retrieve with some dimensions off.

        Parameters
        ----------
        query : EncodedQuery
        off : tuple of int, optional
            The complete set of dimensions that are off; by default the proposed ones.
        strictness : float
            s in [0, 1].
        never : bool
            Also remove what has an off dimension.
        top : int
            1 to 200.
        fold : bool
            Show items of the same picture as one result, which lists the others as its copies.

        Raises
        ------
        ValueError
            If a dimension does not exist or a number is out of range.
        """
        if not 1 <= top <= MAX_TOP:
            raise ValueError(f"top must be between 1 and {MAX_TOP}; got {top}")
        off = self._settled(query, off)
        names, itself = self.names(), self._itself(query)
        with checked_once():
            self.collection.check_unchanged()
            return self._retriever.search(query, off, strictness, never, top, names, itself, fold)

    def named(self, query: EncodedQuery) -> EncodedQuery:
        """Give a query that was encoded a while ago the names that dimensions have now."""
        names = self.names()
        listed = tuple(replace(part, name=names(part.dimension)) for part in query.dimensions)
        return replace(query, dimensions=listed)

    def question(
        self,
        query: EncodedQuery,
        off: tuple[int, ...] | None = None,
        strictness: float = 1.0,
        never: bool = False,
    ) -> Query:
        """Make what `search` scores every item with; parameters and faults are the same."""
        return self._retriever.question(query, self._settled(query, off), strictness, never)

    def understands(self, text: str) -> bool:
        """Whether a text can be asked for, and all its words are known."""
        return self.can.text_queries and not self._queries.unknown(text)

    def search_dense(
        self, query: EncodedQuery, top: int = 24, fold: bool = True
    ) -> tuple[Result, ...]:
        """Retrieve with the backbone alone, "A without B" as its literal text, to compare."""
        return self._retriever.search_dense(query, top, self._itself(query), fold)

    def _embedding_of(self, row: int) -> np.ndarray:
        dense = self.collection.image_embeddings[row] if self.can.dense_search else np.zeros(0)
        return dense.astype(np.float32)

    def _settled(self, query: EncodedQuery, off: tuple[int, ...] | None) -> tuple[int, ...]:
        """Complete and check what is off: the proposed dimensions where nothing is said."""
        off = query.proposed if off is None else tuple(sorted(set(off)))
        for dimension in off:
            self.check_dimension(dimension)
        return off

    def _itself(self, query: EncodedQuery) -> int | None:
        """Row of the item that is searched with, if there is one."""
        return self.row_of(query.item) if query.item else None

    def check_dimension(self, dimension: int) -> None:
        """Raise a ValueError if there is no such dimension."""
        if not 0 <= dimension < self.checkpoint.m:
            raise ValueError(
                f"there is no dimension {dimension}; this checkpoint has 0 to "
                f"{self.checkpoint.m - 1}"
            )


def _nothing_proposed(text: str, phrases: tuple[str, ...]) -> str:
    """Say why an exclusion that is known switches nothing off."""
    excluded = describe("", phrases)
    words = {tuple(lemma(word) for word in bare_phrase(part).split()) for part in (text, *phrases)}
    if text and len(words) == 1:
        return f"“{shortened(text)}” {excluded} asks for what it excludes: nothing is switched off."
    return f"Nothing is switched off for {excluded}: the query has the same dimensions as strongly."
