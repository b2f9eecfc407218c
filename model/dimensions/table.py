"""Table of all dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimension_name import GIVEN, PERSON, DimensionName
from sieve.model.dimensions.labels import best_labels, fit_labels, label_presence
from sieve.model.dimensions.statistics import (
    ExampleScores,
    agreement,
    centred_features,
    example_scores,
    firing_rate,
    mean_caption_codes,
    monosemanticity,
)

VERSION = 7
"""Version of the columns and of the cached codes; a cache of another version is computed again."""
MIN_IMAGES = 5
"""Dimensions with fewer images get no clarity and label scores, which would be noise."""
EXAMPLE_FIRING_RATES = (0.05, 0.2)
"""Range of the firing rate on images of a dimension that serves as an example."""


class TableColumn(NamedTuple):
    """A column that the command line and the page show."""

    name: str
    page: Literal["text", "whole", "number", "score", "share"] | None = "number"
    """Format on the page, or None to hide the column; scores (at most 1) and shares have bars."""
    key: str = ""
    """Key on the page and in its links, if not the name."""
    cli: bool = True


COLUMNS = (
    TableColumn("dimension", page=None),  # the page always has the number and the name
    TableColumn("name", page=None),
    TableColumn("name_source", page=None),
    TableColumn("runner_up", page=None),
    TableColumn("firing_images", "share", "images"),
    TableColumn("firing_texts", "share", "texts"),
    TableColumn("agreement", "score"),
    TableColumn("monosemanticity", "score", "mono"),
    TableColumn("label", page=None),
    TableColumn("label_auc", "number", "auc"),  # replaces the top word on the page
    TableColumn("top_word", "text", "word", cli=False),
)
"""Columns that are shown, in order; JSON and CSV contain all columns. Append new ones, because
`dimensions.css` selects columns by position. `explorer/components/measures.js` may define a label,
a tooltip and a filter."""
_UNNAMED = DimensionName("", 0.0, "", source="")


def dimension_table(
    collection: Collection,
    checkpoint: Checkpoint,
    image_codes: SparseCodes,
    text_codes: SparseCodes,
) -> pd.DataFrame:
    """Return the table of all dimensions, with everything that is cheap to compute.

    Missing values are NaN or empty strings.

    Returns
    -------
    pandas.DataFrame
        dimension;
        name, name_score, name_source (captions, vocabulary, given or empty), name_auc (on items
        that did not choose the name), confident (see `DimensionName`), runner_up, runner_up_score,
        vocabulary_name, vocabulary_score, vocabulary_runner_up;
        firing_images, firing_texts (shares of rows), agreement (see `agreement`), mean (of the
        positive image values), max (over images);
        clarity, redundancy, polysemanticity, monosemanticity (by backbone embeddings, NaN without
        them) and monosemanticity_labels (by the labels of the items, which are independent of the
        codes): see `sieve.model.dimensions.statistics`;
        label (chosen on train items), label_auc and label_purity (on test items): see
        `sieve.model.dimensions.labels`. `SearchEngine.dimension_table` adds concept, the leading
        dimension of each dimension's concept, and what some commands measure: stability (lowest
        correlation with the matched dimension of another training seed), own_fall and other_fall
        (in counterfactual images): see `sieve.model.sanity_checks`.
    """
    names = [checkpoint.names.get(j, _UNNAMED) for j in range(checkpoint.m)]
    codes = image_codes.by_dimension
    n_images = np.diff(codes.indptr)
    texts = mean_caption_codes(text_codes, collection.caption_item, image_codes.n)
    has_texts = text_codes.by_row.nnz > 0
    total = np.asarray(image_codes.by_row.sum(0)).ravel()
    table = pd.DataFrame(
        {
            "dimension": np.arange(image_codes.m),
            "name": [checkpoint.name_of(j) for j in range(checkpoint.m)],
            "name_score": [np.nan if name.source == GIVEN else name.score for name in names],
            "name_source": [name.source for name in names],
            "name_auc": [np.nan if name.auc is None else name.auc for name in names],
            "confident": [name.confident for name in names],
            "runner_up": [name.runner_up for name in names],
            "runner_up_score": [name.runner_up_score for name in names],
            "vocabulary_name": [name.vocabulary for name in names],
            "vocabulary_score": [name.vocabulary_score for name in names],
            "vocabulary_runner_up": [name.vocabulary_runner_up for name in names],
            "firing_images": firing_rate(image_codes),
            "firing_texts": firing_rate(text_codes) if has_texts else np.nan,
            "agreement": agreement(image_codes.by_row, texts) if has_texts else np.nan,
            "mean": (total / np.maximum(n_images, 1)).astype(np.float32),
            "max": codes.max(axis=0).toarray().ravel() if image_codes.n else 0.0,
        }
    )
    measured = _clarity_columns(collection, image_codes)
    fit = fit_labels(collection, image_codes.by_row)
    if fit is None:
        measured = measured.assign(label="", label_auc=np.nan, label_purity=np.nan)
    else:
        measured = measured.assign(**best_labels(fit, image_codes.by_row))
    rare = n_images < MIN_IMAGES
    measured.loc[rare, measured.columns.drop("label")] = np.nan
    measured.loc[rare, "label"] = ""
    return pd.concat([table, measured], axis=1)


def _clarity_columns(collection: Collection, codes: SparseCodes) -> pd.DataFrame:
    by_backbone = dict.fromkeys((*ExampleScores._fields, "monosemanticity"), np.nan)
    if not collection.codes:
        features = centred_features(collection.image_embeddings)
        by_backbone = example_scores(codes.by_dimension, features)._asdict()
        by_backbone["monosemanticity"] = monosemanticity(codes.by_row, features)
    by_labels = np.full(codes.m, np.nan)
    if collection.has_labels:
        _, presence = label_presence(collection.items["labels"].tolist())
        by_labels = monosemanticity(codes.by_row, centred_features(presence.toarray()))
    return pd.DataFrame({**by_backbone, "monosemanticity_labels": by_labels})


def rename_rows(table: pd.DataFrame, renamed: Mapping[int, str]) -> pd.DataFrame:
    """Return a dimension table with names from annotations, which have no score.

    Row j of the table, which is not modified, is dimension j. `renamed` has names by dimension.
    """
    rows = [j for j in renamed if j < len(table)]
    table = table.copy()
    table.loc[rows, "name"] = [renamed[j] for j in rows]
    table.loc[rows, "name_source"] = PERSON
    table.loc[rows, "confident"] = True
    table.loc[rows, "name_score"] = np.nan
    return table


def clearest_dimension(table: pd.DataFrame) -> int | None:
    """Return the dimension that is the clearest example, to show first.

    Among dimensions with a certain name in `EXAMPLE_FIRING_RATES`, the one with the largest product
    of agreement, monosemanticity and name score, each in [0, 1] and 1 if unknown; None if there are
    none.
    """
    in_range = table["firing_images"].between(*EXAMPLE_FIRING_RATES)
    named = pd.DataFrame(table[table["confident"] & in_range])
    if named.empty:
        return None
    scores = named[["agreement", "monosemanticity", "name_score"]].fillna(1).to_numpy(np.float64)
    clear = np.maximum(scores, 0).prod(axis=1)
    return int(named["dimension"].to_numpy()[clear.argmax()])
