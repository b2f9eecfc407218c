"""The Search tab: a query, its dimensions to switch off, and the results.

The server is stateless: each request carries the full view state, so the order of requests and the
number of open pages do not matter. Encoded queries are cached, so toggling a dimension costs only
the search.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from pydantic.dataclasses import dataclass

from sieve.explorer.components import component
from sieve.explorer.downloads import codes_command, download, results_bytes
from sieve.explorer.errors import sentence
from sieve.explorer.json_validation import Line, check_text, validate
from sieve.explorer.security.middleware import PLOTLY, THUMBNAILS
from sieve.explorer.serialize import (
    active_facets,
    backbone_name,
    facets_report,
    item_summaries,
    notes_view,
    query_rows,
    results_view,
    terms_json,
)
from sieve.explorer.uploads import Uploads
from sieve.explorer.view_state import Dimension, ViewState, Where, read_link, write_link
from sieve.model.checkpoint_choice import CheckpointChoice, explain_choice
from sieve.model.engine import EncodedQuery, SearchEngine, SearchOutcome
from sieve.model.hub import artifact_name
from sieve.model.query_parser import print_terms
from sieve.model.words.text import content_words, word_presence

log = logging.getLogger(__name__)

N_RESULTS = 24
MAX_CACHED_QUERIES = 256
_NO_UPLOADS = {"image_queries": False, "no_image": "image uploads are disabled on this server"}


@dataclass(frozen=True)
class SearchRequest(ViewState):
    """A view to search for."""

    upload: Line = ""
    """Key of an uploaded image that replaces `q`."""
    list: bool = False
    """Whether to include the dimensions of the query."""
    kind: str = ""
    """Format of an exported file."""


@dataclass(frozen=True)
class FacetsRequest:
    """A request for the facets of the images that pass a filter."""

    where: Where = ""
    find: Line = ""
    """Text that the values contain."""
    concepts: tuple[Dimension, ...] = ()
    """Concepts to list, by default the most frequent ones."""


def search_tab(handlers: SearchHandlers) -> None:
    """Add the tab's components; call inside a `gr.Tab`."""
    uploads = () if handlers.public else (handlers.upload,)
    functions = (handlers.open, handlers.ask, handlers.item, *uploads)
    component("search_bar", *functions)
    component("item_filter", handlers.facets)
    component("saved_searches")
    with gr.Row(elem_classes="sv-split"):
        component("concept_switches")
        component("results", handlers.export_results)


