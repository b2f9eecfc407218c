from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sieve.model.query_parser import MAX_EXCLUSIONS, MAX_QUERY_CHARACTERS, parse_query


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
    assert len(parsed.without) == MAX_EXCLUSIONS
    assert f"Only the first {MAX_EXCLUSIONS} exclusions were used." in parsed.notes


_PARTS = """
    a dog beach -beach -"a " street" ' without not NOT no but , and or on minus - ( ) sign 5" – “
    ” hot black white except neither nor car-free 🏖️ / ! !dog a/b ; for : -( isn't that ’
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
    assert (again.text, again.without) == (parsed.text, parsed.without)
    fields = parse_query(parsed.find_field, parsed.without_field)
    assert (fields.text, fields.without) == (parsed.text, parsed.without)
    assert '"' not in "".join(parsed.without)
