from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sieve.model.query_parser import (
    MAX_QUERY_CHARACTERS,
    MAX_TERMS,
    ParsedQuery,
    Term,
    parse_query,
)
from sieve.model.words.text import says_something


@pytest.mark.parametrize(
    ("text", "find", "without"),
    [
        ("dog -beach", "dog", ["beach"]),
        ("-beach dog", "dog", ["beach"]),
        ('a dog -"a beach"', "a dog", ["a beach"]),
        ("a dog -“a beach”", "a dog", ["a beach"]),
        ("a dog -'a beach'", "a dog", ["a beach"]),
        ("a dog -a sandy beach", "a dog", ["a sandy beach"]),
        ("a dog \u2212beach", "a dog", ["beach"]),
        ("a dog \u2013beach", "a dog", ["beach"]),
        ("a dog \u2014beach", "a dog", ["beach"]),
        ("a dog !beach", "a dog", ["beach"]),
        ("dog -(beach or street)", "dog", ["beach", "street"]),
        ("dog -beach -street", "dog", ["beach", "street"]),
        ("dessert -ice cream", "dessert", ["ice cream"]),
        ("an x-ray -skull", "an x-ray", ["skull"]),
        ("a dog NOT a beach", "a dog", ["a beach"]),
        ("dog NOT beach", "dog", ["beach"]),
        ("dog AND NOT beach", "dog", ["beach"]),
        ("A DOG NOT A BEACH", "A DOG", ["A BEACH"]),
        ("a dog, no beach", "a dog", ["beach"]),
        ("a dog (no beach)", "a dog", ["beach"]),
        ("a dog. No beach.", "a dog", ["beach"]),
        ("a dog, not a beach", "a dog", ["a beach"]),
        ("a woman, no hat, smiling", "a woman, smiling", ["hat"]),
        ("a dog, no beach, street or park", "a dog", ["beach", "street", "park"]),
        ("a dog not on a beach", "a dog", ["a beach"]),
        ("a dog but not on a beach", "a dog", ["a beach"]),
        ("a dog that isn\u2019t on a beach", "a dog", ["a beach"]),
        ("a man who does not wear a hat", "a man", ["a hat"]),
        ("a man not wearing a hat", "a man", ["a hat"]),
        ("A dog without a beach.", "A dog", ["a beach"]),
        ("a dog without a beach and without a street", "a dog", ["a beach", "a street"]),
        ("a dog without a beach, street or park", "a dog", ["a beach", "street", "park"]),
        ("a dog w/o a beach", "a dog", ["a beach"]),
        ("a dog minus a beach", "a dog", ["a beach"]),
        ("a dog excluding beaches", "a dog", ["beaches"]),
        ("people, except children", "people", ["children"]),
        ("a street with no cars", "a street", ["cars"]),
        ("a man with no shirt", "a man", ["shirt"]),
        ("a park with neither dogs nor cats", "a park", ["dogs", "cats"]),
        ("not a dog", "", ["a dog"]),
        ("without a beach", "", ["a beach"]),
        ("-beach", "", ["beach"]),
    ],
)
def test_common_exclusion_wordings_are_parsed(text: str, find: str, without: list[str]) -> None:
    parsed = parse_query(text)
    assert (parsed.text, list(parsed.without)) == (find, without)
    assert parsed.notes[0].startswith("Read as ")
    assert all(f"“{phrase}”" in parsed.notes[0] for phrase in without)


