"""Name dimensions after caption words, or else after words of a vocabulary, and test the names.

The association of a dimension and a word is the cosine between the cubed activations of the
dimension over items and the presence of the word in their captions. It is 1 if exactly the items
with the word have the dimension, all equally. The cube emphasises strong activations; otherwise the
many weak ones would name half of all dimensions after the most frequent places. Activations of
images and captions have equal weight, so a name must hold in both modalities. The fit of a word is

    fit_jw = association_jw · max(2 AUC_jw - 1, 0)

where AUC_jw is the probability that the dimension is more active on an image with the word than on
one without. A name is one word or phrase, or two ("dog · snow"), then both must be present. Names
are distributed in the order of their fits, so no two dimensions share one.

The training items choose the names, and the validation items, which the encoder was not trained on
either, test them. Few of those have a rare word, so the AUC that is expected on other items is
estimated from all tests together: see `expected_auc`. Names below
`sieve.model.dimension_name.CONFIDENT` are shown as guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array, hstack

from sieve.model.codes import encode_codes, shape_of
from sieve.model.collection import Collection
from sieve.model.dimension_name import CAPTIONS, VOCABULARY, DimensionName, labels_people
from sieve.model.dimensions.statistics import (
    ZeroShotEvidence,
    auc_matrix,
    both_modalities,
    mean_caption_codes,
    word_association,
)
from sieve.model.dimensions.vocabulary import (
    TextTower,
    WordFit,
    are_related,
    fit_words,
    vocabulary_of,
    word_embeddings,
)
from sieve.model.duplicates import evaluation_rows
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.words.text import WordPresence, concept_presence

if TYPE_CHECKING:
    from sieve.model.encoder import SparseEncoder

MIN_TESTS = 100
"""With fewer validation items, every `TEST_EVERY`-th training item tests the names instead."""
TEST_EVERY = 3
MIN_ITEMS = 8
"""Minimum number of choosing items that have a name's words."""
N_WORDS, N_FIRST, N_SECOND = 12, 3, 8
"""Words that compete for a dimension, and those of them that a name of two words begins and ends
with."""
WORD_ADVANTAGE = 1.1
"""A name of two words must fit better than one word by this factor."""
PHRASE_ADVANTAGE = 1.02
"""A phrase is preferred to a word that fits as well: "palm tree" to "palm"."""
_DIMENSIONS_AT_ONCE = 256
_MIN_NAMES = 10
"""With fewer tested names, each counts by its own test alone."""
_MAX_AUC = 0.995
"""Upper limit of an AUC whose log-odds are taken."""


class _Candidate(NamedTuple):
    """A possible name of a dimension."""

    fit: float
    """In [0, 1]."""
    dimension: int
    words: tuple[int, ...]
    """Columns of one word or of two."""


def nameable(words: WordPresence) -> WordPresence:
    """Remove words and phrases that label people: see `sieve.model.dimension_name`."""
    columns = [at for at, word in enumerate(words.words) if not labels_people(word)]
    return WordPresence([words.words[at] for at in columns], csr_array(words.presence[:, columns]))


