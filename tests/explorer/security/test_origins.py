"""Test requests that another website can make a browser send."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from command_line import Sieve, fault
from page_api import RPC_URL, call_server, csrf_header, request_body, server_functions, web_client
from processes import FIRST_PORT

from sieve.explorer.app import Served, start
from sieve.explorer.security.access import Access

PORT = FIRST_PORT + 110
EVIL = "evil.example"
SPOKEN_FOR = [
    "Forwarded", "X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-For", "X-Forwarded-Port",
    "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Uri", "X-Gradio-Server",
    "X-Gradio-User", "X-Real-IP", "X-Original-Host", "X-Original-URL", "X-Rewrite-URL",
    "X-Client-IP", "X-Host", "Via", "X-HTTP-Method-Override", "X-Requested-With", "Authorization",
    "Access-Control-Request-Method", "Access-Control-Request-Headers", "X-Sieve-Token", "Cookie",
]  # fmt: skip
"""Headers that a page can set, directly or after a preflight, to pose as another origin."""


@pytest.fixture(scope="module")
def serve(tiny_engine) -> Iterator[Callable[..., Served]]:
    """Start an explorer; equal settings share one server."""
    saved: dict[tuple, Served] = {}

    def served(host: str = "127.0.0.1", **access: object) -> Served:
        key = (host, *sorted(access.items()))
        if key not in saved:
            saved[key] = start(tiny_engine, host=host, port=PORT, access=Access(**access))  # type: ignore[arg-type]
        return saved[key]

    yield served
    for one in saved.values():
        one.app.close(verbose=False)


@pytest.fixture
def web(serve: Callable[..., Served]) -> Iterator[httpx.Client]:
    with web_client(serve().url) as client:
        yield client


def origin_of(web: httpx.Client) -> str:
    return f"{web.base_url.host}:{web.base_url.port}"


def head(url: str, method: str, path: str, *lines: str) -> int:
    """Send a request without the headers that clients add, and return the status."""
    at = httpx.URL(url)
    with socket.create_connection((at.host, at.port), 20) as line:
        text = "\r\n".join((f"{method} {path} HTTP/1.1", *lines, "Connection: close"))
        line.sendall(f"{text}\r\n\r\n".encode())
        answer = line.recv(65536)
    return int(answer.split(b" ", 2)[1])


def test_origin_check_is_the_outermost_layer(serve: Callable[..., Served]) -> None:
    layer, layers = serve().app.app.middleware_stack, []
    while layer is not None:
        layers.append(type(layer).__name__)
        layer = getattr(layer, "app", None)
    assert layers[:2] == ["RouteAllowList", "ServerErrorMiddleware"]
    assert "CustomCORSMiddleware" in layers and layers.count("RouteAllowList") == 1


@pytest.mark.parametrize("path", ["/", "/config", RPC_URL, "/gradio_api/upload", "/login", "*"])
@pytest.mark.parametrize("origin", [f"http://{EVIL}", "null", "own", None])
def test_preflight_requests_are_refused(web: httpx.Client, path: str, origin: str | None) -> None:
    headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    if origin:
        headers["Origin"] = f"http://{origin_of(web)}" if origin == "own" else origin
    response = web.request("OPTIONS", path if path != "*" else "/%2A", headers=headers)
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_no_response_has_cors_headers(web: httpx.Client) -> None:
    for origin in (f"http://{origin_of(web)}", f"http://{EVIL}", "null"):
        for path in ("/", "/config", "/csrf-token", "/theme.css"):
            answer = web.get(path, headers={"Origin": origin})
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.status_code == (200 if origin.endswith(origin_of(web)) else 403)
            if answer.is_success:
                assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("name", SPOKEN_FOR)
def test_forwarding_headers_do_not_change_the_origin(web: httpx.Client, name: str) -> None:
    """Sec-Fetch-Site is missing, as from a page over plain HTTP."""
    for value in (
        EVIL,
        origin_of(web),
        f"http://{origin_of(web)}",
        f"host={EVIL};proto=https",
        "127.0.0.1",
    ):
        other = {"Origin": f"http://{EVIL}", name: value}
        assert call_server(web, "sieve_open", "", **other).status_code == 403
        assert web.get("/config", headers=other).status_code == 403
        assert web.get("/csrf-token", headers=other).status_code == 403
        assert EVIL not in web.get("/config", headers={name: value}).text, "addresses are ours"


@pytest.mark.parametrize(
    "origin",
    [
        "https://{own}", "http://{own}.evil.example", "http://evil.example@{own}", "http://{host}",
        "http://{host}:1", "http://[", "null", "", "file://", "chrome-extension://x", "{own}",
    ],
)  # fmt: skip
def test_origin_must_match_exactly(web: httpx.Client, origin: str) -> None:
    if origin == "https://{own}":  # another port: 443 of a proxy that passes the Host header on
        origin = "https://{host}"
    value = origin.format(own=origin_of(web), host=web.base_url.host)
    sent = call_server(web, "sieve_open", "", Origin=value, **csrf_header(web))
    assert sent.status_code == 403 and sent.text.count("\n") == 1


def test_repeated_security_headers_are_refused(web: httpx.Client) -> None:
    url, ours, evil = str(web.base_url), f"http://{origin_of(web)}", f"http://{EVIL}"
    for name, first, second in (
        ("Origin", ours, evil),
        ("Origin", evil, ours),
        ("Sec-Fetch-Site", "same-origin", "cross-site"),
        ("Sec-Fetch-Site", "cross-site", "same-origin"),
        ("Host", origin_of(web), EVIL),
        ("Host", EVIL, origin_of(web)),
    ):
        host = () if name == "Host" else (f"Host: {origin_of(web)}",)
        twice = (f"{name}: {first}", f"{name}: {second}")
        assert head(url, "GET", "/config", *host, *twice) in (400, 403)


def test_post_requests_of_browsers_require_the_token(web: httpx.Client) -> None:
    known = server_functions(web.get("/config").json())
    body, origin = request_body(known, "sieve_open", ""), {"Origin": f"http://{origin_of(web)}"}
    for browser in (
        origin,
        {"Sec-Fetch-Site": "same-origin"},
        {"Referer": f"http://{origin_of(web)}/"},
        {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"},
    ):
        for wrong in ({}, {"X-Sieve-Token": "0" * 64}, {"X-Sieve-Token": ""}):
            refused = web.post(RPC_URL, json=body, headers={**browser, **wrong})
            assert refused.status_code == 403 and "token" in refused.text
        assert (
            web.post(RPC_URL, json=body, headers={**browser, **csrf_header(web)}).status_code == 200
        )
    assert web.post(RPC_URL, json=body).status_code == 200, "a program has no page to take it from"
    form = {"files": ("a.png", b"x")}
    assert web.post("/gradio_api/upload", files=form).status_code == 403, "any page can send forms"
    other = web.post(RPC_URL, json=body, headers={"Referer": f"http://{EVIL}/"} | csrf_header(web))
    assert other.status_code == 403 and "other websites" in other.text


HOSTS = [
    EVIL, f"{EVIL}:7860", f"{EVIL}.", f"localhost.{EVIL}", f"127.0.0.1.{EVIL}", f"x@{EVIL}",
    f"127.0.0.1@{EVIL}", f"{EVIL}#127.0.0.1", "127.0.0.1:80:80", "[::1", "", "0x7f.1", "a b",
    f"localhost,{EVIL}", "127.0.0.1/..", "2130706433",
]  # fmt: skip
WAYS = [
    {},
    {"root_path": "/sieve"},
    {"root_path": "https://sieve.example/x"},
    {"host": "0.0.0.0", "open_to_network": True},
    {"host": "0.0.0.0", "public": True},
    {"host": "0.0.0.0", "auth": ("guest", "open")},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_rebound_host_name_is_refused(serve: Callable[..., Served], way: dict) -> None:
    url = serve(**way).url
    for host in HOSTS:
        for path in ("/", "/config", "/csrf-token"):
            assert head(url, "GET", path, f"Host: {host}") in (400, 403), host
    assert head(url, "GET", "/") == 400, "no Host"
    assert head(url, "GET", "/", "Host: localhost", f"Host: {EVIL}") == 400
    assert head(url, "GET", f"http://{EVIL}/config", "Host: localhost") == 403
    for host in ("127.0.0.1", "localhost:9000", "[::1]:7860", "192.168.1.20:7860", "a.localhost"):
        assert head(url, "GET", "/csrf-token", f"Host: {host}") == 200, host


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6_address_can_be_used(serve: Callable[..., Served]) -> None:
    serve()  # so that its port is in use only on 127.0.0.1
    for served in (serve(host="::1"), serve(host="::", public=True)):
        assert served.url.startswith("http://[::1]:")
        assert httpx.get(f"{served.url}/config").status_code == 200


def test_allowed_host_name_is_answered(serve: Callable[..., Served]) -> None:
    url = serve(host="0.0.0.0", public=True, allow_hosts=("sieve.example", "other.example")).url
    for host in ("sieve.example", "Sieve.Example:7860", "other.example"):
        assert head(url, "GET", "/config", f"Host: {host}") == 200
        assert head(url, "GET", "/config", f"Host: {host}", f"Origin: http://{EVIL}") == 403
    assert head(url, "GET", "/config", "Host: a.sieve.example") == 403
    assert head(serve(allow_hosts=("*",)).url, "GET", "/config", f"Host: {EVIL}") == 200
    shown_at = serve(root_path="https://sieve.example/x").url
    assert head(shown_at, "GET", "/config", "Host: sieve.example") == 200


def test_proxy_headers_are_trusted_only_from_a_trusted_proxy(serve: Callable[..., Served]) -> None:
    via = {"X-Forwarded-Host": "sieve.example", "Origin": "http://sieve.example"}
    named = {"root_path": "/sieve", "allow_hosts": ("sieve.example",)}
    for access, status in (
        (named | {"trusted_proxies": ("127.0.0.0/8",)}, 200),
        (named | {"trusted_proxies": ("10.0.0.1",)}, 403),
        (named, 403),
        ({"allow_hosts": ("sieve.example",)}, 403),
        ({"root_path": "/sieve", "trusted_proxies": ("127.0.0.1",)}, 403),
    ):
        with web_client(serve(**access).url) as web:
            assert web.get("/config", headers=via).status_code == status
            evil = {"X-Forwarded-Host": EVIL, "Origin": f"http://{EVIL}"}
            assert web.get("/config", headers=evil).status_code == 403
            if status == 200:
                root = web.get("/config", headers=via | {"X-Forwarded-Proto": "https"}).json()[
                    "root"
                ]
                assert root == "https://sieve.example/sieve"


def test_page_on_another_port_cannot_use_the_cookie(serve: Callable[..., Served]) -> None:
    url = serve(auth=("guest", "open")).url
    with web_client(url) as web:
        assert web.post("/login", data={"username": "guest", "password": "open"}).is_success
        assert call_server(web, "sieve_open", "").status_code == 200
        key, origin = csrf_header(web), f"http://{web.base_url.host}:9999"
        for other in (
            {"Origin": origin},
            {"Origin": origin, **key},
            {"Referer": f"{origin}/", **key},
            {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", **key},
            {"User-Agent": "Mozilla/5.0"},
        ):
            assert call_server(web, "sieve_open", "", **other).status_code == 403
        web.cookies.clear()
        assert csrf_header(web) != key, "without the session the token is another"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "example.org", ""])
def test_network_access_requires_an_option(sieve: Sieve, opened: tuple, host: str) -> None:
    line = fault(sieve("explore", *opened, "--host", host))
    assert all(way in line for way in ("--auth", "--public-safe", "--open-to-network"))
    for access in (Access(public=True), Access(auth=("a", "b")), Access(open_to_network=True)):
        access.check_host(host)
    for here in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        Access().check_host(here)


def test_start_requires_open_to_network(tiny_engine) -> None:
    with pytest.raises(ValueError, match="--open-to-network"):
        start(tiny_engine, host="0.0.0.0", port=PORT)


@pytest.mark.parametrize(
    ("access", "line"),
    [
        ({"allow_hosts": ("http://a",)}, "--allow-host must be a name"),
        ({"allow_hosts": ("a:80",)}, "--allow-host must be a name"),
        ({"trusted_proxies": ("127.0.0.1",)}, "--trusted-proxy needs --root-path"),
        ({"trusted_proxies": ("proxy",), "root_path": "/a"}, "--trusted-proxy must be an address"),
    ],
)
def test_invalid_access_options_are_one_line(access: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line) as raised:
        Access(**access)
    assert "\n" not in str(raised.value)
