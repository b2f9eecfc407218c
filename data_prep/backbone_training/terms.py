"""Extract terms from captions, and generate short queries from them.

Queries have one or two words, but captions are sentences. So each image also gets *terms*: the
content words of its captions and labels, and adjacent pairs of them ("black dog", "two child").
Each term is trained as a query whose positives are all images with that term. An image whose terms
cover a caption is not a negative for that caption.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain, pairwise
from random import Random
from typing import Any

import open_clip
import torch
from sklearn.feature_extraction.text import CountVectorizer

from sieve.model.words.text import NUMBER_WORDS, STOP_WORDS, lemma, split_words

_SINGULAR = ("{}", "{}", "a {}", "a {}", "the {}", "a photo of a {}", "a picture of a {}")
_PLURAL = ("{}", "{}", "some {}", "a photo of {}")


class TermIndex:
    """Index of the terms that at least `min_images` images have in their captions or labels."""

    def __init__(
        self, captions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]],
        min_images: int = 4,
    ) -> None:  # fmt: skip
        documents = [(*texts, *words) for texts, words in zip(captions, labels, strict=True)]
        self._vectorizer: Any = CountVectorizer(
            analyzer=lambda texts: [term for text in texts for term, _ in _terms(text)],  # type: ignore[arg-type]
            binary=True,
            min_df=min_images,
        )
        has = self._vectorizer.fit_transform(documents).astype(bool)
        self.terms: list[str] = self._vectorizer.get_feature_names_out().tolist()
        self.has = torch.from_numpy(has.toarray())
        """(n, w) bool: whether each image has each term"""
        self.weights = torch.tensor([count**0.5 for count in self.has.sum(0).tolist()])
        spelt: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for text in chain.from_iterable(documents):
            for term, surface in _terms(text):
                spelt[term][surface] += 1
        self.spellings = [spelt[term] for term in self.terms]

    def named(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the mask of the terms of each caption: (c, w) bool."""
        rows = self._vectorizer.transform([(caption,) for caption in captions])
        return torch.from_numpy(rows.astype(bool).toarray())

    def query(self, column: int, random: Random) -> str:
        """Generate a short query for a term, as a user might type it."""
        surfaces = self.spellings[column]
        surface = random.choices(list(surfaces), list(surfaces.values()))[0]
        counted = surface.split()[0] in NUMBER_WORDS
        plural = counted or lemma(surface.split()[-1]) != surface.split()[-1]
        return random.choice(_PLURAL if plural else _SINGULAR).format(surface)


class CompactTokens:
    """CLIP's tokenizer, with ids renumbered to the tokens that occur in training.

    The text tower then trains a few thousand embeddings instead of 49,408, most of which would only
    decay. `spread` maps them back to the ids of CLIP's tokenizer for the saved model.
    """

    def __init__(self, texts: Sequence[str], context: int) -> None:
        self._tokenizer = open_clip.SimpleTokenizer(context_length=context)
        self._cache: dict[str, torch.Tensor] = {}
        tokens = self._tokenizer(list(texts)).flatten()
        self.used = torch.unique(torch.cat([torch.tensor([0]), tokens]))
        self._compact = torch.zeros(self._tokenizer.vocab_size, dtype=torch.long)
        # Sorted, so the end-of-text token remains the largest id, as argmax pooling expects.
        self._compact[self.used] = torch.arange(len(self.used))

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return compact token ids: (n, context) int64."""
        for text in texts:
            if text not in self._cache:
                self._cache[text] = self._compact[self._tokenizer(text)[0]]
        return torch.stack([self._cache[text] for text in texts])

    def spread(self, embedding: torch.Tensor) -> torch.Tensor:
        """Map token embeddings, (used, width), to the ids of CLIP's tokenizer.

        The embeddings of unseen tokens are zero rather than random.
        """
        full = torch.zeros(self._tokenizer.vocab_size, embedding.shape[1])
        full[self.used] = embedding
        return full


def drop_words(caption: str, random: Random, share: float) -> str:
    """Drop words of half of the captions at random, as regularisation."""
    if random.random() < 0.5:
        return caption
    words = [word for word in caption.split() if random.random() > share]
    return " ".join(words) or caption


def frequent_words(captions: Sequence[Sequence[str]], min_count: int = 3) -> list[str]:
    """Return the sorted words that occur at least `min_count` times in the captions."""
    counts = Counter(word for texts in captions for text in texts for word in split_words(text))
    return sorted(word for word, count in counts.items() if count >= min_count and len(word) > 1)


def _terms(text: str) -> list[tuple[str, str]]:
    """Return the lemmatised terms of a text, each with its original spelling."""
    words = split_words(text)
    plain = {word for word in words if len(word) > 1} - STOP_WORDS - NUMBER_WORDS
    content = plain | NUMBER_WORDS
    found = [(lemma(word), word) for word in words if word in plain]
    pairs = ((a, b) for a, b in pairwise(words) if a in content and b in content)
    return found + [(f"{lemma(a)} {lemma(b)}", f"{a} {b}") for a, b in pairs]
