"""Encoders of queries: texts and images to sparse codes.

A backbone and a sparse encoder encode both. If the backbone is unavailable, texts are encoded by
the collection's captions. External codes have no backbone: a table of word codes encodes texts, or
a Python function whose code the user allows to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image
from scipy.sparse import csr_array, issparse, lil_array, vstack

from sieve.model.backbone.checked_files import BackboneUnavailable
from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import (
    WORD_CODES,
    WORDS,
    SparseCodes,
    code_files,
    csr_fault,
    encode_codes,
    read_codes,
    read_words,
)
from sieve.model.collection import Collection
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.query_parser import Term, describe, shortened
from sieve.model.text_encoder import (
    ATTACH,
    CaptionEncoder,
    CodedWords,
    FunctionEncoder,
    TextOnlyEncoder,
    backbone_fault,
    fault_of,
    load_entry,
    unavailable_reason,
)
from sieve.model.words.nouns import bare_phrase
from sieve.model.words.text import lemma

if TYPE_CHECKING:
    from sieve.model.backbone.clip import Backbone

_FOLDERS = re.compile(r"""(?<![\w.-])(?:[A-Za-z]:)?[\\/](?:[^\\/'":;,]+[\\/])+""")
_PROMPT = "a photo of a {}"
_NOT_BY_TEXT = "search by an item or a concept (such as concept:17)"


@dataclass(frozen=True)
class Capabilities:
    """Kinds of query that an engine supports, apart from items."""

    text_queries: bool = True
    image_queries: bool = True
    dense_search: bool = True
    """Whether there are embeddings for a baseline search."""
    no_text: str = ""
    """Why texts cannot be encoded, in one line."""
    no_image: str = ""
    """Why images cannot be encoded, in one line."""
    texts_by_captions: bool = False
    """Whether texts are encoded by the collection's captions, as its backbone is unavailable."""


class Encoded(NamedTuple):
    """An encoded text or image."""

    code: np.ndarray
    """(m,) float32"""
    embedding: np.ndarray
    """(d,) float32; (0,) without a backbone"""


class BackboneQueryEncoder:
    """Query encoder of a backbone, or an `attached` text encoder, followed by a sparse encoder.

    If the backbone is unavailable, texts are embedded by the collection's captions instead (see
    `CaptionEncoder`), and images cannot be encoded. `open_backbone` raises `BackboneUnavailable`.
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
        """Supported kinds of query, as far as this is known without loading the backbone."""
        if self._attached and isinstance(self._open_backbone(), FunctionEncoder):
            return Capabilities(
                image_queries=False, no_image="the attached text encoder cannot encode images"
            )
        fault = self._failed or ("" if self._attached else self._known_fault)
        if not fault:
            return Capabilities()
        why = f"this collection's backbone is unavailable ({fault})"
        has_captions = self._collection.n_captions > 0
        return Capabilities(
            text_queries=has_captions,
            image_queries=False,
            no_text="" if has_captions else f"{why}; {_NOT_BY_TEXT}, or {ATTACH}",
            no_image=f"{why}; search by an item of the collection",
            texts_by_captions=has_captions,
        )

    def encode_text(self, text: str) -> Encoded:
        """Encode a text; zeros if it is encoded by captions and none has a word of it."""
        codes, embeddings = self.encode_texts([text])
        return Encoded(codes.dense(0), embeddings[0])

    def encode_texts(self, texts: Sequence[str]) -> tuple[SparseCodes, np.ndarray]:
        """Encode texts: codes (t, m), with rows as from `encode_text`, and embeddings (t, d)."""
        encoder = self.text_encoder()
        embeddings = encoder.encode_texts([encoder.read_words(text).text for text in texts])
        codes = encode_codes(self._checkpoint.encoder, embeddings, TEXT)
        codes = self._retry_empty(texts, codes, encoder)
        if isinstance(encoder, CaptionEncoder):
            is_read = np.array([encoder.reads(text) for text in texts], np.float32)
            codes = SparseCodes.from_rows(csr_array(codes.by_row * is_read[:, None]))
        return codes, embeddings

    def _retry_empty(
        self, texts: Sequence[str], codes: SparseCodes, encoder: Backbone | TextOnlyEncoder
    ) -> SparseCodes:
        """Encode texts that activate no dimension, such as single words, as part of a phrase."""
        empty = np.flatnonzero(np.diff(codes.by_row.indptr) == 0)
        if not len(empty):
            return codes
        embeddings = encoder.encode_texts([_PROMPT.format(texts[row]) for row in empty.tolist()])
        rows = lil_array(codes.by_row)
        rows[empty] = encode_codes(self._checkpoint.encoder, embeddings, TEXT).by_row
        return SparseCodes.from_rows(csr_array(rows))

    def encode_images(self, images: Sequence[Image.Image]) -> tuple[SparseCodes, np.ndarray]:
        """Encode images: codes (i, m), embeddings (i, d); raise a ValueError without a backbone."""
        encoder = self.text_encoder()
        if isinstance(encoder, TextOnlyEncoder):
            raise ValueError(self.can.no_image)
        embeddings = encoder.encode_images(images)
        return encode_codes(self._checkpoint.encoder, embeddings, IMAGE), embeddings

    def unknown_word_note(self, word: str) -> str:
        """Return a sentence that says that a word to find is unknown."""
        if self._failed:
            return f"No caption of this collection contains “{word}”; it was ignored."
        return f"“{word}” is not in this backbone's vocabulary; results may be unreliable."

    def reading_note(self, text: str) -> str:
        """Return a sentence if a text was encoded by captions, else an empty text."""
        if not text.strip() or not self._failed:
            return ""
        return (
            "Texts are encoded by this collection's captions, because its backbone is unavailable "
            f"({self._failed}). To use one, {ATTACH}."
        )

    def empty_code_reason(self, text: str) -> str:
        """Return why a text has an empty code."""
        if not self._failed:
            return f"no dimension of this checkpoint is active for “{text[:80]}”; try other words"
        return (
            f"no caption of this collection contains a word of “{text[:80]}”, and its backbone is "
            f"unavailable ({self._failed}); try other words, {_NOT_BY_TEXT}, or {ATTACH}"
        )

    def text_encoder(self) -> Backbone | TextOnlyEncoder:
        """Return the text encoder: the backbone, the attached one, or the captions.

        Raises `BackboneUnavailable` if the backbone is unavailable and there are no captions.
        """
        if not self._failed:
            try:
                return self._open_backbone()
            except BackboneUnavailable as error:
                self._failed = _without_folders(unavailable_reason(error))
        if not self._collection.n_captions:
            raise BackboneUnavailable(self.can.no_text)
        return self._captions

    @cached_property
    def _captions(self) -> CaptionEncoder:
        return CaptionEncoder.of_collection(self._collection)

    @cached_property
    def _known_fault(self) -> str:
        return _without_folders(backbone_fault(self._collection))


def _without_folders(text: str) -> str:
    """Shorten absolute paths to their last part, because notes are shown on public pages."""
    return _FOLDERS.sub("…/", text)


class ExternalCodeEncoder:
    """Query encoder of external codes: no images, and texts only if a function encodes them.

    Parameters
    ----------
    encode : callable, optional
        Returns the code of a text: (m,) float32 of norm 1, or zeros.
    words : TextOnlyEncoder, optional
        The table of word codes that `encode` uses.
    no_text : str
        Why there is no `encode`.
    """

    def __init__(
        self,
        encode: Callable[[str], np.ndarray] | None = None,
        words: TextOnlyEncoder | None = None,
        no_text: str = "",
    ) -> None:
        self._encode, self._words = encode, words or TextOnlyEncoder()
        self.can = Capabilities(
            text_queries=encode is not None,
            image_queries=False,
            dense_search=False,
            no_text="" if encode else no_text,
            no_image="external codes have no backbone that could encode an image; search by an "
            "item of the collection",
        )

    def encode_text(self, text: str) -> Encoded:
        """Encode a text; zeros if it has no known word."""
        if self._encode is None:
            raise ValueError(self.can.no_text)
        return Encoded(self._encode(text), np.zeros(0, np.float32))

    def encode_texts(self, texts: Sequence[str]) -> tuple[SparseCodes, np.ndarray]:
        """Encode texts: codes (t, m), with rows as from `encode_text`, and embeddings (t, 0)."""
        rows = vstack([csr_array(self.encode_text(text).code[None]) for text in texts])
        return SparseCodes.from_rows(csr_array(rows)), np.zeros((len(texts), 0), np.float32)

    def encode_images(self, images: Sequence[Image.Image]) -> NoReturn:  # noqa: ARG002
        """Raise a ValueError."""
        raise ValueError(self.can.no_image)

    def text_encoder(self) -> TextOnlyEncoder:
        """Return the table of words, if there is one."""
        return self._words

    def unknown_word_note(self, word: str) -> str:
        """Return a sentence that says that a word has no code."""
        return f"“{word}” has no code in this collection; it was ignored."

    def reading_note(self, text: str) -> str:  # noqa: ARG002
        """Return an empty text: external codes are always encoded in the same way."""
        return ""

    def empty_code_reason(self, text: str) -> str:
        """Return why a text has an empty code."""
        return f"no word of “{text[:80]}” has a code in this collection; try other words"


QueryEncoder = BackboneQueryEncoder | ExternalCodeEncoder


def understands(encoder: QueryEncoder, text: str) -> bool:
    """Return whether a text can be encoded and has no unknown word."""
    return encoder.can.text_queries and not encoder.text_encoder().unknown_words(text)


def query_notes(encoder: QueryEncoder, text: str) -> list[str]:
    """Return notes on words to find that are replaced, unknown, or beyond the model's context."""
    if not text:
        return []
    words = encoder.text_encoder()
    reading = words.read_words(text)
    notes = [f"“{word}” is read as “{form}”." for word, form in reading.replaced]
    if reading.known:
        notes += map(encoder.unknown_word_note, words.unknown_words(text))
    else:
        notes.append(f"“{shortened(text)}” contains no known word; results may be unreliable.")
    n_read, n_words = words.words_read(text), len(text.split())
    if n_read < n_words:
        notes.append(f"Only the first {n_read} of {n_words} words were read.")
    return notes


def nothing_proposed_note(find: tuple[Term, ...], exclude: tuple[Term, ...]) -> str:
    """Return why an exclusion whose words are known switches nothing off."""
    words = {tuple(map(lemma, bare_phrase(term.value).split())) for term in (*find, *exclude)}
    if find and len(words) == 1:
        asked = describe(find, exclude)
        return f"{asked} asks for what it excludes: nothing is switched off."
    excluded = describe((), exclude).removeprefix("without ")
    return (
        f"No dimension is switched off, because none represents {excluded} without also "
        "representing the query."
    )


def query_encoder(
    collection: Collection,
    checkpoint: Checkpoint,
    open_backbone: Callable[[], Backbone | FunctionEncoder],
    allow_code: bool = False,
    text_encoder: str = "",
) -> QueryEncoder:
    """Return the query encoder of a collection.

    Parameters
    ----------
    open_backbone : callable
        Opens the collection's backbone, or the attached one, when it is first needed.
    allow_code : bool
        Load the Python function that encodes texts, if one is named.
    text_encoder : str
        Name of the attached text encoder: see `sieve.model.text_encoder`. For external codes, a
        function that returns codes, which takes precedence over the one that the config names.

    Raises
    ------
    ValueError
        If a table of words is damaged, or the function cannot be loaded.
    """
    if not collection.codes:
        return BackboneQueryEncoder(collection, checkpoint, open_backbone, bool(text_encoder))
    entry = text_encoder or checkpoint.config.text_encoder
    if text_encoder and not allow_code:
        raise ValueError(
            f"collection {collection.name} holds codes, so --text-encoder must name a Python "
            f"function that returns codes, as package.module:function, and needs --allow-code; got "
            f"{entry!r}"
        )
    if entry and allow_code:
        function = load_entry(entry)
        return ExternalCodeEncoder(lambda text: _call_encoder(function, entry, text, checkpoint.m))
    words = read_words(collection.checked(WORDS))
    if words:
        codes = read_codes(
            collection.checked(*code_files(WORD_CODES)), WORD_CODES, len(words), checkpoint.m
        )
        table = CodedWords(words, codes.dense, codes.m)
        return ExternalCodeEncoder(table.code, table)
    if entry:
        return ExternalCodeEncoder(
            no_text=f"texts of this collection are encoded by {entry}, which is external code; if "
            f"you trust it, start Sieve with --allow-code, or {_NOT_BY_TEXT}"
        )
    return ExternalCodeEncoder(
        no_text=f"this collection has codes of images but not of words; {_NOT_BY_TEXT}, or "
        "prepare it with word_codes.npz and words.txt"
    )


def _call_encoder(
    function: Callable[[list[str]], Any], entry: str, text: str, m: int
) -> np.ndarray:
    """Encode a text by a user's function and check the result: (m,) float32."""
    try:
        output = function([text])
        dense = output.toarray() if issparse(output) else np.asarray(output, np.float64)
        rows = csr_array(np.atleast_2d(dense))
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"{entry} could not encode the text ({fault_of(error)})") from None
    fault = csr_fault(rows.indptr, rows.indices, rows.data, (1, m))
    if not fault and rows.shape != (1, m):
        fault = f"its shape is {rows.shape}"
    if fault:
        raise ValueError(f"{entry} must return a code of {m} dimensions for a text: {fault}")
    return SparseCodes.from_rows(rows).dense(0)
