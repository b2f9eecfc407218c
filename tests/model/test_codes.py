from __future__ import annotations

from pathlib import Path

import numpy as np

from sieve.model.codes import SparseCodes


def random_codes(n: int = 50, m: int = 20, k: int = 6) -> tuple[SparseCodes, np.ndarray]:
    generator = np.random.default_rng(0)
    indices = np.stack([generator.permutation(m)[:k] for _ in range(n)])
    values = np.maximum(generator.standard_normal((n, k)), 0)
    values[3] = 0
    dense = np.zeros((n, m))
    np.put_along_axis(dense, indices, values, 1)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    return SparseCodes.from_active(values, indices, m), dense


def test_rows_have_unit_norm_and_empty_rows_stay_empty() -> None:
    codes, dense = random_codes()
    np.testing.assert_allclose(codes.by_row.toarray(), dense, atol=1e-6)
    assert len(codes.row(3)[0]) == 0


def test_postings_equal_rows() -> None:
    codes, dense = random_codes()
    for j in range(codes.m):
        rows, values = codes.postings(j)
        assert (np.diff(rows) > 0).all()
        np.testing.assert_allclose(values, dense[rows, j], atol=1e-6)
        assert set(rows) == set(np.flatnonzero(dense[:, j]))
    np.testing.assert_allclose(codes.dense(7), dense[7], atol=1e-6)


def test_copy_takes_at_most_8_bytes_per_active_entry() -> None:
    codes, _ = random_codes()
    for copy in (codes.by_row, codes.by_dimension):
        assert copy.data.itemsize + copy.indices.itemsize <= 8


def test_saved_codes_round_trip(tmp_path: Path) -> None:
    codes, _ = random_codes()
    codes.save_cache(tmp_path, "image")
    again = SparseCodes.load_cache(tmp_path, "image", codes.m)
    assert again.by_row.toarray().tobytes() == codes.by_row.toarray().tobytes()


def test_saved_postings_are_memory_mapped_and_equal(tmp_path: Path) -> None:
    codes, _ = random_codes()
    codes.save_cache(tmp_path, "image")
    plain = SparseCodes.load_cache(tmp_path, "image", codes.m)
    codes.save_cache(tmp_path, "sorted", postings=True)
    mapped = SparseCodes.load_cache(tmp_path, "sorted", codes.m)
    assert not mapped.by_dimension.data.flags.owndata, "it is no copy"
    for j in range(codes.m):
        for ours, theirs in zip(plain.postings(j), mapped.postings(j), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert (mapped.by_row != codes.by_row).nnz == 0
