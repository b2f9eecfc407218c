"""Search images by sparse disentangled codes, with dimensions switched off.

Sieve turns frozen embeddings of a dual encoder such as CLIP into sparse codes: `m` non-negative
dimensions, at most `k` of them active, shared by images and texts. Each dimension has a name and
can be switched off, so that "a dog, without a beach" is a search.

    import sieve

    engine = sieve.Engine.open("scenes")
    results = engine.search("a dog", without="a beach")
    results.to_pandas()

In a notebook, results, dimensions and explanations are shown with their images.

| to | use |
|---|---|
| search, encode, explain, draw figures | `Engine` |
| make a collection of a folder of images | `prepare_folder` |
| train a sparse encoder on it | `train` |
| open an encoder of another tool, or write one for it | `import_encoder`, `export_encoder` |
| open the explorer in the browser or in a notebook | `launch` |
| draw a figure from a recipe file | `figure` |

Errors that a user can correct are a `ValueError`, a `FileNotFoundError` or a `FileExistsError` with
a message of one line. All other modules of this package are internal and may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sieve._engine import Engine
    from sieve._paper_figure import PaperFigure
    from sieve._results import (
        DimensionSummary,
        Explanation,
        NamedCodes,
        SearchResult,
        SearchResults,
    )
    from sieve._workflows import (
        LaunchedExplorer,
        export_encoder,
        figure,
        import_encoder,
        launch,
        prepare_folder,
        train,
    )

    __version__: str

__all__ = [
    "Engine",
    "SearchResults",
    "SearchResult",
    "DimensionSummary",
    "Explanation",
    "NamedCodes",
    "prepare_folder",
    "train",
    "import_encoder",
    "export_encoder",
    "launch",
    "LaunchedExplorer",
    "figure",
    "PaperFigure",
]

_MODULES = {
    **dict.fromkeys(__all__, "_workflows"),
    **dict.fromkeys(
        ("SearchResults", "SearchResult", "DimensionSummary", "Explanation", "NamedCodes"),
        "_results",
    ),
    "Engine": "_engine",
    "PaperFigure": "_paper_figure",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import sieve` is fast."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("sieve-explorer")
    elif name in _MODULES:
        value = getattr(import_module(f"sieve.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
