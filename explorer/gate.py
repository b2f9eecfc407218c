"""The gate around the app: it lets through what the page needs, and answers all else in one line.

Gradio has routes of its own beside ours: some fetch other addresses, hand out files or read them.
The gate names those that the page and its API need, one by one, so a route of a later Gradio is
refused until someone has looked at it. Of the collection only thumbnails are handed out, by a short
address that tells no path of the machine. Answers forbid the browser to ask anywhere else.

For strangers (`--public-safe`) it is narrower: no upload, no file that was written here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse

from sieve.data_prep.thumbnails import read_thumbnail
from sieve.explorer import bodies
from sieve.explorer.uploads import MAX_BYTES
from sieve.explorer.websites import refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sieve.explorer.questions import Questions

THUMBNAILS, PLOTLY = "thumbnails/", "plotly.min.js"
NOT_SERVED = "is not served"
NOT_TO_STRANGERS = (
    "is not served: this explorer is open to the public, so it takes no files and changes nothing"
)

_API = "/gradio_api"
_READ = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|logout|login/?"
    r"|(static|assets|svelte)/.*"
    rf")?|{_API}/(info/?|openapi\.json|theme\.css|startup-events|login_check/?|app_id/?|user/?"
    r"|heartbeat/[^/]+|queue/(data|status)|call/[^/]+/[^/]+)"
)
_ASKED = re.compile(rf"/login/?|{_API}/(component_server/?|queue/join|call(/v2)?/[^/]+/?)")
_UPLOAD = re.compile(rf"{_API}/upload/?")
_READ_BY_FRIENDS = re.compile(rf"{_API}/upload_progress")
_ASKED_BY_FRIENDS = re.compile(rf"{_API}/(upload|cancel|reset)/?")
_MCP = re.compile(rf"{_API}/mcp(/|/schema|/sse|/messages/?)?")
_THUMBNAIL = re.compile(r"/thumbnails/(([0-9a-f]{2})/\2[0-9a-f]{14}\.webp)")
_FILE = f"{_API}/file="
_CROOKED = re.compile(r"(^|/)\.\.?(/|$)|//|\\|\0")

# Gradio's page has scripts and styles in its text, and compiles ours.
_PAGE = (
    "default-src {own}; script-src {own} 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src {own} 'unsafe-inline'; img-src {own} data: blob:; font-src {own} data:; "
    "connect-src {own} data: blob:; worker-src {own} blob:; frame-src {own}; object-src 'none'; "
    "base-uri {own}; form-action {own}"
)
# A notebook on this machine may show the page; a website that hides it under its own buttons not.
_FRAMED_BY = "; frame-ancestors {own} http://localhost:* http://127.0.0.1:*"


@dataclass(frozen=True)
class Rules:
    """What the gate lets through."""

    public: bool = False
    """Strangers may ask: no upload, no file but thumbnails."""
    mcp: bool = False
    """Whether the route of the Model Context Protocol is open."""
    root_path: str = ""
    """Where a reverse proxy shows the page."""
    local_only: bool = False
    """Whether names that are not this machine's are refused: see `websites.refusal`."""


