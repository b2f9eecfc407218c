"""Interpretability report over all dimensions of an encoder, to compare encoders.

If a collection has labels, they are the reference: whether a label has its own dimension, whether
that dimension is named after it, and whether the code still reveals it when it is switched off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from sieve.model.dimension_name import CAPTIONS, GIVEN, VOCABULARY
from sieve.model.dimensions.labels import (
    LabelFit,
    best_dimensions,
    disentanglement,
    fit_labels,
    probe_importances,
)
from sieve.model.dimensions.leakage import (
    LeakageReport,
    PairReport,
    label_pairs,
    pair_reports,
    summarise,
)
from sieve.model.dimensions.statistics import live_shares
from sieve.model.dimensions.vocabulary import english_words
from sieve.model.engine import SearchEngine
from sieve.model.words.text import lemma

GOOD_AUC = 0.95
"""A label has a dimension if the best dimension reaches this AUC."""


@dataclass(frozen=True)
class NamingReport:
    """Number of dimensions by the source of their names."""

    captions: int
    """Dimensions named after words of captions."""
    vocabulary: int
    """Dimensions named after a word of the vocabulary."""
    given: int
    """Dimensions named in external codes."""
    unnamed: int
    confident: int
    """Named dimensions whose name passed its test, or was given."""
    words: int
    """Words of the vocabulary that the backbone knows."""
    words_in_list: int


@dataclass(frozen=True)
class LabelReport:
    """Match of labels and dimensions, which are chosen on train items and scored on test items."""

    labels: int
    """Number of labels that are frequent enough."""
    with_dimension: float
    """Share of labels whose best dimension has an AUC of at least .95."""
    with_concept: float
    """Share of labels whose best concept, a sum of dimensions, has an AUC of at least .95."""
    name_right: float | None
    """Share of those whose dimension is named after the label or a synonym."""
    vocabulary_right: float | None
    """The same for the vocabulary's names."""
    mean_auc: float
    """Mean AUC of the labels' best dimensions."""
    disentanglement: float
    completeness: float
    informativeness: float
    """Mean AUC of sparse probes over all dimensions."""


@dataclass(frozen=True)
class InterpretabilityReport:
    """Interpretability metrics of an encoder on a collection."""

    dimensions: int
    live: float
    """Share of dimensions that are active for any item."""
    live_in_both: float
    """Share of those that are active similarly often for images and captions."""
    concepts: int
    """Groups of live dimensions with the same meaning."""
    dimensions_of_a_label: float | None
    """Mean number of dimensions that hold 80% of the energy of "a LABEL"; None if labels cannot be
    encoded."""
    means: dict[str, float]
    """Means of columns of the dimension table, over the dimensions that have a value."""
    naming: NamingReport
    labels: LabelReport | None
    """None if the collection has no labels in its train and test splits."""
    leakage: LeakageReport | None
    """None if too few labels occur both together and separately, or labels cannot be encoded."""


MEANS = (
    "agreement", "name_score", "clarity", "redundancy", "polysemanticity", "monosemanticity",
    "monosemanticity_labels", "label_auc", "label_purity",
)  # fmt: skip


def interpretability_report(
    engine: SearchEngine, synonyms: Mapping[str, Sequence[str]] | None = None
) -> InterpretabilityReport:
    """Measure an encoder on a collection; `synonyms` are other correct names of each label."""
    table = engine.dimension_table()
    columns = {name: table[name].to_numpy(np.float64) for name in MEANS}
    means = {n: float(np.nanmean(v)) for n, v in columns.items() if not np.isnan(v).all()}
    fit = fit_labels(engine.collection, engine.image_codes.by_row)
    live = np.flatnonzero(np.diff(engine.image_codes.by_dimension.indptr))
    texts = [f"a {label}" for label in fit.labels] if fit else []
    encoded = texts and engine.can.text_queries and all(map(engine.understands, texts))
    codes = np.stack([engine.encode_text(text).code for text in texts]) if encoded else None
    return InterpretabilityReport(
        dimensions=len(table),
        **live_shares(engine.image_codes, engine.text_codes),
        concepts=len(np.unique(engine.concepts.of_dimension[live])),
        dimensions_of_a_label=None if codes is None else float(energy_dimensions(codes).mean()),
        means=means,
        naming=naming_report(engine),
        labels=None if fit is None else label_report(engine, fit, synonyms or {}),
        leakage=None if fit is None else leakage_report(engine, fit),
    )


