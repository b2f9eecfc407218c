"""Limits on the body of a request: its size, its duration, and that it names no file.

A call could carry a file by its address, which Gradio would fetch and keep: such calls are refused,
as the page makes none.
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
"""Size limit of a call, far above what the page sends."""
MAX_IMPORT_BYTES = 128 << 20
"""Size limit of the call that imports notes: a file of at most 64 MB, as JSON text."""
IMPORT = "sieve_notes_import"
FORM_BYTES = 1 << 16
"""What a form adds to the file that it carries."""
MAX_NAME = 64
"""Characters of a session's or an event's name: Gradio's page sends 11, its client up to 36."""

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_IMPORTS = re.compile(rf'"fn_name"\s*:\s*"{IMPORT}"'.encode())


Refusal = tuple[int, str]
"""A status and a line."""


class BodyError(Exception):
    """A body that is not read to its end."""

    status = 413


class TooSlowError(BodyError):
    """A body that did not arrive in time."""

    status = 408


def body_refusal(
    method: str, headers: Mapping[str, str], most: int, *, form: bool
) -> Refusal | None:
    """Explain by its headers why a body is not read, as a status and a line; None if it is."""
    length = headers.get("content-length")
    if "transfer-encoding" in headers:  # it would overrule the length that is compared here
        status = 411 if length is None else 400
        return status, "the length of the body must be given by Content-Length alone"
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
        return 400, "Content-Length must be a number"
    if method != "POST":
        return (400, f"a {method} request has no body") if int(length or 0) else None
    if length is None:
        return 411, "the length of the body must be given by Content-Length"
    if int(length) > most:
        return 413, f"the body has {int(length):,} bytes; at most {most:,} are read"
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if form and kind not in _FORMS:
        return 415, "the body must be a form"
    if not form and kind != "application/json":
        return 415, "the body must be JSON"
    return None


def limited(receive: Receive, most: int) -> Receive:
    """Pass a body on as it arrives.

    Raises
    ------
    TooSlowError
        After `SECONDS`.
    BodyError
        If more than `most` bytes arrive, whatever its headers said.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + SECONDS
    whole, size = False, 0

    async def next_part() -> Message:
        nonlocal whole, size
        if whole:  # what follows is only that the client has gone, hours later
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise TooSlowError(f"the body took more than {SECONDS:.0f} s") from None
        size += len(message.get("body", b""))
        if size > most:
            raise BodyError(f"the body has more than {most:,} bytes")
        whole = message["type"] != "http.request" or not message.get("more_body")
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
    """Return whether a large body is the call that imports notes, without parsing it."""
    return bool(_IMPORTS.search(body[:512]) or _IMPORTS.search(body[-512:]))


def replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, and after it whatever follows."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def call_refusal(
    body: bytes, check: Callable[[dict[str, Any]], Refusal | None]
) -> Refusal | None:
    """Explain why a call is not passed on; None if it is.

    Parameters
    ----------
    body : bytes
        JSON.
    check : Callable
        Explains what else there is to refuse.
    """
    if len(body) > MAX_BODY_BYTES:  # takes a while, in which others are answered
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
        return 422, "the body must be an object"
    return _file_refusal(call) or _name_refusal(call) or check(call)


def arguments_refusal(function: BlockFunction | None, call: dict[str, Any]) -> Refusal | None:
    """Explain why a call does not fit an endpoint: Gradio would log a traceback."""
    if function is None or function.fn is None:
        return 404, "there is no such endpoint"
    needed, data = len(function.inputs), call.get("data")
    if not isinstance(data, list) or len(data) != needed:
        got = f"a list of {len(data)}" if isinstance(data, list) else type(data).__name__
        return 422, f"data must be a list of {needed} values; got {got}"
    return None


def keywords_refusal(function: BlockFunction | None, call: dict[str, Any]) -> Refusal | None:
    """Explain the same of a call that names its arguments."""
    if function is None or function.fn is None:
        return 404, "there is no such endpoint"
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
            return 422, f"{field} must be at most {MAX_NAME} plain characters"
    return None


def _file_refusal(call: Any) -> Refusal | None:
    left: list[Any] = [call]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value and "meta" in value:
                return 403, "a call carries no file"
            left += value.values()
        elif isinstance(value, list):
            left += value
    return None


def _finite(number: str) -> float:
    """Read a number; JSON itself knows none that is not finite, Python and Gradio do."""
    value = float(number)
    if not math.isfinite(value):
        raise OverflowError
    return value
