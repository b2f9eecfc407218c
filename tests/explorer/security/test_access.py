"""Test by plain HTTP that a public page refuses all requests that it should refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client
from page_api import RPC_URL, call_server, request_body, server_functions, web_client

from sieve.explorer import app as app_module
from sieve.explorer.app import build_app, start
from sieve.explorer.security import access
from sieve.explorer.security.access import Access, ask_password
from sieve.explorer.security.request_checks import MAX_BODY_BYTES
from sieve.model.engine import SearchEngine

READS = {"sieve_open", "sieve_ask", "sieve_item", "sieve_table", "sieve_page"}
DRAWS = {"sieve_preview", "sieve_download"}


@pytest.fixture(scope="module")
def url(tiny_engine) -> Iterator[str]:
    served = start(tiny_engine, port=8960, access=Access(public=True))
    yield served.url
    served.app.close()


@pytest.fixture(scope="module")
def web(url: str) -> Iterator[httpx.Client]:
    with web_client(url) as client:
        yield client


def test_public_page_registers_only_read_handlers(web: httpx.Client) -> None:
    config = web.get("/config").json()
    known = server_functions(config)
    assert set(known) >= READS | DRAWS
    written = {"upload", "training", "start", "save", "write", "edit", "import", "keep", "delete"}
    assert not [f for f in known if any(word in f for word in written)]
    assert not [c for c in config["components"] if c["props"].get("elem_id") == "tab-train"]
    for name in ("sieve_upload", "sieve_training_start", "sieve_training_state"):
        for component in known.values():
            body = request_body({name: component}, name, {})
            assert web.post(RPC_URL, json=body).status_code == 404


def test_public_page_ignores_a_training_manager(tiny_engine) -> None:
    app = build_app(tiny_engine, object(), public=True)  # type: ignore[arg-type]
    assert "training" not in json.dumps(list(server_functions(app.get_config_file())))


def test_uploads_are_refused_and_nothing_is_written(web: httpx.Client) -> None:
    folder = Path(get_upload_folder())
    before = set(folder.rglob("*")) if folder.exists() else set()
    for path in ("/gradio_api/upload", "/gradio_api/upload/", "/gradio_api/upload?upload_id=a"):
        answer = web.post(path, files={"files": ("a.png", b"not an image")})
        assert answer.status_code == 403, path
        assert "open to the public" in answer.text and answer.text.count("\n") == 1
    posted = web.post(
        "/gradio_api/component_server",
        data={"component_id": "1", "fn_name": "sieve_ask", "session_hash": "s"},
        files={"file": ("a.png", b"not an image")},
    )
    assert posted.status_code == 415
    assert (set(folder.rglob("*")) if folder.exists() else set()) == before


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://example.org/a.png",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/../gradio_api/file=/etc/passwd",
        "/thumbnails/../../items.parquet",
        "/thumbnails/ab/..%2f..%2fitems.parquet",
        "/thumbnails/%2e%2e/items.parquet",
        "/thumbnails/",
        "/gradio_api/runs",
        "/monitoring",
        "/gradio_api/token",
        "/gradio_api/mcp/schema",
        "/gradio_api//upload",
    ],
)
def test_other_routes_are_refused(web: httpx.Client, path: str) -> None:
    assert web.get(path).status_code in (403, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(web: httpx.Client, method: str) -> None:
    assert web.request(method, "/gradio_api/upload").status_code == 403


def test_request_bodies_must_be_small_json(web: httpx.Client) -> None:
    path = "/gradio_api/component_server"
    large = web.post(path, json={"data": "x" * MAX_BODY_BYTES})
    assert large.status_code == 413
    chunks = web.post(path, content=iter([b"{}"]), headers={"content-type": "application/json"})
    assert chunks.status_code == 411
    assert web.post(path, content=b"a", headers={"content-type": "text/plain"}).status_code == 415


def test_thumbnail_urls_contain_no_path(web: httpx.Client, tiny_engine) -> None:
    about = call_server(web, "sieve_open", "").json()["about"]
    assert about["thumbnails"] == "thumbnails/"
    assert str(tiny_engine.collection.path) not in json.dumps(about)
    item = tiny_engine.collection.items["id"].iloc[0]
    shown = web.get(f"/{about['thumbnails']}{item[:2]}/{item}.webp")
    assert shown.content == tiny_engine.thumbnail(item).read_bytes()
    assert shown.headers["content-type"] == "image/webp"
    assert web.get(f"/{about['plotly']}").status_code == 200
    direct = web.get(f"/gradio_api/file={tiny_engine.thumbnail(item)}")
    assert direct.status_code == 403


def test_figures_use_thumbnails(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    import sieve.explorer.figures.drawing as drawing

    opened: list[int] = []
    monkeypatch.setattr(drawing, "open_original", lambda *_: pytest.fail("an original was read"))
    thumbnail = drawing.open_thumbnail
    monkeypatch.setattr(
        drawing, "open_thumbnail", lambda c, row: opened.append(row) or thumbnail(c, row)
    )
    recipe = {"rows": [{"query": "a circle"}], "columns": 3}
    for name, payload in (
        ("sieve_preview", recipe),
        ("sieve_download", {"recipe": recipe, "kind": "png"}),
    ):
        answer = call_server(web, name, payload).json()
        assert "error" not in answer and len(opened) >= 3
        opened.clear()


def test_unknown_upload_key_is_reported_as_expired(web: httpx.Client) -> None:
    answer = call_server(web, "sieve_ask", {"upload": "0123456789abcdef", "list": True}).json()
    assert "no longer stored" in answer["error"]


def test_public_api_is_read_only(url: str) -> None:
    client = Client(url, download_files=False, verbose=False)
    named = client.view_api(return_format="dict")["named_endpoints"]  # type: ignore[index]
    assert set(named) == {"/encode", "/search", "/dimension", "/facets", "/difference"}
    assert client.predict("a circle", "the snow", api_name="/search")["results"]
    with pytest.raises(Exception, match="figure"):
        client.predict({"rows": []}, "pdf", api_name="/figure")


def test_all_users_must_log_in(tiny_engine) -> None:
    served = start(tiny_engine, port=8960, access=Access(public=True, auth=("guest", "o:pen")))
    try:
        with web_client(served.url) as web:
            known = server_functions(served.app.get_config_file())
            requested = request_body(known, "sieve_open", "")
            item = tiny_engine.collection.items["id"].iloc[0]
            assert web.post(RPC_URL, json=requested).status_code == 401
            assert web.get(f"/thumbnails/{item[:2]}/{item}.webp").status_code == 401
            assert web.get("/config").status_code == 401
            wrong = {"username": "guest", "password": "open"}
            assert web.post("/login", data=wrong).status_code == 400
            assert web.post("/login", data=wrong | {"password": "o:pen"}).status_code == 200
            assert call_server(web, "sieve_open", "").json()["about"]["public"] is True
            assert web.get(f"/thumbnails/{item[:2]}/{item}.webp").status_code == 200
        client = Client(served.url, auth=("guest", "o:pen"), verbose=False)
        assert client.predict("a circle", api_name="/search")["results"]
    finally:
        served.app.close()


def test_mcp_tools_are_read_only(tiny_engine) -> None:
    pytest.importorskip("mcp", reason='needs "sieve-explorer[mcp]"')
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def ask(url: str) -> tuple[list, list]:
        async with (
            streamable_http_client(url) as (reads, writes, *_),
            ClientSession(reads, writes) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            question = {"text": "a circle", "without": "the snow", "top": 3}
            answers = [
                await session.call_tool("search", question),
                await session.call_tool("dimension", {"dimension": 10**6}),
            ]
            return tools, answers

    served = start(tiny_engine, port=8960, access=Access(public=True, mcp=True))
    try:
        tools, (found, fault) = asyncio.run(ask(f"{served.url}/gradio_api/mcp/"))
    finally:
        served.app.close()
    assert {tool.name for tool in tools} == {"search", "encode", "dimension"}
    assert all(tool.description and ",," not in tool.description for tool in tools)
    outcome = tiny_engine.search(tiny_engine.encode("a circle", "the snow"), top=3)
    assert not found.isError and all(one.id in found.content[0].text for one in outcome.results)
    assert fault.isError and "there is no dimension" in fault.content[0].text


def test_missing_mcp_extra_error_shows_the_install_command(
    tiny_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"sieve-explorer\[mcp\]"):
        start(tiny_engine, port=8960, access=Access(mcp=True))
    with pytest.raises(ValueError, match="does not support --auth"):
        Access(mcp=True, auth=("guest", "open"))


def test_password_is_not_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="takes only a name"):
        ask_password("guest:open")
    monkeypatch.delenv("SIEVE_PASSWORD", raising=False)
    with pytest.raises(ValueError, match="set [$]SIEVE_PASSWORD"):
        ask_password("guest")
    monkeypatch.setattr(access.sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(access, "getpass", lambda prompt: f"entered at {prompt}")
    assert ask_password("guest") == "entered at Password for guest: "
    monkeypatch.setenv("SIEVE_PASSWORD", "open")
    assert ask_password("guest") == "open"


@pytest.mark.parametrize("good", ["", "/sieve", "/a/b-c", "https://example.org/sieve"])
def test_root_path_can_be_a_path_or_url(good: str) -> None:
    assert Access(root_path=good).root_path == good


@pytest.mark.parametrize(
    "bad", ["sieve", "/sieve/", "/a b", "ftp://x/y", "//host/x", "/a?b", "/[", "https://[x/y"]
)
def test_other_root_paths_are_rejected(bad: str) -> None:
    with pytest.raises(ValueError, match="--root-path must be a path") as raised:
        Access(root_path=bad)
    assert "\n" not in str(raised.value)


def test_only_public_pages_can_be_embedded_by_listed_websites(tiny_engine: SearchEngine) -> None:
    listed = ("https://example.org", "http://[::1]:8000")
    served = start(tiny_engine, port=8970, access=Access(public=True, embed_in=listed))
    with web_client(served.url) as client:
        policy = client.get("/").headers["content-security-policy"]
    served.app.close()
    ancestors = "'self' http://localhost:* http://127.0.0.1:* https://example.org http://[::1]:8000"
    assert policy.endswith(f"; frame-ancestors {ancestors}")
    with pytest.raises(ValueError, match="--embed-in needs --public-safe"):
        Access(embed_in=listed)
    for bad in ("example.org", "*", "https://*", "https://a.b/c", "https://a; script-src *", ""):
        with pytest.raises(ValueError, match="--embed-in must be an origin such as"):
            Access(public=True, embed_in=(bad,))


def test_server_side_requests_are_blocked(web: httpx.Client, fetched: list[str]) -> None:
    file = {
        "path": "http://example.org/a.png",
        "url": "http://example.org/a.png",
        "meta": {"_type": "gradio.FileData"},
    }
    for data in (["a circle", file, None, 1.0, 5], ["a", "", [file], 1.0, 5]):
        started = web.post("/gradio_api/call/search", json={"data": data})
        if started.status_code == 200:
            web.get(f"/gradio_api/call/search/{started.json()['event_id']}")
        for past_the_queue in ("/gradio_api/run/search", "/gradio_api/api/search"):
            assert web.post(past_the_queue, json={"data": data}).status_code == 403
    assert fetched == []
