"""Measure the toggle latency of the explorer in a real browser, compared with `gr.Gallery`.

    python -m tests.benchmarks.explorer --collection scenes --toggles 50 --json
    python -m tests.benchmarks.explorer --items 118000 [--folder DISK]
    python -m tests.benchmarks.explorer --query "a dog + a ball + 0.5:a park - a beach - 0.5:snow" \
        --where "not split:test caption:animal not concept:night>0.5"

Latency is the time from the click until the new results are on screen with their images decoded.
The baseline shows the results of the same searches in a `gr.Gallery` with a `gr.CheckboxGroup`,
both with the settings that Gradio's guides recommend for speed. *Server* is the time from the last
byte of the request to the first byte of the response, as the browser reports it. With --items the
collection is synthetic (`synthetic_collection.py`) and its items share a few thumbnails.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

from sieve.data_prep.bundled import locate_collection  # noqa: E402
from sieve.explorer.app import start  # noqa: E402
from sieve.model.engine import EncodedQuery, SearchEngine  # noqa: E402
from tests.benchmarks.synthetic_collection import make  # noqa: E402
from tests.browser.steps import installed_browser  # noqa: E402

SMALL, LIMIT_MS, LARGE_LIMIT_MS = 5_000, 100.0, 250.0
"""Limits on the 95th percentile: up to `SMALL` items, and above."""
READING_MS = 2_000
"""Time before the first toggle, in which a user reads the results."""
# A change of results is detected from the image addresses, in the order of the page.
WATCH = """
window.shown = (selector) =>
  [...document.querySelectorAll(selector)].map((image) => image.getAttribute('src')).join();
