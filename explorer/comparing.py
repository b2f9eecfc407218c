"""What the Compare tab asks, answered as JSON: one question by two methods, and how well each does.

Other checkpoints are opened when they are first chosen; two of them are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sieve.explorer.desk import upload_key
from sieve.explorer.json_fields import read_number, read_text, shown
from sieve.explorer.judging import Judge
from sieve.explorer.links import Place
from sieve.explorer.reasons import decimal
from sieve.explorer.views import glance
from sieve.model.checkpoint import Checkpoint, fitting_checkpoints
from sieve.model.comparing import (
    DENSE_METHODS,
    dense_scores,
    embed_question,
    shown_rows,
    sparse_scores,
    trained_share,
)
from sieve.model.encoder import IMAGE
from sieve.model.judging import Truth, measure

if TYPE_CHECKING:
    from sieve.explorer.desk import Desk
    from sieve.model.engine import EncodedQuery, Engine

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


class Question(NamedTuple):
    """What is compared."""

    place: Place
    upload: str
    """Key of an uploaded image that takes the place of its `q`."""
    method: str
    """A dense method, or `checkpoint NAME`."""
    knob: float | None
    track: str
    a: str
    b: str

    @classmethod
    def from_payload(cls, payload: Any) -> Question:
        """Read what the browser sends; ValueError where it cannot be."""
        place = Place.from_payload(payload)
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


class CompareDesk:
    """Answers the Compare tab. Safe to share between threads.

    Parameters
    ----------
    desk : Desk
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._engine = desk.engine
        self._opened: OrderedDict[str, Engine] = OrderedDict()
        self._opening = Lock()
        self._judge = Judge(self._engine.collection)
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
            The fields of `Place`; `upload`, the key of an image in place of `q`; `method` and its
            `knob`; `track`, `a` and `b`: what counts as right, or nothing where the words of the
            question are to say so.

        Raises
        ------
        ValueError
            In one line.
        """
        asked = Question.from_payload(payload)
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

    def _other(self, asked: Question, query: EncodedQuery) -> Column:
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
            raise ValueError(f"there is no method {shown(asked.method)}; there are: {known}")
        with self._desk.model:
            embedded = embed_question(self._engine, query)
        total = dense_scores(self._engine, embedded, method, asked.knob)
        value = method.value if asked.knob is None else asked.knob
        words = method.name == "literal" and embedded.modality == IMAGE
        name = "A only" if words else method.name  # an image has no words to say “without” in
        said = _SAID[name].format(value=decimal(value), rest=f"{1 - value:.0%}")
        return Column(f"Dense · {method.name}", said, total)

    @staticmethod
    def _switched(off: tuple[int, ...], place: Place) -> str:
        if not off:
            return "no dimension is off"
        count = f"{len(off)} dimension{'s' if len(off) > 1 else ''} off"
        if place.never:
            return f"{count}, never shown"
        return f"{count}, " + ("ignored" if place.strictness == 0 else "pushed away")

    def _column(self, column: Column, rows: list[int], truth: Truth | None) -> dict[str, Any]:
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
    def _mark(row: int, truth: Truth | None) -> str:
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
            raise ValueError(f"there is no checkpoint {shown(name)} that reads this collection")
        with self._opening:
            key = str(path)
            if key not in self._opened:
                self._opened[key] = self._engine.with_checkpoint(Checkpoint.load(path))
            self._opened.move_to_end(key)
            while len(self._opened) > KEPT_ENGINES:
                self._opened.popitem(last=False)
            return self._opened[key]
