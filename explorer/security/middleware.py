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
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from sieve.data_prep.images import read_thumbnail
from sieve.explorer.errors import INTERNAL_ERROR, RefusedError, one_line
from sieve.explorer.security import request_checks
from sieve.explorer.security.access import NO_CACHE, Login
from sieve.explorer.security.request_checks import (
    LOGIN,
    LOGOUT,
    RequestInfo,
    check_host,
    host_names,
    is_browser,
    is_cross_origin,
    read_request,
)
from sieve.explorer.uploads import MAX_UPLOAD_BYTES, has_room

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
_TOKEN = "/csrf-token"
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
_BEFORE_LOGIN = {_TOKEN, LOGIN, "/favicon.ico", _STARTUP}
_INVALID_CALL_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError)

# Gradio's page has inline scripts and styles, and compiles the scripts of custom components.
_CONTENT_POLICY = (
    "default-src {own}; script-src {own} 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src {own} 'unsafe-inline'; img-src {own} data: blob:; font-src {own} data:; "
    "connect-src {own} data: blob:{hub}; worker-src {own} blob:; frame-src {own}; "
    "object-src 'none'; base-uri {own}; form-action {own}; "
    # Notebooks on this machine can embed the page, and other websites only if they are listed.
    "frame-ancestors {own} http://localhost:* http://127.0.0.1:*"
)


class RouteAllowList:
    """Pass on the requests that the page and the API need, and refuse all others in one line.

    `app` is all of Gradio, including its own middleware, which listens on `host` and `port`, and
    `functions` are its endpoints. `thumbnails` and `plotly` are served as `THUMBNAILS` and
    `PLOTLY`. `generated` is the folder of the files that the API generates.
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
        self._login = Login(access.auth, port, urlsplit(access.root_path).path)
        self._functions = functions
        self.unfetched = unfetched
        self._thumbnails = thumbnails
        self._plotly = plotly
        self._generated = generated
        self._not_uploads = frozenset({generated.name, "vibe_edit_history"})
        self._headers = _headers(access)
        # Gradio compresses only files, not its page and answers. Streams are left as they are.
        self._compressed = GZipMiddleware(self._serve, minimum_size=1000, compresslevel=5)
        self._import = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._compressed(scope, receive, send)

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
        request, scope = read_request(scope, self._access.root_path, self._proxies)
        if response := self._check(request):
            return response
        receive = request_checks.limited(receive, self._body_limit(request))
        if response := await self._own_response(request, scope, receive):
            return response
        if _UPLOAD.fullmatch(request.path):  # streamed: too large to read into memory
            if not await run_in_threadpool(has_room, self._generated.parent, self._not_uploads):
                raise RefusedError(429, "too many uploaded images are waiting; try again later")
            await self.app(scope, receive, send)
        elif request.method != "POST":
            await self.app(self._clean_get_scope(scope, request.path), receive, send)
        elif int(request.headers["content-length"]) <= request_checks.MAX_BODY_BYTES:
            await self._call(request, scope, receive, send)
        elif self._import.locked():
            raise RefusedError(429, "another annotations file is being imported; try again later")
        else:
            async with self._import:
                await self._call(request, scope, receive, send)
        return None

    def _check(self, request: RequestInfo) -> Response | None:
        """Raise a `RefusedError`, or return a response if the user has to log in first."""
        access, method, path = self._access, request.method, request.path
        check_host(request, self._hosts)
        if is_cross_origin(request, access.root_path):
            raise RefusedError(
                403, "requests from other websites are refused; open the explorer in its own window"
            )
        if not self._is_open(method, path):
            why = NOT_SERVED_PUBLICLY if access.public else NOT_SERVED
            raise RefusedError(403, f"{method} {path[:80]} {why}")
        is_free = path in _BEFORE_LOGIN or not self._login.account
        if not (is_free or self._login.session(request)):
            return self._login.require_login(request)
        if self._lacks_token(request):
            raise RefusedError(403, f"a POST request of a browser needs the token of {_TOKEN}")
        limit = self._body_limit(request)
        request_checks.check_headers(method, request.headers, limit, form=_takes_form(path))
        return None

    def _lacks_token(self, request: RequestInfo) -> bool:
        path = request.path
        has_field = path in (LOGIN, LOGOUT)  # forms send the token in a field
        if request.method != "POST" or has_field or _MCP.fullmatch(path):
            return False
        is_checked = is_browser(request.headers) or bool(_UPLOAD.fullmatch(path))
        return is_checked and not self._login.has_token(self._login.session(request), request)

    def _body_limit(self, request: RequestInfo) -> int:
        """Return the maximum size of the body in bytes."""
        if _takes_form(request.path):
            return request_checks.FORM_BYTES + (
                MAX_UPLOAD_BYTES if _UPLOAD.fullmatch(request.path) else 0
            )
        is_import = _COMPONENT.fullmatch(request.path) and not self._access.public
        return request_checks.MAX_IMPORT_BYTES if is_import else request_checks.MAX_BODY_BYTES

    async def _own_response(
        self, request: RequestInfo, scope: Scope, receive: Receive
    ) -> Response | None:
        """Return the response of a route that this class serves; None for other routes."""
        path = request.path
        if path == _TOKEN:
            token = self._login.token(self._login.session(request))
            return PlainTextResponse(token, headers=NO_CACHE)
        if path == f"/{PLOTLY}":
            return FileResponse(self._plotly)
        if (match := _THUMBNAIL.fullmatch(path)) and self._thumbnails:
            return await self._thumbnail(self._thumbnails.parent, match[3], path)
        if path in (LOGIN, LOGOUT):
            is_post = request.method == "POST"
            form = await request_checks.read_form(scope, receive) if is_post else {}
            answer = self._login.log_in if path == LOGIN else self._login.log_out
            return answer(request, form)
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
        except (ValueError, OSError) as error:
            fault = "cannot be read" if isinstance(error, OSError) else error
            raise RefusedError(404, f"{path} {fault}") from None
        return Response(data, media_type="image/webp", headers=_CACHE_HOUR)

    async def _call(self, request: RequestInfo, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a call of the page or the API, and pass it on."""
        body = await Request(scope, receive).body()
        if not _MCP.fullmatch(request.path):
            self._check_arguments(request.path, await request_checks.read_call(body))
            await self.unfetched.sweep()
        await self.app(scope, request_checks.replayed(body, receive), send)

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

    def _is_open(self, method: str, path: str) -> bool:
        if self._access.mcp and _MCP.fullmatch(path):
            return method in ("GET", "POST", "DELETE")
        if path in (LOGIN, LOGOUT):
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


_CACHE_HOUR = {"cache-control": "private, max-age=3600"}


def _headers(access: Access) -> dict[str, str]:
    root = urlsplit(access.root_path)
    own = f"'self' {root.scheme}://{root.netloc}" if root.netloc else "'self'"
    # On a Space, Gradio's page asks the Hub whether the Space is running, and waits for the answer.
    hub = " https://huggingface.co" if (root.hostname or "").endswith(".hf.space") else ""
    policy = " ".join([_CONTENT_POLICY.format(own=own, hub=hub), *access.embed_in])
    return {
        "content-security-policy": policy,
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }


def _takes_form(path: str) -> bool:
    return path in (LOGIN, LOGOUT) or bool(_UPLOAD.fullmatch(path))


def _text_response(status: int, line: str) -> PlainTextResponse:
    return PlainTextResponse(f"{_printable(line)}\n", status)


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