class SearchHandlers:
    """Request handlers of the Search tab. Thread-safe; errors are ValueErrors of one line.

    The web server stores uploads in `upload_folder`; no other file is read. A `public` server
    refuses uploads and does not reveal local paths.
    """

    def __init__(self, engine: SearchEngine, upload_folder: Path, *, public: bool = False) -> None:
        self.engine = engine
        self.public = public
        self._uploads = Uploads(upload_folder)
        # Encode one query at a time: concurrent ones would only compete for the same cores.
        self.model = Lock()
        encode = partial(self.encode_by, engine)
        self._encoded = lru_cache(maxsize=MAX_CACHED_QUERIES)(encode)
        shape = (engine.collection.items["width"] / engine.collection.items["height"]).median()
        # Tiles have the median aspect ratio of the collection, so that most images are not cropped.
        self._aspect = round(float(np.clip(np.nan_to_num(shape, nan=1.0), 3 / 4, 4 / 3)), 3)
        self._export_codes = "" if public else codes_command(engine.collection)
        choice = CheckpointChoice()
        if not public:
            choice = explain_choice(engine.collection, Path(engine.checkpoint.path))
        self._choice = {"reason": choice.reason, "other": choice.other}
        self._examples = [example._asdict() for example in examples(engine)]

    @property
    def checkpoint_name(self) -> str:
        """Name of the checkpoint's folder or repository."""
        return artifact_name(Path(self.engine.checkpoint.path))

    def about(self) -> dict[str, Any]:
        """Return facts about the collection, checkpoint and server for all components."""
        collection = self.engine.collection
        return {
            "collection": collection.name,
            "items": collection.n_items,
            "captions": collection.n_captions,
            "backbone": backbone_name(collection),
            "checkpoint": self.checkpoint_name,
            "checkpoint_choice": self._choice,
            "dimensions": self.engine.image_codes.m,
            "thumbnails": THUMBNAILS,
            "plotly": PLOTLY,
            "aspect": self._aspect,
            "examples": self._examples,
            "can": asdict(self.engine.can) | (_NO_UPLOADS if self.public else {}),
            "public": self.public,
            "export_codes": self._export_codes,
        }

    def warm_up(self) -> None:
        """Load the backbone before the first query; earlier queries wait for it."""
        if self.engine.collection.codes:
            return  # external codes have no backbone
        try:
            with self.model:
                self.engine.warm_up()
        except Exception:
            log.exception("the backbone could not be loaded")

    def open(self, link: str) -> dict[str, Any]:
        """Return the view state of a link, which is the query string of a page, and its results."""
        link = check_text("a link", link, most=1 << 20)
        collection = self.engine.collection
        m = self.engine.image_codes.m
        state, notes = read_link(link, collection.name, self.checkpoint_name, m)
        try:
            self.engine.facets.mask(state.where)
        except ValueError as error:
            state, notes = replace(state, where=""), (*notes, f"Left out of the link: {error}.")
        answer: dict[str, Any] = {"about": self.about(), "place": vars(state), "notes": list(notes)}
        answer["facets"] = active_facets(state.where)
        if not (state.q.strip() or state.item):
            return {**answer, "samples": self._sample_items(state.where)}
        try:
            return {**answer, "answer": self._answer(SearchRequest(**vars(state), list=True))}
        except ValueError as error:
            return {**answer, "samples": self._sample_items(), "error": sentence(error)}

    def ask(self, payload: Any) -> dict[str, Any]:
        """Return the results of a `SearchRequest`."""
        return self._answer(validate(SearchRequest, payload, "a view"))

    def facets(self, payload: Any) -> dict[str, Any]:
        """Return the facets of a `FacetsRequest`, and some of the items that pass the filter."""
        request = validate(FacetsRequest, payload, "a filter")
        for concept in request.concepts:
            self.engine.check_dimension(concept)
        report = facets_report(self.engine, request.where, request.find, request.concepts)
        return {**report, "samples": self._sample_items(request.where)}

    def export_results(self, payload: Any) -> dict[str, Any]:
        """Return the current results as a file of the requested `kind`."""
        request = validate(SearchRequest, payload, "a view")
        query, outcome = self._search(request)
        strictness = request.level.as_json()
        data = results_bytes(self.engine, query, outcome, strictness, request.kind)
        return download("results", request.kind, data)

    def _search(self, state: SearchRequest) -> tuple[EncodedQuery, SearchOutcome]:
        query = self.encode(state.q, state.without, state.item, state.upload)
        return query, self._results(state, query, N_RESULTS)

    def _results(self, state: SearchRequest, query: EncodedQuery, top: int) -> SearchOutcome:
        return self.engine.search(query, state.off, state.level, top, where=state.where)

    def encode(self, q: str, without: str = "", item: str = "", upload: str = "") -> EncodedQuery:
        """Encode a query, or reuse a cached one; `upload` is the key of an uploaded image."""
        # Names may have changed since the query was cached.
        return self.engine.named(self._encoded(q, without, item, upload))

    def upload(self, path: str) -> dict[str, Any]:
        """Validate and register a file that the upload route has received."""
        return self._uploads.add(check_text("path", path))._asdict()

    def item(self, item_id: str) -> dict[str, Any]:
        """Return the details of one item."""
        return item_view(self.engine, check_text("item ID", item_id))

    def _answer(self, request: SearchRequest) -> dict[str, Any]:
        query, outcome = self._search(request)
        compare = request.compare and self.engine.can.dense_search
        dense = None
        if compare:
            dense = self.engine.search_dense(query, N_RESULTS, where=request.where)
        answer = {
            **results_view(outcome, dense),
            "q": query.text,
            "title": query.title,
            "terms": term_views(query),
            "shares": term_shares(query, outcome) if len(query.terms) > 1 else None,
            "item": query.item,
            "upload": _only_upload(query),
            "like": self._caption(query.item),
            "without": query.without,
            **notes_view(query),
            "suggestion": query.suggested,
            "link": "" if _has_upload(query) else self._link(request, query, outcome),
        }
        if request.list:
            answer |= query_rows(self.engine, query, request.off)
            answer["proposed"] = list(query.proposed)
            more = self._results(request, query, 2 * N_RESULTS)
            answer["next"] = [result.id for result in more.results[N_RESULTS:]]
        return answer

    def _link(self, request: SearchRequest, query: EncodedQuery, outcome: SearchOutcome) -> str:
        """Return the link of a view after parsing, which splits "A without B" into A and B."""
        off = tuple(sorted(part.dimension for part in outcome.off))
        state = ViewState(
            q=query.text,
            without=query.without,
            where=request.where,
            item=query.item,
            off=off if off or query.proposed else None,
            strictness=request.strictness,
            never=request.never,
            limit=request.limit,
            compare=request.compare,
        )
        return write_link(state, self.engine.collection.name, self.checkpoint_name)

    def encode_by(
        self, engine: SearchEngine, q: str, without: str = "", item: str = "", upload: str = ""
    ) -> EncodedQuery:
        """Encode a query with another checkpoint of the same collection, without caching it."""
        text = " + ".join(filter(None, [q.strip(), upload and f"image:{upload}"]))
        with self.model:
            return engine.encode(text, without, item, open_image=self._uploads.get)

    def _caption(self, item_id: str) -> str:
        if not item_id:
            return ""
        captions = self.engine.collection.items["captions"].iloc[self.engine.row_of(item_id)]
        return str(captions[0]) if len(captions) else ""

    def _sample_items(self, where: str = "") -> list[dict[str, Any]]:
        """Return evenly spaced items that pass a filter, shown before the first query."""
        mask = self.engine.facets.mask(where)
        rows = np.arange(self.engine.collection.n_items) if mask is None else np.flatnonzero(mask)
        chosen = np.linspace(0, len(rows) - 1, min(N_RESULTS, len(rows))).astype(int)
        return item_summaries(self.engine, rows[chosen].tolist())


