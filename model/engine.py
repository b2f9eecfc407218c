"""Search engine over one collection and one checkpoint.

`SearchEngine` is the entry point: the CLI, the web interface and the API open one and call
`encode`, then `search`. It is read-only once opened and safe to share between threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from sieve.model.backbone.checked_files import BackboneUnavailable
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import find_checkpoint
from sieve.model.codes import SparseCodes, encode_codes
from sieve.model.collection import Collection, thumbnail_path
from sieve.model.dimensions.code_cache import CodeCache, open_code_cache, read_measurements
from sieve.model.dimensions.concepts import (
    Concepts,
    DimensionNames,
    check_dimension,
    concept_table,
    open_concepts,
)
from sieve.model.dimensions.map import project_items
from sieve.model.dimensions.page import DimensionPage, describe_dimension
from sieve.model.dimensions.presence import ExcludedConcepts, Phrase, Presence
from sieve.model.dimensions.statistics import ZeroShotEvidence, sample_rows
from sieve.model.dimensions.table import rename_rows
from sieve.model.dimensions.vocabulary import english_words
from sieve.model.duplicates import Copies, duplicate_groups
from sieve.model.encoded_query import EncodedQuery, QueryBuilder, list_active
from sieve.model.exclusion import DEFAULT_STRICTNESS, Query, Strictness, never_filter, off_weights
from sieve.model.hyperparameters import IMAGE
from sieve.model.index import Index, LocalIndex
from sieve.model.index.qdrant import QdrantIndex
from sieve.model.item_filter import Facet, ItemFacets, ItemFilter, inside_polygon, rows_mask
from sieve.model.query_encoder import Capabilities, query_encoder, understands
from sieve.model.search_results import (
    ExcludedConcept,
    OffDimension,
    Result,
    ResultBuilder,
    SearchOutcome,
)
from sieve.model.text_encoder import FunctionEncoder, open_text_encoder

if TYPE_CHECKING:
    from sieve.model.backbone.clip import Backbone

MAX_TOP = 200
N_SEARCHED = 100
"""Number of results that the facet `search:` selects."""


class SearchEngine:
    """Exclusion search over one collection with one checkpoint.

    Parameters
    ----------
    allow_code : bool
        Load the Python function that external codes name as their text encoder; it may do anything.
    index : Index, optional
        Index to search; by default the codes in this process.
    text_encoder : str
        Name of a text encoder to attach: see `sieve.model.text_encoder`.
    open_backbone : callable, optional
        Opens the backbone when it is first needed, in place of `text_encoder`.

    Attributes
    ----------
    renamed : callable
        Returns the names that users gave to dimensions, which take precedence over the
        checkpoint's. Called often, so it must be fast.
    tags : callable
        Returns the tags that users gave to dimensions, as texts separated by commas.

    Raises
    ------
    ValueError
        If the checkpoint does not fit the collection, or the text encoder cannot be attached.
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
        self.collection, self.checkpoint = collection, checkpoint
        self.index = index or LocalIndex(self.image_codes, self.derived.mean_positive)
        self._open_backbone = open_backbone or partial(
            open_text_encoder, collection, device, text_encoder, allow_code
        )
        self.renamed: Callable[[], Mapping[int, str]] = dict
        self.tags: Callable[[], Mapping[int, str]] = dict
        if text_encoder and not collection.codes:
            self.backbone  # noqa: B018  # load it now, so that one that does not fit is refused
        self._encoder = query_encoder(
            collection, checkpoint, lambda: self.backbone, allow_code, text_encoder
        )
        self._queries = QueryBuilder(
            collection, checkpoint, self.index, self._encoder, self.evidence
        )
        self.encode_text = self._queries.encode_text

    @classmethod
    def open(
        cls,
        collection: str | Path,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        allow_code: bool = False,
        index: str = "",
        text_encoder: str = "",
    ) -> SearchEngine:
        """Open a collection folder with a checkpoint folder, by default the best one that fits.

        `index` is the address of an index to search instead of the codes in this process: see
        `sieve.model.index.qdrant`. For the other parameters, see `SearchEngine`.

        Raises
        ------
        FileNotFoundError
            If the collection, the checkpoint or the index does not exist.
        ValueError
            If one of them is damaged or does not fit the others.
        """
        opened = Collection.open(collection)
        path = Path(checkpoint) if checkpoint else find_checkpoint(opened)
        loaded = Checkpoint.load(path)
        loaded.check_fits(opened)
        remote = QdrantIndex.open(index, opened, loaded) if index else None
        return cls(opened, loaded, device, allow_code, remote, text_encoder)

    @cached_property
    def derived(self) -> CodeCache:
        """Codes and dimension statistics, computed once and cached in `$SIEVE_HOME`."""
        return open_code_cache(self.collection, self.checkpoint)

    @property
    def can(self) -> Capabilities:
        """Kinds of query that are supported; fewer once the backbone proves to be unavailable."""
        return self._encoder.can

    @cached_property
    def backbone(self) -> Backbone | FunctionEncoder:
        """The backbone that made the collection, or the attached one, loaded when first needed.

        After it could not be loaded once, every access raises `BackboneUnavailable`.
        """
        if isinstance(self._loaded_backbone, BackboneUnavailable):
            raise self._loaded_backbone
        return self._loaded_backbone

    @cached_property
    def _loaded_backbone(self) -> Backbone | FunctionEncoder | BackboneUnavailable:
        try:
            return self._open_backbone()
        except BackboneUnavailable as error:
            return error  # cached, because every retry would take as long when offline

    def with_checkpoint(self, checkpoint: Checkpoint) -> SearchEngine:
        """Open the same collection with another checkpoint; both share the backbone."""
        return SearchEngine(self.collection, checkpoint, open_backbone=lambda: self.backbone)

    def warm_up(self) -> None:
        """Load the text encoder, so that the first query does not wait for it."""
        self.concepts  # noqa: B018  # a search lists concepts
        if self.can.text_queries:
            self.encode_text("a photo")

    def encode_texts(self, texts: Sequence[str]) -> SparseCodes:
        """Encode texts without splitting off exclusions: (t, m), at least one text."""
        return self._encoder.encode_texts(texts)[0]

    def encode_images(self, images: Sequence[Image.Image]) -> SparseCodes:
        """Encode images: (i, m); raise a ValueError without a backbone."""
        return self._encoder.encode_images(images)[0]

    def vocabulary(self) -> list[str]:
        """Return the words of the general vocabulary that the text encoder knows."""
        if not self.can.text_queries:
            return []
        encoder = self._encoder.text_encoder()
        return [word for word in english_words() if not encoder.unknown_words(word)]

    @cached_property
    def copies(self) -> Copies:
        """Groups of items that show the same picture, from the collection's `duplicates.csv`."""
        return Copies(duplicate_groups(self.collection, near=True))

    @cached_property
    def _no_copies(self) -> Copies:
        return Copies(np.arange(self.collection.n_items))

    @cached_property
    def concepts(self) -> Concepts:
        """Groups of dimensions with the same meaning, computed once and cached in `$SIEVE_HOME`."""
        return open_concepts(self.collection, self.checkpoint)

    @property
    def image_codes(self) -> SparseCodes:
        """Codes of all images."""
        return self.derived.image_codes

    @property
    def text_codes(self) -> SparseCodes:
        """Codes of all captions."""
        return self.derived.text_codes

    def names(self) -> DimensionNames:
        """Return the names of dimensions and concepts, from one snapshot of the user's names."""
        return DimensionNames(self.checkpoint.name_of, self.renamed(), lambda: self.concepts)

    def name_of(self, dimension: int) -> str:
        """Return a dimension's name: the user's, else the checkpoint's."""
        return self.names()(dimension)

    def dimension_table(self) -> pd.DataFrame:
        """Return the table of dimensions, one row each: see `sieve.model.dimensions.table`."""
        table = rename_rows(self.derived.dimensions, self.renamed())
        measured = read_measurements(self.checkpoint)
        return table.join(measured).assign(concept=self.concepts.of_dimension)

    def concept_table(self) -> pd.DataFrame:
        """Return the table of concepts: see `sieve.model.dimensions.concepts.concept_table`."""
        return concept_table(self.concepts, self.image_codes, self.names())

    def dimension(self, dimension: int, seed: int = 0, where: str = "") -> DimensionPage:
        """Describe one dimension, with examples that pass a filter.

        `seed` selects the random examples. Raises a ValueError if there is no such dimension, the
        filter is malformed, or one of its facets selects no item.
        """
        self.collection.check_unchanged()
        self.check_dimension(dimension)
        chosen = ItemFilter.parse(where)
        return describe_dimension(
            self.collection,
            self.checkpoint,
            self.derived,
            self.concepts,
            dimension,
            self.names(),
            read_measurements(self.checkpoint),
            seed,
            self.facets.mask(chosen),
            str(chosen),
        )

    def passing_dimensions(self, where: str) -> pd.DataFrame:
        """Return the dimensions of the images that pass a filter.

        The table has the columns `dimension`; `passing`, the number of images that have it and pass
        the filter, at least 1; and `example`, the ID of the one with the highest activation. Raises
        a ValueError as `search` does.
        """
        mask = self.facets.mask(where)
        rows = np.arange(self.image_codes.n) if mask is None else np.flatnonzero(mask)
        codes = self.image_codes.by_row[rows].tocsc()
        passing = np.diff(codes.indptr)
        found = np.flatnonzero(passing)
        best = [
            rows[codes.indices[start + codes.data[start:stop].argmax()]]
            for start, stop in zip(codes.indptr[found], codes.indptr[found + 1], strict=True)
        ]
        ids = self.collection.items["id"].to_numpy()[np.array(best, np.int64)]
        return pd.DataFrame({"dimension": found, "passing": passing[found], "example": ids})

    def thumbnail(self, item_id: str) -> Path:
        """Return the path of an item's thumbnail; raise a ValueError if there is no such item."""
        self.row_of(item_id)
        return self.collection.path / thumbnail_path(item_id)

    def row_of(self, item_id: str) -> int:
        """Return the row of an item id; raise a ValueError if there is none."""
        return self.collection.existing_row(item_id)

    def encode(
        self,
        text: str = "",
        without: str = "",
        item: str = "",
        image: Image.Image | None = None,
        open_image: Callable[[str], Image.Image] | None = None,
    ) -> EncodedQuery:
        """Encode a query.

        Parameters
        ----------
        text : str
            A, what to find: a text, or a sum of texts, images, items and concepts. Exclusions in it
            are split off: see `sieve.model.query_parser`.
        without : str
            B, what to exclude; several terms, separated by commas, "or" or "and", are encoded one
            by one.
        item : str
            Id of an item whose image is a term of A.
        image : PIL image, optional
            An image that is a term of A.
        open_image : callable, optional
            Returns the images that `text` and `without` name as `image:NAME`.

        Raises
        ------
        ValueError
            If A is empty, there is no such item or concept, or nothing can encode a text or an
            image.
        """
        return self._queries.encode(text, without, item, image, open_image, self.names())

    def evidence(
        self, embeddings: np.ndarray, dimensions: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Return how well dimensions separate the images that match each text from all others.

        Parameters
        ----------
        embeddings : (t, d) float32
            The backbone's embeddings of the texts.
        dimensions : (c,) int64, optional
            Dimensions to compute, by default all.

        Returns
        -------
        (t, m) float32 or None
            See `sieve.model.dimensions.statistics`; None without embeddings.
        """
        if self._zero_shot is None or not embeddings.any():
            return None
        return self._zero_shot.auc(embeddings, dimensions)

    @cached_property
    def _zero_shot(self) -> ZeroShotEvidence | None:
        if self.collection.codes:
            return None
        # The codes may be in an external index, so those of a sample are computed.
        rows = sample_rows(self.collection.n_items)
        embeddings = np.asarray(self.collection.image_embeddings[rows])
        codes = encode_codes(self.checkpoint.encoder, embeddings, IMAGE)
        return ZeroShotEvidence(codes.by_row, embeddings)

    def search(
        self,
        query: EncodedQuery,
        off: tuple[int, ...] | None = None,
        strictness: Strictness = DEFAULT_STRICTNESS,
        top: int = 24,
        fold: bool = True,
        where: str = "",
    ) -> SearchOutcome:
        """Return the best items for a query with some dimensions off.

        Parameters
        ----------
        query : EncodedQuery
        off : tuple of int, optional
            All dimensions that are off; by default those that "without" proposes.
        strictness : Strictness
            Weight of the off dimensions, and whether every item that probably has something that is
            off is left out.
        top : int
            Number of results, 1 to 200.
        fold : bool
            Group items that show the same picture into one result, which lists the others as its
            copies.
        where : str
            Filter of the items, such as `label:dog split:test`: see `sieve.model.item_filter`.

        Raises
        ------
        ValueError
            If a dimension does not exist, a number is out of range, or a facet of the filter is
            none or selects nothing.
        """
        if not 1 <= top <= MAX_TOP:
            raise ValueError(f"top must be between 1 and {MAX_TOP}; got {top}")
        self.collection.check_unchanged()
        chosen = ItemFilter.parse(where)
        among = self.facets.mask(chosen)
        weighted = replace(self.question(query, off, strictness), among=among)
        off = weighted.off
        builder = self._result_builder(query, fold, off)
        presences = builder.excluded.presences
        is_on = np.setdiff1d(np.flatnonzero(query.code), off)
        started = time.perf_counter()
        found = builder.find(self.index, weighted, top) if len(is_on) or not off else []
        seconds = time.perf_counter() - started
        plain = Query(query.code, among=among)
        before = builder.find(self.index, plain, top) if off else found
        results, left = builder.compare(found, before, weighted)
        weights = tuple(
            OffDimension(j, name, weight, concept, concept_name)
            for j, weight in zip(off, weighted.weights, strict=True)
            for name, concept, concept_name in [builder.names.described(j)]
        )
        return SearchOutcome(
            weights,
            results,
            left,
            seconds,
            bool(off) and not len(is_on),
            tuple(ExcludedConcept(one.name, one.dimensions, one.basis) for one in presences),
            strictness.limit if strictness.never else None,
            str(chosen),
            None if among is None else int(among.sum()),
        )

    def named(self, query: EncodedQuery) -> EncodedQuery:
        """Return an encoded query with the current names of its dimensions."""
        proposed = np.array(query.proposed, np.int64)
        listed = list_active(query.code, query.without_code, proposed, self.names())
        return replace(query, dimensions=listed)

    def question(
        self,
        query: EncodedQuery,
        off: tuple[int, ...] | None = None,
        strictness: Strictness = DEFAULT_STRICTNESS,
    ) -> Query:
        """Return the weighted query that `search` scores items with; parameters as for `search`."""
        off = query.proposed if off is None else tuple(sorted(set(off)))
        for dimension in off:
            self.check_dimension(dimension)
        weights = off_weights(query.code, query.without_weights, off, self.index.mean_positive)
        pushing = Query(
            query.code,
            off,
            tuple(map(float, weights)),
            strictness.value,
            calibration=self.checkpoint.calibration,
        )
        if not strictness.never:
            return pushing
        wanted = np.maximum(pushing.factors, 0)
        probabilities = self.excluded(query, off).probabilities
        return replace(pushing, hides=never_filter(probabilities, strictness.limit, wanted))

    def excluded(self, query: EncodedQuery, off: tuple[int, ...]) -> ExcludedConcepts:
        """Return the phrases and concepts that off dimensions exclude: see `PresenceModel`."""
        phrases = [
            Phrase(one.label, one.code, one.read_embedding())
            for one in query.terms
            if one.excluded and one.term.kind != "concept"
        ]
        # Without off dimensions, the model is not needed.
        presences = self._presences(off, query.proposed, phrases) if off else ()
        return ExcludedConcepts(presences, lambda rows: self.collection.image_embeddings[rows])

    def _presences(
        self, off: tuple[int, ...], proposed: Sequence[int] = (), phrases: Sequence[Phrase] = ()
    ) -> tuple[Presence, ...]:
        renamed, names = self.renamed(), self.names()

        def name_of(dimension: int) -> tuple[str, bool]:
            named = self.checkpoint.names.get(dimension)
            certain = dimension in renamed or (named is not None and named.confident)
            return names(dimension), certain

        model = self._queries.presence
        return model.exclude(off, proposed, phrases, self.concepts, name_of)

    def understands(self, text: str) -> bool:
        """Return whether a text can be encoded and has no unknown word."""
        return understands(self._encoder, text)

    def search_dense(
        self, query: EncodedQuery, top: int = 24, fold: bool = True, where: str = ""
    ) -> tuple[Result, ...]:
        """Return the best items by the backbone's embeddings alone, as a baseline.

        "A without B" is embedded as that literal text. For `where`, see `search`.
        """
        total = self.collection.image_embeddings @ query.embedding.astype(np.float16)
        total, among = total.astype(np.float32), self.facets.mask(where)
        if among is not None:
            total[~among] = -np.inf
        return self._result_builder(query, fold).list_best(total, top)

    @cached_property
    def facets(self) -> ItemFacets:
        """Facets of the items, which filter searches and name the sets to compare."""
        n = self.collection.n_items
        found = lru_cache(maxsize=32)(lambda text: rows_mask(n, [r.row for r in self._best(text)]))
        inside = lru_cache(maxsize=32)(lambda corners: inside_polygon(corners, self.item_positions))
        return ItemFacets(
            self.collection,
            {
                "concept": lambda facet: self.shows_concept(facet.value, facet.above),
                "tag": self._tagged,
                "search": lambda facet: found(facet.value),
                "map": lambda facet: inside(facet.value),
            },
        )

    @cached_property
    def item_positions(self) -> np.ndarray:
        """Map of the items: (n, 2) float32 in [-1, 1], computed once and cached."""
        return project_items(self.collection, self.checkpoint, self.image_codes)

    def shows_concept(self, concept: str, above: float) -> np.ndarray:
        """Return which images show a concept with at least some probability: (n,) bool.

        `concept` is a name, or the number of a dimension. If nothing is known about the probability
        of the concept, any activation counts.
        """
        leading = self.names().find_concept(concept)
        (presence,) = self._presences(tuple(self.concepts.members(leading).tolist()))
        return self._shown(presence, above)

    @cached_property
    def _shown(self) -> Callable[[Presence, float], np.ndarray]:
        none = np.zeros((0, 0), np.float32)

        def compute(presence: Presence, above: float) -> np.ndarray:
            return presence.probability(self.image_codes.by_row, none) >= above

        return lru_cache(maxsize=64)(compute)

    def _tagged(self, facet: Facet) -> np.ndarray:
        """Return which images activate a dimension with a tag."""
        tag = facet.value.casefold()
        dimensions = [j for j, tags in self.tags().items() if tag in tags.casefold().split(", ")]
        return self.image_codes.by_dimension[:, dimensions].sum(1) > 0

    def _best(self, text: str) -> tuple[Result, ...]:
        return self.search(self.encode(text), top=N_SEARCHED).results

    def _result_builder(
        self, query: EncodedQuery, fold: bool, off: tuple[int, ...] = ()
    ) -> ResultBuilder:
        copies = self.copies if fold else self._no_copies
        rows, excluded = self.query_rows(query), self.excluded(query, off)
        return ResultBuilder(self.collection, copies, rows, self.names(), excluded)

    def query_rows(self, query: EncodedQuery) -> tuple[int, ...]:
        """Return the rows of the items that a query searches by, which are not returned."""
        return tuple(map(self.row_of, query.items))

    def check_dimension(self, dimension: int) -> None:
        """Raise a ValueError if there is no such dimension."""
        check_dimension(dimension, self.checkpoint.m)
