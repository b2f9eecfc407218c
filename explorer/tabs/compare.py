"""What the Compare tab asks, answered as JSON: one question by two methods, and how well each does.

Other checkpoints are opened when they are first chosen; two of them are kept.

What counts as right in the Compare tab: what was chosen, else what the question names.

The Compare tab: the same question by two methods, side by side.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sieve.explorer.components import piece
from sieve.explorer.errors import json_errors
from sieve.explorer.json_validation import read_number, read_text, short_repr
from sieve.explorer.serialize import glance
from sieve.explorer.tabs.inspect import decimal
from sieve.explorer.tabs.search import upload_key
from sieve.explorer.view_state import ViewState
from sieve.model.checkpoint import Checkpoint, fitting_checkpoints
from sieve.model.compare import (
    DENSE_METHODS,
    dense_scores,
    embed_question,
    shown_rows,
    sparse_scores,
    trained_share,
)
from sieve.model.encoder import IMAGE
from sieve.model.evaluation import TRACKS, TrackName
from sieve.model.relevance import Relevance, find_concept, known_concepts, measure, relevance_of
from sieve.model.words.nouns import benchmark_nouns

if TYPE_CHECKING:
    from sieve.explorer.tabs.search import SearchHandlers
    from sieve.model.collection import Collection
    from sieve.model.engine import EncodedQuery, Engine
    from sieve.model.evaluation.pairs import Concepts


class RelevanceChoice:
    """Tells what is right by the labels or the captions of a collection.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._concepts = lru_cache(maxsize=2)(self._known_concepts)

    def tracks(self) -> tuple[TrackName, ...]:
        """Tell by what it can be known: labels, captions, or nothing."""
        collection = self._collection
        has = {"label": collection.has_labels, "caption": collection.n_captions > 0}
        return tuple(track for track in TRACKS if has[track])

    def truth(
        self, track: str, a: str, b: str, query: EncodedQuery
    ) -> tuple[Relevance | None, dict[str, Any]]:
        """Mark what is right.

        Parameters
        ----------
        track, a, b : str
            What a person chose; each empty where the words of the question are to say it. An image
            has none.
        query : EncodedQuery

        Returns
        -------
        Truth or None
            None where nothing tells it.
        dict
            What was chosen, for the page: `track`, `a`, `b`, the `names` that there are, counts.

        Raises
        ------
        ValueError
            If there is no such label or noun.
        """
        tracks = self.tracks()
        if not tracks:
            return None, {"track": "", "a": "", "b": "", "names": []}
        chosen: tuple[TrackName, ...] = tuple(one for one in tracks if one == track)
        named, *words = self._named(query.text, query.without, chosen or tracks)
        first, second = (a or words[0], b or words[1]) if chosen else words
        told: dict[str, Any] = {"track": named, "a": first, "b": second}
        told["names"] = list(self._names(named))
        if not first or (query.without and not second):
            return None, told
        truth = relevance_of(self._concepts(named), named, first, second)
        if query.item:
            truth = truth.besides(self._collection.row_of_id[query.item])
        counts = {"relevant": int(truth.relevant.sum()), "violating": int(truth.violating.sum())}
        return truth, told | counts

    def _named(
        self, text: str, without: str, tracks: tuple[TrackName, ...]
    ) -> tuple[TrackName, str, str]:
        """Find the labels or nouns that the words name, in the first track that has all."""
        partial: list[tuple[TrackName, str, str]] = []
        for track in tracks:
            names = self._names(track)
            a, b = find_concept(text, names), find_concept(without, names)
            if a and (b or not without):
                return track, a, b
            partial.append((track, a, b))
        return partial[0]

    def _names(self, track: TrackName) -> tuple[str, ...]:
        """Labels or nouns that can count, without reading all captions for them."""
        return self._concepts(track).names if track == "label" else benchmark_nouns().lemmas

    def _known_concepts(self, track: TrackName) -> Concepts:
        return known_concepts(self._collection, track)


