"""Faults of the input, told in one line; faults of ours, logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

log = logging.getLogger(__name__)

OUR_FAULT = "Sieve failed at this; its log on the terminal says how"


def json_errors(handler: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """Let a handler answer `{"error": line}` where it would raise.

    The page shows the line in place; what stood there before stays.
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
            return {"error": OUR_FAULT}

    return call


def one_line(error: BaseException) -> str:
    """Tell an error in one line, without a traceback."""
    return " ".join(str(error).split()) or type(error).__name__
