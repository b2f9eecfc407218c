"""Access settings of the explorer: authentication, public pages and reverse proxies."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from getpass import getpass
from ipaddress import ip_network
from typing import Annotated

from tyro.conf import Suppress, UseAppendAction, arg

from sieve.explorer.security.origins import ANY_HOST, Network, is_loopback

PASSWORD = "SIEVE_PASSWORD"
_ROOT_PATH = re.compile(
    r"(https?://([\w.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?)?(/[\w.~-]+)*", re.ASCII
)


@dataclass(frozen=True)
class Access:
    """Who can access the explorer, and how."""

    # The fields are options of `sieve explore`.
    public: Annotated[bool, arg(name="public-safe")] = False
    """Make the page safe for the public: disable training, uploads and edits, and serve no image
    files other than thumbnails."""
    auth: Suppress[tuple[str, str] | None] = field(default=None, repr=False)
    """Username and password that are required to log in."""
    open_to_network: bool = False
    """Give everyone who can reach --host full access, without a password."""
    allow_hosts: Annotated[
        UseAppendAction[tuple[str, ...]], arg(name="allow-host", metavar="NAME")
    ] = ()
    """Another host name at which browsers may open the page, besides this machine's own;
    repeatable, * for any."""
    root_path: Annotated[str, arg(metavar="PATH")] = ""
    """Path or URL at which a reverse proxy serves the page: /sieve, https://example.org/sieve."""
    trusted_proxies: Annotated[
        UseAppendAction[tuple[str, ...]], arg(name="trusted-proxy", metavar="ADDRESS")
    ] = ()
    """Address or network of a reverse proxy whose X-Forwarded headers are trusted; repeatable."""
    mcp: bool = False
    """Also serve search over the Model Context Protocol, at /gradio_api/mcp/."""

    def __post_init__(self) -> None:
        if not _ROOT_PATH.fullmatch(self.root_path):
            raise ValueError(
                "--root-path must be a path such as /sieve or a URL such as "
                "https://example.org/sieve, without a trailing slash; "
                f"got {self.root_path[:60]!r}"
            )
        for name in self.allow_hosts:
            if name != ANY_HOST and not re.fullmatch(r"[\w.-]+", name, re.ASCII):
                raise ValueError(
                    "--allow-host must be a name such as sieve.example.org, without scheme or "
                    f"port, or * for any; got {name[:60]!r}"
                )
        if self.trusted_proxies and not self.root_path:
            raise ValueError("--trusted-proxy needs --root-path, the path behind the proxy")
        _ = self.proxy_networks
        if self.auth is not None and not all(self.auth):
            raise ValueError("username and password must not be empty")
        if self.auth and self.mcp:
            raise ValueError("--mcp does not support --auth; let a reverse proxy authenticate")

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """Trusted proxies as networks."""
        try:
            return tuple(ip_network(proxy, strict=False) for proxy in self.trusted_proxies)
        except ValueError as error:
            raise ValueError(
                "--trusted-proxy must be an address such as 127.0.0.1 or a network such as "
                f"10.0.0.0/8: {error}"
            ) from None

    def check_host(self, host: str) -> None:
        """Raise a ValueError if listening on a host would give the whole network full access."""
        if is_loopback(host) or self.public or self.auth or self.open_to_network:
            return
        raise ValueError(
            f"--host {host} lets everyone in the network search, train and edit annotations: add "
            "--auth NAME (a password), --public-safe (search only) or --open-to-network"
        )


def ask_password(name: str) -> str:
    """Return the password of a user from `$SIEVE_PASSWORD`, or ask for it in the terminal.

    Raises a ValueError if the name contains a password, or there is no terminal to ask in.
    """
    if ":" in name:
        raise ValueError(
            "--auth takes only a name; set the password in $SIEVE_PASSWORD or enter it when asked, "
            "because other users can read the command line"
        )
    password = os.environ.get(PASSWORD, "")
    if not password and sys.stdin.isatty():
        password = getpass(f"Password for {name}: ")
    if not password:
        raise ValueError(f"--auth needs a password: set ${PASSWORD}, or run Sieve in a terminal")
    return password
