"""The methods that the exclusion benchmark compares: Sieve and its peers.

A method is a set of rules over spaces: the backbone's own, that of another backbone, or the codes
of a trained encoder (a space for each training seed). Every method is asked with the same texts.

SpLiCE: an embedding as a sparse non-negative sum of concepts.

    min_w ½ |Cᵀ w - x|² + λ |w|₁, w ≥ 0

over unit rows C: embeddings of words, centred on the text mean; x is centred on its modality's mean
(Bhalla et al. 2024, arXiv 2402.10376). Solved by ADMM; (C Cᵀ + ρ I)⁻¹ is applied through its d × d
Woodbury form, which is cheap for many words.

Encoders that the benchmark trains itself, kept in `$SIEVE_HOME/peers` by what made them.

All see the same items for the same number of epochs with the same batches; they differ in what a
step asks and in how activations become codes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from sieve.model.backbone import resolve_device
from sieve.model.benchmark.tuning import Spaces
from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.collection import Collection
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes, encode_dense
from sieve.model.evaluation import recall_at
from sieve.model.evaluation.pairs import PairSet
from sieve.model.evaluation.rules import (
    CODE_RULES,
    DENSE_RULES,
    EDIT,
    FILTER,
    LITERAL,
    ONLY_A,
    ORTHOGONAL,
    PUSH,
    SPACEVLM,
    SUBTRACT,
    SUBTRACT_ABOVE,
    ZERO,
    Rule,
    Space,
    unit,
)
from sieve.model.exclusion import Calibration
from sieve.model.files import sieve_home
from sieve.model.training import PAPER, TrainingConfig
from sieve.model.training.objectives import LOSSES
from sieve.model.training.trainer import Trainer, training_data


def decompose(
    embeddings: np.ndarray, dictionary: np.ndarray, weight: float, iterations: int = 100
) -> np.ndarray:
    """Concepts of embeddings.

    Parameters
    ----------
    embeddings : (n, d) float32
        Centred, unit rows.
    dictionary : (v, d) float32
        Concepts, centred, unit rows.
    weight : float
        λ: with more of it, fewer concepts are active.
    iterations : int

    Returns
    -------
    (n, v) float32, non-negative
    """
    rho = np.float32(1.0)
    # (C Cᵀ + ρI)⁻¹ = (I - C (ρI + CᵀC)⁻¹ Cᵀ) / ρ
    inner = rho * np.eye(dictionary.shape[1]) + dictionary.T.astype(np.float64) @ dictionary
    back = np.linalg.solve(inner, dictionary.T).astype(np.float32)
    target = embeddings @ dictionary.T
    kept = np.zeros_like(target)
    dual = np.zeros_like(target)
    for _ in range(iterations):
        right = target + rho * (kept - dual)
        plain = (right - (right @ dictionary) @ back) / rho
        kept = np.maximum(plain + dual - weight / rho, 0)
        dual += plain - kept
    return kept.astype(np.float32)


log = logging.getLogger(__name__)

RECIPE = 3
"""Raised when the same configuration no longer trains the same encoder."""
SIEVE, PAPER_PRESET, RECONSTRUCTION, VOCABULARY, CONTROL = (
    "Sieve", "paper", "reconstruction", "VDR-like", "dense control",
)  # fmt: skip
RECIPES = {PAPER_PRESET: 4}
"""Of methods that alone train otherwise since then."""


def peer_config(name: str, sieve: TrainingConfig, n_words: int) -> TrainingConfig:
    """How a trained method trains, given how Sieve does.

    Parameters
    ----------
    name : str
        Of the method.
    sieve : TrainingConfig
        Sieve's own, whose length and batches all take.
    n_words : int
        Words of the training captions, the width of a vocabulary code.
    """
    if name == SIEVE:
        return sieve
    if name == CONTROL:
        return replace(sieve, activation="dense")
    unasked = {loss: 0.0 for loss in LOSSES - {"reconstruct", "revive"}}
    alone = replace(sieve, noise=0.0, n_words=0, weight_decay=1e-4, **unasked)
    if name == RECONSTRUCTION:
        return alone
    if name == PAPER_PRESET:
        return replace(
            PAPER,
            epochs=sieve.epochs,
            batch_size=sieve.batch_size,
            seed=sieve.seed,
            **({"m": sieve.m, "k": sieve.k} if sieve.m < PAPER.k else {}),
        )
    if name == VOCABULARY:
        return replace(
            alone,
            objective="vocabulary",
            activation="elu",
            noise=sieve.noise,
            kinds=False,  # its dimensions are the captions' own words
            contrast=1.0,
            m=n_words,
            k=min(sieve.k, n_words),
        )
    raise ValueError(f"no method {name!r} is trained")


def trained_peer(
    name: str,
    collection: Collection,
    sieve: TrainingConfig,
    encode_texts: Callable[[list[str]], np.ndarray],
    *,
    n_words: int,
    device: str = "auto",
    progress: bool = True,
) -> Checkpoint:
    """Train a method's encoder, or find the one that the same configuration trained before.

    Parameters
    ----------
    name : str
    collection : Collection
        Its train split is trained on.
    sieve : TrainingConfig
        Of this seed.
    encode_texts : callable
        The collection's backbone.
    n_words : int
    device : str
    progress : bool
    """
    config = peer_config(name, sieve, n_words)
    recipe = RECIPES.get(name, RECIPE)
    made_by = {"recipe": recipe, "collection": collection.sha256, "config": asdict(config)}
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    path = sieve_home() / "peers" / digest[:24]
    if path.exists():
        return Checkpoint.load(path)
    data = training_data(collection, config, encode_texts)
    trainer = Trainer(data, config, resolve_device(device))
    what = f"{name}, seed {config.seed}"
    report = None
    for _ in tqdm(range(trainer.n_steps), desc=what, unit="step", disable=not progress):
        report = trainer.train_step()
    encoder = trainer.finished()
    try:
        save_checkpoint(
            path,
            encoder,
            backbone=collection.backbone,
            calibration=Calibration(),
            trained_on=collection.name,
            settings=asdict(config),
            training={
                "curves": [{"step": report.step, **report.losses}] if report else [],
                "items": collection.items["id"].iloc[data.rows].tolist(),
            },
            names={},
        )
    except FileExistsError:
        log.info("another process has just trained %s", what)
    return Checkpoint.load(path)


TextEncoder = Callable[[list[str]], np.ndarray]

TRAINING_FREE: Mapping[str, Rule] = {
    "A only": ONLY_A,
    "literal": LITERAL,
    "subtraction": SUBTRACT,
    "orthogonal": ORTHOGONAL,
    "filter": FILTER,
    "SpaceVLM": SPACEVLM,
}
TRAINED = ("paper", "reconstruction", "VDR-like", "dense control", "Sieve")
METHODS = (*TRAINING_FREE, "SpLiCE", *TRAINED, "oracle")
SPLICE_WEIGHTS = (0.05, 0.1, 0.2)
"""λ of SpLiCE: from about 30 concepts to about 10."""
_RAW, _CENTRED = "raw", "centred"
_MOST_CAPTIONS = 5000
"""Recall is measured with so many captions at most, evenly spaced."""


@dataclass(frozen=True)
class Method:
    """One row of the benchmark's table."""

    name: str
    rules: tuple[Rule, ...]
    """The rule is tuned like any knob."""
    represent: Callable[[PairSet], list[Spaces]]
    """Items and queries of a set of questions, once for each training seed."""
    variants: tuple[Rule, ...] = ()
    """Rules that are also tuned and reported on their own."""
    recall: Callable[[np.ndarray], list[dict[str, float]]] | None = None
    """Text-to-image recall over some rows of the collection, once for each seed."""


