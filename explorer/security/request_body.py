"""Checks of request bodies: size, duration, and JSON without files.

Calls that refer to a file are refused: Gradio would fetch a file at any URL and store it, and the
page never sends such a call.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sieve.explorer.errors import RefusedError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

SECONDS = 60.0
"""Time limit for a request body to arrive, in seconds."""
MAX_BODY_BYTES = 1 << 20
"""Size limit of a call; the page sends much less."""
MAX_IMPORT_BYTES = 128 << 20
"""Size limit of the call that imports annotations: a file of at most 64 MB, as JSON text."""
FORM_BYTES = 1 << 16
"""Size that a form may add to the file it contains."""
MAX_NAME = 64
"""Maximum length of a session or event id; Gradio's page sends 11 characters, its client 36."""

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_IMPORT = re.compile(rb'"fn_name"\s*:\s*"sieve_notes_import"')


def check_headers(method: str, headers: Mapping[str, str], most: int, *, form: bool) -> None:
    """Raise a `RefusedError` if the headers announce no body of at most `most` bytes."""
    length = headers.get("content-length")
    if "transfer-encoding" in headers:  # it would override the Content-Length
        status = 411 if length is None else 400
        raise RefusedError(status, "the length of the body must be given by Content-Length alone")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
        raise RefusedError(400, "Content-Length must be a number")
    if method != "POST":
        if int(length or 0):
            raise RefusedError(400, f"a {method} request must have no body")
        return
    if length is None:
        raise RefusedError(411, "the length of the body must be given by Content-Length")
    if int(length) > most:
        raise RefusedError(413, f"the body has {int(length):,} bytes; at most {most:,} are allowed")
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if form and kind not in _FORMS:
        raise RefusedError(415, "the body must be a form")
    if not form and kind != "application/json":
        raise RefusedError(415, "the body must be JSON")


def limited(receive: Receive, most: int) -> Receive:
    """Wrap an ASGI receive function to limit the size and the duration of the body.

    It raises a `RefusedError` after `SECONDS`, or if more than `most` bytes arrive, regardless of
    the headers.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SECONDS
    is_complete, size = False, 0

    async def next_part() -> Message:
        nonlocal is_complete, size
        if is_complete:  # only the disconnect of the client follows, perhaps hours later
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise RefusedError(408, f"the body took more than {SECONDS:.0f} s") from None
        size += len(message.get("body", b""))
        if size > most:
            raise RefusedError(413, f"the body has more than {most:,} bytes")
        is_complete = message["type"] != "http.request" or not message.get("more_body")
        return message

    return next_part


async def read_body(receive: Receive) -> bytes:
    """Read a whole body."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI receive function that sends a body again that was already read."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_again() -> Message:
        return next(messages, None) or await receive()

    return receive_again


async def read_form(scope: Scope, receive: Receive) -> dict[str, str]:
    """Read the text fields of a small form."""
    async with Request(scope, receive).form(max_files=0, max_fields=16) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


async def read_call(body: bytes) -> dict[str, Any]:
    """Parse a call, in a thread if it is large.

    Raises a `RefusedError` if it is not a JSON object, refers to a file, or is large and does not
    import annotations.
    """
    if len(body) <= MAX_BODY_BYTES:
        return _parse(body)
    if not (_IMPORT.search(body[:512]) or _IMPORT.search(body[-512:])):
        raise RefusedError(413, f"the body of a call is limited to {MAX_BODY_BYTES:,} bytes")
    return await run_in_threadpool(_parse, body)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        call = json.loads(
            body, parse_constant=_finite, parse_float=_finite, object_hook=_without_file
        )
    except RecursionError:
        raise RefusedError(400, "the body is nested too deeply") from None
    except ValueError:
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(call, dict):
        raise RefusedError(422, "the body must be a JSON object")
    for field in ("session_hash", "event_id"):
        name = call.get(field) or ""
        if not (isinstance(name, str) and name.isascii() and len(name) <= MAX_NAME):
            raise RefusedError(422, f"{field} must be at most {MAX_NAME} ASCII characters")
    return call


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):  # Python reads NaN and Infinity, although JSON has neither
        raise RefusedError(400, "a number in the body is not finite")
    return value


def _without_file(value: dict[str, Any]) -> dict[str, Any]:
    if "path" in value and "meta" in value:
        raise RefusedError(403, "a call must not contain a file")
    return value
