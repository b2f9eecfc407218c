from __future__ import annotations

from sieve.explorer.figures import Recipe, Row
from sieve.explorer.figures.content import Content, Tile
from sieve.explorer.figures.drawing import file_stem, latex_block, latex_escape
from sieve.model.exclusion import Strictness

ROWS = (
    Content("a dog", "", (), None, (Tile(0, 0.5, "", False),)),
    Content("50 % & more", "$x_1$", (), None, (Tile(0, 0.5, "", True),)),
    Content("", "{", (), 3, ()),
)


def test_every_command_is_escaped() -> None:
    assert latex_escape(r"\a{b}$c&d#e%f_g~h^i<j>k|l\"") == (
        r"\textbackslash{}a\{b\}\$c\&d\#e\%f\_g\textasciitilde{}h\textasciicircum{}i"
        r"\textless{}j\textgreater{}k\textbar{}l\textbackslash{}{\char34}"
    )


def test_latex_block_describes_the_figure() -> None:
    recipe = Recipe(rows=(Row("a"),), columns=4, width_cm=17, label="fig:dogs")
    lines = latex_block(recipe, ROWS, "my figure}.pdf").splitlines()
    assert lines[1] == r"\begin{figure*}" and lines[-1] == r"\end{figure*}"
    assert r"  \includegraphics[width=17cm]{my-figure-.pdf}" in lines
    assert r"  \label{fig:dogs}" in lines
    assert lines[4] == (
        r"  \caption{Top 4 images of each row: ``a dog''; ``50 \% \& more'' without ``\$x\_1\$''; "
        r"images like the one shown without ``\{''. "
        r"Dashed frames: labels or captions name what is excluded.}"
    )


def test_narrow_figure_fits_a_column() -> None:
    recipe = Recipe(rows=(Row("a"),), width_cm=8.46, caption="Dogs & <b>cats</b>")
    block = latex_block(recipe, ROWS, "f.pdf")
    assert r"\begin{figure}" in block and "*" not in block
    assert r"\caption{Dogs \& \textless{}b\textgreater{}cats\textless{}/b\textgreater{}}" in block


def test_caption_and_name_say_how_a_row_excludes() -> None:
    rows = tuple(
        Content("a dog", "a beach", (), None, (), (17,), level)
        for level in (Strictness(), Strictness(0.5), Strictness(1, True, 0.2))
    )
    block = latex_block(Recipe(rows=(Row("a"),)), rows, f"{file_stem(rows)}.pdf")
    assert "{a-dog-without-a-beach.pdf}" in block
    for how in ("push away", r"pushed away at 50\%", r"never, P $\geq$ 20\%"):
        assert f"``a dog'' without ``a beach'' ({how})" in block
    assert r"Never: images that show what is excluded with a probability of at least 20\%" in block
    assert "Push away: what is excluded lowers an image's score." in block


def test_file_names_have_no_special_characters() -> None:
    row = Content("../../étoile: 50 % $x$ /" + "long " * 99, "", (), None, ())
    name = file_stem((row,))
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and len(name) <= 60
