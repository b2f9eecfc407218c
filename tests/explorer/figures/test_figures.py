"""Drawn figures: their text, size, images, frames and bytes."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib import rc_context
from PIL import Image

from explorer.cli import main
from explorer.figures.content import figure_content
from explorer.figures.drawing import KINDS, draw_figure, preview_figure
from explorer.figures.files import KEPT_SECONDS, Download, figure_download, keep_file, recipe_for
from explorer.figures.recipe import Recipe, parse_recipe

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"
ALL = ["violations", "names", "captions", "scores"]
ROWS = [{"query": "a circle"}, {"query": "a circle", "without": "snow", "strictness": 0}]


def recipe(**fields: Any) -> Recipe:
    return Recipe.from_json({"rows": ROWS, "columns": 5, "width_cm": 12, **fields})


def streams(pdf: bytes) -> list[bytes]:
    found = []
    for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompress(part))
        except zlib.error:
            found.append(part)
    return found


def pdf_text(pdf: bytes) -> str:
    """The text of a PDF of TrueType fonts whose codes are characters'."""
    page = next(stream for stream in streams(pdf) if b" Tf\n" in stream and b"BT\n" in stream)
    shown = re.findall(rb"BT\n(.*?)ET\n", page, re.DOTALL)
    pieces = (b"".join(re.findall(rb"\(((?:\\.|[^\\)])*)\)", part)) for part in shown)
    return "\n".join(piece.replace(b"\0", b"").decode("latin-1") for piece in pieces)


def test_pdf_has_its_size_its_text_and_its_origin(tiny_engine) -> None:
    drawn = draw_figure(tiny_engine, recipe(), "pdf")
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", drawn.data)
    assert box
    width, height = (float(side) / 72 * 2.54 for side in box.groups())
    assert width == pytest.approx(12, abs=0.005) == drawn.width_cm
    assert height == pytest.approx(drawn.height_cm, abs=0.005)
    assert b"/FontFile2" in drawn.data and b"/ToUnicode" in drawn.data
    assert b"/Type3" not in drawn.data
    assert "a circle\na circle\nwithout snow\n" in pdf_text(drawn.data)
    for origin in (tiny_engine.collection.sha256, tiny_engine.checkpoint.sha256):
        assert origin.encode() in drawn.data
    assert b"CreationDate" not in drawn.data


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="poppler's pdftotext is not installed")
def test_text_can_be_copied_out_of_the_pdf(tiny_engine, tmp_path: Path) -> None:
    odd = "犬 Ελλάδα $x^2$ <script>alert(1)</script>"
    drawn = draw_figure(tiny_engine, recipe(rows=[{"query": odd}], width_cm=40), "pdf")
    (tmp_path / "f.pdf").write_bytes(drawn.data)
    told = subprocess.run(["pdftotext", tmp_path / "f.pdf", "-"], capture_output=True, text=True)
    assert told.returncode == 0
    assert odd.replace("犬", "□") in " ".join(told.stdout.split())
    assert any("No font here has 犬" in note for note in drawn.notes)


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
    assert any("fewer than 300 dpi" in note for note in drawn.notes), "the pictures are 48 × 36"


def test_png_has_300_dpi(tiny_engine) -> None:
    drawn = draw_figure(tiny_engine, recipe(), "png")
    with Image.open(io.BytesIO(drawn.data)) as image:
        assert image.width == pytest.approx(12 / 2.54 * 300, abs=1)
        assert image.height == pytest.approx(drawn.height_cm / 2.54 * 300, abs=2)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert tiny_engine.checkpoint.sha256 in image.info["Description"]


def svg_of(engine: Any, **fields: Any) -> ElementTree.Element:
    return ElementTree.fromstring(draw_figure(engine, recipe(**fields), "svg").data)


def lines_of(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()).strip() for text in svg.iter(f"{SVG}text")]


def test_svg_has_text_as_text(tiny_engine) -> None:
    lines = lines_of(svg_of(tiny_engine, marks=ALL))
    content = figure_content(tiny_engine, recipe())
    assert {"a circle", "without snow", "strictness 0"} <= set(lines)
    score = f"{content[0].tiles[0].score:.2f}".replace("0.", ".", 1)
    assert score in lines
    plain = lines_of(svg_of(tiny_engine, marks=[]))
    assert plain == ["a circle", "a circle", "without snow"]


def test_markup_stays_text(tiny_engine) -> None:
    odd = '<script>alert("1")</script> ]]> &amp; $\\frac{1}{2}$'
    svg = svg_of(tiny_engine, rows=[{"query": odd}], width_cm=40)
    assert odd in " ".join(lines_of(svg))
    assert not list(svg.iter(f"{SVG}script"))