class BackboneEmbeddings:
    """Embeddings of a collection's items and of any text, by its backbone.

    Parameters
    ----------
    collection : Collection
    encode_texts : callable
        Of its backbone; asked only once for each text.
    means : (2, d) float32
        Mean image and mean text of the training items.
    ids : sequence of str, optional
        Where the items are those of another collection: its ids, by its rows.
    """

    def __init__(
        self,
        collection: Collection,
        encode_texts: TextEncoder,
        means: np.ndarray,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.collection = collection
        self.means = means
        self._encode_texts = encode_texts
        self._ids = ids
        self._known: dict[str, np.ndarray] = {}

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (t, d) float32, unit rows."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._encode_texts(new), strict=True))
        width = self.collection.backbone.width
        return np.array([self._known[text] for text in texts], np.float32).reshape(-1, width)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of items, by rows of the benchmark's collection: (n, d) float32."""
        if self._ids is not None:
            wanted = (str(self._ids[row]) for row in rows.tolist())
            rows = np.array([self.collection.row_of_id[item] for item in wanted], np.int64)
        return unit(np.asarray(self.collection.image_embeddings[rows], np.float32))

    def space(self, questions: PairSet) -> Space:
        """Items and queries as the backbone has them."""
        a, b, literal = map(self.texts, (questions.a, questions.b, questions.literal))
        return Space(self.images(questions.rows), a, b, literal)

    def centred(self, space: Space) -> Space:
        """Take each modality's mean off and renormalise: the modality gap goes."""
        image, text = self.means
        return Space(
            unit(np.asarray(space.images) - image),
            *(unit(queries - text) for queries in (space.a, space.b, space.literal)),
        )


def training_free(source: BackboneEmbeddings, name: str) -> Method:
    """One dense rule on the backbone's own embeddings; where it has knobs, centring is one too."""
    rule = TRAINING_FREE[name]

    def represent(questions: PairSet) -> list[Spaces]:
        raw = source.space(questions)
        plain = rule in (ONLY_A, LITERAL)
        return [{_RAW: raw} if plain else {_RAW: raw, _CENTRED: source.centred(raw)}]

    return Method(name, (rule,), represent, (SUBTRACT_ABOVE,) if rule is SUBTRACT else ())


def other_backbone(source: BackboneEmbeddings, name: str) -> Method:
    """Another backbone's embeddings of the same items, with all dense rules."""

    def represent(questions: PairSet) -> list[Spaces]:
        raw = source.space(questions)
        return [{_RAW: raw, _CENTRED: source.centred(raw)}]

    return Method(name, (ONLY_A, *DENSE_RULES), represent, (ONLY_A, *DENSE_RULES))


def splice(source: BackboneEmbeddings, words: Sequence[str]) -> Method:
    """SpLiCE over the words of the training captions, at several strengths."""

    def represent(questions: PairSet) -> list[Spaces]:
        given = source.centred(source.space(questions))
        dictionary = unit(source.texts([f"a {word}" for word in words]) - source.means[1])
        return [
            {f"λ = {weight}": _decomposed(given, dictionary, weight) for weight in SPLICE_WEIGHTS}
        ]

    return Method("SpLiCE", (*CODE_RULES, EDIT), represent)


def _decomposed(given: Space, dictionary: np.ndarray, weight: float) -> Space:
    queries = np.concatenate([given.a, given.b, given.literal])
    # Many pairs share a query; each is decomposed once.
    different, back = np.unique(queries, axis=0, return_inverse=True)
    codes = unit(decompose(different, dictionary, weight))[back.ravel()]
    a, b, literal = np.split(codes, 3)
    images = np.asarray(given.images)
    return Space(
        csr_array(unit(decompose(images, dictionary, weight))), a, b, literal, dictionary, images
    )


def coded(name: str, source: BackboneEmbeddings, encoders: Sequence[SparseEncoder]) -> Method:
    """Codes of trained encoders, one a seed; a dense control is met with every rule there is."""

    def represent(questions: PairSet) -> list[Spaces]:
        given = source.space(questions)
        found = []
        for encoder in encoders:
            a, b, literal = (
                _dense_codes(encoder, queries, TEXT)
                for queries in (given.a, given.b, given.literal)
            )
            images = codes_of(encoder, np.asarray(given.images), IMAGE)
            found.append({"codes": Space(images, a, b, literal)})
        return found

    def recall(rows: np.ndarray) -> list[dict[str, float]]:
        return [code_recall(source, rows, encoder) for encoder in encoders]

    if name == "dense control":
        rules = (*DENSE_RULES, PUSH, ZERO)
        return Method(name, rules, represent, (SUBTRACT, SUBTRACT_ABOVE, PUSH, ZERO), recall)
    variants = (SUBTRACT, *CODE_RULES) if name == "Sieve" else ()
    return Method(name, CODE_RULES, represent, variants, recall)


def oracle() -> Method:
    """Rank by the answers themselves: the most that any method could reach."""

    def represent(questions: PairSet) -> list[Spaces]:
        answers = questions.relevant.astype(np.float32)
        nothing = np.zeros_like(answers)
        items = csr_array(np.eye(answers.shape[1], dtype=np.float32))
        return [{"answers": Space(items, answers, nothing, answers)}]

    return Method("oracle", (ONLY_A,), represent)


def codes_of(
    encoder: SparseEncoder, embeddings: np.ndarray, modality: str
) -> np.ndarray | csr_array:
    """Codes of any encoder, unit rows: (n, m), sparse where it is."""
    if encoder.config.activation == "dense":
        return encode_dense(encoder, embeddings, modality)
    return encode_codes(encoder, embeddings, modality).by_row


def _dense_codes(encoder: SparseEncoder, embeddings: np.ndarray, modality: str) -> np.ndarray:
    codes = codes_of(encoder, embeddings, modality)
    return codes if isinstance(codes, np.ndarray) else codes.toarray()


def code_recall(
    source: BackboneEmbeddings, rows: np.ndarray, encoder: SparseEncoder | None = None
) -> dict[str, float]:
    """Text-to-image recall among some items, by codes or by the backbone alone.

    Parameters
    ----------
    source : BackboneEmbeddings
        Of the benchmark's collection.
    rows : (n,) int64
    encoder : SparseEncoder, optional
    """
    collection = source.collection
    captions = collection.captions_of_rows(rows)
    captions = captions[:: max(-(-len(captions) // _MOST_CAPTIONS), 1)]
    item = collection.item_positions(rows, captions)
    texts = np.asarray(collection.text_embeddings[captions], np.float32)
    images = source.images(rows)
    if encoder is None:
        return recall_at(texts @ images.T, item)
    similar = codes_of(encoder, texts, TEXT) @ codes_of(encoder, images, IMAGE).T
    return recall_at(similar if isinstance(similar, np.ndarray) else similar.toarray(), item)
