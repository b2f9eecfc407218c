"""Who may reach the explorer, by which way, and what is there for strangers.

`sieve explore --public-safe` serves a page that anyone on the web may open. What could read a file
of this machine, write one or train is then not registered: `build_app`, the desk and the API leave
those handlers out. Gradio has routes of its own beside them: one takes uploads, one fetches other
addresses, one hands out files. The gate here lets only those routes through that the page needs, so
a route of a later Gradio is refused until someone has looked at it. Any question could carry a file
by its address, which Gradio would fetch and keep: such questions are refused as well.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1 << 20
"""Of a question: far more than any that the page asks."""

PASSWORD = "SIEVE_PASSWORD"
THUMBNAILS, PLOTLY = "thumbnails/", "plotly.min.js"
NOT_SERVED = (
    "is not served: this explorer is open to the public, so it takes no files and changes nothing"
)

_API = "/gradio_api"
_READ = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|logout|login/?"
    r"|(static|assets|svelte)/.*"
    rf")?|{_API}/(info/?|openapi\.json|theme\.css|startup-events|login_check/?|app_id/?|user/?"
    r"|heartbeat/[^/]+|queue/(data|status)|call/[^/]+/[^/]+)"
)
_ASKED = re.compile(
    rf"/login/?|{_API}/(component_server/?|queue/join|(call(/v2)?|run|api)/[^/]+/?)"
)
_MCP = re.compile(rf"{_API}/mcp(/|/schema|/sse|/messages/?)?")
_THUMBNAIL = re.compile(r"/thumbnails/([0-9a-f]{2}/[0-9a-f]{16}\.webp)")


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

    def __post_init__(self) -> None:
        check_root_path(self.root_path)
        if self.auth is not None and not all(self.auth):
            raise ValueError("a name and a password are needed; neither may be empty")
        if self.auth and self.mcp:
            raise ValueError(
                "--mcp cannot ask for a password: leave --auth out, or let a reverse proxy ask"
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


class Gate:
    """Lets strangers reach what a public page needs, and answers 403 in one line to all else.

    Parameters
    ----------
    app : ASGI application
    thumbnails, plotly : Path
        The static files of the page, reached under `THUMBNAILS` and `PLOTLY`: where they lie on
        this machine is not told.
    mcp : bool
        Whether the route of the Model Context Protocol is open.
    """

    def __init__(self, app: ASGIApp, thumbnails: Path, plotly: Path, mcp: bool) -> None:
        self._app = app
        self._thumbnails, self._plotly = thumbnails.as_posix(), plotly.as_posix()
        self._mcp = mcp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            path = _path(scope)
            refusal = self._refusal(scope, path)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            if scope["method"] == "POST" and not path.startswith("/login"):
                body = await _read_body(receive)
                if _names_file(body):
                    await _said(403, f"a file in {path[:80]} {NOT_SERVED}")(scope, receive, send)
                    return
                receive = _replayed(body, receive)
            file = self._file(path)
            if file:
                path = f"{_API}/file={file}"
                scope = {**scope, "path": scope.get("root_path", "") + path}
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, path: str) -> PlainTextResponse | None:
        method = scope["method"]
        is_open = method == "OPTIONS" or (self._mcp and bool(_MCP.fullmatch(path)))
        if method in ("GET", "HEAD"):
            is_open |= bool(_READ.fullmatch(path) or self._file(path))
        elif method == "POST":
            is_open |= bool(_ASKED.fullmatch(path))
        if not is_open:
            return _said(403, f"{method} {path[:80]} {NOT_SERVED}")
        return _body_refusal(scope, path) if method == "POST" else None

    def _file(self, path: str) -> str:
        """Find the static file that a short address shows, if it is one."""
        if path == f"/{PLOTLY}":
            return self._plotly
        found = _THUMBNAIL.fullmatch(path)
        return f"{self._thumbnails}/{found[1]}" if found else ""


def _path(scope: Scope) -> str:
    """Path below the root path, whether or not the proxy has taken that off."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _body_refusal(scope: Scope, path: str) -> PlainTextResponse | None:
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    length = headers.get(b"content-length", "")
    kind = headers.get(b"content-type", "").split(";")[0].strip().lower()
    if not (length.isascii() and length.isdigit()):
        return _said(411, "say how long the body is, by Content-Length")
    if int(length) > MAX_BODY_BYTES:
        return _said(
            413, f"the body has {int(length):,} bytes; at most {MAX_BODY_BYTES:,} are read"
        )
    forms = ("multipart/form-data", "application/x-www-form-urlencoded")
    if kind not in (forms if path.startswith("/login") else ("application/json",)):
        return _said(415, "the body must be JSON")
    return None


async def _read_body(receive: Receive) -> bytes:
    """Read a body whole; it is no longer than it said, which was little."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body once more, and after it whatever follows."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _names_file(body: bytes) -> bool:
    """Whether JSON has what Gradio takes for a file: it would fetch its address and keep it."""
    try:
        left = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False  # for Gradio to refuse
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value and "meta" in value:
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


def _said(status: int, line: str) -> PlainTextResponse:
    return PlainTextResponse(f"{line}\n", status)
