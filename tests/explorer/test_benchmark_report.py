"""Test the output folder of an evaluation."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

from tiny_evaluation import small_result

from sieve.explorer.benchmark_report import write_report
from sieve.model.collection import Collection


def test_labels_and_method_names_are_not_formulas(
    tiny_collection: Collection, tmp_path: Path
) -> None:
    result = small_result(tiny_collection)
    track = result.tracks[0]
    pair_counts = (track.pair_counts[0]._replace(a="=1+1", b="@b"), *track.pair_counts[1:])
    methods = (replace(track.methods[0], method="+peer"), *track.methods[1:])
    write_report(
        replace(result, tracks=(replace(track, pair_counts=pair_counts, methods=methods),)),
        tmp_path / "out",
        tiny_collection,
    )
    with (tmp_path / "out" / f"{track.track}_pairs.csv").open(newline="") as stream:
        head, first, *_ = csv.reader(stream)
    assert (head[4], first[:4]) == ("'+peer", ["'=1+1", "'@b", "12", "10"])
    with (tmp_path / "out" / f"{track.track}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == ["'+peer", *(m.method for m in methods[1:])]
    assert rows[0]["seeds_ap@10"].startswith("[")


def test_failures_page_is_self_contained_and_escaped(
    tiny_collection: Collection, tmp_path: Path
) -> None:
    result = small_result(tiny_collection)
    track = result.tracks[0]
    hostile = track.pair_counts[2]._replace(a="<script>alert(1)</script>", b='"><img src=x>')
    track = replace(track, pair_counts=(*track.pair_counts[:2], hostile))
    write_report(replace(result, tracks=(track,)), tmp_path / "out", tiny_collection)
    page = (tmp_path / "out" / "failures.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; without &#34;&gt;&lt;img src=x&gt;" in page
    assert "<script" not in page and "<img src=x" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 20
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not re.search(r"(?:href|url\(|https?:)", page)
    assert "Another strength of exclusion" in page
