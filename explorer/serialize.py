"""Serialise engine results to JSON-compatible types for the page, the API and the command line.

All functions are pure. The shapes of the API and the command line (`query_json`, `page_json`,
`*_report`) are stable. Those of the page (`*_view`) are compact: each dimension's name is sent
once, and contributions are pairs.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sieve.model.backbone.names import is_local_name
from sieve.model.checkpoint import TRAINING, Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimension_name import numbered
from sieve.model.dimensions.page import DimensionPage
from sieve.model.encoded_query import by_concept
from sieve.model.engine import EncodedQuery, Result, SearchEngine, SearchOutcome
from sieve.model.explain import ConceptRegion, ItemComparison, Part
from sieve.model.item_filter import Facet, ItemFilter
from sieve.model.search_results import Contribution, OffDimension
from sieve.model.set_difference import SetDifference, strongest_items

N_THUMBNAILS = 4
_MAX_HIDDEN = 3
"""Maximum number of concepts in the description of what `never` hides."""
_ARTICLE = re.compile(r"^(?:an?|the|some)\s+", re.IGNORECASE)


def to_json(value: Any) -> Any:
    """Convert results to JSON-compatible types, without rows, which are internal.

    Floats are rounded to six decimal places: further digits are float32 noise.
    """
    if is_dataclass(value):
        value = vars(value)
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: to_json(part) for name, part in value.items() if name != "row"}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return _number(float(value)) if isinstance(value, float | np.floating) else value


def search_report(query: EncodedQuery, outcome: SearchOutcome) -> dict[str, Any]:
    """Serialise one search with its results and notes."""
    return {
        "query": query.text,
        "without": query.without,
        "excluded": list(query.excluded),
        "terms": terms_json(query),
        "off": [_without_concept_name(off) for off in outcome.off],
        "off_concepts": off_concepts(outcome),
        "hides": describe_hidden(outcome),
        "where": outcome.where,
        "passing": outcome.passing,
        "results": [
            {
                "id": result.id,
                "file": result.file,
                "score": result.score,
                "captions": list(result.captions),
                "labels": list(result.labels),
                "copies": to_json(result.copies),
                "contributions": [_without_concept_name(part) for part in result.contributions],
                "concepts": [
                    asdict(part) | {"dimensions": list(part.dimensions)} for part in result.concepts
                ],
                "terms": sum_by_term(query, result, [part.dimension for part in outcome.off]),
                "presence": [
                    {"name": one.name, "probability": to_json(one.probability)}
                    for one in result.presence
                ],
            }
            for result in outcome.results
        ],
        "notes": list(query.notes),
        "suggestion": query.suggested,
        "seconds": outcome.seconds,
    }


def terms_json(query: EncodedQuery) -> list[dict[str, Any]]:
    """Serialise the terms of a query, those to find first."""
    return [
        {
            "term": one.label,
            "kind": one.term.kind,
            "weight": one.term.weight,
            "excluded": one.excluded,
        }
        for one in query.terms
    ]


def sum_by_term(query: EncodedQuery, result: Result, off: Sequence[int]) -> list[float]:
    """Sum the contributions to a score by term.

    The rest of the score is of dimensions that are off, but that no term proposes.
    """
    parts = result.contributions
    shares = query.shares([part.dimension for part in parts], off)
    return [_number(value) for value in shares @ np.array([part.value for part in parts])]


def off_concepts(outcome: SearchOutcome) -> list[dict[str, Any]]:
    """Serialise the dimensions that are off, by concept."""
    return [
        {
            "concept": parts[0].concept,
            "name": parts[0].concept_name,
            "dimensions": [part.dimension for part in parts],
        }
        for parts in by_concept(outcome.off)
    ]


def describe_concept(concept: Mapping[str, Any]) -> str:
    """Describe a concept by its name and dimensions: `beach (#17, #203)`."""
    return f"{concept['name']} ({', '.join(f'#{j}' for j in concept['dimensions'])})"


def _without_concept_name(part: Contribution | OffDimension) -> dict[str, Any]:
    """Serialise a part of a score, whose concept's name is reported once."""
    return {name: value for name, value in part._asdict().items() if name != "concept_name"}


