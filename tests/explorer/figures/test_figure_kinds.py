"""Test figure files: size, text, resolution and metadata of PDF, PNG and SVG."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from drawn import ALL, SVG, lines_of, pdf_text, recipe, streams, svg_of
from matplotlib import rc_context
from PIL import Image

from sieve.explorer.figures.content import figure_content
from sieve.explorer.figures.drawing import KINDS, draw_figure


def test_pdf_has_size_text_and_metadata(tiny_engine) -> None:
    drawn = draw_figure(tiny_engine, recipe(), "pdf")
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", drawn.data)
    assert box
    width, height = (float(side) / 72 * 2.54 for side in box.groups())
    assert width == pytest.approx(12, abs=0.005) == drawn.width_cm
    assert height == pytest.approx(drawn.height_cm, abs=0.005)
    assert b"/FontFile2" in drawn.data and b"/ToUnicode" in drawn.data
    assert b"/Type3" not in drawn.data
    assert "a circle\na circle\nwithout the snow\n" in pdf_text(drawn.data)
    for origin in (tiny_engine.collection.sha256, tiny_engine.checkpoint.sha256):
        assert origin.encode() in drawn.data
    assert b"CreationDate" not in drawn.data


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="poppler's pdftotext is not installed")
def test_pdf_text_can_be_copied(tiny_engine, tmp_path: Path) -> None:
    odd = "犬 Ελλάδα $x^2$ <script>alert(1)</script>"
    drawn = draw_figure(tiny_engine, recipe(rows=[{"query": odd}], width_cm=40), "pdf")
    (tmp_path / "f.pdf").write_bytes(drawn.data)
    completed = subprocess.run(
        ["pdftotext", tmp_path / "f.pdf", "-"], capture_output=True, text=True
    )
    assert completed.returncode == 0
    assert odd.replace("犬", "□") in " ".join(completed.stdout.split())
    assert any("No font has 犬" in note for note in drawn.notes)


def test_images_have_300_dpi_at_their_printed_size(tiny_engine) -> None:
    drawn = draw_figure(tiny_engine, recipe(), "pdf")
    page = next(stream for stream in streams(drawn.data) if b"BT\n" in stream)
    sizes = re.findall(rb"([\d.]+) 0 0 -?([\d.]+) [\d. -]+ cm /I(\d+) Do", page)
    sizes += re.findall(rb"([\d.]+) 0 0 -?([\d.]+) 0 [\d.]+ cm /I(\d+) Do", page)
    pixels = [int(width) for width in re.findall(rb"/Width (\d+)", drawn.data)]
    assert len(pixels) == 10 and len(set(pixels)) == 1
    points = {float(width) for width, _, _ in sizes}
    assert len(points) == 1
    assert pixels[0] / (points.pop() / 72) == pytest.approx(300, abs=1)
    assert any("less than 300 dpi" in note for note in drawn.notes), "the pictures are 48 × 36"


def test_png_has_300_dpi(tiny_engine) -> None:
    drawn = draw_figure(tiny_engine, recipe(), "png")
    with Image.open(io.BytesIO(drawn.data)) as image:
        assert image.width == pytest.approx(12 / 2.54 * 300, abs=1)
        assert image.height == pytest.approx(drawn.height_cm / 2.54 * 300, abs=2)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert tiny_engine.checkpoint.sha256 in image.info["Description"]


def test_svg_text_is_text(tiny_engine) -> None:
    lines = lines_of(svg_of(tiny_engine, marks=ALL))
    content = figure_content(tiny_engine, recipe())
    assert {"a circle", "without the snow", "ignored"} <= set(lines)
    score = f"{content[0].tiles[0].score:.2f}".replace("0.", ".", 1)
    assert score in lines
    plain = lines_of(svg_of(tiny_engine, marks=[]))
    assert plain == ["a circle", "a circle", "without the snow"]


def test_markup_is_escaped(tiny_engine) -> None:
    odd = '<script>alert("1")</script> ]]> &amp; $\\frac{1}{2}$'
    svg = svg_of(tiny_engine, rows=[{"query": odd}], width_cm=40)
    assert odd in " ".join(lines_of(svg))
    assert not list(svg.iter(f"{SVG}script"))


def test_user_settings_of_matplotlib_are_ignored(tiny_engine) -> None:
    dark: dict[Any, Any] = {"figure.facecolor": "black", "savefig.bbox": "tight", "savefig.dpi": 50,
            "pdf.compression": 0, "font.family": ["monospace"], "text.color": "red"}  # fmt: skip
    for kind in KINDS:
        before = draw_figure(tiny_engine, recipe(), kind).data
        with rc_context(dark):
            assert draw_figure(tiny_engine, recipe(), kind).data == before
