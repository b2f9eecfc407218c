"""Generate malformed input: valid JSON and files with random changes."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

WORDS = (
    "", " ", "a dog", "without", "a dog without a beach", "\x00", "a\x00b", "\n\r\t", "\u202e", "​",
    "\ud800", "\U0001f415", "<img src=x onerror=alert(1)>", "=cmd|' /C calc'!A0", "${7*7}", "{{x}}",
    "../../etc/passwd", "/etc/passwd", "\\\\host\\share", "file:///etc/passwd", "http://127.0.0.1:1/",
    "C:\\a", "%00", "%2e%2e%2f", "?q=a&off=1", "off=1,2,99999999999", "null", "NaN", "-1", "1e999",
    "never", "csv", "json", "parquet", "pdf", "svg", "png", "name", "note", "tags", "starred",
    "a" * 1_001, "é" * 20_000, "9" * 400, "[" * 2_000,
)  # fmt: skip
KEYS = ("__proto__", "constructor", "prototype", "__class__", "toString", "path", "meta", "",
        "\x00", "0", "a" * 300, "off", "q", "dimension", "rows", "kind")  # fmt: skip
NUMBERS = (0, 1, -1, 2, 17, 0.5, 1.5, -0.0, 1e-320, 1e308, 2**31, -(2**31), 2**53 + 1, 2**63,
           2**64, 10**400, float("nan"), float("inf"), float("-inf"))  # fmt: skip

scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(),
    st.sampled_from(WORDS), st.text(max_size=40),
)  # fmt: skip
_keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=12))
values = st.recursive(
    scalars,
    lambda part: st.one_of(st.lists(part, max_size=6), st.dictionaries(_keys, part, max_size=6)),
    max_leaves=12,
)
deep = st.builds(
    lambda depth, as_object: _nested(depth, as_object), st.integers(10, 900), st.booleans()
)
anything = st.one_of(
    values, values, values, deep, st.lists(st.integers(), min_size=2_000, max_size=3_000)
)


def _nested(depth: int, as_object: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if as_object else [value]
    return value


@st.composite
def changed(draw: st.DrawFn, seeds: tuple[Any, ...]) -> Any:
    """Draw a valid value with one to three changes, or an unrelated value."""
    if draw(st.integers(0, 9)) == 0:
        return draw(anything)
    value = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: Any) -> Any:
    """Follow a random path into a value and change its end."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        what = draw(st.sampled_from(("inside", "inside", "inside", "drop", "rename", "twice")))
        if what == "inside":
            return value | {key: _change(draw, value[key])}
        rest = {name: part for name, part in value.items() if name != key}
        if what == "drop":
            return rest
        new = draw(_keys)
        return (value if what == "twice" else rest) | {new: value[key]}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        what = draw(st.sampled_from(("inside", "inside", "drop", "many")))
        parts = {"drop": [], "many": [value[place]] * 300}.get(what)
        parts = [_change(draw, value[place])] if parts is None else parts
        return [*value[:place], *parts, *value[place + 1 :]]
    return draw(anything)


_PIECES = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"'", b",", b"\t", b"{", b"}",
    b"[", b"[" * 20_000, b'{"a":' * 20_000, b"NaN", b"Infinity", b"1e999", b"-1", b"9" * 5_000,
    b"null",
    b"\\ud800", b"\xed\xa0\x80", b"\xc3", b"\x00" * 512, b"PAR1", b"PK\x03\x04", b"\x93NUMPY",
    b"\x80\x04.",
    b"a" * 70_000, b"__proto__", b"../../etc/passwd", b"\xff\xff\xff\x7f", b"\xff" * 8,
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Draw a valid file with some bytes changed, removed, repeated or inserted."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), start + draw(st.sampled_from((1, 2, 4, 16, 300, 1 << 20))))
        what = draw(st.sampled_from(("flip", "flip", "write", "drop", "twice", "put", "end")))
        if what == "flip" and data:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif what == "write":
            piece = draw(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=16)))
            data[start : start + len(piece)] = piece
        elif what == "put":
            data[start:start] = draw(st.sampled_from(_PIECES))
        elif what == "twice":
            data[start:start] = data[start:end]
        else:
            del data[start : None if what == "end" else end]
    return bytes(data)


def json_or_bytes(*seeds: Any) -> st.SearchStrategy[bytes]:
    """Draw the text of a JSON file: a changed value, or changed bytes."""
    written = tuple(json.dumps(seed).encode() for seed in seeds)
    as_value = changed(seeds).map(lambda value: json.dumps(value).encode())
    return st.one_of(as_value, as_value, damaged(written))
