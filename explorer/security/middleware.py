"""The gate around the app: the first to see a request and the last to see an answer.

Gradio has routes of its own beside ours: some fetch other addresses, hand out files or read them.
The gate lists those that the page and its API need, so a route of a later Gradio is refused until
someone has looked at it. It also stands outside of Gradio's CORS layer, which would answer other
websites. Of the collection only thumbnails are handed out, by a short address that shows no path of
this machine. Answers forbid the browser to send requests anywhere else.

With `--public-safe` it is narrower: no upload, no file that was written here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)

from sieve.data_prep.thumbnails import read_thumbnail
from sieve.explorer.errors import INTERNAL_ERROR, one_line
from sieve.explorer.security import request_body as bodies
from sieve.explorer.security.login import Login
from sieve.explorer.security.origins import (
    TOKEN_HEADER,
    Network,
    host_refusal,
    is_browser,
    is_in,
    is_proxy_header,
    origin_refusal,
)
from sieve.explorer.uploads import MAX_BYTES, has_room

if TYPE_CHECKING:
    from gradio.block_function import BlockFunction
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sieve.explorer.concurrency import UnfetchedResponses

log = logging.getLogger(__name__)

THUMBNAILS, PLOTLY = "thumbnails/", "plotly.min.js"
NOT_SERVED = "is not served"
NOT_TO_STRANGERS = (
    "is not served: this explorer is open to the public, so it takes no files and changes nothing"
)

_API = "/gradio_api"
_STARTUP = f"{_API}/startup-events"
_TOKEN, _LOGIN, _LOGOUT = "/csrf-token", "/login", "/logout"
_READ = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|manifest\.json|(static|assets|svelte)/.*)?"
    rf"|{_API}/(info/?|openapi\.json|theme\.css|app_id/?|heartbeat/[\w-]{{1,64}}"
    r"|queue/data|call/[^/]+/[^/]+)"
)
_ASKED = re.compile(rf"{_API}/(component_server/?|queue/join|call(/v2)?/[^/]+/?)")
_UPLOAD = re.compile(rf"{_API}/upload/?")
_READ_BY_FRIENDS = re.compile(rf"{_API}/upload_progress")
_ASKED_BY_FRIENDS = re.compile(rf"{_API}/(upload/?|cancel)")
_MCP = re.compile(rf"{_API}/mcp(/|/schema|/sse|/messages/?)?")
_COMPONENT = re.compile(rf"{_API}/component_server/?")
_CALL = re.compile(rf"{_API}/call(/v2)?/([^/]+)/?")
_EVENT = re.compile(rf"{_API}/call/[^/]+/([^/]+)")
_THUMBNAIL = re.compile(r"/thumbnails/(([0-9a-f]{2})/(\2[0-9a-f]{14})\.webp)")
_FILE = f"{_API}/file="
_CROOKED = re.compile(r"(^|/)\.\.?(/|$)|//|\\|\0")
_BEFORE_LOGIN = {_TOKEN, _LOGIN, "/favicon.ico", _STARTUP}
_MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError)

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
    hosts: frozenset[str] = frozenset({"localhost"})
    """Names that the Host header may have: see `websites.host_names`."""
    proxies: tuple[Network, ...] = ()
    """Addresses of the reverse proxies whose X-Forwarded headers are trusted."""


@dataclass(frozen=True)
class _Asked:
    """One request, as the gate reads it."""

    method: str
    path: str
    """Below the root path."""
    query: str
    headers: Mapping[str, str]
    client: str
    """Address of the browser or program."""
    is_secure: bool
    session: str
    """The open session it belongs to; empty if there is none."""


class RouteAllowList:
    """Lets through what the page and its API need, and answers everything else in one line.

    Parameters
    ----------
    app : ASGI application
        All of Gradio, its own layers included.
    rules : Rules
    login : Login
    functions : mapping of int to BlockFunction
        Endpoints of the app.
    unfetched : UnfetchedResponses
    thumbnails, plotly : Path or None
        The static files of the page, served as `THUMBNAILS` and `PLOTLY`.
    made : Path
        Folder of the files that the API hands over.
    """

    def __init__(
        self,
        app: ASGIApp,
        rules: Rules,
        login: Login,
        functions: Mapping[int, BlockFunction],
        unfetched: UnfetchedResponses,
        thumbnails: Path | None,
        plotly: Path,
        made: Path,
    ) -> None:
        self.app = app
        self.is_started = False
        """Set when Gradio has asked itself to start; the route for that is closed then."""
        self._rules = rules
        self._login = login
        self._functions = functions
        self.unfetched = unfetched
        self._thumbnails = thumbnails
        self._plotly = plotly
        self._made = made
        self._not_uploads = frozenset({made.name, "vibe_edit_history"})
        self._headers = _headers(rules)
        self._home = urlsplit(rules.root_path).path
        self._import = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_answered = False

        async def guarded(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                headers.update(self._headers)
                if message["status"] < 400:  # no website may show it as a part of itself
                    headers["cross-origin-resource-policy"] = "same-origin"
            await send(message)

        try:
            answer = await self._answer(scope, receive, guarded)
        except Exception as error:  # in one line: Starlette raises also what it has answered
            path = _printable(scope["path"][:80])
            log.info("%s %s: %s", scope["method"], path, one_line(error))
            answer = None if is_answered else _answer_to(error)
        if answer is not None:
            await answer(scope, receive, guarded)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Answer a request; None if Gradio has."""
        asked, scope = self._read(scope)
        if refused := self._refusal(asked):
            return refused
        most = self._most(asked)
        receive = bodies.limited(receive, most)
        if answer := await self._own_answer(asked, scope, receive):
            return answer
        if _UPLOAD.fullmatch(asked.path):  # too large for the memory of many at once
            if not await run_in_threadpool(has_room, self._made.parent, self._not_uploads):
                return _line(429, "too many uploaded images wait to be read; try again later")
            await self.app(scope, receive, send)
            return None
        if asked.method != "POST":
            await self.app(self._reading(scope, asked.path), receive, send)
            return None
        return await self._call(asked, scope, receive, send)

    def _read(self, scope: Scope) -> tuple[_Asked, Scope]:
        """Read a request, and take away the headers that only a trusted proxy may send."""
        rules = self._rules
        peer = (scope.get("client") or ("", 0))[0]
        is_proxied = bool(rules.root_path) and is_in(peer, rules.proxies)
        kept, headers = [], {}
        for name, value in scope["headers"]:
            lower = name.decode("latin-1").lower()
            if is_proxy_header(lower) and not (is_proxied and lower in _FORWARDED):
                continue
            kept.append((name, value))
            # Of two values none is chosen: both together are no valid host, origin or length.
            joined = [headers[lower]] if lower in headers else []
            headers[lower] = "; ".join([*joined, value.decode("latin-1")])
        client = headers.get("x-forwarded-for", "").rsplit(",")[-1].strip() or peer
        is_secure = rules.root_path.startswith("https:") or (
            headers.get("x-forwarded-proto", "").split(",")[0].strip() == "https"
        )
        asked = _Asked(
            scope["method"],
            _path(scope),
            scope["query_string"].decode("latin-1"),
            headers,
            client,
            is_secure,
            self._login.session(cookie_parser(headers.get("cookie", ""))),
        )
        return asked, {**scope, "headers": kept}

    def _refusal(self, asked: _Asked) -> Response | None:
        rules, headers = self._rules, asked.headers
        shown_at = headers.get("x-forwarded-host", "").split(",")[0].strip()
        line = (
            host_refusal(headers.get("host", ""), rules.hosts)
            or (host_refusal(shown_at, rules.hosts) if shown_at else None)
            or origin_refusal(asked.method, headers, rules.root_path, shown_at)
        )
        if line is not None:
            return _line(403, line)
        if not self._is_open(asked.method, asked.path):
            return _line(403, f"{asked.method} {asked.path[:80]} {self._not_served}")
        if self._login.account and not asked.session and asked.path not in _BEFORE_LOGIN:
            return self._login_needed(asked)
        if self._lacks_token(asked):
            return _line(403, f"a browser's POST request must carry the token of {_TOKEN}")
        fault = bodies.body_refusal(
            asked.method, headers, self._most(asked), form=_takes_form(asked.path)
        )
        return None if fault is None else _line(*fault)

    def _lacks_token(self, asked: _Asked) -> bool:
        if asked.method != "POST" or asked.path in (_LOGIN, _LOGOUT) or _MCP.fullmatch(asked.path):
            return False  # forms carry it in a field
        if not is_browser(asked.headers) and not _UPLOAD.fullmatch(asked.path):
            return False
        return not self._login.has_token(asked.session, asked.headers.get(TOKEN_HEADER, ""))

    def _most(self, asked: _Asked) -> int:
        """Return how many bytes a body may have."""
        if _takes_form(asked.path):
            return bodies.FORM_BYTES + (MAX_BYTES if _UPLOAD.fullmatch(asked.path) else 0)
        is_import = _COMPONENT.fullmatch(asked.path) and not self._rules.public
        return bodies.MAX_IMPORT_BYTES if is_import else bodies.MAX_BODY_BYTES

    async def _own_answer(self, asked: _Asked, scope: Scope, receive: Receive) -> Response | None:
        """Answer what the gate itself serves; None for everything else."""
        path = asked.path
        if path == _TOKEN:
            return PlainTextResponse(self._login.token(asked.session), headers=_NEVER_KEPT)
        if path == f"/{PLOTLY}":
            return FileResponse(self._plotly)
        if (found := _THUMBNAIL.fullmatch(path)) and self._thumbnails:
            return await self._thumbnail(self._thumbnails.parent, found[3], path)
        if path == _LOGIN:
            return await self._log_in(asked, scope, receive)
        if path == _LOGOUT:
            return await self._log_out(asked, scope, receive)
        if (event := _EVENT.fullmatch(path)) and not self.unfetched.has_event(event[1]):
            return _line(404, "there is no such event, or its answer is no longer kept; call again")
        if path == f"{_API}/queue/data":
            session = parse_qs(asked.query).get("session_hash", [""])[0]
            if not self.unfetched.has_session(session):
                return _line(404, "this session has no answers, or they are no longer kept")
        return None

    async def _thumbnail(self, collection: Path, item_id: str, path: str) -> Response:
        """Serve a thumbnail that was checked: of a damaged one a browser would make any picture."""
        try:
            data = await run_in_threadpool(read_thumbnail, collection, item_id)
        except ValueError as error:
            return _line(404, f"{path} {error}")
        except OSError:
            return _line(404, f"{path} cannot be read")
        return Response(data, media_type="image/webp", headers=_KEPT)

    async def _call(
        self, asked: _Asked, scope: Scope, receive: Receive, send: Send
    ) -> Response | None:
        """Check a call of the page or the API, and pass it on; None if Gradio has answered."""
        if int(asked.headers["content-length"]) <= bodies.MAX_BODY_BYTES:
            return await self._checked(asked, scope, receive, send)
        if self._import.locked():
            return _line(429, "another file of notes is being taken in; try again in a moment")
        async with self._import:
            return await self._checked(asked, scope, receive, send)

    async def _checked(
        self, asked: _Asked, scope: Scope, receive: Receive, send: Send
    ) -> Response | None:
        body = await bodies.read_body(receive)
        if len(body) > bodies.MAX_BODY_BYTES and not bodies.is_import(body):
            return _line(413, f"a call has at most {bodies.MAX_BODY_BYTES:,} bytes")
        if not _MCP.fullmatch(asked.path):
            fault = await bodies.call_refusal(body, partial(self._call_refusal, asked.path))
            if fault is not None:
                return _line(*fault)
            await self.unfetched.sweep()
        await self.app(scope, bodies.replayed(body, receive), send)
        return None

    def _call_refusal(self, path: str, call: dict) -> bodies.Refusal | None:
        if path == f"{_API}/queue/join":
            number = call.get("fn_index")
            function = self._functions.get(number) if type(number) is int else None
            return bodies.arguments_refusal(function, call)
        if found := _CALL.fullmatch(path):
            named = (f for f in self._functions.values() if f.api_name == found[2])
            check = bodies.keywords_refusal if found[1] else bodies.arguments_refusal
            return check(next(named, None), call)
        return None

    async def _log_in(self, asked: _Asked, scope: Scope, receive: Receive) -> Response:
        action, link = f"{self._home}{_LOGIN}", ""
        if asked.method != "POST":
            return HTMLResponse(self._login.login_page(action, link), headers=_NEVER_KEPT)
        form = await _form(scope, receive)
        given = asked.headers.get(TOKEN_HEADER, form.get("token", ""))
        if is_browser(asked.headers) and not self._login.has_token("", given):
            return _line(403, "this login page is no longer valid; reload it")
        is_page, link = "text/html" in asked.headers.get("accept", ""), form.get("link", "")
        wait = self._login.wait(asked.client)
        if wait:
            status, fault = 429, f"Too many attempts; try again in {wait:.0f} s"
        else:
            session = self._login.open_session(
                asked.client, form.get("username", ""), form.get("password", "")
            )
            if session:
                return self._logged_in(asked, session, link if is_page else None)
            status, fault = 400, "Wrong username or password"
        headers = {"retry-after": f"{wait:.0f}"} if wait else {}
        if is_page:
            text = self._login.login_page(action, link, fault)
            return HTMLResponse(text, status, headers | _NEVER_KEPT)
        return PlainTextResponse(f"{fault}\n", status, headers)

    def _logged_in(self, asked: _Asked, session: str, link: str | None) -> Response:
        """Answer a login with a session's cookie; a page goes on to what was asked for."""
        answer: Response = JSONResponse({"success": True})
        if link is not None:
            answer = self._home_page(link)
        answer.set_cookie(
            self._login.cookie,
            session,
            path=self._home or "/",
            httponly=True,
            samesite="lax",
            secure=asked.is_secure,
        )
        return answer

    async def _log_out(self, asked: _Asked, scope: Scope, receive: Receive) -> Response:
        if asked.method != "POST":
            text = self._login.logout_page(f"{self._home}{_LOGOUT}", asked.session)
            return HTMLResponse(text, headers=_NEVER_KEPT)
        form = await _form(scope, receive)
        given = asked.headers.get(TOKEN_HEADER, form.get("token", ""))
        if not self._login.has_token(asked.session, given):
            return _line(403, "this page is no longer valid; reload it")
        self._login.close_session(asked.session)
        answer = self._home_page("")
        answer.delete_cookie(self._login.cookie, path=self._home or "/")
        return answer

    def _home_page(self, link: str) -> RedirectResponse:
        query = f"?{quote(link, safe='=&%+,:*.~-_')}" if link else ""
        return RedirectResponse(f"{self._home}/{query}", 303)

    def _login_needed(self, asked: _Asked) -> Response:
        if asked.path == "/":
            text = self._login.login_page(f"{self._home}{_LOGIN}", asked.query)
            return HTMLResponse(text, 401, _NEVER_KEPT)
        return _line(401, "log in first, by a POST request with username and password to /login")

    @property
    def _not_served(self) -> str:
        return NOT_TO_STRANGERS if self._rules.public else NOT_SERVED

    def _is_open(self, method: str, path: str) -> bool:
        if self._rules.mcp and _MCP.fullmatch(path):
            return method in ("GET", "POST", "DELETE")
        if path in (_LOGIN, _LOGOUT):
            return bool(self._login.account) and method in ("GET", "HEAD", "POST")
        read, asked = [_READ], [_ASKED]
        if not self._rules.public:
            read, asked = [_READ, _READ_BY_FRIENDS], [_ASKED, _ASKED_BY_FRIENDS]
        if method in ("GET", "HEAD"):
            straight = not _CROOKED.search(path)
            return bool(
                (straight and any(route.fullmatch(path) for route in read))
                or path in (_TOKEN, f"/{PLOTLY}")
                or (self._thumbnails and _THUMBNAIL.fullmatch(path))
                or self._is_made(path)
                or (path == _STARTUP and not self.is_started)
            )
        return method == "POST" and any(route.fullmatch(path) for route in asked)

    def _is_made(self, path: str) -> bool:
        """Whether an address is that of a file which the API hands over."""
        if self._rules.public or not path.startswith(_FILE):
            return False
        file = PurePath(path.removeprefix(_FILE))
        return ".." not in file.parts and self._made in file.parents

    @staticmethod
    def _reading(scope: Scope, path: str) -> Scope:
        """Leave out what Gradio shall not read: a file's range, and the query of our page."""
        if path == "/":  # Gradio would look for pages and saved states of its own
            return {**scope, "query_string": b""}
        if not path.startswith(_FILE):
            return scope
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"range"]
        return {**scope, "headers": headers, "path": scope.get("root_path", "") + path}


