"""Origin and Host checks: only the explorer's own page may send requests from a browser.

Any website can make its visitors' browsers send requests to an address on their own machine or
network, and Gradio accepts them. Four checks stop that:

- the `Host` header must name this machine or a name that was allowed (DNS rebinding);
- `Sec-Fetch-Site`, `Origin` and `Referer`, which scripts cannot set, must not name another origin;
- no answer carries a CORS header, and a preflight request is refused;
- a browser's POST request carries a token that only a page of the same origin can read.

Programs that are no browsers send none of these headers and need no token.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import urlsplit

ANY_HOST = "*"
TOKEN_HEADER = "x-sieve-token"

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_PROXY_HEADERS = re.compile(
    r"forwarded|via|x-(forwarded|original|rewrite|gradio|http-method|real|client|host)\b.*"
)
"""Headers by which a proxy, or whoever pretends to be one, changes what a server believes."""

Network = IPv4Network | IPv6Network


def host_names(listens_to: str, root_path: str, allowed: Iterable[str]) -> frozenset[str]:
    """Return the names by which an explorer may be addressed.

    Parameters
    ----------
    listens_to : str
        The host that the server listens to.
    root_path : str
        Where a reverse proxy shows the page; the host of an address is included.
    allowed : iterable of str
        Further names, or `*` for any.
    """
    known = {"localhost", listens_to, socket.gethostname(), urlsplit(root_path).hostname or ""}
    return frozenset(name.lower() for name in known | set(allowed) if name)


def host_refusal(host: str, names: frozenset[str]) -> str | None:
    """Explain in one line why a `Host` header is refused; None if it is accepted.

    IP addresses are accepted: a name of another website can lead here, an address cannot.
    """
    parts = _HOST.fullmatch(host.lower())
    if parts is None:
        return "the Host header must be a name or an address"
    name = parts[1]
    if ANY_HOST in names or name in names or name.endswith(".localhost") or _is_address(name):
        return None
    return (
        f"this explorer is not {name[:80]}: open it by its address, or start it with "
        f"--allow-host {name[:80]} if that name is yours"
    )


def origin_refusal(
    method: str, headers: Mapping[str, str], root_path: str, shown_at: str
) -> str | None:
    """Explain in one line why a request of another website is refused; None if it is not one.

    Parameters
    ----------
    method : str
    headers : mapping of str to str
        By their names in lower case.
    root_path : str
        Where a reverse proxy shows the page; an address names an origin of this explorer.
    shown_at : str
        The host that a trusted proxy was asked for; empty if there is none.
    """
    if _is_from_elsewhere(method, headers, root_path, shown_at):
        return "another website may not ask this explorer; open it in a window of its own"
    return None


def is_browser(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a browser: no website can leave out all of these headers."""
    return (
        not headers.keys().isdisjoint({"origin", "referer", "sec-fetch-site", "sec-fetch-mode"})
        or headers.get("user-agent", "").startswith("Mozilla/")
    )  # fmt: skip


def is_proxy_header(name: str) -> bool:
    """Whether a header, by its name in lower case, counts only from a trusted proxy."""
    return _PROXY_HEADERS.fullmatch(name) is not None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks."""
    try:
        return any(ip_address(address) in network for network in networks)
    except ValueError:
        return False


def _is_from_elsewhere(
    method: str, headers: Mapping[str, str], root_path: str, shown_at: str
) -> bool:
    site, is_read = headers.get("sec-fetch-site"), method in ("GET", "HEAD")
    if site in ("same-origin", "none"):
        return False
    if site is not None:  # a link to the page is followed; nothing more, also from another port
        return not (is_read and headers.get("sec-fetch-mode") == "navigate")
    origin = headers.get("origin")
    if origin is None:  # a link to the page has a Referer, too
        origin = None if is_read else headers.get("referer")
    if origin is None:
        return False
    try:
        parts = urlsplit(origin)
        root = urlsplit(root_path)
    except ValueError:
        return True
    port = _DEFAULT_PORTS.get(parts.scheme)
    if port is None:
        return True
    asked = parts.netloc.lower().removesuffix(port)
    own = {headers["host"], shown_at} | ({root.netloc} if root.scheme == parts.scheme else set())
    return asked not in {name.lower().removesuffix(port) for name in own if name}


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
