"""Test the explorer offline: it searches, toggles and draws without external requests."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
from page_api import web_client
from processes import FIRST_PORT

from sieve.explorer.app import start


@pytest.fixture
def external_requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Blocks connections to other machines and lists the requested addresses."""
    requested: list[str] = []
    connect, find = socket.socket.connect, socket.getaddrinfo

    def refuse(host: Any) -> None:
        try:
            is_here = host is None or ip_address(host).is_loopback
        except ValueError:
            is_here = host == "localhost"
        if not is_here:
            requested.append(str(host))
            raise OSError("the network is cut")

    def connected(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            refuse(address[0])
        connect(self, address)

    def found(host: Any, *rest: Any, **more: Any) -> Any:
        refuse(host.decode() if isinstance(host, bytes) else host)
        return find(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", connected)
    monkeypatch.setattr(socket, "getaddrinfo", found)
    return requested


def call_api(web: httpx.Client, name: str, data: list[Any]) -> Any:
    """Use plain HTTP, because `gradio_client` itself contacts external servers."""
    event = web.post(f"/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    answer = web.get(f"/gradio_api/call/{name}/{event}").text
    return json.loads(answer.split("event: complete\ndata: ")[1].splitlines()[0])[0]


def test_no_request_leaves_the_machine(tiny_engine, external_requests: list[str]) -> None:
    with pytest.raises(httpx.ConnectError, match="cut"):
        httpx.get("http://example.org")
    assert external_requests.pop() == "example.org"
    served = start(tiny_engine, port=FIRST_PORT + 80)
    try:
        with web_client(served.url, 30) as web:
            found = call_api(web, "search", ["a circle", "the snow", None, 1.0, 10, False, ""])
            switched = call_api(web, "search", ["a circle", "the snow", [3, 5], 1.0, 10, False, ""])
            assert found["results"] and switched["off"] != found["off"]
            made = call_api(web, "figure", [{"rows": [{"query": "a circle"}]}, "pdf"])
            assert web.get(made["url"]).content.startswith(b"%PDF")
            assert web.get("/").status_code == 200
    finally:
        served.app.close()
    assert not external_requests
