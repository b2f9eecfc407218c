"""Serialise engine results to JSON-compatible types for the page, the API and the command line.

All functions are pure. The shapes of the API and the command line (`query_json`, `page_json`,
`*_report`) are stable. Those of the page (`*_view`) are compact: each dimension's name is sent
once, and contributions are pairs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sieve.data_prep.bundled import locate_collection
from sieve.data_prep.scenes.captions import label_synonyms
from sieve.model.checkpoint import TRAINING, Checkpoint, checkpoint_path, find_checkpoint
from sieve.model.collection import Collection
from sieve.model.engine import EncodedQuery, Engine, Result, SearchOutcome
from sieve.model.interpretability import interpretability_report

if TYPE_CHECKING:
    from sieve.model.dimension_name import DimensionName
    from sieve.model.dimensions import DimensionPage, Example, Histogram, Neighbour
    from sieve.model.dimensions.ablation import Ablation
    from sieve.model.dimensions.map import DimensionMap
    from sieve.model.search_results import ActiveDimension


def histogram_figure(histogram: Histogram) -> dict[str, Any]:
    """Return a Plotly histogram of a dimension's activations on images and captions.

    Returns
    -------
    dict
        `data` and `layout` for plotly.js; the page sets the colours of its light or dark theme.
    """
    edges = histogram.edges
    centres = (edges[:-1] + edges[1:]) / 2
    figure = go.Figure()
    for name, counts in (("images", histogram.images), ("captions", histogram.texts)):
        # Shares, not counts: an image has several captions.
        share = counts / max(int(counts.sum()), 1)
        figure.add_bar(
            name=name,
            x=centres.round(5).tolist(),
            y=share.round(5).tolist(),
            customdata=counts.tolist(),
            hovertemplate=f"%{{customdata}} {name} around %{{x:.2f}}<extra></extra>",
        )
    figure.update_layout(
        barmode="group",
        bargap=0.08,
        bargroupgap=0,
        height=200,
        margin={"l": 40, "r": 8, "t": 8, "b": 36},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": "activation"}, "rangemode": "tozero", "fixedrange": True},
        yaxis={"tickformat": ".0%", "fixedrange": True, "nticks": 4},
        template="none",
    )
    return json.loads(figure.to_json() or "{}")


def copies_json(result: Result) -> list[dict[str, str]]:
    """Serialise the copies of a result: items with the same picture."""
    return [copy._asdict() for copy in result.copies]


def search_report(query: EncodedQuery, outcome: SearchOutcome) -> dict[str, Any]:
    """Serialise one search with its results and notes."""
    return {
        "query": query.text,
        "without": query.without,
        "excluded": list(query.excluded),
        "off": [asdict(off) for off in outcome.off],
        "results": [
            {
                "id": result.id,
                "file": result.file,
                "score": result.score,
                "captions": list(result.captions),
                "labels": list(result.labels),
                "copies": copies_json(result),
                "contributions": [asdict(part) for part in result.contributions],
            }
            for result in outcome.results
        ],
        "notes": list(query.notes),
        "suggestion": query.suggested,
        "seconds": outcome.seconds,
    }


def backbone_name(collection: Collection) -> str:
    """Return the short name of a collection's backbone; empty for external codes."""
    return "" if collection.codes else Path(collection.backbone.name).name


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
        "skipped": int(collection.manifest["counts"].get("skipped", 0)),
        "duplicates": int(collection.manifest["counts"].get("duplicates", 0)),
        "source": str(collection.manifest["source"]),
        "licence": str(collection.manifest["licence"]),
        "backbone": None if collection.codes else collection.backbone.name,
        "width": None if collection.codes else collection.backbone.width,
    }


