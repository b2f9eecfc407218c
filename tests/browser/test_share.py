"""Test sharing: links, downloaded files and a public page behind a proxy."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Download, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from browser.steps import found, go, preview, search, settle, skip_guide
from sieve.explorer.app import Served, start
from sieve.explorer.security.access import Access

VIEWS = (
    "?q=a+circle&without=the+snow&strictness=never&compare=1",
    "?q=a+circle&off=3,5&strictness=0.4",
    "?tab=dimensions&dimension=7",
    '?tab=figure&figure={"rows":[{"query":"a circle"}],"columns":3}',
)


@pytest.fixture
def granted(page: Page) -> Page:
    """The page, with permission to read and write the clipboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page


def shared_link(page: Page) -> str:
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_role("status").filter(has_text="Link copied")).to_be_attached()
    return page.evaluate("navigator.clipboard.readText()")


def look(page: Page) -> list[str]:
    """Return the content that a view shows, on any tab."""
    settle(page)
    if "tab=dimensions" in page.url:
        return [page.locator(".sv-page-head h2").inner_text()]
    if "tab=figure" in page.url:
        return [preview(page).get_attribute("src") or ""]
    return found(page) + page.locator(".sv-dense .sv-text").all_inner_texts()


def test_share_is_beside_export_and_shows_the_link_without_clipboard_access(page: Page) -> None:
    beside = page.locator(".sv-results-actions").get_by_role("button", name="Share")
    in_header = page.locator(".sv-header").get_by_role("button", name="Share")
    go(page)
    expect(in_header).to_be_visible()
    search(page, "a circle")
    expect(beside).to_be_visible()
    page.get_by_role("tab", name="Figure").click()
    expect(in_header).to_be_visible()
    page.get_by_role("tab", name="Search").click()
    expect(beside).to_be_visible()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject() }")
    beside.click()
    link = page.get_by_role("textbox", name="Link to this view")
    expect(link).to_have_value(page.url)
    page.keyboard.press("Escape")
    expect(link).to_be_hidden()
    page.set_viewport_size({"width": 390, "height": 844})
    expect(in_header).to_be_visible()


def test_shared_link_works_after_a_restart(granted: Page, tiny_engine) -> None:
    page = granted
    served = start(tiny_engine, port=7990)
    seen = []
    for view in VIEWS:
        page.goto(f"{served.url}/{view}")
        seen.append((look(page), shared_link(page)))
    port = int(served.url.rsplit(":", 1)[1])
    served.app.close()
    again = start(tiny_engine, port=port)
    assert again.url == served.url
    for shown, link in seen:
        assert shown and shown[0]
        page.goto("about:blank")
        page.goto(link)
        assert look(page) == shown, link
    again.app.close()


def exported(page: Page, kind: str) -> Download:
    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as download:
        page.locator(".sv-menu:popover-open").get_by_role("button", name=kind).click()
    expect(page.locator(".sv-menu:popover-open")).to_have_count(0)
    return download.value


def test_results_and_dimensions_can_be_downloaded(page: Page) -> None:
    go(page)
    expect(page.get_by_role("button", name="Export", exact=True)).to_be_hidden()
    search(page, "a circle", "the snow")
    made = exported(page, "CSV")
    assert made.suggested_filename == "sieve-results.csv"
    with Path(made.path()).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == found(page)
    page.get_by_role("tab", name="Dimensions").click()
    page.locator(".sv-table tbody tr").first.wait_for()
    whole = json.loads(Path(exported(page, "JSON").path()).read_text("utf-8"))
    assert len(whole["dimensions"]) == 64


@contextmanager
def proxy(target: str, prefix: str) -> Iterator[str]:
    """Serve a server under a prefix, as a reverse proxy does."""
    web = httpx.AsyncClient(base_url=target, timeout=30)

    async def forward(request: Request) -> Response:
        own = (b"host", b"connection")
        headers = [pair for pair in request.headers.raw if pair[0] not in own]
        headers.append((b"x-forwarded-host", request.headers["host"].encode()))
        url = httpx.URL(path=f"/{request.path_params['path']}", query=request.url.query.encode())
        body = await request.body()
        got = await web.request(request.method, url, headers=headers, content=body)
        passed_on = ("content-type", "set-cookie", "location")
        saved = {k: v for k, v in got.headers.items() if k in passed_on}
        return Response(got.content, got.status_code, saved)

    async def outside(_: Request) -> Response:
        return Response(status_code=404)

    routes = [
        # This stream is endless, and the page does not need it.
        Route(prefix + "/gradio_api/heartbeat/{rest:path}", outside),
        Route(prefix + "/{path:path}", forward, methods=["GET", "POST"]),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=7995, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive()
    yield f"http://127.0.0.1:7995{prefix}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def public(tiny_engine) -> Iterator[Served]:
    access = Access(
        public=True,
        root_path="/a/sieve",
        auth=("guest", "open"),
        trusted_proxies=("127.0.0.1",),
    )
    served = start(tiny_engine, port=7990, access=access)
    yield served
    served.app.close()


def test_remote_users_search_behind_a_proxy_after_login(
    browser: Browser, public: Served, tiny_engine
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    skip_guide(context)
    page = context.new_page()
    page.set_default_timeout(20_000)
    with proxy(public.url, "/a/sieve") as address:
        page.goto(f"{address}?q=a+circle&without=the+snow")
        page.get_by_label("username").fill("guest")
        page.get_by_label("password").fill("open")
        page.get_by_role("button", name="Log in").click()
        settle(page)
        query = tiny_engine.encode("a circle", "the snow")
        assert found(page) == [result.id for result in tiny_engine.search(query).results]
        expect(page.get_by_role("textbox", name="without")).to_have_value("the snow")
        page.wait_for_function("document.querySelector('.sv-tile img').naturalWidth > 0")
        expect(page.get_by_role("tab", name="Train")).to_have_count(0)
        expect(page.get_by_role("button", name="Search by image")).to_be_hidden()
        page.get_by_role("button", name="Export", exact=True).click()
        expect(page.get_by_text("sieve export")).to_have_count(0)
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="Dimensions").click()
        page.locator(".sv-plot .main-svg").first.wait_for()
        assert page.url.startswith(f"{address}?") and "tab=dimensions" in page.url
    context.close()
