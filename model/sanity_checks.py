"""Sanity checks of interpretability metrics: controls without learned dimensions, and seeds.

A metric says something about training only if an encoder that has learned nothing scores worse. The
controls have the same width and the same number of active dimensions (Korznikov et al. 2026, arXiv
2602.14111; Klotz et al. 2026, arXiv 2606.24716):

- untrained: random weights;
- frozen decoder: trained with the same losses, but with random decoder weights. Captions still
  train the encoder, so this only tests what the decoder adds;
- shuffled pairs: trained with the captions of other images;
- coordinates, PCA, ICA: the positive and the negative part of each coordinate of the centred
  embedding, of each principal component, and of each independent component.

Counterfactual images differ from an original in one object or in the place. A dimension is
selective if it falls when its own object leaves, and stays when another does.

Dimensions of several training seeds are matched one to one by the correlation of their activations
(the Hungarian algorithm), as in pairwise mean correlation coefficients (PW-MCC).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations, starmap
from typing import NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from sieve.model.backbone.clip import resolve_device
from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.codes import encode_codes, shape_of
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import save_measurements
from sieve.model.dimensions.labels import (
    best_dimensions,
    disentanglement,
    fit_labels,
    probe_importances,
)
from sieve.model.dimensions.naming import name_encoder
from sieve.model.encoder import SparseEncoder
from sieve.model.engine import SearchEngine
from sieve.model.files import sieve_home
from sieve.model.hyperparameters import IMAGE, TrainingConfig
from sieve.model.interpretability import GOOD_AUC, leakage_pairs, matches_name
from sieve.model.training.data import TextEncoder, TrainingData, modality_means
from sieve.model.training.trainer import Trainer
from sieve.model.training.validation import calibrate

CONTROLS = ("untrained", "frozen decoder", "shuffled pairs", "coordinates", "PCA", "ICA")
TRAINED = "trained"
RECURS = 0.7
"""Minimum correlation with which a dimension counts as found again by another seed."""
_RECIPE = 2
"""Cache version of the controls."""
_RESAMPLES = 1000


class Metric(NamedTuple):
    """A metric as a weighted mean over units: dimensions, labels or pairs of labels."""

    values: np.ndarray
    """(u,) float64"""
    weights: np.ndarray
    """(u,) float64, non-negative"""


class Estimate(NamedTuple):
    """A metric with its 95% bootstrap interval over units."""

    value: float
    low: float
    high: float


class MetricCheck(NamedTuple):
    """A metric of the trained encoder and of each control."""

    name: str
    lower_is_better: bool
    trained: Estimate
    controls: Mapping[str, Estimate]

    @property
    def not_distinguished_from(self) -> tuple[str, ...]:
        """Controls whose interval is not apart from, and worse than, that of the encoder."""
        return tuple(
            name
            for name, other in self.controls.items()
            if not (
                self.trained.high < other.low
                if self.lower_is_better
                else self.trained.low > other.high
            )
        )


LOWER_IS_BETTER = (
    "redundancy", "polysemanticity", "leakage", "leakage of the same probe",
)  # fmt: skip


def sanity_checks(
    engine: SearchEngine,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    controls: Sequence[str] = CONTROLS,
    *,
    device: str = "auto",
    on_control: Callable[[str], None] | None = None,
) -> list[MetricCheck]:
    """Measure the encoder of an engine and controls on its collection.

    Controls that are not cached in `$SIEVE_HOME/controls` are trained first. `on_control` is called
    with the name of each before it is measured. Raises a ValueError for external codes.
    """
    found: dict[str, dict[str, Estimate]] = {}
    for name in (TRAINED, *controls):
        if on_control is not None:
            on_control(name)
        measured = engine
        if name != TRAINED:
            measured = engine.with_checkpoint(control_checkpoint(name, engine, device))
        metrics = encoder_metrics(measured, synonyms or {})
        found[name] = {metric: estimate(values) for metric, values in metrics.items()}
    return [
        MetricCheck(
            metric,
            metric in LOWER_IS_BETTER,
            value,
            {name: found[name][metric] for name in controls if metric in found[name]},
        )
        for metric, value in found[TRAINED].items()
    ]


def encoder_metrics(
    engine: SearchEngine, synonyms: Mapping[str, Sequence[str]]
) -> dict[str, Metric]:
    """Return the metrics of `sieve.model.interpretability` by their units."""
    table = engine.dimension_table()
    metrics: dict[str, Metric] = {}
    for name in (
        "clarity", "monosemanticity", "monosemanticity_labels", "redundancy", "polysemanticity",
        "agreement", "name_auc", "label_auc", "label_purity",
    ):  # fmt: skip
        values = table[name].to_numpy(np.float64)
        metrics[name] = _mean_of(values[~np.isnan(values)])
    live = table["firing_images"].to_numpy() > 0
    metrics["certain names"] = _mean_of(table["confident"].to_numpy()[live])
    fit = fit_labels(engine.collection, engine.image_codes.by_row)
    if fit is None:
        return {name: metric for name, metric in metrics.items() if len(metric.values)}
    chosen, auc = best_dimensions(fit)
    good = auc >= GOOD_AUC
    metrics[f"labels with a dimension of AUC ≥ {GOOD_AUC}"] = _mean_of(good)
    metrics["AUC of a label's dimension"] = _mean_of(auc)
    names = [
        matches_name(engine.checkpoint.name_of(int(chosen[at])), [label, *synonyms.get(label, ())])
        for at, label in enumerate(fit.labels)
    ]
    metrics["labels with a dimension of their name"] = _mean_of(np.array(names) & good)
    importances, probe_auc = probe_importances(
        engine.image_codes.by_row, fit.presence, fit.train, fit.test
    )
    spread = disentanglement(importances)
    for name, values, weights in (
        ("disentanglement", spread.by_dimension, importances.sum(1)),
        ("completeness", spread.by_label, importances.sum(0)),
    ):
        metrics[name] = Metric(np.nan_to_num(values), weights)
    metrics["AUC of probes (informativeness)"] = _mean_of(probe_auc)
    pairs = leakage_pairs(engine, fit)
    whole = np.maximum([pair.auc_all - 0.5 for pair in pairs], 1e-9)
    for name, aucs in (
        ("leakage", [pair.auc_off for pair in pairs]),
        ("leakage of the same probe", [pair.auc_zeroed for pair in pairs]),
    ):
        metrics[name] = Metric((np.array(aucs) - 0.5) / whole, whole)
    return {name: metric for name, metric in metrics.items() if len(metric.values)}


def _mean_of(values: np.ndarray) -> Metric:
    values = np.asarray(values, np.float64)
    return Metric(values, np.ones(len(values)))


def estimate(metric: Metric, resamples: int = _RESAMPLES, seed: int = 0) -> Estimate:
    """Return the weighted mean with the 95% interval of a bootstrap over units."""
    generator = np.random.default_rng(seed)
    n = len(metric.values)
    draws = generator.multinomial(n, np.full(n, 1 / n), size=resamples) * metric.weights
    means = (draws @ metric.values) / np.maximum(draws.sum(1), 1e-12)
    total = max(metric.weights.sum(), 1e-12)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(metric.weights @ metric.values / total), float(low), float(high))


def control_checkpoint(name: str, engine: SearchEngine, device: str = "auto") -> Checkpoint:
    """Return the checkpoint of a control for an engine's encoder, trained and named once."""
    collection = engine.collection
    config = _config_of(engine.checkpoint)
    key = [_RECIPE, name, collection.sha256, asdict(config)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = sieve_home() / "controls" / digest[:24]
    if not path.exists():
        backbone = engine.backbone
        encoder = control_encoder(name, collection, config, backbone.encode_texts, device)
        rows = collection.rows_of_split(["train"])
        with contextlib.suppress(FileExistsError):  # another process was faster
            save_checkpoint(
                path,
                encoder,
                backbone=collection.backbone,
                calibration=calibrate(encoder, collection, backbone.encode_texts),
                trained_on=collection.name,
                settings=asdict(config),
                training={"curves": [], "items": collection.items["id"].iloc[rows].tolist()},
                names=name_encoder(encoder, collection, rows, backbone),
            )
    return Checkpoint.load(path)


def _config_of(checkpoint: Checkpoint) -> TrainingConfig:
    """Return the configuration of a checkpoint's training; the default if it has none."""
    settings = checkpoint.config.training
    config = TypeAdapter(TrainingConfig).validate_python(settings) if settings else None
    return config or replace(
        TrainingConfig(), m=checkpoint.m, k=checkpoint.encoder.config.active("image")
    )


def control_encoder(
    name: str,
    collection: Collection,
    config: TrainingConfig,
    encode_texts: TextEncoder,
    device: str = "auto",
) -> SparseEncoder:
    """Make the encoder of a control; raise a ValueError if there is no such control."""
    if name in ("frozen decoder", "shuffled pairs"):
        shuffled = _Shuffled(collection, config.seed) if name == "shuffled pairs" else collection
        data = TrainingData(shuffled, encode_texts, config)
        trainer = Trainer(data, config, resolve_device(device))
        trainer.module.encoder.decode_md.requires_grad_(name != "frozen decoder")
        for _ in range(trainer.n_steps):
            trainer.train_step()
        return trainer.export()
    generator = torch.Generator().manual_seed(config.seed)
    encoder = SparseEncoder(config.shape(collection.backbone.width), generator)
    encoder.centre.copy_(torch.from_numpy(modality_means(collection)))
    if name != "untrained":
        directions = _signed(_components(name, encoder, collection), config.m)
        with torch.no_grad():
            encoder.encode_md.copy_(torch.from_numpy(directions))
            encoder.decode_md.copy_(encoder.encode_md)
    return encoder.eval()


class _Shuffled(Collection):
    """A collection whose training images are exchanged among items, with their captions in place.

    Only the image embeddings differ from the original.
    """

    def __init__(self, original: Collection, seed: int) -> None:
        super().__init__(original.path, original.manifest, original.sha256)
        rows = original.rows_of_split(["train"])
        order = np.arange(original.n_items)
        order[rows] = np.random.default_rng(seed).permutation(rows)
        self._images = np.asarray(original.image_embeddings)[order]

    @property
    def image_embeddings(self) -> np.ndarray:
        return self._images


def _components(name: str, encoder: SparseEncoder, collection: Collection) -> np.ndarray:
    """Return the directions of a linear control: (c, d) float32."""
    width = collection.backbone.width
    if name == "coordinates":
        return np.eye(width, dtype=np.float32)
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    rows = collection.rows_of_split(["train"])
    images = torch.from_numpy(np.asarray(collection.image_embeddings[rows], np.float32))
    centred = encoder.centred(images, "image").numpy()
    n_components = min(width, len(rows) - 1, encoder.config.m // 2)
    if name == "PCA":
        return np.asarray(PCA(n_components, random_state=0).fit(centred).components_, np.float32)
    ica = FastICA(n_components, whiten="unit-variance", max_iter=100, tol=0.01, random_state=0)
    with warnings.catch_warnings():
        # An approximate solution is enough for a control.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(ica.fit(centred).components_, np.float32)


def _signed(directions: np.ndarray, m: int) -> np.ndarray:
    """Return the directions and their negatives, cut or filled with zeros: (m, d) float32."""
    half = directions[: m // 2]
    signed = np.zeros((m, directions.shape[1]), np.float32)
    signed[: len(half)], signed[len(half) : 2 * len(half)] = half, -half
    return signed


class SeedConsistency(NamedTuple):
    """How far dimensions, or concepts, of several training seeds agree."""

    units: int
    """Number of live dimensions, or of concepts, of the first seed."""
    mean_correlation: float
    """Mean over matched units and over pairs of seeds."""
    recurring: float
    """Share of the units of the first seed with a correlation of at least `RECURS` in all."""
    stability: np.ndarray
    """(m,) float64: lowest correlation of each unit of the first seed; NaN if it is never active"""


def seed_consistency(codes: Sequence[csr_array]) -> SeedConsistency:
    """Match the columns of two or more codes of the same items, (n, m) each."""
    first, *others = codes
    matched = [match_dimensions(first, other) for other in others]
    every = [*matched, *starmap(match_dimensions, combinations(others, 2))]
    stability = np.min(matched, axis=0)
    live = ~np.isnan(stability)
    return SeedConsistency(
        int(live.sum()),
        float(np.mean([np.nanmean(one) for one in every])),
        float((stability[live] >= RECURS).mean()),
        stability,
    )


def match_dimensions(one: csr_array, other: csr_array) -> np.ndarray:
    """Return the correlation of each column with its match in another encoder's codes.

    (n, m) and (n, m') sparse → (m,) float64: NaN for a column that is never active, 0 for one
    without a match.
    """
    correlation = _correlations(one, other)
    rows, columns = linear_sum_assignment(correlation, maximize=True)
    found = np.zeros(shape_of(one)[1])
    found[rows] = correlation[rows, columns]
    return np.where(np.asarray(one.sum(0)).ravel() > 0, found, np.nan)


def _correlations(one: csr_array, other: csr_array) -> np.ndarray:
    """Return Pearson's correlations of all columns: (m, m') float64, 0 for constant columns."""
    n = shape_of(one)[0]
    means = [np.asarray(each.sum(0), np.float64).ravel() / n for each in (one, other)]
    squares = [np.asarray((each**2).sum(0), np.float64).ravel() / n for each in (one, other)]
    spreads = [np.sqrt(np.maximum(s - m**2, 0)) for s, m in zip(squares, means, strict=True)]
    both = (one.T @ other).toarray().astype(np.float64) / n
    scale = spreads[0][:, None] * spreads[1]
    return np.where(scale > 1e-12, (both - np.outer(*means)) / np.maximum(scale, 1e-12), 0)


def checkpoint_consistency(
    engines: Sequence[SearchEngine],
) -> tuple[SeedConsistency, SeedConsistency]:
    """Return the consistency of dimensions, and of concepts, over the items of a collection.

    The stability of the first engine's dimensions is saved for its dimension table.
    """
    codes = [engine.image_codes.by_row for engine in engines]
    concepts = [engine.concepts.sum(each)[1] for engine, each in zip(engines, codes, strict=True)]
    dimensions = seed_consistency(codes)
    save_measurements(engines[0].checkpoint, {"stability": dimensions.stability})
    return dimensions, seed_consistency(concepts)


class CounterfactualPair(NamedTuple):
    """Rows of an image and of the same image with one change."""

    original: int
    changed: int
    lost: frozenset[str]
    """Labels that only the original has."""


class Falls(NamedTuple):
    """Relative fall of each dimension in counterfactual images: (m,) float64 each, at most 1.

    NaN with too few pairs. A negative fall is a rise.
    """

    own: np.ndarray
    """When the object of its own label leaves."""
    other: np.ndarray
    """When another object leaves, or the place changes, and its own object stays."""

    @property
    def selectivity(self) -> np.ndarray:
        """Fall for its own object divided by the change for others, at least `LEAST_CHANGE`."""
        return self.own / np.maximum(np.abs(self.other), LEAST_CHANGE)


MIN_PAIRS = 3
"""Minimum number of pairs whose original has the dimension."""
LEAST_CHANGE = 0.01


def counterfactual_falls(
    codes: csr_array,
    pairs: Sequence[CounterfactualPair],
    item_labels: Sequence[Sequence[str]],
    labels: Sequence[str],
    min_pairs: int = MIN_PAIRS,
) -> Falls:
    """Measure how far each dimension falls in counterfactual images.

        fall_j = Σ (z_j - z'_j) / Σ z_j

    over pairs (z, z') of codes, both of unit norm.

    Parameters
    ----------
    codes : (n, m) float32, sparse
    pairs : sequence of CounterfactualPair
        Rows of `codes`.
    item_labels : (n,) sequences of str
    labels : (m,) str
        Label of each dimension; empty if it has none.
    """
    before = codes[[pair.original for pair in pairs]].toarray().astype(np.float64)
    after = codes[[pair.changed for pair in pairs]].toarray().astype(np.float64)
    known = {label: at for at, label in enumerate(dict.fromkeys(labels))}
    lost, stays = (np.zeros((len(pairs), len(known)), bool) for _ in range(2))
    for row, pair in enumerate(pairs):
        lost[row, [known[label] for label in pair.lost if label in known]] = True
        kept = set(item_labels[pair.original]) & set(item_labels[pair.changed])
        stays[row, [known[label] for label in kept if label in known]] = True
    column = np.array([known[label] for label in labels])
    has_label = np.array([bool(label) for label in labels])
    falls = []
    for applies in (lost, stays):
        used = applies[:, column] & (before > 0) & has_label
        whole = (before * used).sum(0)
        enough = used.sum(0) >= min_pairs
        fallen = ((before - after) * used).sum(0)
        falls.append(np.where(enough, fallen / np.where(enough, whole, 1), np.nan))
    return Falls(*falls)


def engine_falls(
    engine: SearchEngine, collection: Collection, pairs: Sequence[CounterfactualPair]
) -> tuple[Falls, Falls]:
    """Return the falls of an engine's dimensions, and of its concepts by leading dimension.

    Those of the dimensions are saved for the dimension table. `collection` has counterfactual
    images with the same backbone, and `pairs` its rows. Raises a ValueError if the checkpoint does
    not fit it.
    """
    engine.checkpoint.check_fits(collection)
    codes = encode_codes(engine.checkpoint.encoder, collection.image_embeddings, IMAGE).by_row
    item_labels = collection.items["labels"].tolist()
    labels = engine.derived.dimensions["label"].tolist()
    leading, summed = engine.concepts.sum(codes)
    falls = counterfactual_falls(codes, pairs, item_labels, labels)
    save_measurements(engine.checkpoint, {"own_fall": falls.own, "other_fall": falls.other})
    return falls, counterfactual_falls(
        summed, pairs, item_labels, [labels[j] for j in leading.tolist()]
    )