N_SHOWN = 20
KEPT_ENGINES = 2
USUAL = "subtraction"
"""What is compared with where nobody says."""
_CHECKPOINT = "checkpoint "
_SAID = {
    "literal": "the backbone reads “A without B” as plain text",
    "A only": "the backbone searches A; nothing is excluded",
    "subtraction": "the backbone's vectors, centred: A − {value} B",
    "orthogonal": "the backbone's vectors, centred: A without its part along B",
    "filter": "the backbone's vectors, centred: A, without the {rest} most like B",
    "SpaceVLM": "the backbone's vectors, centred: SpaceVLM's direction, t = {value}",
}


class ComparedQuery(NamedTuple):
    """What is compared."""

    place: ViewState
    upload: str
    """Key of an uploaded image that takes the place of its `q`."""
    method: str
    """A dense method, or `checkpoint NAME`."""
    knob: float | None
    track: str
    a: str
    b: str

    @classmethod
    def from_payload(cls, payload: Any) -> ComparedQuery:
        """Read what the browser sends; ValueError where it cannot be."""
        place = ViewState.from_payload(payload)
        upload = upload_key(payload)
        if not (place.q.strip() or place.item or upload):
            raise ValueError("nothing to compare: say what to find")
        knob = payload.get("knob")
        texts = (read_text(name, payload.get(name, "")) for name in ("track", "a", "b"))
        return cls(
            place,
            upload,
            read_text("method", payload.get("method", USUAL)),
            None if knob is None else read_number("knob", knob),
            *texts,
        )


class Column(NamedTuple):
    """One method's answer."""

    title: str
    how: str
    scores: np.ndarray
    """(n,) float32"""
    trained: float = 0.0
    """Share of the items that its checkpoint was trained on."""


