"""Outermost ASGI middleware: a route allow-list, with all checks of requests and headers.

Gradio has many routes; some of them fetch URLs or read and serve files. Only the routes that the
page and the API need are open, so a new route of a later Gradio version is refused until it is
listed here. `--public-safe` also closes uploads and the files that the API generates.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
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
from sieve.explorer.errors import INTERNAL_ERROR, RefusedError, one_line
from sieve.explorer.security import request_body
from sieve.explorer.security.login import Login
from sieve.explorer.security.origins import (
    PROXY_HEADER,
    TOKEN_HEADER,
    check_host,
    host_names,
    is_browser,
    is_cross_origin,
    is_in,
)
from sieve.explorer.uploads import MAX_BYTES, has_room

if TYPE_CHECKING:
    from gradio.block_function import BlockFunction
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sieve.explorer.concurrency import UnfetchedResponses
    from sieve.explorer.security.access import Access

log = logging.getLogger(__name__)

THUMBNAILS, PLOTLY = "thumbnails/", "plotly.min.js"
NOT_SERVED = "is not served"
NOT_SERVED_PUBLICLY = (
    "is not served: this explorer is open to the public, so it accepts no files and changes nothing"
)

_API = "/gradio_api"
_STARTUP = f"{_API}/startup-events"
_TOKEN, _LOGIN, _LOGOUT = "/csrf-token", "/login", "/logout"
_GET = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|manifest\.json|(static|assets|svelte)/.*)?"
    rf"|{_API}/(info/?|openapi\.json|theme\.css|app_id/?|heartbeat/[\w-]{{1,64}}"
    r"|queue/data|call/[^/]+/[^/]+)"
)
_POST = re.compile(rf"{_API}/(component_server/?|queue/join|call(/v2)?/[^/]+/?)")
_UPLOAD = re.compile(rf"{_API}/upload/?")
_GET_UNLESS_PUBLIC = re.compile(rf"{_API}/upload_progress")
_POST_UNLESS_PUBLIC = re.compile(rf"{_API}/(upload/?|cancel)")
_MCP = re.compile(rf"{_API}/mcp(/|/schema|/sse|/messages/?)?")
_COMPONENT = re.compile(rf"{_API}/component_server/?")
_CALL = re.compile(rf"{_API}/call/([^/]+)/?")
_EVENT = re.compile(rf"{_API}/call/[^/]+/([^/]+)")
_THUMBNAIL = re.compile(r"/thumbnails/(([0-9a-f]{2})/(\2[0-9a-f]{14})\.webp)")
_FILE = f"{_API}/file="
_PATH_TRAVERSAL = re.compile(r"(^|/)\.\.?(/|$)|//|\\|\0")
_BEFORE_LOGIN = {_TOKEN, _LOGIN, "/favicon.ico", _STARTUP}
_INVALID_CALL_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError)

# Gradio's page has inline scripts and styles, and compiles the scripts of custom components.
_CONTENT_POLICY = (
    "default-src {own}; script-src {own} 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src {own} 'unsafe-inline'; img-src {own} data: blob:; font-src {own} data:; "
    "connect-src {own} data: blob:; worker-src {own} blob:; frame-src {own}; object-src 'none'; "
    "base-uri {own}; form-action {own}"
)
# A notebook on this machine can embed the page; other websites cannot (clickjacking).
_FRAME_POLICY = "; frame-ancestors {own} http://localhost:* http://127.0.0.1:*"


@dataclass(frozen=True)
class _RequestInfo:
    """A parsed request."""

    method: str
    path: str
    """Below the root path."""
    query: str
    headers: Mapping[str, str]
    client: str
    """IP address of the client."""
    is_secure: bool
    session: str
    """Login session of the request; empty if there is none."""


class RouteAllowList:
    """Pass on the requests that the page and the API need, and refuse all others in one line.

    Parameters
    ----------
    app : ASGI application
        All of Gradio, including its own middleware.
    host, port
        Address that the server listens on.
    functions : mapping of int to BlockFunction
        Endpoints of the app.
    thumbnails, plotly : Path or None
        Static files of the page, served as `THUMBNAILS` and `PLOTLY`.
    generated : Path
        Folder of the files that the API generates.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        host: str,
        port: int,
        *,
        functions: Mapping[int, BlockFunction],
        unfetched: UnfetchedResponses,
        thumbnails: Path | None,
        plotly: Path,
        generated: Path,
    ) -> None:
        self.app = app
        self.is_started = False
        """Set once Gradio has requested its own startup route; the route is closed then."""
        self._access = access
        self._hosts = host_names(host, access.root_path, access.allow_hosts)
        self._proxies = access.proxy_networks
        self._login = Login(access.auth, port)
        self._functions = functions
        self.unfetched = unfetched
        self._thumbnails = thumbnails
        self._plotly = plotly
        self._generated = generated
        self._not_uploads = frozenset({generated.name, "vibe_edit_history"})
        self._headers = _headers(access)
        self._home = urlsplit(access.root_path).path
        self._import = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                headers.update(self._headers)
                if message["status"] < 400:  # other websites cannot embed it
                    headers["cross-origin-resource-policy"] = "same-origin"
            await send(message)

        try:
            response = await self._respond(scope, receive, send_with_headers)
        except Exception as error:  # Starlette also raises errors that it has responded to
            path = _printable(scope["path"][:80])
            log.info("%s %s: %s", scope["method"], path, one_line(error))
            response = None if has_started else _error_response(error)
        if response is not None:
            await response(scope, receive, send_with_headers)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Return the response to a request; None if Gradio has sent one."""
        request, scope = self._read(scope)
        if response := self._check(request):
            return response
        receive = request_body.limited(receive, self._body_limit(request))
        if response := await self._own_response(request, scope, receive):
            return response
        if _UPLOAD.fullmatch(request.path):  # streamed: too large to read into memory
            if not await run_in_threadpool(has_room, self._generated.parent, self._not_uploads):
                raise RefusedError(429, "too many uploaded images are waiting; try again later")
            await self.app(scope, receive, send)
        elif request.method != "POST":
            await self.app(self._clean_get_scope(scope, request.path), receive, send)
        elif int(request.headers["content-length"]) <= request_body.MAX_BODY_BYTES:
            await self._call(request, scope, receive, send)
        elif self._import.locked():
            raise RefusedError(
                429, "another annotations file is being imported; try again in a moment"
            )
        else:
            async with self._import:
                await self._call(request, scope, receive, send)
        return None

    def _read(self, scope: Scope) -> tuple[_RequestInfo, Scope]:
        """Parse a request and remove the headers that only a trusted proxy may send."""
        root_path = self._access.root_path
        peer = (scope.get("client") or ("", 0))[0]
        is_proxied = bool(root_path) and is_in(peer, self._proxies)
        kept, headers = [], {}
        for name, value in scope["headers"]:
            lower = name.decode("latin-1").lower()
            if PROXY_HEADER.fullmatch(lower) and not (is_proxied and lower in _FORWARDED):
                continue
            kept.append((name, value))
            # Repeated headers are joined: the result is no valid host, origin or length.
            joined = [headers[lower]] if lower in headers else []
            headers[lower] = "; ".join([*joined, value.decode("latin-1")])
        client = headers.get("x-forwarded-for", "").rsplit(",")[-1].strip() or peer
        is_secure = root_path.startswith("https:") or (
            headers.get("x-forwarded-proto", "").split(",")[0].strip() == "https"
        )
        request = _RequestInfo(
            scope["method"],
            _path(scope),
            scope["query_string"].decode("latin-1"),
            headers,
            client,
            is_secure,
            self._login.session(cookie_parser(headers.get("cookie", ""))),
        )
        return request, {**scope, "headers": kept}

    def _check(self, request: _RequestInfo) -> Response | None:
        """Raise a `RefusedError`, or return a response if the user has to log in first."""
        access, headers, method, path = self._access, request.headers, request.method, request.path
        forwarded_host = headers.get("x-forwarded-host", "").split(",")[0].strip()
        check_host(headers.get("host", ""), self._hosts)
        if forwarded_host:
            check_host(forwarded_host, self._hosts)
        if is_cross_origin(method, headers, access.root_path, forwarded_host):
            raise RefusedError(
                403, "requests from other websites are refused; open the explorer in its own window"
            )
        if not self._is_open(method, path):
            why = NOT_SERVED_PUBLICLY if access.public else NOT_SERVED
            raise RefusedError(403, f"{method} {path[:80]} {why}")
        if self._login.account and not request.session and path not in _BEFORE_LOGIN:
            return self._login_needed(request)
        if self._lacks_token(request):
            raise RefusedError(403, f"a POST request of a browser needs the token of {_TOKEN}")
        request_body.check_headers(
            method, headers, self._body_limit(request), form=_takes_form(path)
        )
        return None

    def _lacks_token(self, request: _RequestInfo) -> bool:
        if (
            request.method != "POST"
            or request.path in (_LOGIN, _LOGOUT)
            or _MCP.fullmatch(request.path)
        ):
            return False  # forms send it in a field
        if not is_browser(request.headers) and not _UPLOAD.fullmatch(request.path):
            return False
        return not self._login.has_token(request.session, request.headers.get(TOKEN_HEADER, ""))

    def _body_limit(self, request: _RequestInfo) -> int:
        """Return the maximum size of the body in bytes."""
        if _takes_form(request.path):
            return request_body.FORM_BYTES + (MAX_BYTES if _UPLOAD.fullmatch(request.path) else 0)
        is_import = _COMPONENT.fullmatch(request.path) and not self._access.public
        return request_body.MAX_IMPORT_BYTES if is_import else request_body.MAX_BODY_BYTES

    async def _own_response(
        self, request: _RequestInfo, scope: Scope, receive: Receive
    ) -> Response | None:
        """Return the response of a route that this class serves; None for other routes."""
        path = request.path
        if path == _TOKEN:
            return PlainTextResponse(self._login.token(request.session), headers=_NO_CACHE)
        if path == f"/{PLOTLY}":
            return FileResponse(self._plotly)
        if (match := _THUMBNAIL.fullmatch(path)) and self._thumbnails:
            return await self._thumbnail(self._thumbnails.parent, match[3], path)
        if path == _LOGIN:
            return await self._log_in(request, scope, receive)
        if path == _LOGOUT:
            return await self._log_out(request, scope, receive)
        if (event := _EVENT.fullmatch(path)) and not self.unfetched.has_event(event[1]):
            raise RefusedError(404, "unknown event, or its response has expired; call again")
        if path == f"{_API}/queue/data":
            session = parse_qs(request.query).get("session_hash", [""])[0]
            if not self.unfetched.has_session(session):
                raise RefusedError(404, "this session has no responses, or they have expired")
        return None

    async def _thumbnail(self, collection: Path, item_id: str, path: str) -> Response:
        """Serve a thumbnail after checking it; browsers would show a damaged one."""
        try:
            data = await run_in_threadpool(read_thumbnail, collection, item_id)
        except ValueError as error:
            raise RefusedError(404, f"{path} {error}") from None
        except OSError:
            raise RefusedError(404, f"{path} cannot be read") from None
        return Response(data, media_type="image/webp", headers=_CACHE_HOUR)

    async def _call(
        self, request: _RequestInfo, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Check a call of the page or the API, and pass it on."""
        body = await request_body.read_body(receive)
        if not _MCP.fullmatch(request.path):
            self._check_arguments(request.path, await request_body.read_call(body))
            await self.unfetched.sweep()
        await self.app(scope, request_body.replayed(body, receive), send)

    def _check_arguments(self, path: str, call: dict[str, Any]) -> None:
        """Refuse a wrong number of arguments, for which Gradio would log a traceback."""
        if path == f"{_API}/queue/join":
            number = call.get("fn_index")
            function = self._functions.get(number) if isinstance(number, int) else None
        elif match := _CALL.fullmatch(path):
            named = (f for f in self._functions.values() if f.api_name == match[1])
            function = next(named, None)
        else:
            return
        if function is None or function.fn is None:
            raise RefusedError(404, "unknown endpoint")
        data, needed = call.get("data"), len(function.inputs)
        if not isinstance(data, list) or len(data) != needed:
            raise RefusedError(422, f"data must be a list of {needed} values")

    async def _log_in(self, request: _RequestInfo, scope: Scope, receive: Receive) -> Response:
        action, link = f"{self._home}{_LOGIN}", ""
        if request.method != "POST":
            return HTMLResponse(self._login.login_page(action, link), headers=_NO_CACHE)
        form = await _form(scope, receive)
        given = request.headers.get(TOKEN_HEADER, form.get("token", ""))
        if is_browser(request.headers) and not self._login.has_token("", given):
            raise RefusedError(403, "this login page is no longer valid; reload it")
        is_page, link = "text/html" in request.headers.get("accept", ""), form.get("link", "")
        wait = self._login.wait(request.client)
        if wait:
            status, message = 429, f"Too many attempts; try again in {wait:.0f} s"
        else:
            session = self._login.open_session(
                request.client, form.get("username", ""), form.get("password", "")
            )
            if session:
                return self._logged_in(request, session, link if is_page else None)
            status, message = 400, "Wrong username or password"
        headers = {"retry-after": f"{wait:.0f}"} if wait else {}
        if is_page:
            text = self._login.login_page(action, link, message)
            return HTMLResponse(text, status, headers | _NO_CACHE)
        return PlainTextResponse(f"{message}\n", status, headers)

    def _logged_in(self, request: _RequestInfo, session: str, link: str | None) -> Response:
        """Set the session cookie; a browser is redirected to the page that it requested."""
        response: Response = JSONResponse({"success": True})
        if link is not None:
            response = self._home_page(link)
        response.set_cookie(
            self._login.cookie,
            session,
            path=self._home or "/",
            httponly=True,
            samesite="lax",
            secure=request.is_secure,
        )
        return response

    async def _log_out(self, request: _RequestInfo, scope: Scope, receive: Receive) -> Response:
        if request.method != "POST":
            text = self._login.logout_page(f"{self._home}{_LOGOUT}", request.session)
            return HTMLResponse(text, headers=_NO_CACHE)
        form = await _form(scope, receive)
        given = request.headers.get(TOKEN_HEADER, form.get("token", ""))
        if not self._login.has_token(request.session, given):
            raise RefusedError(403, "this page is no longer valid; reload it")
        self._login.close_session(request.session)
        response = self._home_page("")
        response.delete_cookie(self._login.cookie, path=self._home or "/")
        return response

    def _home_page(self, link: str) -> RedirectResponse:
        query = f"?{quote(link, safe='=&%+,:*.~-_')}" if link else ""
        return RedirectResponse(f"{self._home}/{query}", 303)

    def _login_needed(self, request: _RequestInfo) -> Response:
        if request.path == "/":
            text = self._login.login_page(f"{self._home}{_LOGIN}", request.query)
            return HTMLResponse(text, 401, _NO_CACHE)
        raise RefusedError(401, "log in first: send username and password by POST to /login")

    def _is_open(self, method: str, path: str) -> bool:
        if self._access.mcp and _MCP.fullmatch(path):
            return method in ("GET", "POST", "DELETE")
        if path in (_LOGIN, _LOGOUT):
            return bool(self._login.account) and method in ("GET", "HEAD", "POST")
        get_routes, post_routes = [_GET], [_POST]
        if not self._access.public:
            get_routes, post_routes = [_GET, _GET_UNLESS_PUBLIC], [_POST, _POST_UNLESS_PUBLIC]
        if method in ("GET", "HEAD"):
            is_plain = not _PATH_TRAVERSAL.search(path)
            return bool(
                (is_plain and any(route.fullmatch(path) for route in get_routes))
                or path in (_TOKEN, f"/{PLOTLY}")
                or (self._thumbnails and _THUMBNAIL.fullmatch(path))
                or self._is_generated_file(path)
                or (path == _STARTUP and not self.is_started)
            )
        return method == "POST" and any(route.fullmatch(path) for route in post_routes)

    def _is_generated_file(self, path: str) -> bool:
        """Return whether a path is that of a file generated by the API."""
        if self._access.public or not path.startswith(_FILE):
            return False
        file = PurePath(path.removeprefix(_FILE))
        return ".." not in file.parts and self._generated in file.parents

    @staticmethod
    def _clean_get_scope(scope: Scope, path: str) -> Scope:
        """Remove the query string of the page and the range of a file, which Gradio would use."""
        if path == "/":  # Gradio would look up its own pages and saved states
            return {**scope, "query_string": b""}
        if not path.startswith(_FILE):
            return scope
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"range"]
        return {**scope, "headers": headers, "path": scope.get("root_path", "") + path}