def held_out_items(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Return which items test the names: (n,) bool; items with equal captions stay together."""
    groups, _ = pd.factorize(pd.Series(["\n".join(item) for item in captions]))
    return np.asarray(groups) % TEST_EVERY == TEST_EVERY - 1


def names_from_captions(
    images: csr_array, texts: csr_array, words: WordPresence, tests: np.ndarray
) -> dict[int, DimensionName]:
    """Name dimensions after the captions of n items.

    Parameters
    ----------
    images, texts : (n, m) float32, sparse, non-negative
        Codes of the images, and mean codes of the captions of each.
    words : WordPresence
        Nameable words and phrases of the captions of the n items.
    tests : (n,) bool
        Items that test the names; the others choose them.
    """
    chooses = ~tests
    counts = np.asarray(words.presence[chooses].sum(0)).ravel()
    frequent = np.flatnonzero(counts >= MIN_ITEMS)
    words = WordPresence(
        [words.words[at] for at in frequent], csr_array(words.presence[:, frequent])
    )
    if not words.words:
        return {}
    chosen_from = _candidates(
        csr_array(images[chooses]),
        both_modalities(csr_array(images[chooses]), csr_array(texts[chooses])),
        WordPresence(words.words, csr_array(words.presence[chooses])),
    )
    candidates = list(chosen_from)
    matched = _distribute(candidates, words.words)
    chosen_auc, _ = _auc_of_names(csr_array(images[chooses]), words.presence[chooses], matched)
    tested_auc, having = _auc_of_names(csr_array(images[tests]), words.presence[tests], matched)
    expected = expected_auc(tested_auc, having, int(tests.sum()), chosen_auc)
    auc = dict(zip(matched, expected.tolist(), strict=True))
    alternatives: dict[int, list[_Candidate]] = {}
    for candidate in candidates:
        if len(candidate.words) == 1:
            alternatives.setdefault(candidate.dimension, []).append(candidate)
    named: dict[int, DimensionName] = {}
    for j, found in matched.items():
        used = [words.words[at] for at in found.words]
        second = next(
            (
                one
                for one in sorted(alternatives[j], reverse=True)
                if not any(are_related(words.words[one.words[0]], word) for word in used)
            ),
            None,
        )
        named[j] = DimensionName(
            " · ".join(used),
            min(found.fit, 1.0),
            words.words[second.words[0]] if second else "",
            min(second.fit, found.fit, 1.0) if second else 0.0,
            source=CAPTIONS,
            auc=auc[j],
        )
    return named


def _candidates(images: csr_array, both: csr_array, words: WordPresence) -> Iterator[_Candidate]:
    """Yield the possible names of each dimension with positive fits."""
    image_columns, both_columns = csc_array(images), csc_array(both)
    by_word = csc_array(words.presence)
    _, m = shape_of(images)
    for start in range(0, m, _DIMENSIONS_AT_ONCE):
        part = slice(start, start + _DIMENSIONS_AT_ONCE)
        codes, activations = csr_array(image_columns[:, part]), csr_array(both_columns[:, part])
        fits = _fits(codes, activations, words.presence)  # (b, w)
        best = np.argsort(-fits, axis=1, kind="stable")[:, :N_WORDS]
        pairs_of = [
            [
                (one, other)
                for one, other in product(row[:N_FIRST].tolist(), row[:N_SECOND].tolist())
                if one != other and not are_related(words.words[one], words.words[other])
                and not labels_people(f"{words.words[one]} · {words.words[other]}")
            ]
            for row in best
        ]  # fmt: skip
        pairs = sorted({(min(pair), max(pair)) for of in pairs_of for pair in of})
        ones, others = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
        together = csr_array(by_word[:, ones].multiply(by_word[:, others]))
        enough = np.asarray(together.sum(0)).ravel() >= MIN_ITEMS
        pair_fits = _fits(codes, activations, together)
        column = {pair: at for at, pair in enumerate(pairs) if enough[at]}
        for row, j in enumerate(range(start, min(start + _DIMENSIONS_AT_ONCE, m))):
            for at in best[row].tolist():
                if fits[row, at] > 0:
                    yield _Candidate(float(fits[row, at]), j, (at,))
            for one, other in pairs_of[row]:
                at = column.get((min(one, other), max(one, other)))
                first = fits[row, one] >= fits[row, other]
                if at is not None and first and pair_fits[row, at] > 0:
                    yield _Candidate(float(pair_fits[row, at]), j, (one, other))


def _fits(codes: csr_array, activations: csr_array, presence: csr_array) -> np.ndarray:
    """Return the fit of each dimension and column: (b, w) float32 in [0, 1]."""
    auc = np.nan_to_num(auc_matrix(codes, presence), nan=0.5)
    return word_association(activations, presence) * np.maximum(2 * auc - 1, 0)


def _distribute(candidates: Sequence[_Candidate], words: Sequence[str]) -> dict[int, _Candidate]:
    """Give each dimension its best free name, the best fits first."""

    def rank(candidate: _Candidate) -> float:
        first, *others = candidate.words
        if others:
            return candidate.fit
        is_phrase = " " in words[first]
        return candidate.fit * WORD_ADVANTAGE * (PHRASE_ADVANTAGE if is_phrase else 1)

    matched: dict[int, _Candidate] = {}
    taken: set[frozenset[str]] = set()
    for candidate in sorted(candidates, key=rank, reverse=True):
        name = frozenset(words[at] for at in candidate.words)
        if candidate.dimension not in matched and name not in taken:
            matched[candidate.dimension] = candidate
            taken.add(name)
    return matched


def _auc_of_names(
    images: csr_array, presence: csr_array, matched: Mapping[int, _Candidate]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC of each name, (l,) float64, and how many items have it, (l,) float32."""
    aucs, counts = [], []
    dimensions, columns, by_word = [*matched], csc_array(images), csc_array(presence)
    for start in range(0, len(dimensions), _DIMENSIONS_AT_ONCE):
        part = dimensions[start : start + _DIMENSIONS_AT_ONCE]
        having = [
            by_word[:, [matched[j].words[0]]].multiply(by_word[:, [matched[j].words[-1]]])
            for j in part
        ]
        presence_part = csr_array(hstack(having))
        aucs.append(auc_matrix(csr_array(columns[:, part]), presence_part).diagonal())
        counts.append(np.asarray(presence_part.sum(0)).ravel())
    if not matched:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(aucs).astype(np.float64), np.concatenate(counts)


def expected_auc(
    tested: np.ndarray, n_having: np.ndarray, n: int, chosen: np.ndarray
) -> np.ndarray:
    """Return the AUC that each name is expected to have on other items: (l,) float64.

    The estimator of Fay & Herriot (1979, JASA 74:269-277) on log-odds: the AUC of a name varies
    around a linear function of its AUC on the items that chose it, by a variance that is estimated
    from all names; its test counts the more, the smaller its error (Hanley & McNeil 1982, Radiology
    143:29-36). So the names of an encoder that is overfitted to its training items need more
    evidence.

    Parameters
    ----------
    tested, chosen : (l,) float
        AUC of each name on the testing items, and on the items that chose it.
    n_having : (l,) float
        Testing items that have the name, of `n`; 0.5 is returned if none has.
    """
    from scipy.optimize import root_scalar
    from scipy.special import expit, logit

    is_tested = n_having > 0
    found = np.full(len(tested), 0.5)
    having = n_having[is_tested]
    auc = np.clip(tested[is_tested], 1 - _MAX_AUC, 1 - 0.5 / (having + 1))
    found[is_tested] = auc
    if len(auc) < _MIN_NAMES:
        return found
    error = auc_error(auc, having, n) / (auc * (1 - auc))
    observed, features = logit(auc), np.ones((len(auc), 2))
    features[:, 1] = logit(np.clip(chosen[is_tested], 0.5, _MAX_AUC))

    def fit(variance: float) -> tuple[np.ndarray, np.ndarray]:
        weights = 1 / (variance + error**2)
        scaled = features * np.sqrt(weights)[:, None]
        coefficients, *_ = np.linalg.lstsq(scaled, observed * np.sqrt(weights), rcond=None)
        return features @ coefficients, weights

    def excess(variance: float) -> float:
        mean, weights = fit(variance)
        return float(weights @ (observed - mean) ** 2) - (len(auc) - 2)

    largest = float(np.var(observed)) + 1.0
    variance = 0.0
    if excess(0) > 0 > excess(largest):
        variance = float(root_scalar(excess, bracket=(0, largest)).root)
    mean, _ = fit(variance)
    share = variance / (variance + error**2)
    found[is_tested] = expit(mean + share * (observed - mean))
    return found


def auc_error(auc: np.ndarray, n_having: np.ndarray, n: int) -> np.ndarray:
    """Return the standard error of an AUC on n items, of which `n_having` are positive."""
    others = np.maximum(n - n_having, 1)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_having - 1) * (q1 - auc**2) + (others - 1) * (q2 - auc**2)
    error = np.sqrt(np.maximum(variance, 0) / (n_having * others))
    return np.maximum(error, 0.5 / (n_having + 1))  # the error on few items is not 0


