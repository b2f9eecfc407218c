"""The engine of the Python API: a collection, opened with a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from sieve._results import (
    DimensionSummary,
    Explanation,
    NamedCodes,
    SearchResult,
    SearchResults,
)
from sieve.data_prep.images import open_image_file, to_rgb
from sieve.explorer.cli.options import BackboneOptions
from sieve.explorer.errors import python_errors
from sieve.explorer.json_validation import (
    check_choice,
    check_text,
    read_off,
    read_strictness,
    read_whole,
    short_repr,
)
from sieve.explorer.view_state import MAX_TEXT_CHARACTERS
from sieve.model.codes import encode_codes
from sieve.model.hyperparameters import MODALITIES

with warnings.catch_warnings():
    # Without ipywidgets, tqdm warns in a notebook that its progress bars will be plain. It is
    # imported here once, before the libraries that import it later.
    warnings.filterwarnings("ignore", "IProgress not found")
    import tqdm.auto  # noqa: F401

if TYPE_CHECKING:
    from sieve._paper_figure import PaperFigure
    from sieve.model.encoded_query import EncodedQuery
    from sieve.model.engine import SearchEngine

Device = Literal["auto", "cuda", "mps", "cpu"]
Picture = Image.Image | str | Path
"""An image in memory, or the path of an image file."""


class Engine:
    """Search engine of one collection with one checkpoint; open it with `Engine.open`.

    It is read-only and safe to share between threads.

    Examples
    --------
    >>> import sieve
    >>> engine = sieve.Engine.open("scenes")
    >>> engine.search("a dog", without="a beach", strictness="never", top=24)
    """

    def __init__(self, search_engine: SearchEngine) -> None:
        self._engine = search_engine

    @classmethod
    @python_errors
    def open(
        cls,
        collection: str | Path = "scenes",
        checkpoint: str | Path | None = None,
        *,
        device: Device = "auto",
        text_encoder: str = "",
        allow_code: bool = False,
        trust_backbone: bool = False,
        index: str = "",
    ) -> Engine:
        """Open a collection.

        Parameters
        ----------
        collection : str or Path
            A path, a bundled collection ("scenes", prepared on first use, which takes about a
            minute), a name in `$SIEVE_HOME/collections`, or "hf://ORG/NAME" of the Hugging Face
            Hub; "hf://ORG/NAME@REVISION" pins a version.
        checkpoint : str or Path, optional
            Path or name of a checkpoint, or "hf://ORG/NAME"; by default the best match for the
            collection.
        device : {"auto", "cuda", "mps", "cpu"}
            Device that the backbone runs on.
        text_encoder : str
            Encode texts with this backbone, or with this Python function
            ("package.module:function", needs `allow_code`), instead of the collection's backbone.
        allow_code : bool
            Load the Python function that encodes texts. It may do anything.
        trust_backbone : bool
            Load the backbone that the collection names in a folder, a file or the Hub, and trust it
            from now on.
        index : str
            Address of an index to search, made by `sieve index`: "qdrant://HOST:6333/NAME".

        Raises
        ------
        FileNotFoundError
            If the collection, the checkpoint or the index does not exist.
        ValueError
            If one of them is damaged or does not fit the others.

        Examples
        --------
        >>> engine = sieve.Engine.open("my-photos", checkpoint="my-codes", device="cpu")
        """
        options = BackboneOptions(
            device=device,
            text_encoder=text_encoder,
            allow_code=allow_code,
            trust_backbone=trust_backbone,
        )
        opened = options.open_engine(str(collection), checkpoint and str(checkpoint), index)
        return cls(opened)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._engine.collection.name

    @property
    def checkpoint(self) -> Path:
        """Folder of the checkpoint."""
        return Path(self._engine.checkpoint.path)

    @property
    def items(self) -> pd.DataFrame:
        """Table of the items: id, image, captions, labels, split, width and height.

        n rows, in the order of `codes`. `image` is the item's original file.
        """
        return self._engine.collection.items.copy()

    @property
    def dimensions(self) -> pd.DataFrame:
        """Table of the dimensions: m rows, indexed by dimension.

        `name`; `firing_images` and `firing_texts`, the shares in [0, 1] of the images and captions
        in which it fires; `mean` and `max` activation; `label` and `label_auc`, the label that it
        predicts best; and measures of interpretability.

        Examples
        --------
        >>> engine.dimensions.sort_values("firing_images", ascending=False).head()
        """
        return self._engine.dimension_table().set_index("dimension")

    @property
    def concepts(self) -> pd.DataFrame:
        """Table of the concepts: groups of dimensions that fire together and mean the same.

        Indexed by concept, which is its leading dimension: `name`; `members`, its dimensions, the
        leading one first; `size`, their number; `firing_images`, the share in [0, 1] of the images
        in which any of them fires. The largest concepts come first.

        Examples
        --------
        >>> engine.concepts.query("name == 'beach'").members
        """
        return self._engine.concept_table().set_index("concept")

    @property
    def codes(self) -> NamedCodes:
        """Codes of all images: (n, m), rows in the order of `items`."""
        return self._named(self._engine.image_codes.by_row.copy())

    @python_errors
    def search(
        self,
        text: str = "",
        *,
        without: str = "",
        image: Picture | None = None,
        item: str | SearchResult = "",
        images: Mapping[str, Picture] | None = None,
        off: Iterable[int] | None = None,
        strictness: float | str = 1.0,
        top: int = 24,
        copies: bool = False,
        where: str = "",
    ) -> SearchResults:
        """Search by texts, images, items and concepts, with dimensions switched off.

        Parameters
        ----------
        text : str
            What to find. Clear exclusions in it are split off: "a dog -beach", "a dog but not on
            a beach". A sum has several terms, each with an optional weight from 0.01 to 100:
            "2:a dog + image:ball.jpg - 0.5:grass". Terms are texts, image files ("image:NAME"),
            items of the collection ("item:ID") and concepts ("concept:17" or "concept:beach").
        without : str
            What to exclude; several terms are separated by commas. Their dimensions are switched
            off, unless `off` is given.
        image : PIL image, str or Path, optional
            Search by this image, or image file; added to the text if there is one.
        item : str or SearchResult
            Search by the image of this item of the collection; added to the text if there is one.
        images : mapping of str to PIL image, str or Path, optional
            Images that the texts name as "image:NAME", in place of files.
        off : iterable of int, optional
            All dimensions to switch off, instead of those that `without` proposes.
        strictness : float or "never"
            How off dimensions count, from 0 (not at all) to 1 (they lower the scores of items that
            have them); "never" also hides items that have what is off with a probability of at
            least 0.5, "never:0.2" of at least 0.2.
        top : int
            Number of results, 1 to 200.
        copies : bool
            List each copy of a picture as its own result, instead of folding it into the first.
        where : str
            Only search the items that pass this filter: facets separated by spaces, each of which
            may have "not " before it. They are "label:dog", "split:test", "caption:umbrella" (a
            word), "file:2023/*" (a pattern), "concept:beach>0.5" (its smallest probability),
            "tag:NAME" (of a dimension that the image activates), "map:x,y,x,y,…" (corners of a
            selection on the map), "id:ID,ID" and "search:a dog" (the best 100).

        Returns
        -------
        SearchResults
            A sequence, best first.

        Raises
        ------
        ValueError
            If none of `text`, `image` and `item` is given, an argument is out of range, there is no
            such item, concept or dimension, or nothing can encode a text or an image.

        Examples
        --------
        >>> results = engine.search("a dog", without="a beach", strictness="never")
        >>> engine.search("2:a dog + a ball - 0.5:grass")
        >>> engine.search("a dog - image:mine", images={"mine": "my-dog.jpg"})
        >>> engine.search(image="my-dog.jpg", off=[30, 624])
        >>> engine.search(item=results[0])
        >>> engine.search("a dog", where="split:test not caption:beach")
        """
        query = self._query(text, without, image, item, images)
        level, dimensions = read_strictness(strictness), _read_off(off)
        number, filtered = read_whole("top", top), check_text("where", where, MAX_TEXT_CHARACTERS)
        outcome = self._engine.search(query, dimensions, level, number, not copies, filtered)
        return SearchResults(self._engine, query, outcome, level.as_json())

    @python_errors
    def encode(
        self,
        *,
        texts: Sequence[str] | None = None,
        images: Sequence[Picture] | None = None,
        embeddings: np.ndarray | None = None,
        modality: str = "image",
    ) -> NamedCodes:
        """Encode texts, images or embeddings to sparse codes.

        Parameters
        ----------
        texts : sequence of str, optional
        images : sequence of PIL images or paths, optional
        embeddings : (n, d) array of float, optional
            Embeddings by the collection's backbone; their length does not matter.
        modality : {"image", "text"}
            Modality of `embeddings`: images and texts are centred differently.

        Returns
        -------
        NamedCodes
            `matrix`, (n, m) float32 SciPy CSR, and `names`, the m names of the dimensions.

        Raises
        ------
        ValueError
            If not exactly one of `texts`, `images` and `embeddings` is given, an image or embedding
            cannot be used, or nothing can encode the input.

        Examples
        --------
        >>> codes = engine.encode(texts=["a dog", "a beach"])
        >>> codes.matrix @ engine.codes.matrix.T  # cosine of each text and image
        >>> engine.encode(images=["my-dog.jpg"]).to_pandas().head()
        """
        given = {"texts": texts, "images": images, "embeddings": embeddings}
        named = [name for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise ValueError(
                "expected exactly one of texts, images and embeddings; got "
                f"{' and '.join(named) or 'none'}"
            )
        for name in ("texts", "images"):
            if isinstance(given[name], str | Path | Image.Image):
                raise ValueError(f"{name} must be a list; got {short_repr(given[name])}")
        if embeddings is not None:
            return self._encode_embeddings(embeddings, modality)
        inputs: list[Any] = list(texts if images is None else images)  # pyright: ignore[reportArgumentType]
        if not inputs:
            return self._named(self._engine.image_codes.by_row[:0])
        if images is not None:
            codes = self._engine.encode_images([_open(image) for image in inputs])
        else:
            for text in inputs:
                check_text("a text", text, MAX_TEXT_CHARACTERS)
            codes = self._engine.encode_texts(inputs)
        return self._named(codes.by_row)

    @python_errors
    def regions(self, item: str | SearchResult) -> pd.DataFrame:
        """Locate the concepts of an item in its image, by occlusion.

        Parameters
        ----------
        item : str or SearchResult

        Returns
        -------
        pandas.DataFrame
            Indexed by concept, strongest first: `name`; `activation`; and `cells`, a (7, 7) array
            of the share of the activation that is lost if a cell of the image is covered, at most
            1, from the top left. It is negative where covering the cell raises the activation.

        Raises
        ------
        ValueError
            If there is no such item, or nothing can encode images.

        Examples
        --------
        >>> regions = engine.regions(engine.search("a dog")[0])
        >>> regions.iloc[0].cells.round(2)
        """
        from sieve.model.explain import ConceptRegion, item_regions

        found = item_regions(self._engine, item if isinstance(item, str) else item.id)
        return pd.DataFrame(found, columns=list(ConceptRegion._fields)).set_index("concept")

    @python_errors
    def difference(self, left: str, right: str = "") -> pd.DataFrame:
        """Find the concepts that distinguish two sets of items.

        Items in both sets count in neither.

        Parameters
        ----------
        left, right : str
            Filters, as `where` of `search`, or `all`. `right` is by default all items that are not
            in `left`.

        Returns
        -------
        pandas.DataFrame
            Indexed by concept, significant differences first: `name`; `left_rate` and
            `right_rate`, the shares of the items in which it is active; their `difference`, and
            `low` and `high`, its 95% interval (Newcombe, 1998); `q`, the false discovery rate at
            which the difference is significant (Fisher's exact test, Benjamini-Hochberg); and
            `left_mean` and `right_mean`, the mean activations.

        Raises
        ------
        ValueError
            If a set is not as above, or has fewer than five items of its own.

        Examples
        --------
        >>> engine.difference("label:dog", "label:cat").query("q < 0.05").head()
        """
        from sieve.model.set_difference import compare_sets

        return compare_sets(self._engine, left, right).concepts.set_index("concept")

    @python_errors
    def dimension(self, dimension: int, *, where: str = "") -> DimensionSummary:
        """Describe one dimension.

        Parameters
        ----------
        dimension : int
            From 0 to m - 1.
        where : str
            Filter of the examples, as for `search`. The statistics are of all items.

        Raises
        ------
        ValueError
            If there is no such dimension, or the filter is none or selects nothing.

        Examples
        --------
        >>> engine.dimension(17).top_captions
        >>> engine.dimension(17, where="split:test").top_images
        """
        number = read_whole("dimension", _plain(dimension))
        filtered = check_text("where", where, MAX_TEXT_CHARACTERS)
        return DimensionSummary(self._engine, self._engine.dimension(number, where=filtered))

    @python_errors
    def explain(
        self,
        a: SearchResult | Picture,
        b: SearchResult | Picture,
        text: str = "",
        *,
        without: str = "",
        image: Picture | None = None,
        item: str | SearchResult = "",
        off: Iterable[int] | None = None,
        strictness: float | str = 1.0,
    ) -> Explanation:
        """Explain why `a` and `b` are similar, or, for a query, why `a` is ranked before `b`.

        Parameters
        ----------
        a, b : SearchResult, str, Path or PIL image
            Without a query: two inputs. A string is the id of an item, if the collection has it,
            else a text; a path names an image file. With a query: two items, as results or ids.
        text, without, image, item, off, strictness
            The query, as for `search`.

        Returns
        -------
        Explanation
            Without a query, the cosine of both codes as a sum over the dimensions; with a query,
            the difference of both scores.

        Raises
        ------
        ValueError
            If an input cannot be used, there is no such item, or both items are the same.

        Examples
        --------
        >>> engine.explain("a dog", "a wolf").summary
        >>> results = engine.search("a dog", without="a beach")
        >>> engine.explain(results[0], results.dropped[0], "a dog", without="a beach").table
        """
        if text or image is not None or item:
            results = self.search(
                text, without=without, image=image, item=item, off=off, strictness=strictness, top=1
            )
            for name, one in (("a", a), ("b", b)):
                if not isinstance(one, str | SearchResult):
                    raise ValueError(
                        f"with a query, {name} must be a result or an item's id; got "
                        f"{short_repr(one)}"
                    )
            return results.explain(a, b)  # pyright: ignore[reportArgumentType]
        if without or off is not None:
            raise ValueError("without and off need a query: give a text, an image or an item")
        (a_code, a_item), (b_code, b_item) = map(self._input, (a, b))
        return Explanation._of_overlap(self._engine, a_code, b_code, [a_item, b_item])

    @python_errors
    def figure(
        self,
        recipe: Mapping[str, Any] | str | Path | None = None,
        *,
        out: str | Path | None = None,
        kind: str = "",
        **fields: Any,
    ) -> PaperFigure:
        """Draw a figure for a paper: rows of search results or of a dimension's images.

        Parameters
        ----------
        recipe : mapping, str or Path, optional
            A recipe, or the path of its JSON file.
        out : str or Path, optional
            Also write the figure to this file: .pdf, .svg or .png. Overwritten if it exists.
        kind : {"png", "pdf", "svg"}
            Format; by default that of `out`, else "png".
        **fields
            Fields of the recipe, which replace those of `recipe`: `rows` (each a text, a dimension,
            or a mapping with `query` or `image`, and `without`, `off`, `strictness`, or with
            `dimension`, `dimensions`, `sample` or `difference`),
            `columns` (images per row), `width_cm`, `marks`, `tiles`, `font`, `font_size`,
            `caption`, `label`.

        Returns
        -------
        PaperFigure
            `bytes(figure)` is the file; `figure.save(path)` writes it.

        Raises
        ------
        ValueError
            If a field is invalid, or the recipe is for another collection or checkpoint.
        FileNotFoundError
            If the recipe file or the folder of `out` does not exist.

        Examples
        --------
        >>> rows = ["a dog", {"query": "a dog", "without": "a beach"}]
        >>> engine.figure(rows=rows, columns=6, out="dogs.pdf")
        """
        from sieve._paper_figure import draw_recipe  # Matplotlib is slow to import

        return draw_recipe(self._engine, recipe, out, kind, fields)

    def __repr__(self) -> str:
        collection, checkpoint = self._engine.collection, self._engine.checkpoint
        return (
            f"Engine({collection.name!r}, {collection.n_items:,} items, checkpoint "
            f"{Path(checkpoint.path).name!r}, {checkpoint.m:,} dimensions)"
        )

    def _query(
        self,
        text: str,
        without: str,
        image: Picture | None,
        item: str | SearchResult,
        images: Mapping[str, Picture] | None = None,
    ) -> EncodedQuery:
        if not (text or without or item) and image is None:
            raise ValueError("expected a text, an image or an item; got none")
        for name, value in {"text": text, "without": without}.items():
            check_text(name, value, MAX_TEXT_CHARACTERS)
        item_id = item.id if isinstance(item, SearchResult) else check_text("item", item)
        picture = None if image is None else _open(image)
        named = images or {}
        return self._engine.encode(
            text, without, item_id, picture, lambda name: _open(named.get(name, name))
        )

    def _encode_embeddings(self, embeddings: np.ndarray, modality: str) -> NamedCodes:
        check_choice("modality", modality, MODALITIES)
        encoder = self._engine.checkpoint.encoder  # a ValueError for external codes
        try:
            dense = np.asarray(embeddings)
            if dense.dtype.kind not in "fiu":
                raise TypeError
            dense = dense.astype(np.float32)
        except (TypeError, ValueError):
            raise ValueError(
                f"embeddings must be an array of numbers of shape (n, {encoder.config.d}); got "
                f"{short_repr(embeddings)}"
            ) from None
        if dense.ndim != 2 or dense.shape[1] != encoder.config.d:
            raise ValueError(
                f"embeddings must have shape (n, {encoder.config.d}), the width of this "
                f"collection's backbone; got {dense.shape}"
            )
        norms = np.linalg.norm(dense, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            row = int(np.argmin((np.isfinite(norms) & (norms > 0)).ravel()))
            raise ValueError(f"embedding {row} is zero or not finite; leave it out")
        return self._named(encode_codes(encoder, dense / norms, modality).by_row)

    def _input(self, given: SearchResult | Picture) -> tuple[np.ndarray, str]:
        """Return the code of an input, (m,) float32, and its item id or an empty string."""
        if isinstance(given, SearchResult):
            given = given.id
        if not isinstance(given, str):
            return self._engine.encode_images([_open(given)]).dense(0), ""
        row = self._engine.collection.row_of(given)
        if row is not None:
            return self._engine.image_codes.dense(row), given
        return self._query(given, "", None, "").code, ""

    def _named(self, matrix: Any) -> NamedCodes:
        names = self._engine.names()
        return NamedCodes(matrix, tuple(names(j) for j in range(self._engine.checkpoint.m)))


def _open(image: Picture) -> Image.Image:
    """Return an image in memory or in a file as upright RGB."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, str | Path):
        raise ValueError(f"an image must be a PIL image or a path; got {short_repr(image)}")
    return open_image_file(image)


def _read_off(off: Iterable[int] | None) -> tuple[int, ...] | None:
    """Validate off dimensions, which may be NumPy integers in any iterable."""
    if off is None:
        return None
    is_listed = isinstance(off, Iterable) and not isinstance(off, str)
    return read_off([_plain(j) for j in off] if is_listed else off)


def _plain(number: Any) -> Any:
    """Return a NumPy number as a Python number, and all else unchanged."""
    return number.item() if isinstance(number, np.generic) else number
