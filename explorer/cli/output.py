"""Print results as text or JSON, with control characters in data removed or escaped."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sieve.data_prep.captions.caption_text import tidy

if TYPE_CHECKING:
    import pandas as pd

    from sieve.model.collection import Collection
    from sieve.model.explain import ConceptRegion


_FILE_WIDTH = 40
"""Maximum width of the column of file names; longer names are not cut."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters other than newline and tab."""


def print_text(text: str) -> None:
    """Write to standard output without control characters, which untrusted data may hold."""
    sys.stdout.write(_CONTROL.sub(" ", text))


def print_json(value: Any) -> None:
    """Write JSON, with non-ASCII characters unescaped if the output is UTF-8."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, indent=1)
    # JSON does not escape these control characters.
    print_text(re.sub(r"[\x7f-\x9f]", lambda char: f"\\u{ord(char[0]):04x}", text) + "\n")


def print_facts(facts: dict[str, Any], indent: str = "") -> None:
    """Write one line per entry."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print_text(f"{indent}{name.replace('_', ' '):<{width}}  {tidy(_fact(value))}\n")


def print_outcome(report: dict[str, Any]) -> None:
    """Write the report of a search, from `sieve.explorer.serialize.search_report`."""
    from sieve.explorer.serialize import describe_concept

    for note in report["notes"]:
        print_text(f"{tidy(note)}\n")
    if suggestion := report["suggestion"]:
        query, without = tidy(suggestion["query"]), tidy(suggestion["without"])
        print_text(f'To exclude it: "{query}" --without "{without}"\n')
    if len(report["terms"]) > 1:
        find, without = (
            [tidy(describe_term(one)) for one in report["terms"] if one["excluded"] is excluded]
            for excluded in (False, True)
        )
        excluded = " or ".join(f"“{term}”" for term in without)
        print_text(f"find: “{' + '.join(find)}”{excluded and f'  without: {excluded}'}\n")
    off = ", ".join(tidy(describe_concept(one)) for one in report["off_concepts"]) or "none"
    print_text(f"off: {off}\n")
    if report["where"]:
        print_text(f"filter: {tidy(report['where'])} ({report['passing']} items)\n")
    if report["hides"]:
        print_text(f"hides: {tidy(report['hides'])}\n")
    if not report["results"]:
        print_text("No results: lower the strictness, or switch a dimension back on.\n")
    results = report["results"]
    files = []
    for result in results:
        n = len(result["copies"])
        copies = f"  +{n} {'copy' if n == 1 else 'copies'}" if n else ""
        files.append(tidy(result["file"]) + copies)
    captions = [tidy((r["captions"] or [", ".join(r["labels"])])[0])[:70] for r in results]
    width = min(max(map(len, files), default=0), _FILE_WIDTH)
    room = max(map(len, captions), default=0)
    for rank, (result, file, caption) in enumerate(zip(results, files, captions, strict=True), 1):
        earned = ", ".join(
            f"{tidy(part['name'])} {part['value']:+.2f}" for part in result["concepts"][:3]
        )
        text = f"  {caption:<{room}}" if room else ""
        print_text(
            f"{rank:>3}  {result['score']:+.3f}  {result['id']}  {file:<{width}}{text}  {earned}\n"
        )
    print_text(f"{len(results)} results in {1e3 * report['seconds']:.1f} ms\n")


