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
from scipy.sparse.linalg import norm

from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimension_name import CAPTIONS, VOCABULARY, DimensionName, labels_people
from sieve.model.dimensions.vocabulary import (
    SHARPNESS,
    TextTower,
    WordFit,
    best_words,
    fit_words,
    vocabulary_of,
    word_embeddings,
)
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes
from sieve.model.words.text import WordPresence, concept_presence


def mean_caption_codes(text_codes: SparseCodes, caption_item: np.ndarray, n: int) -> csr_array:
    """Return the mean code of the captions of each item: (n, m) float32, zero without captions."""
    items = np.asarray(caption_item)
    counts = np.bincount(items, minlength=n).astype(np.float32)
    weights = 1 / counts[items]
    average = csr_array((weights, (items, np.arange(len(items)))), shape=(n, len(items)))
    return csr_array(average @ text_codes.by_row)


def word_association(activations: csr_array, presence: csr_array) -> np.ndarray:
    """Return the cosine of each dimension with each word over items.

    (n, m) non-negative, (n, w) of 0 and 1 → (m, w) float32, in [0, 1].
    """
    shared = (activations.T @ presence).toarray()
    counts = np.sqrt(np.asarray(presence.sum(0)).ravel())
    norms = np.outer(norm(activations, axis=0), counts)
    return (shared / np.maximum(norms, 1e-12)).astype(np.float32)


def nameable(words: WordPresence) -> WordPresence:
    """Remove words and phrases that label people: see `sieve.model.dimension_name`."""
    columns = [at for at, word in enumerate(words.words) if not labels_people(word)]
    return WordPresence([words.words[at] for at in columns], csr_array(words.presence[:, columns]))


def both_modalities(images: csr_array, texts: csr_array) -> csr_array:
    """Sum the cubed activations of both modalities, each scaled to unit norm per dimension.

    (n, m) codes of the images, and mean codes of their captions.
    """
    sharp = [codes**SHARPNESS for codes in (images, texts)]
    one, other = (codes / np.maximum(norm(codes, axis=0), 1e-12)[None, :] for codes in sharp)
    return csr_array(csr_array(one) + csr_array(other))


def name_dimensions(association: np.ndarray, words: WordPresence) -> dict[int, DimensionName]:
    """Name each dimension after its most associated word, if there is one.

    A phrase that contains the word and fits about as well is preferred: "palm tree" over "palm".
    The runner-up is the next unrelated word. `association` is (m, w), with w words and phrases of
    two words.
    """
    found = (best_words(scores, words.words, phrases=True) for scores in association)
    return _make_distinct(
        {j: DimensionName(*fit, source=CAPTIONS) for j, fit in enumerate(found) if fit}
    )


def names_from_captions(
    encoder: SparseEncoder, collection: Collection, rows: np.ndarray
) -> dict[int, DimensionName]:
    """Name the dimensions of an encoder after the captions of some items, by rows (r,) int."""
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

    Uses the items of the train split, rows (r,) int.
    """
    words = vocabulary_of(backbone)
    embeddings = word_embeddings(words, backbone, backbone.sha256)
    fits = fit_words(encoder, collection.image_embeddings[rows], words, embeddings)
    return add_vocabulary(names_from_captions(encoder, collection, rows), fits)


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
