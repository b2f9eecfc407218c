"""Checks of requests: their Host, their origin, and the size and content of their body.

Only the explorer's own page may send requests from a browser.
Any website can make the browsers of its visitors send requests to their own machine or network, and
Gradio accepts them. Four checks prevent that:

- the `Host` header must be this machine or an allowed name (DNS rebinding);
- `Sec-Fetch-Site`, `Origin` and `Referer`, which scripts cannot set, must not name another origin;
- no response has a CORS header, and preflight requests are refused;
- a POST request of a browser needs a token that only a page of the same origin can read.

Other programs send none of these headers and need no token.

Calls that refer to a file are refused: Gradio would fetch a file at any URL and store it, and the
page never sends such a call.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sieve.explorer.errors import RefusedError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

ANY_HOST = "*"
TOKEN_HEADER = "x-sieve-token"
LOGIN, LOGOUT = "/login", "/logout"

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_FORWARDED = frozenset({"x-forwarded-host", "x-forwarded-proto", "x-forwarded-for"})
_PROXY_HEADER = re.compile(
    r"forwarded|via|x-(forwarded|original|rewrite|gradio|http-method|real|client|host)\b.*"
)
"""Lower-case names of headers that a proxy sets and a server trusts, such as the original host."""

Network = IPv4Network | IPv6Network
SECONDS = 60.0
"""Time limit for a request body to arrive, in seconds."""
MAX_BODY_BYTES = 1 << 20
"""Size limit of a call; the page sends much less."""
MAX_IMPORT_BYTES = 128 << 20
"""Size limit of the call that imports annotations: a file of at most 64 MB, as JSON text."""
FORM_BYTES = 1 << 16
"""Size that a form may add to the file it contains."""
MAX_NAME = 64
"""Maximum length of a session or event id; Gradio's page sends 11 characters, its client 36."""
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_IMPORT = re.compile(rb'"fn_name"\s*:\s*"sieve_notes_import"')


def host_names(listens_to: str, root_path: str, allowed: Iterable[str]) -> frozenset[str]:
    """Return the accepted names in the Host header; `*` in `allowed` stands for any.

    The host of a root path that is a URL, at which a reverse proxy serves the page, is accepted.
    """
    known = {"localhost", listens_to, socket.gethostname(), urlsplit(root_path).hostname or ""}
    return frozenset(name.lower() for name in known | set(allowed) if name)


@dataclass(frozen=True)
class RequestInfo:
    """A parsed request: its path below the root path, its headers by name in lower case.

    `client` is the IP address of the client, and `is_secure` whether it uses HTTPS.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    client: str
    is_secure: bool

    @property
    def hosts(self) -> list[str]:
        """The Host header, and the host that the client requested from a trusted proxy, if any."""
        forwarded = self.headers.get("x-forwarded-host", "").split(",")[0].strip()
        return [self.headers.get("host", ""), *filter(None, [forwarded])]


def read_request(
    scope: Scope, root_path: str, proxies: Iterable[Network]
) -> tuple[RequestInfo, Scope]:
    """Parse a request and remove the headers that only a trusted proxy may send."""
    sender = (scope.get("client") or ("", 0))[0]
    is_proxied = bool(root_path) and is_in(sender, proxies)
    kept, headers = [], {}
    for name, value in scope["headers"]:
        lower, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if _PROXY_HEADER.fullmatch(lower) and not (is_proxied and lower in _FORWARDED):
            continue
        kept.append((name, value))
        # Repeated headers are joined: the result is no valid host, origin or length.
        headers[lower] = f"{headers[lower]}; {text}" if lower in headers else text
    forwarded_scheme = headers.get("x-forwarded-proto", "").split(",")[0].strip()
    # The root path is part of the path, unless the proxy has removed it.
    root, path = scope.get("root_path", ""), str(scope["path"])
    path = path.removeprefix(root) if root and path.startswith(f"{root}/") else path
    request = RequestInfo(
        scope["method"],
        path.rstrip("/") if path in (f"{LOGIN}/", f"{LOGOUT}/") else path,
        scope["query_string"].decode("latin-1"),
        headers,
        headers.get("x-forwarded-for", "").rsplit(",")[-1].strip() or sender,
        root_path.startswith("https:") or forwarded_scheme == "https",
    )
    return request, {**scope, "headers": kept}


def check_host(request: RequestInfo, names: frozenset[str]) -> None:
    """Raise a `RefusedError` unless a request names this explorer as its host.

    IP addresses are accepted: another website's name can resolve to this machine, but in a request
    to an IP address, the Host header is that address.
    """
    for host in request.hosts:
        parts = _HOST.fullmatch(host.lower())
        if parts is None:
            raise RefusedError(403, "the Host header must be a name or an address")
        name = parts[1]
        is_known = name in names or ANY_HOST in names or name.endswith(".localhost")
        if not (is_known or _parse_address(name)):
            raise RefusedError(
                403,
                f"this explorer is not {name[:80]}: open it at its IP address, or start it with "
                f"--allow-host {name[:80]} if you control that name",
            )


def is_cross_origin(request: RequestInfo, root_path: str) -> bool:
    """Return whether a request comes from another website.

    Its own origins are those of the Host header, of a root path that is a URL, and of the host that
    a client requested from a trusted proxy.
    """
    headers, is_read = request.headers, request.method in ("GET", "HEAD")
    site = headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return False
    if site is not None:  # another site, also on another port, may only link to the page
        return not (is_read and headers.get("sec-fetch-mode") == "navigate")
    # Links have a Referer too, so it is ignored for GET.
    origin = headers.get("origin", None if is_read else headers.get("referer"))
    if origin is None:
        return False
    root = urlsplit(root_path)
    try:
        parts = urlsplit(origin)
    except ValueError:
        return True
    port = _DEFAULT_PORTS.get(parts.scheme)
    if port is None:
        return True
    own = [*request.hosts, root.netloc if root.scheme == parts.scheme else ""]
    names = {name.lower().removesuffix(port) for name in own if name}
    return parts.netloc.lower().removesuffix(port) not in names


def is_browser(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from a browser.

    No website can make a browser omit all of these headers.
    """
    return (
        not headers.keys().isdisjoint({"origin", "referer", "sec-fetch-site", "sec-fetch-mode"})
        or headers.get("user-agent", "").startswith("Mozilla/")
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can be reached only from this machine."""
    parsed = _parse_address(host)
    return host == "localhost" if parsed is None else parsed.is_loopback


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Return whether an IP address is in one of the networks."""
    parsed = _parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parse_address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name.strip("[]"))
    except ValueError:
        return None


