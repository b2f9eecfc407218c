"""Test `sieve info` and `sieve dimensions`."""

from __future__ import annotations

import csv
import io

import pytest
from command_line import Sieve, fault

from sieve.model.collection import Collection
from sieve.model.dimensions import table


def test_info_prints_facts(sieve: Sieve, opened: tuple, tiny_collection: Collection) -> None:
    info = sieve("info", *opened, "--json").data
    assert (info["name"], info["items"], info["captions"]) == ("tiny", 60, 120)
    assert info["splits"] == {"train": 36, "select": 12, "test": 12}
    assert (info["labels"], info["skipped"], info["dimensions"]) == (9, 0, 64)
    assert info["backbone"] == tiny_collection.backbone.name
    assert info["checkpoint"] == str(opened[-1])
    assert 0 < info["live"] <= 64
    assert "items       60\n" in sieve("info", *opened).out
    without = sieve("info", opened[0], "--json").data
    assert (without["checkpoint"], without["live"]) == (None, None)


def test_every_declared_column_is_printed(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "COLUMNS", (*table.COLUMNS, table.TableColumn("max")))
    rows = sieve("dimensions", *opened, "--json").data
    assert {column.name for column in table.COLUMNS} <= set(rows[0])
    header, *_ = sieve("dimensions", *opened).out.splitlines()
    assert header.split() == [column.name for column in table.COLUMNS if column.cli]


def test_dimensions_prints_the_table(sieve: Sieve, opened: tuple) -> None:
    rows = sieve("dimensions", *opened, "--sort", "firing_images", "--json").data
    assert len(rows) == 64
    rates = [row["firing_images"] for row in rows]
    assert rates == sorted(rates, reverse=True)
    table = list(csv.DictReader(io.StringIO(sieve("dimensions", *opened, "--csv").out)))
    assert [int(row["dimension"]) for row in table] == list(range(64))
    word = next(row["top_word"] for row in rows if row["top_word"])
    matched = sieve("dimensions", *opened, "--match", word.upper(), "--json").data
    assert 0 < len(matched) < 64
    assert all(word in row["name"] + row["top_word"] for row in matched)
    assert len(sieve("dimensions", *opened).out.splitlines()) == 65
    assert list(rows[0]) == list(table[0])
    for row in rows:
        assert row["name_source"] in ("captions", "vocabulary", "")
        assert row["label_auc"] is None or 0 <= row["label_auc"] <= 1
        assert (row["label"] == "") == (row["label_auc"] is None)


def test_dimensions_summary_prints_metrics(sieve: Sieve, opened: tuple) -> None:
    info = sieve("dimensions", *opened, "--summary", "--json").data
    assert info["collection"] == "tiny"
    assert sum(info["naming"][kind] for kind in ("captions", "vocabulary", "unnamed")) == 64
    assert info["naming"]["words_in_list"] >= 5000
    assert info["labels"]["labels"] == 9
    for name in ("with_dimension", "mean_auc", "disentanglement", "completeness"):
        assert 0 <= info["labels"][name] <= 1
    assert info["leakage"] is None, "twelve test pictures are too few for a pair"
    assert 0 <= info["naming"]["confident_live"] <= 1 and info["naming"]["equal"] == 0
    assert info["recall"]["relative"] == pytest.approx(
        info["recall"]["codes"] / info["recall"]["backbone"]
    )
    assert info["dimensions_of_a_word"] >= 1
    assert info["switches"] is None, "twelve test pictures are too few for a pair"
    named = {finding["name"]: finding for finding in info["findings"]}
    assert named["Live dimensions"]["value"] == f"{round(info['live'] * 64)} of 64"
    assert named["Concepts"]["value"] == str(info["concepts"])
    assert all("Target:" in f["meaning"] for f in info["findings"] if f["good"] is not None)
    text = sieve("dimensions", *opened, "--summary").out
    assert text.startswith("Live dimensions  ")
    assert "\nnaming\n  captions" in text


def test_every_metric_is_compared_with_controls(sieve: Sieve, opened: tuple) -> None:
    info = sieve("dimensions", *opened, "--summary", "--controls", "--json").data
    metrics = {row["metric"]: row for row in info["controls"]}
    assert {"clarity", "monosemanticity", "AUC of a label's dimension"} <= set(metrics)
    for row in metrics.values():
        for name in ("trained", "untrained", "frozen decoder", "shuffled pairs", "PCA", "ICA"):
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
        assert set(row["not_distinguished_from"]) < set(row)
    # The controls are not made again.
    text = sieve("dimensions", *opened, "--summary", "--controls").out
    assert "\nmetric" in text
    assert "not distinguished from\n" in text


def test_an_encoder_recurs_completely_in_itself(sieve: Sieve, opened: tuple) -> None:
    other = ("--seed", str(opened[-1]))
    info = sieve("dimensions", *opened, "--summary", *other, *other, "--json").data
    assert info["seeds"]["seeds"] == 3
    assert info["seeds"]["dimensions_recurring_at_0.7"] == 1
    assert abs(info["seeds"]["concepts_mean_correlation"] - 1) < 1e-5


def test_controls_need_the_summary(sieve: Sieve, opened: tuple) -> None:
    assert fault(sieve("dimensions", *opened, "--controls")).endswith("need --summary")
