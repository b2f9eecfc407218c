"""Group dimensions that are active together and mean the same into concepts.

The similarity of two dimensions is the mean of the correlation of their activations on images and
of the cosine of their word weights. These are the coefficients of a ridge regression of a
dimension's activations in captions on the words of the captions. They separate what only occurs
together: "camel" and "desert" are active on the same images, but each has a word of its own.
Average linkage joins dimensions as long as the mean similarity of two groups is at least
`SIMILARITY`. Computed from a sample of the items.

In a concept, the dimension whose name fits the sum of the activations best is the leading one, and
gives the concept its name. For each other dimension, `Concepts.differences` may have a word that
separates the items where it is the strongest of its concept from those where another is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes, encode_codes, shape_of
from sieve.model.collection import Collection
from sieve.model.dimension_name import DimensionName
from sieve.model.dimensions.code_cache import cache_folder, codes_of, read_or_compute
from sieve.model.dimensions.naming import (
    MIN_ITEMS,
    WORD_ADVANTAGE,
    auc_error,
    held_out_items,
    nameable,
)
from sieve.model.dimensions.statistics import auc_matrix, sample_rows, word_association
from sieve.model.dimensions.vocabulary import are_related
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.words.text import WordPresence, concept_presence, hypernyms_of, word_presence

if TYPE_CHECKING:
    from sieve.model.encoder import SparseEncoder

VERSION = 3
"""Version of the grouping; cached concepts of another version are computed again."""
SIMILARITY = 0.4
"""Minimum mean similarity of two groups that are joined. With .3, twice as many unrelated labels of
scenes share a concept; with .5, fewer dimensions of one label do."""
MOST_GROUPED = 8192
"""With more live dimensions, each is its own concept: the matrix of similarities would not fit."""
MIN_DIFFERENCE = 0.6
"""Minimum AUC, as a lower bound on held-out items, of a word in `Concepts.differences`."""
_FILE, _DIFFERENCES = "concepts.npy", "differences.json"
_LEAST_ACTIVE = 5
"""Dimensions that are active on fewer images are not joined with others."""
_RIDGE = 0.1
"""Ridge penalty of the word weights, for words of unit variance."""
_Z = 1.2816
"""Quantile of the normal distribution for the lower end of the 80% interval of an AUC."""
_PRESENT = 0.25
"""An image shows a concept if its sum of activations exceeds this share of the largest one."""
_MOST_WORDS = 2000
"""Number of words of the regression, the most frequent ones."""


@dataclass(frozen=True)
class Concepts:
    """The concept of each dimension, identified by its leading dimension."""

    of_dimension: np.ndarray
    """(m,) int32: the leading dimension of each dimension's concept"""
    differences: Mapping[int, str] = field(default_factory=dict)
    """A word by which a dimension differs from the others of its concept, where there is one"""

    def members(self, dimension: int) -> np.ndarray:
        """Return the dimensions of a dimension's concept, the leading one first: (c,) int64."""
        leading = self.of_dimension[dimension]
        members = np.flatnonzero(self.of_dimension == leading)
        return np.concatenate([[leading], members[members != leading]])

    def leading(self, dimension: int) -> int:
        """Return the leading dimension of a dimension's concept."""
        return int(self.of_dimension[dimension])

    def grouped(self, dimensions: Iterable[int]) -> dict[int, list[int]]:
        """Group dimensions by the leading ones of their concepts, in order of appearance."""
        groups: dict[int, list[int]] = {}
        for dimension in dimensions:
            groups.setdefault(self.leading(dimension), []).append(dimension)
        return groups

    def sum(self, codes: csr_array) -> tuple[np.ndarray, csr_array]:
        """Sum the activations of each concept: leading dimensions (c,), and (n, c) float32."""
        leading, column = np.unique(self.of_dimension, return_inverse=True)
        m = len(self.of_dimension)
        joins = csr_array((np.ones(m, np.float32), (np.arange(m), column)), (m, len(leading)))
        return leading, csr_array(codes @ joins)


