"""Which websites may speak to an explorer through somebody's browser: its own page, and no other.

Any website can have its visitors' browsers ask an address on their own machine or network. Gradio
answers that: it takes JSON under any content type, so a page elsewhere could start a training or
change notes here; and where a website lets its own name lead to 127.0.0.1 (DNS rebinding), it reads
the answers as well. A browser tells which site asks, which no script can change; programs that are
no browsers tell nothing of it and are answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def refusal(
    method: str, headers: Mapping[str, str], root_path: str, *, local_only: bool
) -> str | None:
    """Tell in one line why a request is not answered; None where it may be.

    Parameters
    ----------
    method : str
    headers : mapping of str to str
        By their names in lower case.
    root_path : str
        Where a reverse proxy shows the page; an address names a host that is this explorer's too.
    local_only : bool
        Whether only this machine's own names are: nobody is asked for a password, and the explorer
        listens to this machine alone.
    """
    host = headers.get("host", "")
    if local_only and host and not _is_local(_name(host), _name(urlsplit(root_path).netloc)):
        return (
            f"this explorer is not {host[:80]}: open it by its address on this machine, or start "
            "it with --root-path and the address at which a proxy shows it"
        )
    if _from_elsewhere(method, headers, root_path):
        return "another website may not ask this explorer; open it in a window of its own"
    return None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_elsewhere(method: str, headers: Mapping[str, str], root_path: str) -> bool:
    site = headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return False
    if site is not None:  # a link to the page is followed; nothing more, also from another port
        return not (method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate")
    origin = headers.get("origin")
    if origin is None:
        return False
    parts = urlsplit(origin)
    port = _DEFAULT_PORTS.get(parts.scheme, "")
    own = {headers.get("host"), headers.get("x-forwarded-host"), urlsplit(root_path).netloc}
    known = {name.lower().removesuffix(port) for name in own if name}
    return parts.netloc.lower().removesuffix(port) not in known


def _is_local(name: str, shown_at: str) -> bool:
    """Whether a name cannot be led here by whoever owns it: an address, or this machine's own."""
    if name == "localhost" or name.endswith(".localhost") or (name and name == shown_at):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """Host without its port, in lower case; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
