"""Test that messages about invalid values are in the words of JSON, not of a schema."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sieve.explorer.figures import Recipe, Row
from sieve.explorer.json_validation import validate
from sieve.explorer.tabs.compare import SetsRequest
from sieve.explorer.tabs.dimensions import PageRequest
from sieve.explorer.tabs.search import FacetsRequest, SearchRequest
from sieve.model.evaluation.query_sets import ExclusionQuery
from sieve.model.files import fault_in

JARGON = re.compile(
    r"pattern|should|Input|valid (string|integer|number|boolean|dictionary|list|tuple)|unable|"
    r"constrained|function|[\^$\\]|\[\w-\w|after validation|Value error|instance of|NoneType"
)
"""Parts of regular expressions and of the messages of pydantic."""
VALUES: list[Any] = [
    None, True, -1, 2.5, 10**400, float("nan"), "", " ", "x", "7,8", [], [None], ["a", "b", "c"],
    [[1]], {}, {"a": 1}, {"a": {}},
]  # fmt: skip


@pytest.mark.parametrize(
    "kind", [Recipe, Row, SearchRequest, FacetsRequest, SetsRequest, PageRequest]
)
def test_invalid_values_are_described_without_the_schema(kind: type) -> None:
    n_refused = 0
    for name in (field.name for field in fields(kind)):
        for value in VALUES:
            try:
                validate(kind, {name: value}, "a request")
            except ValueError as error:
                message = str(error)
            else:
                continue
            n_refused += 1
            expected, _, got = message.rpartition("; got ")
            assert not JARGON.search(expected or got), message
            assert "\n" not in message and len(message) < 300
    assert n_refused > len(VALUES) / 4


@pytest.mark.parametrize("name", ExclusionQuery.model_fields)
def test_invalid_queries_of_a_file_are_described_without_the_schema(name: str) -> None:
    query = {"query": "a dog", "without": "a beach", "relevant": ["a"], "violating": ["b"]}
    for value in VALUES:
        text = json.dumps(query | {name: value})
        try:
            ExclusionQuery.model_validate_json(text)
        except ValidationError as error:
            expected, _, got = fault_in(error).rpartition("; got ")
            assert expected.startswith(f"{name}") and got, fault_in(error)
            assert not JARGON.search(expected), fault_in(error)


def test_a_field_that_is_no_text_of_a_list_is_named() -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(dict[str, list[str]]).validate_python({"names": ["a", 3]})
    assert fault_in(raised.value) == "names.1 must be a string; got 3"