def backbone_name(collection: Collection) -> str:
    """Return the name of a collection's backbone, without folders; empty for external codes."""
    if collection.codes:
        return ""
    name = collection.backbone.name
    return Path(name).name if is_local_name(name) else name


def collection_facts(collection: Collection) -> dict[str, Any]:
    """Return the properties of a collection."""
    items = collection.items
    return {
        "name": collection.name,
        "path": str(collection.path.absolute()),
        "items": collection.n_items,
        "captions": collection.n_captions,
        "labels": len({label for labels in items["labels"] for label in labels}),
        "splits": dict(Counter(items["split"].tolist())),
        "skipped": collection.manifest.counts.skipped,
        "duplicates": collection.manifest.counts.duplicates,
        "source": collection.manifest.source,
        "licence": collection.manifest.licence,
        "backbone": None if collection.codes else collection.backbone.name,
        "width": None if collection.codes else collection.backbone.width,
    }


def dimension_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Serialise rows of the dimension table; missing measurements are None."""
    return json.loads(table.to_json(orient="records", double_precision=15) or "[]")


def import_report(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the result of importing an encoder of another tool."""
    facts = json.loads((Path(checkpoint.path) / TRAINING).read_text())
    named = sum(name.confident for name in checkpoint.names.values())
    config = checkpoint.encoder.config
    return {
        "checkpoint": str(checkpoint.path.absolute()),
        **facts["imported"],
        "backbone": checkpoint.backbone.name,
        "dimensions": checkpoint.m,
        "activation": config.activation,
        **({"k": config.k} if config.activation == "topk" else {}),
        "named": named,
        **({"quality": facts["quality"]} if "quality" in facts else {}),
    }


def query_json(query: EncodedQuery) -> dict[str, Any]:
    """Serialise an encoded query for the API."""
    return {
        "query": query.text or query.item,
        "without": query.without,
        "excluded": list(query.excluded),
        "terms": terms_json(query),
        "dimensions": [
            {
                "dimension": active.dimension,
                "name": active.name,
                "strength": _number(active.strength),
                "without_strength": _number(active.without_strength),
                "off": active.proposed_off,
                "concept": active.concept,
            }
            for active in query.dimensions
        ],
        "concepts": [
            {
                "concept": active.concept,
                "name": active.name,
                "strength": _number(active.strength),
                "without_strength": _number(active.without_strength),
                "off": active.proposed_off,
                "dimensions": [
                    {"dimension": part.dimension, "name": part.name_in_concept}
                    for part in active.dimensions
                ],
            }
            for active in query.concepts
        ],
        "notes": list(query.notes),
        "suggestion": query.suggested,
    }


def notes_view(*queries: EncodedQuery) -> dict[str, Any]:
    """Serialise the notes on queries for the page.

    The `reading_note`, which would be repeated with each query, is separate: the page shows it
    once.
    """
    notes = dict.fromkeys(chain.from_iterable(query.notes for query in queries))
    reading_note = next((query.reading_note for query in queries if query.reading_note), "")
    notes.pop(reading_note, None)
    return {"notes": list(notes), "reading_note": reading_note}


def page_json(page: DimensionPage) -> dict[str, Any]:
    """Serialise a dimension for the API."""
    fields = {name: part for name, part in vars(page).items() if name != "histogram"}
    words = [{"word": word, "score": score} for word, score in page.words]
    statistics = {name: float(value) for name, value in page.statistics.items()}
    return to_json({**fields, "words": words, "statistics": statistics})


