"""Test the handlers of the Dimensions tab."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import pytest

from sieve.explorer.tabs import dimensions
from sieve.explorer.tabs.annotations import AnnotationHandlers
from sieve.explorer.tabs.dimensions import dimensions_tab
from sieve.model.dimensions.map import dimension_map


def piece(engine, name: str) -> gr.HTML:
    with gr.Blocks() as app:
        dimensions_tab(engine, AnnotationHandlers(engine, editing=False))
    return next(one for one in app.blocks.values() if one.elem_id == f"sieve-dimension-{name}")  # type: ignore[return-value]


def test_map_is_computed_once_for_concurrent_requests(
    tiny_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = []

    def slow(*opened: object):
        requested.append(opened)
        time.sleep(0.2)
        return dimension_map(*opened)  # type: ignore[arg-type]

    monkeypatch.setattr(dimensions, "dimension_map", slow)
    ask = piece(tiny_engine, "map").sieve_map.__wrapped__  # type: ignore[attr-defined]
    assert not requested, "laid out before the first request"
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(ask, [None] * 4)
    assert len(requested) == 1 and all(other == first for other in others)
    assert len(first["id"]) == len(first["x"]) == len(first["y"]) > 0


def test_sample_depends_on_the_seed(tiny_engine) -> None:
    ask = piece(tiny_engine, "page").sieve_page.__wrapped__  # type: ignore[attr-defined]
    dimension = int(tiny_engine.dimension_table()["firing_images"].to_numpy().argmax())
    first, again, other = (ask({"dimension": dimension, "seed": seed}) for seed in (0, 0, 1))
    assert first == again == ask({"dimension": dimension})
    assert first["random_images"] != other["random_images"]
    assert first["top_images"] == other["top_images"]


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (None, "A dimension must be a JSON object"),
        ({}, "Dimension is required"),
        ({"dimension": 64}, "There is no dimension 64"),
        ({"dimension": -1}, "A dimension is a whole number"),
        ({"dimension": 1, "seed": -1}, "Seed must be greater than or equal to 0"),
        ({"dimension": 1, "seed": 0.5}, "Seed must be a whole number"),
        ({"dimension": 1, "seed": "1"}, "Seed must be a number"),
    ],
)
def test_invalid_requests_are_one_line(tiny_engine, payload: object, line: str) -> None:
    page = piece(tiny_engine, "page")
    assert page.sieve_page.__wrapped__(payload)["error"].startswith(line)  # type: ignore[attr-defined]
    if not (isinstance(payload, dict) and "seed" in payload):
        assert page.sieve_probe.__wrapped__(payload)["error"].startswith(line)  # type: ignore[attr-defined]
