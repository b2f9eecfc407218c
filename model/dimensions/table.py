"""Table of all dimensions: names, statistics, clarity and labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimension_name import GIVEN, PERSON, DimensionName
from sieve.model.dimensions.clarity import (
    ExampleScores,
    centred_features,
    example_scores,
    monosemanticity,
)
from sieve.model.dimensions.labels import best_labels, fit_labels, label_presence
from sieve.model.dimensions.statistics import dimension_statistics

VERSION = 5
"""Version of the columns and of the cached codes; a cache of another version is computed again."""
MIN_IMAGES = 5
"""Dimensions with fewer images get no clarity and label scores, which would be noise."""
EXAMPLE_FIRING_RATES = (0.05, 0.2)
"""Range of the firing rate on images of a dimension that serves as an example."""
_UNNAMED = DimensionName("", 0.0, "", source="")


def dimension_table(
    collection: Collection,
    checkpoint: Checkpoint,
    image_codes: SparseCodes,
    text_codes: SparseCodes,
) -> pd.DataFrame:
    """Return the table of all dimensions, with everything that is cheap to compute.

    Returns
    -------
    pandas.DataFrame
        The columns of `name_columns`, `dimension_statistics`, `clarity_columns` and
        `label_columns`. Missing values are NaN or empty strings.
    """
    statistics = dimension_statistics(image_codes, text_codes, collection.caption_item)
    if not text_codes.by_row.nnz:
        statistics[["firing_texts", "agreement"]] = np.nan
    measured = [
        clarity_columns(collection, image_codes),
        label_columns(collection, image_codes),
    ]
    rare = np.diff(image_codes.by_dimension.indptr) < MIN_IMAGES
    for part in measured:
        for column in part.columns:
            part.loc[rare, column] = "" if column == "label" else np.nan
    named = [statistics[["dimension"]], name_columns(checkpoint)]
    return pd.concat([*named, statistics.drop(columns="dimension"), *measured], axis=1)


def name_columns(checkpoint: Checkpoint) -> pd.DataFrame:
    """Return the name of each dimension, with its source, score and alternatives.

    Returns
    -------
    pandas.DataFrame
        name, name_score, name_source (captions, vocabulary, given or empty), runner_up,
        runner_up_score, vocabulary_name, vocabulary_score, vocabulary_runner_up.
    """
    names = [checkpoint.names.get(j, _UNNAMED) for j in range(checkpoint.m)]
    return pd.DataFrame(
        {
            "name": [checkpoint.name_of(j) for j in range(len(names))],
            "name_score": [np.nan if name.source == GIVEN else name.score for name in names],
            "name_source": [name.source for name in names],
            "runner_up": [name.runner_up for name in names],
            "runner_up_score": [name.runner_up_score for name in names],
            "vocabulary_name": [name.vocabulary for name in names],
            "vocabulary_score": [name.vocabulary_score for name in names],
            "vocabulary_runner_up": [name.vocabulary_runner_up for name in names],
        }
    )


def rename_rows(table: pd.DataFrame, renamed: Mapping[int, str]) -> pd.DataFrame:
    """Return a dimension table with names from annotations, which have no score.

    Parameters
    ----------
    table : pandas.DataFrame
        Row j is dimension j. Not modified.
    renamed : mapping of int to str
        Name by dimension.
    """
    rows = [j for j in renamed if j < len(table)]
    if not rows:
        return table
    table = table.copy()
    table.loc[rows, "name"] = [renamed[j] for j in rows]
    table.loc[rows, "name_source"] = PERSON
    table.loc[rows, "name_score"] = np.nan
    return table


def clearest_dimension(table: pd.DataFrame) -> int | None:
    """Return the dimension that is the clearest example, to show first.

    Among dimensions in `EXAMPLE_FIRING_RATES`, the one with the largest product of agreement,
    monosemanticity and name score, each in [0, 1] and 1 if unknown.

    Parameters
    ----------
    table : pandas.DataFrame
        From `dimension_table` or `rename_rows`.

    Returns
    -------
    int or None
        None if no named dimension has such a firing rate.
    """
    in_range = table["firing_images"].between(*EXAMPLE_FIRING_RATES)
    named = pd.DataFrame(table[table["name_source"].ne("") & in_range])
    if named.empty:
        return None
    scores = named[["agreement", "monosemanticity", "name_score"]].fillna(1).to_numpy(np.float64)
    clear = np.maximum(scores, 0).prod(axis=1)
    return int(named["dimension"].to_numpy()[clear.argmax()])


def clarity_columns(collection: Collection, codes: SparseCodes) -> pd.DataFrame:
    """Return how similar each dimension's images are: see `sieve.model.dimensions.clarity`.

    Returns
    -------
    pandas.DataFrame
        clarity, redundancy, polysemanticity and monosemanticity by backbone embeddings, NaN without
        them; monosemanticity_labels by the labels of the items, which are independent of the codes.
    """
    by_backbone = dict.fromkeys((*ExampleScores._fields, "monosemanticity"), np.nan)
    if not collection.codes:
        features = centred_features(collection.image_embeddings)
        by_backbone = example_scores(codes.by_dimension, features)._asdict()
        by_backbone["monosemanticity"] = monosemanticity(codes.by_row, features)
    by_labels = np.full(codes.m, np.nan)
    if collection.has_labels:
        _, presence = label_presence(collection.items["labels"].tolist())
        by_labels = monosemanticity(codes.by_row, centred_features(presence.toarray()))
    return pd.DataFrame(
        {
            **by_backbone,
            "monosemanticity_labels": by_labels,
        }
    )


def label_columns(collection: Collection, codes: SparseCodes) -> pd.DataFrame:
    """Return the label that each dimension predicts best: see `sieve.model.dimensions.labels`.

    Returns
    -------
    pandas.DataFrame
        label (chosen on train items), label_auc and label_purity (on test items).
    """
    fit = fit_labels(collection, codes.by_row)
    if fit is None:
        nothing = np.full(codes.m, np.nan)
        return pd.DataFrame({"label": "", "label_auc": nothing, "label_purity": nothing})
    return pd.DataFrame(best_labels(fit, codes.by_row)._asdict())