def collection_report(name: str, checkpoint: str | None) -> dict[str, Any]:
    """Return the properties of a collection and its checkpoint, which is None if none fits."""
    collection = Collection.open(locate_collection(name))
    facts = collection_facts(collection)
    try:
        path = checkpoint_path(checkpoint) if checkpoint else find_checkpoint(collection)
    except FileNotFoundError:
        if checkpoint:
            raise
        return facts | {"checkpoint": None, "dimensions": None, "live": None, "asked_by": None}
    engine = Engine(collection, Checkpoint.load(path))
    table = engine.dimension_table()
    can = engine.can
    asked_by = {"texts": can.text_queries, "images": can.image_queries, "items": True}
    return facts | {
        "checkpoint": str(path),
        "dimensions": len(table),
        "live": int(np.count_nonzero(table[["firing_images", "firing_texts"]].max(axis=1))),
        "asked_by": ", ".join(word for word, possible in asked_by.items() if possible),
    }


def dimension_rows(table: pd.DataFrame, sort: str, match: str) -> pd.DataFrame:
    """Select the rows of the dimension table that contain a text, and sort them by a column.

    Raises
    ------
    ValueError
        If the column does not exist.
    """
    if sort not in table.columns:
        raise ValueError(f"cannot sort by {sort!r}; columns are: {', '.join(table.columns)}")
    if match:
        words = table["name"].str.cat(table["top_word"].astype(str), sep="\n")
        table = table.loc[words.str.contains(match, case=False, regex=False)]
    upwards = sort == "dimension" or not pd.api.types.is_numeric_dtype(table[sort])
    return table.sort_values(sort, ascending=upwards, kind="stable")


def dimension_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Serialise rows of the dimension table; missing measurements are None."""
    return json.loads(table.to_json(orient="records", double_precision=15) or "[]")


def summary_report(engine: Engine) -> dict[str, Any]:
    """Serialise the interpretability report of an encoder."""
    is_scenes = str(engine.collection.manifest["source"]).startswith("Scenes(")
    report = interpretability_report(engine, label_synonyms() if is_scenes else {})
    return {
        "collection": engine.collection.name,
        "checkpoint": str(engine.checkpoint.path.absolute()),
        **asdict(report),
    }


def training_report(checkpoint: Checkpoint, seconds: float) -> dict[str, Any]:
    """Return the result of a training."""
    facts = json.loads((Path(checkpoint.path) / TRAINING).read_text())
    return {
        "checkpoint": str(checkpoint.path.absolute()),
        "trained_on": checkpoint.trained_on,
        "items": len(facts["items"]),
        "quality": facts["quality"],
        "seconds": seconds,
    }


N_THUMBNAILS = 4


def query_json(query: EncodedQuery) -> dict[str, Any]:
    """Serialise an encoded query for the API."""
    return {
        "query": query.text or query.item,
        "without": query.without,
        "excluded": list(query.excluded),
        "dimensions": [
            {
                "dimension": active.dimension,
                "name": active.name,
                "strength": _number(active.strength),
                "without_strength": _number(active.without_strength),
                "off": active.proposed_off,
            }
            for active in query.dimensions
        ],
        "notes": list(query.notes),
        "suggestion": query.suggested,
    }


def page_json(page: DimensionPage) -> dict[str, Any]:
    """Serialise a dimension for the API."""
    return {
        "dimension": page.dimension,
        "name": page.name,
        "suggested": page.suggested,
        "naming": None if page.naming is None else _naming(page.naming),
        "label": page.label,
        "statistics": {name: _number(value) for name, value in page.statistics.items()},
        "words": [{"word": word, "score": _number(score)} for word, score in page.words],
        "top_images": [_example(example) for example in page.top_images],
        "random_images": [_example(example) for example in page.random_images],
        "intervals": [
            {
                "low": _number(interval.low),
                "high": _number(interval.high),
                "count": interval.count,
                "examples": [_example(example) for example in interval.examples],
            }
            for interval in page.intervals
        ],
        "top_captions": [
            {"text": caption.text, "value": _number(caption.value), "id": caption.id}
            for caption in page.top_captions
        ],
        "similar": _neighbours(page.similar),
        "coactive": _neighbours(page.coactive),
    }


def page_view(engine: Engine, page: DimensionPage) -> dict[str, Any]:
    """Serialise a dimension for its page: the API's fields, a histogram and a query to try."""
    figure = histogram_figure(page.histogram) if page.top_images or page.top_captions else None
    return {**page_json(page), "histogram": figure, "search": _words_to_search(engine, page)}


