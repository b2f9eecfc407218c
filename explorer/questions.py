"""What the app can be asked, so that a question which fits nothing is refused in one line.

Gradio answers such a question with status 500 and writes a traceback to the log.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from sieve.explorer.bodies import Refusal

if TYPE_CHECKING:
    import gradio as gr
    from gradio.block_function import BlockFunction

LONGEST_NAME = 64
"""Characters of a session's or an event's name: Gradio's page gives 11, its client up to 36."""
_STOPS = {"cancel": {"session_hash", "event_id", "fn_index"}, "reset": {"event_id"}}
"""Routes that end a question, and what their bodies have."""


class Questions:
    """The server functions and the endpoints of an app, and what each takes.

    Parameters
    ----------
    app : gr.Blocks
        With all its pieces; what is added later is not known.
    """

    def __init__(self, app: gr.Blocks) -> None:
        self._pieces = {
            number: {function.__name__ for function in getattr(block, "server_fns", ())}
            for number, block in app.blocks.items()
        }
        self._endpoints = {function.api_name: function for function in app.fns.values()}
        self._numbers = dict(app.fns)

    def refusal(self, route: str, asked: Any) -> Refusal | None:
        """Tell why a question is not passed on, as a status and a line; None where it may be.

        Parameters
        ----------
        route : str
            Below Gradio's own prefix, without a slash at its end: "component_server". Others than
            those of pieces and endpoints take anything.
        asked : Any
            The body, parsed.
        """
        if route not in _STOPS and not route.startswith(("component_server", "queue/", "call/")):
            return None
        if not isinstance(asked, dict):
            return 422, "the body must be an object"
        for field in ("session_hash", "event_id"):
            name = asked.get(field)
            if name is not None and not (
                isinstance(name, str) and name.isascii() and len(name) <= LONGEST_NAME
            ):
                return 422, f"{field} must be at most {LONGEST_NAME} plain characters"
        if route in _STOPS:
            fits = asked.keys() <= _STOPS[route] and type(asked.get("fn_index", 0)) is int
            return None if fits else (422, f"the body may have {', '.join(sorted(_STOPS[route]))}")
        if route == "component_server":
            return self._piece_refusal(asked)
        if route == "queue/join":
            number = asked.get("fn_index")
            known = self._numbers.get(number) if type(number) is int else None
            return _refused_list(known, f"fn_index {number!r:.20}", asked)
        name = route.rsplit("/", 1)[1]
        refused = _refused_names if route.startswith("call/v2/") else _refused_list
        return refused(self._endpoints.get(name), f"{name[:40]!r}", asked)

    def _piece_refusal(self, asked: dict[str, Any]) -> Refusal | None:
        number, name = asked.get("component_id"), asked.get("fn_name")
        known = self._pieces.get(number) if type(number) is int else None
        if known is None or not isinstance(name, str) or name not in known:
            return 404, "this page has no such function; reload it if it is of an older version"
        return None


def _refused_list(known: BlockFunction | None, name: str, asked: dict[str, Any]) -> Refusal | None:
    if known is None:
        return 404, f"there is no endpoint {name}"
    needed, data = len(known.inputs), asked.get("data")
    if not isinstance(data, list) or len(data) != needed:
        got = f"a list of {len(data)}" if isinstance(data, list) else type(data).__name__
        return 422, f"{name}: data must be a list of {needed} values; got {got}"
    return None


def _refused_names(known: BlockFunction | None, name: str, asked: dict[str, Any]) -> Refusal | None:
    if known is None or known.fn is None:
        return 404, f"there is no endpoint {name}"
    try:
        inspect.signature(known.fn).bind(**asked)
    except TypeError as error:
        return 422, f"{name}: {ascii(str(error))[1:-1]:.100}"
    return None
