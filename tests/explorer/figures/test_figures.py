"""Test the content of figures: results, violation frames, notes and errors."""

from __future__ import annotations

import copy
import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from drawn import ALL, ROWS, SVG, lines_of, recipe, svg_of
from PIL import Image

from sieve.explorer.figures import Recipe
from sieve.explorer.figures.content import figure_content
from sieve.explorer.figures.drawing import draw_figure, latex_block, preview_figure
from sieve.explorer.figures.fonts import FontMetrics
from sieve.explorer.figures.layout import lay_out
from sieve.model.exclusion import Strictness
from sieve.model.set_difference import compare_sets


def frames(svg: ElementTree.Element) -> list[ElementTree.Element]:
    return [path for path in svg.iter(f"{SVG}path") if "dasharray" in path.get("style", "")]


def test_violations_have_a_dashed_frame(tiny_engine) -> None:
    rows = figure_content(tiny_engine, recipe())
    labels = tiny_engine.collection.items["labels"]
    for row in rows:
        expected = ["snow" in labels.iloc[tile.row] for tile in row.tiles]
        assert [tile.violates for tile in row.tiles] == expected, "by what the pair excludes"
    assert any(expected), "at strictness 0 some are expected"
    framed = sum(tile.violates for row in rows for tile in row.tiles)
    assert len(frames(svg_of(tiny_engine))) == framed + 1, "and one that explains them"
    assert not frames(svg_of(tiny_engine, marks=["names"]))


def test_row_without_an_exclusion_has_no_violations(tiny_engine) -> None:
    rows = [{"query": "a circle"}, {"query": "a square", "without": "snow", "strictness": 0}]
    alone, other = figure_content(tiny_engine, recipe(rows=rows))
    assert not any(tile.violates for tile in alone.tiles)
    assert any(tile.violates for tile in other.tiles)


def test_rows_equal_the_results_of_the_engine(tiny_engine) -> None:
    table = tiny_engine.dimension_table()
    j = int(table["firing_images"].to_numpy().argmax())
    item = tiny_engine.collection.items["id"].iloc[7]
    rows = [{"dimension": j}, {"image": item, "strictness": "never", "off": [j]},
            {"query": "a circle", "off": []}]  # fmt: skip
    by_dimension, by_image, by_words = figure_content(tiny_engine, recipe(rows=rows))
    assert by_dimension.title == tiny_engine.name_of(j)
    top = [example.row for example in tiny_engine.dimension(j).top_images[:5]]
    assert [tile.row for tile in by_dimension.tiles] == top
    found = tiny_engine.search(tiny_engine.encode(item=item), (j,), Strictness(never=True), top=5)
    assert [tile.row for tile in by_image.tiles] == [result.row for result in found.results]
    assert (by_image.image, by_image.title) == (7, "")
    assert "never, P ≥ 50%" in by_image.small
    assert by_words.small == ()
    assert draw_figure(tiny_engine, recipe(rows=rows, tiles="whole"), "svg").data


def test_rows_say_that_they_push_away_where_others_exclude_in_another_way(tiny_engine) -> None:
    row = {"query": "a circle", "without": "the snow"}
    alone, *_ = figure_content(tiny_engine, recipe(rows=[row, {"query": "a circle"}]))
    assert alone.small and "pushed away" not in alone.small
    pushed, never = figure_content(
        tiny_engine, recipe(rows=[row, row | {"strictness": "never:0.2"}])
    )
    assert pushed.small == (*alone.small, "pushed away")
    assert never.small[-1] == "never, P ≥ 20%"


def test_dimensions_have_a_row_each_in_their_order(tiny_engine) -> None:
    table = tiny_engine.dimension_table()
    listed = table["firing_images"].to_numpy().argsort()[::-1][:3].tolist()
    together = recipe(rows=[ROWS[0], {"dimensions": listed}])
    apart = recipe(rows=[ROWS[0], *({"dimension": j} for j in listed)])
    first, *content = figure_content(tiny_engine, together)
    assert (first.number, {row.number for row in content}) == (0, {1})
    assert [row.dimensions for row in content] == [(j,) for j in listed]
    assert [row.tiles for row in content] == [
        row.tiles for row in figure_content(tiny_engine, apart)[1:]
    ]
    drawn = draw_figure(tiny_engine, together, "svg")
    assert drawn.recipe.rows == together.rows, "the complete recipe has the row as it was given"
    assert draw_figure(tiny_engine, drawn.recipe, "svg").data == drawn.data
    assert {f"dimension {j}" for j in listed} <= set(lines_of(ElementTree.fromstring(drawn.data)))


def test_difference_has_a_row_for_each_concept(tiny_engine) -> None:
    sets = ("label:snow", "not label:snow")
    rows = [{"difference": list(sets), "concepts": 2}]
    content = figure_content(tiny_engine, recipe(rows=rows))
    found = compare_sets(tiny_engine, *sets)
    assert [row.dimensions for row in content] == [(j,) for j in found.significant["concept"][:2]]
    for row, one in zip(content, found.significant.to_dict("records"), strict=False):
        more, other = sorted((one["left_rate"], one["right_rate"]), reverse=True)
        assert row.small[0].endswith(f"snow: {more:.0%}")
        assert row.small[1].endswith(f"snow: {other:.0%}")
        side = found.left if more == one["left_rate"] else found.right
        assert row.tiles and {tile.row for tile in row.tiles} <= set(side.tolist())
    latex = latex_block(recipe(rows=rows), content, "f.pdf")
    assert f"{content[0].title}'' ({content[0].small[0]}".replace("%", r"\%") in latex
    assert "Percentages: images of each set in which the concept is active" in latex


