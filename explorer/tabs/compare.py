"""The Compare tab: a query answered by two methods side by side, and two sets of images.

Relevance judgments come from the labels or captions that the user selects, or else from those that
the query names. Other checkpoints are opened on first use, and the two most recent stay open.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from sieve.explorer.components import component
from sieve.explorer.json_validation import Line, check_choice, validate
from sieve.explorer.serialize import difference_json, format_number, item_summaries, notes_view
from sieve.explorer.tabs.search import SearchHandlers, SearchRequest
from sieve.model import compare as comparison
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import list_fitting
from sieve.model.collection import Collection
from sieve.model.engine import EncodedQuery, SearchEngine
from sieve.model.evaluation.pairs import TrackName, tracks_of
from sieve.model.hyperparameters import IMAGE
from sieve.model.set_difference import MIN_ITEMS, compare_sets, set_title
from sieve.model.words.nouns import benchmark_nouns

N_SHOWN = 20
N_CONCEPTS = 20
"""Maximum number of concepts that distinguish two sets to show."""
MAX_OPEN_ENGINES = 2
_CHECKPOINT = "checkpoint "


def _describe_method(method: comparison.DenseMethod, value: float, excludes: bool) -> str:
    if not excludes:
        return f"{'centred ' if method.centred else ''}embedding of A; nothing is excluded"
    shown = format_number(value)
    if method.description:
        return method.description.format(value=shown, rest=f"{100 * (1 - value):.3g}%")
    space = "centred embeddings" if method.centred else "embeddings"
    setting = f", {method.hyperparameter} = {shown}" if method.hyperparameter else ""
    return f"{space}: {method.name}{setting}"


def compare_tab(handlers: SearchHandlers) -> None:
    """Add the tab's component; call inside a `gr.Tab`."""
    compare = CompareHandlers(handlers)
    component("compare", compare.compare_options, compare.compare)
    component("set_difference", compare.difference, compare.set_examples)


@dataclass(frozen=True)
class SetsRequest:
    """Two sets of items, as for `sieve.model.set_difference.select_items`."""

    left: Line
    right: Line = ""
    """Empty for all items that are not in the first."""


