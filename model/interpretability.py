"""What an encoder's dimensions mean, over all of them: one report to compare encoders by.

Labels are the yardstick where a collection has them: does a label have a dimension of its own, is
that dimension named by it, is the code still telling of it when it is switched off.
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
from sieve.model.dimensions.leakage import LeakageReport, label_pairs, pair_reports, summarise
from sieve.model.dimensions.statistics import live_shares
from sieve.model.dimensions.vocabulary import english_words
from sieve.model.engine import Engine
from sieve.model.words.text import lemma

GOOD_AUC = 0.95
"""A label has a dimension if the best one separates it so well."""


@dataclass(frozen=True)
class NamingReport:
    """Where names are from."""

    captions: int
    """Dimensions named after words of captions."""
    vocabulary: int
    """Dimensions named after a word of the vocabulary."""
    given: int
    """Dimensions named by whoever made the codes."""
    unnamed: int
    words: int
    """Words of the vocabulary that the backbone knows."""
    words_in_list: int


@dataclass(frozen=True)
class LabelReport:
    """How labels and dimensions fit; dimensions are chosen on train, scored on test items."""

    labels: int
    """Labels that are frequent enough to tell."""
    with_dimension: float
    """Share of them whose best dimension has an AUC of at least .95."""
    name_right: float | None
    """Of those, share whose dimension is named by the label or a synonym of it."""
    vocabulary_right: float | None
    """The same for the vocabulary's names."""
    mean_auc: float
    """Of the best dimensions."""
    disentanglement: float
    completeness: float
    informativeness: float
    """Mean AUC of sparse probes over all dimensions."""


@dataclass(frozen=True)
class InterpretabilityReport:
    """Everything about an encoder on a collection."""

    dimensions: int
    live: float
    """Share of the dimensions that fire at all."""
    live_in_both: float
    """Share of those that fire alike often for images and captions."""
    means: dict[str, float]
    """Of columns of the dimension table, over the dimensions where they can be measured."""
    naming: NamingReport
    labels: LabelReport | None
    """None where the collection has no labels in its train and test splits."""
    leakage: LeakageReport | None
    """None where no two labels are seen together and apart often enough, or cannot be asked for."""


MEANS = (
    "agreement", "name_score", "clarity", "redundancy", "polysemanticity", "monosemanticity",
    "monosemanticity_labels", "label_auc", "label_purity",
)  # fmt: skip


def interpretability_report(
    engine: Engine, synonyms: Mapping[str, Sequence[str]] | None = None
) -> InterpretabilityReport:
    """Measure an encoder on a collection.

    Parameters
    ----------
    engine : Engine
    synonyms : mapping of str to sequence of str, optional
        Other right names of a label.
    """
    table = engine.dimension_table()
    columns = {name: table[name].to_numpy(np.float64) for name in MEANS}
    means = {n: float(np.nanmean(v)) for n, v in columns.items() if not np.isnan(v).all()}
    fit = fit_labels(engine.collection, engine.image_codes.by_row)
    return InterpretabilityReport(
        dimensions=len(table),
        **live_shares(engine.image_codes, engine.text_codes),
        means=means,
        naming=naming_report(engine),
        labels=None if fit is None else label_report(engine, fit, synonyms or {}),
        leakage=None if fit is None else leakage_report(engine, fit),
    )


def naming_report(engine: Engine) -> NamingReport:
    """Count where names are from."""
    sources = engine.derived.dimensions["name_source"].tolist()
    return NamingReport(
        captions=sources.count(CAPTIONS),
        vocabulary=sources.count(VOCABULARY),
        given=sources.count(GIVEN),
        unnamed=sources.count(""),
        words=0 if engine.checkpoint.codes else len(engine.vocabulary()),
        words_in_list=len(english_words()),
    )


def label_report(
    engine: Engine, fit: LabelFit, synonyms: Mapping[str, Sequence[str]]
) -> LabelReport:
    """Measure how labels and dimensions fit."""
    chosen, auc = best_dimensions(fit)
    good = np.flatnonzero(auc >= GOOD_AUC)
    right, vocabulary_right = [], []
    for at in good.tolist():
        known = [fit.labels[at], *synonyms.get(fit.labels[at], ())]
        named = engine.checkpoint.names.get(int(chosen[at]))
        right.append(named is not None and says(named.name, known))
        vocabulary_right.append(named is not None and says(named.vocabulary, known))
    codes = engine.image_codes.by_row
    probes = probe_importances(codes, fit.presence, fit.train, fit.test)
    spread = disentanglement(probes.importances)
    return LabelReport(
        labels=len(fit.labels),
        with_dimension=len(good) / len(fit.labels),
        name_right=float(np.mean(right)) if right else None,
        vocabulary_right=float(np.mean(vocabulary_right)) if right else None,
        mean_auc=float(auc.mean()),
        disentanglement=spread.disentanglement,
        completeness=spread.completeness,
        informativeness=float(probes.auc.mean()),
    )


def leakage_report(engine: Engine, fit: LabelFit) -> LeakageReport | None:
    """Measure what is left of a label whose dimensions are off, over pairs of labels."""
    named = all(engine.understands(f"a {label}") for label in fit.labels)
    if engine.checkpoint.codes and not named:
        return None
    return summarise(
        pair_reports(
            engine.image_codes,
            fit,
            label_pairs(csr_array(fit.presence[fit.test])),
            lambda text: engine.encode_text(text).code,
            engine.checkpoint.calibration,
            engine.derived.mean_positive,
        )
    )


def says(name: str, known: Sequence[str]) -> bool:
    """Whether a dimension's name is one of the known ones, in singular or plural.

    What follows a "·" tells dimensions of one name apart, and does not count.
    """
    told = _folded(name.split("·")[0])
    return bool(told) and told in {_folded(one) for one in known}


def _folded(name: str) -> str:
    return " ".join(lemma(word) for word in name.lower().split())
