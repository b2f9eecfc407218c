"""Checks of request bodies: size, duration, JSON, and arguments that fit the endpoint.

Calls that refer to a file are refused: Gradio would fetch a file at any URL and store it, and the
page never sends such a call.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

if TYPE_CHECKING:
    from gradio.block_function import BlockFunction
    from starlette.types import Message, Receive

SECONDS = 60.0
"""Time limit for a request body to arrive, in seconds."""
MAX_BODY_BYTES = 1 << 20
"""Size limit of a call; the page sends much less."""
MAX_IMPORT_BYTES = 128 << 20
"""Size limit of the call that imports annotations: a file of at most 64 MB, as JSON text."""
IMPORT = "sieve_notes_import"
FORM_BYTES = 1 << 16
"""Size that a form may add to the file it contains."""
MAX_NAME = 64
"""Maximum length of a session or event id; Gradio's page sends 11 characters, its client 36."""

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_IMPORTS = re.compile(rf'"fn_name"\s*:\s*"{IMPORT}"'.encode())


Refusal = tuple[int, str]
"""An HTTP status code and a message of one line."""


class BodyError(Exception):
    """Raised for a body that is not read to its end, because it is too large."""

    status = 413


class TooSlowError(BodyError):
    """Raised for a body that did not arrive in time."""

    status = 408


def body_refusal(
    method: str, headers: Mapping[str, str], most: int, *, form: bool
) -> Refusal | None:
    """Return why a body is refused because of the headers; None if it is accepted."""
    length = headers.get("content-length")
    if "transfer-encoding" in headers:  # it would override the Content-Length
        status = 411 if length is None else 400
        return status, "the length of the body must be given by Content-Length alone"
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
        return 400, "Content-Length must be a number"
    if method != "POST":
        return (400, f"a {method} request must have no body") if int(length or 0) else None
    if length is None:
        return 411, "the length of the body must be given by Content-Length"
    if int(length) > most:
        return 413, f"the body has {int(length):,} bytes; at most {most:,} are allowed"
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if form and kind not in _FORMS:
        return 415, "the body must be a form"
    if not form and kind != "application/json":
        return 415, "the body must be JSON"
    return None


def limited(receive: Receive, most: int) -> Receive:
    """Wrap an ASGI receive function to limit the size and the duration of the body.

    Raises
    ------
    TooSlowError
        After `SECONDS`.
    BodyError
        If more than `most` bytes arrive, regardless of the headers.
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
            raise TooSlowError(f"the body took more than {SECONDS:.0f} s") from None
        size += len(message.get("body", b""))
        if size > most:
            raise BodyError(f"the body has more than {most:,} bytes")
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


def is_import(body: bytes) -> bool:
    """Return whether a large body is the call that imports annotations, without parsing it."""
    return bool(_IMPORTS.search(body[:512]) or _IMPORTS.search(body[-512:]))


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI receive function that sends a body again that was already read."""
    is_sent = False

    async def receive_again() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def call_refusal(
    body: bytes, check: Callable[[dict[str, Any]], Refusal | None]
) -> Refusal | None:
    """Return why a call is refused; None if it is accepted.

    Parameters
    ----------
    body : bytes
        JSON.
    check : callable
        A further check of the parsed call.
    """
    if len(body) > MAX_BODY_BYTES:  # parsing takes long: do not block the event loop
        return await run_in_threadpool(_call_refusal, body, check)
    return _call_refusal(body, check)


def _call_refusal(body: bytes, check: Callable[[dict[str, Any]], Refusal | None]) -> Refusal | None:
    try:
        call = json.loads(body, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        return 400, "the body is nested too deeply"
    except OverflowError:
        return 400, "a number in the body is not finite"
    except ValueError:
        return 400, "the body is not JSON"
    if not isinstance(call, dict):
        return 422, "the body must be a JSON object"
    return _file_refusal(call) or _name_refusal(call) or check(call)


def arguments_refusal(function: BlockFunction | None, call: dict[str, Any]) -> Refusal | None:
    """Return why positional arguments do not fit an endpoint; Gradio would log a traceback."""
    if function is None or function.fn is None:
        return 404, "unknown endpoint"
    needed, data = len(function.inputs), call.get("data")
    if not isinstance(data, list) or len(data) != needed:
        got = f"a list of {len(data)}" if isinstance(data, list) else type(data).__name__
        return 422, f"data must be a list of {needed} values; got {got}"
    return None


def keywords_refusal(function: BlockFunction | None, call: dict[str, Any]) -> Refusal | None:
    """Return why keyword arguments do not fit an endpoint."""
    if function is None or function.fn is None:
        return 404, "unknown endpoint"
    try:
        inspect.signature(function.fn).bind(**call)
    except TypeError as error:
        return 422, f"{ascii(str(error))[1:-1]:.100}"
    return None


def _name_refusal(call: dict[str, Any]) -> Refusal | None:
    for field in ("session_hash", "event_id"):
        name = call.get(field)
        if name is not None and not (
            isinstance(name, str) and name.isascii() and len(name) <= MAX_NAME
        ):
            return 422, f"{field} must be at most {MAX_NAME} ASCII characters"
    return None


def _file_refusal(call: Any) -> Refusal | None:
    left: list[Any] = [call]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value and "meta" in value:
                return 403, "a call must not contain a file"
            left += value.values()
        elif isinstance(value, list):
            left += value
    return None


def _finite(number: str) -> float:
    """Parse a number; reject NaN and infinity, which Python accepts although JSON has neither."""
    value = float(number)
    if not math.isfinite(value):
        raise OverflowError
    return value