class Gate:
    """Lets through what the page and its API need, and answers 403 in one line to all else.

    Parameters
    ----------
    app : ASGI application
    rules : Rules
    questions : Questions
        What the app can be asked.
    thumbnails, plotly : Path or None
        The static files of the page, reached under `THUMBNAILS` and `PLOTLY`: where they lie on
        this machine is not told.
    made : Path
        Folder of the files that the API hands over.
    """

    def __init__(
        self,
        app: ASGIApp,
        rules: Rules,
        questions: Questions,
        thumbnails: Path | None,
        plotly: Path,
        made: Path,
    ) -> None:
        self._app = app
        self._questions = questions
        self._rules = rules
        self._thumbnails = "" if thumbnails is None else thumbnails.as_posix()
        self._plotly = plotly.as_posix()
        self._made = PurePath(made)
        self._headers = _headers(rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, self._guarded(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        refused = self._refusal(scope["method"], path, headers)
        if refused is not None:
            await refused(scope, receive, send)
            return
        try:
            if scope["method"] == "POST":
                receive, fault = await self._read(path, bodies.in_time(receive))
            else:
                fault = await self._thumbnail_refusal(path)
            if fault is None:
                await self._app(self._shown(scope, path), receive, send)
            else:
                await _said(*fault)(scope, receive, send)
        except bodies.TooSlowError:
            answer = _said(408, f"the body took more than {bodies.SECONDS:.0f} s")
            answer.headers["connection"] = "close"
            await answer(scope, receive, send)

    async def _read(self, path: str, receive: Receive) -> tuple[Receive, bodies.Refusal | None]:
        """Read a body and look at it; it can then be received again."""
        if _UPLOAD.fullmatch(path):  # too large for the memory of many at once
            return receive, None
        body = await bodies.read_body(receive)
        fault = None
        if not _takes_form(path):
            route = path.removeprefix(_API).strip("/")
            fault = await bodies.json_refusal(body, partial(self._questions.refusal, route))
        return bodies.replayed(body, receive), fault

    async def _thumbnail_refusal(self, path: str) -> bodies.Refusal | None:
        """Tell why a thumbnail is not shown: of a damaged one a browser would make any picture."""
        found = _THUMBNAIL.fullmatch(path)
        if not found or not self._thumbnails:
            return None
        collection, item_id = Path(self._thumbnails).parent, PurePath(path).stem
        fault = await run_in_threadpool(_thumbnail_fault, collection, item_id)
        return (404, f"{path} {fault}") if fault else None

    @property
    def _not_served(self) -> str:
        return NOT_TO_STRANGERS if self._rules.public else NOT_SERVED

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> PlainTextResponse | None:
        rules = self._rules
        line = refusal(method, headers, rules.root_path, local_only=rules.local_only)
        if line is not None:
            return _said(403, line)
        if not self._is_open(method, path):
            return _said(403, f"{method} {path[:80]} {self._not_served}")
        if method != "POST":
            return None
        most = bodies.MAX_BODY_BYTES if rules.public else bodies.MAX_IMPORT_BYTES
        if _takes_form(path):
            most = bodies.FORM_BYTES + (MAX_BYTES if _UPLOAD.fullmatch(path) else 0)
        fault = bodies.body_refusal(headers, most, form=_takes_form(path))
        return None if fault is None else _said(*fault)

    def _is_open(self, method: str, path: str) -> bool:
        if method == "OPTIONS" or (self._rules.mcp and _MCP.fullmatch(path)):
            return True
        read, asked = [_READ], [_ASKED]
        if not self._rules.public:
            read, asked = [_READ, _READ_BY_FRIENDS], [_ASKED, _ASKED_BY_FRIENDS]
        if method in ("GET", "HEAD"):
            straight = not _CROOKED.search(path)
            return bool(
                (straight and any(route.fullmatch(path) for route in read))
                or self._file(path)
                or self._is_made(path)
            )
        return method == "POST" and any(route.fullmatch(path) for route in asked)

    def _is_made(self, path: str) -> bool:
        """Whether an address is that of a file which the API hands over."""
        if self._rules.public or not path.startswith(_FILE):
            return False
        file = PurePath(path.removeprefix(_FILE))
        return ".." not in file.parts and self._made in file.parents

    def _file(self, path: str) -> str:
        """Find the static file that a short address shows, if it is one."""
        if path == f"/{PLOTLY}":
            return self._plotly
        found = _THUMBNAIL.fullmatch(path)
        return f"{self._thumbnails}/{found[1]}" if found and self._thumbnails else ""

    def _shown(self, scope: Scope, path: str) -> Scope:
        """Say to Gradio which file a short address shows, and to give it whole."""
        file = self._file(path)
        if not file and not path.startswith(_FILE):
            return scope
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"range"]
        place = scope.get("root_path", "") + (f"{_FILE}{file}" if file else path)
        return {**scope, "headers": headers, "path": place}

    def _guarded(self, send: Send) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        return guarded


def _headers(rules: Rules) -> dict[str, str]:
    """Headers of every answer."""
    root = urlsplit(rules.root_path)
    own = f"'self' {root.scheme}://{root.netloc}" if root.netloc else "'self'"
    policy = _PAGE if rules.public else _PAGE + _FRAMED_BY
    return {
        "content-security-policy": policy.format(own=own),
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }


def _path(scope: Scope) -> str:
    """Path below the root path, whether or not the proxy has taken that off."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _thumbnail_fault(collection: Path, item_id: str) -> str:
    """Tell why a thumbnail is not shown, in a few words; nothing where it is whole."""
    try:
        read_thumbnail(collection, item_id)
    except (ValueError, OSError) as error:
        return str(error) if isinstance(error, ValueError) else "cannot be read"
    return ""


def _takes_form(path: str) -> bool:
    return path.startswith("/login") or bool(_UPLOAD.fullmatch(path))


def _said(status: int, line: str) -> PlainTextResponse:
    return PlainTextResponse(f"{line}\n", status)