class CompareHandlers:
    """Answers the Compare tab. Safe to share between threads.

    Parameters
    ----------
    desk : SearchHandlers
    """

    def __init__(self, desk: SearchHandlers) -> None:
        self._desk = desk
        self._engine = desk.engine
        self._opened: OrderedDict[str, Engine] = OrderedDict()
        self._opening = Lock()
        self._judge = RelevanceChoice(self._engine.collection)
        self._trained = lru_cache(maxsize=8)(trained_share)

    def compare_options(self, _: Any) -> dict[str, Any]:
        """Tell what there is to compare with, and what can count as right."""
        dense = DENSE_METHODS.values() if self._engine.can.dense_search else ()
        return {
            "methods": [
                {
                    "name": method.name,
                    "knob": method.knob,
                    "value": method.value,
                    "low": method.range.low if method.range else 0,
                    "high": method.range.high if method.range else 0,
                }
                for method in dense
            ],
            "checkpoints": list(self._checkpoints()),
            "tracks": list(self._judge.tracks()),
        }

    def compare(self, payload: Any) -> dict[str, Any]:
        """Answer one question by two methods.

        Parameters
        ----------
        payload : dict
            The fields of `ViewState`; `upload`, the key of an image in place of `q`; `method` and
            its `knob`; `track`, `a` and `b`: what counts as relevant, by default what the query
            names.

        Raises
        ------
        ValueError
            In one line.
        """
        asked = ComparedQuery.from_payload(payload)
        place = asked.place
        text = "" if place.item or asked.upload else place.q
        query = self._desk.encode(text, place.without, place.item, asked.upload)
        off = query.proposed if place.off is None else place.off
        own = Column(
            f"Sparse · {self._desk.checkpoint_name}",
            self._switched(off, place),
            sparse_scores(self._engine, query, off, place.strictness, place.never),
            self._trained(self._engine.checkpoint, self._engine.collection),
        )
        other = self._other(asked, query)
        truth, choice = self._judge.truth(asked.track, asked.a, asked.b, query)
        if query.item:  # as in a search, it is no result of itself
            for column in (own, other):
                column.scores[self._engine.row_of(query.item)] = -np.inf
        hits = [shown_rows(column.scores, N_SHOWN) for column in (own, other)]
        return {
            "q": query.text,
            "like": glance(self._engine, [self._engine.row_of(query.item)]) if query.item else [],
            "without": query.without,
            "off": list(off),
            "proposed": list(query.proposed),
            "notes": list(query.notes),
            "columns": [
                self._column(column, rows, truth)
                for column, rows in zip((own, other), hits, strict=True)
            ],
            "both": len(set(hits[0]) & set(hits[1])),
            "truth": choice,
        }

    def _other(self, asked: ComparedQuery, query: EncodedQuery) -> Column:
        if asked.method.startswith(_CHECKPOINT):
            name = asked.method.removeprefix(_CHECKPOINT)
            engine = self._open(name)
            place = asked.place
            again = self._desk.encode_by(
                engine, query.text, query.without, query.item, asked.upload
            )
            total = sparse_scores(engine, again, None, place.strictness, place.never)
            trained = self._trained(engine.checkpoint, engine.collection)
            return Column(f"Sparse · {name}", self._switched(again.proposed, place), total, trained)
        method = DENSE_METHODS.get(asked.method)
        if method is None:
            known = ", ".join([*DENSE_METHODS, *(_CHECKPOINT + n for n in self._checkpoints())])
            raise ValueError(f"there is no method {short_repr(asked.method)}; there are: {known}")
        with self._desk.model:
            embedded = embed_question(self._engine, query)
        total = dense_scores(self._engine, embedded, method, asked.knob)
        value = method.value if asked.knob is None else asked.knob
        words = method.name == "literal" and embedded.modality == IMAGE
        name = "A only" if words else method.name  # an image has no words to say “without” in
        said = _SAID[name].format(value=decimal(value), rest=f"{1 - value:.0%}")
        return Column(f"Dense · {method.name}", said, total)

    @staticmethod
    def _switched(off: tuple[int, ...], place: ViewState) -> str:
        if not off:
            return "no dimension is off"
        count = f"{len(off)} dimension{'s' if len(off) > 1 else ''} off"
        if place.never:
            return f"{count}, never shown"
        return f"{count}, " + ("ignored" if place.strictness == 0 else "pushed away")

    def _column(self, column: Column, rows: list[int], truth: Relevance | None) -> dict[str, Any]:
        measures = measure(column.scores, truth) if truth else None
        return {
            "title": column.title,
            "how": column.how,
            "trained": column.trained,
            "measures": measures and measures._asdict(),
            "results": [
                {
                    **item,
                    "rank": rank,
                    "score": round(float(column.scores[row]), 6),
                    "mark": self._mark(row, truth),
                }
                for rank, (row, item) in enumerate(
                    zip(rows, glance(self._engine, rows), strict=True), 1
                )
            ],
        }

    @staticmethod
    def _mark(row: int, truth: Relevance | None) -> str:
        if truth is None:
            return ""
        return "right" if truth.relevant[row] else "both" if truth.violating[row] else "other"

    def _checkpoints(self) -> dict[str, Path]:
        """Other checkpoints that read this collection, by a name for each."""
        own = Path(self._engine.checkpoint.path).resolve()
        found: dict[str, Path] = {}
        if self._engine.collection.codes or self._desk.public:
            return found  # a stranger opens nothing
        for path in fitting_checkpoints(self._engine.collection):
            if path.resolve() != own:
                taken = path.name in found or path.name == self._desk.checkpoint_name
                found.setdefault(f"{path.name} (bundled)" if taken else path.name, path)
        return found

    def _open(self, name: str) -> Engine:
        """Open another checkpoint, or find it open; the one that was used longest ago is closed."""
        path = self._checkpoints().get(name)
        if path is None:
            raise ValueError(f"no checkpoint {short_repr(name)} fits this collection")
        with self._opening:
            key = str(path)
            if key not in self._opened:
                self._opened[key] = self._engine.with_checkpoint(Checkpoint.load(path))
            self._opened.move_to_end(key)
            while len(self._opened) > KEPT_ENGINES:
                self._opened.popitem(last=False)
            return self._opened[key]


def compare_tab(desk: SearchHandlers) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""
    asks = CompareHandlers(desk)
    piece("compare", *map(json_errors, (asks.compare_options, asks.compare)))