@dataclass(frozen=True)
class DimensionNames:
    """Names of dimensions and of their concepts, from one snapshot of the user's names."""

    suggested: Callable[[int], str]
    """Returns the checkpoint's name of a dimension."""
    renamed: Mapping[int, str]
    """The user's names, which take precedence."""
    concepts: Callable[[], Concepts]
    """Returns the concepts; called when one is first needed."""

    def __call__(self, dimension: int) -> str:
        """Return the name of a dimension."""
        return self.renamed.get(dimension) or self.suggested(dimension)

    def concept(self, dimension: int) -> tuple[int, str]:
        """Return the leading dimension of a dimension's concept, and its name: the concept's."""
        leading = self.concepts().leading(dimension)
        return leading, self(leading)

    @cached_property
    def described(self) -> Callable[[int], tuple[str, int, str]]:
        """Function that returns a dimension's name and `concept`, and caches them."""
        return cache(lambda dimension: (self(dimension), *self.concept(dimension)))

    def in_concept(self, dimension: int) -> str:
        """Return the name of a dimension within its concept, such as `beach: umbrella`."""
        word = self.concepts().differences.get(dimension, "")
        if not word or dimension in self.renamed:
            return self(dimension)
        return f"{self.concept(dimension)[1]}: {word}"

    def find_concept(self, given: str) -> int:
        """Return the leading dimension of a concept, given by one of its dimensions or its name."""
        concepts = self.concepts()
        if given.isdecimal() and len(given) < 10:
            check_dimension(int(given), len(concepts.of_dimension))
            return concepts.leading(int(given))
        leaders = np.unique(concepts.of_dimension).tolist()
        same = [j for j in leaders if self(j).casefold() == given.casefold()]
        if len(same) != 1:
            several = f"{len(same)} concepts have this name, of dimensions {same[:8]}"
            raise ValueError(
                f"concept {given[:60]!r}: {several if same else 'there is none of this name'}; "
                "give its dimension, as in concept:17"
            )
        return same[0]


def check_dimension(dimension: int, m: int) -> None:
    """Raise a ValueError if there is no such dimension among m."""
    if not 0 <= dimension < m:
        raise ValueError(f"there is no dimension {dimension}; this checkpoint has 0 to {m - 1}")


def open_concepts(collection: Collection, checkpoint: Checkpoint) -> Concepts:
    """Return the concepts of a checkpoint on a collection, computed once and cached."""

    def compute() -> Concepts:
        rows = sample_rows(collection.n_items)
        captions = collection.captions_of_rows(rows)
        if checkpoint.codes:
            images, texts = codes_of(collection, checkpoint)
            images, texts = images.take(rows).by_row, texts.take(captions).by_row
        else:
            images, texts = _encoded(checkpoint.encoder, collection, rows, captions)
        found = group_dimensions(images, texts, _words_of(collection, captions))
        reported = collection.items["captions"].iloc[rows].tolist()
        words, tests = nameable(concept_presence(reported)), held_out_items(reported)
        return describe_concepts(found, images, words, tests, checkpoint.names)

    folder = cache_folder(collection, checkpoint, f"concepts{VERSION}")
    return read_or_compute(folder, _load, compute, _save)


def encoder_concepts(encoder: SparseEncoder, collection: Collection) -> Concepts:
    """Return the concepts of an encoder on a collection."""
    rows = sample_rows(collection.n_items)
    captions = collection.captions_of_rows(rows)
    images, texts = _encoded(encoder, collection, rows, captions)
    return group_dimensions(images, texts, _words_of(collection, captions))


def _encoded(
    encoder: SparseEncoder, collection: Collection, rows: np.ndarray, captions: np.ndarray
) -> tuple[csr_array, csr_array]:
    images = encode_codes(encoder, np.asarray(collection.image_embeddings[rows]), IMAGE)
    texts = encode_codes(encoder, np.asarray(collection.text_embeddings[captions]), TEXT)
    return images.by_row, texts.by_row


def _words_of(collection: Collection, captions: np.ndarray) -> csr_array:
    """Return which captions have which frequent words: (c, w) float32 of 0 and 1."""
    words = word_presence([[collection.caption_texts[caption]] for caption in captions])
    frequent = np.sort(np.argsort(-words.counts, kind="stable")[:_MOST_WORDS])
    return csr_array(words.presence[:, frequent])


def _save(concepts: Concepts, folder: Path) -> None:
    np.save(folder / _FILE, concepts.of_dimension)
    (folder / _DIFFERENCES).write_text(json.dumps(dict(concepts.differences)), encoding="utf-8")


def _load(folder: Path) -> Concepts:
    differences = json.loads((folder / _DIFFERENCES).read_text(encoding="utf-8"))
    of_dimension = np.load(folder / _FILE, allow_pickle=False)
    return Concepts(of_dimension, {int(j): str(word) for j, word in differences.items()})


