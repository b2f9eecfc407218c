"""Test raw HTTP requests of attackers to private and public pages.

`private` is a page as `sieve explore` serves it, `public` one with `--public-safe`.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client
from page_api import RPC_URL, call_server, csrf_header, web_client
from PIL import Image
from processes import FIRST_PORT

from sieve.explorer.app import Server, start
from sieve.explorer.cli.explore import Explore
from sieve.explorer.security import request_checks as bodies
from sieve.explorer.security.access import Access
from sieve.explorer.uploads import MAX_UPLOAD_BYTES
from sieve.model.engine import SearchEngine

HIDDEN, PRIVATE, OTHER, ENDLESS, PIPE, SCRIPT = (f"00{n}{'0' * 13}" for n in range(6))
SVG = '<svg xmlns="http://www.w3.org/2000/svg" onload="window.pwned=1"/>'


@pytest.fixture(scope="module")
def hostile(
    tiny_collection, tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> SearchEngine:
    """A collection with links and scripts among its thumbnails."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(tiny_collection.path, folder / "c")
    Image.new("RGB", (40, 30), "red").save(folder / "private.webp")
    (folder / "secret.txt").write_text("secret")
    thumbnails = folder / "c" / "thumbnails"
    (thumbnails / "00").mkdir(exist_ok=True)
    for name, target in (
        (HIDDEN, "secret.txt"),
        (PRIVATE, "private.webp"),
        (OTHER, "c/items.webp"),
    ):
        (thumbnails / "00" / f"{name}.webp").symlink_to(folder / target)
    (thumbnails / "00" / f"{ENDLESS}.webp").symlink_to("/dev/zero")
    os.mkfifo(thumbnails / "00" / f"{PIPE}.webp")
    shutil.copy(folder / "private.webp", folder / "c" / "items.webp")
    (thumbnails / "00" / f"{SCRIPT}.svg").write_text(SVG)
    (thumbnails / "00" / f"{SCRIPT}.html").write_text("<script>window.pwned=1</script>")
    (thumbnails / "00" / f"{SCRIPT}.webp").write_text(SVG)
    (thumbnails / "out").symlink_to(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(folder / "home"))
        return SearchEngine.open(folder / "c", tiny_checkpoint.path, "cpu")


@pytest.fixture(scope="module", params=["private", "public"])
def web(request: pytest.FixtureRequest, hostile: SearchEngine) -> Iterator[httpx.Client]:
    served = start(hostile, port=FIRST_PORT + 40, access=Access(public=request.param == "public"))
    with web_client(served.url) as client:
        yield client
    served.app.close()


def is_public(web: httpx.Client) -> bool:
    return call_server(web, "sieve_open", "").json()["about"]["public"]


def test_pages_and_answers_are_compressed_but_streams_are_not(web: httpx.Client) -> None:
    for path in ("/", "/config", "/plotly.min.js", "/gradio_api/info"):
        answer = web.get(path)
        assert answer.headers["content-encoding"] == "gzip", path
        assert answer.num_bytes_downloaded < 0.4 * len(answer.content), path
    assert call_server(web, "sieve_open", "").headers["content-encoding"] == "gzip"
    search = ["a dog", "", None, 1.0, 5, False, ""]
    joined = web.post("/gradio_api/call/search", json={"data": search}).json()
    stream = web.get(f"/gradio_api/call/search/{joined['event_id']}")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in stream.headers and "event: complete" in stream.text


def raw(web: httpx.Client, path: str) -> tuple[int, bytes]:
    """Request a path without the normalisation of HTTP clients."""
    with socket.create_connection((web.base_url.host, web.base_url.port or 80), 20) as line:
        line.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while part := line.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1]), answer


