"""Test the limits on requests, stored data and logs by plain HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.utils import get_upload_folder
from page_api import RPC_URL, call_server, csrf_header, request_body, server_functions, web_client
from processes import FIRST_PORT

from sieve.explorer import concurrency, uploads
from sieve.explorer.annotations.store import attach_annotations
from sieve.explorer.app import Served, start
from sieve.explorer.security import request_checks as bodies
from sieve.explorer.security.access import Access
from sieve.explorer.uploads import MAX_UPLOAD_BYTES
from sieve.explorer.view_state import MAX_TEXT_CHARACTERS
from sieve.model.files import atomic_file, atomic_folder

pytestmark = pytest.mark.slow

CHUNKED = [
    ("Transfer-Encoding: chunked",),
    ("Transfer-Encoding: chunked", "Content-Length: 2"),
    ("Content-Length: 2", "Transfer-Encoding: chunked"),
    ("content-length: 2", "TRANSFER-ENCODING: Chunked"),
    ("Transfer-Encoding:chunked", "Content-Length:2", "Content-Length:2"),
]
PATHS = [RPC_URL, "/gradio_api/queue/join", "/gradio_api/call/search", "/gradio_api/call/v2/search"]
KINDS = {"/gradio_api/upload": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module", params=["private", "public"])
def served(request: pytest.FixtureRequest, tiny_engine) -> Iterator[Served]:
    access = Access(public=request.param == "public")
    served = start(tiny_engine, port=FIRST_PORT + 150, access=access)
    yield served
    served.app.close(verbose=False)


@pytest.fixture
def web(served: Served) -> Iterator[httpx.Client]:
    with web_client(served.url, 60) as client:
        yield client


def is_public(web: httpx.Client) -> bool:
    return call_server(web, "sieve_open", "").json()["about"]["public"]


def sent(web: httpx.Client, head: tuple[str, ...], body: bytes = b"") -> bytes:
    """Send a raw request and return the status line of the response."""
    with socket.create_connection((web.base_url.host, web.base_url.port or 80), 20) as line:
        line.sendall("\r\n".join((*head, "Host: localhost", "", "")).encode() + body)
        return line.recv(65536).split(b"\r\n")[0]


@pytest.mark.parametrize("lines", CHUNKED, ids=str)
@pytest.mark.parametrize("path", [*PATHS, "/gradio_api/upload", "/gradio_api/cancel"])
def test_chunked_body_is_refused(web: httpx.Client, path: str, lines: tuple[str, ...]) -> None:
    kind = KINDS.get(path, "application/json")
    key = csrf_header(web)["X-Sieve-Token"]
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    first = f"POST {path} HTTP/1.1"
    status = sent(web, (first, f"Content-Type: {kind}", f"X-Sieve-Token: {key}", *lines), chunk)
    closed = is_public(web) and path not in PATHS
    assert int(status.split()[1]) in ({403} if closed else {400, 411}), status


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 2", "Content-Length: 3"), ("Content-Length: 2, 3",),
        ("Content-Length: -1",), ("Content-Length: 0x10",), ("Content-Length: +2",),
        ("Content-Length: 2_0",), (f"Content-Length: {'9' * 30}",), ("Transfer-Encoding: gzip",),
        ("Content-Length: ",), ("Transfer-Encoding: identity", "Content-Length: 2"), (),
    ],
)  # fmt: skip
def test_ambiguous_content_length_is_refused(web: httpx.Client, lines: tuple[str, ...]) -> None:
    status = sent(
        web, (f"POST {RPC_URL} HTTP/1.1", "Content-Type: application/json", *lines), b"{}"
    )
    assert int(status.split()[1]) in (400, 411, 413, 501)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_read_requests_must_not_have_a_body(web: httpx.Client, method: str) -> None:
    for lines in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        status = sent(web, (f"{method} /config HTTP/1.1", lines), b"hello")
        assert int(status.split()[1]) in (400, 411)


FILE = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'


@pytest.mark.parametrize("path", [RPC_URL, "/gradio_api/call/search", "/gradio_api/upload"])
def test_received_bytes_are_counted(served: Served, path: str) -> None:
    """An app behind a server that rewrites headers."""
    key = httpx.get(f"{served.url}/csrf-token").text
    kind = KINDS.get(path, "application/json")
    headers = {"host": "localhost", "content-type": kind, "content-length": "9"}
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "app": served.app.app,
        "headers": [
            (name.encode(), value.encode())
            for name, value in (headers | {"x-sieve-token": key}).items()
        ],
    }  # fmt: skip
    given, answers = 0, []
    most = bodies.MAX_IMPORT_BYTES if path == RPC_URL else MAX_UPLOAD_BYTES + bodies.FORM_BYTES

    async def receive() -> dict:
        nonlocal given
        body = bytes(1 << 20) if given or "json" in kind else FILE
        given += len(body)
        # The body is finite, so that this test fails quickly if bytes are not counted.
        return {"type": "http.request", "body": body, "more_body": given < most + (8 << 20)}

    async def send(message: Any) -> None:
        answers.append(message)

    async def run() -> None:
        await asyncio.wait_for(served.app.app(scope, receive, send), 60)

    asyncio.run(run())
    assert answers[0]["status"] in (413, 403) and given <= most + (1 << 20)
    assert answers[0]["status"] == 413 or (path.endswith("upload") and not given)


def test_only_annotation_imports_can_be_large(
    web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = server_functions(web.get("/config").json())
    text = "x" * (3 << 20)
    parsed: list[int] = []
    parse = json.loads
    monkeypatch.setattr(
        bodies.json, "loads", lambda text, **more: parsed.append(len(text)) or parse(text, **more)
    )
    large = web.post(RPC_URL, json=request_body(known, "sieve_ask", {"q": text}))
    assert large.status_code == 413 and not parsed
    notes = request_body(known, "sieve_notes_import", {"name": "a.json", "text": text})
    answer = web.post(RPC_URL, json=notes)
    if is_public(web):
        assert answer.status_code == 413
    else:
        assert answer.status_code == 200 and "error" in answer.json()
    for path in PATHS[1:]:
        call = {"data": [text, "", None, 1.0, 10, False], "fn_name": "sieve_notes_import"}
        assert web.post(path, json=call).status_code == 413


def test_api_texts_have_the_length_limit_of_the_page(web: httpx.Client) -> None:
    def call_api(name: str, *data: Any) -> str:
        event = web.post(f"/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
        return web.get(f"/gradio_api/call/{name}/{event}").text

    long = "a " * (MAX_TEXT_CHARACTERS // 2) + "b"
    for reported in (
        call_api("encode", long, ""),
        call_api("encode", "a", long),
        call_api("search", long, "", None, 1.0, 5, False, ""),
        call_api("search", "a", long, None, 1.0, 5, False, ""),
        call_api("search", "a", "", None, long, 5, False, ""),
        call_api("search", "a", "", [0] * 5000, 1.0, 5, False, ""),
        call_api("search", "a", "", None, 1.0, long, False, ""),
        call_api("dimension", long, ""),
    ):
        assert "event: error" in reported and len(reported) < 400
    assert "event: complete" in call_api("search", long[:-1], "", None, 1.0, 5, False, "")


def test_unfetched_responses_are_limited(
    web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"data": [3, ""]}

    def begin(**more: str) -> str:
        for _ in range(200):
            answer = web.post("/gradio_api/call/dimension", json=call | more)
            if answer.status_code == 200:
                return answer.json()["event_id"]
            time.sleep(0.05)  # the maximum number of requests is waiting
        raise AssertionError("the queue stays full")

    def fetch_event(event: str) -> str:
        return web.get(f"/gradio_api/call/dimension/{event}").text

    assert "event: complete" in fetch_event(begin())
    monkeypatch.setattr(concurrency, "_SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(concurrency, "MAX_UNFETCHED", 5)
    events = [begin() for _ in range(30)]
    time.sleep(1.2)
    found = [event for event in events if "event: complete" in fetch_event(event)]
    assert found and len(found) <= 5 and events[0] not in found
    assert web.get(f"/gradio_api/call/dimension/{events[0]}").status_code == 404
    monkeypatch.setattr(concurrency, "MAX_UNFETCHED", 50)
    monkeypatch.setattr(concurrency, "UNFETCHED_SECONDS", 0.5)

    def is_forgotten_when_old() -> bool:
        old = begin()
        time.sleep(1.2)
        return web.get(f"/gradio_api/call/dimension/{old}").status_code == 404

    # On a busy machine, the response may be made late.
    assert any(is_forgotten_when_old() for _ in range(5))


def test_stored_response_size_is_limited(
    web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sieve.explorer.api.MAX_RESPONSE_BYTES", 1000)
    call = {"data": ["a circle", "", None, 1.0, 50, False, ""]}
    event = web.post("/gradio_api/call/search", json=call).json()["event_id"]
    assert "ask for fewer results" in web.get(f"/gradio_api/call/search/{event}").text


def test_unread_uploads_are_limited_and_deleted(
    web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_public(web):
        pytest.skip("strangers upload nothing")

    def upload(content: str) -> int:
        files = {"files": ("a.png", content.encode())}
        return web.post("/gradio_api/upload", files=files, headers=csrf_header(web)).status_code

    monkeypatch.setattr(uploads, "WAITING_SECONDS", 0.0)
    assert upload("first") == 200
    monkeypatch.setattr(uploads, "WAITING_SECONDS", 600.0)
    monkeypatch.setattr(uploads, "MAX_WAITING", 3)
    assert [upload(f"{n}") for n in range(4)] == [200, 200, 429, 429]
    monkeypatch.setattr(uploads, "WAITING_SECONDS", 0.0)
    assert upload("again") == 200
    left = [path for path in Path(get_upload_folder()).rglob("a.png") if path.is_file()]
    assert [path.read_text() for path in left] == ["again"]


ODD: list[Any] = [None, -1, 999, 0.5, "1", [], {}, True, 10**30, "\ud800", "x" * 70, "__class__"]


def test_invalid_calls_are_one_line(
    web: httpx.Client, served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    known = server_functions(web.get("/config").json())
    (number,) = [n for n, f in served.app.fns.items() if f.api_name == "search"]
    search = ["a", "", None, 1.0, 5, False, ""]
    posted: list[tuple[str, Any]] = []
    for odd in ODD:
        joined = {"session_hash": "s", "data": search, "fn_index": number}
        posted += [
            ("queue/join", joined | {"fn_index": odd}),
            ("queue/join", joined | {"data": odd}),
            ("component_server", request_body(known, "sieve_ask", {}) | {"component_id": odd}),
            ("component_server", request_body(known, "sieve_ask", {}) | {"fn_name": odd}),
            ("call/search", {"data": odd}),
            ("call/v2/search", {"text": "a", "off_": odd}),
            ("call/v2/search", {"data": odd}),
        ]
        if odd is not None and odd not in ("1", "__class__"):
            posted += [
                ("queue/join", joined | {"session_hash": odd}),
                ("component_server", request_body(known, "sieve_ask", {}, odd)),
            ]
    posted += [("queue/join", {"data": search}), ("component_server", {}), ("call/none", {})]
    posted += [("call/v2/none", {"a": 1}), ("queue/join", []), ("call/search", "a")]
    posted += [("component_server", [[]]), ("call/search", {"data": search[:2]})]
    for path, body in posted:
        text = json.dumps(body).encode()
        answer = web.post(
            f"/gradio_api/{path}", content=text, headers={"Content-Type": "application/json"}
        )
        assert 400 <= answer.status_code < 500, (path, body, answer.text)
        assert len(answer.text) < 300 and answer.text.count("\n") <= 1
    for path in (
        "call/search/none", "call/search/\ud800".encode("utf-8", "replace").decode(),
        f"call/search/{'0' * 32}", "queue/data?session_hash=none", "queue/data",
        "queue/data?session_hash=", "heartbeat/" + "x" * 500, "call/none/none",
        "upload_progress", "upload_progress?upload_id=none",
    ):  # fmt: skip
        answer = web.get(f"/gradio_api/{path}")
        assert 400 <= answer.status_code < 500 and answer.text.count("\n") <= 1, path
        assert len(answer.text) < 200
    for path in ("/?page=none", "/?deep_link=none&page=__proto__", "/config?page=none"):
        assert web.get(path).status_code == 200
    for body in ({"session_hash": "s", "fn_index": 3, "event_id": "none"}, {}, {"event_id": 3}):
        assert web.post("/gradio_api/cancel", json=body).status_code in (200, 403, 422)
    extra = {"event_data": "x", "trigger_id": 10**9, "batched": True, "event_id": "e"}
    joined = {"session_hash": "extra", "data": search, "fn_index": number}
    assert web.post("/gradio_api/queue/join", json=joined | extra).status_code == 200
    response = web.get("/gradio_api/queue/data?session_hash=extra").text
    assert '"success":true' in response
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.parametrize("path", ["/a%0ab", "/a%0d%0aX-Evil:%201", "/%1b[31m", "/%e2%80%ae"])
def test_error_quotes_no_control_characters(web: httpx.Client, path: str) -> None:
    answer = web.get(path)
    assert answer.status_code == 403 and answer.text.removesuffix("\n").isprintable()
    assert answer.text.endswith("\n")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/reset", "/gradio_api/user", "/gradio_api/login_check", "/robots.txt",
        "/gradio_api/queue/status", "/gradio_api/startup-events", "/login", "/logout",
    ],
)  # fmt: skip
def test_unused_routes_are_closed(web: httpx.Client, path: str) -> None:
    assert web.get(path).status_code == 403
    assert web.post(path, json={"event_id": "e"}).status_code == 403


def test_each_process_has_a_private_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "gradio").write_text("another person's, so nothing can be made in it")
    script = (
        "import sieve.explorer.app, os; from gradio.utils import get_upload_folder;"
        "print(get_upload_folder()); print(oct(os.stat(get_upload_folder()).st_mode)[-3:]);"
        "from gradio.routes import DEFAULT_TEMP_DIR; print(DEFAULT_TEMP_DIR)"
    )
    env = os.environ | {"TMPDIR": str(tmp_path)}
    env.pop("GRADIO_TEMP_DIR", None)
    run = [sys.executable, "-c", f"import os; os.umask(0); {script}"]
    done = subprocess.run(run, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    folder, mode, gradios = done.stdout.split()
    assert mode == "700" and gradios == folder and Path(folder).parent == tmp_path
    assert not Path(folder).exists(), "it is removed at exit"
    assert Path(folder).name != Path(get_upload_folder()).name
    assert Path(get_upload_folder()).stat().st_mode & 0o777 == 0o700


@pytest.fixture(params=[0o077, 0o027, 0o022], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_umask_sets_permissions_of_annotations_and_files(
    umask: int, tiny_engine, home: Path, tmp_path: Path
) -> None:
    store = attach_annotations(tiny_engine)
    store.write(3, "name", "private", 0)
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("a")
    with atomic_file(tmp_path / "file.csv") as draft:
        assert stat.S_IMODE(draft.stat().st_mode) == 0o666 & ~umask
        draft.write_text("a")
    own = [path for path in home.rglob("*") if path.name != "words"]  # all tests share the words
    begin = [*own, *tmp_path.glob("f*"), tmp_path / "folder" / "a"]
    assert any(path.is_file() and "annotations" in path.as_posix() for path in begin)
    for path in begin:
        allowed = 0o777 if path.is_dir() else 0o666
        assert not stat.S_IMODE(path.stat().st_mode) & ~(allowed & ~umask), path
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