def _words_to_search(engine: Engine, page: DimensionPage) -> str:
    """Choose a query that activates a dimension: its suggested name, else its top caption.

    A user's own name may contain words that are not in the backbone's vocabulary.
    """
    named = page.words and page.naming is not None
    caption = page.top_captions[0].text if page.top_captions else ""
    text = " ".join(page.suggested.replace("·", " ").split()) if named else caption
    if engine.collection.codes:
        return next((each for each in (page.suggested, caption) if engine.understands(each)), "")
    return text


def results_view(outcome: SearchOutcome, dense: Sequence[Result] | None) -> dict[str, Any]:
    """Serialise results for the page, with the dense baseline's if they are requested."""
    shown = [*outcome.results, *outcome.left]
    named = [*(part for result in shown for part in result.contributions), *outcome.off]
    return {
        "names": {str(part.dimension): part.name for part in named},
        "off": [off.dimension for off in outcome.off],
        "results": [_result(result) for result in outcome.results],
        "left": [_result(result) for result in outcome.left],
        "dense": None if dense is None else [_result(result) for result in dense],
        "summary": summary(outcome),
        "all_off": outcome.all_off,
        "seconds": round(outcome.seconds, 6),
    }


def summary(outcome: SearchOutcome) -> str:
    """Summarise in one line how the results differ from those with every dimension on.

    Screen readers announce this line, so it also describes unchanged results.
    """
    if outcome.all_off:
        return "No results: every dimension of the query is off"
    n = len(outcome.results)
    found = "No results" if n == 0 else "1 result" if n == 1 else f"{n} results"
    if n == 0 and not outcome.left:
        return found
    if not outcome.off:
        return f"{found}, every dimension on"
    entered = sum(result.rank_before is None for result in outcome.results)
    moved = sum(result.rank_before not in (None, result.rank) for result in outcome.results)
    off = f"{len(outcome.off)} off"
    if not (entered or moved or outcome.left):
        return f"{found}, {off}: the same as with every dimension on"
    return f"{found}, {off}: {entered} new, {len(outcome.left)} dropped, {moved} moved"


def query_dimension_rows(
    engine: Engine, query: EncodedQuery, off: Sequence[int] | None
) -> list[dict[str, Any]]:
    """Serialise the active dimensions, after those that are off but not active in the query."""
    listed = {active.dimension for active in query.dimensions}
    added = [j for j in off or () if j not in listed]
    return [
        *({**dimension_row(engine, j), "q": 0.0, "b": 0.0} for j in added),
        *(_active(engine, active) for active in query.dimensions),
    ]


def table_view(engine: Engine) -> dict[str, list[Any]]:
    """Serialise the table of all dimensions by column, at half the size of rows with keys."""
    table = engine.dimension_table()
    return {
        "id": table["dimension"].tolist(),
        "name": table["name"].tolist(),
        "images": table["firing_images"].round(5).tolist(),
        "texts": _or_none(table["firing_texts"].round(5).tolist()),
        "agreement": _or_none(table["agreement"].tolist()),
        "mono": _or_none(table["monosemanticity"].tolist()),
        "auc": _or_none(table["label_auc"].tolist()),
        "label": table["label"].tolist(),
        "word": table["top_word"].tolist() if "top_word" in table else [""] * len(table),
    }


