"""Simulate users of the explorer over HTTP, with the requests that the page makes.

A user opens the page, searches and toggles dimensions, with realistic pauses, and sometimes opens
an item, searches by an uploaded image or reloads the page. As on the page, one request is in
progress at a time, of several fast clicks only the last is sent, thumbnails are fetched once, and a
request to a busy server is repeated after a second or two.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from tests.page_api import server_functions

THINGS = ("a dog", "a cat", "a car", "a house", "a tree", "a bird", "people", "food", "a boat")
PLACES = ("a beach", "snow", "a road", "a forest", "a city", "night", "water", "a field")
COLOURS = ("", "red ", "blue ", "white ", "old ", "small ", "wooden ", "yellow ")
STEPS_OF_A_PAGE = 25
"""Mean number of steps between two reloads by a user."""
LATEST = 30.0
"""Seconds after which a request counts as failed."""


@dataclass
class Counts:
    """Faults and timings of all users."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Seconds by kind of request, for those that succeeded."""
    busy: int = 0
    resets: int = 0
    """Idle connections that the server had closed; the request is repeated, as in browsers."""
    faults: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """Responses that do not match the request."""
    last: dict[int, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    """Last request and response by user."""


class SimulatedUser:
    """A user with one open page.

    Parameters
    ----------
    number : int
    web : httpx.AsyncClient
    counts : Counts
        Shared by all.
    pause : float
        Mean seconds between two actions.
    """

    def __init__(self, number: int, web: httpx.AsyncClient, counts: Counts, pause: float) -> None:
        self._number, self._web, self._counts, self._pause = number, web, counts, pause
        self._random = random.Random(number)
        self._pages = 0
        self._functions: dict[str, int] = {}
        self._thumbnails = ""
        self._token = ""
        self._place: dict[str, Any] = {}
        self._listed: list[int] = []
        self._shown: list[str] = []
        self._seen: set[str] = set()

    async def stay(self, until: float) -> None:
        """Use the explorer until a given value of `time.monotonic`."""
        await asyncio.sleep(self._random.uniform(0, self._pause * 2))
        await self._open_page()
        while time.monotonic() < until:
            await asyncio.sleep(min(self._random.expovariate(1 / self._pause), 10 * self._pause)
                                if self._pause else 0)  # fmt: skip
            draw = self._random.random()
            if draw < 1 / STEPS_OF_A_PAGE:
                await self._open_page()
            elif draw < 0.15 or not self._listed:
                await self._search()
            elif draw < 0.18:
                await self._search_by_image()
            elif draw < 0.22 and self._shown:
                await self._call("sieve_item", self._random.choice(self._shown))
            else:
                await self._toggle()

    async def _open_page(self) -> None:
        self._pages += 1
        page = await self._timed("page", "GET", "/")
        config = await self._timed("page", "GET", "/config")
        if page is None or config is None:
            return
        self._functions = server_functions(config.json())
        token = await self._timed("page", "GET", "/csrf-token")
        self._token = token.text if token is not None else ""
        opened = await self._call("sieve_open", "")
        if opened is not None:
            self._thumbnails = opened["about"]["thumbnails"]
            await self._look([item["id"] for item in opened["samples"]])
        self._listed = []

    async def _search(self) -> None:
        text = self._random.choice(COLOURS) + self._random.choice(THINGS)
        without = self._random.choice(PLACES) if self._random.random() < 0.7 else ""
        self._place = {"q": text, "without": without, "off": None, "strictness": 1, "never": False}
        await self._ask("search", with_list=True)

    async def _search_by_image(self) -> None:
        """Search by an image that was not uploaded before."""
        stream = io.BytesIO()
        Image.effect_noise((64, 48), 90).convert("RGB").save(stream, "JPEG")
        files = {"files": ("mine.jpg", stream.getvalue(), "image/jpeg")}
        headers = {"X-Sieve-Token": self._token}
        sent = await self._timed(
            "upload", "POST", "/gradio_api/upload", files=files, headers=headers
        )
        taken = await self._call("sieve_upload", sent.json()[0]) if sent is not None else None
        if taken is not None:
            self._place = {"upload": taken["key"], "off": None, "strictness": 1, "never": False}
            await self._ask("search", with_list=True)

    async def _toggle(self) -> None:
        """Toggle one dimension, or several in quick succession, of which only the last is sent."""
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            off = set(self._place["off"] or ())
            off ^= {self._random.choice(self._listed)}
            self._place["off"] = sorted(off)
        if self._random.random() < 0.1:
            self._place["never"] = not self._place["never"]
        await self._ask("toggle", with_list=False)

    async def _ask(self, kind: str, *, with_list: bool) -> None:
        request = dict(self._place)
        answer = await self._call("sieve_ask", {**request, "list": with_list}, kind)
        if answer is None:
            return
        if with_list:
            self._place["off"] = answer["off"]
            self._listed = [row["d"] for row in answer["dimensions"]]
        elif answer["off"] != request["off"]:
            self._counts.lost.append(f"requested {request}, got off = {answer['off']}")
        self._counts.last[self._number] = ({**request, "off": answer["off"]}, answer)
        await self._look([item["id"] for item in (*answer["results"], *answer["left"])])

    async def _look(self, items: list[str]) -> None:
        """Fetch the thumbnails that are not in this browser's cache."""
        self._shown = items
        for item in items:
            if item not in self._seen:
                self._seen.add(item)
                path = f"/{self._thumbnails}{item[:2]}/{item}.webp"
                await self._timed("thumbnail", "GET", path)

    async def _call(self, name: str, data: object, kind: str = "") -> Any:
        """Call a server function as the page does; None if it failed."""
        body = {
            "data": data,
            "fn_name": name,
            "component_id": self._functions[name],
            "session_hash": f"user{self._number}page{self._pages}",
        }
        answer, begun = None, 0.0
        for _ in range(10):
            begun = time.perf_counter()
            got = await self._timed("", "POST", "/gradio_api/component_server/", json=body)
            answer = None if got is None else got.json()
            if answer is None or not answer.get("busy"):
                break
            self._counts.busy += 1
            await asyncio.sleep(self._random.uniform(1, 2))
        if answer is None:
            return None
        if "error" in answer:
            self._counts.faults[str(answer["error"])] += 1
            return None
        self._counts.seconds.setdefault(kind or name, []).append(time.perf_counter() - begun)
        return answer

    async def _timed(self, kind: str, method: str, path: str, **more: Any) -> httpx.Response | None:
        begun = time.perf_counter()
        try:
            try:
                answer = await self._web.request(method, path, **more)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                self._counts.resets += 1
                answer = await self._web.request(method, path, **more)
        except httpx.HTTPError as error:
            self._counts.faults[f"{type(error).__name__} at {kind or 'a question'}"] += 1
            return None
        if not answer.is_success:
            self._counts.faults[f"{answer.status_code} at {kind or 'a question'}"] += 1
            return None
        if kind:
            self._counts.seconds.setdefault(kind, []).append(time.perf_counter() - begun)
        return answer


async def visit(url: str, sessions: int, seconds: float, pause: float) -> Counts:
    """Run concurrent users and return their timings and faults."""
    counts, until = Counts(), time.monotonic() + seconds
    # Close connections before the server does, after 5 s: a browser would repeat a request
    # if both close at the same moment, httpx does not.
    limits = httpx.Limits(
        max_connections=sessions, max_keepalive_connections=sessions, keepalive_expiry=2
    )
    async with httpx.AsyncClient(
        base_url=url, timeout=LATEST, limits=limits, trust_env=False
    ) as web:
        users = [SimulatedUser(number, web, counts, pause) for number in range(sessions)]
        await asyncio.gather(*(user.stay(until) for user in users))
    return counts
