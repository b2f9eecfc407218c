"""Login with one username and password: sessions that expire, and a delay after failures.

`RouteAllowList` checks the session before it reads anything else of a request, so no other code
needs to know about logins.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from hashlib import sha256
from html import escape
from ipaddress import ip_address, ip_network
from pathlib import Path
from string import Template

SESSION_SECONDS = 12 * 3600.0
"""Time in seconds after which an unused session expires."""
MAX_SESSIONS = 1000
FREE_FAILURES = 3
"""Number of failed attempts from one network that cause no delay."""
MAX_DELAY = 60.0  # seconds
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
    """

    def __init__(self, account: tuple[str, str] | None, port: int) -> None:
        self.account = account
        self.cookie = f"sieve-session-{port}"
        self._secret = secrets.token_bytes(32)
        self._used: OrderedDict[str, float] = OrderedDict()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def session(self, cookies: dict[str, str]) -> str:
        """Return the valid session of a request by its cookies; empty if there is none."""
        name, now = cookies.get(self.cookie, ""), time.monotonic()
        if now - self._used.get(name, -SESSION_SECONDS) >= SESSION_SECONDS:
            self._used.pop(name, None)
            return ""
        self._used[name] = now
        self._used.move_to_end(name)
        return name

    def token(self, session: str) -> str:
        """Return the CSRF token of a session."""
        return hmac.new(self._secret, session.encode(), sha256).hexdigest()

    def has_token(self, session: str, given: str) -> bool:
        """Return whether a token is that of a session."""
        return hmac.compare_digest(self.token(session).encode(), given.encode())

    def wait(self, address: str) -> float:
        """Return the time in seconds until an address may try again."""
        _, until = self._failures.get(_group(address), (0, 0.0))
        return max(until - time.monotonic(), 0.0)

    def open_session(self, address: str, username: str, password: str) -> str:
        """Open a session; return an empty string and increase the delay if the login fails."""
        assert self.account is not None
        name_matches = hmac.compare_digest(username.strip().encode(), self.account[0].encode())
        password_matches = hmac.compare_digest(password.encode(), self.account[1].encode())
        group = _group(address)
        if not (name_matches and password_matches):
            failures = self._failures.pop(group, (0, 0.0))[0] + 1
            delay = min(2.0 ** (failures - FREE_FAILURES), MAX_DELAY)
            until = time.monotonic() + (delay if failures >= FREE_FAILURES else 0)
            self._failures[group] = (failures, until)
            while len(self._failures) > _MAX_ADDRESSES:
                self._failures.popitem(last=False)
            return ""
        self._failures.pop(group, None)
        session = secrets.token_urlsafe(32)
        self._used[session] = time.monotonic()
        while len(self._used) > MAX_SESSIONS:
            self._used.popitem(last=False)
        return session

    def close_session(self, session: str) -> None:
        """Close one session; other sessions of the same user stay open."""
        self._used.pop(session, None)

    def login_page(self, action: str, link: str, message: str = "") -> str:
        """Render the login page.

        The form is sent to `action`; `link` is the query string of the page to return to, and
        `message` the reason why the last attempt failed.
        """
        alert = f'<p role="alert">{escape(message)}</p>' if message else ""
        return _page("Log in", action, alert + _FIELDS, self.token(""), link)

    def logout_page(self, action: str, session: str) -> str:
        """Render the page that asks to confirm; a link from another site cannot log a user out."""
        note = "<p>Other sessions stay open.</p>"
        return _page("Log out", action, note, self.token(session))


def _page(title: str, action: str, content: str, token: str, link: str = "") -> str:
    texts = {"action": escape(action), "link": escape(link)}
    return _PAGE.substitute(texts, title=title, content=content, button=title, token=token)


def _group(address: str) -> str:
    """Return the IPv4 address, or the /64 network of an IPv6 address, which one client can own."""
    try:
        network = ip_network(f"{address}/64", strict=False) if ":" in address else None
        return str(network or ip_address(address))
    except ValueError:
        return address[:64]
