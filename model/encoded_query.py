"""Encoded queries: the codes of their terms, and the dimensions to switch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from sieve.model.dimensions.concepts import DimensionNames
from sieve.model.query_parser import Term


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
    """Notes for the user: unknown words, a split query, a truncated text."""
    terms: tuple[EncodedTerm, ...] = ()
    """The terms of A, then those of B."""
    suggested: Mapping[str, str] | None = None
    """Another reading of an ambiguous query, as `query` and `without`."""

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
        """Ids of the items among the terms of A, which are no results."""
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

    Parameters
    ----------
    code, without : (m,) float32
        Codes of A and of B.
    proposed : (p,) int64
        Best evidence first; see `sieve.model.exclusion.propose_off`.
    names : DimensionNames
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
    norm = float(np.linalg.norm(total))
    return (total / (norm or 1.0)).astype(np.float32)


def sum_embeddings(terms: Iterable[EncodedTerm]) -> np.ndarray:
    """Return the sum of embeddings by weight, subtracting excluded ones: (d,) float32, or (0,)."""
    signed = ((-1 if one.excluded else 1) * one.term.weight for one in terms)
    parts = [(sign, one.read_embedding()) for sign, one in zip(signed, terms, strict=True)]
    known = [sign * embedding for sign, embedding in parts if embedding.any()]
    if not known:
        return np.zeros(0, np.float32)
    total = np.sum(known, axis=0)
    return (total / (float(np.linalg.norm(total)) or 1.0)).astype(np.float32)
