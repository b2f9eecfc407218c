"""Text encoders of a collection: its backbone, one attached by name, or its captions.

A collection may name a backbone that is not at hand. Texts are then read by another one of the same
space (`--text-encoder`), or from the embeddings of the collection's captions.
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
ATTACH = "attach one that reads texts with --text-encoder NAME"


class FunctionEncoder:
    """Embed texts by a Python function that a person has allowed to run.

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
        """Embed texts: (t, d) float32, unit rows; ValueError if the function returns another."""
        if not len(texts):
            return np.empty((0, self._width), np.float32)
        try:
            made = np.asarray(self._function(list(texts)), np.float32)
        except Exception as error:  # anything may happen in other people's code
            raise ValueError(
                f"{self._entry} could not embed the texts ({fault_of(error)})"
            ) from None
        if made.shape != (len(texts), self._width):
            raise ValueError(
                f"{self._entry} returned shape {made.shape} for {len(texts)} texts; expected "
                f"{(len(texts), self._width)}, the width of the collection's embeddings"
            )
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        if not np.isfinite(made).all() or not lengths.all():
            raise ValueError(f"{self._entry} returned an embedding that is zero or not finite")
        return made / lengths

    def unknown_words(self, text: str) -> list[str]:  # noqa: ARG002
        """No word list comes with a function."""
        return []


def open_text_encoder(
    collection: Collection, device: str = "auto", name: str = "", allow_code: bool = False
) -> Backbone | FunctionEncoder:
    """Open what embeds texts into a collection's space.

    Parameters
    ----------
    collection : Collection
        One that holds embeddings.
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
        If what is named cannot be opened, or embeds into another space.
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
            f"embeds in {backbone.width} dimensions, those of the collection have {made_by.width}"
            if backbone.width != made_by.width
            else f"has weights {backbone.sha256[:12]}, the collection's {made_by.sha256[:12]}"
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
    """Open a text encoder, or read texts by captions if the collection's backbone is unavailable.

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
        Why texts are read by captions; empty if they are not.

    Raises
    ------
    BackboneUnavailable
        If there are no captions either.
    """
    if name:  # captions do not stand in for what a person has named
        return open_text_encoder(collection, device, name, allow_code), ""
    try:
        return open_text_encoder(collection, device), ""
    except BackboneUnavailable as error:
        rows_of = np.arange(collection.n_items) if rows is None else rows
        if not len(collection.captions_of_rows(rows_of)):
            raise
        return CaptionEncoder.of_collection(collection, rows), reason_of(error)


def backbone_fault(collection: Collection) -> str:
    """Return why a backbone cannot be loaded, as far as that is known without loading it."""
    try:
        check_consent(collection.backbone.name)
    except (ValueError, OSError) as error:
        return reason_of(error)
    return ""


def reason_of(error: Exception) -> str:
    """Return why a collection's backbone is unavailable, without the names one could have typed."""
    return " ".join(str(error).split()).partition("; expected one like ")[0]


def is_entry(name: str) -> bool:
    """Whether a text encoder's name is that of a Python function."""
    return _ENTRY.fullmatch(name) is not None and not name.startswith(_NOT_ENTRY)


def check_entry(entry: str) -> None:
    """Raise a ValueError if a name is not `package.module:function`."""
    if not _ENTRY.fullmatch(entry):
        raise ValueError(f"expected package.module:function; got {entry[:80]!r}")


def load_entry(entry: str) -> Callable[[list[str]], Any]:
    """Import `package.module:function`: runs its code, so only where a person has allowed it.

    Raises
    ------
    ValueError
        In one line.
    """
    check_entry(entry)
    module, _, name = entry.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # anything may happen in other people's code
        raise ValueError(
            f"{entry} cannot be loaded ({fault_of(error)}); is it installed, or on PYTHONPATH?"
        ) from None
    if not callable(function):
        raise ValueError(f"{entry} is no function but {type(function).__name__}")
    return function


def fault_of(error: Exception) -> str:
    """Describe an exception of other people's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