async def handle_exception(request: Request, error: Exception) -> PlainTextResponse:
    """Answer what Gradio raised with a line: most often a call that fits nothing in the app."""
    is_misfit = request.method == "POST" and isinstance(error, _MISFITS)
    if is_misfit or isinstance(error, RequestValidationError):
        return _line(422, "this page has no such function, or other values; reload it")
    answer = _answer_to(error)
    if answer.status_code == 500:
        log.error("%s %.80s failed", request.method, request.url.path, exc_info=error)
    return answer


def _answer_to(error: Exception) -> PlainTextResponse:
    if isinstance(error, HTTPException):
        return _line(error.status_code, one_line(ValueError(error.detail)))
    if isinstance(error, ClientDisconnect):
        return _line(400, "the request ended too early")
    if not isinstance(error, bodies.BodyError):
        return _line(500, INTERNAL_ERROR)
    answer = _line(error.status, str(error))
    answer.headers["connection"] = "close"
    return answer


_FORWARDED = frozenset({"x-forwarded-host", "x-forwarded-proto", "x-forwarded-for"})
_NEVER_KEPT = {"cache-control": "no-store"}
_KEPT = {"cache-control": "private, max-age=3600"}


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
    path = path.removeprefix(root) if root and path.startswith(f"{root}/") else path
    return path.rstrip("/") if path in (f"{_LOGIN}/", f"{_LOGOUT}/") else path


async def _form(scope: Scope, receive: Receive) -> dict[str, str]:
    """Read the text fields of a small form."""
    body = await bodies.read_body(receive)
    request = Request(scope, bodies.replayed(body, receive))
    async with request.form(max_files=0, max_fields=16) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


def _takes_form(path: str) -> bool:
    return path in (_LOGIN, _LOGOUT) or bool(_UPLOAD.fullmatch(path))


def _line(status: int, line: str) -> PlainTextResponse:
    """Answer one line; control characters of the request that it quotes are escaped."""
    return PlainTextResponse(f"{_printable(line)}\n", status)


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