window.timed = (selector, click) => new Promise((resolve) => {
  const before = shown(selector);
  const begun = performance.now();
  click();
  const look = () => {
    const images = [...document.querySelectorAll(selector)];
    const visible = images.filter((image) => image.getBoundingClientRect().top < innerHeight);
    const done = images.length && shown(selector) !== before && visible.every((i) => i.complete);
    if (done || performance.now() - begun > 5000) resolve(performance.now() - begun);
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
"""
TILES = ".sv-columns > .sv-grid .sv-tile-open img"
GALLERY = ".grid-container img"


@dataclass(frozen=True)
class Latency:
    """Milliseconds from click to results, the server's part of it, and kilobytes per toggle."""

    p50_ms: float
    p95_ms: float
    worst_ms: float
    server_p50_ms: float
    server_p95_ms: float
    kilobytes: float


Concepts = dict[int, tuple[int, ...]]
"""Dimensions of a concept in a query, by its leading dimension."""


def gallery_app(
    engine: SearchEngine, query: EncodedQuery, concepts: Concepts, where: str
) -> gr.Blocks:
    """Build the baseline: the same search with standard Gradio components."""
    names = [f"{engine.name_of(j)} {j}" for j in concepts]

    def found(on: list[str]) -> list[tuple[str, str]]:
        switched = zip(concepts.values(), names, strict=True)
        off = {j for members, name in switched if name not in on for j in members}
        results = engine.search(query, tuple(off.union(query.proposed)), where=where).results
        return [(str(engine.thumbnail(r.id)), r.captions[0] if r.captions else "") for r in results]

    with gr.Blocks(analytics_enabled=False) as app:
        switches = gr.CheckboxGroup(names, value=names)
        gallery = gr.Gallery(found(names), columns=5, allow_preview=False)
        switches.change(
            found,
            switches,
            gallery,
            show_progress="hidden",
            trigger_mode="always_last",
            concurrency_limit=4,
            queue=False,
        )
    return app


def changing_concepts(
    engine: SearchEngine, query: EncodedQuery, where: str, count: int = 8
) -> Concepts:
    """Choose strong concepts that are on and whose toggle changes the results."""

    def found(off: tuple[int, ...]) -> list[str]:
        results = engine.search(query, (*query.proposed, *off), where=where).results
        return [one.id for one in results]

    whole = found(())
    concepts: Concepts = {}
    for one in query.concepts[:12]:  # those that are listed at first
        members = tuple(part.dimension for part in one.dimensions)
        if not set(members) & set(query.proposed) and found(members) != whole:
            concepts[one.concept] = members
    return dict(list(concepts.items())[:count])


def measure(page: Page, selector: str, click: Callable[[int], str], toggles: int) -> Latency:
    """Toggle the switches one after another, off and on again, and time every change.

    Parameters
    ----------
    page : Page
    selector : str
        Of the result images.
    click : callable
        JavaScript that clicks the n-th switch.
    toggles : int
    """
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    received, served = [], []
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))

    def answered(event: dict[str, Any]) -> None:
        timing = event["response"].get("timing")
        if event["type"] == "Fetch" and timing:
            served.append(timing["receiveHeadersEnd"] - timing["sendEnd"])

    session.on("Network.responseReceived", answered)
    page.add_script_tag(content=WATCH)
    page.wait_for_timeout(READING_MS)
    times = []
    for n in range(toggles):
        times.append(page.evaluate(f"timed({selector!r}, () => {click(n // 2)})"))
        page.wait_for_timeout(60)
    worst = float(max(times))
    if worst >= 5000:
        raise RuntimeError(f"a toggle changed nothing on {page.url}")
    milliseconds = (
        *np.percentile(times, (50, 95)),
        worst,
        *np.percentile(served, (50, 95)),
        sum(received) / 1024 / toggles,
    )
    return Latency(*(round(float(x), 1) for x in milliseconds))


@contextmanager
def opened(url: str) -> Iterator[Page]:
    """Open a page in a new browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=installed_browser(), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        yield page
        browser.close()


def compare(engine: SearchEngine, text: str, where: str, toggles: int) -> dict[str, Any]:
    """Measure the explorer and the baseline on the same query and concepts."""
    query = engine.encode(text)
    concepts = changing_concepts(engine, query, where)
    if not concepts:
        raise ValueError(f"no concept of {text!r} changes the results; give another --query")
    served = start(engine, port=7970)
    with opened(f"{served.url}/?{urlencode({'q': text, 'where': where})}") as page:
        page.wait_for_function("window.Sieve && Sieve.idle")
        page.wait_for_selector(TILES)
        rows = page.locator(".sv-dim[data-d]").evaluate_all("all => all.map(row => row.dataset.d)")
        concepts = {j: members for j, members in concepts.items() if str(j) in rows}

        def explorer_click(n: int) -> str:
            j = list(concepts)[n % len(concepts)]
            return f"document.querySelector('.sv-dim[data-d=\"{j}\"] > label > input').click()"

        explorer = measure(page, TILES, explorer_click, toggles)
    served.app.close()
    baseline_app = gallery_app(engine, query, concepts, where)
    _, url, _ = baseline_app.queue().launch(prevent_thread_lock=True, quiet=True, server_port=7971)
    with opened(url) as page:
        page.wait_for_selector(GALLERY)

        def gallery_click(n: int) -> str:
            at = n % len(concepts)
            return f"document.querySelectorAll('input[type=checkbox]')[{at}].click()"

        baseline = measure(page, GALLERY, gallery_click, toggles)
    baseline_app.close()
    return {
        "collection": engine.collection.name,
        "items": engine.collection.n_items,
        "query": text,
        "where": where,
        "toggles": toggles,
        "explorer": asdict(explorer),
        "gallery": asdict(baseline),
        "ratio_p95": round(explorer.p95_ms / baseline.p95_ms, 3),
        "limit_ms": LIMIT_MS if engine.collection.n_items <= SMALL else LARGE_LIMIT_MS,
        "load_before": round(os.getloadavg()[0], 2),
    }


def synthetic_engine(folder: Path, n: int) -> SearchEngine:
    """Create and open a synthetic collection of `n` items; sets $SIEVE_HOME to a subfolder."""
    make(folder, n, str(folder / "home"), pictures=True)
    return SearchEngine.open(folder / "collection", (folder / "checkpoint").read_text(), "cpu")


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="scenes")
    parser.add_argument("--checkpoint")
    parser.add_argument("--items", type=int, help="use a synthetic collection of this size")
    parser.add_argument("--folder", type=Path, help="parent of its temporary folder")
    parser.add_argument("--query", default="a dog")
    parser.add_argument("--where", default="", help="filter of the items")
    parser.add_argument("--toggles", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.items:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            engine = synthetic_engine(Path(folder), args.items)
            found = compare(engine, args.query, args.where, args.toggles)
    else:
        engine = SearchEngine.open(locate_collection(args.collection), args.checkpoint)
        found = compare(engine, args.query, args.where, args.toggles)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name in ("explorer", "gallery"):
        one = found[name]
        print(
            f"{name:>9}  p50 {one['p50_ms']:6.0f} ms  p95 {one['p95_ms']:6.0f} ms  "
            f"worst {one['worst_ms']:6.0f} ms  server {one['server_p50_ms']:4.0f} and "
            f"{one['server_p95_ms']:4.0f} ms  {one['kilobytes']:6.1f} kB per toggle"
        )
    print(f"ratio of p95: {found['ratio_p95']}; limit {found['limit_ms']:.0f} ms")


if __name__ == "__main__":
    main()