def _has_upload(query: EncodedQuery) -> bool:
    return any(one.term.kind == "image" for one in query.terms)


def _only_upload(query: EncodedQuery) -> str:
    """Return the key of an uploaded image if nothing else is searched for; otherwise empty."""
    found = [one.term for one in query.terms if not one.excluded]
    return found[0].value if not (query.text or query.item) else ""


def term_views(query: EncodedQuery) -> list[dict[str, Any]]:
    """Serialise the terms of a query for the page, which joins `text` to new queries.

    `text` is unambiguous and without the weight; `edit` is the term as a user types it.
    """
    return [
        {
            "text": replace(one.term, weight=1.0).print(quoted=True),
            "edit": print_terms((one.term,)),
            "label": one.label,
            "value": one.term.value,
            **{name: value for name, value in term.items() if name != "term"},
        }
        for one, term in zip(query.terms, terms_json(query), strict=True)
    ]


def term_shares(query: EncodedQuery, outcome: SearchOutcome) -> dict[str, list[float]]:
    """Return the share of each term in the contributions of each dimension of the results."""
    shown = (
        part.dimension for one in (*outcome.results, *outcome.left) for part in one.contributions
    )
    dimensions = sorted(set(shown))
    shares = query.shares(dimensions, [part.dimension for part in outcome.off])
    return {str(j): [round(float(x), 4) for x in shares[:, at]] for at, j in enumerate(dimensions)}


def item_view(engine: SearchEngine, item_id: str) -> dict[str, Any]:
    """Serialise one item with the code of its image, strongest dimension first."""
    row = engine.row_of(item_id)
    dimensions, values = engine.image_codes.row(row)
    order = np.argsort(-values, kind="stable")
    names = engine.names()
    return {
        **item_summaries(engine, [row])[0],
        "copies": item_summaries(engine, engine.copies.of(row)),
        "code": [
            {
                "dimension": int(j),
                "name": names(int(j)),
                "value": round(float(value), 6),
                "concept": names.concept(int(j))[0],
                "concept_name": names.concept(int(j))[1],
            }
            for j, value in zip(dimensions[order], values[order], strict=True)
        ],
    }