def results_view(outcome: SearchOutcome, dense: Sequence[Result] | None) -> dict[str, Any]:
    """Serialise results for the page, with the dense baseline's if they are requested."""
    shown = [*outcome.results, *outcome.left]
    parts = chain(outcome.off, *(result.contributions for result in shown))
    named = {part.dimension: part for part in parts}.values()
    names = {str(part.dimension): part.name for part in named}
    return {
        "names": names | {str(part.concept): part.concept_name for part in named},
        "concept_of": {str(part.dimension): part.concept for part in named},
        "off": [off.dimension for off in outcome.off],
        "results": [_result(result) for result in outcome.results],
        "left": [_result(result) for result in outcome.left],
        "dense": None if dense is None else [_result(result) for result in dense],
        "summary": summary(outcome),
        "hides": describe_hidden(outcome),
        "where": outcome.where,
        "all_off": outcome.all_off,
        "seconds": round(outcome.seconds, 6),
    }


def summary(outcome: SearchOutcome) -> str:
    """Summarise in one line how the results differ from those with every dimension on.

    Screen readers announce this line, so it also describes unchanged results.
    """
    if outcome.passing == 0:
        return "No results: no image passes the filter"
    if outcome.all_off:
        return "No results: every dimension of the query is off"
    n = len(outcome.results)
    found = f"{n or 'No'} result{'' if n == 1 else 's'}"
    if n == 0 and not outcome.left:
        return found
    if not outcome.off:
        return f"{found}, every dimension on"
    entered = sum(result.rank_before is None for result in outcome.results)
    moved = sum(result.rank_before not in (None, result.rank) for result in outcome.results)
    off = f"{len(by_concept(outcome.off))} off"
    if not (entered or moved or outcome.left):
        return f"{found}, {off}: the same as with every dimension on"
    return f"{found}, {off}: {entered} new, {len(outcome.left)} dropped, {moved} moved"


def describe_hidden(outcome: SearchOutcome) -> str:
    """Describe what `never` hides, for example `images with P(beach) ≥ 50%`; empty if nothing."""
    if outcome.limit is None or not outcome.excluded:
        return ""
    parts = []
    for one in outcome.excluded:
        name = _ARTICLE.sub("", one.name)
        if one.basis == "active":
            parts.append(f"any activation of “{name}”")
        else:
            guess = " (judged by the backbone)" if one.basis == "zero-shot" else ""
            parts.append(f"P({name}) ≥ {100 * outcome.limit:g}%{guess}")
    if (left := len(parts) - _MAX_HIDDEN) > 1:
        parts = [*parts[:_MAX_HIDDEN], f"one of {left} more concepts"]
    return f"images with {' or '.join(parts)}"


def query_rows(
    engine: SearchEngine, query: EncodedQuery, off: Sequence[int] | None
) -> dict[str, Any]:
    """Serialise the active dimensions of a query, and their concepts in the order of the list.

    Dimensions that are off but not active in the query come first.
    """
    names = engine.names()
    listed = {active.dimension for active in query.dimensions}
    strengths = [(j, 0.0, 0.0) for j in off or () if j not in listed]
    strengths += [(one.dimension, one.strength, one.without_strength) for one in query.dimensions]
    by_leading = engine.concepts.grouped(j for j, *_ in strengths)
    order = {one.concept: at for at, one in enumerate(query.concepts)}
    return {
        "dimensions": [
            {
                "d": j,
                "name": names(j),
                "label": names.in_concept(j),
                "concept": names.concept(j)[0],
                "q": _number(q),
                "b": _number(b),
            }
            for j, q, b in strengths
        ],
        "concepts": [
            concept_row(engine, leading, members)
            for leading, members in sorted(
                by_leading.items(), key=lambda group: order.get(group[0], -1)
            )
        ],
    }


def concept_row(engine: SearchEngine, leading: int, members: Sequence[int]) -> dict[str, Any]:
    """Serialise a concept briefly, by some of its dimensions: top images and best caption."""
    rows, values = _summed(engine.image_codes, members)
    top = rows[np.argsort(-values, kind="stable")[:N_THUMBNAILS]]
    captions, strengths = _summed(engine.text_codes, members)
    best = int(captions[np.argmax(strengths)]) if len(captions) else -1
    return {
        "d": leading,
        "name": engine.name_of(leading),
        "items": engine.collection.items["id"].iloc[top].tolist(),
        "caption": engine.collection.caption_texts[best] if best >= 0 else "",
    }