FILES = [
    "/gradio_api/file={}",
    "/gradio_api/file=/{}",
    "/gradio_api/file/{}",
    "/gradio_api/file=file://{}",
    "/gradio_api/file={thumbnails}/../../secret.txt",
    "/gradio_api/file={thumbnails}/%2e%2e/%2e%2e/secret.txt",
    "/gradio_api/file={thumbnails}/out/secret.txt",
    "/gradio_api/file={uploads}/../..{}",
    "/gradio_api/file={uploads}/figures/..%2f..%2f..{}",
    "/gradio_api/file={uploads}/figures/%252e%252e/%252e%252e{}",
    "/gradio_api/../gradio_api/file={}",
    "/%67radio_api/file={}",
    "//gradio_api/file={}",
    "/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{}",
    "/static/{}",
    "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{}",
    "/assets/..\\..\\..\\..\\..{}",
    "/svelte/..%5c..%5c..%5c..{}",
    "/gradio_api/custom_component/x/client/component/..%2f..%2f..{}",
    "/custom_component/1/server/y{}",
    "/gradio_api/proxy=file://{}",
    "/thumbnails/..%2f..{}",
    "/thumbnails/00/..%2f..%2f..%2fsecret.txt",
    "/thumbnails/out/secret.txt",
    f"/thumbnails/00/{HIDDEN}.webp",  # a link to secret.txt
    f"/thumbnails/00/{HIDDEN}.webp%00.webp",
    f"/thumbnails/00/{HIDDEN}.webp/",
]


