"""Name dimensions after caption words, or else after words of a vocabulary.

The association of a dimension and a word is the cosine between the cubed activations of the
dimension over items and the presence of the word in their captions. It is 1 if exactly the items
with the word have the dimension, all equally. The cube emphasises strong activations; otherwise the
many weak ones would name half of all dimensions after the most frequent places. Activations of
images and captions have equal weight, so a name must hold in both modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from sieve.model.collection import Collection
from sieve.model.dimension_name import CAPTIONS, VOCABULARY, DimensionName, labels_people
from sieve.model.dimensions.statistics import mean_caption_codes
from sieve.model.dimensions.vocabulary import (
    SHARPNESS,
    TextTower,
    WordFit,
    are_related,
    best_words,
    fit_words,
    vocabulary_of,
    word_embeddings,
)
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes
from sieve.model.words.text import WordPresence, concept_presence

_AS_GOOD = 0.98
"""A phrase replaces a word if its association is at least this share of that of the word."""


def word_association(activations: csr_array, presence: csr_array) -> np.ndarray:
    """Return the cosine of each dimension with each word over items.

    Parameters
    ----------
    activations : (n, m) float32, non-negative
    presence : (n, w) float32 of 0 and 1

    Returns
    -------
    (m, w) float32, in [0, 1]
    """
    shared = (activations.T @ presence).toarray()
    strength = np.sqrt(np.asarray((activations**2).sum(0)).ravel())
    counts = np.sqrt(np.asarray(presence.sum(0)).ravel())
    return (shared / np.maximum(np.outer(strength, counts), 1e-12)).astype(np.float32)


def nameable(words: WordPresence) -> WordPresence:
    """Remove words and phrases that label people: see `sieve.model.dimension_name`."""
    columns = [at for at, word in enumerate(words.words) if not labels_people(word)]
    return WordPresence([words.words[at] for at in columns], csr_array(words.presence[:, columns]))


def both_modalities(images: csr_array, texts: csr_array) -> csr_array:
    """Sum the cubed activations of both modalities, each scaled to unit norm per dimension.

    Parameters
    ----------
    images, texts : (n, m) float32
        Codes of the images, and mean codes of their captions.
    """

    def unit(codes: csr_array) -> csr_array:
        sharp = codes**SHARPNESS
        norms = np.sqrt(np.asarray((sharp**2).sum(0)).ravel())
        return csr_array(sharp / np.maximum(norms, 1e-12)[None, :])

    return csr_array(unit(images) + unit(texts))


def name_dimensions(association: np.ndarray, words: WordPresence) -> dict[int, DimensionName]:
    """Name each dimension after its most associated word, if there is one.

    A phrase that contains the word and fits about as well is preferred: "palm tree" over "palm".
    The runner-up is the next unrelated word.

    Parameters
    ----------
    association : (m, w) float32
    words : WordPresence
        Words, and phrases of two words.
    """
    fits: dict[int, WordFit] = {}
    for j, scores in enumerate(association):
        best = best_words(scores, words.words)
        if best is not None:
            fits[j] = _prefer_phrase(best, scores, words.words)
    return _make_distinct({j: DimensionName(*fit, source=CAPTIONS) for j, fit in fits.items()})


def names_from_captions(
    encoder: SparseEncoder, collection: Collection, rows: np.ndarray
) -> dict[int, DimensionName]:
    """Name the dimensions of an encoder after the captions of some items.

    Parameters
    ----------
    encoder : SparseEncoder
    collection : Collection
    rows : (r,) int
        Items to use, those of the train split.
    """
    captions = collection.captions_of_rows(rows)
    owner = collection.item_positions(rows, captions)
    images = encode_codes(encoder, collection.image_embeddings[rows], IMAGE)
    texts = encode_codes(encoder, collection.text_embeddings[captions], TEXT)
    activations = both_modalities(images.by_row, mean_caption_codes(texts, owner, len(rows)))
    words = nameable(concept_presence(collection.items["captions"].iloc[rows].tolist()))
    return name_dimensions(word_association(activations, words.presence), words)


def add_vocabulary(
    names: Mapping[int, DimensionName], fits: Mapping[int, WordFit]
) -> dict[int, DimensionName]:
    """Add the vocabulary word to each name, and use it as the name if captions give none."""
    named: dict[int, DimensionName] = {}
    for j in sorted({*names, *fits}):
        fit = fits.get(j)
        if fit is None:
            named[j] = names[j]
            continue
        name = names.get(j) or DimensionName(*fit, source=VOCABULARY)
        named[j] = replace(
            name,
            vocabulary=fit.word,
            vocabulary_score=fit.score,
            vocabulary_runner_up=fit.runner_up,
            vocabulary_runner_up_score=fit.runner_up_score,
        )
    return _make_distinct(named)


def name_encoder(
    encoder: SparseEncoder, collection: Collection, rows: np.ndarray, backbone: TextTower
) -> dict[int, DimensionName]:
    """Name the dimensions of an encoder after captions if possible, else after a vocabulary.

    Parameters
    ----------
    encoder : SparseEncoder
    collection : Collection
    rows : (r,) int
        Items to use, those of the train split.
    backbone : TextTower
        Text encoder for the vocabulary.
    """
    words = vocabulary_of(backbone)
    embeddings = word_embeddings(words, backbone, backbone.sha256)
    fits = fit_words(encoder, collection.image_embeddings[rows], words, embeddings)
    return add_vocabulary(names_from_captions(encoder, collection, rows), fits)


def _prefer_phrase(fit: WordFit, scores: np.ndarray, words: list[str]) -> WordFit:
    """Replace a word by a phrase that contains it and fits about as well."""
    order = np.argsort(-scores, kind="stable")[:8]
    near = [int(at) for at in order if scores[at] >= _AS_GOOD * fit.score]
    phrase = next((at for at in near if fit.word in words[at].split() and " " in words[at]), None)
    if phrase is None:
        return fit
    others = [at for at in order if scores[at] > 0 and not are_related(words[phrase], words[at])]
    runner_up = others[0] if others else None
    return WordFit(
        words[phrase],
        float(scores[phrase]),
        "" if runner_up is None else words[runner_up],
        0.0 if runner_up is None else float(scores[runner_up]),
    )


def _make_distinct(names: Mapping[int, DimensionName]) -> dict[int, DimensionName]:
    """Add the runner-up to repeated names, except for the highest score: "dog", "dog · snow"."""
    distinct: dict[int, DimensionName] = {}
    taken: set[str] = set()
    for j, name in sorted(names.items(), key=lambda entry: -entry[1].score):
        fuller = f"{name.name} · {name.runner_up}"
        is_shared = name.name in taken and name.runner_up and "·" not in name.name
        taken.add(name.name)
        distinct[j] = (
            replace(name, name=fuller) if is_shared and not labels_people(fuller) else name
        )
    return distinct