def test_regions_of_the_concept_are_located_but_not_on_servers(tiny_engine) -> None:
    j = int(tiny_engine.dimension_table()["firing_images"].to_numpy().argmax())
    drawn = recipe(rows=[{"dimension": j}], columns=1, marks=["regions"], tiles="focus")
    (row,) = figure_content(tiny_engine, drawn)
    assert row.tiles[0].cells is not None and row.tiles[0].cells.shape == (7, 7)
    plain = draw_figure(tiny_engine, replace(drawn, marks=(), tiles="crop"), "png")
    assert draw_figure(tiny_engine, drawn, "png").data != plain.data
    with pytest.raises(ValueError, match="draw the recipe with `sieve figure`"):
        preview_figure(tiny_engine, drawn, tiny_engine.encode)


def test_narrow_figure_has_labels_above_its_images(tiny_engine) -> None:
    content = figure_content(tiny_engine, recipe())
    face = FontMetrics("serif", 8)
    for width, labels, is_above in (
        (8, "auto", True), (12, "auto", False), (8, "beside", False), (12, "above", True)
    ):  # fmt: skip
        layout = lay_out(recipe(width_cm=width, columns=3, labels=labels), content, face)
        left = min(picture.x for picture in layout.pictures)
        assert (left < 0.05) == is_above, (width, labels)
        first = next(word for word in layout.words if word.text.startswith("a circle"))
        tops = [picture.y for picture in layout.pictures]
        assert (first.y <= min(tops)) == is_above


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"columns": 24, "width_cm": 6}, "24 columns do not fit into 6 cm: an image would be "),
        ({"rows": ROWS * 20, "columns": 1, "width_cm": 40}, "cm high, the maximum is 60 cm"),
        (
            {"rows": [{"dimensions": [3, 4]}, {"dimensions": [5, 640]}]},
            "row 2: there is no dimension 640",
        ),
        ({"rows": [{"dimension": 640}]}, "row 1: there is no dimension 640; this checkpoint has"),
        ({"rows": [ROWS[0], {"image": "0" * 16}]}, "row 2: collection tiny has no item '0000"),
        ({"font": "No Such"}, "font: no TrueType family 'No Such' is installed"),
        ({"checkpoint": "0123456789"}, "the recipe was made with checkpoint 0123456789, but tiny"),
        ({"collection_sha256": "0" * 64}, "made with collection 000000000000, but"),
    ],
    ids=str,
)
def test_invalid_figures_are_one_line(tiny_engine, fields: dict, line: str) -> None:
    with pytest.raises(ValueError) as raised:
        draw_figure(tiny_engine, recipe(**fields), "pdf")
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_missing_originals_are_reported(tiny_engine) -> None:
    engine = copy.copy(tiny_engine)
    engine.collection = copy.copy(tiny_engine.collection)
    items = tiny_engine.collection.items.assign(image="nowhere.jpg")
    engine.collection.__dict__ |= {"items": items}
    notes = draw_figure(engine, recipe(columns=1, width_cm=3), "svg").notes
    assert any(re.match(r"[12] originals? w(as|ere) not found; thumbnails", note) for note in notes)
    assert not preview_figure(engine, recipe(columns=1, width_cm=3)).notes


def test_query_without_results_is_reported(tiny_engine) -> None:
    everything = list(range(tiny_engine.image_codes.m))
    rows = [{"query": "a circle", "off": everything, "strictness": "never"}]
    assert "nothing found" in lines_of(svg_of(tiny_engine, rows=rows))


def test_other_collection_version_is_reported(tiny_engine) -> None:
    notes = draw_figure(tiny_engine, recipe(version="0.0.1"), "svg").notes
    assert any("The recipe was made with Sieve 0.0.1" in note for note in notes)


def test_preview_has_the_layout_of_the_print(tiny_engine) -> None:
    printed, shown = (
        draw_figure(tiny_engine, recipe(), "png"),
        preview_figure(tiny_engine, recipe()),
    )
    assert (printed.width_cm, printed.height_cm) == (shown.width_cm, shown.height_cm)
    sizes = [Image.open(io.BytesIO(drawn.data)).size for drawn in (printed, shown)]
    assert sizes[0] == pytest.approx([2 * side for side in sizes[1]], abs=1)


def test_nothing_is_clipped(tiny_engine) -> None:
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


def test_sample_is_a_contact_sheet_of_random_live_dimensions(tiny_engine) -> None:
    def dimensions(seed: int) -> list[int]:
        asked = Recipe.from_json({"rows": [{"sample": 5, "seed": seed}], "columns": 8})
        drawn = draw_figure(tiny_engine, asked, "svg")
        (row,) = drawn.recipe.rows
        assert row.sample is None and row.dimensions and len(row.dimensions) == 5
        again = draw_figure(tiny_engine, drawn.recipe, "svg")
        assert again.data == drawn.data
        for dimension, shown in zip(row.dimensions, drawn.content, strict=True):
            assert shown.tiles
            named = tiny_engine.checkpoint.names.get(dimension)
            tested = [] if named is None or named.auc is None else [f"name AUC {named.auc:.2f}"]
            assert shown.small == (f"dimension {dimension}", *tested)
        return list(row.dimensions)

    assert dimensions(0) == dimensions(0) != dimensions(1)
    with pytest.raises(ValueError, match='a row with "sample" cannot have'):
        Recipe.from_json({"rows": [{"sample": 5, "without": "red"}]})
