"""Test the parser of caption cells."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve.data_prep.captions.caption_text import CellError, captions_in, text_in


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ("a dog", ["a dog"]),
        (" a\tdog \n on grass", ["a dog on grass"]),
        (["a dog", "a hound"], ["a dog", "a hound"]),
        (("a dog", None, float("nan"), ""), ["a dog"]),
        (np.array(["a dog", "a hound"], object), ["a dog", "a hound"]),
        (np.str_("a dog"), ["a dog"]),
        ("ein Hündchen".encode(), ["ein Hündchen"]),
        ({"raw": "a dog", "tokens": ["a", "dog"], "sentid": 3}, ["a dog"]),
        ({"Text": "a dog"}, ["a dog"]),
        ({"raw": ["a dog", "a hound"], "tokens": [["a"], ["b"]]}, ["a dog", "a hound"]),
        ({"raw": "a dog", "text": "a dog"}, ["a dog"]),
        ({"raw": None, "caption": "a dog"}, ["a dog"]),
        ([{"raw": "a dog"}, {"caption": "a hound"}, "a cur"], ["a dog", "a hound", "a cur"]),
        ({"sentences": [{"raw": "a dog", "tokens": []}, {"raw": "b"}]}, ["a dog", "b"]),
        # A list in a text cell, as JSON, Python and NumPy print it.
        ('["a \\"dog\\"", "caf\\u00e9"]', ['a "dog"', "café"]),
        ("['a dog', \"it's a hound\",]", ["a dog", "it's a hound"]),
        ("['a dog'\n 'a hound']", ["a dog", "a hound"]),
        ("[{'raw': 'a dog', 'tokens': ['a', 'dog']}]", ["a dog"]),
        ('{"raw": "a dog"}', ["a dog"]),
        ("['a dog', None]", ["a dog"]),
        # Brackets that contain no list remain a caption.
        ("[stock photo] a dog", ["[stock photo] a dog"]),
        ("[a dog]", ["[a dog]"]),
        ("{a dog}", ["{a dog}"]),
        ("", []),
        ([], []),
        ({}, []),
        (None, []),
        (float("nan"), []),
        (np.float32("nan"), []),
    ],
)
def test_captions_of_a_cell_are_parsed(value: object, captions: list[str]) -> None:
    assert captions_in(value) == captions


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "NULL", "null", "None", "N/A", "NA", "<NA>", "#N/A", " nan ", "-", "[]"]
)
def test_missing_value_markers_are_not_captions(word: str) -> None:
    assert captions_in(word) == []
    assert captions_in([word, "a dog"]) == ["a dog"] or word == "[]"


@pytest.mark.parametrize("text", ["None of the dogs", "nan bread", "N/A sign", "42", "dog - cat"])
def test_missing_value_markers_within_a_caption_are_preserved(text: str) -> None:
    assert captions_in(text) == [text]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (42, "found the number 42"),
        (0.5, "found the number 0.5"),
        (True, "found true or false"),
        ([1, 2], "found the number 1"),
        ("[1, 2]", "found the number 1"),
        ([["a", "dog"]], "a list within a list"),
        ({"en": "a dog", "de": "ein Hund"}, "its keys are en, de"),
        ({"raw": "a dog", "text": "a cat"}, "different captions under raw and text"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        ("['a dog' ... 'a cat']", "begins like a list"),
        ('["a dog", ', "begins like a list"),
        ("[" * 100_000 + "]", None),
        ("{'a':" * 100_000 + "}", "begins like a list"),
    ],
)
def test_other_values_are_reported_as_malformed(value: object, fault: str | None) -> None:
    if fault is None:  # brackets alone are text
        assert captions_in(value) == [value]
        return
    with pytest.raises(CellError, match=fault):
        captions_in(value)


def test_malicious_cell_is_parsed_in_bounded_time() -> None:
    start = time.perf_counter()
    for text in (
        "[" + "'a'   " * 20_000 + "x]",
        "['" + "\\" * 50_000 + "]",
        '["a"' + " " * 50_000 + "]x",
        "['a'" + " ,  " * 20_000 + "]",
    ):
        with pytest.raises(CellError):
            captions_in(text)
    assert time.perf_counter() - start < 5


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
def test_printed_list_is_parsed_as_a_list(texts: list[str]) -> None:
    assert captions_in(json.dumps(texts)) == captions_in(texts)
    assert captions_in(repr(texts)) == captions_in(texts)


def test_text_of_a_cell_is_parsed() -> None:
    assert [text_in(value) for value in ("a.jpg", 12, None, float("nan"), b"a.jpg")] == [
        "a.jpg", "12", "", "", "a.jpg",
    ]  # fmt: skip
    for value in ({"path": "a"}, ["a"], object()):
        with pytest.raises(CellError, match="expected a text, found"):
            text_in(value)
