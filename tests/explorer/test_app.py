"""Test the app and its search handlers without a browser."""

from __future__ import annotations

import re
import socket
import urllib.request

import pytest

from sieve.explorer import components
from sieve.explorer.app import PAGE_SETTINGS, STYLE, build_app, start
from sieve.explorer.components import FOLDER
from sieve.explorer.errors import INTERNAL_ERROR, json_errors
from sieve.explorer.serialize import summary
from sieve.explorer.tabs.dimensions import table_view
from sieve.explorer.tabs.search import SearchHandlers, item_view


@pytest.fixture(scope="module")
def handlers(tiny_engine, tmp_path_factory: pytest.TempPathFactory) -> SearchHandlers:
    return SearchHandlers(tiny_engine, tmp_path_factory.mktemp("uploads"))


def test_next_port_is_used_if_a_port_is_taken(tiny_engine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        served = start(tiny_engine, port=port)
    try:
        assert port < int(served.url.rsplit(":", 1)[1]) < port + 100
        with urllib.request.urlopen(served.url, timeout=10) as answer:
            page = answer.read().decode()
        assert "Sieve · tiny" in page
    finally:
        served.app.close()


def test_invalid_port_is_rejected(tiny_engine) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        start(tiny_engine, port=70_000)


def test_page_sends_no_analytics_and_has_no_external_urls(tiny_engine) -> None:
    app = build_app(tiny_engine)
    assert app.analytics_enabled is False
    addresses = re.findall(r"(?:https?:)?//[\w.-]+", components.page_head(STYLE, PAGE_SETTINGS))
    assert {address for address in addresses if "www.w3.org" not in address} == set()


def test_style_sheets_have_balanced_braces() -> None:
    for path in [STYLE, *FOLDER.glob("*.css")]:
        text, depth = path.read_text(), 0
        for sign in re.findall(r"[{}]", text):
            depth += 1 if sign == "{" else -1
            assert depth >= 0, path
        assert depth == 0, path


def test_templates_are_constant_and_scripts_write_no_markup() -> None:
    for path in FOLDER.glob("*.html"):
        assert not re.search(r"\$\{|\{\{|`", path.read_text()), path
    markup = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write")
    for path in FOLDER.glob("*.js"):
        assert not markup.search(path.read_text()), path


def test_opening_a_link_runs_its_search(handlers: SearchHandlers) -> None:
    found = handlers.open("?q=a+circle&without=the+snow&strictness=never")
    assert found["place"]["never"] is True and found["notes"] == []
    answer = found["answer"]
    assert set(answer["off"]) == set(answer["proposed"])
    assert answer["link"].startswith("?q=a+circle&without=the+snow&off=")
    assert handlers.open(answer["link"])["answer"]["results"] == answer["results"]


def test_empty_link_shows_the_collection(handlers: SearchHandlers) -> None:
    found = handlers.open("")
    assert len(found["samples"]) == 24 and "answer" not in found
    assert len({item["id"] for item in found["samples"]}) == 24


def test_toggle_response_has_no_dimension_list(handlers: SearchHandlers) -> None:
    payload = {"q": "a circle", "off": [1], "list": False}
    assert "dimensions" not in handlers.ask(payload)
    assert "dimensions" in handlers.ask({**payload, "list": True})


def test_new_query_names_the_items_after_the_results(
    handlers: SearchHandlers,
) -> None:
    answer = handlers.ask({"q": "a circle", "list": True})
    more = handlers.engine.search(handlers.engine.encode("a circle"), top=48).results
    listed = [item["id"] for item in answer["results"]] + answer["next"]
    assert len(listed) > 24 and listed == [result.id for result in more]
    assert "next" not in handlers.ask({"q": "a circle"})


def test_off_dimensions_outside_the_query_are_listed_first(handlers: SearchHandlers) -> None:
    mine = {row["d"] for row in handlers.ask({"q": "a circle", "list": True})["dimensions"]}
    other = next(j for j in range(64) if j not in mine)
    rows = handlers.ask({"q": "a circle", "off": [other], "list": True})["dimensions"]
    assert rows[0]["d"] == other and rows[0]["q"] == rows[0]["b"] == 0


def test_toggle_does_not_encode_again(
    handlers: SearchHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers.ask({"q": "a green square"})
    monkeypatch.setattr(handlers.engine, "encode", lambda *_, **__: pytest.fail("encoded again"))
    handlers.ask({"q": "a green square", "off": [2]})


@pytest.mark.parametrize(
    "payload",
    [None, "a", {"q": ""}, {"q": "a", "upload": 3}, {"q": "a", "off": [10**6]}, {"item": "f" * 16}],
)
def test_invalid_request_is_one_line(handlers: SearchHandlers, payload: object) -> None:
    line = json_errors(handlers.ask)(payload)["error"]
    assert line and "\n" not in line and line[0].isupper() and line.endswith(".")


def test_internal_errors_are_logged_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> dict:
        raise KeyError("secret")

    assert json_errors(broken)(None) == {"error": f"{INTERNAL_ERROR}."}
    assert "secret" in caplog.text


def test_summary_counts_changes(tiny_engine) -> None:
    query = tiny_engine.encode("a circle", "the snow")
    assert summary(tiny_engine.search(query, ())) == "24 results, every dimension on"
    outcome = tiny_engine.search(query)
    entered = sum(result.rank_before is None for result in outcome.results)
    assert entered
    assert outcome.left
    assert f"{entered} new, {len(outcome.left)} dropped" in summary(outcome)


def test_table_has_a_value_for_each_dimension(tiny_engine) -> None:
    table = table_view(tiny_engine)
    assert {len(column) for column in table.values()} == {64}
    assert table["name"][5] == tiny_engine.name_of(5)


def test_item_is_returned_with_its_code(tiny_engine) -> None:
    item_id = tiny_engine.collection.items["id"].iloc[3]
    found = item_view(tiny_engine, item_id)
    dimensions, values = tiny_engine.image_codes.row(3)
    assert {one["dimension"] for one in found["code"]} == set(dimensions.tolist())
    assert found["code"][0]["value"] == pytest.approx(values.max(), abs=1e-6)
