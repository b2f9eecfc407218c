"""Encoded queries: the codes of their terms, and the dimensions to switch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from sieve.model.backbone.checked_files import BackboneUnavailable
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.dimensions.concepts import DimensionNames
from sieve.model.dimensions.presence import (
    PresenceModel,
    ShownModel,
    is_mentioned,
    open_examples,
    open_shown_model,
)
from sieve.model.dimensions.statistics import sample_rows
from sieve.model.exclusion import propose_off
from sieve.model.index import Index
from sieve.model.query_encoder import (
    Encoded,
    QueryEncoder,
    nothing_proposed_note,
    query_notes,
    understands,
)
from sieve.model.query_parser import Term, parse_query, print_terms, shortened
from sieve.model.words.text import content_words

log = logging.getLogger(__name__)

_CACHED_NUMBERS = 1 << 22
"""Size of the cache of encoded texts, whose codes are dense: 4,096 texts at m = 1024."""


@dataclass(frozen=True)
class ActiveDimension:
    """A dimension of a query, as listed beside its results."""

    dimension: int
    name: str
    strength: float
    """q_j: activation in A's code."""
    without_strength: float
    """b_j: activation in B's code; 0 if there is no B."""
    proposed_off: bool
    concept: int
    """Leading dimension of its concept."""
    concept_name: str
    name_in_concept: str
    """Name within its concept: see `sieve.model.dimensions.concepts.DimensionNames.in_concept`."""


@dataclass(frozen=True)
class ActiveConcept:
    """A concept of a query: its active dimensions, which are switched together."""

    concept: int
    """Its leading dimension, which may not be active itself."""
    name: str
    strength: float
    """Sum of the activations in A's code."""
    without_strength: float
    """Sum of the activations in B's code."""
    dimensions: tuple[ActiveDimension, ...]

    @property
    def proposed_off(self) -> bool | None:
        """Whether all its active dimensions are proposed to be off; None for only some of them."""
        proposed = {part.proposed_off for part in self.dimensions}
        return proposed.pop() if len(proposed) == 1 else None


@dataclass(frozen=True, eq=False)
class EncodedTerm:
    """A term of a query with its code."""

    term: Term
    label: str
    """The text, the name of the concept, or a description of the image."""
    excluded: bool
    code: np.ndarray
    """(m,) float32, of unit norm, or zeros for an unknown text."""
    read_embedding: Callable[[], np.ndarray]
    """Returns the backbone's embedding: (d,) float32; (0,) without one."""

    @property
    def title(self) -> str:
        """The label with its weight: `0.5 × a beach`."""
        weight = "" if self.term.weight == 1 else f"{self.term.weight:g} × "
        return f"{weight}{self.label}"


