"""Interpretability report over all dimensions of an encoder, to compare encoders.

If a collection has labels, they are the reference: whether a label has its own dimension, whether
that dimension is named after it, and whether the code still reveals it when it is switched off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from scipy.sparse import csc_array, csr_array

from sieve.model.dimension_name import CAPTIONS, GIVEN, VOCABULARY
from sieve.model.dimensions import concepts
from sieve.model.dimensions.code_cache import cache_folder, read_or_compute
from sieve.model.dimensions.labels import (
    LabelFit,
    absorption,
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
from sieve.model.dimensions.statistics import auc_matrix, live_shares
from sieve.model.dimensions.vocabulary import english_words
from sieve.model.duplicates import evaluation_rows
from sieve.model.engine import SearchEngine
from sieve.model.evaluation.pairs import (
    PairCriteria,
    PairSet,
    split_pairs,
)
from sieve.model.words.text import lemma, presence_in

VERSION = 2
"""Version of the report; a cached report of another version is computed again."""
_FILE = "report.json"
GOOD_AUC = 0.95
"""A label has a dimension if the best dimension reaches this AUC."""
RIGHT_AUC = 0.8
"""A name is right on test items if it predicts the activation with this AUC."""
CHANCE_AUC = 0.6
"""A dimension that is switched off does not fit B if its AUC for B is lower."""
MIN_TESTED = 3
"""A name is tested if at least this many test items have it."""


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
    equal: int
    """Dimensions whose name another dimension has, too."""
    confident: int
    """Named dimensions whose name passed its test, or was given."""
    confident_live: float
    """Share of the live dimensions whose name passed its test, or was given."""
    tested: int
    """Confident names that enough test items have, which took no part in naming."""
    right: float | None
    """Share of those that predict the activation on test items with an AUC of at least .8."""
    words: int
    """Words of the vocabulary that the backbone knows."""
    words_in_list: int


@dataclass(frozen=True)
class SwitchReport:
    """Concepts that "without B" switches off, over the report pairs of the benchmark."""

    pairs: int
    items: int
    median: float
    """Median number of concepts that are switched off."""
    most: int
    """Largest number of concepts that are switched off."""
    dimensions: int
    """Dimensions that are switched off, summed over pairs."""
    chance: float
    """Share of those with an AUC for B below .6: they do not separate B's images."""


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
    absorption: float | None
    """Share of the items of a special case, such as dogs, on which the dimension of its general
    label, such as animal, is inactive; mean over pairs of labels, None without any."""
    absorption_pairs: int


@dataclass(frozen=True)
class RecallReport:
    """Text-to-image recall@10 on the test split."""

    codes: float
    backbone: float
    relative: float
    """Recall of the codes, relative to the backbone's."""


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
    dimensions_of_a_word: float | None
    """Mean number of dimensions that hold 80% of the energy of "a LABEL", or of a noun if the
    collection has no labels; None if these cannot be encoded."""
    means: dict[str, float]
    """Means of columns of the dimension table, over the dimensions that have a value."""
    naming: NamingReport
    switches: SwitchReport | None
    """None if the test split has no pairs, or they cannot be encoded."""
    recall: RecallReport | None
    """None without captioned test items or a backbone."""
    labels: LabelReport | None
    """None if the collection has no labels in its train and test splits."""
    leakage: LeakageReport | None
    """None if too few labels occur both together and separately, or labels cannot be encoded."""


_Stored = TypeAdapter(InterpretabilityReport)
MEANS = (
    "agreement", "name_score", "clarity", "redundancy", "polysemanticity", "monosemanticity",
    "monosemanticity_labels", "label_auc", "label_purity",
)  # fmt: skip


def interpretability_report(
    engine: SearchEngine, synonyms: Mapping[str, Sequence[str]] | None = None
) -> InterpretabilityReport:
    """Measure an encoder on a collection; `synonyms` are other correct names of each label."""
    table = engine.derived.dimensions
    columns = {name: table[name].to_numpy(np.float64) for name in MEANS}
    means = {n: float(np.nanmean(v)) for n, v in columns.items() if not np.isnan(v).all()}
    fit = fit_labels(engine.collection, engine.image_codes.by_row)
    pairs = split_pairs(engine.collection, "test", PairCriteria(), tuning=False)
    texts = [f"a {label}" for label in fit.labels] if fit else pairs.texts if pairs else []
    encoded = texts and can_encode(engine, texts)
    codes = np.stack([engine.encode_text(text).code for text in texts]) if encoded else None
    return InterpretabilityReport(
        dimensions=len(table),
        **live_shares(engine.image_codes, engine.text_codes),
        concepts=len(np.unique(engine.concepts.of_dimension[is_live(table)])),
        dimensions_of_a_word=None if codes is None else float(energy_dimensions(codes).mean()),
        means=means,
        naming=naming_report(engine),
        switches=switch_report(engine, pairs) if pairs else None,
        recall=recall_report(engine),
        labels=None if fit is None else label_report(engine, fit, synonyms or {}),
        leakage=None if fit is None else leakage_report(engine, fit),
    )


def open_report(
    engine: SearchEngine, synonyms: Mapping[str, Sequence[str]] | None = None
) -> InterpretabilityReport:
    """Return the report of an engine, computed once and cached in `$SIEVE_HOME`."""
    return read_or_compute(
        _report_folder(engine),
        lambda folder: _Stored.validate_json((folder / _FILE).read_bytes()),
        lambda: interpretability_report(engine, synonyms),
        _save,
    )


