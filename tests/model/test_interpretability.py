from __future__ import annotations

import numpy as np
import pytest
from conftest import WORDS

from sieve.model.dimensions.table import MIN_IMAGES
from sieve.model.engine import SearchEngine
from sieve.model.interpretability import GOOD_AUC, interpretability_report, matches_name


def test_table_measures_dimensions_with_enough_images(engine: SearchEngine) -> None:
    table = engine.dimension_table()
    counts = np.diff(engine.image_codes.by_dimension.indptr)
    measured = ["clarity", "polysemanticity", "monosemanticity", "label_auc"]
    for column in measured:
        assert (table[column].notna() == (counts >= MIN_IMAGES)).all(), column
    assert set(table["label"]) - {""} <= set(WORDS)
    assert table["name"].tolist() == [engine.name_of(j) for j in range(len(table))]


def test_report_combines_the_table_and_the_labels(engine: SearchEngine) -> None:
    report = interpretability_report(engine)
    table = engine.dimension_table()
    assert report.means["clarity"] == pytest.approx(table["clarity"].mean())
    naming = report.naming
    assert naming.captions + naming.vocabulary + naming.unnamed == report.dimensions == 64
    labels = report.labels
    assert labels is not None and labels.labels == len(WORDS)
    assert 0 < labels.mean_auc <= labels.informativeness, (
        "a probe on all dimensions is better than one dimension"
    )
    assert report.leakage is None, "forty test items are too few"


def test_synonyms_count_as_correct_names(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sieve.model.interpretability.GOOD_AUC", 0.6)
    assert GOOD_AUC == 0.95
    every = sorted(name.name for name in engine.checkpoint.names.values())
    report = interpretability_report(engine, {word: every for word in WORDS}).labels
    strict = interpretability_report(engine).labels
    assert report is not None and strict is not None
    assert report.name_right == 1
    assert strict.name_right is not None and 0.3 < strict.name_right <= 1


def test_name_matches_singular_plural_and_without_its_suffix() -> None:
    assert matches_name("dogs · snow", ["dog"])
    assert matches_name("Palm Trees", ["tree", "palm tree"])
    assert not matches_name("palm", ["palm tree"])
    assert not matches_name("", [""])


def test_collection_without_labels_has_no_label_report(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = engine.collection.items.assign(labels=[[]] * engine.collection.n_items)
    monkeypatch.setitem(engine.collection.__dict__, "items", items)
    report = interpretability_report(engine)
    assert (report.labels, report.leakage) == (None, None)
