"""Test saved evaluations: round trips and one-line errors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import QUICK, word_benchmark

from sieve.model.benchmark.measurement import SHOWN, contrast
from sieve.model.benchmark.results import (
    BenchmarkConfig,
    BenchmarkResult,
    list_evaluations,
    read_evaluation,
    save_evaluation,
)
from sieve.model.collection import Collection

CONFIG = BenchmarkConfig(
    ("label", "caption"), ("A only", "literal", "subtraction", "Sieve", "oracle"), (0,),
    trials=5, resamples=20, training=replace(QUICK, epochs=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def result(
    large_word_collection: Collection, tmp_path_factory: pytest.TempPathFactory
) -> BenchmarkResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(tmp_path_factory.mktemp("home")))
        return word_benchmark(large_word_collection, CONFIG).run()


def test_saved_result_round_trips(result: BenchmarkResult, home: Path) -> None:
    path = save_evaluation(replace(result, checkpoint="ab" * 32), "my codes/2")
    assert path.is_relative_to(home / "evaluations") and path.stem.endswith("my-codes-2")
    assert path.stat().st_size < 2**20
    read = read_evaluation(path)
    assert read.summary.checkpoint == ("my codes/2", "ab" * 32) and read.summary.is_short
    assert read.summary.collection == (result.collection, result.collection_sha256)
    for track, saved in zip(result.tracks, read.tracks, strict=True):
        assert saved.as_json() == track.as_json()
        assert (saved.pair_counts, saved.answers) == (track.pair_counts, track.answers)
        for one, other in zip(track.methods, saved.methods, strict=True):
            assert other.by_pair == pytest.approx(one.by_pair, abs=1e-4)
            assert other.violation_by_pair == pytest.approx(one.violation_by_pair, abs=1e-4)


def test_newest_result_is_first_and_none_is_lost(result: BenchmarkResult, home: Path) -> None:  # noqa: ARG001
    paths = [save_evaluation(result) for _ in range(3)]
    assert len(set(paths)) == 3
    found, faults = list_evaluations(result.collection_sha256)
    assert [one.id for one in found] == sorted((path.stem for path in paths), reverse=True)
    assert not faults and list_evaluations("00" * 32) == ([], [])
    assert not list(paths[0].parent.glob(".*"))


def test_listing_reads_each_saved_result_once(
    result: BenchmarkResult, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_evaluation(result)
    for number in range(80):
        shutil.copy(saved, saved.with_name(f"20260101-{number:06}-copy.json"))
    (saved.parent / "20260102-000000-damaged.json").write_text("{")
    first = list_evaluations(result.collection_sha256)
    assert len(first[0]) == 81 and len(first[1]) == 1
    read_bytes, read = Path.read_bytes, []

    def noted(path: Path) -> bytes:
        read.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    assert list_evaluations(result.collection_sha256) == first and not read
    saved.write_text(json.dumps(json.loads(read_bytes(saved)) | {"made": "now"}))
    found, _ = list_evaluations(result.collection_sha256)
    assert read == [saved] and found[0].made == "now"
    assert home in saved.parents


def test_saved_answers_match_the_labels(
    result: BenchmarkResult, large_word_collection: Collection
) -> None:
    labels = large_word_collection.items.set_index("id")["labels"]
    track = result.tracks[0]
    methods = {method.method: method for method in track.methods}
    against = contrast(methods["Sieve"], methods["oracle"])
    assert against.n_wins == 0 and 0 < len(against.losses) <= SHOWN
    for name, answers in track.answers.items():
        for pair, answer in answers.items():
            a, b, *_ = track.pair_counts[pair]
            has = [(a in labels[item], b in labels[item]) for item in answer.items]
            expected = "".join("n" if not one else "v" if both else "r" for one, both in has)
            assert answer.marks == expected and len(answer.items) == 10
            share = answer.marks.count("v") / 10
            assert methods[name].violation_by_pair[pair] == pytest.approx(share)
    for name in ("A only", "subtraction", "oracle"):
        found = contrast(methods["Sieve"], methods[name])
        leads = [methods["Sieve"].by_pair[p] - methods[name].by_pair[p] for p in found.wins]
        assert leads == sorted(leads, reverse=True) and all(lead > 0 for lead in leads)
        for pair in (*found.wins, *found.losses):
            assert pair in track.answers[name] and pair in track.answers["Sieve"]


def corrupt(entry: dict, where: str, value: object) -> None:
    *path, last = where.split(".")
    for name in path:
        entry = entry[int(name)] if isinstance(entry, list) else entry[name]
    entry[last] = value


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("schema_version", 2), ("schema_version", "1" * 400), ("tracks", None),
        ("tracks", {"a": 1}), ("collection", "words"), ("checkpoint", [1]), ("made", 3),
        ("seeds", ["0"]), ("tracks.0.methods.0.ap@10", None),
        ("tracks.0.methods", [1]), ("tracks.0.methods.0.ap@10", "much"), ("tracks.0.items", 1.5),
        ("tracks.0.methods.0.ci", [1]), ("tracks.0.methods.0.ap@10", float("nan")),
        ("tracks.0.methods.0.by_pair", [0.5]), ("tracks.0.methods.0.method", "x" * 2000),
        ("tracks.0.asked", []), ("tracks.0.tuning.law", {"share": 1, "out": 2}),
        ("tracks.0.answers", {"Sieve": {"0": [["../../etc"], "r"]}}),
        ("tracks.0.answers", {"Sieve": {"0": [["0" * 16], "x"]}}),
        ("tracks.0.answers", {"Sieve": {"99999": [["0" * 16], "r"]}}),
        ("tracks.0.methods.0.ap@10", 10**400),
    ],
)  # fmt: skip
def test_damaged_or_foreign_files_are_one_line(
    result: BenchmarkResult,
    home: Path,  # noqa: ARG001
    where: str,
    value: object,
) -> None:
    good, bad = save_evaluation(result), save_evaluation(result)
    entry = json.loads(bad.read_text())
    corrupt(entry, where, value)
    bad.write_text(json.dumps(entry))
    found, (line,) = list_evaluations(result.collection_sha256)
    assert [one.id for one in found] == [good.stem]
    assert str(bad) in line and "\n" not in line and len(line) < 500
    assert "sieve evaluate" in line


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_other_files_are_rejected(
    result: BenchmarkResult,
    home: Path,  # noqa: ARG001
    content: bytes,
) -> None:
    path = save_evaluation(result)
    path.write_bytes(content)
    found, (line,) = list_evaluations(result.collection_sha256)
    assert not found and str(path) in line and "\n" not in line


def test_evaluation_of_another_collection_is_reported(result: BenchmarkResult, home: Path) -> None:  # noqa: ARG001
    path = save_evaluation(result)
    entry = json.loads(path.read_text())
    entry["collection"]["sha256"] = "11" * 32
    path.write_text(json.dumps(entry))
    found, (line,) = list_evaluations(result.collection_sha256)
    assert not found and "belongs to another collection" in line
