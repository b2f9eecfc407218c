"""Test links: round trips and safe handling of untrusted input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve.explorer.view_state import TABS, ViewState, read_link, write_link

M = 1024


def read(query: str) -> tuple[ViewState, tuple[str, ...]]:
    return read_link(query, "scenes", "default", M)


places = st.builds(
    ViewState,
    q=st.text(min_size=1, max_size=40),
    without=st.text(max_size=40),
    off=st.none() | st.sets(st.integers(0, M - 1), max_size=8).map(lambda s: tuple(sorted(s))),
    strictness=st.integers(0, 20).map(lambda n: n / 20),
    compare=st.booleans(),
    limit=st.sampled_from((0.2, 0.5, 0.8)),
    tab=st.sampled_from(TABS),
    dimension=st.none() | st.integers(0, M - 1),
    atlas=st.text(max_size=40),
    inspect=st.text(max_size=40),
    versus=st.text(max_size=40),
)


def test_link_is_readable() -> None:
    place = ViewState(q="a dog", without="a beach", off=(17, 203), strictness=1.0)
    link = write_link(place, "scenes", "default")
    assert link.startswith("?q=a+dog&without=a+beach&off=17,203&strictness=1")
    assert link.endswith("&collection=scenes&checkpoint=default")


@given(places)
def test_link_round_trips(place: ViewState) -> None:
    found, notes = read(write_link(place, "scenes", "default"))
    if not place.off:  # strictness has no effect without them, and is then 1 or preserved
        place = ViewState(**{**vars(place), "strictness": found.strictness})
    if not place.never:  # the limit belongs to `never`
        place = ViewState(**{**vars(place), "limit": found.limit})
    assert (found, notes) == (place, ())


def test_never_is_written_as_a_word() -> None:
    link = write_link(ViewState(q="a", never=True, off=(1,)), "scenes", "default")
    assert "strictness=never&" in link
    assert read(link)[0].never


@pytest.mark.parametrize("limit", [0.2, 0.35, 0.999])
def test_limit_of_never_is_written_after_it(limit: float) -> None:
    link = write_link(ViewState(q="a", never=True, limit=limit, off=(1,)), "scenes", "default")
    assert f"strictness=never:{limit}&" in link
    place, notes = read(link)
    assert (place.never, place.limit, notes) == (True, limit, ())


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "nan", "", "half"])
def test_invalid_limit_is_left_out_of_a_link(limit: str) -> None:
    place, (note,) = read(f"?q=a&strictness=never:{limit}&checkpoint=default&collection=scenes")
    assert place == ViewState(q="a")
    assert "above 0 and at most 1, as in never:0.35; got" in note


def test_item_replaces_text() -> None:
    link = write_link(ViewState(item="0123456789abcdef"), "scenes", "default")
    assert read(link)[0].item == "0123456789abcdef"


def test_empty_off_set_differs_from_the_proposed_one() -> None:
    link = write_link(ViewState(q="a", without="b", off=()), "scenes", "default")
    assert read(link)[0].off == ()
    assert read("?q=a&without=b")[0].off is None


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("strictness=nan", "strictness"),
        ("strictness=2", "strictness"),
        ("strictness=-1", "strictness"),
        ("off=1,-2", "whole number"),
        ("off=1e3", "whole number"),
        ("off=٣", "whole number"),
        ("off=99999999999999999999", "whole number"),
        (f"off={M}", f"there is no dimension {M}"),
        ("dimension=x", "whole number"),
        (f"dimension={M}", "no dimension"),
        ("item=../../etc/passwd", "item must be the ID of an image"),
        ("tab=admin", "tab must be"),
        ("off=" + ",".join("1" * 4097), "4,096"),
        ("without=" + "x" * 10_001, "10000"),
    ],
)
def test_invalid_value_is_ignored_and_reported(part: str, reason: str) -> None:
    place, notes = read(f"?q=a+dog&{part}")
    assert place == ViewState(q="a dog")
    assert len(notes) == 1 and reason in notes[0] and len(notes[0]) < 200


def test_overlong_link_is_not_parsed() -> None:
    assert read("?q=" + "a" * 20_001)[0] == ViewState()
    place, notes = read("?" + "&".join(f"a{n}=1" for n in range(200)))
    assert place == ViewState() and "parts" in notes[0]


@given(st.text(max_size=200))
def test_any_text_can_be_parsed(query: str) -> None:
    place, notes = read(query)
    assert isinstance(place, ViewState) and all(isinstance(note, str) for note in notes)


@pytest.mark.parametrize(
    ("link", "saved"),
    [
        ("tab=dimensions&dimension=7", {"dimension": None}),
        ("tab=inspect&inspect=left:a+dog,off:3", {"inspect": "left:a dog"}),
        ("tab=compare&versus=q:a+dog,off:3", {"versus": "q:a dog"}),
        (
            "tab=inspect&inspect=left:concept%253A7,q:concept%253A7 %2B a dog",
            {"inspect": "q:a dog"},
        ),
        (
            "tab=compare&versus=set:label%253Adog concept%253A7>0.5,other:tag%253Ax",
            {
                "versus": "set:label%3Adog",
            },
        ),
        ("q=a+cat&without=concept:7,snow", {"q": "a cat", "without": "snow"}),
        ("where=search:%22concept:7%22 label:dog", {"where": "label:dog"}),
        ('figure={"rows":[{"dimension":7}]}', {"figure": ""}),
        ('figure={"rows":[{"dimensions":[7,8]}]}', {"figure": ""}),
        ('figure={"rows":[{"difference":["tag:x","all"]}]}', {"figure": ""}),
        (
            'figure={"rows":[{"query":"a","where":"concept:7"}],"names":{"7":"mine"}}',
            {"figure": '{"rows": [{"query": "a", "where": ""}]}'},
        ),
        (
            'figure={"rows":[{"query":"a+dog","off":[3]},{"dimension":7}],"columns":2}',
            {"figure": '{"rows": [{"query": "a dog"}], "columns": 2}'},
        ),
    ],
)
def test_link_of_another_checkpoint_has_a_note_on_every_tab(link: str, saved: dict) -> None:
    place, notes = read(f"?{link}&checkpoint=mine")
    assert notes == (
        "This link was made with checkpoint 'mine'; its dimensions do not exist in 'default' and "
        "were left out.",
    )
    assert {name: getattr(place, name) for name in saved} == saved
    assert read(f"?{link}&checkpoint=default")[1] == ()


@pytest.mark.parametrize(
    "text", ['{"rows":[{"query":"a dog"}]}', '{"rows":[3]}', '{"rows":', "[]", '{"rows":{}}']
)
def test_figures_without_dimensions_are_unchanged(text: str) -> None:
    place, notes = read(f"?figure={text}&checkpoint=mine")
    assert (place.figure, notes) == (text, ())


def test_dimensions_of_another_checkpoint_are_removed() -> None:
    place, notes = read("?q=a&off=1,2&atlas=only:3&checkpoint=mine")
    assert not place.atlas
    assert place.off is None and "'mine'" in notes[0]


def test_other_collection_is_reported() -> None:
    place, notes = read("?q=a&off=1&collection=photos&checkpoint=default")
    assert place.off == (1,) and "'photos'" in notes[0]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {"q": 1},
        {"off": "1,2"},
        {"off": [True]},
        {"off": [1.5]},
        {"off": [-1]},
        {"strictness": True},
        {"strictness": "x"},
        {"strictness": float("nan")},
        {"strictness": 10**400},
        {"never": 1},
        {"tab": "x"},
        {"item": "x"},
        {"dimension": {}},
        {"q": "x" * 10_001},
    ],
)
def test_invalid_payload_is_rejected(payload: object) -> None:
    with pytest.raises(ValueError):
        ViewState.from_payload(payload)  # type: ignore[arg-type]


def test_payload_is_parsed() -> None:
    place = ViewState.from_payload({"q": "a", "off": [3, 1, 3], "strictness": 1, "more": "ignored"})
    assert place == ViewState(q="a", off=(1, 3), strictness=1.0)


def test_numbered_concepts_of_another_checkpoint_are_left_out() -> None:
    link = "?q=a+dog+%2B+concept:17&without=0.5:street,+concept:3,+concept:beach&checkpoint=old"
    place, notes = read(link)
    assert (place.q, place.without) == ("a dog", "0.5:street, concept:beach")
    assert "its dimensions do not exist" in notes[0]