def _summed(codes: SparseCodes, dimensions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that have any of some dimensions, and the sums of their activations."""
    parts = [codes.postings(j) for j in dimensions]
    rows, place = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
    return rows, np.bincount(place, np.concatenate([values for _, values in parts]), len(rows))


def regions_json(regions: Sequence[ConceptRegion]) -> dict[str, Any]:
    """Serialise the regions of an image's concepts; `cells` are rows from the top, in [-1, 1]."""
    return {
        "concepts": [
            {
                "concept": region.concept,
                "name": region.name,
                "activation": _number(region.activation),
                "cells": np.clip(region.cells, -1, 1).astype(float).round(3).tolist(),
            }
            for region in regions
        ]
    }


def facets_report(
    engine: SearchEngine, where: str, find: str = "", concepts: Sequence[int] = ()
) -> dict[str, Any]:
    """Serialise the facets of the items that pass a filter, with the number of items of each.

    Only values with the text `find` are listed. `concepts` are dimensions of the concepts to list,
    by default the most frequent ones.
    """
    parsed = ItemFilter.parse(where)
    mask = engine.facets.mask(parsed)
    listed = concept_facets(engine, find, concepts)
    return {
        "where": str(parsed),
        "passing": engine.collection.n_items if mask is None else int(mask.sum()),
        "active": active_facets(where),
        "facets": [
            {"facet": str(one.facet), **_facet(one.facet, one.label), "items": one.items}
            for one in engine.facets.counts(parsed, find, listed)
        ],
    }


def active_facets(where: str) -> list[dict[str, Any]]:
    """Serialise the facets of a filter."""
    return [{"facet": str(one), **_facet(one, one.value)} for one in ItemFilter.parse(where).facets]


def _facet(facet: Facet, label: str) -> dict[str, Any]:
    return {"kind": facet.kind, "value": label, "negated": facet.negated, "above": facet.above}


def concept_facets(
    engine: SearchEngine, find: str = "", concepts: Sequence[int] = (), most: int = 8
) -> dict[Facet, str]:
    """Return the facets of concepts that have a certain name, with their names.

    They contain `find`, are those of the dimensions `concepts`, or are the most frequent ones.
    """
    names, renamed = engine.names(), engine.renamed()
    leaders = np.unique(engine.concepts.of_dimension)
    if not find and concepts:
        chosen = [j for j in engine.concepts.grouped(concepts) if j in leaders]
    else:
        firing = engine.derived.dimensions["firing_images"].to_numpy()[leaders]
        chosen = leaders[np.argsort(-firing, kind="stable")].tolist()
    same = Counter(names(j).casefold() for j in leaders.tolist())
    found: dict[Facet, str] = {}
    for j in chosen:
        name, own = names(j), engine.checkpoint.names.get(j)
        is_certain = j in renamed or (own is not None and own.confident)
        if is_certain and find.casefold() in name.casefold():
            found[Facet("concept", name if same[name.casefold()] == 1 else str(j))] = name
        if len(found) == most:
            break
    return found


def difference_json(engine: SearchEngine, found: SetDifference) -> dict[str, Any]:
    """Serialise the concepts that distinguish two sets, with the strongest items of each."""
    sides = {"left": found.left, "right": found.right}
    ids = engine.collection.items["id"]
    return {
        **{side: len(rows) for side, rows in sides.items()},
        "shared": found.shared,
        "concepts": [
            {
                **record,
                "examples": {
                    side: ids.iloc[strongest_items(engine, record["concept"], rows)].tolist()
                    for side, rows in sides.items()
                },
            }
            for record in dimension_records(found.concepts)
        ],
    }


def item_summaries(engine: SearchEngine, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Serialise items without a score."""
    items = engine.collection.items
    return [
        {
            "id": str(items["id"].iloc[row]),
            "file": engine.collection.file_names[row],
            "captions": list(items["captions"].iloc[row]),
            "labels": list(items["labels"].iloc[row]),
        }
        for row in rows
    ]


def describe_difference(
    comparison: ItemComparison,
    name_of: Callable[[int], str],
    sides: tuple[str, str] = ("the left", "the right"),
) -> str:
    """Describe in one sentence which dimensions separate the scores of two items.

    `sides` are the names of the two items in the sentence.
    """
    left, right = sides
    if comparison.left.row == comparison.right.row:
        return "Left and right are the same item. Choose another one."
    removed = _removal(comparison, name_of, sides)
    if not comparison.reasons:
        return removed or "Both have the same score; no dimension separates them."
    reasons = "; ".join(
        _reason(part, name_of(part.dimension), sides) for part in comparison.reasons
    )
    gap = abs(comparison.left.score - comparison.right.score)
    ahead = left if comparison.left.score >= comparison.right.score else right
    rest = _rest(comparison.reasons, gap)
    return f"{removed}{ahead[0].upper()}{ahead[1:]} is {format_number(gap)} ahead: {reasons}{rest}."


def _rest(reasons: tuple[Part, ...], gap: float) -> str:
    """Describe how much of the gap the reasons explain, unless it is all of it."""
    total = sum(abs(part.difference) for part in reasons)
    if abs(total - gap) < max(0.005, gap / 10):
        return ""
    together = f", together {format_number(total)}" if len(reasons) > 1 else ""
    if total < gap:
        return f"{together}; smaller differences add up to the rest"
    return f"{together}; other dimensions partly offset this"


def _removal(
    comparison: ItemComparison, name_of: Callable[[int], str], sides: tuple[str, str]
) -> str:
    sentences = []
    for attribute, side in zip(("left", "right"), sides, strict=True):
        if not getattr(comparison, attribute).removed:
            continue
        had = [(part, getattr(part, attribute)) for part in comparison.parts if part.off]
        had = sorted((pair for pair in had if pair[1]), key=lambda pair: pair[1])
        names = " and ".join(_named(part.dimension, name_of(part.dimension)) for part, _ in had[:2])
        because = f"it probably has what is off{f': {names}' if names else ''}"
        sentences.append(f"“Never” hides {side} because {because}. ")
    return "".join(sentences)


def _reason(part: Part, name: str, sides: tuple[str, str]) -> str:
    """Describe a contribution: `#4 “snow” adds 0.21 to the left, nothing to the right`."""
    values = dict(zip(sides, (part.left, part.right), strict=True))
    more, less = sorted(sides, key=lambda side: -abs(values[side]))
    verb, to = ("is off and subtracts", "from") if part.off else ("adds", "to")
    little = f"only {format_number(abs(values[less]))}" if values[less] else "nothing"
    much = format_number(abs(values[more]))
    return f"{_named(part.dimension, name)} {verb} {much} {to} {more}, {little} {to} {less}"


def _named(dimension: int, name: str) -> str:
    return numbered(dimension, name.split(" · ")[0], "“”")


def _result(result: Result) -> dict[str, Any]:
    return {
        "id": result.id,
        "file": result.file,
        "score": _number(result.score),
        "rank": result.rank,
        "before": result.rank_before,
        "captions": list(result.captions),
        "labels": list(result.labels),
        "copies": to_json(result.copies),
        "parts": [(part.dimension, _number(part.value)) for part in result.contributions],
        "presence": [(one.name, to_json(one.probability)) for one in result.presence],
    }


def format_number(value: float) -> str:
    """Format a number as the page does: `0.21`, `−0.04`, `0.004`."""
    size = abs(value)
    digits = 3 if 0 < size < 0.0095 else 2
    return ("−" if value < 0 else "") + f"{size:.{digits}f}"


def _number(value: float) -> float:
    return round(float(value), 6)
