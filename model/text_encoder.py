"""Text encoders other than backbones: Python functions, captions, and tables of word codes.

If a collection's backbone is unavailable, texts are embedded by another encoder of the same space
(`--text-encoder`), or by the embeddings of the collection's captions.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from sieve.model.backbone.checked_files import BackboneUnavailable, check_consent
from sieve.model.collection import Collection
from sieve.model.dimensions.vocabulary import TextTower
from sieve.model.words.nouns import longest_matches
from sieve.model.words.text import (
    WordReading,
    content_words,
    drop_words,
    is_content_word,
    lemma,
    split_words,
    with_hypernyms,
    with_phrases,
    word_presence,
)

if TYPE_CHECKING:
    from sieve.model.backbone.clip import Backbone

ATTACH = "attach a text encoder with --text-encoder NAME"
_ENTRY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_ARTICLES = frozenset({"a", "an", "the"})
_CAPTIONS_AT_ONCE = 65_536
_MIN_LENGTH = 1e-3
"""Words whose mean differs less from the mean caption are ignored: most captions contain them."""


class TextOnlyEncoder:
    """Encoder of texts, but not of images, that has no word list and no limit of length."""

    sha256 = ""
    """Empty, so that nothing is cached under a backbone's hash."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (t, d) float32, unit rows."""
        raise NotImplementedError

    def unknown_words(self, text: str) -> list[str]:  # noqa: ARG002
        """Return the words of a text that the encoder does not know, each once."""
        return []

    def read_words(self, text: str, singular: bool = False) -> WordReading:  # noqa: ARG002
        """Return a text with its unknown words."""
        return WordReading(text, known=text)

    def words_read(self, text: str) -> int:
        """Return the number of words of a text."""
        return len(text.split())


class FunctionEncoder(TextOnlyEncoder):
    """Text encoder that calls a Python function, which the user has allowed to run.

    The function, `package.module:function`, takes t texts and returns (t, width) numbers.
    """

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


