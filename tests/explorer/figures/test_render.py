"""Test figures that are downloaded from the page and then deleted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from drawn import ROWS, recipe

from sieve.explorer.figures.drawing import KEPT_SECONDS, draw_figure, keep_file, recipe_for


def test_served_recipe_must_match_the_open_collection(tiny_engine) -> None:
    assert recipe_for(tiny_engine, {"rows": ROWS, "collection": "some/path/tiny"})
    with pytest.raises(ValueError, match="for collection 'scenes', but 'tiny' is open"):
        recipe_for(tiny_engine, {"rows": ROWS, "collection": "scenes"})
    with pytest.raises(ValueError, match="kind must be one of pdf, svg, png, tex, json; got 'exe'"):
        draw_figure(tiny_engine, recipe(), "exe")
    written = draw_figure(tiny_engine, recipe(), "json").data
    assert recipe_for(tiny_engine, json.loads(written)).collection == "tiny"


def test_files_are_deleted_after_an_hour(tmp_path: Path) -> None:
    old = keep_file("figure.pdf", b"old", tmp_path)
    long_ago = old.stat().st_mtime - KEPT_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    new = keep_file("figure.pdf", b"new", tmp_path)
    assert new.read_bytes() == b"new" and not old.parent.exists()