N_EXAMPLES = 5
_SAMPLE = 3000
_WORD = re.compile(r"[a-z][a-z'-]*")
_ARTICLES = {"a", "an", "the", "some", "his", "her", "their", "its"}
_PREPOSITIONS = {"in", "on", "at", "near", "through", "with", "into", "over", "beside", "by", "of"}
_WRITTEN = {
    "scenes": (
        ("a horse", "a field"),
        ("a girl", "a beach"),
        ("food", "a kitchen"),
        ("a dog", "a ball"),
        ("a car", "a street"),
    )
}


class ExampleQuery(NamedTuple):
    """An example query: A, and optionally B to exclude."""

    q: str
    without: str


def examples(engine: SearchEngine) -> tuple[ExampleQuery, ...]:
    """Return example queries for a collection; none without captions or a text encoder."""
    written = _WRITTEN.get(engine.collection.name)
    if written:
        return tuple(ExampleQuery(*pair) for pair in written)
    found = examples_from_captions(engine.collection.items["captions"].iloc[:_SAMPLE].tolist())
    if not engine.collection.codes:
        return found
    return tuple(pair for pair in found if all(map(engine.understands, pair)))


def examples_from_captions(captions: list[list[str]]) -> tuple[ExampleQuery, ...]:
    """Return pairs (A, B) where A is a frequent subject and B co-occurs with it above chance.

    `captions` are those of each item.
    """
    found = word_presence(captions, min_items=max(3, len(captions) // 200))
    if not found.words:
        return ()
    subjects, settings = _roles(captions)
    # `found` counts plurals with their singulars; roles count each form on its own.
    is_subject, is_setting = (
        np.array([role[word] for word in found.words]) >= found.counts / 5
        for role in (subjects, settings)
    )
    chosen: list[ExampleQuery] = []
    used: set[int] = set()
    frequent = [int(a) for a in np.argsort(-found.counts, kind="stable") if is_subject[a]]
    for a in frequent[:40]:
        together = np.asarray(found.presence.T @ found.presence[:, [a]].toarray()).ravel()
        share = together / found.counts[a]
        lift = share * len(captions) / found.counts
        score = np.where(is_setting & (share > 0.1) & (share < 0.7) & (lift > 1.2), lift * share, 0)
        score[[a, *used]] = 0
        b = int(score.argmax())
        if a in used or score[b] <= 0:
            continue
        used |= {a, b}
        chosen.append(ExampleQuery(found.words[a], found.words[b]))
    rest = [ExampleQuery(found.words[a], "") for a in frequent if a not in used]
    return tuple([*chosen, *rest][:N_EXAMPLES])


def _roles(captions: list[list[str]]) -> tuple[Counter[str], Counter[str]]:
    """Count words as the subject of a caption, and as the object of a preposition.

    In "A black dog on green grass" these are the last word of the first run of content words and
    that of the run after "on". This separates nouns from colours and verbs without a parser.
    """
    subjects: Counter[str] = Counter()
    settings: Counter[str] = Counter()
    for text in (text for texts in captions for text in texts):
        heads = _heads([*_WORD.findall(text.lower()), ""])
        subjects.update(head for _, head in heads[:1] if not head.endswith("ing"))
        settings.update({head for before, head in heads[1:] if before in _PREPOSITIONS})
    return subjects, settings


def _heads(words: list[str]) -> list[tuple[str, str]]:
    """Return the last word of each run of content words, after the word before its article."""
    heads: list[tuple[str, str]] = []
    before, run = "", []
    for word in words:
        if content_words(word):
            run.append(word)
            continue
        if run and word not in ("and", "or"):  # "a black and white dog" is not about black
            cut = 1 if len(run) > 1 and run[1].endswith("ing") else len(run)
            heads.append((before, run[cut - 1]))
        if run or word not in _ARTICLES:
            before = word
        run = []
    return heads
