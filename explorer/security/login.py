"""Login by one name and password: sessions that expire, and a delay after failures.

Login is asked for by the gate, before anything else of a request is read, so nothing behind it has
to know of it.
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
"""A session ends when it was not used for so long."""
MAX_SESSIONS = 1000
FREE_FAILURES = 3
"""Wrong passwords from one address before the next one has to wait."""
MAX_DELAY = 60.0
_MAX_ADDRESSES = 4096

_PAGE = Template((Path(__file__).parents[1] / "components" / "login.html").read_text("utf-8"))
_FIELDS = (
    '<label>Username <input name="username" autocomplete="username" required autofocus></label>'
    '<label>Password <input name="password" type="password" autocomplete="current-password" '
    "required></label>"
)


class Login:
    """Sessions of those who gave the name and the password.

    Parameters
    ----------
    account : tuple of str or None
        Name and password; None if nobody is asked.
    port : int
        Of the server: browsers send a cookie to all ports of a host, so its name has the port.
    """

    def __init__(self, account: tuple[str, str] | None, port: int) -> None:
        self.account = account
        self.cookie = f"sieve-session-{port}"
        self._secret = secrets.token_bytes(32)
        self._used: OrderedDict[str, float] = OrderedDict()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def session(self, cookies: dict[str, str]) -> str:
        """Return the open session that a request belongs to; empty if there is none."""
        name, now = cookies.get(self.cookie, ""), time.monotonic()
        if now - self._used.get(name, -SESSION_SECONDS) >= SESSION_SECONDS:
            self._used.pop(name, None)
            return ""
        self._used[name] = now
        self._used.move_to_end(name)
        return name

    def token(self, session: str) -> str:
        """Return the token that a browser's POST requests of a session carry."""
        return hmac.new(self._secret, session.encode(), sha256).hexdigest()

    def has_token(self, session: str, given: str) -> bool:
        """Whether a request carries the token of its session."""
        return hmac.compare_digest(self.token(session).encode(), given.encode())

    def wait(self, address: str) -> float:
        """Return how many seconds an address has to wait before its next attempt."""
        _, until = self._failures.get(_group(address), (0, 0.0))
        return max(until - time.monotonic(), 0.0)

    def open_session(self, address: str, username: str, password: str) -> str:
        """Open a session; empty, and a longer delay for the address, if they are wrong."""
        assert self.account is not None
        name_fits = hmac.compare_digest(username.strip().encode(), self.account[0].encode())
        word_fits = hmac.compare_digest(password.encode(), self.account[1].encode())
        group = _group(address)
        if not (name_fits and word_fits):
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
        """End one session, and no other of the same person."""
        self._used.pop(session, None)

    def login_page(self, action: str, link: str, fault: str = "") -> str:
        """Write the page that asks for name and password.

        Parameters
        ----------
        action : str
            Address of the form.
        link : str
            Query string of the page that was asked for, to return to.
        fault : str
            What was wrong with the last attempt.
        """
        said = f'<p role="alert">{escape(fault)}</p>' if fault else ""
        return self._page("Login", action, said + _FIELDS, "Login", self.token(""), link)

    def logout_page(self, action: str, session: str) -> str:
        """Write the page that asks whether to log out; a link from another site does not do it."""
        asked = "<p>Other sessions stay open.</p>"
        return self._page("Log out", action, asked, "Log out", self.token(session))

    @staticmethod
    def _page(
        title: str, action: str, content: str, button: str, token: str, link: str = ""
    ) -> str:
        return _PAGE.substitute(
            title=title,
            action=escape(action),
            content=content,
            button=button,
            token=token,
            link=escape(link),
        )


def _group(address: str) -> str:
    """Return the network that one person can take addresses from: IPv6 gives out whole networks."""
    try:
        network = ip_network(f"{address}/64", strict=False) if ":" in address else None
        return str(network or ip_address(address))
    except ValueError:
        return address[:64]