@pytest.mark.parametrize(
    "text",
    [
        "a dog on a beach", "a t-shirt", "a black-and-white dog", "nothing but blue sky",
        '"a dog -beach"', 'a sign that says "no dogs"', "minus 5 degrees",
        "a dog without a doubt",
    ],
)  # fmt: skip
def test_other_texts_are_searched_as_written(text: str) -> None:
    parsed = parse_query(text)
    assert (parsed.find_field, parsed.without, parsed.notes) == (text, (), ())


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("a dog - a beach", ("a dog", "a beach")),
        ("a dog – a beach", ("a dog", "a beach")),
        ("a street no cars", ("a street", "cars")),
        ("a dog sans beach", ("a dog", "beach")),
        ("a car-free street", ("a street", "car")),
        ("a cat rather than a dog", ("a cat", "a dog")),
        ("a no parking sign", None),
        ("no smoking sign", None),
        ("a dog without", None),
        ("without", None),
        ("not only a dog", None),
        ("a DO NOT ENTER sign", None),
    ],
)
def test_ambiguous_wording_is_not_split_but_noted(
    text: str, suggestion: tuple[str, str] | None
) -> None:
    parsed = parse_query(text)
    assert (parsed.text, parsed.without) == (text, ())
    assert parsed.notes[-1].endswith("was searched as written, not read as an exclusion.")
    other = parsed.suggestion
    assert (other and (other.find_field, other.without_field)) == suggestion


@pytest.mark.parametrize(
    ("field", "without"),
    [
        ("a beach", ["a beach"]),
        ("beach, street or park", ["beach", "street", "park"]),
        ("beach; street & park", ["beach", "street", "park"]),
        ("beach/street", ["beach", "street"]),
        ("black and white", ["black and white"]),
        ('"salt, pepper", beach', ["salt, pepper", "beach"]),
        ("-beach", ["beach"]),
        ("no beach", ["beach"]),
        ("Beach, beach", ["Beach"]),
        ("???", []),
    ],
)
def test_without_field_accepts_a_list(field: str, without: list[str]) -> None:
    parsed = parse_query("a dog", field)
    assert parsed.text == "a dog"
    assert list(parsed.without) == without
    assert bool(parsed.notes) == (without != [field] and field != "black and white")


def test_both_fields_exclude() -> None:
    assert parse_query("a dog -beach", "a street").without == ("beach", "a street")


def test_several_words_after_a_minus_sign_are_noted() -> None:
    parsed = parse_query("dog -sandy beach")
    assert (parsed.text, parsed.without) == ("dog beach", ("sandy",))
    assert 'A minus sign excludes one word; quote several: -"two words".' in parsed.notes


def test_long_texts_and_lists_are_truncated_with_a_note() -> None:
    parsed = parse_query("a dog " * 2000)
    assert len(parsed.text) <= MAX_QUERY_CHARACTERS
    assert parsed.notes == ("Only the first 1,000 characters of the text were read.",)
    parsed = parse_query("a dog", ",".join(f"word{number}" for number in range(40)))
    assert len(parsed.without) == MAX_TERMS
    assert f"Only the first {MAX_TERMS} exclusions were used." in parsed.notes


DOG, BALL = Term("a dog"), Term("a ball")
HEX = "00c0ffee00c0ffee"


@pytest.mark.parametrize(
    ("text", "find", "exclude"),
    [
        ("a dog + a ball", [DOG, BALL], []),
        ("2:a dog + a ball", [Term("a dog", weight=2), BALL], []),
        ("2×a dog + 0.5 a ball", [Term("a dog", weight=2), Term("a ball", weight=0.5)], []),
        (
            "2:golden cat, 0.5:a ball and 3:snow",
            [Term("golden cat", "text", 2), Term("a ball", "text", 0.5), Term("snow", "text", 3)],
            [],
        ),
        (
            "a dog + ball.jpg − beach − 0.5 street",
            [DOG, Term("ball.jpg", "image")],
            [Term("beach"), Term("street", weight=0.5)],
        ),
        ("a dog + a ball -sandy beach + snow", [DOG, BALL, Term("snow")], [Term("sandy beach")]),
        ("a dog + a ball without snow, street or park", [DOG, BALL], ["snow", "street", "park"]),
        ("a dog + a ball but not on a beach", [DOG, BALL], ["a beach"]),
        ("a dog, sitting + a ball", [Term("a dog, sitting"), BALL], []),
        ("a dog + 2 cats", [DOG, Term("2 cats")], []),
        ('"a dog + a ball"', [Term("a dog + a ball")], []),
        ('a dog + "not a beach"', [DOG, Term("not a beach")], []),
        (f"a dog + 2:item:{HEX}", [DOG, Term(HEX, "item", 2.0)], []),
        (f"a dog -item:{HEX}", [DOG], [Term(HEX, "item")]),
        ('a dog + image:"my ball.png"', [DOG, Term("my ball.png", "image")], []),
        ('concept:17 - concept:"a b"', [Term("17", "concept")], [Term("a b", "concept")]),
        ("a dog -0.5:beach", [DOG], [Term("beach", weight=0.5)]),
        ("a dog without 0.5:beach", [DOG], [Term("beach", weight=0.5)]),
        ("a clock at 10:30", [Term("a clock at 10:30")], []),
        ("a 16:9 screen", [Term("a 16:9 screen")], []),
        ("1+1 c++", [Term("1+1 c++")], []),
        ("image: a dog", [Term("image: a dog")], []),
    ],
)  # fmt: skip
def test_sums_of_terms_are_parsed(text: str, find: list[Term], exclude: list[Term | str]) -> None:
    parsed = parse_query(text)
    assert list(parsed.find) == find
    assert list(parsed.exclude) == [Term(one) if isinstance(one, str) else one for one in exclude]


