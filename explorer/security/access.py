"""Access to the explorer: authentication, public pages and reverse proxies.

`sieve explore --public-safe` serves a page that anyone on the web may open. What could read a file
of this machine, write one or train is then not registered: `build_app`, the desk and the API leave
those handlers out. `sieve.explorer.security.middleware` checks every request, in either case.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from getpass import getpass
from ipaddress import ip_network
from urllib.parse import urlsplit

from sieve.explorer.security.origins import ANY_HOST, Network, is_loopback

PASSWORD = "SIEVE_PASSWORD"


@dataclass(frozen=True)
class Access:
    """How the explorer is reached."""

    public: bool = False
    """Strangers may: no training, no uploads, no editing, no file but thumbnails."""
    root_path: str = ""
    """Where a reverse proxy shows it: a path such as /sieve, or a whole address."""
    auth: tuple[str, str] | None = field(default=None, repr=False)
    """Name and password that everyone has to give."""
    mcp: bool = False
    """Whether programs may search by the Model Context Protocol."""
    allow_hosts: tuple[str, ...] = ()
    """Names, besides this machine's own, that the Host header may have; `*` for any."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of reverse proxies whose X-Forwarded headers count."""
    open_to_network: bool = False
    """Everyone who reaches the port may do everything, without a password."""

    def __post_init__(self) -> None:
        check_root_path(self.root_path)
        for name in self.allow_hosts:
            if name != ANY_HOST and not re.fullmatch(r"[\w.-]+", name, re.ASCII):
                raise ValueError(
                    "--allow-host is a name as sieve.example.org, without a scheme or a port, "
                    f"or * for any; got {name[:60]!r}"
                )
        if self.trusted_proxies and not self.root_path:
            raise ValueError(
                "--trusted-proxy needs --root-path: where does the proxy show the page?"
            )
        _ = self.proxy_networks
        if self.auth is not None and not all(self.auth):
            raise ValueError("a name and a password are needed; neither may be empty")
        if self.auth and self.mcp:
            raise ValueError(
                "--mcp cannot ask for a password: leave --auth out, or let a reverse proxy ask"
            )

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The trusted proxies as networks; ValueError in one line if one cannot be read."""
        try:
            return tuple(ip_network(proxy, strict=False) for proxy in self.trusted_proxies)
        except ValueError as error:
            raise ValueError(
                f"--trusted-proxy is an address as 127.0.0.1 or a network as 10.0.0.0/8: {error}"
            ) from None

    def check_host(self, host: str) -> None:
        """Raise a ValueError in one line if listening to a host lets strangers do everything."""
        if is_loopback(host) or self.public or self.auth or self.open_to_network:
            return
        raise ValueError(
            f"--host {host} lets everyone in the network search, train and change notes here: add "
            "--auth NAME (a password), --public-safe (searching only) or --open-to-network"
        )


def check_root_path(root_path: str) -> None:
    """Raise a ValueError in one line unless it is empty, a path or an address of http."""
    try:
        parts = urlsplit(root_path)
    except ValueError:
        parts = urlsplit("no path")
    is_path = (
        re.fullmatch(r"(/[\w.~-]+)*", parts.path, re.ASCII) and not parts.query + parts.fragment
    )
    is_address = parts.scheme in ("http", "https") and bool(parts.netloc)
    if not is_path or (bool(parts.scheme + parts.netloc) and not is_address):
        raise ValueError(
            "--root-path is a path as /sieve, or an address as https://example.org/sieve, "
            f"without a slash at its end; got {root_path[:60]!r}"
        )


def ask_password(name: str) -> str:
    """Take a password from `$SIEVE_PASSWORD`, else ask for it on the terminal.

    Parameters
    ----------
    name : str
        Of the person.

    Raises
    ------
    ValueError
        In one line, where the name holds a password already, or nobody can be asked.
    """
    if ":" in name:
        raise ValueError(
            "--auth takes a name alone; the password is asked for, or stands in $SIEVE_PASSWORD: "
            "on the command line others could read it"
        )
    password = os.environ.get(PASSWORD, "")
    if not password and sys.stdin.isatty():
        password = getpass(f"Password of {name}: ")
    if not password:
        raise ValueError(f"--auth needs a password: set ${PASSWORD}, or run it on a terminal")
    return password