def name_encoder(
    encoder: SparseEncoder, collection: Collection, rows: np.ndarray, backbone: TextTower
) -> dict[int, DimensionName]:
    """Name the dimensions of an encoder after captions if possible, else after a vocabulary.

    The items that the encoder was trained on, rows (r,) int, choose the names. The items of the
    validation split test them, or, if these are few, the items of every third group of equal
    captions among the rows.
    """
    validation = np.setdiff1d(evaluation_rows(collection, "select"), rows)
    enough = len(validation) >= MIN_TESTS
    if enough:
        rows = np.concatenate([rows, validation])
    embeddings = collection.image_embeddings[rows]
    images = encode_codes(encoder, embeddings, IMAGE)
    captions = collection.captions_of_rows(rows)
    texts = encode_codes(encoder, collection.text_embeddings[captions], TEXT)
    owner = collection.item_positions(rows, captions)
    reported = collection.items["captions"].iloc[rows].tolist()
    presence = nameable(concept_presence(reported))
    tests = np.isin(rows, validation) if enough else held_out_items(reported)
    named = names_from_captions(
        images.by_row, mean_caption_codes(texts, owner, len(rows)), presence, tests
    )
    words = vocabulary_of(backbone)
    embedded = word_embeddings(words, backbone, backbone.sha256)
    fits = fit_words(encoder, embeddings[~tests], words, embedded)
    named = add_vocabulary(named, fits)
    of_vocabulary = [j for j, name in named.items() if name.source == VOCABULARY]
    auc = _zero_shot_auc(
        csr_array(images.by_row[tests]),
        embeddings[tests],
        embedded[[words.index(named[j].name) for j in of_vocabulary]],
        of_vocabulary,
    )
    return named | {j: replace(named[j], auc=auc[j]) for j in of_vocabulary}