def check_headers(method: str, headers: Mapping[str, str], most: int, *, form: bool) -> None:
    """Raise a `RefusedError` if the headers announce no body of at most `most` bytes."""
    length = headers.get("content-length")
    if "transfer-encoding" in headers:  # it would override the Content-Length
        status = 411 if length is None else 400
        raise RefusedError(status, "the length of the body must be given by Content-Length alone")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
        raise RefusedError(400, "Content-Length must be a number")
    if method != "POST":
        if int(length or 0):
            raise RefusedError(400, f"a {method} request must have no body")
        return
    if length is None:
        raise RefusedError(411, "the length of the body must be given by Content-Length")
    if int(length) > most:
        raise RefusedError(413, f"the body has {int(length):,} bytes; at most {most:,} are allowed")
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if form and kind not in _FORMS:
        raise RefusedError(415, "the body must be a form")
    if not form and kind != "application/json":
        raise RefusedError(415, "the body must be JSON")


def limited(receive: Receive, most: int) -> Receive:
    """Wrap an ASGI receive function to limit the size and the duration of the body.

    It raises a `RefusedError` after `SECONDS`, or if more than `most` bytes arrive, regardless of
    the headers.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SECONDS
    is_complete, size = False, 0

    async def next_part() -> Message:
        nonlocal is_complete, size
        if is_complete:  # only the disconnect of the client follows, perhaps hours later
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise RefusedError(408, f"the body took more than {SECONDS:.0f} s") from None
        size += len(message.get("body", b""))
        if size > most:
            raise RefusedError(413, f"the body has more than {most:,} bytes")
        is_complete = message["type"] != "http.request" or not message.get("more_body")
        return message

    return next_part


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI receive function that sends a body again that was already read."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_again() -> Message:
        return next(messages, None) or await receive()

    return receive_again


async def read_form(scope: Scope, receive: Receive) -> dict[str, str]:
    """Read the text fields of a small form."""
    async with Request(scope, receive).form(max_files=0, max_fields=16) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


async def read_call(body: bytes) -> dict[str, Any]:
    """Parse a call, in a thread if it is large.

    Raises a `RefusedError` if it is not a JSON object, refers to a file, or is large and does not
    import annotations.
    """
    if len(body) <= MAX_BODY_BYTES:
        return _parse(body)
    if not (_IMPORT.search(body[:512]) or _IMPORT.search(body[-512:])):
        raise RefusedError(413, f"the body of a call is limited to {MAX_BODY_BYTES:,} bytes")
    return await run_in_threadpool(_parse, body)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        call = json.loads(
            body, parse_constant=_finite, parse_float=_finite, object_hook=_without_file
        )
    except RecursionError:
        raise RefusedError(400, "the body is nested too deeply") from None
    except ValueError:
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(call, dict):
        raise RefusedError(422, "the body must be a JSON object")
    for field in ("session_hash", "event_id"):
        name = call.get(field) or ""
        if not (isinstance(name, str) and name.isascii() and len(name) <= MAX_NAME):
            raise RefusedError(422, f"{field} must be at most {MAX_NAME} ASCII characters")
    return call


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):  # Python reads NaN and Infinity, although JSON has neither
        raise RefusedError(400, "a number in the body is not finite")
    return value


def _without_file(value: dict[str, Any]) -> dict[str, Any]:
    if "path" in value and "meta" in value:
        raise RefusedError(403, "a call must not contain a file")
    return value
