"""Calls to the explorer's server functions by plain HTTP, as the page makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:  # conftest sets the number of threads before numpy is imported
    from sieve.model.engine import SearchEngine

RPC_URL = "/gradio_api/component_server"


def web_client(url: str, timeout: float = 20) -> httpx.Client:
    """Create a client of a local server, without loading certificates for HTTPS."""
    return httpx.Client(base_url=url, timeout=timeout, verify=False)


def serve(engine: SearchEngine, **options: Any) -> Iterator[str]:
    """Yield the address of an explorer with the options of `start`, and close it afterwards."""
    from sieve.explorer.app import start

    served = start(engine, **options)
    yield served.url
    served.app.close(verbose=False)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """URLs that the server tries to download, each of which fails."""
    urls: list[str] = []

    async def fetch(url: str, *_: object, **__: object) -> str:
        urls.append(url)
        raise ValueError("fetched")

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", fetch)
    return urls


def server_functions(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the id of the component that has each server function of an app's configuration."""
    return {
        name: component["id"]
        for component in config["components"]
        for name in component["props"].get("server_fns") or ()
    }


def request_body(
    functions: dict[str, int], name: str, data: object, session: str = "s"
) -> dict[str, Any]:
    """Build the body of a call; an unknown function is sent to any component that has one."""
    component = functions.get(name, next(iter(functions.values())))
    return {"data": data, "fn_name": name, "session_hash": session, "component_id": component}


def call_server(web: httpx.Client, name: str, data: object, **headers: str) -> httpx.Response:
    """Call a server function."""
    functions = server_functions(web.get("/config").json())
    return web.post(RPC_URL, json=request_body(functions, name, data), headers=headers)


def csrf_header(web: httpx.Client) -> dict[str, str]:
    """Fetch the token header that a browser's POST requests carry."""
    return {"X-Sieve-Token": web.get("/csrf-token").text}
