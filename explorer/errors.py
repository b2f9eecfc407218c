"""Error messages: user errors as one line, internal errors in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

log = logging.getLogger(__name__)

INTERNAL_ERROR = "An internal error occurred; see the log in the terminal"


class RefusedError(Exception):
    """A web request that is refused; the message is the reason in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        """HTTP status code."""


def json_errors(handler: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """Decorate a handler to return `{"error": message}` instead of raising.

    The page shows the message in place and leaves the rest unchanged.
    """

    @wraps(handler)
    def call(payload: Any) -> dict[str, Any]:
        try:
            return handler(payload)
        except (ValueError, FileNotFoundError) as error:
            line = one_line(error)
            return {"error": line[0].upper() + line[1:]}
        except Exception:
            log.exception("%s failed", handler.__name__)
            return {"error": INTERNAL_ERROR}

    return call


def one_line(error: BaseException) -> str:
    """Return the message of an error as one printable line, or its type if it has no message."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        file = f"{error.filename}: " if error.filename else ""
        text = f"{file}{error.strerror}"
    # Text from data is untrusted and may hold terminal control sequences.
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split()) or type(error).__name__
