"""Test the dimension that is shown first to a new user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sieve.model.dimensions.table import clearest_dimension, rename_rows


def table(**changed: Sequence[object]) -> pd.DataFrame:
    columns: dict[str, Sequence[object]] = {
        "name": ["everything", "forest", "snow", "dimension 3", "rare"],
        "name_source": ["captions", "captions", "captions", "", "captions"],
        "confident": [True, True, True, False, True],
        "firing_images": [0.99, 0.1, 0.1, 0.1, 0.001],
        "agreement": [1.0, 0.9, 0.8, 1.0, 1.0],
        "monosemanticity": [1.0, 0.5, 0.5, 1.0, 1.0],
        "name_score": [1.0, 0.9, 0.9, 1.0, 1.0],
    }
    return pd.DataFrame({"dimension": range(5), **columns, **changed})


def test_clearest_dimension_is_named_clear_and_neither_common_nor_rare() -> None:
    assert clearest_dimension(table()) == 1
    assert clearest_dimension(table(name_score=[1.0, 0.1, 0.9, 1.0, 1.0])) == 2
    assert clearest_dimension(table(monosemanticity=[1.0, -0.2, 0.1, 1.0, 1.0])) == 2
    assert clearest_dimension(rename_rows(table(), {3: "mine"})) == 3


def test_missing_values_are_ignored_and_ties_break_by_index() -> None:
    nothing = [np.nan] * 5
    unknown = table(agreement=nothing, monosemanticity=nothing, name_score=nothing)
    assert clearest_dimension(unknown) == 1


def test_no_dimension_is_chosen_if_none_qualifies() -> None:
    assert clearest_dimension(table(firing_images=[0.9] * 5)) is None
    assert clearest_dimension(table(confident=[False] * 5)) is None
