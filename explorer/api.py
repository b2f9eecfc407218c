"""The programming interface for `gradio_client` and HTTP.

`/encode`, `/search`, `/dimension` and `/figure`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api
from gradio.utils import get_upload_folder

from sieve.explorer.concurrency import MAX_ANSWER_BYTES
from sieve.explorer.errors import one_line
from sieve.explorer.figures.drawing import (
    Kind,
    figure_download,
    figures_folder,
    keep_file,
    recipe_for,
)
from sieve.explorer.json_validation import read_whole, shown
from sieve.explorer.serialize import page_json, query_json, search_report
from sieve.explorer.view_state import MAX_OFF, MAX_TEXT_CHARACTERS, NEVER

if TYPE_CHECKING:
    from sieve.explorer.tabs.search import SearchHandlers

P = ParamSpec("P")
R = TypeVar("R")


def add_api(desk: SearchHandlers, *, mcp: bool = False) -> None:
    """Add the endpoints; call inside a `gr.Blocks`.

    Parameters
    ----------
    desk : SearchHandlers
        Where strangers ask it, `/figure` is left out: its answer is a file that has to be written.
    mcp : bool
        The public endpoints are tools of the Model Context Protocol too; those only read, so
        `/figure` is then none that is listed.
    """
    engine = desk.engine

    @_told_in_one_line
    def encode(text: str, without: str = "") -> dict[str, Any]:
        """Tell which dimensions a query has, and which of them "without" proposes to switch off.

        Args:
            text: What is wanted, in words.
            without: What is not wanted, in words; empty for nothing.

        Returns:
            query, without, excluded (its phrases), dimensions (dimension, name, strength,
            without_strength, off), notes and suggestion (another reading, or null).
        """  # noqa: D406, D407
        return query_json(desk.encode(_text("text", text), _text("without", without)))

    @_told_in_one_line
    def search(
        text: str,
        without: str = "",
        off: list[int] | None = None,
        strictness: float | str = 1.0,
        top: int = 10,
        copies: bool = False,
    ) -> dict[str, Any]:
        """Find images that show one thing without another, with a code's dimensions switched off.

        Args:
            text: What is wanted, in words.
            without: What is not wanted, in words; empty for nothing.
            off: The complete set of dimensions that are off; null for what "without" proposes.
            strictness: From 0 (off dimensions are ignored) to 1 (they push away), or "never".
            top: How many results, 1 to 200.
            copies: Whether every copy of a picture takes a place of its own.

        Returns:
            query, without, off, results (id, file, score, captions, labels, copies, contributions)
            and notes.
        """  # noqa: D406, D407
        query = desk.encode(_text("text", text), _text("without", without))
        number, never = read_strictness(strictness)
        if not isinstance(copies, bool):
            raise ValueError(f"copies must be true or false; got {copies!r:.40}")
        outcome = engine.search(
            query, _off(off), number, never, read_whole("top", top), fold=not copies
        )
        return search_report(query, outcome)

    @_told_in_one_line
    def dimension(dimension: int) -> dict[str, Any]:
        """Tell what is known of one dimension.

        Args:
            dimension: Its number, from 0.

        Returns:
            name, naming, label, statistics, words, top_images, top_captions, similar, coactive.
        """  # noqa: D406, D407
        return page_json(engine.dimension(read_whole("dimension", dimension)))

    @_told_in_one_line
    def figure(recipe: dict[str, Any], kind: Kind = "pdf") -> FileData:
        """Draw a paper figure from a recipe.

        Args:
            recipe: As `sieve figure` reads it; its collection may be left out.
            kind: pdf, svg or png for the figure; tex for its LaTeX block; json for its full recipe.

        Returns:
            The file.
        """  # noqa: D406, D407
        made = figure_download(engine, recipe_for(engine, recipe), kind, desk.encode)
        path = keep_file(made, figures_folder(Path(get_upload_folder())))
        return FileData(path=str(path), orig_name=made.name, mime_type=made.mime)

    api(encode, api_name="encode", concurrency_id="model", concurrency_limit=1)
    api(search, api_name="search", concurrency_id="model", concurrency_limit=1)
    api(dimension, api_name="dimension")
    if not desk.public:
        shown = "undocumented" if mcp else "public"
        turn = {"concurrency_id": "figure", "concurrency_limit": 1}
        api(figure, api_name="figure", api_visibility=shown, **turn)


def read_strictness(value: float | str) -> tuple[float, bool]:
    """Read a strictness as s in [0, 1] and whether it is "never".

    Raises
    ------
    ValueError
        If it is neither a number from 0 to 1 nor "never".
    """
    if value == NEVER:
        return 1.0, True
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(
            f"strictness must be a number from 0 to 1, or {NEVER!r}; got {shown(value)}"
        )
    return number, False


def _told_in_one_line(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            answer = function(*args, **kwargs)
            if isinstance(answer, dict) and len(json.dumps(answer)) > MAX_ANSWER_BYTES:
                raise ValueError(
                    f"the answer has more than {MAX_ANSWER_BYTES >> 20} MB; ask for fewer results"
                )
        except (ValueError, FileNotFoundError) as error:
            raise gr.Error(one_line(error), print_exception=False) from None
        return answer

    return call


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text; got {value!r:.40}")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise ValueError(
            f"{name} has {len(value):,} characters; at most {MAX_TEXT_CHARACTERS:,} are read"
        )
    return value


def _off(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"off must be a list of dimensions, or null; got {value!r:.40}")
    if len(value) > MAX_OFF:
        raise ValueError(f"off may name {MAX_OFF:,} dimensions; got {len(value):,}")
    return tuple(read_whole("off", j) for j in value)
