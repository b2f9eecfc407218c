"""Test markup on every tab, requests of other websites, and offline use in the browser."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from gradio.utils import get_upload_folder
from page_api import serve, server_functions
from playwright.sync_api import FilePayload, Page, Playwright, Route, expect
from processes import FIRST_PORT
from tiny_evaluation import save_small_evaluation

from browser.conftest import PAYLOAD, website
from browser.steps import found, preview, saved, search, settle, skip_guide, switches
from sieve.explorer.app import start
from sieve.explorer.security.access import Access
from sieve.explorer.tabs.train import TrainHandlers

ODD = "__proto__:a,constructor:b,toString:c"
PLACES = {
    "search": ("?q={p}&without={p}&compare=1", ".sv-tile"),
    "dimensions": ("?tab=dimensions&dimension=3&atlas=find:{p}", ".sv-page-head"),
    "map": ("?tab=dimensions&dimension=3&atlas=map:__proto__ sort:constructor", ".sv-map-plot"),
    "inspect": ("?tab=inspect&inspect=left:{w},right:{w}", ".sv-pair .sv-dim"),
    "why": ("?q={p}&without=snow&tab=inspect", ".sv-why-table"),
    "compare": ("?tab=compare&versus=q:{w},without:{w},method:{w}", ".sv-compare"),
    "figure": ('?tab=figure&figure={{"rows":[{{"query":"{p}","title":"{p}"}}]}}', ".sv-sheet"),
    "benchmark": ("?tab=benchmark&benchmark={p},{p},{p},{p}", ".sv-bench-about"),
    "train": ("?tab=train", "#tab-train"),
    "unknown": (
        "?tab={p}&item={p}&off={p}&strictness={p}&collection={p}&checkpoint={p}",
        ".sv-tile",
    ),
    "odd": (f"?__proto__={{p}}&inspect={ODD}&versus={ODD}&atlas={ODD}&figure={{f}}", ".sv-tile"),
}
"""URLs with markup, and the selector to wait for on each."""


@pytest.fixture(scope="module")
def markup_address(hostile_engine, address: str, module_home: Path) -> Iterator[str]:  # noqa: ARG001
    """A page with markup in all texts of its collection, checkpoint and evaluation."""
    engine = copy.copy(hostile_engine)
    engine.collection = copy.copy(engine.collection)
    renamed = {"name": f"{PAYLOAD} collection"}
    engine.collection.manifest = engine.collection.manifest.model_copy(update=renamed)
    save_small_evaluation(engine.collection, PAYLOAD, engine.checkpoint.sha256)
    training = TrainHandlers(engine.collection, Path(engine.checkpoint.path), "cpu")
    yield from serve(engine, port=FIRST_PORT + 60, training=training)


def assert_page_intact(page: Page) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x], script:text('pwned=1')").count() == 0
    assert page.evaluate("Object.getOwnPropertyNames(Object.prototype).length === 12")


def test_markup_is_escaped_on_every_tab(page: Page, markup_address: str) -> None:
    for place, (link, shown) in PLACES.items():
        packed = quote(PAYLOAD.replace("%", "%25").replace(",", "%2C").replace(":", "%3A"))
        escaped = PAYLOAD.replace("\\", "\\\\").replace('"', '\\"')
        polluting = quote('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}')
        text = quote(escaped if place == "figure" else PAYLOAD)
        page.goto(f"{markup_address}/{link.format(p=text, w=packed, f=polluting)}")
        settle(page)
        page.locator(shown).first.wait_for(state="attached")
        if place == "figure":
            preview(page)
        assert_page_intact(page)
    assert "dog" in page.inner_text("body")


def test_markup_in_notes_and_saved_searches_is_escaped(page: Page, markup_address: str) -> None:
    page.goto(f"{markup_address}/?tab=dimensions&dimension=5")
    settle(page)
    for role, name in (("textbox", "Your name for this dimension"), ("textbox", "Notes")):
        box = page.get_by_role(role, name=name)  # type: ignore[arg-type]
        box.fill(PAYLOAD[:80])
        box.press("Tab")
        saved(page)
    tag = page.get_by_role("combobox", name="Add a tag")
    tag.fill("<img src=x onerror=pwned=1>")
    tag.press("Enter")
    expect(page.locator(".sv-table tr[data-d='5'] .sv-sign-tags")).to_have_count(1)
    page.reload()
    settle(page)
    expect(page.get_by_role("heading", level=2)).to_contain_text("<img src=x")
    assert_page_intact(page)
    for place in ("?q=a+circle&off=5", "?tab=inspect&inspect=left:a+circle"):
        page.goto(f"{markup_address}/{place}")
        settle(page)
        assert_page_intact(page)


def test_markup_in_a_file_name_is_escaped(page: Page, markup_address: str) -> None:
    page.goto(markup_address)
    settle(page)
    name = "<img src=x onerror=pwned=1>.png"
    files = FilePayload(name=name, mimeType="image/png", buffer=b"no image")
    page.locator("input[type=file]").first.set_input_files(files)
    expect(page.locator(".sv-fault").first).to_contain_text("not an image")
    assert_page_intact(page)


@pytest.fixture
def malicious_site(tmp_path: Path) -> Iterator[str]:
    """Serve another website that sends requests to the explorer of its visitors."""
    with website(tmp_path) as port:
        yield f"http://evil.localhost:{port}"


ATTACK = """
<body><iframe name=shown src="{sieve}/"></iframe><iframe name=sunk></iframe>
<form id=form target=sunk method=post enctype="text/plain"
  action="{sieve}/gradio_api/component_server/"><input name='{{"data":"' value='"}}'></form>
