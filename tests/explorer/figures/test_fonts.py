from __future__ import annotations

import warnings

import pytest

from sieve.explorer.figures.fonts import FontMetrics

LONG = "a very long query about a dog that runs along the beach, again and again"


@pytest.fixture(scope="module")
def face() -> FontMetrics:
    return FontMetrics("sans", 8)


@pytest.mark.parametrize(
    "text", [LONG, "x" * 300, "اللغة العربية طويلة جدا " * 4, "$x^2$ \\frac{a}{b} <b> " * 5]
)
def test_lines_fit_their_width(face: FontMetrics, text: str) -> None:
    lines = face.wrap(text, 8, 1.0, 50)
    assert len(lines) > 1
    assert all(face.width(line, 8) <= 1.0 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_overflowing_text_ends_in_an_ellipsis(face: FontMetrics) -> None:
    lines = face.wrap(LONG, 8, 1.0, 2)
    assert len(lines) == 2 and lines[1].endswith("…")
    assert face.width(lines[1], 8) <= 1.0
    assert face.wrap("a dog", 8, 1.0, 2) == ["a dog"]
    assert face.wrap("", 8, 1.0, 2) == []


def test_every_script_is_drawn_without_missing_glyph_warnings() -> None:
    face = FontMetrics("serif", 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = face.wrap("犬 שלום مرحبا Ελλάδα 🐶 a\U000e0061b", 8, 3.0, 3)
        assert face.width(lines[0], 8) > 0
    assert lines == ["□ שלום مرحبا Ελλάδα □ ab"]
    assert face.missing == {"犬", "🐶"}


def test_unknown_font_family_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^font: no TrueType family '<b>' is installed; .*sans"):
        FontMetrics("<b>", 8)
    assert FontMetrics("dejavu serif", 8).families[0] == "DejaVu Serif"