def print_collection(collection: Collection, as_json: bool) -> None:
    """Write a summary of a new collection; the last line counts the unused records by kind."""
    from sieve.data_prep.records import Tally, read_skipped
    from sieve.explorer.serialize import collection_facts
    from sieve.model.collection import SKIPPED

    facts = collection_facts(collection)
    skipped = Tally(read_skipped(collection.checked(SKIPPED) / SKIPPED))
    if as_json:
        print_json(facts | {"skipped_by_kind": dict(skipped.counts.most_common())})
        return
    text = f"{facts['items']:,} items, {facts['captions']:,} captions in {collection.path}"
    if n := facts["duplicates"]:
        text += f"; {n:,} near-duplicate{'' if n == 1 else 's'}, see duplicates.csv"
    then = f"Open it with `sieve explore {collection.path}`"
    if shard := collection.manifest.shard:
        then = f"This is part {shard.part}: merge all with `sieve merge PART… --out COLLECTION`"
    print_text(f"{text}\n{then}\n")
    if skipped.total:
        print_text(f"Not used: {tidy(skipped.describe())}; see skipped.csv\n")


def print_paths(paths: Sequence[str], end: str) -> None:
    """Write paths: unchanged for other programs, without control characters for a terminal."""
    for path in paths:
        if sys.stdout.isatty():
            print_text(path + "\n")
        else:
            sys.stdout.write(path + end)


def print_sections(report: dict[str, Any]) -> None:
    """Write a nested report, with each section indented under its name."""
    for name, value in report.items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            print_text(f"{title}\n")
            print_facts(value, indent="  ")
        else:
            print_text(f"{title}  {_fact(value)}\n")


def print_summary(report: dict[str, Any]) -> None:
    """Write the report of a checkpoint: what is good and what is not, then all measures."""
    measures = {name: value for name, value in report.items() if name != "findings"}
    marks = {True: "good", False: "below target", None: ""}
    _print_aligned(
        [
            (one["name"], one["value"], marks[one["good"]], one["meaning"])
            for one in report["findings"]
        ]
    )
    print_text("\n")
    print_sections(measures)


def print_controls(rows: Sequence[dict[str, Any]]) -> None:
    """Write one line per metric: the trained encoder and each control, with 95% intervals."""
    columns = [name for name in rows[0] if name not in ("better", "not_distinguished_from")]
    lines = [[*columns, "not distinguished from"]]
    for row in rows:
        cells = ["{value:.2f} [{low:.2f}, {high:.2f}]".format(**row[name]) for name in columns[1:]]
        lines.append([row["metric"], *cells, ", ".join(row["not_distinguished_from"])])
    _print_aligned(lines)


def print_dimensions(table: pd.DataFrame, sort: str) -> None:
    """Write the main columns of the dimension table, and the one that it is sorted by."""
    from sieve.model.dimensions.table import COLUMNS

    main = [column.name for column in COLUMNS if column.cli]
    filtered = [column for column in ("passing", "example") if column in table]
    shown = list(dict.fromkeys([*main, *filtered, sort]))
    filled = [column for column in shown if any(_cell(value) for value in table[column])]
    print_table(table.loc[:, filled or shown])


def print_table(table: pd.DataFrame) -> None:
    """Write all columns of a table, aligned."""
    rows = ([_cell(value) for value in row] for row in table.itertuples(index=False))
    _print_aligned([[str(column) for column in table.columns], *rows])


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_text("  ".join(cells).rstrip() + "\n")


def print_regions(regions: Sequence[ConceptRegion]) -> None:
    """Write the concepts of an image, each with the cell that has its largest share."""
    import numpy as np
    import pandas as pd

    places = [np.unravel_index(region.cells.argmax(), region.cells.shape) for region in regions]
    columns = {
        "name": [region.name for region in regions],
        "activation": [region.activation for region in regions],
        "share": [float(region.cells.max()) for region in regions],
        "row": [int(row) + 1 for row, _ in places],
        "column": [int(column) + 1 for _, column in places],
    }
    print_table(pd.DataFrame(columns))


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "none" if value is None else str(value)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else _fact(value)
    return tidy(str(value))[:40]


def describe_term(term: Mapping[str, Any]) -> str:
    """Describe a term by its weight and text: `0.5 × a beach`."""
    weight = "" if term["weight"] == 1 else f"{term['weight']:g} × "
    return f"{weight}{term['term']}"
