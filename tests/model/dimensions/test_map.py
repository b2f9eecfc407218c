"""Test the map of dimensions: neighbours, determinism and its cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_codes import write_codes

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.model.dimensions import map as layout
from sieve.model.dimensions.map import (
    BY_PCA,
    T_SNE,
    dimension_map,
    firing_profiles,
    lay_out,
    live_dimensions,
    nearest_items,
    project_items,
)
from sieve.model.engine import SearchEngine


def bundles(n: int, of: int) -> np.ndarray:
    """Return `n` noisy directions around each of `of` others."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((of, 24))
    return np.repeat(centres, n, 0) + 0.2 * generator.standard_normal((n * of, 24))


def test_similar_directions_are_close_on_the_map() -> None:
    positions, method = lay_out(bundles(20, 4))
    assert method == T_SNE
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    same = np.equal.outer(np.arange(80) // 20, np.arange(80) // 20)
    assert apart[same].max() < apart[~same].min()
    assert np.abs(positions).max() == 1


def test_map_is_deterministic() -> None:
    first, again = (lay_out(bundles(10, 3))[0] for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("n", [0, 1, 2, 11])
def test_few_directions_are_laid_out(n: int) -> None:
    positions, method = lay_out(bundles(1, n) if n else np.zeros((0, 24)))
    assert method == BY_PCA
    assert positions.shape == (n, 2) and np.isfinite(positions).all()
    assert len(np.unique(positions, axis=0)) == n


def test_identical_directions_are_laid_out() -> None:
    positions, method = lay_out(np.ones((20, 5)))
    assert method == BY_PCA and not positions.any()


def test_many_directions_are_placed_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST", 40)
    positions, method = lay_out(bundles(20, 4))
    assert method == T_SNE and np.abs(positions).max() == 1
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    same = np.equal.outer(np.arange(80) // 20, np.arange(80) // 20)
    assert apart[same].max() < apart[~same].min()


def test_items_with_similar_codes_are_close_on_the_map(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = (engine.collection, engine.checkpoint, engine.image_codes)
    positions = project_items(*opened)
    assert positions.shape == (engine.collection.n_items, 2)
    codes = engine.image_codes.by_row
    cosines = (codes @ codes.T).toarray()
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    nearest = np.argsort(apart, axis=1)[:, 1:6]
    assert np.take_along_axis(cosines, nearest, 1).mean() > 2 * cosines.mean()
    monkeypatch.setattr(layout, "lay_out", None)  # the saved map is read
    assert np.array_equal(project_items(*opened), positions)


def test_nearest_items_have_the_highest_cosines(engine: SearchEngine) -> None:
    codes = engine.image_codes.by_row
    rows, cosines = nearest_items(engine.image_codes, 4)
    exact = (codes @ codes.T).toarray()
    np.fill_diagonal(exact, -1)
    assert np.allclose(cosines, -np.sort(-exact, axis=1)[:, :4], atol=1e-5)
    assert np.allclose(np.take_along_axis(exact, rows, 1), cosines, atol=1e-5)


def test_map_has_only_live_dimensions_and_is_cached(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = (engine.collection, engine.checkpoint, engine.derived)
    found = dimension_map(*opened)
    table = engine.dimension_table()
    fires = (table["firing_images"] > 0) | (table["firing_texts"] > 0)
    assert found.dimensions.tolist() == table["dimension"][fires].tolist()

    def fail_if_called(_: np.ndarray) -> tuple[np.ndarray, str]:
        raise AssertionError("laid out twice")

    monkeypatch.setattr(layout, "lay_out", fail_if_called)
    saved = dimension_map(*opened)
    assert np.array_equal(saved.positions, found.positions)
    assert (saved.dimensions.tolist(), saved.method) == (found.dimensions.tolist(), found.method)


def test_damaged_map_is_recomputed(engine: SearchEngine, tmp_path: Path) -> None:
    opened = (engine.collection, engine.checkpoint, engine.derived)
    found = dimension_map(*opened)
    (saved,) = (tmp_path / "codes").glob("*-map*/map.parquet")
    saved.write_bytes(b"no map")
    assert np.array_equal(dimension_map(*opened).positions, found.positions)


def test_read_only_home_does_not_cache_the_map(
    engine: SearchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path / "file"))
    assert len(dimension_map(engine.collection, engine.checkpoint, engine.derived).dimensions)


def test_external_codes_are_laid_out_by_coactivation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path / "home"))
    source = Codes(CodeFiles.find(write_codes(tmp_path / "codes")), name="given")
    made = prepare(
        source, None, tmp_path / "made", precomputed=source.precomputed(), progress=False
    )
    opened = SearchEngine.open(made.path)
    found = dimension_map(opened.collection, opened.checkpoint, opened.derived)
    assert found.dimensions.tolist() == [0, 1, 2, 3] and found.method == BY_PCA
    assert len(np.unique(found.positions, axis=0)) == 4


def test_profiles_have_the_cosines_of_their_coactivation(engine: SearchEngine) -> None:
    live = live_dimensions(engine.derived)
    profiles = firing_profiles(engine.derived, live)
    codes = np.concatenate(
        [c.by_row.toarray()[:, live] for c in (engine.image_codes, engine.text_codes)]
    )
    unit = codes / np.linalg.norm(codes, axis=0)
    assert np.abs(profiles @ profiles.T - unit.T @ unit).max() < 0.05
