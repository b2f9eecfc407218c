"""Exclusion queries from files, with the items that are relevant and those that violate them.

JSON Lines, one query a line; `without` is a text or a list, and `violating` is optional:

    {"query": "a dog", "without": ["a beach"], "relevant": ["0f…", "a1…"], "violating": ["3c…"]}

TREC topics (`ID<TAB>a dog without a beach`, or `<top>` elements) with relevance judgments, the
qrels (`ID 0 ITEM GRADE`): a grade of at least 1 is relevant, one below 0 violates the query.

The retrieval CSV of NegBench (m1k2zoo/negbench, arXiv 2501.09425), with the columns
`positive_objects`, `negative_objects`, `filepath` and `captions`, each list a Python literal. Every
caption is a query with one relevant image, its own. B is the negative objects that the caption
names, and A the clauses that name none. Images with an object of B violate the query.

Items are given by their ids in the collection, or by the names of their original files.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from sieve.model.collection import Collection
from sieve.model.evaluation.pairs import PairSet
from sieve.model.files import Schema, fault_in, matching, read_limited
from sieve.model.query_parser import MAX_QUERY_CHARACTERS, MAX_TERMS, parse_query

MAX_BYTES = 256 << 20
"""Larger files are refused."""
MAX_QUERIES = 5000
"""Maximum number of queries to evaluate; a larger file is sampled at even intervals."""
_NAMED = 5
"""Bad rows, items and queries that a message names."""

Text = Annotated[
    str,
    Field(max_length=MAX_QUERY_CHARACTERS),
    matching(r"(?s).*\S.*", "must have words, such as a beach"),
]
Item = Annotated[str, Field(min_length=1, max_length=1000)]
_JSON = '{"query": "a dog", "without": "a beach", "relevant": [ids], "violating": [ids]}'
_NEGBENCH = ("positive_objects", "negative_objects", "filepath", "captions")


class ExclusionQuery(Schema):
    """One query, and its judged items by id or file name."""

    query: Text
    without: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TERMS)]
    relevant: Annotated[list[Item], Field(min_length=1)]
    violating: list[Item] = []
    sentence: str = ""
    """The query as one text, by default "QUERY without B"."""

    @property
    def excluded(self) -> tuple[str, ...]:
        """The phrases to exclude."""
        return (self.without,) if isinstance(self.without, str) else tuple(self.without)


class QuerySet(NamedTuple):
    """Queries of a file."""

    name: str
    sha256: str
    """Hash of the file, and of the qrels if there are any."""
    queries: tuple[ExclusionQuery, ...]
    notes: tuple[str, ...] = ()
    """Parts of the file that are not used."""


class JudgedPairs(NamedTuple):
    """Queries over the ranked items of a collection."""

    pairs: PairSet
    notes: tuple[str, ...]
    """Parts of the file that are not used, in sentences."""


def read_queries(path: Path, qrels: Path | None = None) -> QuerySet:
    """Read queries; raise a ValueError that names each bad row and what is expected there."""
    data = read_limited(path, MAX_BYTES)
    digest = hashlib.sha256(data)
    lines = _text(path, data)
    faults: list[str] = []

    def report(line: int, fault: str, file: Path = path) -> None:
        faults.append(f"{file.name}:{line}: {fault}")

    notes: list[str] = []
    if qrels is not None:
        judged = read_limited(qrels, MAX_BYTES)
        digest.update(judged)
        grades = _read_qrels(_text(qrels, judged), lambda line, fault: report(line, fault, qrels))
        queries = list(_judge(_read_topics(lines, report), grades, notes))
    elif path.suffix.lower() == ".csv":
        queries = list(_read_negbench(path, lines, report, notes))
    else:
        queries = list(_read_json_lines(lines, report))
    if faults:
        more = f"; and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else ""
        raise ValueError(f"{'; '.join(faults[:_NAMED])}{more}")
    if not queries:
        raise ValueError(f"{path} has no queries; expected one a line, such as {_JSON}")
    return QuerySet(path.name, digest.hexdigest(), tuple(queries), tuple(notes))


def judged_pairs(query_set: QuerySet, collection: Collection, rows: np.ndarray) -> JudgedPairs:
    """Find the items of queries among the ranked rows of a collection, (n,) int64.

    Raises a ValueError if no query has a relevant item among them.
    """
    step = -(-len(query_set.queries) // MAX_QUERIES)
    queries = query_set.queries[::step]
    row_of, place = _row_of_name(collection), np.full(collection.n_items, -1, np.int64)
    place[rows] = np.arange(len(rows))
    has_a, has_b = np.zeros((2, len(queries), len(rows)), bool)
    unknown: dict[str, None] = {}
    elsewhere: dict[str, None] = {}
    for at, query in enumerate(queries):
        for names, marks in (
            (query.relevant, (has_a,)),
            (query.violating, (has_a, has_b)),
        ):
            for name in names:
                row = row_of.get(name, row_of.get(name.rpartition("/")[2]))
                if row is None:
                    unknown[name] = None
                elif place[row] < 0:
                    elsewhere[name] = None
                else:
                    for mark in marks:
                        mark[at, place[row]] = True
    kept = np.flatnonzero((has_a & ~has_b).any(1))
    notes = list(query_set.notes)
    if step > 1:
        total = len(query_set.queries)
        notes.append(f"{len(queries):,} of {total:,} queries are evaluated, evenly spaced.")
    if unknown:
        notes.append(_named(unknown, "judged items are not in the collection"))
    if elsewhere:
        notes.append(
            _named(elsewhere, "judged items are not ranked, because they are not in the test split")
        )
    lost = [f"“{queries[at].query}”" for at in sorted(set(range(len(queries))) - set(kept))]
    if lost:
        notes.append(_named(lost, "queries have no relevant test item and are left out"))
    if not len(kept):
        raise ValueError(
            f"no query of {query_set.name} has a relevant item among the {len(rows):,} test items "
            f"of {collection.name}: {' '.join(notes)} Give the ids of its items, or the names of "
            "their files"
        )
    used = [queries[at] for at in kept.tolist()]
    pairs = PairSet(
        rows=rows,
        a_names=tuple(query.query for query in used),
        b_names=tuple(" or ".join(map(_bare, query.excluded)) for query in used),
        a=tuple(query.query for query in used),
        b=tuple(" or ".join(query.excluded) for query in used),
        has_a=has_a[kept],
        has_b=has_b[kept],
        excluded=tuple(query.excluded for query in used),
        sentences=tuple(query.sentence for query in used),
    )
    return JudgedPairs(pairs, tuple(notes))


Report = Callable[[int, str], None]


def _text(path: Path, data: bytes) -> list[str]:
    try:
        # Other line separators may be part of a JSON text.
        return [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name}:{line}: expected UTF-8 text; save the file as UTF-8"
        ) from None


def _read_json_lines(lines: Sequence[str], report: Report) -> Iterator[ExclusionQuery]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            query = ExclusionQuery.model_validate_json(line)
        except ValidationError as error:
            report(number, f"{fault_in(error)}; expected {_JSON}")
            continue
        if both := set(query.relevant) & set(query.violating):
            report(number, f"{min(both)[:80]} is both relevant and violating; expected one of them")
        else:
            yield query


class _Topic(NamedTuple):
    id: str
    query: str
    without: tuple[str, ...]
    sentence: str


def _read_topics(lines: Sequence[str], report: Report) -> list[_Topic]:
    """Read `ID<TAB>TEXT` lines, or `<num>` and `<title>` of `<top>` elements."""
    found: list[tuple[int, str, str]] = []
    if any(line.strip().lower().startswith("<top>") for line in lines):
        number, title_next = "", False
        for at, line in enumerate(map(str.strip, lines), 1):
            if match := re.match(r"<num>\s*(?:Number:)?\s*(\S+)?", line, re.IGNORECASE):
                number = (match[1] or "").removesuffix("</num>")
            match = re.match(r"<title>\s*(.*?)\s*(?:</title>)?$", line, re.IGNORECASE)
            text = match[1] if match else line if title_next and line else ""
            title_next = (match is not None or title_next) and not text
            if text and (match or not line.startswith("<")):
                found.append((at, number, text))
    else:
        for at, line in enumerate(lines, 1):
            if line.strip():
                number, tab, text = line.partition("\t")
                found.append((at, number.strip(), text.strip() if tab else ""))
    topics = []
    for at, number, text in found:
        parsed = parse_query(text[:MAX_QUERY_CHARACTERS]) if number and text else None
        if parsed is None:
            report(at, "expected the id of a topic, a tab and its text")
        elif not (parsed.text and parsed.without):
            report(at, "expected a text that excludes something, such as “a dog without a beach”")
        else:
            topics.append(_Topic(number, parsed.text, parsed.without, text))
    return topics


def _read_qrels(lines: Sequence[str], report: Report) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for at, line in enumerate(lines, 1):
        match = re.fullmatch(r"\s*(\S+)\s+\S+\s+(\S.*?)\s+([+-]?\d{1,9})\s*", line)
        if match:
            grades.setdefault(match[1], {})[match[2]] = int(match[3])
        elif line.strip():
            report(at, "expected four columns: topic, 0, item, grade (a whole number)")
    return grades


def _judge(
    topics: Iterable[_Topic], grades: dict[str, dict[str, int]], notes: list[str]
) -> Iterator[ExclusionQuery]:
    lost = []
    for topic in topics:
        judged = grades.get(topic.id, {})
        relevant = [item for item, grade in judged.items() if grade > 0]
        if not relevant:
            lost.append(topic.id)
            continue
        yield ExclusionQuery(
            query=topic.query,
            without=list(topic.without),
            relevant=relevant,
            violating=[item for item, grade in judged.items() if grade < 0],
            sentence=topic.sentence,
        )
    if lost:
        notes.append(_named(lost, "topics have no relevant item in the qrels and are left out"))


def _read_negbench(
    path: Path, lines: Sequence[str], report: Report, notes: list[str]
) -> Iterator[ExclusionQuery]:
    reader = csv.DictReader(io.StringIO("\n".join(lines)))
    missing = [name for name in _NEGBENCH if name not in (reader.fieldnames or ())]
    if missing:
        report(1, f"lacks the columns {', '.join(missing)}; expected {', '.join(_NEGBENCH)}")
        return
    images: list[tuple[str, set[str], list[str], list[str]]] = []
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader, None)
            if row is None:
                break
            positive, negative, captions = (
                _literal_list(row[name]) for name in _NEGBENCH if name != "filepath"
            )
        except (csv.Error, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            report(start, "expected lists of texts, such as \"['person', 'cup']\"")
            continue
        if not row["filepath"]:
            report(start, "expected the path of an image in filepath")
            continue
        images.append((row["filepath"], set(positive), negative, captions))
    having: dict[str, list[str]] = {}
    for file, positive, _, _ in images:
        for name in positive:
            having.setdefault(name, []).append(file)
    silent = 0
    for file, _, negative, captions in images:
        for caption in captions:
            excluded = [name for name in negative if _names(caption, name)]
            clauses = [
                clause.strip()
                for clause in _CLAUSE.split(caption)
                if clause.strip() and not any(_names(clause, name) for name in excluded)
            ]
            if not excluded or not clauses:
                silent += 1
                continue
            yield ExclusionQuery(
                query=", ".join(clauses)[:MAX_QUERY_CHARACTERS],
                without=excluded[:MAX_TERMS],
                relevant=[file],
                violating=[other for name in excluded for other in having.get(name, ())],
                sentence=caption[:MAX_QUERY_CHARACTERS],
            )
    if silent:
        notes.append(
            f"{silent:,} captions of {path.name} name no negative object beside another clause, "
            "and are left out."
        )


_CLAUSE = re.compile(r"\s*[,;.]+(?:\s+(?:but|and|while|though|although|yet)\b)?|\s+but\s+", re.I)


def _literal_list(text: str) -> list[str]:
    """Read a list of texts as a Python literal, which runs no code."""
    found = ast.literal_eval(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("not a list of texts")
    return found


def _names(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}(?:s|es)?\b", text, re.IGNORECASE) is not None


def _bare(phrase: str) -> str:
    """Return a phrase without its article, by which training captions are searched."""
    return re.sub(r"^(?:an?|the|some)\s+", "", phrase.strip(), flags=re.IGNORECASE)


def _row_of_name(collection: Collection) -> dict[str, int]:
    """Return the rows of items by file name, where no two files have the same, and by id."""
    rows: dict[str, int | None] = {}
    names = collection.file_names
    for row in range(collection.n_items):
        full = names[row]
        for name in {full, full.rpartition("/")[2]} - {""}:
            rows[name] = None if name in rows else row
    found = {name: row for name, row in rows.items() if row is not None}
    return found | collection.row_of_id


def _named(names: Iterable[str], fact: str) -> str:
    """Return a sentence that counts names and lists the first ones."""
    listed = list(names)
    dots = ", …" if len(listed) > _NAMED else ""
    return f"{len(listed):,} {fact}: {', '.join(name[:80] for name in listed[:_NAMED])}{dots}."
