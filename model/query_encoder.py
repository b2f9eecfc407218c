"""How texts and images become codes to search with, and what can be asked at all.

A backbone with a sparse encoder reads both; where it is unavailable, texts are read from the
collection's captions. Codes that were made elsewhere come without a backbone: a table of word codes
reads words, and a Python function reads texts, if a person allows its code to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image
from scipy.sparse import csr_array, issparse

from sieve.model.backbone import Backbone, BackboneUnavailable
from sieve.model.caption_encoder import CaptionEncoder
from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes, code_files, csr_fault
from sieve.model.collection import Collection
from sieve.model.encoder import IMAGE, TEXT, encode_codes
from sieve.model.external_codes import WORD_CODES, WORDS, read_codes, read_words
from sieve.model.text_encoder import (
    ATTACH,
    FunctionEncoder,
    backbone_fault,
    fault_of,
    load_entry,
    reason_of,
)
from sieve.model.words.text import WordReading, drop_words
from sieve.model.words.word_codes import CodedWords

_FOLDERS = re.compile(r"""(?<![\w.-])(?:[A-Za-z]:)?[\\/](?:[^\\/'":;,]+[\\/])+""")
_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do beside searching by items."""

    text_queries: bool = True
    image_queries: bool = True
    dense_search: bool = True
    """Whether there are embeddings to search with alone, to compare."""
    no_text: str = ""
    """Why no text can be read, in a line."""
    no_image: str = ""
    """Why no image from outside can be read, in a line."""
    texts_by_captions: bool = False
    """Whether texts are read from the collection's captions, as its backbone is unavailable."""


class Encoded(NamedTuple):
    """A text or an image."""

    code: np.ndarray
    """(m,) float32"""
    embedding: np.ndarray
    """(d,) float32; (0,) where no backbone has read it"""


class QueryEncoder(Protocol):
    """Makes codes of what people ask."""

    @property
    def can(self) -> Capabilities:
        """What can be asked."""
        ...

    def encode_text(self, text: str) -> Encoded:
        """Read a text; ValueError where it cannot be read."""
        ...

    def encode_image(self, image: Image.Image) -> Encoded:
        """Read an image; ValueError where none can be read."""
        ...

    def unknown(self, text: str) -> list[str]:
        """Words of a text that are not known."""
        ...

    def read(self, text: str, singular: bool = False) -> WordReading:
        """Read a text as words that are known here, plurals as singulars if `singular`."""
        ...

    def words_read(self, text: str) -> int:
        """Count the words of a text that are read, from its beginning."""
        ...

    def note(self, word: str) -> str:
        """Say in a sentence that a word of what to find is unknown."""
        ...

    def about_reading(self, text: str) -> str:
        """Say how a text was read if that is not as a person would expect; else empty."""
        ...

    def nothing_known(self, text: str) -> str:
        """Say why a text has an empty code."""
        ...


def query_notes(queries: QueryEncoder, text: str) -> list[str]:
    """Say how a text to find is read: words replaced, unknown, or beyond the model's context.

    Parameters
    ----------
    queries : QueryEncoder
    text : str
        What to find; empty if the query is an image.
    """
    if not text:
        return []
    reading = queries.read(text)
    notes = _replaced(reading)
    if reading.known:
        notes += map(queries.note, queries.unknown(text))
    else:
        notes.append(f"“{shortened(text)}” has no word that is known here; results are unreliable.")
    n_read, n_words = queries.words_read(text), len(text.split())
    if n_read < n_words:
        notes.append(f"Only the first {n_read} of {n_words} words were read.")
    return notes


class Exclusions(NamedTuple):
    """Codes of what to exclude."""

    codes: np.ndarray
    """(t, m) float32: one row for each phrase, zeros if nothing of it is known."""
    notes: list[str]
    """One sentence for each word that was replaced or is unknown."""


def encode_exclusions(
    queries: QueryEncoder,
    encode_text: Callable[[str], Encoded],
    phrases: Sequence[str],
    m: int,
) -> Exclusions:
    """Encode phrases to exclude, each by its known words only.

    A word that the encoder does not know has an arbitrary code, which would switch off arbitrary
    dimensions, so it is left out and named.

    Parameters
    ----------
    queries : QueryEncoder
    encode_text : callable
        `queries.encode_text`, or a cache of it.
    phrases : sequence of str
    m : int
        Number of dimensions.
    """
    codes = np.zeros((len(phrases), m), np.float32)
    notes: list[str] = []
    for row, phrase in enumerate(phrases):
        reading = queries.read(phrase, singular=True)
        notes += _replaced(reading)
        if reading.known:
            codes[row] = encode_text(reading.known).code
        if not (reading.known or reading.unknown):
            notes.append(f"“{shortened(phrase)}” names nothing to exclude.")
        elif not codes[row].any():
            notes.append(f"“{shortened(phrase)}” is not known here, so it switches nothing off.")
        elif reading.unknown:
            words = ", ".join(f"“{shortened(word)}”" for word in reading.unknown)
            known = shortened(reading.known)
            notes.append(f"{words} is not known here; only “{known}” is excluded.")
    return Exclusions(codes, notes)


def _replaced(reading: WordReading) -> list[str]:
    return [f"“{word}” is read as “{form}”." for word, form in reading.replaced]


def shortened(text: str) -> str:
    """Cut a text to what fits into a sentence."""
    return text if len(text) <= 60 else f"{text[:59]}…"


class EmbeddingQueries:
    """Texts and images are embedded and encoded by the sparse encoder.

    Where the backbone is unavailable, texts are read from the collection's captions instead (see
    `model.caption_encoder`), and no image from outside can be read.

    Parameters
    ----------
    collection, checkpoint
    open_backbone : callable
        Opens the backbone, or another text encoder that was attached; raises `BackboneUnavailable`.
    attached : bool
        Whether a text encoder was attached by name.
    """

    def __init__(
        self,
        collection: Collection,
        checkpoint: Checkpoint,
        open_backbone: Callable[[], Backbone | FunctionEncoder],
        attached: bool = False,
    ) -> None:
        self._collection, self._checkpoint = collection, checkpoint
        self._open_backbone = open_backbone
        self._attached = attached
        self._failed = ""

    @property
    def can(self) -> Capabilities:
        """Supported kinds of query, as far as known without loading the backbone."""
        if self._attached and isinstance(self._open_backbone(), FunctionEncoder):
            return Capabilities(
                image_queries=False, no_image="the attached encoder reads only texts"
            )
        fault = self._fault
        if not fault:
            return Capabilities()
        why = f"this collection's backbone is unavailable ({fault})"
        return Capabilities(
            text_queries=self._has_captions,
            image_queries=False,
            no_text="" if self._has_captions else f"{why}; {ATTACH}, or search by an item",
            no_image=f"{why}; search by an item of the collection",
            texts_by_captions=self._has_captions,
        )

    def encode_text(self, text: str) -> Encoded:
        """Embed and encode a text; zeros if no caption has a word of it."""
        encoder = self.text_encoder()
        embedding = encoder.encode_texts([self.read(text).text])[0]
        if isinstance(encoder, CaptionEncoder) and not encoder.reads(text):
            return Encoded(np.zeros(self._checkpoint.m, np.float32), embedding)
        return self._encoded(embedding, TEXT)

    def encode_image(self, image: Image.Image) -> Encoded:
        """Embed and encode an image."""
        encoder = self.text_encoder()
        if not isinstance(encoder, CaptionEncoder | FunctionEncoder):
            return self._encoded(encoder.encode_images([image])[0], IMAGE)
        raise ValueError(self.can.no_image)

    def unknown(self, text: str) -> list[str]:
        """Words that the backbone, or the captions, have never had."""
        # Whoever asks for an item alone needs no backbone, which takes seconds to load.
        return self.text_encoder().unknown_words(text) if text.strip() else []

    def read(self, text: str, singular: bool = False) -> WordReading:
        """Read a text as words of the captions, or as words that the backbone was trained on."""
        encoder = self.text_encoder()
        if isinstance(encoder, FunctionEncoder):
            return WordReading(text, known=text)
        if not isinstance(encoder, CaptionEncoder):
            return encoder.read_words(text, singular)
        unknown = encoder.unknown_words(text)
        known = drop_words(text, unknown) if encoder.reads(text) else ""
        return WordReading(text, unknown=tuple(unknown), precomputed=known)

    def words_read(self, text: str) -> int:
        """Count the words that fit into the backbone's context; captions have none."""
        encoder = self.text_encoder()
        if isinstance(encoder, CaptionEncoder | FunctionEncoder):
            return len(text.split())
        return encoder.words_read(text)

    def note(self, word: str) -> str:
        """Say that a word is unknown."""
        if self._failed:
            return f"No caption of this collection has “{word}”; it was left out."
        return f"“{word}” is not in this backbone's vocabulary; results may be unreliable."

    def about_reading(self, text: str) -> str:
        """Say how a text was read if the backbone did not read it."""
        if not text.strip() or not self._failed:
            return ""
        return (
            "Texts are read from this collection's captions, because its backbone is unavailable "
            f"({self._failed}). To use one, {ATTACH}."
        )

    def nothing_known(self, text: str) -> str:
        """Say why a text has an empty code."""
        if not self._failed:
            return f"no dimension of this checkpoint is active for “{text[:80]}”; try other words"
        return (
            f"no caption of this collection has a word of “{text[:80]}”, and its backbone is "
            f"unavailable ({self._failed}); try other words, search by an item, or {ATTACH}"
        )

    def text_encoder(self) -> Backbone | FunctionEncoder | CaptionEncoder:
        """Open what reads texts.

        Raises
        ------
        BackboneUnavailable
            If there is neither a backbone nor a caption.
        """
        if not self._failed:
            try:
                return self._open_backbone()
            except BackboneUnavailable as error:
                self._failed = _without_folders(reason_of(error))
        if not self._has_captions:
            raise BackboneUnavailable(self.can.no_text)
        return self._captions

    @cached_property
    def _captions(self) -> CaptionEncoder:
        return CaptionEncoder.of_collection(self._collection)

    @property
    def _has_captions(self) -> bool:
        return self._collection.n_captions > 0

    @property
    def _fault(self) -> str:
        return self._failed or ("" if self._attached else self._known_fault)

    @cached_property
    def _known_fault(self) -> str:
        return _without_folders(backbone_fault(self._collection))

    def _encoded(self, embedding: np.ndarray, modality: str) -> Encoded:
        codes = encode_codes(self._checkpoint.encoder, embedding[None], modality)
        return Encoded(codes.dense(0), embedding)


def _without_folders(text: str) -> str:
    """Shorten absolute paths to their last part: notes of queries are shown on public pages."""
    return _FOLDERS.sub("…/", text)


class ExternalCodeEncoder:
    """Of codes that were made elsewhere: items can be asked for, texts where something reads them.

    Parameters
    ----------
    reader : callable, optional
        Makes a code of a text: (m,) float32 of length 1, or zeros.
    words : CodedWords, optional
        Where they are the reader.
    no_text : str
        Why there is no reader.
    """

    def __init__(
        self,
        reader: Callable[[str], np.ndarray] | None = None,
        words: CodedWords | None = None,
        no_text: str = "",
    ) -> None:
        self._read, self._words = reader, words
        self.can = Capabilities(
            text_queries=reader is not None,
            image_queries=False,
            dense_search=False,
            no_text="" if reader else no_text,
            no_image="these codes were made elsewhere, and nothing here can make one of an image; "
            "search by an item of the collection",
        )

    def encode_text(self, text: str) -> Encoded:
        """Read a text; zeros where it has no known word."""
        if self._read is None:
            raise ValueError(self.can.no_text)
        return Encoded(self._read(text), _NOTHING)

    def encode_image(self, image: Image.Image) -> Encoded:  # noqa: ARG002
        """Refuse an image."""
        raise ValueError(self.can.no_image)

    def unknown(self, text: str) -> list[str]:
        """Words that have no code."""
        return list(self._words.read(text).unknown) if self._words else []

    def read(self, text: str, singular: bool = False) -> WordReading:  # noqa: ARG002
        """Find the words that have codes."""
        if self._words is None:
            return WordReading(text, known=text)
        found = self._words.read(text)
        known = drop_words(text, found.unknown) if found.rows else ""
        return WordReading(text, unknown=found.unknown, precomputed=known)

    def words_read(self, text: str) -> int:
        """Count the words: all are read."""
        return len(text.split())

    def note(self, word: str) -> str:
        """Say that a word is unknown."""
        return f"“{word}” has no code here; it was left out."

    def about_reading(self, text: str) -> str:  # noqa: ARG002
        """Nothing: that words are read by their codes is how such a collection was made."""
        return ""

    def nothing_known(self, text: str) -> str:
        """Say why a text has an empty code."""
        return f"nothing in “{text[:80]}” has a code here; try other words"


def query_encoder(
    collection: Collection,
    checkpoint: Checkpoint,
    open_backbone: Callable[[], Backbone | FunctionEncoder],
    allow_code: bool = False,
    text_encoder: str = "",
) -> QueryEncoder:
    """Choose what reads queries.

    Parameters
    ----------
    collection, checkpoint
    open_backbone : callable
        Opens the collection's backbone, or the attached one, when it is first needed.
    allow_code : bool
        Load the Python function that reads texts, if one is named.
    text_encoder : str
        Attached by a person: see `model.text_encoder`. Of codes, a function that makes codes; it
        goes before the one that the config names.

    Raises
    ------
    ValueError
        If a table of words is damaged, or the function cannot be loaded.
    """
    if not collection.codes:
        return EmbeddingQueries(collection, checkpoint, open_backbone, bool(text_encoder))
    entry = text_encoder or str(checkpoint.config.get("text_encoder") or "")
    if text_encoder and not allow_code:
        raise ValueError(
            f"collection {collection.name} holds codes: --text-encoder must name a Python function "
            f"that makes codes, as package.module:function, with --allow-code; got {entry!r}"
        )
    if entry and allow_code:
        function = load_entry(entry)
        return ExternalCodeEncoder(lambda text: _called(function, entry, text, checkpoint.m))
    words = read_words(collection.checked(WORDS))
    if words:
        codes = read_codes(
            collection.checked(*code_files(WORD_CODES)), WORD_CODES, len(words), checkpoint.m
        )
        table = CodedWords(words, codes)
        return ExternalCodeEncoder(table.code, table)
    if entry:
        return ExternalCodeEncoder(
            no_text=f"texts of this collection are read by {entry}, which is code from elsewhere; "
            "if you trust it, start Sieve with --allow-code; searching by an item works without"
        )
    return ExternalCodeEncoder(
        no_text="this collection has codes of images but none of words: search by an item, or "
        "prepare it with word_codes.npz and words.txt"
    )


def _called(function: Callable[[list[str]], Any], entry: str, text: str, m: int) -> np.ndarray:
    """Have a function read a text, and check what it gives."""
    try:
        made = function([text])
        dense = made.toarray() if issparse(made) else np.asarray(made, np.float64)
        rows = csr_array(np.atleast_2d(dense))
    except Exception as error:  # as above
        raise ValueError(f"{entry} could not read the text ({fault_of(error)})") from None
    fault = csr_fault(rows.indptr, rows.indices, rows.data, (1, m))
    if not fault and rows.shape != (1, m):
        fault = f"its shape is {rows.shape}"
    if fault:
        raise ValueError(f"{entry} gave no code of {m} dimensions for the text: {fault}")
    return SparseCodes.from_rows(rows).dense(0)