class CaptionEncoder(TextOnlyEncoder):
    """Text encoder of captions with their embeddings, for an unavailable backbone.

    A text that is a caption gets that caption's embedding. Any other text is embedded by its words.
    The direction of a word leads from the mean caption to the mean of the captions that contain the
    word or a hyponym ("dog" for "animal"), and a text is the sum of its words' directions:

        u_w = unit(mean_{c ∋ w} t_c − t̄),   t(text) = t̄ + λ Σ_w u_w,   λ > 0 such that |t(text)| = 1

    After a sparse encoder has subtracted the mean caption t̄, the words' direction remains.

    Parameters
    ----------
    captions : sequence of str
    embeddings : (c, d) float16 or float32
        Embeddings of the captions, L2-normalised; may be memory-mapped.
    """

    def __init__(self, captions: Sequence[str], embeddings: np.ndarray) -> None:
        if not len(captions):
            raise ValueError("expected at least one caption to encode texts by; got none")
        self._captions = captions
        self._embeddings = embeddings

    @classmethod
    def of_collection(
        cls, collection: Collection, rows: np.ndarray | None = None
    ) -> CaptionEncoder:
        """Use all captions of a collection, or those of some item rows."""
        if rows is None:
            return cls(list(collection.caption_texts), collection.text_embeddings)
        captions = collection.captions_of_rows(rows)
        texts = [collection.caption_texts[caption] for caption in captions.tolist()]
        return cls(texts, collection.text_embeddings[captions])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (n, d) float32, unit rows; the mean caption if no word is known."""
        width = self._embeddings.shape[1]
        return np.array([self._encode(text) for text in texts], np.float32).reshape(-1, width)

    def unknown_words(self, text: str) -> list[str]:
        """Return the content words of a text that no caption contains, in order, each once."""
        if _key(text) in self._rows_of_caption:
            return []
        content = set(content_words(text))
        return [word for word in self._words.unknown_words(text) if word in content]

    def reads(self, text: str) -> bool:
        """Return whether a text is a caption, or has a word of one."""
        return _key(text) in self._rows_of_caption or bool(self._words.rows_of(text)[0])

    def read_words(self, text: str, singular: bool = False) -> WordReading:  # noqa: ARG002
        """Return a text with the words that no caption contains."""
        unknown = self.unknown_words(text)
        known = drop_words(text, unknown) if self.reads(text) else ""
        return WordReading(text, unknown=tuple(unknown), known=known)

    def _encode(self, text: str) -> np.ndarray:
        rows = self._rows_of_caption.get(_key(text))
        if rows:
            return _unit(np.asarray(self._embeddings[rows], np.float32).mean(0))
        direction = self._words.code(text)
        if not direction.any():
            return _unit(self._mean)
        # The mean caption is inside the unit sphere; take the point where the ray leaves it.
        along = float(direction @ self._mean)
        inside = 1 - float(self._mean @ self._mean)
        return _unit(self._mean + (np.sqrt(along**2 + max(inside, 0)) - along) * direction)

    @cached_property
    def _rows_of_caption(self) -> dict[tuple[str, ...], list[int]]:
        rows: dict[tuple[str, ...], list[int]] = {}
        for row, caption in enumerate(self._captions):
            if key := _key(caption):
                rows.setdefault(key, []).append(row)
        return rows

    @cached_property
    def _mean(self) -> np.ndarray:
        return self._means(csr_array(np.ones((len(self._captions), 1), np.float32)))[0]

    @cached_property
    def _words(self) -> CodedWords:
        items = [(caption,) for caption in self._captions]
        words = with_hypernyms(with_phrases(word_presence(items, 1), items), 1)
        directions = self._means(words.presence) - self._mean
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        directions = np.where(lengths > _MIN_LENGTH, directions / np.maximum(lengths, 1e-12), 0)
        vectors = directions.astype(np.float32)
        return CodedWords(words.words, vectors.__getitem__, vectors.shape[1])

    def _means(self, presence: csr_array) -> np.ndarray:
        """Return the mean embedding of the captions with each word: (c, w) → (w, d) float32."""
        counts = np.asarray(presence.sum(0)).reshape(-1, 1)
        total = np.zeros((len(counts), self._embeddings.shape[1]), np.float32)
        for start in range(0, len(self._captions), _CAPTIONS_AT_ONCE):
            part = slice(start, start + _CAPTIONS_AT_ONCE)
            total += csr_array(presence[part]).T @ np.asarray(self._embeddings[part], np.float32)
        return total / np.maximum(counts, 1)


def _key(text: str) -> tuple[str, ...]:
    """Return the words of a text without case, punctuation and articles, to compare captions."""
    return tuple(word for word in _WORD.findall(text.casefold()) if word not in _ARTICLES)


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


class CodedWords(TextOnlyEncoder):
    """Table of words and short texts with their codes.

    A text that is an entry as a whole is read as that entry. Otherwise the longest entries are
    matched from left to right, in singular or plural, and function words are skipped.

    Parameters
    ----------
    words : sequence of str
    code_of : callable
        Returns the code of the word in a row: (m,) float32.
    m : int
    """

    def __init__(self, words: Sequence[str], code_of: Callable[[int], np.ndarray], m: int) -> None:
        self._code_of, self._m = code_of, m
        self._whole: dict[str, int] = {}
        for row, word in enumerate(words):
            self._whole.setdefault(" ".join(word.lower().split()), row)
        self._phrases: dict[tuple[str, ...], int] = {}
        for forms in (tuple, _singular):  # exact entries take precedence over singulars
            for row, word in enumerate(words):
                if parts := split_words(word):
                    self._phrases.setdefault(forms(parts), row)
        self._longest = max(map(len, self._phrases), default=0)

    def rows_of(self, text: str) -> tuple[list[int], list[str]]:
        """Return the rows of a text's entries, and the content words that have none, each once."""
        whole = self._whole.get(" ".join(text.lower().split()))
        if whole is not None:
            return [whole], []
        found = list(longest_matches(tuple(split_words(text)), self._longest, self._row_of))
        unknown = [word for word, row in found if row is None and is_content_word(word)]
        return [row for _, row in found if row is not None], list(dict.fromkeys(unknown))

    def unknown_words(self, text: str) -> list[str]:
        """Return the content words of a text that have no code, each once."""
        return self.rows_of(text)[1]

    def read_words(self, text: str, singular: bool = False) -> WordReading:  # noqa: ARG002
        """Return a text with the words that have codes."""
        rows, unknown = self.rows_of(text)
        known = drop_words(text, unknown) if rows else ""
        return WordReading(text, unknown=tuple(unknown), known=known)

    def code(self, text: str) -> np.ndarray:
        """Return the normalised sum of a text's entries: (m,) float32; zeros if it has none.

        Repeated entries count repeatedly.
        """
        total = np.zeros(self._m, np.float64)
        for row in self.rows_of(text)[0]:
            total += self._code_of(row)
        length = float(np.linalg.norm(total))
        return (total / length if length else total).astype(np.float32)

    def _row_of(self, words: tuple[str, ...]) -> int | None:
        if len(words) == 1 and not is_content_word(words[0]):
            return None
        return self._phrases.get(words, self._phrases.get(_singular(words)))


def _singular(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(lemma, words))


def open_text_encoder(
    collection: Collection, device: str = "auto", name: str = "", allow_code: bool = False
) -> Backbone | FunctionEncoder:
    """Open a text encoder for a collection's embeddings.

    Parameters
    ----------
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
    from sieve.model.backbone.clip import Backbone, backbone_of  # slow: imports torch

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

    Also returns why captions are used, empty if they are not. `rows` are the items whose captions
    are used, by default all; for the other parameters, see `open_text_encoder`. Raises
    `BackboneUnavailable` if the backbone is unavailable and there are no captions.
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
    """Return why a collection's backbone is unavailable, without its name and hints on names."""
    reason = re.sub("^backbone '[^']*' cannot be opened: ", "", " ".join(str(error).split()))
    return re.split("; (?:expected one like|weights are downloaded)", reason)[0]


def is_entry(name: str) -> bool:
    """Return whether a text encoder's name is that of a Python function."""
    return _ENTRY.fullmatch(name) is not None and not name.startswith("blip:")


def check_entry(entry: str) -> None:
    """Raise a ValueError if a name is not `package.module:function`."""
    if not _ENTRY.fullmatch(entry):
        raise ValueError(f"expected package.module:function; got {entry[:80]!r}")


def load_entry(entry: str) -> Callable[[list[str]], Any]:
    """Import `package.module:function`, which runs its code; only call it with the user's consent.

    Raises a ValueError if the name has another form, or the function cannot be imported.
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
