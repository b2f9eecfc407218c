"""Training batches: image-caption pairs, words of the captions, and their loading on a device.

Every draw depends only on the seed and the step, so a resumed run sees the same batches as an
uninterrupted one.

On a GPU a step takes as long as sampling its batch. Threads therefore prefetch the next batches
into pinned memory in float16, and the noise is drawn on the GPU. The noise differs between CPU and
GPU; everything else is equal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import logit
from torch import Tensor

from sieve.model.collection import Collection
from sieve.model.duplicates import duplicate_groups
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.distributed import World
from sieve.model.words.text import (
    WordPresence,
    concept_presence,
    presence_in,
    with_hypernyms,
)

_SHUFFLE, _WORDS, _NOISE, _PAIRS = range(4)
PROMPTS = ("{}", "a {}", "a photo of a {}")
"""Prompts of a word; users type all three."""
_KIND_OF = 0.9
"""A word that comes with another more often than this is probably its hyponym."""
_AHEAD = 6
"""Number of batches to prefetch."""
_THREADS = 3
ASSIGNED_SHARE, MOST_ASSIGNED = 0.85, 2048
"""Share of the dimensions that are assigned to a frequent word, and their maximum number."""
OMITTED_WITHIN = 0.5
"""A caption may omit a word if the image is similar to it: if its projection onto the word's
direction is at most this many standard deviations below the mean of the images that have the
word."""
_ROWS_AT_ONCE = 8192
_RAREST = 1e-4
"""Lower bound of the share of the items that have a word."""

TextEncoder = Callable[[list[str]], np.ndarray]
"""Embeds texts: (n, d) float32, unit rows."""


class Batch(NamedTuple):
    """Inputs of one step."""

    images: Tensor
    """(b, d) float32: of the requested rows, by default all B"""
    texts: Tensor
    """(b, d) float32"""
    items: Tensor
    """(B,) int64: item row of each pair; duplicates have the row of the first copy"""
    words: Tensor
    """(W, d) float32: embeddings of the sampled words, each in a prompt"""
    word_ids: Tensor
    """(W,) int64: their places in the vocabulary"""
    presence: Tensor
    """(B, W) float32: 1 if the word is in a caption of the pair's item, else 0"""
    text_presence: Tensor
    """(B, W) float32: 1 if the word is in the pair's own caption, else 0"""
    frequent_ids: Tensor
    """(F,) int64: places of the most frequent words in the vocabulary, the same in every batch"""
    frequent_log_odds: Tensor
    """(F,) float32: log p / (1 - p), p the share of the items whose captions have the word"""
    frequent_directions: Tensor
    """(F, d) float32: unit centred embeddings of the words"""
    frequent_similarity: Tensor
    """(F,) float32: projection onto its direction from which a caption may omit the word"""
    frequent_presence: Tensor
    """(B, F) float32: 1 if the word is in a caption of the pair's item, else 0"""
    exclusions: Tensor
    """(P, 2) int64: columns of words A, B; some items have both and some only A"""


