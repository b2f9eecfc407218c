"""What a training step sees: a batch of pairs, and the words that stand in their captions.

Every draw depends only on the seed and the step, never on what was drawn before; a run that was
killed goes on with just the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sieve.model.collection import Collection
from sieve.model.duplicates import duplicate_groups
from sieve.model.words.content import WordPresence, concept_presence
from sieve.model.words.kinds import with_kinds

_SHUFFLE, _WORDS, _NOISE, _PAIRS = range(4)
PROMPTS = ("{}", "a {}", "a photo of a {}")
"""How a word is asked for; people type all three."""


_KIND_OF = 0.9


class Batch(NamedTuple):
    """Inputs of one step."""

    images: Tensor
    """(b, d) float32: of the rows that were asked for, by default all B"""
    texts: Tensor
    """(b, d) float32"""
    items: Tensor
    """(B,) int64: item row of each pair; that of the first copy where pictures are equal"""
    words: Tensor
    """(W, d) float32: embeddings of sampled words in their prompt"""
    stands: Tensor
    """(B, W) float32: 1 where a word stands in a caption of the pair's item"""
    exclusions: Tensor
    """(P, 2) int64: columns A, B of words that some item has both of, and some A alone"""


class TrainingData:
    """Pairs of a collection's training split.

    Parameters
    ----------
    collection : Collection
    encode_texts : callable
        The backbone's; makes the words' embeddings.
    batch_size : int
        Pairs a step; an epoch's last, smaller batch is left out unless it is the only one.
    n_words : int
        Words sampled a step for presence.
    n_exclusions : int
        Pairs of words, "A without B", drawn a step.
    noise : float
        Length of the Gaussian noise added to an embedding, as a share of its own length.
    seed : int
    kinds : bool
        A caption also has what its nouns are kinds of.

    Raises
    ------
    ValueError
        If the training split has no captions.
    """

    def __init__(
        self,
        collection: Collection,
        encode_texts: Callable[[list[str]], np.ndarray],
        *,
        batch_size: int,
        n_words: int,
        n_exclusions: int,
        noise: float,
        seed: int,
        kinds: bool = False,
    ) -> None:
        self.rows = collection.rows_of_split(["train"])
        self.pairs = collection.captions_of_rows(self.rows)
        if not len(self.pairs):
            raise ValueError(
                f"collection {collection.name} has no captioned items in its train split; "
                "training needs pairs of an image and a caption"
            )
        self.collection = collection
        self.batch_size = min(batch_size, len(self.pairs))
        self.noise = noise
        self.seed = seed
        self.n_exclusions = n_exclusions
        # Equal pictures count as one item: no copy is a negative of another.
        self._first_copy = duplicate_groups(collection)
        words = self._vocabulary(collection, kinds)
        self.words = words._replace(presence=_over_copies(words.presence, self._first_copy))
        self.n_words = min(n_words, len(self.words.words))
        asked = [prompt.format(word) for prompt in PROMPTS for word in self.words.words]
        width = collection.backbone.width
        embedded = encode_texts(asked) if asked else np.zeros((0, width))
        # (P, V, d): every word in every prompt
        self._asked_words = np.asarray(embedded, np.float32).reshape(len(PROMPTS), -1, width)
        frequency = np.sqrt(self.words.counts.astype(np.float64))
        self._word_share = frequency / max(frequency.sum(), 1)

    @staticmethod
    def _vocabulary(collection: Collection, kinds: bool) -> WordPresence:
        rows = zip(collection.items["captions"], collection.items["split"], strict=True)
        told = [captions if split == "train" else () for captions, split in rows]
        words = concept_presence(told)
        return with_kinds(words) if kinds else words

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return len(self.pairs) // self.batch_size

    def batch(self, step: int, share: slice = slice(None), *, noisy: bool = True) -> Batch:
        """Draw the batch of a step.

        Parameters
        ----------
        step : int
            Counted from the start of training.
        share : slice
            Rows of the batch whose embeddings are wanted; all else is of the whole batch.
        noisy : bool
            Add the noise. Without, embeddings come as they are stored, in float16: a GPU makes the
            noise itself.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._generator(_SHUFFLE, epoch).permutation(len(self.pairs))
        chosen = np.sort(self.pairs[order[place * self.batch_size : (place + 1) * self.batch_size]])
        rows = np.asarray(self.collection.caption_item)[chosen].astype(np.int64)
        items = self._first_copy[rows]
        words, prompts = self._sample_words(step)
        stands = self.words.presence[items][:, words].toarray()
        noise = self._generator(_NOISE, step)
        images, texts = self.collection.image_embeddings, self.collection.text_embeddings
        if noisy:
            # Drawn for all rows, so that a row's noise does not depend on who asks for it.
            image = self._noisy(images[rows], noise)[share]
            text = self._noisy(texts[chosen], noise)[share]
        else:
            image = torch.from_numpy(images[rows[share]])
            text = torch.from_numpy(texts[chosen[share]])
        return Batch(
            image,
            text,
            torch.from_numpy(items),
            torch.from_numpy(self._asked_words[prompts, words]),
            torch.from_numpy(stands),
            torch.from_numpy(self._sample_exclusions(stands, step)),
        )

    def word_embeddings(self) -> np.ndarray:
        """Mean embedding of each word over its prompts: (w, d) float32."""
        return self._asked_words.mean(0)

    def centres(self) -> Tensor:
        """Mean embedding of each modality over the training split: (2, d) float32."""
        images = self.collection.image_embeddings[self.rows].astype(np.float32).mean(0)
        texts = self.collection.text_embeddings[self.pairs].astype(np.float32).mean(0)
        return torch.from_numpy(np.stack([images, texts]))

    def noise_seed(self, step: int) -> int:
        """Seed of the noise where a device other than the CPU draws it."""
        return int(np.random.SeedSequence([self.seed, _NOISE, step]).generate_state(1)[0])

    def _sample_words(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Distinct words and a prompt for each: (W,) and (W,) int64."""
        generator = self._generator(_WORDS, step)
        if not self.n_words:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        words = generator.choice(
            len(self.words.words), self.n_words, replace=False, p=self._word_share
        )
        return np.sort(words), generator.integers(len(PROMPTS), size=self.n_words)

    def _sample_exclusions(self, stands: np.ndarray, step: int) -> np.ndarray:
        """Draw pairs of words, those more often that go together more often: (P, 2) int64."""
        if not self.n_exclusions:
            return np.empty((0, 2), np.int64)
        both = stands.T @ stands  # (W, W)
        has_a = np.diag(both)[:, None]
        share = np.where((both >= 2) & (has_a - both >= 2), both / np.maximum(has_a, 1), 0.0)
        # A word that nearly always comes with another is often a kind of it: no fair question.
        share[share > _KIND_OF] = 0.0
        pairs = np.flatnonzero(share)
        chosen = (
            self._generator(_PAIRS, step).choice(
                pairs,
                min(self.n_exclusions, len(pairs)),
                replace=False,
                p=share.flat[pairs] / share.sum(),
            )
            if len(pairs)
            else pairs
        )
        return np.stack(np.divmod(np.sort(chosen), len(both)), 1)

    def _noisy(self, embeddings: np.ndarray, generator: np.random.Generator) -> Tensor:
        clean = embeddings.astype(np.float32)
        if self.noise:
            scale = self.noise / np.sqrt(clean.shape[1])
            clean += scale * generator.standard_normal(clean.shape, np.float32)
        return torch.from_numpy(clean)

    def _generator(self, kind: int, count: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, kind, count])


def _over_copies(presence: csr_array, first_copy: np.ndarray) -> csr_array:
    """Give the first of equal pictures the words of all its copies, and the others none.

    Parameters
    ----------
    presence : (n, w) float32 of 0 and 1
    first_copy : (n,) int64
    """
    n = len(first_copy)
    if np.array_equal(first_copy, np.arange(n)):
        return presence
    joins = csr_array((np.ones(n, np.float32), (first_copy, np.arange(n))), shape=(n, n))
    joined = csr_array(joins @ presence)
    joined.data[:] = 1
    return joined
