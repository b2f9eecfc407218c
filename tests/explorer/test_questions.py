"""What can be asked of an app: questions that fit nothing are refused before Gradio reads them."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from gradio.events import api

from sieve.explorer.questions import LONGEST_NAME, Questions

SESSION = {"session_hash": "s"}


@pytest.fixture(scope="module")
def app() -> gr.Blocks:
    def sieve_open(link: str) -> str:
        return link

    def search(text: str, top: int = 10) -> str:
        return text * top

    with gr.Blocks() as app:
        gr.HTML("", server_functions=[sieve_open])
        api(search, api_name="search")
    return app


@pytest.fixture(scope="module")
def questions(app: gr.Blocks) -> Questions:
    return Questions(app)


@pytest.fixture(scope="module")
def piece(app: gr.Blocks) -> int:
    return next(
        number for number, block in app.blocks.items() if getattr(block, "server_fns", None)
    )


def status(questions: Questions, route: str, asked: Any) -> int:
    refused = questions.refusal(route, asked)
    if refused is None:
        return 200
    assert "\n" not in refused[1] and refused[1].encode() and len(refused[1]) < 200
    return refused[0]


def test_what_the_page_and_its_clients_ask_is_passed_on(
    app: gr.Blocks, questions: Questions, piece: int
) -> None:
    ask = {**SESSION, "component_id": piece, "fn_name": "sieve_open", "data": "?q=a"}
    assert status(questions, "component_server", ask) == 200
    number = next(iter(app.fns))
    joined = {**SESSION, "fn_index": number, "data": ["a dog", 3]}
    assert status(questions, "queue/join", joined) == 200
    assert status(questions, "call/search", {"data": ["a dog", 3]}) == 200
    assert status(questions, "call/v2/search", {"text": "a dog"}) == 200
    # What is no question to a piece or an endpoint has its own form.
    assert status(questions, "mcp", [{"jsonrpc": "2.0"}]) == 200


@pytest.mark.parametrize("session", [3, None, ["s"], "s" * (LONGEST_NAME + 1), "\ud800"])
def test_a_session_has_a_short_name(questions: Questions, piece: int, session: Any) -> None:
    asked = {"component_id": piece, "fn_name": "sieve_open", "data": "", "session_hash": session}
    assert status(questions, "component_server", asked) == (200 if session is None else 422)


@pytest.mark.parametrize("number", [None, -1, 999, 0.5, "1", [], {}, True, 10**30])
@pytest.mark.parametrize("name", ["sieve_open", "postprocess", "__class__", "", None, 3, []])
def test_only_functions_of_pieces_are_called(questions: Questions, number: Any, name: Any) -> None:
    asked = {**SESSION, "component_id": number, "fn_name": name, "data": ""}
    assert status(questions, "component_server", asked) == 404


@pytest.mark.parametrize(
    "name", ["postprocess", "__class__", "server_fns", "", None, ["sieve_open"]]
)
def test_a_piece_has_only_its_server_functions(questions: Questions, piece: int, name: Any) -> None:
    asked = {**SESSION, "component_id": piece, "fn_name": name, "data": ""}
    assert status(questions, "component_server", asked) == 404


@pytest.mark.parametrize("data", [None, {}, "ab", 3, [], ["a dog"], ["a dog", 1, 2]])
def test_an_endpoint_gets_as_many_values_as_it_takes(
    app: gr.Blocks, questions: Questions, data: Any
) -> None:
    assert status(questions, "call/search", {"data": data}) == 422
    joined = {**SESSION, "fn_index": next(iter(app.fns)), "data": data}
    assert status(questions, "queue/join", joined) == 422


@pytest.mark.parametrize("names", [{}, {"top": 3}, {"text": "a", "off": 1}, {"": 1}, {"\ud800": 1}])
def test_an_endpoint_asked_by_names_gets_its_own(questions: Questions, names: Any) -> None:
    assert status(questions, "call/v2/search", names) == 422


@pytest.mark.parametrize("route", ["cancel", "reset"])
def test_what_ends_a_question_has_its_own_fields(questions: Questions, route: str) -> None:
    assert status(questions, route, {"event_id": "3f2a"}) == 200
    for odd in ({"event_id": "\ud800"}, {"event_id": ["e"]}, {"more": "\ud800"}, {"fn_index": "0"}):
        assert status(questions, route, odd) == 422


@pytest.mark.parametrize("route", ["call/none", "call/v2/a\nb", "call/v2", "queue/join"])
def test_what_is_not_there_is_said(questions: Questions, route: str) -> None:
    assert status(questions, route, {**SESSION, "data": [], "fn_index": 99}) == 404


@pytest.mark.parametrize("body", [None, [], "a", 3, [{"data": []}]])
@pytest.mark.parametrize("route", ["component_server", "queue/join", "call/search"])
def test_a_body_is_an_object(questions: Questions, route: str, body: Any) -> None:
    assert status(questions, route, body) == 422