class TrainingData:
    """Sampler of batches from the train split of a collection.

    The last, smaller batch of an epoch is dropped unless it is the only one. The text encoder, that
    of the backbone, is for the words, which are by default read from the captions. Raises a
    ValueError if the training split has no captions.
    """

    def __init__(
        self,
        collection: Collection,
        encode_texts: TextEncoder,
        config: TrainingConfig,
        words: WordPresence | None = None,
    ) -> None:
        self.rows = collection.rows_of_split(["train"])
        self.pairs = collection.captions_of_rows(self.rows)
        if not len(self.pairs):
            raise ValueError(
                f"collection {collection.name} has no captioned items in its train split; "
                "training needs images with captions"
            )
        self.collection = collection
        self.batch_size = min(config.batch_size, len(self.pairs))
        self._seed = config.seed
        self._noise = config.noise / np.sqrt(collection.backbone.width)
        self._n_exclusions = config.n_exclusions if config.exclude else 0
        # Prefetching may span two epochs.
        self._order = lru_cache(maxsize=2)(self._shuffled)
        # Duplicate images count as one item, so that no copy is a negative of another.
        self._first_copy = duplicate_groups(collection)
        words = words or _vocabulary(collection, config.kinds)
        self.words = words._replace(presence=_merge_copies(words.presence, self._first_copy))
        self.n_words = min(config.n_words, len(self.words.words))
        captions = [text for item in collection.items["captions"] for text in item]
        self.caption_words = presence_in(self.words.words, captions, config.kinds)
        """(c, V) float32 of 0 and 1: the words that each caption has"""
        prompts = [prompt.format(word) for prompt in PROMPTS for word in self.words.words]
        width = collection.backbone.width
        embedded = encode_texts(prompts) if prompts else np.zeros((0, width))
        # (P, V, d): every word in every prompt
        self._word_embeddings = np.asarray(embedded, np.float32).reshape(len(PROMPTS), -1, width)
        frequency = np.sqrt(self.words.counts.astype(np.float64))
        self._word_share = frequency / max(frequency.sum(), 1)
        uses = config.weighted() & {"assign", "concentrate"}
        n_frequent = min(round(ASSIGNED_SHARE * config.m), MOST_ASSIGNED) if uses else 0
        self.frequent = np.argsort(-self.words.counts, kind="stable")[:n_frequent]
        """(F,) int64: the most frequent words, which are assigned to dimensions"""
        share = np.clip(self.words.counts[self.frequent] / len(self.rows), _RAREST, 1 - _RAREST)
        self._frequent_log_odds = logit(share).astype(np.float32)
        self._frequent_directions, self._frequent_similarity = self._similarities()

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        return len(self.pairs) // self.batch_size

    def batch(self, step: int, share: slice = slice(None), *, noisy: bool = True) -> Batch:
        """Sample the batch of a step, counted from the start of training.

        Embeddings are those of a share of the rows; everything else is of the whole batch. Unless
        `noisy`, they are returned as stored, in float16; add the noise with `device_noise`.
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        at = slice(index * self.batch_size, (index + 1) * self.batch_size)
        chosen = np.sort(self.pairs[self._order(epoch)[at]])
        rows = np.asarray(self.collection.caption_item)[chosen].astype(np.int64)
        items = self._first_copy[rows]
        words, prompts = self._sample_words(step)
        of_items = csr_array(self.words.presence[items])
        presence = csr_array(of_items[:, words])
        images, texts = self.collection.image_embeddings, self.collection.text_embeddings
        if noisy:
            # Drawn for all rows, so that the noise of a row does not depend on the share.
            noise = self._generator(_NOISE, step)
            image = self._noisy(images[rows], noise)[share]
            text = self._noisy(texts[chosen], noise)[share]
        else:
            image, text = images[rows[share]], texts[chosen[share]]
        word_embeddings = self._word_embeddings[prompts, words]
        exclusions = self._sample_exclusions(presence, step)
        own = self.caption_words[chosen][:, words].toarray()
        arrays = (
            image, text, items, word_embeddings, words, presence.toarray(), own, self.frequent,
            self._frequent_log_odds, self._frequent_directions, self._frequent_similarity,
            of_items[:, self.frequent].toarray(), exclusions,
        )  # fmt: skip
        return Batch(*map(torch.from_numpy, arrays))

    def device_noise(
        self, images: Tensor, texts: Tensor, step: int, share: slice
    ) -> tuple[Tensor, Tensor]:
        """Convert embeddings, (b, d) float16, to float32, and add noise drawn on their device.

        `share` has their rows in the batch; the noise of a row does not depend on the number of
        ranks.
        """
        seed = np.random.SeedSequence([self._seed, _NOISE, step]).generate_state(1)[0]
        generator = torch.Generator(images.device).manual_seed(int(seed))
        noise = torch.empty((2, self.batch_size, images.shape[1]), device=images.device)
        noise.normal_(generator=generator).mul_(float(self._noise))
        return images.float() + noise[0, share], texts.float() + noise[1, share]

    def word_embeddings(self) -> np.ndarray:
        """Return the mean embedding of each word over its prompts: (V, d) float32."""
        return self._word_embeddings.mean(0)

    def frequent_embeddings(self) -> np.ndarray:
        """Return the embedding of each frequent word in each prompt: (P, F, d) float32."""
        return self._word_embeddings[:, self.frequent]

    def _similarities(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `frequent_directions` and `frequent_similarity` of a batch: (F, d) and (F,)."""
        means = modality_means(self.collection)
        directions = self.frequent_embeddings().mean(0) - means[1]
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
        sums = np.zeros((2, len(self.frequent)))  # of the projections and of their squares
        for start in range(0, len(self.rows), _ROWS_AT_ONCE):
            rows = self.rows[start : start + _ROWS_AT_ONCE]
            images = np.asarray(self.collection.image_embeddings[rows], np.float32) - means[0]
            projections = self.words.presence[rows][:, self.frequent].multiply(
                images @ directions.T
            )
            sums += projections.sum(0), projections.power(2).sum(0)
        mean, square = sums / np.maximum(self.words.counts[self.frequent], 1)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        return directions, (mean - OMITTED_WITHIN * deviation).astype(np.float32)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return self._generator(_SHUFFLE, epoch).permutation(len(self.pairs))

    def _sample_words(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample distinct words and a prompt for each: (W,) and (W,) int64."""
        if not self.n_words:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        generator = self._generator(_WORDS, step)
        words = generator.choice(
            len(self.words.words), self.n_words, replace=False, p=self._word_share
        )
        return np.sort(words), generator.integers(len(PROMPTS), size=self.n_words)

    def _sample_exclusions(self, presence: csr_array, step: int) -> np.ndarray:
        """Sample pairs of words in proportion to P(B|A): (P, 2) int64."""
        nothing = np.empty((0, 2), np.int64)
        if not self._n_exclusions:
            return nothing
        both = csr_array(presence.T @ presence).toarray()  # (W, W)
        has_a = np.diag(both)[:, None]
        share = np.where((both >= 2) & (has_a - both >= 2), both / np.maximum(has_a, 1), 0.0)
        # A word that nearly always comes with another is often its hyponym: no valid exclusion.
        share[share > _KIND_OF] = 0.0
        pairs = np.flatnonzero(share)
        if not len(pairs):
            return nothing
        chance, count = share.flat[pairs] / share.sum(), min(self._n_exclusions, len(pairs))
        chosen = self._generator(_PAIRS, step).choice(pairs, count, replace=False, p=chance)
        return np.stack(np.divmod(np.sort(chosen), len(both)), 1)

    def _noisy(self, embeddings: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        clean = embeddings.astype(np.float32)
        if self._noise:
            clean += self._noise * generator.standard_normal(clean.shape, np.float32)
        return clean

    def _generator(self, kind: int, count: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, kind, count])


def _vocabulary(collection: Collection, kinds: bool) -> WordPresence:
    rows = zip(collection.items["captions"], collection.items["split"], strict=True)
    words = concept_presence([captions if split == "train" else () for captions, split in rows])
    return with_hypernyms(words) if kinds else words


def modality_means(collection: Collection) -> np.ndarray:
    """Return the mean image and mean caption of the train split: (2, d) float32; 0 if empty."""
    rows = collection.rows_of_split(["train"])
    means = np.zeros((2, collection.backbone.width), np.float32)
    captions = collection.captions_of_rows(rows)
    for j, (embeddings, chosen) in enumerate(
        ((collection.image_embeddings, rows), (collection.text_embeddings, captions))
    ):
        if len(chosen):
            means[j] = np.asarray(embeddings[chosen], np.float32).mean(0)
    return means


def _merge_copies(presence: csr_array, first_copy: np.ndarray) -> csr_array:
    """Assign the words of all copies of an image to the first copy, and none to the others.

    (n, w) float32 of 0 and 1, (n,) row of the first copy → (n, w).
    """
    n = len(first_copy)
    if np.array_equal(first_copy, np.arange(n)):
        return presence
    joins = csr_array((np.ones(n, np.float32), (first_copy, np.arange(n))), shape=(n, n))
    joined = csr_array(joins @ presence)
    joined.data[:] = 1
    return joined


class PrefetchLoader:
    """Batches on the training device; prefetched by threads on a GPU, up to step `n_steps`.

    Each rank loads the embeddings of its own rows. Raises a ValueError if the batch cannot be
    divided equally among the ranks.
    """

    def __init__(
        self, data: TrainingData, device: torch.device, world: World, n_steps: int
    ) -> None:
        self._data = data
        self._device = device
        self._share = world.share(data.batch_size)
        self._n_steps = n_steps
        self._ahead: deque[tuple[int, Future[Batch]]] = deque()
        self._threads: ThreadPoolExecutor | None = None

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, and on a GPU prefetch the following ones."""
        if self._device.type != "cuda":
            return Batch(*(part.to(self._device) for part in self._data.batch(step, self._share)))
        self._threads = self._threads or ThreadPoolExecutor(_THREADS, "prefetch")
        if not self._ahead or self._ahead[0][0] != step:  # first step, or resumed
            self._ahead.clear()
        following = self._ahead[-1][0] + 1 if self._ahead else step
        for later in range(following, min(step + _AHEAD, self._n_steps)):
            self._ahead.append((later, self._threads.submit(self._pinned, later)))
        pinned = self._ahead.popleft()[1].result()
        batch = Batch(*(part.to(self._device, non_blocking=True) for part in pinned))
        noisy = self._data.device_noise(batch.images, batch.texts, step, self._share)
        return batch._replace(images=noisy[0], texts=noisy[1])

    def _pinned(self, step: int) -> Batch:
        batch = self._data.batch(step, self._share, noisy=False)
        return Batch(*(part.pin_memory() for part in batch))
