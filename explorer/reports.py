"""What the command line tells, as plain data: the JSON shapes that scripts rely on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sieve.data_prep.bundled import open_collection_path
from sieve.data_prep.scenes.synonyms import label_synonyms
from sieve.explorer.arguments import checkpoint_path
from sieve.model.checkpoint import TRAINING, Checkpoint, find_checkpoint
from sieve.model.collection import Collection
from sieve.model.engine import EncodedQuery, Engine, Result, SearchOutcome
from sieve.model.meaning import meaning_report


def copies_json(result: Result) -> list[dict[str, str]]:
    """List the items that are folded into a result, as they show the same picture."""
    return [copy._asdict() for copy in result.copies]


def search_report(query: EncodedQuery, outcome: SearchOutcome) -> dict[str, Any]:
    """Describe one search: query, without, excluded, off, results, notes, suggestion, seconds."""
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


def collection_facts(collection: Collection) -> dict[str, Any]:
    """Describe a collection by itself."""
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
    """Describe a collection and its checkpoint; `checkpoint` is None where none fits."""
    collection = Collection.open(open_collection_path(name))
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
    """Select and sort rows of the dimension table.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    if sort not in table.columns:
        raise ValueError(f"cannot sort by {sort!r}; columns are: {', '.join(table.columns)}")
    if match:
        words = table["name"].str.cat(table["top_word"].astype(str), sep="\n")
        table = table.loc[words.str.contains(match, case=False, regex=False)]
    upwards = sort == "dimension" or not pd.api.types.is_numeric_dtype(table[sort])
    return table.sort_values(sort, ascending=upwards, kind="stable")


def dimension_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Write rows of the dimension table as JSON; what could not be measured is null."""
    return json.loads(table.to_json(orient="records", double_precision=15) or "[]")


def summary_report(engine: Engine) -> dict[str, Any]:
    """Describe what an encoder's dimensions mean on a collection: see `sieve.model.meaning`."""
    is_scenes = str(engine.collection.manifest["source"]).startswith("Scenes(")
    report = meaning_report(engine, label_synonyms() if is_scenes else {})
    return {
        "collection": engine.collection.name,
        "checkpoint": str(engine.checkpoint.path.absolute()),
        **asdict(report),
    }


def training_report(checkpoint: Checkpoint, seconds: float) -> dict[str, Any]:
    """Describe a training that has just ended."""
    facts = json.loads((Path(checkpoint.path) / TRAINING).read_text())
    return {
        "checkpoint": str(checkpoint.path.absolute()),
        "trained_on": checkpoint.trained_on,
        "items": len(facts["items"]),
        "quality": facts["quality"],
        "seconds": seconds,
    }
