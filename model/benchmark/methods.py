"""Methods of the exclusion benchmark: Sieve, its baselines and the upper bound.

A method is a set of rules over spaces: the embeddings of a backbone, or the codes of a trained
encoder (one space per training seed). The rules are in `sieve.model.benchmark.baselines`, those for
codes in `sieve.model.evaluation.rules`. All methods get the same query texts. Trained methods see
the same items for the same number of epochs with the same batches; they differ in losses and
activation. Their encoders are cached in `$SIEVE_HOME/peers` by configuration.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, replace
from threading import Event

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit
from tqdm import tqdm

from sieve.model.backbone.clip import resolve_device
from sieve.model.benchmark.baselines import (
    DENSE_RULES,
    NEUTRAL,
    SPLICE_WEIGHTS,
    TRAINING_FREE,
    decompose,
)
from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.concepts import encoder_concepts
from sieve.model.dimensions.statistics import ZeroShotEvidence
from sieve.model.encoder import SparseEncoder, encode_dense
from sieve.model.evaluation.metrics import recall_at
from sieve.model.evaluation.pairs import PairSet
from sieve.model.evaluation.rules import CODE_RULES, EDIT, PUSH, SWITCHES, ZERO, Rule, Space, unit
from sieve.model.exclusion import Calibration
from sieve.model.files import sieve_home
from sieve.model.hyperparameters import IMAGE, LOSSES, PAPER, TEXT, TrainingConfig
from sieve.model.training.data import TextEncoder, TrainingData, modality_means
from sieve.model.training.trainer import Trainer
from sieve.model.words.text import presence_in

log = logging.getLogger(__name__)

RECIPE = 6
"""Cache version; increase it when the same configuration no longer trains the same encoder."""
SIEVE, CONTROL = "Sieve", "dense control"
_ONLY_A = TRAINING_FREE["A only"].rule
_SUBTRACTION = TRAINING_FREE["subtraction"]
_STANDARDISED = TRAINING_FREE["item-standardised"]
TRAINED = ("paper", "reconstruction", "VDR-like", CONTROL, SIEVE)
PROBED: Mapping[str, str] = {f"{name} with probes": name for name in (CONTROL, SIEVE)}
"""Trained methods whose B is learned from training captions: see `word_weights`."""
METHODS = (*TRAINING_FREE, "SpLiCE", *TRAINED, *PROBED, "oracle")
SHORT_METHODS = (*TRAINING_FREE, SIEVE)
"""Methods that need no training, measured in a minute or two with one checkpoint."""
_MOST_PROBED = 20_000
"""Maximum number of training items that probes are fitted on, evenly spaced."""
_MOST_CAPTIONS = 5000
"""Maximum number of captions that recall is measured on, evenly spaced."""

Spaces = Mapping[str, Space]
"""Alternative representations of a method, by name."""


def method_config(name: str, sieve: TrainingConfig, n_words: int) -> TrainingConfig:
    """Return the training configuration of a method of `TRAINED`, given that of Sieve.

    All methods use its epochs and batches. `n_words` is the number of words of the training
    captions, the width of a vocabulary code.
    """
    unused = {loss: 0.0 for loss in LOSSES - {"reconstruct", "revive"}}
    reconstruction = replace(sieve, noise=0.0, n_words=0, weight_decay=1e-4, **unused)
    if name == CONTROL:
        return replace(sieve, activation="dense")
    if name == "reconstruction":
        return reconstruction
    if name == "paper":
        width = {"m": sieve.m, "k": sieve.k} if sieve.m < PAPER.k else {}
        return replace(
            PAPER, epochs=sieve.epochs, batch_size=sieve.batch_size, seed=sieve.seed, **width
        )
    if name == "VDR-like":
        return replace(
            reconstruction,
            objective="vocabulary",
            activation="elu",
            noise=sieve.noise,
            kinds=False,  # each dimension is a caption word
            contrast=1.0,
            m=n_words,
            k=min(sieve.k, n_words),
        )
    return sieve


def train_method(
    name: str,
    collection: Collection,
    sieve: TrainingConfig,
    encode_texts: TextEncoder,
    *,
    n_words: int,
    device: str = "auto",
    progress: bool = True,
    cancelled: Event | None = None,
) -> Checkpoint:
    """Train the encoder of a method on the train split of a collection, or load it from the cache.

    `sieve` is the configuration of Sieve, with the seed to use; for `n_words` see `method_config`.
    Raises a CancelledError before the next step if `cancelled` is set.
    """
    config = method_config(name, sieve, n_words)
    cache_key = {"recipe": RECIPE, "collection": collection.sha256, "config": asdict(config)}
    digest = hashlib.sha256(json.dumps(cache_key, sort_keys=True).encode()).hexdigest()
    path = sieve_home() / "peers" / digest[:24]
    if path.exists():
        return Checkpoint.load(path)
    data = TrainingData(collection, encode_texts, config)
    trainer = Trainer(data, config, resolve_device(device))
    description = f"{name}, seed {config.seed}"
    curves = []
    for _ in tqdm(range(trainer.n_steps), desc=description, unit="step", disable=not progress):
        if cancelled is not None and cancelled.is_set():
            raise CancelledError(f"cancelled the training of {description}")
        report = trainer.train_step()
        curves = [{"step": report.step, **report.losses}]
    try:
        save_checkpoint(
            path,
            trainer.export(),
            backbone=collection.backbone,
            calibration=Calibration(),
            trained_on=collection.name,
            settings=asdict(config),
            training={"curves": curves, "items": collection.items["id"].iloc[data.rows].tolist()},
            names={},
        )
    except FileExistsError:
        log.info("another process has already trained %s", description)
    return Checkpoint.load(path)


@dataclass(frozen=True)
class Method:
    """A method of the benchmark."""

    name: str
    rules: tuple[Rule, ...]
    """Alternative rules; the choice is tuned like a hyperparameter."""
    represent: Callable[[PairSet], list[Spaces]]
    """Items and queries of a pair set in the spaces of each training seed."""
    variants: tuple[Rule, ...] = ()
    """Rules that are also tuned and reported separately."""
    recall: Callable[[np.ndarray], list[dict[str, float]]] | None = None
    """Text-to-image recall over rows of the collection, for each training seed."""


class BackboneEmbeddings:
    """Embeddings of the items of a collection and of texts, by its backbone.

    The text encoder is called once per text. The train split of `train`, by default the collection
    itself, gives the means of both modalities. `ids` has the item ids of the benchmark collection
    by row, if `collection` is another one. `words` is the bank from which biases of items are
    estimated.
    """

    def __init__(
        self,
        collection: Collection,
        encode_texts: TextEncoder,
        train: Collection | None = None,
        ids: list[str] | None = None,
        words: Sequence[str] = (),
    ) -> None:
        self.collection = collection
        self.words = tuple(words)
        self.means = modality_means(train or collection)
        self._encode_texts = encode_texts
        self._ids = ids
        self._text_embeddings: dict[str, np.ndarray] = {}

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (t, d) float32, unit rows."""
        new = [text for text in dict.fromkeys(texts) if text not in self._text_embeddings]
        if new:
            self._text_embeddings |= dict(zip(new, self._encode_texts(new), strict=True))
        embeddings = np.array([self._text_embeddings[text] for text in texts], np.float32)
        return embeddings.reshape(-1, self.collection.backbone.width)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings of items, by rows of the benchmark collection: (n, d) float32."""
        if self._ids is not None:
            wanted = [self._ids[row] for row in rows]
            rows = np.array([self.collection.row_of_id[item] for item in wanted], np.int64)
        return unit(np.asarray(self.collection.image_embeddings[rows], np.float32))

    def space(self, pair_set: PairSet) -> Space:
        """Return items and queries in the space of the backbone.

        Several texts to exclude are represented by their mean.
        """
        a, b, literal = map(self.texts, (pair_set.a, pair_set.b, pair_set.literal))
        if pair_set.excluded:
            b = unit(np.array([self.texts(texts).mean(0) for texts in pair_set.excluded]))
        bank = self.texts([f"a {word}" for word in self.words]) if self.words else None
        anchor = self.texts(NEUTRAL).mean(0)
        return Space(self.images(pair_set.rows), a, b, literal, bank=bank, anchor=anchor)

    def centred(self, space: Space) -> Space:
        """Subtract the mean of each modality and renormalise, which removes the modality gap."""
        image, text = self.means
        return Space(
            unit(np.asarray(space.images) - image),
            *(unit(queries - text) for queries in (space.a, space.b, space.literal)),
            bank=None if space.bank is None else unit(space.bank - text),
            anchor=unit(self.texts(NEUTRAL) - text).mean(0),
        )

    def raw(self, pair_set: PairSet) -> list[Spaces]:
        """Return the raw space only."""
        return [{"raw": self.space(pair_set)}]

    def raw_and_centred(self, pair_set: PairSet) -> list[Spaces]:
        """Return both spaces, between which tuning chooses."""
        raw = self.space(pair_set)
        return [{"raw": raw, "centred": self.centred(raw)}]


def training_free(source: BackboneEmbeddings, name: str) -> Method:
    """Create the method of a training-free baseline."""
    baseline = TRAINING_FREE[name]
    rules = (baseline.rule, *baseline.alternatives)
    represent = source.raw_and_centred if baseline.centred else source.raw
    return Method(name, rules, represent, baseline.variants)


def other_backbone(source: BackboneEmbeddings, name: str) -> Method:
    """Create a method of all dense rules on the embeddings of another backbone."""
    rules = (_ONLY_A, *DENSE_RULES)
    return Method(name, rules, source.raw_and_centred, rules)


def splice(source: BackboneEmbeddings, words: Sequence[str]) -> Method:
    """Create SpLiCE over the words of the training captions, at several λ."""
    image_codes: dict[bytes, dict[float, csr_array]] = {}

    def represent(pair_set: PairSet) -> list[Spaces]:
        space = source.centred(source.space(pair_set))
        dictionary = unit(source.texts([f"a {word}" for word in words]) - source.means[1])
        key = pair_set.rows.tobytes()
        if key not in image_codes:
            images = np.asarray(space.images)
            image_codes[key] = {
                weight: csr_array(unit(decompose(images, dictionary, weight)))
                for weight in SPLICE_WEIGHTS
            }
        return [
            {
                f"λ = {weight}": _decomposed(space, codes, dictionary, weight)
                for weight, codes in image_codes[key].items()
            }
        ]

    return Method("SpLiCE", (*CODE_RULES, EDIT), represent, (*SWITCHES, PUSH))


def _decomposed(
    space: Space, image_codes: csr_array, dictionary: np.ndarray, weight: float
) -> Space:
    queries = np.concatenate([space.a, space.b, space.literal])
    # Many pairs share a query; each is decomposed once.
    unique, inverse = np.unique(queries, axis=0, return_inverse=True)
    codes = unit(decompose(unique, dictionary, weight))[inverse.ravel()]
    images = np.asarray(space.images)
    a, b, literal = np.split(codes, 3)
    evidence = ZeroShotEvidence(image_codes, images).auc(space.b)
    return Space(image_codes, a, b, literal, evidence, None, dictionary, images)


def coded(name: str, source: BackboneEmbeddings, encoders: Sequence[SparseEncoder]) -> Method:
    """Create a method of the codes of trained encoders; the dense control has all rules."""
    concepts_of = [
        None if name == CONTROL else encoder_concepts(encoder, source.collection).of_dimension
        for encoder in encoders
    ]

    def represent(pair_set: PairSet) -> list[Spaces]:
        space = source.space(pair_set)
        return [
            {"codes": _coded_space(encoder, space, concepts)}
            for encoder, concepts in zip(encoders, concepts_of, strict=True)
        ]

    def recall(rows: np.ndarray) -> list[dict[str, float]]:
        return [code_recall(source, rows, encoder) for encoder in encoders]

    if name == CONTROL:
        rules = (*DENSE_RULES, PUSH, ZERO)
        variants = (*_SUBTRACTION.with_variants, *_STANDARDISED.with_variants, PUSH, ZERO)
        return Method(name, rules, represent, variants, recall)
    variants = (_SUBTRACTION.rule, *CODE_RULES, *SWITCHES) if name == SIEVE else (*SWITCHES, PUSH)
    return Method(name, CODE_RULES, represent, variants, recall)


def probed(
    name: str, source: BackboneEmbeddings, encoders: Sequence[SparseEncoder], train: Collection
) -> Method:
    """Create a method of `PROBED`: the codes of trained encoders, with learned weights of B.

    A B that is rare in the captions of the train split keeps the code of its text.
    """
    rows = train.rows_of_split(["train"])
    rows = rows[:: max(-(-len(rows) // _MOST_PROBED), 1)]
    captions = train.items["captions"].iloc[rows].tolist()
    plain = coded(PROBED[name], source, encoders)
    embeddings = unit(np.asarray(train.image_embeddings[rows], np.float32))
    learned_by: list[dict[str, np.ndarray | None]] = [{} for _ in encoders]
    """For each encoder, the learned weights of each word; None if it is rare."""

    def represent(pair_set: PairSet) -> list[Spaces]:
        found: list[Spaces] = []
        represented = zip(encoders, learned_by, plain.represent(pair_set), strict=True)
        for encoder, learned, spaces in represented:
            if new := [word for word in pair_set.b_names if word not in learned]:
                weights = word_weights(new, codes_of(encoder, embeddings, IMAGE), captions)
                learned |= {word: weights.get(word) for word in new}
            space = spaces["codes"]
            texts = zip(pair_set.b_names, space.b, strict=True)
            b = np.array([t if (w := learned[word]) is None else w for word, t in texts])
            found.append({"codes": replace(space, b=b)})
        return found

    rules = _SUBTRACTION.with_variants if PROBED[name] == CONTROL else CODE_RULES
    return Method(name, rules, represent)


def _coded_space(encoder: SparseEncoder, space: Space, concepts: np.ndarray | None) -> Space:
    images = np.asarray(space.images)
    codes = codes_of(encoder, images, IMAGE)
    queries = (_dense(codes_of(encoder, part, TEXT)) for part in (space.a, space.b, space.literal))
    bank = None if space.bank is None else _dense(codes_of(encoder, space.bank, TEXT))
    coded = Space(codes, *queries, bank=bank)
    if isinstance(codes, np.ndarray):
        return coded
    evidence = ZeroShotEvidence(codes, images).auc(space.b)
    return replace(coded, evidence=evidence, concepts=concepts)


def oracle() -> Method:
    """Create the oracle, which ranks by the relevance judgments: the upper bound."""

    def represent(pair_set: PairSet) -> list[Spaces]:
        answers = pair_set.relevant.astype(np.float32)
        items = csr_array(np.eye(answers.shape[1], dtype=np.float32))
        return [{"answers": Space(items, answers, np.zeros_like(answers), answers)}]

    return Method("oracle", (_ONLY_A,), represent)


def codes_of(
    encoder: SparseEncoder, embeddings: np.ndarray, modality: str
) -> np.ndarray | csr_array:
    """Encode embeddings to unit codes: (n, m), sparse unless the encoder is dense."""
    if encoder.config.activation == "dense":
        return encode_dense(encoder, embeddings, modality)
    return encode_codes(encoder, embeddings, modality).by_row


def _dense(codes: np.ndarray | csr_array) -> np.ndarray:
    return codes if isinstance(codes, np.ndarray) else codes.toarray()


def code_recall(
    source: BackboneEmbeddings, rows: np.ndarray, encoder: SparseEncoder | None = None
) -> dict[str, float]:
    """Return the text-to-image recall among rows, by codes, or by the backbone without encoder."""
    collection = source.collection
    captions = collection.captions_of_rows(rows)
    captions = captions[:: max(-(-len(captions) // _MOST_CAPTIONS), 1)]
    item = collection.item_positions(rows, captions)
    texts = np.asarray(collection.text_embeddings[captions], np.float32)
    images = source.images(rows)
    if encoder is None:
        return recall_at(texts @ images.T, item)
    return recall_at(
        _dense(codes_of(encoder, texts, TEXT) @ codes_of(encoder, images, IMAGE).T), item
    )


PENALTY = 1e-4
"""λ"""
MIN_ITEMS = 20
"""Minimum number of training items with and without a word; other words keep the code of B."""


def word_weights(
    words: Sequence[str], codes: np.ndarray | csr_array, captions: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Learn weights of B from training captions for each word that is frequent enough.

    The text of B says which dimensions it activates, not which of them predict B in images. The
    logistic probe of a word minimises

        mean_i log(1 + exp(-y_i (w·z_i + c))) + ½ λ |w|²,   w ≥ 0 for non-negative codes

    over the training items, with y_i = ±1 for a word that is, or is not, in a caption of item i,
    also as a hypernym of its words. Its weights replace B's code: (m,) float32, of unit norm.

    `codes` are the training items', (n, m); with a negative code, weights may be negative too.
    """
    distinct = list(dict.fromkeys(words))
    texts = ["\n".join(item) for item in captions]
    presence = presence_in(distinct, texts, kinds=True).toarray() > 0
    counts = presence.sum(0)
    frequent = np.flatnonzero(np.minimum(counts, len(texts) - counts) >= MIN_ITEMS)
    found = {distinct[at]: fit_probe(codes, presence[:, at]) for at in frequent.tolist()}
    return {word: weights for word, weights in found.items() if weights.any()}


def fit_probe(
    codes: np.ndarray | csr_array, has: np.ndarray, penalty: float = PENALTY
) -> np.ndarray:
    """Fit the probe of one word: (n, m) codes, (n,) bool → (m,) float32, of unit norm or zero."""
    values = codes.data if isinstance(codes, csr_array) else codes
    lowest = 0 if values.min(initial=0) >= 0 else None
    transposed = codes.T.tocsr() if isinstance(codes, csr_array) else codes.T
    m = int(np.shape(transposed)[0])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = parameters[:m], parameters[m]
        # In float64, each product would convert all codes.
        logits = codes @ weights.astype(np.float32) + intercept
        error = expit(logits) - has
        value = np.mean(np.logaddexp(0, np.where(has, -logits, logits)))
        gradient = transposed @ (error / len(has)).astype(np.float32) + penalty * weights
        total = float(value + penalty / 2 * (weights @ weights))
        return total, np.append(gradient, error.mean())

    start = np.append(np.zeros(m), np.log(has.mean() / (1 - has.mean())))
    bounds = [(lowest, None)] * m + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:m]
    norm = np.linalg.norm(found)
    return (found / (norm if norm > 0 else 1)).astype(np.float32)