@dataclass(frozen=True)
class EncodedQuery:
    """A query's codes and embedding; which dimensions are off is chosen later."""

    text: str
    """A, as typed into the *Find* field; empty for a single item or image."""
    without: str
    """B, as typed into the *without* field: terms separated by commas."""
    item: str
    """Id of an item, if its image is all that is searched for."""
    code: np.ndarray
    """(m,) float32: A's code, the weighted sum of its terms' codes, of unit norm."""
    without_code: np.ndarray
    """(m,) float32: B's code, the maximum over its terms; zeros if there is no B."""
    without_weights: np.ndarray
    """(t, m) float32: weights of the dimensions of each term of B; see
    `sieve.model.exclusion.Proposal`."""
    read_embedding: Callable[[], np.ndarray]
    """Returns `embedding`; an item's is read from a file that most searches do not need."""
    dimensions: tuple[ActiveDimension, ...]
    """Dimensions proposed to be off first, then by activation in A."""
    notes: tuple[str, ...]
    """Notes for the user: unknown words, a split query, a truncated text, and `reading_note`."""
    terms: tuple[EncodedTerm, ...] = ()
    """The terms of A, then those of B."""
    suggested: Mapping[str, str] | None = None
    """Another reading of an ambiguous query, as `query` and `without`."""
    reading_note: str = ""
    """The note, the same for all queries, that texts are encoded by captions."""

    @property
    def title(self) -> str:
        """Description of what is searched for; empty for a single image."""
        return self.text and " + ".join(one.title for one in self.terms if not one.excluded)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Labels of the terms of B."""
        return tuple(each.label for each in self.terms if each.excluded)

    @property
    def items(self) -> tuple[str, ...]:
        """Ids of the items among the terms of A, which are not returned."""
        found = (each.term for each in self.terms if not each.excluded)
        return tuple(term.value for term in found if term.kind == "item")

    def shares(self, dimensions: Sequence[int], off: Sequence[int]) -> np.ndarray:
        """Return the share of each term in the contributions of dimensions: (t, len) float64.

        The columns sum to 1. Those of dimensions that are off, but that no term proposes, are 0.
        """
        columns = np.asarray(dimensions, np.int64)
        is_off = np.isin(columns, np.asarray(off, np.int64))
        found = [one.term.weight * one.code[columns] for one in self.terms if not one.excluded]
        on = np.where(is_off, 0, np.array(found, np.float64).reshape(len(found), len(columns)))
        pushed = self.without_weights[:, columns]
        largest = pushed.max(axis=0, initial=0)
        first = np.arange(len(pushed))[:, None] == (pushed.argmax(axis=0) if len(pushed) else 0)
        excluded = first & is_off & (largest > 0)
        total = on.sum(axis=0)
        return np.concatenate([on / np.where(total > 0, total, 1), excluded])

    @property
    def embedding(self) -> np.ndarray:
        """The backbone's embedding of the whole query: (d,) float32; (0,) without a backbone.

        "A without B" is embedded as that literal text, an image without B as the image, and other
        sums as the signed sum of the terms' embeddings.
        """
        return self.read_embedding()

    @property
    def proposed(self) -> tuple[int, ...]:
        """Dimensions that "without" proposes to switch off."""
        return tuple(d.dimension for d in self.dimensions if d.proposed_off)

    @property
    def concepts(self) -> tuple[ActiveConcept, ...]:
        """Its concepts: those with dimensions that are proposed to be off first, then by strength.

        The proposed ones are in the order of their best evidence.
        """
        concepts = [
            ActiveConcept(
                parts[0].concept,
                parts[0].concept_name,
                sum(part.strength for part in parts),
                sum(part.without_strength for part in parts),
                tuple(parts),
            )
            for parts in by_concept(self.dimensions)
        ]
        return tuple(
            sorted(
                concepts, key=lambda one: -one.strength if one.proposed_off is False else -np.inf
            )
        )


class _HasConcept(Protocol):
    @property
    def concept(self) -> int: ...


_Part = TypeVar("_Part", bound=_HasConcept)


def by_concept(parts: Iterable[_Part]) -> list[list[_Part]]:
    """Group the parts of a query or of a score by concept, in order of appearance."""
    groups: dict[int, list[_Part]] = {}
    for part in parts:
        groups.setdefault(part.concept, []).append(part)
    return list(groups.values())


def list_active(
    code: np.ndarray, without: np.ndarray, proposed: np.ndarray, names: DimensionNames
) -> tuple[ActiveDimension, ...]:
    """Return the dimensions of A and those that "without B" proposes to switch off, these first.

    `code` and `without` are the codes of A and of B, (m,) float32; `proposed`, (p,) int64, has the
    best evidence first: see `sieve.model.exclusion.propose_off`.
    """
    off = set(proposed.tolist())
    shown = np.setdiff1d(np.flatnonzero(code), proposed)
    shown = shown[np.argsort(-code[shown], kind="stable")].tolist()
    return tuple(
        ActiveDimension(
            j,
            names(j),
            float(code[j]),
            float(without[j]),
            j in off,
            *names.concept(j),
            names.in_concept(j),
        )
        for j in [*proposed.tolist(), *shown]
    )


def sum_codes(terms: Sequence[EncodedTerm]) -> np.ndarray:
    """Return the weighted sum of codes: (m,) float32, of unit norm, or zeros if all are unknown."""
    if len(terms) == 1:
        return terms[0].code
    total = np.sum([each.term.weight * each.code for each in terms], axis=0)
    return (total / (float(np.linalg.norm(total)) or 1.0)).astype(np.float32)


def sum_embeddings(terms: Iterable[EncodedTerm]) -> np.ndarray:
    """Return the sum of embeddings by weight, subtracting excluded ones: (d,) float32, or (0,)."""
    signed = ((-1 if one.excluded else 1) * one.term.weight for one in terms)
    parts = [(sign, one.read_embedding()) for sign, one in zip(signed, terms, strict=True)]
    known = [sign * embedding for sign, embedding in parts if embedding.any()]
    if not known:
        return np.zeros(0, np.float32)
    total = np.sum(known, axis=0)
    return (total / (float(np.linalg.norm(total)) or 1.0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class QueryBuilder:
    """Encodes queries, and proposes the dimensions to switch off."""

    collection: Collection
    checkpoint: Checkpoint
    index: Index
    encoder: QueryEncoder
    evidence: Callable[[np.ndarray, np.ndarray], np.ndarray | None]
    """Returns how well dimensions represent texts: see `SearchEngine.evidence`."""

    @cached_property
    def encode_text(self) -> Callable[[str], Encoded]:
        """Text encoder with a cache of its results."""
        n_cached = max(_CACHED_NUMBERS // self.checkpoint.m, 16)
        return lru_cache(maxsize=n_cached)(self.encoder.encode_text)

    def encode(
        self,
        text: str,
        without: str,
        item: str,
        image: Image.Image | None,
        open_image: Callable[[str], Image.Image] | None,
        names: DimensionNames,
    ) -> EncodedQuery:
        """Encode a query: see `SearchEngine.encode`."""
        parsed = parse_query(text, without)
        find = (*parsed.find, *([Term(item, "item")] if item else []))
        find += () if image is None else (Term("image", "image"),)
        replace(parsed, find=find).check_text()

        def opened(name: str) -> Image.Image:
            if image is not None and name == "image":
                return image
            if open_image is None:
                raise ValueError(f"image {name!r} is not available here; choose it again")
            return open_image(name)

        notes = [*parsed.notes]
        encode = partial(self._encode_term, names, opened, notes)
        found = tuple(map(encode, find))
        code = sum_codes(found)
        texts = [one.label for one in found if one.term.kind == "text"]
        if not code.any() and len(texts) == len(found):
            raise ValueError(self.encoder.empty_code_reason(" + ".join(texts)))
        excluded = tuple(encode(term, excluded=True) for term in parsed.exclude)
        terms = (*found, *excluded)
        reading_note = self.encoder.reading_note(f"{' '.join(texts)} {without}")
        notes += filter(None, [reading_note])
        codes = np.array([one.code for one in excluded]).reshape(len(excluded), len(code))
        embeddings = [one.read_embedding() for one in excluded]
        unknown = np.zeros(max(map(len, embeddings), default=0), np.float32)
        stacked = np.array([one if len(one) else unknown for one in embeddings])
        candidates = np.flatnonzero(codes.any(axis=0))
        proposal = propose_off(
            code,
            codes,
            self.checkpoint.calibration,
            self.evidence(stacked, candidates),
            names.concepts().of_dimension,
            np.array([one.term.weight for one in excluded]),
            np.array([one.term.kind == "concept" for one in excluded], bool),
        )
        if codes.any() and not len(proposal.off):
            notes.append(nothing_proposed_note(find, parsed.exclude))
        without_code = codes.max(axis=0, initial=0)
        only = find[0] if len(find) == 1 and find[0].weight == 1 else Term("")
        is_image = only.kind in ("item", "image")
        return EncodedQuery(
            "" if is_image else print_terms(find),
            parsed.without_field,
            only.value if only.kind == "item" else "",
            code,
            without_code,
            proposal.weights,
            self._read_embedding(terms, parsed.without_field),
            list_active(code, without_code, proposal.off, names),
            tuple(dict.fromkeys(notes)),
            terms,
            None if is_image else parsed.suggested_fields,
            reading_note,
        )

    def _encode_term(
        self,
        names: DimensionNames,
        open_image: Callable[[str], Image.Image],
        notes: list[str],
        term: Term,
        excluded: bool = False,
    ) -> EncodedTerm:
        """Encode a term, and add notes on its words for the user."""
        label = term.value
        if term.kind == "item":
            row = self.collection.existing_row(term.value)
            captions = self.collection.items["captions"].iloc[row]
            label = f"like {shortened(captions[0]) if len(captions) else term.value}"
            encoded = self.index.code(row), partial(self._embedding_of, row)
            return EncodedTerm(term, label, excluded, *encoded)
        if term.kind == "image":
            if not self.encoder.can.image_queries:  # rather than that an upload is not stored
                raise ValueError(self.encoder.can.no_image)
            codes, embeddings = self.encoder.encode_images([open_image(term.value)])
            encoded = Encoded(codes.dense(0), embeddings[0])
            label = "like the image"
        elif term.kind == "concept":
            encoded, label = self._encode_concept(term.value, names)
        elif excluded:
            encoded = self._encode_exclusion(term.value, notes)
        else:
            encoded = self.encode_text(term.value)
            if self._is_absent(term.value, encoded.embedding):
                notes.append(
                    f"No image here is likely to show “{shortened(term.value)}”: no caption or "
                    "label mentions it."
                )
            notes += query_notes(self.encoder, term.value)
        return EncodedTerm(term, label, excluded, encoded.code, lambda: encoded.embedding)

    def _is_absent(self, text: str, embedding: np.ndarray) -> bool:
        """Return whether no image is likely to show a text, and no caption or label mentions it."""
        is_described = self.collection.n_captions > 0 or self.collection.has_labels
        if not (is_described and content_words(text)) or is_mentioned(self.collection, text):
            return False
        if self.presence.mentions(text).any():  # by a hyponym
            return False
        encoder = self.encoder.text_encoder()
        if encoder.unknown_words(text) or not encoder.read_words(text).known:
            return True
        if self._shown is None or not embedding.any():
            return False
        return self._shown.probability(float(self._closest(embedding))) < 0.5

    def _closest(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the cosine of texts with the closest image of a sample: (…, d) → (…,)."""
        rows = sample_rows(self.collection.n_items)
        images = np.asarray(self.collection.image_embeddings[rows], np.float32)
        return (embeddings @ images.T).max(axis=-1)

    @cached_property
    def _shown(self) -> ShownModel | None:
        if self.collection.codes or self.encoder.can.texts_by_captions:
            return None
        return open_shown_model(
            self.collection,
            self.checkpoint,
            open_examples(self.collection, self.checkpoint),
            lambda texts: self._closest(np.stack([self.embed_name(text) for text in texts])),
            partial(understands, self.encoder),
        )

    def _encode_exclusion(self, phrase: str, notes: list[str]) -> Encoded:
        """Encode a phrase to exclude by its known words only, and add notes for the user.

        A word that the encoder does not know would have an arbitrary code, which would switch off
        arbitrary dimensions. Without a known word, the code is zero.
        """
        encoded = Encoded(np.zeros(self.checkpoint.m, np.float32), np.zeros(0, np.float32))
        reading = self.encoder.text_encoder().read_words(phrase, singular=True)
        notes += [f"“{word}” is read as “{form}”." for word, form in reading.replaced]
        if reading.known:
            encoded = self.encode_text(reading.known)
        if not (reading.known or reading.unknown):
            notes.append(f"“{shortened(phrase)}” names nothing to exclude.")
        elif not encoded.code.any():
            notes.append(f"“{shortened(phrase)}” is unknown, so it switches nothing off.")
        elif reading.unknown:
            words = ", ".join(f"“{shortened(word)}”" for word in reading.unknown)
            verb = "is" if len(reading.unknown) == 1 else "are"
            notes.append(f"{words} {verb} unknown; only “{shortened(reading.known)}” is excluded.")
        return encoded

    def _encode_concept(self, given: str, names: DimensionNames) -> tuple[Encoded, str]:
        """Return the mean code of a concept, given by a dimension or its name, and its name."""
        leading = names.find_concept(given)
        code = np.zeros(self.checkpoint.m, np.float32)
        members = names.concepts().members(leading)
        code[members] = self.index.mean_positive[members]
        code /= float(np.linalg.norm(code)) or 1.0
        return Encoded(code, self.embed_name(names(leading))), names(leading)

    def _read_embedding(
        self, terms: tuple[EncodedTerm, ...], without: str
    ) -> Callable[[], np.ndarray]:
        """Return a function that returns `EncodedQuery.embedding`."""
        found = [one for one in terms if not one.excluded]
        if len(found) == 1 and all(one.term.is_plain for one in terms):
            text = found[0].label
            whole = self.encode_text(f"{text} without {without}" if without else text)
            return lambda: whole.embedding
        alone = len(found) == 1 and found[0].term.kind in ("item", "image")
        return partial(sum_embeddings, found if alone else terms)

    @cached_property
    def presence(self) -> PresenceModel:
        """Model of the probability that an image shows what is excluded."""
        examples = open_examples(self.collection, self.checkpoint)
        if self.collection.codes:
            return PresenceModel(examples)
        embeddings = self.collection.image_embeddings[examples.rows]
        return PresenceModel(examples, embeddings, self.embed_name)

    def embed_name(self, name: str) -> np.ndarray:
        """Return the embedding of a name; (0,) if the backbone does not know it."""
        try:
            if understands(self.encoder, name):
                return self.encode_text(name).embedding
        except BackboneUnavailable as error:
            log.info("the presence of %s is not estimated: %s", name, error)
        return np.zeros(0, np.float32)

    def _embedding_of(self, row: int) -> np.ndarray:
        if not self.encoder.can.dense_search:
            return np.zeros(0, np.float32)
        return self.collection.image_embeddings[row].astype(np.float32)
