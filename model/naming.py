"""Names for dimensions, from the words of captions.

A dimension and a word are associated by the cosine between the dimension's activations over items
and the word's presence in their captions: 1 where exactly the items that have the word have the
dimension, all equally. Activations of images and of captions count alike, so a name must hold in
both modalities.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from model.checkpoint import DimensionName
from model.collection import Collection
from model.dimensions import mean_caption_codes
from model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes
from model.words import WordPresence, word_presence


def word_association(activations: csr_array, presence: csr_array) -> np.ndarray:
    """Cosine of each dimension with each word over items.

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


def both_modalities(images: csr_array, texts: csr_array) -> csr_array:
    """Sum both modalities' activations, each scaled to unit norm over a dimension's items.

    Parameters
    ----------
    images, texts : (n, m) float32
        Codes of the images, and mean codes of their captions.
    """

    def unit(codes: csr_array) -> csr_array:
        norms = np.sqrt(np.asarray((codes**2).sum(0)).ravel())
        return csr_array(codes / np.maximum(norms, 1e-12)[None, :])

    return csr_array(unit(images) + unit(texts))


def name_dimensions(association: np.ndarray, words: WordPresence) -> dict[int, DimensionName]:
    """Name each dimension after its most associated word; dimensions without any stay unnamed.

    Where several dimensions share a word, the most associated one has it alone and the others add
    their runner-up: "dog" and "dog · snow".

    Parameters
    ----------
    association : (m, w) float32
    words : WordPresence
    """
    found: dict[int, DimensionName] = {}
    taken: set[str] = set()
    for j in np.argsort(-association.max(1, initial=0), kind="stable").tolist():
        ranked = np.argsort(-association[j], kind="stable")[:2]
        best = [words.words[w] for w in ranked if association[j, w] > 0]
        if not best:
            break
        word, runner_up = best[0], "".join(best[1:])
        name = f"{word} · {runner_up}" if word in taken and runner_up else word
        taken.add(word)
        found[j] = DimensionName(name, float(association[j].max()), runner_up)
    return found


def names_from_captions(
    encoder: SparseEncoder, collection: Collection, rows: np.ndarray
) -> dict[int, DimensionName]:
    """Name an encoder's dimensions by the captions of some items.

    Parameters
    ----------
    encoder : SparseEncoder
    collection : Collection
    rows : (r,) int
        Items to look at, those of the train split.
    """
    captions = collection.captions_of_rows(rows)
    place = np.zeros(collection.n_items, np.int64)
    place[rows] = np.arange(len(rows))
    owner = place[np.asarray(collection.caption_item)[captions]]
    images = encode_codes(encoder, collection.image_embeddings[rows], IMAGE)
    texts = encode_codes(encoder, collection.text_embeddings[captions], TEXT)
    activations = both_modalities(images.by_row, mean_caption_codes(texts, owner, len(rows)))
    words = word_presence(collection.items["captions"].iloc[rows].tolist())
    return name_dimensions(word_association(activations, words.presence), words)