def group_dimensions(images: csr_array, texts: csr_array, words: csr_array) -> Concepts:
    """Group the dimensions of codes into concepts; the most similar dimension of each leads.

    Parameters
    ----------
    images : (n, m) float32, sparse, non-negative
        Codes of the images.
    texts : (c, m) float32, sparse, non-negative
        Codes of the captions.
    words : (c, w) float32, sparse
        1 for each word of each caption, else 0. Without words, the correlation of the codes of the
        captions replaces the cosine of the word weights; without captions, only images count.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    active = np.diff(csc_array(images).indptr)
    _, m = shape_of(images)
    of_dimension = np.arange(m, dtype=np.int32)
    live = np.flatnonzero(active >= _LEAST_ACTIVE)
    if not 1 < len(live) <= MOST_GROUPED:
        return Concepts(of_dimension)
    similarity = _correlation(csc_array(images)[:, live])
    if texts.nnz:
        said = csc_array(texts)[:, live]
        meaning = _cosine(_word_weights(said, words)) if words.nnz else _correlation(said)
        similarity = (similarity + meaning) / 2
    distance = np.clip(1 - (similarity + similarity.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average")
    group = fcluster(tree, 1 - SIMILARITY, "distance")
    for number in range(1, group.max() + 1):
        members = live[group == number]
        within = similarity[np.ix_(group == number, group == number)]
        of_dimension[members] = members[np.argmax(within.sum(axis=0))]
    return Concepts(of_dimension)


def _moments(left: csc_array, right: csc_array) -> np.ndarray:
    """Return the covariances of the columns of two matrices of n rows: (a, b) float64."""
    n, _ = shape_of(left)
    means = (np.asarray(part.mean(0), np.float64).ravel() for part in (left, right))
    return (left.T @ right).toarray() / n - np.outer(*means)


def _correlation(codes: csc_array) -> np.ndarray:
    """Return the correlations of all columns: (n, c) → (c, c) float32, 0 for constant columns."""
    covariance = _moments(codes, codes)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0))
    scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
    return (covariance * np.outer(scale, scale)).astype(np.float32)


def _word_weights(texts: csc_array, words: csr_array) -> np.ndarray:
    """Return the ridge coefficients of each dimension on words of unit variance: (w, c) float64."""
    columns = csc_array(words)
    covariance, shared = _moments(columns, columns), _moments(columns, texts)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 1e-12))
    correlation = covariance / np.outer(deviation, deviation)
    ridge = correlation + _RIDGE * np.eye(len(deviation))
    return np.linalg.solve(ridge, shared / deviation[:, None])


def _cosine(columns: np.ndarray) -> np.ndarray:
    """Return the cosines of all columns: (w, c) → (c, c) float32, 0 for zero columns."""
    unit = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
    return (unit.T @ unit).astype(np.float32)


def describe_concepts(
    concepts: Concepts,
    images: csr_array,
    words: WordPresence,
    tests: np.ndarray,
    names: Mapping[int, DimensionName],
) -> Concepts:
    """Choose the leading dimension of each concept by its name, and find the differences.

    Parameters
    ----------
    concepts : Concepts
    images : (n, m) float32, sparse, non-negative
        Codes of the images.
    words : WordPresence
        Nameable words and phrases of the captions of the n items.
    tests : (n,) bool
        Items that test the differences; the others choose them.
    names : mapping of int to DimensionName
        Names in the checkpoint.
    """
    of_dimension = concepts.of_dimension.copy()
    differences: dict[int, str] = {}
    columns, presence = csc_array(images), csc_array(words.presence)
    column_of = {word: at for at, word in enumerate(words.words)}
    for first in np.unique(concepts.of_dimension).tolist():
        members = concepts.members(first)
        if len(members) == 1:
            continue
        codes = columns[:, members]
        leading = _best_named(members, codes, presence, column_of, names)
        of_dimension[members] = leading
        if leading in names and names[leading].confident:
            others = members[members != leading]
            total = codes.sum(1)
            shown = np.flatnonzero(total > _PRESENT * total.max())
            differences |= _differences(
                csr_array(columns[:, [leading, *others]])[shown].toarray(),
                WordPresence(words.words, csr_array(words.presence)[shown]),
                tests[shown],
                {int(j): names.get(int(j)) for j in (leading, *others)},
            )
    return Concepts(of_dimension, differences)


def _best_named(
    members: np.ndarray,
    codes: csc_array,
    presence: csc_array,
    column_of: Mapping[str, int],
    names: Mapping[int, DimensionName],
) -> int:
    """Return the member whose confident name fits the sum of activations best, else the first."""
    total = csr_array(codes.sum(1)[:, None])
    fits: dict[int, float] = {}
    for j in members.tolist():
        parts = names[j].name.split(" · ") if j in names and names[j].confident else []
        if parts and all(part in column_of for part in parts):
            columns = [presence[:, [column_of[part]]] for part in (parts[0], parts[-1])]
            having = csr_array(columns[0].multiply(columns[1]))
            auc = np.nan_to_num(auc_matrix(total, having), nan=0.5)[0, 0]
            advantage = WORD_ADVANTAGE if len(parts) == 1 else 1.0
            fits[j] = float(word_association(total, having)[0, 0] * (2 * auc - 1) * advantage)
    return max(fits, key=lambda j: fits[j]) if fits else int(members[0])


def _differences(
    codes: np.ndarray,
    words: WordPresence,
    tests: np.ndarray,
    names: Mapping[int, DimensionName | None],
) -> dict[int, str]:
    """Return a word for members of a concept, at most one each.

    Parameters
    ----------
    codes : (n, c) float32
        Activations of the members on images of the concept, the leading one first.
    words : WordPresence
        Words of the n images.
    tests : (n,) bool
    names : mapping of int to DimensionName
        The c members and their names.
    """
    strongest = np.eye(len(names), dtype=np.float32)[codes.argmax(1)]
    auc, n_having = _word_auc(strongest[~tests], words.presence[~tests])
    tested, _ = _word_auc(strongest[tests], words.presence[tests])
    n_strongest = np.maximum(strongest[tests].sum(0), 1)
    error = auc_error(tested, n_strongest[:, None], int(tests.sum()))
    bound = tested - _Z * error
    passes = (bound >= MIN_DIFFERENCE) & (auc >= MIN_DIFFERENCE) & (n_having >= MIN_ITEMS)
    passes[0] = False
    (_, first), *_ = names.items()
    concept = first.name.split(" · ") if first else []
    candidates: list[tuple[bool, float, int, str]] = []
    for at, (dimension, name) in enumerate(names.items()):
        own = name.name.split(" · ") if name and name.confident else []
        for column in np.flatnonzero(passes[at]):
            word = words.words[column]
            is_own = word in " ".join(own).split()
            # A name such as "golden key" already says how it differs from "key".
            if is_own or not (len(" ".join(own).split()) > 1):
                candidates.append((is_own, float(auc[at, column]), dimension, word))
    found: dict[int, str] = {}
    for _, _, dimension, word in sorted(candidates, reverse=True):
        taken = [*found.values(), *concept]
        if dimension not in found and not any(_are_same(word, other) for other in taken):
            found[dimension] = word
    return found


def _word_auc(strongest: np.ndarray, presence: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC with which each word separates the items of each member from the others.

    (n, c) and (n, w) of 0 and 1 → the AUC (c, w), and the number of a member's items that have the
    word (c, w).
    """
    having = (presence.T @ strongest).T
    members, total = strongest.sum(0)[:, None], np.asarray(presence.sum(0)).ravel()[None]
    others = np.maximum(len(strongest) - members, 1)
    return (1 + having / np.maximum(members, 1) - (total - having) / others) / 2, having


def _are_same(one: str, other: str) -> bool:
    """Return whether two words are related, synonyms, or one is a hypernym of the other."""
    if are_related(one, other):
        return True
    return any(
        a in hypernyms_of(b) or b in hypernyms_of(a) for a in one.split() for b in other.split()
    )


def concept_table(
    concepts: Concepts, codes: SparseCodes, names: Callable[[int], str]
) -> pd.DataFrame:
    """Return the table of concepts, the largest first.

    Columns: concept, its leading dimension; name; members, its dimensions; size, their number;
    firing_images, the share of the images, with codes (n, m), that have any of them.
    """
    leading, summed = concepts.sum(codes.by_row)
    members = [tuple(concepts.members(j).tolist()) for j in leading.tolist()]
    table = pd.DataFrame(
        {
            "concept": leading,
            "name": [names(j) for j in leading.tolist()],
            "members": members,
            "size": [len(each) for each in members],
            "firing_images": np.diff(csc_array(summed).indptr) / codes.n,
        }
    )
    return table.sort_values("size", ascending=False, kind="stable", ignore_index=True)