def map_view(found: DimensionMap) -> dict[str, Any]:
    """Serialise the map of all live dimensions by column."""
    x, y = found.positions.astype(float).round(4).T
    return {
        "id": found.dimensions.tolist(),
        "x": x.tolist(),
        "y": y.tolist(),
        "method": found.method,
    }


def probe_view(probe: Ablation) -> dict[str, Any]:
    """Serialise the effect of switching a dimension off."""
    return {
        "probes": probe.n_probes,
        "changed": probe.n_changed,
        "mean_left": round(probe.mean_left, 2),
        "changes": [
            {
                "text": change.text,
                "strength": _number(change.strength),
                "left": change.left,
                "before": [_example(one) for one in change.before],
                "after": [_example(one) for one in change.after],
            }
            for change in probe.changes
        ],
    }


def item_view(engine: Engine, item_id: str) -> dict[str, Any]:
    """Serialise one item with the code of its image, strongest dimension first."""
    row = engine.row_of(item_id)
    dimensions, values = engine.image_codes.row(row)
    order = np.argsort(-values, kind="stable")
    names = engine.names()
    return {
        **item_summaries(engine, [row])[0],
        "copies": item_summaries(engine, engine.copies.of(row)),
        "code": [
            {"dimension": int(j), "name": names(int(j)), "value": _number(value)}
            for j, value in zip(dimensions[order], values[order], strict=True)
        ],
    }


def item_summaries(engine: Engine, rows: Sequence[int]) -> list[dict[str, Any]]:
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


def _active(engine: Engine, active: ActiveDimension) -> dict[str, Any]:
    return {
        **dimension_row(engine, active.dimension),
        "q": _number(active.strength),
        "b": _number(active.without_strength),
    }


def dimension_row(engine: Engine, dimension: int) -> dict[str, Any]:
    """Serialise a dimension briefly: its name, top images and best caption."""
    rows, values = engine.image_codes.postings(dimension)
    top = rows[np.argsort(-values, kind="stable")[:N_THUMBNAILS]]
    captions, strengths = engine.text_codes.postings(dimension)
    best = int(captions[np.argmax(strengths)]) if len(captions) else -1
    return {
        "d": dimension,
        "name": engine.name_of(dimension),
        "items": engine.collection.items["id"].iloc[top].tolist(),
        "caption": engine.collection.caption_texts[best] if best >= 0 else "",
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "id": result.id,
        "file": result.file,
        "score": _number(result.score),
        "rank": result.rank,
        "before": result.rank_before,
        "captions": list(result.captions),
        "labels": list(result.labels),
        "copies": copies_json(result),
        "parts": [(part.dimension, _number(part.value)) for part in result.contributions],
    }


def _example(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "file": example.file,
        "value": _number(example.value),
        "captions": list(example.captions),
    }


def _naming(name: DimensionName) -> dict[str, Any]:
    return {
        "source": name.source,
        "score": _number(name.score),
        "runner_up": name.runner_up,
        "runner_up_score": _number(name.runner_up_score),
        "vocabulary": name.vocabulary,
        "vocabulary_score": _number(name.vocabulary_score),
        "vocabulary_runner_up": name.vocabulary_runner_up,
        "vocabulary_runner_up_score": _number(name.vocabulary_runner_up_score),
    }


def _neighbours(neighbours: Sequence[Neighbour]) -> list[dict[str, Any]]:
    return [
        {"dimension": near.dimension, "name": near.name, "similarity": _number(near.similarity)}
        for near in neighbours
    ]


def _or_none(column: list[float]) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 5) for value in column]


def format_number(value: float) -> str:
    """Format a number as the page does: `0.21`, `−0.04`, `0.004`."""
    size = abs(value)
    digits = 3 if 0 < size < 0.0095 else 2
    return ("−" if value < 0 else "") + f"{size:.{digits}f}"


def _number(value: float) -> float:
    """Round to six decimal places: further digits are float32 noise."""
    return round(float(value), 6)
