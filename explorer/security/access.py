"""Who can access the explorer: settings of public pages and proxies, and the login.

A login has one username and password, sessions that expire, and a delay after failures.

`RouteAllowList` checks the session before it reads anything else of a request, so no other code
needs to know about logins.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from getpass import getpass
from hashlib import sha256
from html import escape
from ipaddress import ip_address, ip_network
from pathlib import Path
from string import Template
from typing import Annotated
from urllib.parse import quote

from starlette.requests import cookie_parser
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from tyro.conf import Suppress, UseAppendAction, arg

from sieve.explorer.errors import RefusedError
from sieve.explorer.security.request_checks import (
    ANY_HOST,
    LOGIN,
    LOGOUT,
    TOKEN_HEADER,
    Network,
    RequestInfo,
    is_browser,
    is_loopback,
)

PASSWORD = "SIEVE_PASSWORD"
_ORIGIN = re.compile(r"https?://([\w.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_ROOT_PATH = re.compile(rf"({_ORIGIN.pattern})?(/[\w.~-]+)*", re.ASCII)


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
    embed_in: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="ORIGIN")] = ()
    """With --public-safe: a website that may embed the page, such as https://example.org;
    repeatable. Notebooks on this machine always may."""
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
        for origin in self.embed_in:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "--embed-in must be an origin such as https://example.org, without a path; "
                    f"got {origin[:60]!r}"
                )
        if self.embed_in and not self.public:
            raise ValueError(
                "--embed-in needs --public-safe: another website could trick its visitors into "
                "clicks that change something"
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


SESSION_SECONDS = 12 * 3600.0
"""Time in seconds after which an unused session expires."""
MAX_SESSIONS = 1000
FREE_FAILURES = 3
"""Number of failed attempts from one network that cause no delay."""
MAX_DELAY = 60.0  # seconds
NO_CACHE = {"cache-control": "no-store"}
_MAX_ADDRESSES = 4096

_PAGE = Template((Path(__file__).parents[1] / "components" / "login.html").read_text("utf-8"))
_FIELDS = (
    '<label>Username <input name="username" autocomplete="username" required autofocus></label>'
    '<label>Password <input name="password" type="password" autocomplete="current-password" '
    "required></label>"
)


class Login:
    """Sessions of users who have logged in; `account` is None if no login is required.

    The port is part of the cookie's name, because browsers send a cookie to all ports of a host.
    `home` is the path at which the explorer is served.
    """

    def __init__(self, account: tuple[str, str] | None, port: int, home: str) -> None:
        self.account = account
        self._home = home
        self._cookie = f"sieve-session-{port}"
        self._secret = secrets.token_bytes(32)
        self._used: OrderedDict[str, float] = OrderedDict()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def session(self, request: RequestInfo) -> str:
        """Return the valid session of a request by its cookies; empty if there is none."""
        name = cookie_parser(request.headers.get("cookie", "")).get(self._cookie, "")
        now = time.monotonic()
        if now - self._used.get(name, -SESSION_SECONDS) >= SESSION_SECONDS:
            self._used.pop(name, None)
            return ""
        self._used[name] = now
        self._used.move_to_end(name)
        return name

    def token(self, session: str) -> str:
        """Return the CSRF token of a session."""
        return hmac.new(self._secret, session.encode(), sha256).hexdigest()

    def has_token(self, session: str, request: RequestInfo, form: str = "") -> bool:
        """Return whether a request has the token of a session, in a header or its form."""
        given = request.headers.get(TOKEN_HEADER, form)
        return hmac.compare_digest(self.token(session).encode(), given.encode())

    def require_login(self, request: RequestInfo) -> Response:
        """Return the login page for a request without a session; other routes are refused."""
        if request.path == "/":
            return self._page("Log in", LOGIN, _FIELDS, link=request.query, status=401)
        raise RefusedError(401, "log in first: send username and password by POST to /login")

    def log_in(self, request: RequestInfo, form: dict[str, str]) -> Response:
        """Serve the login page, or open a session for the username and password of its form.

        A browser is redirected to the page that it requested; the form has its query string.
        """
        if request.method != "POST":
            return self._page("Log in", LOGIN, _FIELDS)
        if is_browser(request.headers) and not self.has_token("", request, form.get("token", "")):
            raise RefusedError(403, "this login page is no longer valid; reload it")
        is_page, link = "text/html" in request.headers.get("accept", ""), form.get("link", "")
        group, headers = _group(request.client), {}
        _, until = self._failures.get(group, (0, 0.0))
        wait = until - time.monotonic()
        if wait > 0:
            status, message = 429, f"Too many attempts; try again in {wait:.0f} s"
            headers = {"retry-after": f"{wait:.0f}"}
        elif self._is_account(form.get("username", ""), form.get("password", "")):
            self._failures.pop(group, None)
            response = self._redirect(link) if is_page else JSONResponse({"success": True})
            response.set_cookie(
                self._cookie,
                self._open_session(),
                path=self._home or "/",
                httponly=True,
                samesite="lax",
                secure=request.is_secure,
            )
            return response
        else:
            self._count_failure(group)
            status, message = 400, "Wrong username or password"
        if is_page:
            content = f'<p role="alert">{escape(message)}</p>{_FIELDS}'
            return self._page("Log in", LOGIN, content, link=link, status=status, headers=headers)
        return PlainTextResponse(f"{message}\n", status, headers)

    def log_out(self, request: RequestInfo, form: dict[str, str]) -> Response:
        """Serve a page that asks to confirm, or close the session; other sessions stay open.

        The form has a token: a link from another site cannot log a user out.
        """
        session = self.session(request)
        if request.method != "POST":
            return self._page("Log out", LOGOUT, "<p>Other sessions stay open.</p>", session)
        if not self.has_token(session, request, form.get("token", "")):
            raise RefusedError(403, "this page is no longer valid; reload it")
        self._used.pop(session, None)
        response = self._redirect("")
        response.delete_cookie(self._cookie, path=self._home or "/")
        return response

    def _is_account(self, username: str, password: str) -> bool:
        assert self.account is not None
        name_matches = hmac.compare_digest(username.strip().encode(), self.account[0].encode())
        password_matches = hmac.compare_digest(password.encode(), self.account[1].encode())
        return name_matches and password_matches

    def _open_session(self) -> str:
        session = secrets.token_urlsafe(32)
        self._used[session] = time.monotonic()
        while len(self._used) > MAX_SESSIONS:
            self._used.popitem(last=False)
        return session

    def _count_failure(self, group: str) -> None:
        """Increase the delay of a group of addresses."""
        failures = self._failures.pop(group, (0, 0.0))[0] + 1
        delay = min(2.0 ** (failures - FREE_FAILURES), MAX_DELAY)
        until = time.monotonic() + (delay if failures >= FREE_FAILURES else 0)
        self._failures[group] = (failures, until)
        while len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def _redirect(self, link: str) -> Response:
        query = f"?{quote(link, safe='=&%+,:*.~-_')}" if link else ""
        return RedirectResponse(f"{self._home}/{query}", 303)

    def _page(
        self,
        title: str,
        path: str,
        content: str,
        session: str = "",
        link: str = "",
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Render a page whose form is sent to a path; `link` is the page to return to."""
        texts = {"action": escape(self._home + path), "link": escape(link), "content": content}
        text = _PAGE.substitute(texts, title=title, button=title, token=self.token(session))
        return HTMLResponse(text, status, (headers or {}) | NO_CACHE)


def _group(address: str) -> str:
    """Return the IPv4 address, or the /64 network of an IPv6 address, which one client can own."""
    try:
        network = ip_network(f"{address}/64", strict=False) if ":" in address else None
        return str(network or ip_address(address))
    except ValueError:
        return address[:64]
