"""Test login and sessions by plain HTTP."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from page_api import RPC_URL, call_server, csrf_header, serve, web_client
from processes import FIRST_PORT, ROOT

from sieve.explorer.security.access import SESSION_SECONDS, Access

pytestmark = pytest.mark.slow

GIVEN = {"username": "guest", "password": "o:pen"}
WRONG = GIVEN | {"password": "open"}
EVIL = {"Origin": "http://evil.example"}


@pytest.fixture(scope="module")
def url(tiny_engine) -> Iterator[str]:
    access = Access(auth=("guest", "o:pen"))
    yield from serve(tiny_engine, port=FIRST_PORT + 130, access=access)


@pytest.fixture
def web(url: str) -> Iterator[httpx.Client]:
    with web_client(url) as client:
        yield client


@pytest.fixture
def logged_in(web: httpx.Client) -> httpx.Client:
    assert web.post("/login", data=GIVEN).json() == {"success": True}
    return web


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/config"), ("GET", "/config?page=x"), ("GET", "/gradio_api/info"),
        ("GET", "/theme.css"), ("GET", "/static/img/logo_nosize.svg"), ("GET", "/plotly.min.js"),
        ("GET", "/gradio_api/heartbeat/s"), ("GET", "/gradio_api/app_id"), ("GET", "/logout"),
        ("GET", "/gradio_api/queue/data?session_hash=s"), ("GET", "/gradio_api/call/search/e"),
        ("POST", "/gradio_api/cancel"), ("POST", "/gradio_api/queue/join"), ("POST", "/logout"),
        ("POST", "/gradio_api/call/search"), ("POST", "/gradio_api/upload"), ("POST", RPC_URL),
        ("GET", "/thumbnails/00/0000000000000000.webp"),
    ],
)  # fmt: skip
def test_no_request_is_answered_before_login(web: httpx.Client, method: str, path: str) -> None:
    for cookie in ("", f"sieve-session-{web.base_url.port}=x", "access-token-x=y"):
        answer = web.request(method, path, headers={"Cookie": cookie} if cookie else {})
        assert answer.status_code == 401 and answer.text.count("\n") == 1


def test_health_check_of_the_container_needs_no_login(web: httpx.Client) -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    checked = re.search(r"HEALTHCHECK.*urlopen\('http://127\.0\.0\.1:7860(/[^']*)'\)", text, re.S)
    assert checked and web.get(checked[1]).status_code == 200


def test_no_body_is_read_before_login(web: httpx.Client) -> None:
    place = (web.base_url.host, web.base_url.port or 80)
    for path in (RPC_URL, "/gradio_api/upload", "/gradio_api/queue/join"):
        with socket.create_connection(place, 20) as line:
            line.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {100 << 20}\r\n\r\n".encode()
            )
            assert line.recv(100).startswith(b"HTTP/1.1 401")


def test_login_page_redirects_to_the_requested_link(web: httpx.Client) -> None:
    page = web.get("/?q=a+dog&without=b%26c", headers={"Accept": "text/html"})
    assert page.status_code == 401 and 'name="password"' in page.text
    assert "sieve_" not in page.text, "nothing of the app is in it"
    fields = dict(re.findall(r'name="(token|link)" value="([^"]*)"', page.text))
    fields["link"] = fields["link"].replace("&amp;", "&")
    own = {"Origin": str(web.base_url).rstrip("/"), "Accept": "text/html"}
    wrong = web.post("/login", data=WRONG | fields, headers=own)
    assert wrong.status_code == 400 and "Wrong username or password" in wrong.text
    gone = web.post("/login", data=GIVEN | fields, headers=own)
    assert gone.status_code == 303 and gone.headers["location"] == "/?q=a+dog&without=b%26c"
    assert re.fullmatch(
        rf"sieve-session-{web.base_url.port}=[\w-]{{43}}; HttpOnly; Path=/; SameSite=lax",
        gone.headers["set-cookie"],
    )
    assert web.get("/").status_code == 200
    for link in ("//evil.example", "\r\nX-A: b", "https://evil.example/"):
        to = web.post("/login", data=GIVEN | fields | {"link": link}, headers=own).headers
        assert to["location"].startswith("/?") and "x-a" not in to
    without = web.post("/login", data=GIVEN, headers=own)
    assert without.status_code == 403, "a browser's form has the token of the page"


def test_cross_origin_login_and_logout_are_refused(logged_in: httpx.Client) -> None:
    assert logged_in.post("/login", data=GIVEN, headers=EVIL).status_code == 403
    for headers in (EVIL, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, {}):
        for body in ({"a": "b"}, {"token": "x"}):
            assert logged_in.post("/logout", data=body, headers=headers).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert "Log out" in logged_in.get("/logout?all_session=true", headers=link).text
    assert logged_in.get("/config").status_code == 200, "a link alone ends nothing"


def test_logout_ends_only_the_current_session(logged_in: httpx.Client, url: str) -> None:
    with web_client(url) as other:
        assert other.post("/login", data=GIVEN).is_success
        saved = dict(logged_in.cookies)
        key = csrf_header(logged_in)["X-Sieve-Token"]
        assert logged_in.post("/logout", data={"token": key}).status_code == 303
        logged_in.cookies.update(saved)
        assert logged_in.get("/config").status_code == 401, "also with the cookie that it had"
        assert call_server(other, "sieve_open", "").status_code == 200


class Clock:
    """Clock of the login, which a test can advance, in seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("sieve.explorer.security.access.time", clock)
    return clock


def test_inactive_session_expires(logged_in: httpx.Client, clock: Clock) -> None:
    for _ in range(4):
        clock.ahead += 0.9 * SESSION_SECONDS
        assert logged_in.get("/config").status_code == 200
    clock.ahead += 1.1 * SESSION_SECONDS
    assert logged_in.get("/config").status_code == 401


def test_repeated_wrong_passwords_are_delayed(web: httpx.Client, clock: Clock) -> None:
    tried = [web.post("/login", data=WRONG) for _ in range(8)]
    assert [one.status_code for one in tried] == [400] * 3 + [429] * 5
    assert int(tried[-1].headers["retry-after"]) >= 1 and "try again in" in tried[-1].text
    assert web.post("/login", data=GIVEN).status_code == 429, "also the right one, not compared"
    spoofed = {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3"}
    assert web.post("/login", data=GIVEN, headers=spoofed).status_code == 429
    clock.ahead += 1.1
    assert web.post("/login", data=WRONG).status_code == 400
    assert int(web.post("/login", data=WRONG).headers["retry-after"]) == 2
    clock.ahead += 3
    assert web.post("/login", data=GIVEN).is_success