def test_terms_of_the_without_field_may_have_weights_and_be_images() -> None:
    field = f"0.5:street, item:{HEX} or a beach"
    parsed = parse_query("a dog", field)
    assert parsed.exclude == (Term("street", weight=0.5), Term(HEX, "item"), Term("a beach"))
    assert parse_query("a dog", parsed.without_field).notes == ()


@pytest.mark.parametrize(("weight", "read"), [("0", 0.01), ("1000", 100), ("0.123", 0.12)])
def test_weights_are_limited(weight: str, read: float) -> None:
    assert parse_query(f"{weight}:a dog").find == (Term("a dog", weight=read),)


_PARTS = """
    a dog beach -beach -"a " street" ' without not NOT no but , and or on minus - ( ) sign 5" – “
    ” hot black white except neither nor car-free 🏖️ / ! !dog a/b ; for : -( isn't that ’
    + 2: 0.5 0.5:dog item:0a image:a.png x.jpg concept:17 concept:"
"""
_TEXTS = (
    st.lists(st.sampled_from(_PARTS.split()), max_size=9).map(" ".join)
    | st.lists(st.sampled_from(_PARTS.split()), max_size=9).map("".join)
    | st.text(max_size=30)
)


@given(_TEXTS, _TEXTS)
@example('0"\u2010A', "a")
def test_printed_query_parses_to_the_same(text: str, without: str) -> None:
    parsed = parse_query(text, without)
    again = parse_query(str(parsed))
    assert (again.find, again.exclude) == (parsed.find, parsed.exclude)
    fields = parse_query(parsed.find_field, parsed.without_field)
    assert (fields.find, fields.exclude) == (parsed.find, parsed.exclude)
    assert '"' not in "".join(parsed.without)


_LEFT_OUT = dict.fromkeys(
    map(ord, '"“”„‟«»″＂\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff')
)
"""Quotes and invisible characters, which no term contains."""
_VALUES = _TEXTS.map(lambda text: " ".join(text.translate(_LEFT_OUT).split())).filter(
    says_something
)
_TERMS = st.lists(
    st.builds(
        Term,
        _VALUES,
        st.sampled_from(["text", "text", "item", "image", "concept"]),
        st.integers(1, 10_000).map(lambda hundredths: hundredths / 100),
    ),
    max_size=5,
    unique_by=lambda term: (term.kind, term.value.casefold()),
).map(tuple)


@given(_TERMS, _TERMS)
def test_printing_terms_is_the_inverse_of_parsing(
    find: tuple[Term, ...], exclude: tuple[Term, ...]
) -> None:
    query = ParsedQuery(find, exclude)
    parsed = parse_query(query.find_field, query.without_field)
    assert (parsed.find, parsed.exclude) == (find, exclude)
    parsed = parse_query(str(query))
    assert (parsed.find, parsed.exclude) == (find, exclude)