async def handle_exception(request: Request, error: Exception) -> PlainTextResponse:
    """Return a response of one line to an error in Gradio, most often caused by an invalid call."""
    is_invalid = request.method == "POST" and isinstance(error, _INVALID_CALL_ERRORS)
    if is_invalid or isinstance(error, RequestValidationError):
        return _text_response(422, "unknown function or invalid arguments; reload the page")
    response = _error_response(error)
    if response.status_code == 500:
        log.error("%s %.80s failed", request.method, request.url.path, exc_info=error)
    return response


def _error_response(error: Exception) -> PlainTextResponse:
    if isinstance(error, HTTPException):
        return _text_response(error.status_code, one_line(ValueError(error.detail)))
    if isinstance(error, ClientDisconnect):
        return _text_response(400, "the client disconnected before the request was complete")
    if not isinstance(error, RefusedError):
        return _text_response(500, INTERNAL_ERROR)
    response = _text_response(error.status, str(error))
    if error.status in (408, 413):  # the body is not read to its end
        response.headers["connection"] = "close"
    return response


_FORWARDED = frozenset({"x-forwarded-host", "x-forwarded-proto", "x-forwarded-for"})
_NO_CACHE = {"cache-control": "no-store"}
_CACHE_HOUR = {"cache-control": "private, max-age=3600"}