def _save(report: InterpretabilityReport, folder: Path) -> None:
    (folder / _FILE).write_bytes(_Stored.dump_json(report))


def is_report_cached(engine: SearchEngine) -> bool:
    """Return whether `open_report` need not compute anything."""
    return _report_folder(engine).is_dir()


def _report_folder(engine: SearchEngine) -> Path:
    # Without a text encoder, parts of the report are missing.
    kind = "texts" if engine.can.text_queries else "images"
    # It is computed again when the grouping of concepts changes.
    name = f"report{VERSION}-concepts{concepts.VERSION}-{kind}"
    return cache_folder(engine.collection, engine.checkpoint, name)


def naming_report(engine: SearchEngine) -> NamingReport:
    """Count dimensions by the source of their names."""
    table = engine.derived.dimensions
    sources, confident = table["name_source"].tolist(), table["confident"].to_numpy(bool)
    live = is_live(table)
    names = [name.name for name in engine.checkpoint.names.values()]
    auc = np.array([one for j, one in name_auc(engine).items() if confident[j]])
    return NamingReport(
        captions=sources.count(CAPTIONS),
        vocabulary=sources.count(VOCABULARY),
        given=sources.count(GIVEN),
        unnamed=sources.count(""),
        equal=sum(count for count in Counter(names).values() if count > 1),
        confident=int(confident.sum()),
        confident_live=float(confident[live].mean()) if live.any() else 0.0,
        tested=len(auc),
        right=float((auc >= RIGHT_AUC).mean()) if len(auc) else None,
        words=0 if engine.checkpoint.codes else len(engine.vocabulary()),
        words_in_list=len(english_words()),
    )


def is_live(table: pd.DataFrame) -> np.ndarray:
    """Return which dimensions are active for any image or caption: (m,) bool."""
    return (table[["firing_images", "firing_texts"]].max(axis=1) > 0).to_numpy(bool)


def name_auc(engine: SearchEngine) -> dict[int, float]:
    """Return the AUC with which each automatic name predicts the activation on the test split.

    Names that fewer than three test items have are left out.
    """
    rows = evaluation_rows(engine.collection, "test")
    named = [(j, name) for j, name in engine.checkpoint.names.items() if name.auc is not None]
    if not len(rows) or not named or not engine.collection.n_captions:
        return {}
    codes = csc_array(engine.image_codes.by_row[rows])
    words = sorted({word for _, name in named for word in name.name.split(" · ")})
    captions = engine.collection.items["captions"].iloc[rows]
    presence = presence_in(words, ["\n".join(each) for each in captions]).toarray()
    column = {word: at for at, word in enumerate(words)}
    found = {}
    for j, name in named:
        has = presence[:, [column[word] for word in name.name.split(" · ")]].min(axis=1)
        if MIN_TESTED <= has.sum() < len(has):
            auc = auc_matrix(csr_array(codes[:, [j]]), csr_array(has[:, None]))
            found[j] = float(auc[0, 0])
    return found


def can_encode(engine: SearchEngine, texts: Sequence[str]) -> bool:
    """Return whether all texts can be encoded."""
    return engine.can.text_queries and all(map(engine.understands, texts))


def switch_report(engine: SearchEngine, pairs: PairSet) -> SwitchReport | None:
    """Count what the engine proposes to switch off for each pair, and how well it fits B."""
    if not len(pairs) or not can_encode(engine, pairs.texts):
        return None
    names, first = np.unique(pairs.b_names, return_index=True)
    of_b = {name: at for at, name in enumerate(names.tolist())}
    having = csr_array(pairs.has_b[first].T.astype(np.float32))
    auc = auc_matrix(engine.image_codes.by_row[pairs.rows], having)  # (m, distinct b)
    counts, values = [], []
    for a, b, name in zip(pairs.a, pairs.b, pairs.b_names, strict=True):
        try:
            off = list(engine.encode(a, b).proposed)
        except ValueError:  # no dimension is active for A
            continue
        counts.append(len(set(engine.concepts.of_dimension[off].tolist())))
        values.append(auc[off, of_b[name]])
    if not counts:
        return None
    proposed = np.concatenate(values)
    return SwitchReport(
        pairs=len(counts),
        items=len(pairs.rows),
        median=float(np.median(counts)),
        most=max(counts),
        dimensions=len(proposed),
        chance=float((proposed < CHANCE_AUC).mean()) if len(proposed) else 0.0,
    )


def recall_report(engine: SearchEngine) -> RecallReport | None:
    """Compare the recall of the codes with that of the backbone."""
    from sieve.model.training.validation import recall_of_split  # slow: imports torch

    collection = engine.collection
    rows = evaluation_rows(collection, "test")
    if collection.codes or not len(collection.captions_of_rows(rows)):
        return None
    found = recall_of_split(engine.image_codes, engine.text_codes, collection, "test")
    codes, dense = (found[name]["recall@10"] for name in ("codes", "backbone"))
    return RecallReport(codes, dense, codes / max(dense, 1e-9))


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
    spread, absorbed = disentanglement(importances), absorption(fit, codes)
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
        absorption=absorbed.rate if absorbed else None,
        absorption_pairs=absorbed.pairs if absorbed else 0,
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