def naming_report(engine: SearchEngine) -> NamingReport:
    """Count dimensions by the source of their names."""
    sources = engine.derived.dimensions["name_source"].tolist()
    return NamingReport(
        captions=sources.count(CAPTIONS),
        vocabulary=sources.count(VOCABULARY),
        given=sources.count(GIVEN),
        unnamed=sources.count(""),
        confident=engine.derived.dimensions["confident"].tolist().count(True),
        words=0 if engine.checkpoint.codes else len(engine.vocabulary()),
        words_in_list=len(english_words()),
    )


def label_report(
    engine: SearchEngine, fit: LabelFit, synonyms: Mapping[str, Sequence[str]]
) -> LabelReport:
    """Measure how well dimensions match labels."""
    chosen, auc = best_dimensions(fit)
    good = np.flatnonzero(auc >= GOOD_AUC)
    right, vocabulary_right = [], []
    for at in good.tolist():
        correct = [fit.labels[at], *synonyms.get(fit.labels[at], ())]
        named = engine.checkpoint.names.get(int(chosen[at]))
        right.append(named is not None and matches_name(named.name, correct))
        vocabulary_right.append(named is not None and matches_name(named.vocabulary, correct))
    codes = engine.image_codes.by_row
    importances, probe_auc = probe_importances(codes, fit.presence, fit.train, fit.test)
    spread = disentanglement(importances)
    return LabelReport(
        labels=len(fit.labels),
        with_dimension=len(good) / len(fit.labels),
        with_concept=_share_with_concept(engine),
        name_right=float(np.mean(right)) if right else None,
        vocabulary_right=float(np.mean(vocabulary_right)) if right else None,
        mean_auc=float(auc.mean()),
        disentanglement=spread.disentanglement,
        completeness=spread.completeness,
        informativeness=float(probe_auc.mean()),
    )


def _share_with_concept(engine: SearchEngine) -> float:
    _, summed = engine.concepts.sum(engine.image_codes.by_row)
    fit = fit_labels(engine.collection, summed)
    return 0.0 if fit is None else float((best_dimensions(fit)[1] >= GOOD_AUC).mean())


def energy_dimensions(codes: np.ndarray, share: float = 0.8) -> np.ndarray:
    """Return how many dimensions hold a share of the energy of each code: (t, m) → (t,) int64."""
    energy = np.sort(codes**2, axis=1)[:, ::-1].cumsum(axis=1)
    return (energy < share * energy[:, -1:]).sum(axis=1) + 1


def leakage_report(engine: SearchEngine, fit: LabelFit) -> LeakageReport | None:
    """Measure how much of a label remains when its dimensions are off, over pairs of labels."""
    return summarise(leakage_pairs(engine, fit))


def leakage_pairs(engine: SearchEngine, fit: LabelFit) -> list[PairReport]:
    """Measure leakage and survival of pairs of labels; none if labels cannot be encoded."""
    named = all(engine.understands(f"a {label}") for label in fit.labels)
    if engine.checkpoint.codes and not named:
        return []
    return pair_reports(
        engine.image_codes,
        fit,
        label_pairs(csr_array(fit.presence[fit.test])),
        lambda text: engine.encode_text(text).code,
        lambda text: engine.evidence(engine.encode_text(text).embedding[None]),
        engine.checkpoint.calibration,
        engine.derived.mean_positive,
    )


def matches_name(name: str, correct: Sequence[str]) -> bool:
    """Return whether a dimension's name is one of the correct ones, in singular or plural.

    A suffix after "·", which distinguishes dimensions of the same name, is ignored.
    """
    folded = _folded(name.split("·")[0])
    return bool(folded) and folded in {_folded(one) for one in correct}


def _folded(name: str) -> str:
    return " ".join(lemma(word) for word in name.lower().split())