def _headers(access: Access) -> dict[str, str]:
    """Return the headers that every response gets."""
    root = urlsplit(access.root_path)
    own = f"'self' {root.scheme}://{root.netloc}" if root.netloc else "'self'"
    policy = _CONTENT_POLICY if access.public else _CONTENT_POLICY + _FRAME_POLICY
    return {
        "content-security-policy": policy.format(own=own),
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }


def _path(scope: Scope) -> str:
    """Return the path below the root path, whether or not the proxy has removed that."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    path = path.removeprefix(root) if root and path.startswith(f"{root}/") else path
    return path.rstrip("/") if path in (f"{_LOGIN}/", f"{_LOGOUT}/") else path


async def _form(scope: Scope, receive: Receive) -> dict[str, str]:
    """Read the text fields of a small form."""
    body = await request_body.read_body(receive)
    request = Request(scope, request_body.replayed(body, receive))
    async with request.form(max_files=0, max_fields=16) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


def _takes_form(path: str) -> bool:
    return path in (_LOGIN, _LOGOUT) or bool(_UPLOAD.fullmatch(path))


def _text_response(status: int, line: str) -> PlainTextResponse:
    """Return a response of one line, with control characters escaped."""
    return PlainTextResponse(f"{_printable(line)}\n", status)


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
