"""Test malicious texts, links and files: escaped, or rejected with one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from browser.conftest import PAYLOAD
from browser.steps import found, go, search, settle


def png_bomb(width: int, height: int) -> bytes:
    """Return a PNG that declares too many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def jpeg(colour: str = "red", mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), colour).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


REFUSED = {
    "truncated.jpg": (jpeg()[:-40], "damaged"),
    "text.png": (b"not an image at all", "not an image of a known format"),
    "empty.png": (b"", "empty"),
    "large.png": (bytes(21 << 20), "21 MB; the limit is 20 MB"),
    "bomb.png": (png_bomb(60_000, 60_000), "too large"),
    "script.svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='pwned=1'/>",
        "not an image of a known format",
    ),
}


def choose(page: Page, name: str, data: bytes) -> None:
    files = {"name": name, "mimeType": "image/*", "buffer": data}
    page.locator("input[type=file]").set_input_files(files)


def test_invalid_images_are_rejected_with_one_line(page: Page) -> None:
    go(page, "?q=a+red+circle")
    before = found(page)
    for name, (data, reason) in REFUSED.items():
        choose(page, name, data)
        alert = page.locator(".sv-fault")
        expect(alert).to_contain_text(reason)
        assert "\n" not in alert.inner_text() and "Traceback" not in page.content()
        assert found(page) == before


def test_uploaded_image_can_be_used_as_query(page: Page) -> None:
    for mode in ("RGB", "CMYK", "L"):
        go(page)
        choose(page, f"{mode}.jpg", jpeg(mode=mode))
        expect(page.get_by_text("your image")).to_be_visible()
        settle(page)
        before = found(page)
        assert before, mode
        page.locator(".sv-group-on input").first.uncheck()
        settle(page)
        assert found(page) != before, mode
        assert "item=" not in page.url


def test_markup_in_data_is_escaped(page: Page, hostile_address: str) -> None:
    for place in (
        "?q=a+red+circle&without=snow&compare=1",
        "?tab=dimensions&dimension=0",
        "?q=a+red+circle&without=snow&tab=inspect&inspect=left:a+red+circle",
        "?tab=compare&versus=q:a+red+circle,without:snow",
        "",
    ):
        page.goto(f"{hostile_address}/{place}")
        settle(page)
        page.wait_for_timeout(300)
        assert PAYLOAD[:40] in page.inner_text("body")
        assert page.evaluate("window.pwned") is None
    search(page, f"{PAYLOAD}", PAYLOAD)
    page.locator(".sv-tile-open").first.click()
    page.get_by_role("dialog").get_by_text("Active concepts").wait_for()
    assert page.evaluate("window.pwned") is None
    page.locator(".sv-bars a").first.click()
    page.locator(".sv-page-head").wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0


def test_valid_parts_of_an_invalid_link_are_used(page: Page) -> None:
    for link, line in (
        ("strictness=abc", "strictness must be a number from 0 to 1"),
        ("off=1,two", "a dimension is a whole number"),
        ("off=99999", "there is no dimension 99999"),
        ("item=../../etc/passwd", "item must be the ID of an image"),
        ("tab=<script>", "tab must be 'search'"),
        ("checkpoint=other&off=1", "made with checkpoint 'other'"),
    ):
        go(page, f"?q=a+red+circle&{link}")
        expect(page.locator(".sv-banner")).to_contain_text(line)
        assert len(found(page)) == 24, link


def test_unknown_item_is_reported_and_the_collection_shown(page: Page) -> None:
    go(page, "?item=0123456789abcdef")
    expect(page.locator(".sv-fault")).to_contain_text("has no item")
    assert len(found(page)) == 24


def test_unusual_texts_are_searched(page: Page) -> None:
    go(page)
    for text in ("🐶🏖️", "كلب", "\u200b\u200d", "dog " * 2500, "a\tb\n'\"\\"):
        search(page, text)
        refused = page.get_by_role("alert").filter(has_text="no words to search for")
        assert found(page) or refused.is_visible(), text
        search(page, "a red circle")
        assert len(found(page)) == 24


def test_files_next_to_the_thumbnails_are_not_served(
    page: Page, address: str, tiny_engine, tmp_path: Path
) -> None:
    go(page)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = tiny_engine.collection.path
    item = found(page)[0]
    allowed = page.request.get(f"{address}/thumbnails/{item[:2]}/{item}.webp")
    assert allowed.ok
    for path in (secret, folder / "items.parquet", folder / "thumbnails/../collection.json"):
        assert not page.request.get(f"{address}/gradio_api/file={path}").ok, path
