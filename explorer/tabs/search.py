"""The desk between the screen and the engine: what the Search tab asks, answered as JSON.

All state is the browser's; a request carries the whole question, so any order of requests and any
number of pages get right answers. Encoded questions are kept for a while: a toggle then costs only
the search.

The Search tab: a question, its dimensions to switch, and what is found.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from sieve.explorer.components import piece
from sieve.explorer.downloads import codes_command, download, results_bytes, told_strictness
from sieve.explorer.errors import json_errors
from sieve.explorer.examples import examples
from sieve.explorer.security.middleware import PLOTLY, THUMBNAILS
from sieve.explorer.serialize import glance, item_view, query_dimension_rows, results_view
from sieve.explorer.uploads import Uploads
from sieve.explorer.view_state import ViewState, read_link, write_link
from sieve.model.checkpoint import CheckpointChoice, explain_choice

if TYPE_CHECKING:
    from sieve.model.engine import EncodedQuery, Engine, SearchOutcome


def search_tab(desk: SearchHandlers) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""
    uploads = () if desk.public else (desk.upload,)
    piece("search_bar", *map(json_errors, (desk.open, desk.ask, desk.item, *uploads)))
    piece("saved_searches")
    with gr.Row(elem_classes="sv-split"):
        piece("dimension_list")
        piece("results", json_errors(desk.export_results))


log = logging.getLogger(__name__)

N_RESULTS = 24
KEPT_QUESTIONS = 256
_NO_UPLOADS = {"image_queries": False, "no_image": "this explorer takes no images of yours"}


class SearchHandlers:
    """Answers the page's questions about one engine. Safe to share between threads.

    Parameters
    ----------
    engine : Engine
    upload_folder : Path
        Where the web server puts uploaded files; nothing else is ever read.
    public : bool
        Strangers ask: no image of theirs is taken in, and no path of this machine is told.
    """

    def __init__(self, engine: Engine, upload_folder: Path, *, public: bool = False) -> None:
        self.engine = engine
        self.public = public
        self._uploads = Uploads(upload_folder)
        # One question at a time uses the model: two would only share its cores.
        self.model = Lock()
        self._encoded = lru_cache(maxsize=KEPT_QUESTIONS)(self._encode)
        shape = (engine.collection.items["width"] / engine.collection.items["height"]).median()
        # Tiles take the collection's usual shape, so that most pictures are seen whole.
        self._aspect = round(float(np.clip(np.nan_to_num(shape, nan=1.0), 3 / 4, 4 / 3)), 3)
        self._export_codes = "" if public else codes_command(engine.collection)
        self._choice = (
            CheckpointChoice()
            if public
            else explain_choice(engine.collection, Path(engine.checkpoint.path))
        )
        self._examples = [example._asdict() for example in examples(engine)]

    @property
    def checkpoint_name(self) -> str:
        """The checkpoint's folder name."""
        return Path(self.engine.checkpoint.path).name

    def about(self) -> dict[str, Any]:
        """Tell what the header says, and where thumbnails are."""
        collection = self.engine.collection
        return {
            "collection": collection.name,
            "items": collection.n_items,
            "captions": collection.n_captions,
            "backbone": "" if collection.codes else Path(collection.backbone.name).name,
            "checkpoint": self.checkpoint_name,
            "checkpoint_choice": {"reason": self._choice.reason, "other": self._choice.other},
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
        """Load the model before anyone asks; whoever asks meanwhile waits for it, as they must."""
        if self.engine.collection.codes:
            return  # there is none
        try:
            with self.model:
                self.engine.warm_up()
        except Exception:
            log.exception("the model could not be loaded")

    def open(self, link: str) -> dict[str, Any]:
        """Answer a link: the place it leads to, and what stands there.

        Parameters
        ----------
        link : str
            The query string of the page's address.
        """
        if not isinstance(link, str):
            raise ValueError("a link must be text")
        collection = self.engine.collection
        m = self.engine.image_codes.m
        place, notes = read_link(link, collection.name, self.checkpoint_name, m)
        answer: dict[str, Any] = {"about": self.about(), "place": vars(place), "notes": list(notes)}
        if place.q.strip() or place.item:
            try:
                answer["answer"] = self._answer(place, "", True)
            except ValueError as error:
                return {**answer, "glance": self._glance(), "error": str(error)}
        else:
            answer["glance"] = self._glance()
        return answer

    def ask(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Answer a question, or the same one with other switches.

        Parameters
        ----------
        payload : dict
            The fields of `ViewState`; `upload`, the key of an uploaded image that replaces `q`;
            `list`, whether to return the list of dimensions too.

        Raises
        ------
        ValueError
            In one line.
        """
        place = ViewState.from_payload(payload)
        return self._answer(place, upload_key(payload), payload.get("list") is True)

    def export_results(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Hand over the results that are shown, as a file of the `kind` that is wanted."""
        place = ViewState.from_payload(payload)
        query, outcome = self.found(place, upload_key(payload))
        strictness = told_strictness(place.strictness, place.never)
        kind = str(payload.get("kind"))
        data = results_bytes(self.engine, query, outcome, strictness, kind)
        return download("results", kind, data)

    def found(self, place: ViewState, upload: str = "") -> tuple[EncodedQuery, SearchOutcome]:
        """Encode a question and search."""
        query = self.encode(place.q, place.without, place.item, upload)
        outcome = self.engine.search(
            query, place.off, place.strictness, never=place.never, top=N_RESULTS
        )
        return query, outcome

    def encode(self, q: str, without: str = "", item: str = "", upload: str = "") -> EncodedQuery:
        """Make a query, or take a kept one; `upload` is the key of an uploaded image."""
        # A name may have been given since it was encoded.
        return self.engine.named(self._encoded(q, without, item, upload))

    def upload(self, path: str) -> dict[str, Any]:
        """Take in a file that the upload route has received."""
        if not isinstance(path, str):
            raise ValueError("expected the path of an uploaded file")
        return self._uploads.add(path)._asdict()

    def item(self, item_id: str) -> dict[str, Any]:
        """Tell everything about one item."""
        if not isinstance(item_id, str):
            raise ValueError("expected an item's id")
        return item_view(self.engine, item_id)

    def _answer(self, place: ViewState, upload: str, with_list: bool) -> dict[str, Any]:
        query, outcome = self.found(place, upload)
        compare = place.compare and self.engine.can.dense_search
        dense = self.engine.search_dense(query, N_RESULTS) if compare else None
        names = (self.engine.collection.name, self.checkpoint_name)
        answer = {
            **results_view(outcome, dense),
            "q": query.text,
            "like": self._caption(place.item),
            "without": query.without,
            "notes": list(query.notes),
            "suggestion": query.suggested,
            "link": "" if upload else write_link(self._settled(place, query, outcome), *names),
        }
        if with_list:
            answer["dimensions"] = query_dimension_rows(self.engine, query, place.off)
            answer["proposed"] = list(query.proposed)
        return answer

    @staticmethod
    def _settled(place: ViewState, query: EncodedQuery, outcome: Any) -> ViewState:
        """Tell the place as it is now: "A without B" in one box has become A and B."""
        off = tuple(sorted(part.dimension for part in outcome.off))
        return ViewState(
            q="" if query.item else query.text,
            without=query.without,
            item=query.item,
            off=off if off or query.proposed else None,
            strictness=place.strictness,
            never=place.never,
            compare=place.compare,
        )

    def _encode(self, q: str, without: str = "", item: str = "", upload: str = "") -> EncodedQuery:
        return self.encode_by(self.engine, q, without, item, upload)

    def encode_by(
        self, engine: Engine, q: str, without: str = "", item: str = "", upload: str = ""
    ) -> EncodedQuery:
        """Make a query by another checkpoint of the same collection; nothing is kept."""
        image = self._uploads.get(upload) if upload else None
        with self.model:
            return engine.encode(q, without, item=item, image=image)

    def _caption(self, item_id: str) -> str:
        if not item_id:
            return ""
        captions = self.engine.collection.items["captions"].iloc[self.engine.row_of(item_id)]
        return str(captions[0]) if len(captions) else ""

    def _glance(self) -> list[dict[str, Any]]:
        """Show the collection before anything is asked: items at equal steps."""
        n = self.engine.collection.n_items
        return glance(self.engine, np.linspace(0, n - 1, min(N_RESULTS, n)).astype(int).tolist())


def upload_key(payload: dict[str, Any]) -> str:
    """Read the key of an uploaded image; empty where there is none."""
    upload = payload.get("upload") or ""
    if not isinstance(upload, str):
        raise ValueError("upload must be the key of an uploaded image")
    return upload