def frames(svg: ElementTree.Element) -> list[ElementTree.Element]:
    return [path for path in svg.iter(f"{SVG}path") if "dasharray" in path.get("style", "")]


def test_violations_are_framed_by_dashes(tiny_engine) -> None:
    rows = figure_content(tiny_engine, recipe())
    labels = tiny_engine.collection.items["labels"]
    assert [tile.violates for tile in rows[0].tiles] == [False] * 5, "nothing is excluded"
    expected = ["snow" in labels.iloc[tile.row] for tile in rows[1].tiles]
    assert [tile.violates for tile in rows[1].tiles] == expected
    assert any(expected), "at strictness 0 some are expected"
    assert len(frames(svg_of(tiny_engine))) == sum(expected) + 1, "and one that explains them"
    assert not frames(svg_of(tiny_engine, marks=["names"]))


def test_rows_are_the_engines(tiny_engine) -> None:
    table = tiny_engine.dimension_table()
    j = int(table["firing_images"].to_numpy().argmax())
    item = tiny_engine.collection.items["id"].iloc[7]
    rows = [{"dimension": j}, {"image": item, "strictness": "never", "off": [j]},
            {"query": "a circle", "off": []}]  # fmt: skip
    by_dimension, by_image, by_words = figure_content(tiny_engine, recipe(rows=rows))
    assert by_dimension.title == tiny_engine.name_of(j)
    top = [example.row for example in tiny_engine.dimension(j).top_images[:5]]
    assert [tile.row for tile in by_dimension.tiles] == top
    found = tiny_engine.search(tiny_engine.encode(item=item), (j,), never=True, top=5)
    assert [tile.row for tile in by_image.tiles] == [result.row for result in found.results]
    assert (by_image.image, by_image.title) == (7, "")
    assert "strictness never" in by_image.small
    assert by_words.small == ()
    assert draw_figure(tiny_engine, recipe(rows=rows, tiles="whole"), "svg").data


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"columns": 24, "width_cm": 6}, "24 columns do not fit 6 cm: an image would be "),
        ({"rows": ROWS * 20, "columns": 1, "width_cm": 40}, "cm high, at most 60 can be drawn"),
        ({"rows": [{"dimension": 640}]}, "row 1: there is no dimension 640; this checkpoint has"),
        ({"rows": [ROWS[0], {"image": "0" * 16}]}, "row 2: collection tiny has no item '0000"),
        ({"font": "No Such"}, "font: no TrueType family 'No Such' is installed"),
        ({"checkpoint": "0123456789"}, "the recipe was made with checkpoint 0123456789, but tiny"),
        ({"collection_sha256": "0" * 64}, "made from a collection with hash 000000000000, but"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_one_line(tiny_engine, fields: dict, line: str) -> None:
    with pytest.raises(ValueError) as raised:
        draw_figure(tiny_engine, recipe(**fields), "pdf")
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_lost_originals_are_told(tiny_engine) -> None:
    engine = copy.copy(tiny_engine)
    engine.collection = copy.copy(tiny_engine.collection)
    items = tiny_engine.collection.items.assign(image="nowhere.jpg")
    engine.collection.__dict__ |= {"items": items}
    notes = draw_figure(engine, recipe(columns=1, width_cm=3), "svg").notes
    assert any(re.match(r"[12] originals? w(as|ere) not found where", note) for note in notes)
    assert not preview_figure(engine, recipe(columns=1, width_cm=3)).notes


def test_a_query_without_results_says_so(tiny_engine) -> None:
    everything = list(range(tiny_engine.image_codes.m))
    rows = [{"query": "a circle", "off": everything, "strictness": "never"}]
    assert "nothing found" in lines_of(svg_of(tiny_engine, rows=rows))


def test_a_persons_own_settings_change_nothing(tiny_engine) -> None:
    dark: dict[Any, Any] = {"figure.facecolor": "black", "savefig.bbox": "tight", "savefig.dpi": 50,
            "pdf.compression": 0, "font.family": ["monospace"], "text.color": "red"}  # fmt: skip
    for kind in KINDS:
        before = draw_figure(tiny_engine, recipe(), kind).data
        with rc_context(dark):
            assert draw_figure(tiny_engine, recipe(), kind).data == before


def test_another_version_is_told(tiny_engine) -> None:
    notes = draw_figure(tiny_engine, recipe(version="0.0.1"), "svg").notes
    assert any("The recipe is of Sieve 0.0.1" in note for note in notes)


def test_the_preview_has_the_places_of_the_print(tiny_engine) -> None:
    printed, shown = (
        draw_figure(tiny_engine, recipe(), "png"),
        preview_figure(tiny_engine, recipe()),
    )
    assert (printed.width_cm, printed.height_cm) == (shown.width_cm, shown.height_cm)
    sizes = [Image.open(io.BytesIO(drawn.data)).size for drawn in (printed, shown)]
    assert sizes[0] == pytest.approx([2 * side for side in sizes[1]], abs=1)


def sieve(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("home")
def test_every_process_gives_the_same_bytes(
    tiny_collection, tiny_checkpoint, tmp_path: Path
) -> None:
    short = tmp_path / "short.json"
    short.write_text(json.dumps({"rows": ROWS, "columns": 4, "width_cm": 9, "marks": ALL}))
    where = ("--checkpoint", str(tiny_checkpoint.path), "--collection", str(tiny_collection.path))
    for kind in KINDS:
        out = tmp_path / f"one.{kind}"
        assert sieve("figure", short, "-o", out, "--latex", "--recipe", *where) == 0
    full = tmp_path / "one.json"
    commands = [["figure", str(full), "-o", str(tmp_path / f"two.{k}"), *where] for k in KINDS]
    script = (
        "import sys, json\nfrom explorer.cli import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try: main(command)\n    except SystemExit as end: assert not end.code, end.code\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    settings = {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        cwd=ROOT, env=os.environ | settings, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for kind in KINDS:
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two, kind
    written = parse_recipe(full.read_text())
    assert written.checkpoint == tiny_checkpoint.sha256
    assert written.collection_sha256 == tiny_collection.sha256
    assert r"{one.png}" in (tmp_path / "one.tex").read_text()


@pytest.mark.usefixtures("home")
def test_command_faults_are_one_line(
    tiny_collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"rows": ROWS}))
    hashed = tmp_path / "hashed.json"
    hashed.write_text(json.dumps({"rows": ROWS, "checkpoint": "0123456789abcdef"}))
    out = tmp_path / "figure.pdf"
    there = ("--collection", tiny_collection.path)
    for arguments, line in (
        ((path, "-o", tmp_path / "figure.jpg"), "figure.jpg: a figure is a .pdf, .svg or .png"),
        ((path, "-o", tmp_path / "no" / "figure.pdf"), "there is no folder"),
        ((tmp_path / "none.json", "-o", out), "there is no recipe"),
        ((path, "-o", out), "no collection is named; add one, or --collection"),
        ((hashed, "-o", out, *there), "there is no checkpoint with hash 0123456789ab; say where"),
    ):
        capsys.readouterr()
        assert sieve("figure", *arguments) == 1
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1, said
    assert sorted(tmp_path.glob("*figure*")) == []


@pytest.mark.usefixtures("home")
def test_the_recipe_itself_is_not_written_over(
    tiny_collection, tiny_checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figure.json"
    path.write_text(json.dumps({"rows": ROWS, "columns": 4}))
    before = path.read_bytes()
    where = ("--checkpoint", tiny_checkpoint.path, "--collection", tiny_collection.path)
    assert sieve("figure", path, "-o", tmp_path / "figure.pdf", "--recipe", *where) == 1
    assert "figure.json is the recipe itself" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_served_recipe_is_of_what_is_open(tiny_engine) -> None:
    assert recipe_for(tiny_engine, {"rows": ROWS, "collection": "some/path/tiny"})
    with pytest.raises(ValueError, match="for collection 'scenes'; here 'tiny' is open"):
        recipe_for(tiny_engine, {"rows": ROWS, "collection": "scenes"})
    with pytest.raises(ValueError, match="kind must be one of pdf, svg, png, tex, json; got 'exe'"):
        figure_download(tiny_engine, recipe(), "exe")
    written = figure_download(tiny_engine, recipe(), "json").data
    assert recipe_for(tiny_engine, json.loads(written)).collection == "tiny"


def test_files_are_forgotten_after_an_hour(tmp_path: Path) -> None:
    old = keep_file(Download("figure.pdf", "application/pdf", b"old"), tmp_path)
    long_ago = old.stat().st_mtime - KEPT_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    new = keep_file(Download("figure.pdf", "application/pdf", b"new"), tmp_path)
    assert new.read_bytes() == b"new" and not old.parent.exists()


def test_nothing_is_cut_off(tiny_engine) -> None:
    for marks in (ALL, ["violations"], []):
        svg = svg_of(tiny_engine, marks=marks, font_size=12)
        height = float(svg.get("height", "").removesuffix("pt"))
        width = float(svg.get("width", "").removesuffix("pt"))
        ends = [
            float(y)
            for path in svg.iter(f"{SVG}path")
            for y in re.findall(r"[ML] [\d.-]+ ([\d.-]+)", path.get("d", ""))
        ]
        assert min(ends) >= 0 and max(ends) <= height
        for text in svg.iter(f"{SVG}text"):
            x, y = float(text.get("x", "nan")), float(text.get("y", "nan"))
            assert 0 <= x < width and 0 < y < height
