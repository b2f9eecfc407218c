"""Test the HTML of results in notebooks: complete, and without markup from data."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

import sieve
from sieve.model.engine import SearchEngine

PAYLOAD = "<img src=x onerror=alert(1)>\"'</style><script>alert(2)</script>&amp;{0}{x}%s"


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone_dir: Path, tiny_checkpoint
) -> sieve.Engine:
    """A collection whose captions, labels, files and names of dimensions are markup."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "images").mkdir()
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(("image", "caption", "labels"))
        for number in range(6):
            name = f"{number}<b>'&.png"
            Image.new("RGB", (40, 30), (number * 40, 90, 60)).save(folder / "images" / name)
            rows.writerow((name, f"{PAYLOAD} {number}", PAYLOAD))
    path = sieve.prepare_folder(
        folder / "images", folder / "captions.csv", out=folder / "made",
        backbone=f"local-dir:{tiny_backbone_dir}", progress=False, workers=0, device="cpu",
    )  # fmt: skip
    engine = SearchEngine.open(path, tiny_checkpoint.path, "cpu")
    names = {j: f"{PAYLOAD} {j}" for j in range(64)}
    engine.renamed = lambda: names
    return sieve.Engine(engine)


def test_markup_in_data_is_text(hostile: sieve.Engine) -> None:
    item = hostile.items["id"].iloc[0]
    results = hostile.search(PAYLOAD, without=f"snow {PAYLOAD}")
    by_item = hostile.search(item=item, off=[3, 5])
    firing = int(hostile.dimensions["firing_images"].idxmax())
    for shown in (
        results,
        by_item,
        by_item[0],
        hostile.dimension(firing),
        by_item.explain(by_item[0], by_item[1]),
        hostile.explain(item, PAYLOAD),
        hostile.encode(texts=[PAYLOAD]),
    ):
        page = Page(shown._repr_html_())
        assert {tag for tag, _ in page.elements} <= {
            "style", "div", "p", "span", "b", "i", "s", "h4", "img",
        }  # fmt: skip
        for _, attributes in page.elements:
            assert set(attributes) <= {"class", "title", "style", "src", "alt"}
            assert (attributes.get("src") or "data:image/webp;base64,").startswith("data:image/")
        assert "<img src=x onerror" in page.text, type(shown)


def test_results_show_images_captions_and_contributions(tiny_engine: SearchEngine) -> None:
    results = sieve.Engine(tiny_engine).search("a circle", without="the snow", top=4)
    page = Page(results._repr_html_())
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert [image["alt"] for image in images] == [result.captions[0] for result in results]
    assert "“a circle” without “the snow”" in page.text
    off = results.concepts["name"][results.concepts["off"] > 0]
    assert len(off)
    for name in [*off, results[0].concepts["name"].iloc[0]]:
        assert name in page.text


def test_missing_thumbnail_is_replaced_by_a_note(
    hostile: sieve.Engine, tmp_path: Path, tiny_checkpoint
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(hostile._engine.collection.path, copy)
    shutil.rmtree(copy / "thumbnails")
    engine = sieve.Engine.open(copy, tiny_checkpoint.path)
    page = Page(engine.search(item=engine.items["id"].iloc[0])._repr_html_())
    assert "no image" in page.text
    assert not [tag for tag, _ in page.elements if tag == "img"]


def test_codes_are_summarised_by_their_strongest_dimensions(tiny_engine: SearchEngine) -> None:
    engine = sieve.Engine(tiny_engine)
    codes = engine.encode(texts=["a circle", "the snow"])
    assert repr(codes).startswith("NamedCodes(2 rows, 64 dimensions, ")
    page = Page(codes._repr_html_())
    for row, part in codes.to_pandas().groupby("row"):
        assert f"Row {row}" in page.text and f"#{part['dimension'].iloc[0]}" in page.text
    assert repr(engine.encode(texts=[])) in Page(engine.encode(texts=[])._repr_html_()).text
    assert len(repr(engine.codes)) < 100 and "Row 5" not in engine.codes._repr_html_()


def test_filter_and_hidden_images_are_stated(tiny_engine: SearchEngine) -> None:
    results = sieve.Engine(tiny_engine).search(
        "a circle", without="the snow", strictness="never:0.2", where="not caption:night"
    )
    text = Page(results._repr_html_()).text
    assert "Only not caption:night" in text and f"Hides {results.hides}" in text
    assert results.hides


def test_contributions_that_round_to_nothing_are_left_out(tiny_engine: SearchEngine) -> None:
    results = sieve.Engine(tiny_engine).search("a circle", top=12)
    page = Page(results._repr_html_())
    widths = [a["style"] for tag, a in page.elements if tag == "i"]
    assert widths and "width: 0%" not in widths
