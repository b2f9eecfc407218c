"""Text encoders of a collection: its backbone, one attached by name, or its captions.

If a collection's backbone is unavailable, texts are embedded by another encoder of the same space
(`--text-encoder`), or by the embeddings of the collection's captions.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sieve.model.backbone import Backbone, BackboneUnavailable, backbone_of
from sieve.model.backbone.trust import check_consent
from sieve.model.caption_encoder import CaptionEncoder
from sieve.model.collection import Collection
from sieve.model.dimensions.vocabulary import TextTower

log = logging.getLogger(__name__)

_ENTRY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_NOT_ENTRY = ("blip:",)
ATTACH = "attach a text encoder with --text-encoder NAME"


class FunctionEncoder:
    """Text encoder that calls a Python function, which the user has allowed to run.

    Parameters
    ----------
    entry : str
        `package.module:function`; the function takes t texts and returns (t, d) numbers.
    width : int
        d.
    """

    sha256 = ""

    def __init__(self, entry: str, width: int) -> None:
        self._entry, self._width = entry, width
        self._function = load_entry(entry)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (t, d) float32, unit rows; raise a ValueError if the output is invalid."""
        if not len(texts):
            return np.empty((0, self._width), np.float32)
        try:
            embeddings = np.asarray(self._function(list(texts)), np.float32)
        except Exception as error:  # the user's code may raise anything
            raise ValueError(
                f"{self._entry} could not embed the texts ({fault_of(error)})"
            ) from None
        expected = len(texts), self._width
        if embeddings.shape != expected:
            raise ValueError(
                f"{self._entry} returned shape {embeddings.shape} for {len(texts)} texts; expected "
                f"{expected}, the width of the collection's embeddings"
            )
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        if not np.isfinite(embeddings).all() or not norms.all():
            raise ValueError(f"{self._entry} returned an embedding that is zero or not finite")
        return embeddings / norms

    def unknown_words(self, text: str) -> list[str]:  # noqa: ARG002
        """Return an empty list, as a function has no word list."""
        return []


def open_text_encoder(
    collection: Collection, device: str = "auto", name: str = "", allow_code: bool = False
) -> Backbone | FunctionEncoder:
    """Open a text encoder for a collection's embeddings.

    Parameters
    ----------
    collection : Collection
        A collection of embeddings.
    device : str
    name : str
        A backbone, or `package.module:function`; by default the collection's own backbone.
    allow_code : bool
        Whether a function may be loaded.

    Raises
    ------
    BackboneUnavailable
        If no name is given and the collection's own cannot be loaded.
    ValueError
        If the named encoder cannot be opened, or embeds into another space.
    """
    if not name:
        return backbone_of(collection, device)
    if is_entry(name):
        if not allow_code:
            raise ValueError(
                f"--text-encoder {name} is a Python function; if you trust its code, add "
                "--allow-code"
            )
        return FunctionEncoder(name, collection.backbone.width)
    backbone = Backbone.load(name, device)
    made_by = collection.backbone
    if not made_by.may_be(backbone.sha256, backbone.width):
        difference = (
            f"has {backbone.width} dimensions, but the collection's embeddings have {made_by.width}"
            if backbone.width != made_by.width
            else f"has weights {backbone.sha256[:12]} instead of {made_by.sha256[:12]}"
        )
        raise ValueError(
            f"--text-encoder {name} does not fit collection {collection.name}, made with "
            f"{made_by}: it {difference}"
        )
    return backbone


def text_tower(
    collection: Collection,
    device: str = "auto",
    name: str = "",
    allow_code: bool = False,
    rows: np.ndarray | None = None,
) -> tuple[TextTower, str]:
    """Open a text encoder, or the captions' if the collection's backbone is unavailable.

    Parameters
    ----------
    collection, device, name, allow_code
        As for `open_text_encoder`.
    rows : (r,) int, optional
        Items whose captions are used; by default all.

    Returns
    -------
    TextTower
    str
        Why captions are used; empty if they are not.

    Raises
    ------
    BackboneUnavailable
        If the backbone is unavailable and there are no captions.
    """
    if name:  # captions must not replace an encoder that the user has named
        return open_text_encoder(collection, device, name, allow_code), ""
    try:
        return open_text_encoder(collection, device), ""
    except BackboneUnavailable as error:
        item_rows = np.arange(collection.n_items) if rows is None else rows
        if not len(collection.captions_of_rows(item_rows)):
            raise
        return CaptionEncoder.of_collection(collection, rows), unavailable_reason(error)


def backbone_fault(collection: Collection) -> str:
    """Return why a backbone cannot be loaded, as far as this is known without trying."""
    try:
        check_consent(collection.backbone.name)
    except (ValueError, OSError) as error:
        return unavailable_reason(error)
    return ""


def unavailable_reason(error: Exception) -> str:
    """Return why a collection's backbone is unavailable, without the hint on valid names."""
    return " ".join(str(error).split()).partition("; expected one like ")[0]


def is_entry(name: str) -> bool:
    """Return whether a text encoder's name is that of a Python function."""
    return _ENTRY.fullmatch(name) is not None and not name.startswith(_NOT_ENTRY)


def check_entry(entry: str) -> None:
    """Raise a ValueError if a name is not `package.module:function`."""
    if not _ENTRY.fullmatch(entry):
        raise ValueError(f"expected package.module:function; got {entry[:80]!r}")


def load_entry(entry: str) -> Callable[[list[str]], Any]:
    """Import `package.module:function`, which runs its code; only call it with the user's consent.

    Raises
    ------
    ValueError
        If the name has another form, or the function cannot be imported.
    """
    check_entry(entry)
    module, _, name = entry.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # the user's code may raise anything
        raise ValueError(
            f"{entry} cannot be loaded ({fault_of(error)}); check that it is installed or on "
            "PYTHONPATH"
        ) from None
    if not callable(function):
        raise ValueError(f"expected {entry} to be a function; got {type(function).__name__}")
    return function


def fault_of(error: Exception) -> str:
    """Format an exception of a user's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