@pytest.mark.parametrize("form", FILES)
def test_no_local_file_is_served(web: httpx.Client, hostile: SearchEngine, form: str) -> None:
    secret = hostile.collection.path.parent / "secret.txt"
    places = {
        "thumbnails": hostile.collection.path / "thumbnails",
        "uploads": Path(get_upload_folder()),
    }
    status, answer = raw(web, form.format(secret, **places))
    assert status in (400, 403, 404)
    assert answer.split(b"\r\n\r\n", 1)[1] != b"secret" and b"Traceback" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=\\\\evil\\share\\a.webp",
        "/gradio_api/file=//evil/share/a.webp",
        "/gradio_api/file=C:\\Windows\\win.ini",
        "/gradio_api/file=http://169.254.169.254/latest",
        "/gradio_api/file=https://example.org/a.png",
        "/gradio_api/proxy=https://x.hf.space/",
        "/gradio_api/dev/reload",
        "/gradio_api/runs",
        "/gradio_api/token",
        "/gradio_api/deep_link?session_hash=s",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/vibe-code",
        "/monitoring",
        "/monitoring/summary",
        "/pwa_icon/64",
        "/docs",
        "/openapi.json",
        "/gradio_api/mcp/schema",
        "/gradio_api/process_recording",
    ],
)
def test_unneeded_routes_are_closed(
    web: httpx.Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    monkeypatch.setattr("gradio.route_utils.file_fetch", lambda *a: looked.append(a))
    monkeypatch.setattr("gradio.route_utils.secure_url_stream_response", looked.append)
    status, answer = raw(web, path)
    assert status == 403 and b"is not served" in answer and not looked


def test_only_thumbnails_are_served_from_the_static_folder(
    web: httpx.Client, hostile: SearchEngine
) -> None:
    folder = hostile.collection.path / "thumbnails"
    for name in (f"{SCRIPT}.svg", f"{SCRIPT}.html"):
        assert raw(web, f"/thumbnails/00/{name}")[0] == 403
        assert raw(web, f"/gradio_api/file={folder}/00/{name}")[0] == 403
    for name, why in (
        (PRIVATE, "leaves the collection's thumbnails"),
        (OTHER, "leaves the collection's thumbnails"),
        (ENDLESS, "leaves the collection's thumbnails"),
        (PIPE, "file is missing"),
        (SCRIPT, "it is not a WebP image"),
    ):
        status, answer = raw(web, f"/thumbnails/00/{name}.webp")
        text = answer.split(b"\r\n\r\n", 1)[1].decode()
        assert status == 404 and why in text and text.count("\n") == 1
    item = hostile.collection.items["id"].iloc[0]
    shown = web.get(f"/thumbnails/{item[:2]}/{item}.webp", headers={"Range": "bytes=0-999999999"})
    assert shown.content == hostile.thumbnail(item).read_bytes()
    assert shown.headers["content-type"] == "image/webp"
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_figure_follows_no_link_out_of_the_thumbnails(
    web: httpx.Client, hostile: SearchEngine
) -> None:
    item = hostile.collection.items["id"].iloc[0]
    thumbnail = hostile.thumbnail(item)
    saved = thumbnail.read_bytes()
    thumbnail.unlink()
    thumbnail.symlink_to(hostile.collection.path.parent / "private.webp")
    try:
        recipe = {"rows": [{"image": item}], "columns": 1}
        text = call_server(web, "sieve_preview", recipe).json().get("error", "")
    finally:
        thumbnail.unlink()
        thumbnail.write_bytes(saved)
    assert "a link that leaves the collection's thumbnails" in text


OTHER_SITES = [
    {"Origin": "http://evil.example", "Content-Type": "text/plain"},
    {"Origin": "http://evil.example", "Content-Type": "application/json"},
    {"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"},
    {"Origin": "http://localhost:1234", "Content-Type": "application/json"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Content-Type": "text/plain"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-site", "Content-Type": "application/json"},
]


@pytest.mark.parametrize("headers", OTHER_SITES, ids=str)
def test_cross_origin_requests_are_refused(web: httpx.Client, headers: dict[str, str]) -> None:
    posted = call_server(web, "sieve_open", "", **headers)
    assert posted.status_code == 403 and "other websites" in posted.text
    form = {"files": ("a.png", b"x")}
    origin = {name: value for name, value in headers.items() if name != "Content-Type"}
    uploaded = web.post("/gradio_api/upload", files=form, headers=origin)
    assert uploaded.status_code == 403
    read = web.get("/config", headers={**origin, "Sec-Fetch-Mode": "cors"})
    assert read.status_code == 403


def test_same_origin_requests_and_links_are_answered(web: httpx.Client) -> None:
    own = str(web.base_url).rstrip("/")
    for headers in ({"Origin": own}, {"Sec-Fetch-Site": "same-origin"}, {}):
        assert call_server(web, "sieve_open", "", **headers, **csrf_header(web)).status_code == 200
    assert call_server(web, "sieve_open", "").status_code == 200, "a program needs no token"
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert web.get("/?q=a", headers=link).status_code == 200


@pytest.mark.parametrize("name", ["evil.example", "evil.example:7860", "localhost.evil.example"])
def test_foreign_host_name_is_refused(web: httpx.Client, name: str) -> None:
    """With DNS rebinding, the browser treats the attacker's page and this one as the same site."""
    for headers in ({"Host": name}, {"Host": name, "Origin": f"http://{name}"}):
        read = web.get("/config", headers=headers)
        assert read.status_code == 403 and "--allow-host" in read.text


def test_request_must_be_small_json_without_file_references(
    web: httpx.Client, fetched: list[str]
) -> None:
    file = {"path": "http://example.org/a", "url": "http://example.org/a", "meta": {"_type": "x"}}
    for path in (
        RPC_URL,
        "/gradio_api/call/search",
        "/gradio_api/queue/join",
    ):
        for body, status in (
            (json.dumps({"data": ["a", [{"x": file}]]}), 403),
            (json.dumps({"data": [file], "meta\\u0061": 1}), 403),
            ('{"data":' + "[" * 200_000 + "]" * 200_000 + "}", 400),
            ("{not json", 400),
            (b"\xff\xfe\x00", 400),
        ):
            answer = web.post(path, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == status and answer.text.count("\n") == 1
        text = web.post(path, content="{}", headers={"Content-Type": "text/plain"})
        assert text.status_code == 415
        chunked = web.post(
            path, content=iter([b"{}"]), headers={"Content-Type": "application/json"}
        )
        assert chunked.status_code == 411
    assert not fetched


@pytest.mark.parametrize("name", ["__proto__", "constructor", "off\u0000", "</script>"])
def test_unknown_fields_are_ignored(web: httpx.Client, name: str) -> None:
    payload = {"q": "a circle", "off": [3]}
    plain = call_server(web, "sieve_ask", payload).json()
    odd = call_server(web, "sieve_ask", {**payload, name: {"polluted": 1, "public": False}}).json()
    for answer in (plain, odd):
        answer.pop("seconds")
    assert odd == plain
    refused = call_server(web, "sieve_preview", {"rows": [{"query": "a"}], name: 1}).json()
    assert "has no field" in refused["error"] and "\n" not in refused["error"]


def test_upload_size_is_limited(web: httpx.Client) -> None:
    large = b"x" * (MAX_UPLOAD_BYTES + bodies.FORM_BYTES + 1)
    files = {"files": ("a.png", large)}
    answer = web.post("/gradio_api/upload", files=files, headers=csrf_header(web))
    assert answer.status_code == (403 if is_public(web) else 413)
    assert answer.text.count("\n") == 1


def test_uploads_are_not_served_again(web: httpx.Client) -> None:
    if is_public(web):
        pytest.skip("strangers upload nothing")
    files = {"files": ("../../a.svg", SVG)}
    sent = web.post("/gradio_api/upload", files=files, headers=csrf_header(web))
    assert sent.status_code == 200
    path = Path(sent.json()[0])
    assert path.is_relative_to(get_upload_folder())
    assert web.get(f"/gradio_api/file={path}").status_code == 403
    refused = call_server(web, "sieve_upload", str(path)).json()
    assert "not an image" in refused["error"] and not path.exists()


def test_api_figure_can_be_downloaded(web: httpx.Client) -> None:
    if is_public(web):
        pytest.skip("strangers have no files written")
    client = Client(str(web.base_url), download_files=False, verbose=False)
    made = client.predict({"rows": [{"query": "a circle"}]}, "svg", api_name="/figure")
    shown = web.get(made["url"])
    assert shown.content.startswith(b"<?xml")
    assert shown.headers["content-disposition"].startswith("attachment")


def test_slow_request_bodies_do_not_block_other_requests(
    web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SECONDS", 1.0)
    path = "/gradio_api/queue/join" if is_public(web) else "/gradio_api/upload"
    kind = "application/json" if is_public(web) else "multipart/form-data; boundary=x"
    key = csrf_header(web)["X-Sieve-Token"]
    place = (web.base_url.host, web.base_url.port or 80)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        f"Content-Type: {kind}\r\nX-Sieve-Token: {key}\r\n\r\n--x\r\n"
    )
    requested = (
        f"POST {RPC_URL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        "Content-Type: application/json\r\n\r\n{"
    )
    slow = [socket.create_connection(place, 20) for _ in range(100)]
    try:
        for number, line in enumerate(slow):
            line.sendall((head if number % 2 else requested).encode())
        started = time.monotonic()
        assert call_server(web, "sieve_ask", {"q": "a circle"}).json()["results"]
        assert time.monotonic() - started < 10
        for line in slow[:2]:  # both connections get a response and are closed
            assert b" 408 " in line.recv(100)
    finally:
        for line in slow:
            line.close()


def test_content_security_policy_blocks_other_hosts(web: httpx.Client) -> None:
    for path in ("/", "/config", "/thumbnails/x", "/theme.css"):
        headers = web.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self';" in policy and "object-src 'none'" in policy
        assert "https:" not in policy and " * " not in policy
        assert headers["referrer-policy"] == "same-origin"
        assert policy.endswith("frame-ancestors 'self' http://localhost:* http://127.0.0.1:*")


@pytest.mark.parametrize("way_in", [Explore, Server, start])
def test_host_defaults_to_localhost_in_all_functions(way_in: Callable[..., object]) -> None:
    assert inspect.signature(way_in).parameters["host"].default == "127.0.0.1"


def test_server_listens_on_localhost_by_default(hostile: SearchEngine) -> None:
    served = start(hostile, port=FIRST_PORT + 40)
    try:
        port = int(served.url.rsplit(":", 1)[1])
        assert served.app.server.config.host == "127.0.0.1"
        with socket.socket(socket.AF_INET6) as other, pytest.raises(OSError):
            other.connect(("::1", port))
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert not served.app.share and not served.app.analytics_enabled
    finally:
        served.app.close()


def test_session_cookie_is_useless_to_other_websites(hostile: SearchEngine) -> None:
    access = Access(auth=("guest", "o:pen"), allow_hosts=("sieve.example",))
    served = start(hostile, port=FIRST_PORT + 40, access=access)
    try:
        with web_client(served.url) as web:
            given = {"username": "guest", "password": "o:pen"}
            other = {"Origin": "http://evil.example", "Host": "sieve.example"}
            assert web.post("/login", data=given, headers=other).status_code == 403
            assert web.post("/login", data=given).status_code == 200
            assert web.get("/config", headers={"Host": "sieve.example"}).status_code == 200
            read = web.get("/config", headers=other)
            assert read.status_code == 403 and "components" not in read.text
    finally:
        served.app.close()
