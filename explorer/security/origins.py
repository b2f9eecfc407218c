"""Origin and Host checks: only the explorer's own page may send requests from a browser.

Any website can make the browsers of its visitors send requests to their own machine or network, and
Gradio accepts them. Four checks prevent that:

- the `Host` header must be this machine or an allowed name (DNS rebinding);
- `Sec-Fetch-Site`, `Origin` and `Referer`, which scripts cannot set, must not name another origin;
- no response has a CORS header, and preflight requests are refused;
- a POST request of a browser needs a token that only a page of the same origin can read.

Other programs send none of these headers and need no token.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sieve.explorer.errors import RefusedError

if TYPE_CHECKING:
    from starlette.types import Scope

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