def add_vocabulary(
    names: Mapping[int, DimensionName], fits: Mapping[int, WordFit]
) -> dict[int, DimensionName]:
    """Add the vocabulary word to each name, and use it as the name if captions give none.

    The best fits get their word; others get their runner-up, or no name if that is taken too.
    """
    taken = {name.name for name in names.values()}
    named: dict[int, DimensionName] = {}
    for j in sorted({*names, *fits}, key=lambda j: (-fits[j].score if j in fits else 0.0, j)):
        fit, name = fits.get(j), names.get(j)
        if fit and not name:
            free = [one for one in (fit[:2], fit[2:]) if one[0] and one[0] not in taken]
            if not free:
                continue
            taken.add(free[0][0])
            name = DimensionName(*free[0], *(free[1] if len(free) > 1 else ("", 0.0)), VOCABULARY)
        if name:
            named[j] = replace(
                name,
                vocabulary=fit.word,
                vocabulary_score=fit.score,
                vocabulary_runner_up=fit.runner_up,
                vocabulary_runner_up_score=fit.runner_up_score,
            ) if fit else name  # fmt: skip
    return dict(sorted(named.items()))


def _zero_shot_auc(
    codes: csr_array, images: np.ndarray, words: np.ndarray, dimensions: Sequence[int]
) -> dict[int, float]:
    """Return the zero-shot evidence of dimensions for the words of their names, (w, d)."""
    found: dict[int, float] = {}
    evidence = ZeroShotEvidence(codes, images) if dimensions else None
    for start in range(0, len(dimensions), _DIMENSIONS_AT_ONCE):
        part = np.array(dimensions[start : start + _DIMENSIONS_AT_ONCE])
        assert evidence is not None
        auc = evidence.auc(words[start : start + len(part)], part)[np.arange(len(part)), part]
        found |= dict(zip(part.tolist(), auc.tolist(), strict=True))
    return found
