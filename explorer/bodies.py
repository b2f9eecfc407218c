"""What comes in the body of a request: how much, how slowly, and that it names no file.

A question could carry a file by its address, which Gradio would fetch and keep: such questions are
refused, as the page asks none.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

if TYPE_CHECKING:
    from starlette.types import Message, Receive

SECONDS = 60.0
"""How long a body may take to come in."""
MAX_BODY_BYTES = 1 << 20
"""Of a stranger's question: far more than any that the page asks."""
MAX_IMPORT_BYTES = 128 << 20
"""Of a question where notes can be taken in: their file, of 64 MB at most, as JSON text."""
FORM_BYTES = 1 << 16
"""What a form adds to the file that it carries."""

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


Refusal = tuple[int, str]
"""A status and a line."""


class TooSlowError(Exception):
    """A body did not come in time."""


def body_refusal(headers: Mapping[str, str], most: int, *, form: bool) -> Refusal | None:
    """Tell why a body is not read, by its headers: a status and a line; None where it may be."""
    length = headers.get("content-length", "")
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        return 411, "say how long the body is, by Content-Length"
    if int(length) > most:
        return 413, f"the body has {int(length):,} bytes; at most {most:,} are read"
    if form and kind not in _FORMS:
        return 415, "the body must be a form"
    if not form and kind != "application/json":
        return 415, "the body must be JSON"
    return None


def in_time(receive: Receive) -> Receive:
    """Let a body come as it comes, but raise `TooSlowError` where it takes too long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SECONDS
    whole = False

    async def timed() -> Message:
        nonlocal whole
        if whole:  # what follows is only that the asker has gone, hours later
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise TooSlowError from None
        whole = message["type"] != "http.request" or not message.get("more_body")
        return message

    return timed


async def read_body(receive: Receive) -> bytes:
    """Read a body whole; it is no longer than it said."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body once more, and after it whatever follows."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def json_refusal(body: bytes, looked_at: Callable[[Any], Refusal | None]) -> Refusal | None:
    """Tell why JSON is not passed on; None where it may be.

    Where it has what Gradio takes for a file, Gradio would fetch its address and keep it.

    Parameters
    ----------
    body : bytes
    looked_at : Callable
        Tells what else there is to refuse in what was asked.
    """
    if len(body) > MAX_BODY_BYTES:  # takes a while, in which others are answered
        return await run_in_threadpool(_json_refusal, body, looked_at)
    return _json_refusal(body, looked_at)


def _json_refusal(body: bytes, looked_at: Callable[[Any], Refusal | None]) -> Refusal | None:
    try:
        asked = json.loads(body, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        return 400, "the body is nested too deeply"
    except OverflowError:
        return 400, "a number in the body is not finite"
    except ValueError:
        return 400, "the body is not JSON"
    return _file_refusal(asked) or looked_at(asked)


def _file_refusal(asked: Any) -> Refusal | None:
    left: list[Any] = [asked]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value and "meta" in value:
                return 403, "a question here carries no file"
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