<script>
const ask = (path, how) => fetch("{sieve}" + path, how).catch(() => null);
const body = '{{"data": "", "fn_name": "sieve_open", "component_id": 1, "session_hash": "s"}}';
const form = new FormData();
form.append("files", new Blob(["x"]), "a.png");
const image = (src) => new Promise((done) => {{
  const node = new Image(); node.onload = node.onerror = done; node.src = src;
}});
Promise.all([
  ask("/gradio_api/component_server", {{ method: "POST", mode: "no-cors", body }}),
  ask("/gradio_api/upload", {{ method: "POST", mode: "no-cors", body: form }}),
  ask("/gradio_api/queue/join", {{ method: "POST", mode: "no-cors", body }}),
  ask("/config", {{ credentials: "include" }}),
  ask("/gradio_api/info", {{ mode: "no-cors" }}),
  image("{sieve}/thumbnails/{item}"),
]).then(() => {{ document.getElementById("form").submit(); window.sent = true; }});
</script>
"""


def test_cross_origin_requests_are_refused(
    page: Page, address: str, malicious_site: str, tmp_path: Path, tiny_engine
) -> None:
    item = tiny_engine.collection.items["id"].iloc[0]
    text = ATTACK.format(sieve=address, item=f"{item[:2]}/{item}.webp")
    (tmp_path / "index.html").write_text(text)
    answers: dict[str, int] = {}
    failed: set[str] = set()
    page.on("response", lambda a: answers.update({a.url.removeprefix(address): a.status}))
    page.on("requestfailed", lambda r: failed.add(r.url.removeprefix(address)))
    page.goto(malicious_site)
    page.wait_for_function("window.sent")
    required = {
        f"/gradio_api/{way}" for way in ("component_server", "upload", "queue/join", "info")
    }
    for _ in range(300):  # the form's response goes to a frame and arrives last
        if "/gradio_api/component_server/" in {*answers, *failed}:
            break
        page.wait_for_timeout(100)
    statuses = {path: status for path, status in answers.items() if not path.startswith("http")}
    # The frame's URL is answered like a link; the browser does not show the response.
    assert (
        statuses.pop("/") == 200 and set(statuses.values()) == {403} and set(statuses) >= required
    )
    assert {"/config", "/gradio_api/component_server/"} <= {*statuses, *failed}
    shown = page.frame("shown")
    assert shown and not shown.url.startswith(address) and shown.locator(".sv-tile").count() == 0


def test_rebound_host_name_gets_no_data(
    playwright: Playwright, browser_path: str, address: str
) -> None:
    led = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    browser = playwright.chromium.launch(
        executable_path=browser_path, args=["--no-sandbox", "--disable-gpu", led]
    )
    try:
        page = browser.new_page()
        answer = page.goto(f"http://rebound.example:{urlsplit(address).port}/config")
        assert answer and answer.status == 403
        assert page.inner_text("body").startswith("this explorer is not rebound.example")
    finally:
        browser.close()


OVER_HTTP = """
<body><script>
const read = [];
const forwarded = ["X-Forwarded-Host", "X-Gradio-Server", "Forwarded", "X-Sieve-Token"];
const note = JSON.stringify({{
  fn_name: "sieve_notes_write", component_id: {component}, session_hash: "s",
  data: {{ dimension: 3, version: 0, field: "name", value: "pwned" }},
}});
async function ask(path, how) {{
  try {{
    const answer = await fetch("{sieve}" + path, how);
    read.push([path, answer.type, answer.status, (await answer.text()).slice(0, 40)]);
  }} catch {{ read.push([path, "refused"]); }}
}}
async function all() {{
  const form = new FormData();
  form.append("files", new Blob(["x"]), "a.png");
  for (const credentials of ["omit", "include"]) {{
    for (const path of ["/config", "/csrf-token", "/", "/gradio_api/info"]) {{
      await ask(path, {{ credentials }});
      for (const name of forwarded) {{
        await ask(path, {{ credentials, headers: {{ [name]: location.host }} }});
      }}
    }}
    for (const type of ["text/plain", "application/json"]) {{
      for (const mode of ["no-cors", "cors"]) {{
        for (const referrerPolicy of ["no-referrer", "unsafe-url"]) {{
          const headers = {{ "Content-Type": type }};
          const how = {{ method: "POST", credentials, mode, referrerPolicy, body: note, headers }};
          await ask("/gradio_api/component_server", how);
          for (const name of forwarded) {{
            how.headers = {{ ...headers, [name]: location.host }};
            await ask("/gradio_api/component_server", how);
          }}
        }}
      }}
    }}
    await ask("/gradio_api/upload", {{ method: "POST", credentials, mode: "no-cors", body: form }});
  }}
  window.read = read;
}}
all();
</script>
"""


def test_website_over_plain_http_cannot_read_or_write(
    playwright: Playwright, browser_path: str, tiny_engine, tmp_path: Path, malicious_site: str
) -> None:
    """Over plain HTTP the browser does not send Sec-Fetch-Site."""
    access = Access(allow_hosts=("sieve.example",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(tmp_path / "home"))
        served = start(tiny_engine, port=FIRST_PORT + 70, access=access)
    evil_port, port = urlsplit(malicious_site).port, urlsplit(served.url).port
    led = "--host-resolver-rules=MAP *.example 127.0.0.1"
    browser = playwright.chromium.launch(
        executable_path=browser_path, args=["--no-sandbox", "--disable-gpu", led]
    )
    uploaded = set(Path(get_upload_folder()).rglob("*"))
    try:
        page = browser.new_page()
        skip_guide(page.context)
        statuses: list[tuple[str, int]] = []
        page.on("response", lambda a: statuses.append((a.url, a.status)))
        page.goto(f"http://sieve.example:{port}/?q=a+circle&tab=dimensions&dimension=3")
        settle(page)
        assert not page.evaluate("window.isSecureContext"), "the test tries what it says"
        box = page.get_by_role("textbox", name="Your name for this dimension")
        box.fill("mine")
        box.press("Tab")
        saved(page)
        config = page.evaluate("fetch('config').then((answer) => answer.json())")
        component = server_functions(config)["sieve_notes_write"]
        sieve = f"http://sieve.example:{port}"
        (tmp_path / "index.html").write_text(OVER_HTTP.format(sieve=sieve, component=component))
        page.goto("about:blank")  # ends the requests of the page itself
        statuses.clear()
        page.goto(f"http://evil.example:{evil_port}/")
        page.wait_for_function("window.read")
        read = page.evaluate("window.read")
        assert {len(one) == 2 or one[1:] == ["opaque", 0, ""] for one in read} == {True}
        assert {status for url, status in statuses if url.startswith(sieve)} <= {403}
        page.goto(f"{sieve}/?tab=dimensions&dimension=3")
        settle(page)
        expect(page.get_by_role("textbox", name="Your name for this dimension")).to_have_value(
            "mine"
        )
    finally:
        browser.close()
        served.app.close()
    assert set(Path(get_upload_folder()).rglob("*")) == uploaded


def test_page_requests_nothing_from_other_hosts(page: Page, markup_address: str) -> None:
    beyond: list[str] = []

    def refuse(route: Route) -> None:
        url = route.request.url
        if urlsplit(url).hostname in ("127.0.0.1", None):
            return route.continue_()
        beyond.append(url)
        return route.abort()

    page.route("**/*", refuse)
    page.goto(f"{markup_address}/?q=a+red+circle&without=snow&compare=1")
    settle(page)
    before = found(page)
    switches(page).first.press("Space")
    settle(page)
    assert found(page) != before
    for tab in ("Dimensions", "Inspect", "Compare", "Figure", "Benchmark", "Train", "Search"):
        page.get_by_role("tab", name=tab).click()
        settle(page)
        if tab == "Figure":
            preview(page)
    search(page, "a square")
    page.locator(".sv-tile-open").first.click()
    page.get_by_role("dialog").wait_for()
    named = page.evaluate(
        "[...document.querySelectorAll('link[rel~=preconnect], link[rel~=dns-prefetch],"
        " link[rel~=stylesheet], script[src], img, iframe')].map(n => n.href || n.src)"
    )
    assert not beyond
    assert {urlsplit(url).hostname for url in named} <= {"127.0.0.1", None}
