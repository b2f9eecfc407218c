"""How the page asks its server, by bare HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

ASK = "/gradio_api/component_server"


def server_functions(config: Mapping[str, Any]) -> dict[str, int]:
    """Server functions of an app's configuration by name, with the component that has them."""
    return {
        name: component["id"]
        for component in config["components"]
        for name in component["props"].get("server_fns") or ()
    }


def question(known: dict[str, int], name: str, data: object, session: str = "s") -> dict[str, Any]:
    """Body of a question; a function that is not known is asked of any component that has one."""
    component = known.get(name, next(iter(known.values())))
    return {"data": data, "fn_name": name, "session_hash": session, "component_id": component}


def ask(web: httpx.Client, name: str, data: object, **headers: str) -> httpx.Response:
    """Ask a server function."""
    known = server_functions(web.get("/config").json())
    return web.post(ASK, json=question(known, name, data), headers=headers)


def token(web: httpx.Client) -> dict[str, str]:
    """Header that a browser's POST requests carry, as the page's script asks for it."""
    return {"X-Sieve-Token": web.get("/csrf-token").text}