class RelevanceChoice:
    """Relevance judgments from the labels or captions of a collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.tracks = tracks_of(collection, required=False)
        """Available sources of relevance judgments: labels, captions, both or none."""
        self._concepts = lru_cache(maxsize=2)(partial(comparison.load_concepts, collection))

    def judge(
        self, track: str, a: str, b: str, query: EncodedQuery, among: np.ndarray | None = None
    ) -> tuple[comparison.Relevance | None, dict[str, Any]]:
        """Return the relevance judgments of a query, and the selection for the page.

        Empty values of `track`, `a` and `b` are derived from the words of the query; they cannot be
        derived from an image. The judgments are None if the query cannot be judged. The selection
        has `track`, `a`, `b`, the available `names`, and counts. Raises a ValueError for an unknown
        label or noun. Only items `among`, (n,) bool, are judged.
        """
        if not self.tracks:
            return None, {"track": "", "a": "", "b": "", "names": []}
        chosen: tuple[TrackName, ...] = tuple(one for one in self.tracks if one == track)
        named, *words = self._named(query.text, query.without, chosen or self.tracks)
        first, second = (a or words[0], b or words[1]) if chosen else words
        choice: dict[str, Any] = {"track": named, "a": first, "b": second}
        choice["names"] = list(self._names(named))
        if not first or (query.without and not second):
            return None, choice
        relevance = comparison.relevance_of(self._concepts(named), named, first, second)
        for item in query.items:
            relevance = relevance.without_row(self._collection.row_of_id[item])
        relevance = relevance if among is None else relevance.among(among)
        choice["relevant"] = int(relevance.relevant.sum())
        choice["violating"] = int(relevance.violating.sum())
        return relevance, choice

    def _named(
        self, text: str, without: str, tracks: tuple[TrackName, ...]
    ) -> tuple[TrackName, str, str]:
        """Find the labels or nouns that a query names, in the first track that has them all."""
        partial: list[tuple[TrackName, str, str]] = []
        for track in tracks:
            names = self._names(track)
            a, b = comparison.find_concept(text, names), comparison.find_concept(without, names)
            if a and (b or not without):
                return track, a, b
            partial.append((track, a, b))
        return partial[0]

    def _names(self, track: TrackName) -> tuple[str, ...]:
        """Return the labels or nouns to choose from, without reading all captions."""
        return self._concepts(track).names if track == "label" else benchmark_nouns().lemmas


@dataclass(frozen=True)
class CompareRequest(SearchRequest):
    """A view with the method to compare with, and what counts as relevant."""

    method: Line = "subtraction"
    """Name of a dense method, or `checkpoint NAME`."""
    hyperparameter: Annotated[float, Field(strict=True)] | None = None
    track: Line = ""
    """label or caption; with `a` and `b` empty, what the query names."""
    a: Line = ""
    b: Line = ""


class Column(NamedTuple):
    """Results of one method."""

    title: str
    how: str
    scores: np.ndarray
    """(n,) float32"""
    trained: float = 0.0
    """Share of the items that the checkpoint was trained on."""


class CompareHandlers:
    """Request handlers of the Compare tab. Thread-safe."""

    def __init__(self, handlers: SearchHandlers) -> None:
        self._handlers = handlers
        self._engine = handlers.engine
        self._opened: OrderedDict[Path, SearchEngine] = OrderedDict()
        self._opening = Lock()
        self._relevance = RelevanceChoice(self._engine.collection)
        self._trained = lru_cache(maxsize=8)(comparison.trained_share)

    def compare_options(self, _: Any) -> dict[str, Any]:
        """Return the methods to compare with, and the sources of relevance judgments."""
        dense = comparison.DENSE_METHODS.values() if self._engine.can.dense_search else ()
        return {
            "methods": [
                {
                    "name": method.name,
                    "hyperparameter": method.hyperparameter,
                    "value": method.value,
                    "low": method.range.low if method.range else 0,
                    "high": method.range.high if method.range else 0,
                }
                for method in dense
            ],
            "checkpoints": list(self._checkpoints()),
            "tracks": list(self._relevance.tracks),
        }

    def difference(self, payload: Any) -> dict[str, Any]:
        """Find the concepts that distinguish two sets of a `SetsRequest`."""
        request = validate(SetsRequest, payload, "sets of images")
        found = compare_sets(self._engine, request.left, request.right)
        significant = found.significant
        shown = found._replace(concepts=significant.head(N_CONCEPTS))
        return {
            **difference_json(self._engine, shown),
            "names": [set_title(request.left), set_title(request.right) or "everything else"],
            "tested": len(found.concepts),
            "significant": len(significant),
        }

    def set_examples(self, _: Any) -> dict[str, Any]:
        """Return pairs of sets to try."""
        items = self._engine.collection.items
        labels = Counter(chain.from_iterable(items["labels"])).most_common(6)
        common = [f"label:{label}" for label, count in labels if count >= MIN_ITEMS]
        known = set(items["split"])
        splits = [f"split:{split}" for split in ("train", "test") if split in known]
        pairs = [common[:2], [*common[2:3], ""], splits]
        return {"examples": [pair for pair in pairs if len(pair) == 2]}

    def compare(self, payload: Any) -> dict[str, Any]:
        """Answer a `CompareRequest` with two methods."""
        request = validate(CompareRequest, payload, "a view")
        if not (request.q.strip() or request.item or request.upload):
            raise ValueError("nothing to compare: enter a query")
        text = "" if request.item or request.upload else request.q
        query = self._handlers.encode(text, request.without, request.item, request.upload)
        off = query.proposed if request.off is None else request.off
        among = self._engine.facets.mask(request.where)
        columns = (
            self._sparse(self._engine, self._handlers.checkpoint_name, request, query, off),
            self._other(request, query),
        )
        relevance, choice = self._relevance.judge(request.track, request.a, request.b, query, among)
        like = [self._engine.row_of(query.item)] if query.item else []
        for column in columns:
            # As in a search, the query's own images are not results.
            column.scores[list(self._engine.query_rows(query))] = -np.inf
            if among is not None:
                column.scores[~among] = -np.inf
        hits = [comparison.shown_rows(column.scores, N_SHOWN) for column in columns]
        return {
            "q": query.text,
            "like": item_summaries(self._engine, like),
            "without": query.without,
            "off": list(off),
            "proposed": list(query.proposed),
            **notes_view(query),
            "columns": [
                self._column(column, rows, relevance)
                for column, rows in zip(columns, hits, strict=True)
            ],
            "both": len(set(hits[0]) & set(hits[1])),
            "passing": None if among is None else int(among.sum()),
            "relevance": choice,
        }

    def _sparse(
        self,
        engine: SearchEngine,
        name: str,
        request: CompareRequest,
        query: EncodedQuery,
        off: tuple[int, ...],
    ) -> Column:
        scores = comparison.sparse_scores(engine, query, off, request.level)
        trained = self._trained(engine.checkpoint, engine.collection)
        return Column(f"Sparse · {name}", self._describe_off(engine, off, request), scores, trained)

    def _other(self, request: CompareRequest, query: EncodedQuery) -> Column:
        if request.method.startswith(_CHECKPOINT):
            name = request.method.removeprefix(_CHECKPOINT)
            engine = self._open(name)
            words = (query.text, query.without, query.item)
            encoded = self._handlers.encode_by(engine, *words, request.upload)
            return self._sparse(engine, name, request, encoded, encoded.proposed)
        known = (*comparison.DENSE_METHODS, *(_CHECKPOINT + name for name in self._checkpoints()))
        method = comparison.DENSE_METHODS[check_choice("method", request.method, known)]
        with self._handlers.model:
            embedded = comparison.embed_query(self._engine, query)
        scores = comparison.dense_scores(self._engine, embedded, method, request.hyperparameter)
        value = method.value if request.hyperparameter is None else request.hyperparameter
        is_image = method.name == "literal" and embedded.modality == IMAGE
        name = "A only" if is_image else method.name  # an image query cannot contain “without”
        excludes = embedded.b is not None
        how = _describe_method(comparison.DENSE_METHODS[name], value, excludes)
        return Column(f"Dense · {method.name}", how, scores)

    @staticmethod
    def _describe_off(engine: SearchEngine, off: tuple[int, ...], request: CompareRequest) -> str:
        if not off:
            return "nothing is off"
        names = [engine.name_of(leading) for leading in engine.concepts.grouped(off)]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        count = f"{', '.join(names[:3])}{more} off"
        if request.never:
            return f"{count}, hidden from a probability of {request.limit:.0%}"
        return f"{count}, {'pushed away' if request.strictness else 'ignored'}"

    def _column(
        self, column: Column, rows: list[int], relevance: comparison.Relevance | None
    ) -> dict[str, Any]:
        def mark(row: int) -> str:
            if relevance is None:
                return ""
            violates = "both" if relevance.violating[row] else "other"
            return "right" if relevance.relevant[row] else violates

        items = item_summaries(self._engine, rows)
        measures = comparison.measure(column.scores, relevance) if relevance else None
        return {
            "title": column.title,
            "how": column.how,
            "trained": column.trained,
            "measures": measures and measures._asdict(),
            "results": [
                {**item, "rank": k, "score": round(float(column.scores[row]), 6), "mark": mark(row)}
                for k, (row, item) in enumerate(zip(rows, items, strict=True), 1)
            ],
        }

    def _checkpoints(self) -> dict[str, Path]:
        """Return the other checkpoints for this collection, by display name."""
        own = Path(self._engine.checkpoint.path).resolve()
        checkpoints: dict[str, Path] = {}
        if self._engine.collection.codes or self._handlers.public:
            return checkpoints  # public servers open no other checkpoints
        for path, *_ in list_fitting(self._engine.collection):
            if path.resolve() != own:
                taken = path.name in checkpoints or path.name == self._handlers.checkpoint_name
                checkpoints.setdefault(f"{path.name} (bundled)" if taken else path.name, path)
        return checkpoints

    def _open(self, name: str) -> SearchEngine:
        """Open another checkpoint, or reuse an open one; the least recently used is closed."""
        checkpoints = self._checkpoints()
        path = checkpoints[check_choice("checkpoint", name, tuple(checkpoints))]
        with self._opening:
            if path not in self._opened:
                self._opened[path] = self._engine.with_checkpoint(Checkpoint.load(path))
            self._opened.move_to_end(path)
            while len(self._opened) > MAX_OPEN_ENGINES:
                self._opened.popitem(last=False)
            return self._opened[path]
