from __future__ import annotations

import numpy as np
from tiny_codes import WORD_CODES, WORDS, matrix

from sieve.model.codes import SparseCodes
from sieve.model.text_encoder import CodedWords

CODES = SparseCodes.from_rows(matrix(WORD_CODES))
TABLE = CodedWords(WORDS, CODES.dense, CODES.m)
HALF = np.sqrt(0.5)


def test_word_has_the_same_code_in_singular_and_plural() -> None:
    for text in ("dogs", "dog", "a Dog.", "the dog's"):
        assert TABLE.code(text).tolist() == [1, 0, 0, 0], text


def test_text_code_is_the_mean_of_its_words() -> None:
    np.testing.assert_allclose(TABLE.code("a dog on the beach"), [HALF, HALF, 0, 0], atol=1e-7)
    np.testing.assert_allclose(
        TABLE.code("animal dog"), np.array([1 + HALF, 0, 0, HALF]) / np.hypot(1 + HALF, HALF),
        atol=1e-7,
    )  # fmt: skip


def test_longest_entry_is_used() -> None:
    assert TABLE.rows_of("a polar bear and a cat")[0] == [5, 3]
    assert TABLE.rows_of("Polar  Bears")[0] == [5]
    assert TABLE.unknown_words("polar") == ["polar"]


def test_unknown_words_are_reported_except_function_words() -> None:
    rows, unknown = TABLE.rows_of("two xylophones and a dog with a xylophone")
    assert rows == [0]
    assert unknown == ["xylophones", "xylophone"]
    assert not TABLE.code("xylophone").any()
    assert not TABLE.code("").any()


def test_non_word_entries_match_exactly() -> None:
    codes = SparseCodes.from_rows(matrix(np.eye(3)))
    table = CodedWords(["##ing", "☂ 2", "ing"], codes.dense, codes.m)
    assert table.rows_of("☂  2")[0] == [1]
    assert table.rows_of("ing")[0] == [2]
