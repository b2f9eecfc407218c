"""Test placeholders that show a caption instead of a missing image."""

from __future__ import annotations

import numpy as np
import pytest

from sieve.data_prep.sources.local_images import draw_placeholder


@pytest.mark.parametrize(
    "text",
    ["a dog", "", "word " * 500, "x" * 3000, "W" * 90, "<b>&amp;\u202eשלום", "漢字", "a\nb\tc"],
)
def test_placeholder_fits_any_text(text: str) -> None:
    tile = draw_placeholder(text)
    assert (tile.mode, tile.size) == ("RGB", (320, 240))
    inside = np.asarray(tile)[10:-10, 10:-10]
    assert inside.std() > 1, "something is written"
    edge = np.asarray(tile)[4:-4, -12:-4]
    assert (edge == edge[0, 0]).all(), "nothing runs out of the tile"


def test_placeholders_of_different_texts_differ() -> None:
    assert draw_placeholder("a dog") == draw_placeholder("a dog")
    assert draw_placeholder("a dog") != draw_placeholder("a cat")
