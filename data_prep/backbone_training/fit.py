"""Train the small backbone on cached image features, with captions and short queries.

The trunk of the image tower is frozen, so its features are computed once; the projection and the
text tower are trained. Each step has one batch of photographs and one of scenes: across the two,
negatives would be too easy.

Queries have one or two words, but captions are sentences. So each image also gets *terms*: the
content words of its captions and labels, and adjacent pairs of them ("black dog", "two child").
Each term is trained as a query whose positives are all images with that term. An image whose terms
cover a caption is not a negative for that caption.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from random import Random
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import CountVectorizer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitConfig:
    """Hyperparameters of the training.

    Parameters
    ----------
    batch, queries : int
        Images, and short queries, per domain and step.
    rate : float
        Peak learning rate: 50 steps of warmup, then cosine decay to 0.
    averaging : float
        Decay of the exponential moving average of the weights, which is saved.
    """

    steps: int = 400
    batch: int = 256
    queries: int = 64
    rate: float = 1e-3
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    dropout: float = 0.1
    word_dropout: float = 0.2
    averaging: float = 0.99
    seed: int = 0


class Domain(NamedTuple):
    """Images of one kind with their captions."""

    name: str
    features: torch.Tensor
    """(n, views, c) float16: pooled features of the frozen trunk"""
    captions: Sequence[Sequence[str]]
    terms: TermIndex


class Towers:
    """Trainable parts of an open_clip model, with dropout and texts without padding.

    Parameters
    ----------
    network : open_clip.model.CustomTextCLIP
        Its text tower has the vocabulary of `tokens`.
    """

    def __init__(self, network: Any, tokens: CompactTokens, dropout: float) -> None:
        self.network, self.tokens, self.dropout = network, tokens, dropout
        self.parameters: list[nn.Parameter] = [
            *network.visual.head.parameters(),
            *network.text.parameters(),
        ]
        self.training = False

    def images(self, features: torch.Tensor) -> torch.Tensor:
        """Return the unit embeddings, (b, d), of the trunk's features, (b, c)."""
        pooled = F.dropout(features.float(), self.dropout, self.training)
        return F.normalize(self.network.visual.head(pooled).float(), dim=1)

    def texts(self, texts: Sequence[str], buckets: int = 4) -> torch.Tensor:
        """Return the unit embeddings, (n, d), of texts, batched by length to avoid padding."""
        tokens = self.tokens(texts)
        order = (tokens != 0).sum(1).argsort()
        parts = [self._text(tokens[rows]) for rows in order.chunk(buckets)]
        return torch.cat(parts)[order.argsort()]

    def _text(self, tokens: torch.Tensor) -> torch.Tensor:
        text = self.network.text
        length = int((tokens != 0).sum(1).max())
        tokens = tokens[:, :length]
        x = F.dropout(text.token_embedding(tokens), self.dropout, self.training)
        x = x + text.positional_embedding[:length]
        # On short texts PyTorch's fused attention is several times slower than the math backend.
        with sdpa_kernel(SDPBackend.MATH):
            x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
        x = F.dropout(text.ln_final(x), self.dropout, self.training)
        last = x[torch.arange(len(tokens)), tokens.argmax(1)]
        return F.normalize((last @ text.text_projection).float(), dim=1)


def caption_loss(similarity: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """Return the symmetric InfoNCE loss between n captions and their n images.

    Parameters
    ----------
    similarity : torch.Tensor
        (n, n) scaled cosines of captions (rows) and images (columns); pairs on the diagonal.
    fits : torch.Tensor
        (n, n) bool: the image has all terms of the caption, so it is not a negative.
    """
    target = torch.arange(len(similarity))
    logits = similarity.masked_fill(fits & (target[:, None] != target), -1e4)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def query_loss(similarity: torch.Tensor, has: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of short queries with all images that have their term.

    Parameters
    ----------
    similarity : torch.Tensor
        (q, n) scaled cosines of queries and images.
    has : torch.Tensor
        (q, n) bool, with at least one image per query.
    """
    share = has.float() / has.sum(1, keepdim=True)
    return -(F.log_softmax(similarity, 1) * share).sum(1).mean()


def train(
    towers: Towers, domains: Sequence[Domain], recipe: FitConfig, report: Callable[[int], None]
) -> None:
    """Train the towers in place; finally load the moving average of their weights.

    Parameters
    ----------
    report : callable
        Called with the step number every 100 steps and at the end, with averaged weights.
    """
    random = Random(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)  # dropout uses the global generator
    scales = nn.Parameter(torch.tensor([math.log(1 / 0.07), math.log(10.0)]))
    parameters = towers.parameters
    # Weight decay for matrices only, not for gains and offsets.
    decayed = [value for value in parameters if value.ndim > 1]
    others = [*(value for value in parameters if value.ndim <= 1), scales]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=recipe.betas, weight_decay=recipe.weight_decay)
    mean = [value.detach().clone() for value in parameters]
    for step in range(recipe.steps):
        towers.training = True
        warm = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
        losses = [_loss(towers, one, recipe, scales, random, generator) for one in domains]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        decay = min(recipe.averaging, (1 + step) / (10 + step))
        for average, value in zip(mean, parameters, strict=True):
            average.lerp_(value.detach(), 1 - decay)
        if step % 20 == 0:
            logger.info("step %d: %s", step, [round(loss.item(), 3) for loss in losses])
        towers.training = False
        if step % 100 == 99 or step + 1 == recipe.steps:
            _swap(parameters, mean)
            report(step + 1)
            _swap(parameters, mean)
    _swap(parameters, mean)
    with torch.no_grad():
        towers.network.logit_scale.copy_(scales[0])


def _loss(
    towers: Towers, domain: Domain, recipe: FitConfig, scales: torch.Tensor, random: Random,
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Return the loss of one batch of a domain: captions and short queries against its images."""
    index = domain.terms
    rows = torch.randperm(len(domain.features), generator=generator)[: recipe.batch]
    views = torch.randint(domain.features.shape[1], (len(rows),), generator=generator)
    captions = [random.choice(domain.captions[int(row)]) for row in rows]
    has = index.has[rows]
    drawable = index.weights * has.any(0)
    count = min(recipe.queries, int((drawable > 0).sum()))
    columns = torch.multinomial(drawable, count, generator=generator)
    texts = [drop_words(caption, random, recipe.word_dropout) for caption in captions]
    texts += [index.query(column, random) for column in columns.tolist()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = towers.images(domain.features[rows, views])
        embedded = towers.texts(texts)
    pair, short = scales.exp().clamp(max=100).unbind()
    missing = index.named(captions).float() @ (~has).float().T
    pairs = caption_loss(pair * embedded[: len(rows)] @ images.T, missing == 0)
    queries = query_loss(short * embedded[len(rows) :] @ images.T, has[:, columns].T)
    return pairs + queries


def _swap(values: Sequence[nn.Parameter], others: list[torch.Tensor]) -> None:
    for i, value in enumerate(values):
        value.data, others[i] = others[i], value.data
