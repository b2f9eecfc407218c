"""Actions of a user on the page, shared by the browser tests."""

from __future__ import annotations

import shutil
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Frame, Locator, Page, TimeoutError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
COLOURS = {"runOnly": ["color-contrast"]}
"""The only checks that dark mode can change."""
_REPEATED = (
    ".sv-table tbody tr:nth-child(n+8)", ".sv-tile:nth-child(n+8)", ".sv-dim:nth-child(n+8)",
    ".main-svg g.points",
)  # fmt: skip
"""Elements like those before them, which need not be checked."""


def skip_guide(context: BrowserContext) -> None:
    """Mark the guide as seen."""
    context.add_init_script("try { localStorage.setItem('sieve-guide', 'seen') } catch {}")


def installed_browser() -> str | None:
    """Return the path of a browser for tests and benchmarks."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def settle(page: Page | Frame) -> None:
    """Wait until no request is pending and the response is on the page."""
    page.wait_for_function("window.Sieve && Sieve.idle")


def go(page: Page, link: str = "") -> None:
    page.goto(f"/{link}")
    settle(page)


def saved(page: Page) -> None:
    """Wait for the message that annotations are saved, which is shown for 4 seconds."""
    page.wait_for_function("document.querySelector('.sv-save-status')?.textContent === 'Saved'")


def search(page: Page | Frame, text: str, without: str = "") -> None:
    page.get_by_role("textbox", name="Find").fill(text)
    page.get_by_role("textbox", name="without").fill(without)
    page.get_by_role("button", name="Search", exact=True).click()
    settle(page)


def found(page: Page | Frame) -> list[str]:
    """Return the ids of the results in order."""
    tiles = page.locator(".sv-columns > .sv-grid > .sv-tile")
    return tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.id)")


def switches(page: Page | Frame, group: str = "on") -> Locator:
    """Locate the checkboxes of the proposed concepts, or of the others."""
    return page.locator(f".sv-group-{group} .sv-dim > label > input[type=checkbox]")


def dimensions_of(switch: Locator) -> list[int]:
    """Return the dimensions that the checkbox of a concept switches."""
    listed = switch.evaluate("box => box.closest('.sv-dim').dataset.dimensions")
    return [int(number) for number in listed.split()]


def has_sideways_scroll(page: Page) -> bool:
    """Return whether the page is wider than its window, after plots have been resized."""
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    try:
        page.wait_for_function(fits, timeout=5_000)
    except TimeoutError:
        return True
    return False


def preview(page: Page) -> Locator:
    """Wait until the preview is up to date and return its image."""
    page.locator(".sv-figure:not([aria-busy])").wait_for()
    return page.locator(".sv-sheet img")


def violations(page: Page, options: dict[str, Any] | None = None) -> list[str]:
    """Check the accessibility of the page and return what is wrong."""
    options = {"resultTypes": ["violations"], **(options or {})}
    checked = Axe().run(page, {"exclude": [[one] for one in _REPEATED]}, options)
    found = checked.response["violations"]
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]


def use_dark_mode(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
