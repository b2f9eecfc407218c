"""Results of the Python API: tables for analysis, and HTML for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from sieve import _html
from sieve.data_prep.captions.caption_text import tidy
from sieve.data_prep.images import open_original, open_thumbnail
from sieve.explorer.errors import python_errors, python_terms
from sieve.explorer.json_validation import read_strictness
from sieve.explorer.serialize import (
    describe_concept,
    describe_difference,
    describe_hidden,
    format_number,
    off_concepts,
    sum_by_term,
    summary,
    terms_json,
)
from sieve.model.dimension_name import numbered
from sieve.model.explain import explain, overlap

if TYPE_CHECKING:
    from PIL.Image import Image

    from sieve.model.dimensions.page import DimensionPage
    from sieve.model.encoded_query import EncodedQuery
    from sieve.model.engine import SearchEngine
    from sieve.model.explain import ItemComparison, Overlap
    from sieve.model.search_results import Contribution, Result, SearchOutcome

_SHORT_SIDE = 512
"""Short side of a drawn scene, in pixels."""
_MAX_ROWS = 4
"""Maximum number of rows of codes that a notebook shows."""
_MAX_EFFECTS = 8
"""Maximum number of dimensions in each list of an explanation."""
_MIN_EFFECT = 0.005
"""Smallest effect that a notebook shows, as a share of the largest one."""


@dataclass(frozen=True)
class NamedCodes:
    """Sparse codes with the names of their dimensions.

    Examples
    --------
    >>> codes = engine.encode(texts=["a dog", "a beach"])
    >>> codes.matrix.shape, codes.names[17]
    """

    matrix: csr_array
    """(n, m) float32 SciPy CSR, non-negative; each row has norm 1, or is empty if nothing fires."""
    names: tuple[str, ...]
    """m names of the dimensions; several dimensions may have the same name."""

    def __repr__(self) -> str:
        n, m = len(self.matrix.indptr) - 1, len(self.names)
        active = self.matrix.nnz / n if n else 0
        rows = "1 row" if n == 1 else f"{n:,} rows"
        return f"NamedCodes({rows}, {m:,} dimensions, {active:.1f} active per row)"

    def _repr_html_(self) -> str:
        """Show the strongest dimensions of the first rows."""
        first = NamedCodes(self.matrix[:_MAX_ROWS], self.names).to_pandas()
        lists = {
            f"Row {row}": [
                _html.Bar(numbered(int(j), name), float(value), False)
                for j, name, value in part[["dimension", "name", "value"]]
                .head(_MAX_EFFECTS)
                .itertuples(index=False)
            ]
            for row, part in first.groupby("row")
        }
        return _html.page(_html.lead(repr(self)), _html.columns(lists))

    def to_pandas(self) -> pd.DataFrame:
        """Return one line per active dimension: row, dimension, name and value.

        In each row, the largest value comes first.
        """
        rows = np.repeat(np.arange(len(self.matrix.indptr) - 1), np.diff(self.matrix.indptr))
        dimensions, values = self.matrix.indices, self.matrix.data
        order = np.lexsort((dimensions, np.negative(values), rows))
        names = np.array(self.names, object)[dimensions[order]]
        return pd.DataFrame(
            {
                "row": rows[order],
                "dimension": dimensions[order],
                "name": names,
                "value": values[order],
            }
        )


class SearchResult:
    """One retrieved item.

    Attributes
    ----------
    rank : int
        1 for the best; 0 in `SearchResults.dropped`.
    rank_before : int or None
        Rank with every dimension on; None if it was not among the top results.
    id : str
        Id of the item: 16 hex digits.
    score : float
        Sum of its contributions.
    captions, labels : tuple of str
    file : str
        Name of the original file in the source of the collection.
    copies : tuple of str
        Ids of items that show the same picture and are folded into this result.
    terms : dict of str to float
        Contributions summed by term of the query; the rest of the score is of dimensions that are
        off, but that no term excludes.
    presence : dict of str to float or None
        What is off, and the probability in [0, 1] that captions or labels of the image mention it;
        None if it cannot be estimated and a dimension of it is active.

    Examples
    --------
    >>> result = engine.search("a dog")[0]
    >>> result.contributions.head(3)
    >>> result.image.save("dog.png")
    """

    def __init__(
        self, engine: SearchEngine, query: EncodedQuery, result: Result, off: Iterable[int]
    ) -> None:
        self.rank = result.rank
        self.rank_before = result.rank_before
        self.id = result.id
        self.score = result.score
        self.captions = result.captions
        self.labels = result.labels
        self.file = result.file
        self.copies = tuple(copy.id for copy in result.copies)
        self.terms = {
            each.label: value
            for each, value in zip(query.terms, sum_by_term(query, result, [*off]), strict=True)
        }
        self.presence = {one.name: one.probability for one in result.presence}
        self._engine, self._row = engine, result.row
        self._parts = result.contributions
        self._concepts = result.concepts
        self._off = frozenset(off)

    @property
    def contributions(self) -> pd.DataFrame:
        """Contribution of each dimension to the score, the largest first.

        Indexed by dimension, with the columns `name`, `value`, `off` and `concept`, the leading
        dimension of its concept; the values sum to the score, and those of off dimensions are not
        positive.
        """
        table = _contribution_table(self._parts, self._off)
        return table.set_index("dimension")

    @property
    def concepts(self) -> pd.DataFrame:
        """Contributions summed by concept, the largest first; the values sum to the score.

        Indexed by concept, with the columns `name`, `value` and `dimensions`, those that
        contribute. See `Engine.concepts`.
        """
        rows = [(one.concept, one.name, one.value, one.dimensions) for one in self._concepts]
        columns = ["concept", "name", "value", "dimensions"]
        return pd.DataFrame(rows, columns=columns).set_index("concept")

    @property
    def image(self) -> Image:
        """The original image in RGB, or the thumbnail if the original is not available."""
        return open_original(self._engine.collection, self._row, _SHORT_SIDE).image

    @property
    def thumbnail(self) -> Image:
        """The thumbnail in RGB, at most 320 pixels on the long side."""
        return open_thumbnail(self._engine.collection, self._row).image

    def __repr__(self) -> str:
        caption = tidy(next(iter(self.captions), ", ".join(self.labels)))[:60]
        return (
            f"SearchResult(rank={self.rank}, id={self.id!r}, score={self.score:.3f}, {caption!r})"
        )

    def _repr_html_(self) -> str:
        return _html.page(_html.grid([_tile(self)], self._engine))


class SearchResults(Sequence[SearchResult]):
    """Results of a search, best first; a slice is again `SearchResults`.

    Attributes
    ----------
    text, without : str
        What was searched for and excluded, as it was understood.
    strictness : float or str
        From 0 to 1, "never", or "never:0.2" with another limit than the default.
    where : str
        Filter of the items.
    hides : str
        What "never" hides, as a sentence; else empty.
    off : dict of int to str
        Dimensions that are off, with their names. To switch off one more:
        `engine.search(text, off=[*results.off, 17])`.
    notes : tuple of str
        Remarks, for example about unknown words.
    suggestion : dict of str to str, or None
        Another reading of an ambiguous text: `engine.search(**results.suggestion)`.
    dropped : tuple of SearchResult
        Items that left the top results because dimensions are off, by their rank before.
    seconds : float
        Duration of the search, without encoding the query.

    Examples
    --------
    >>> results = engine.search("a dog", without="a beach", top=6)
    >>> results[0].contributions.head(3)
    >>> results.to_pandas()
    """

    def __init__(
        self,
        engine: SearchEngine,
        query: EncodedQuery,
        outcome: SearchOutcome,
        strictness: float | str,
    ) -> None:
        self.text = query.text
        self.without = query.without
        self.strictness = strictness
        self.where = outcome.where
        self.hides = describe_hidden(outcome)
        self.off = {part.dimension: part.name for part in outcome.off}
        self.notes = tuple(map(python_terms, query.notes))
        self.suggestion: dict[str, str] | None = None
        if query.suggested:
            find, without = query.suggested["query"], query.suggested["without"]
            self.suggestion = {"text": find, "without": without}
            self.notes += (f"To exclude it: search({find!r}, without={without!r})",)
        self.seconds = outcome.seconds
        self.dropped = tuple(SearchResult(engine, query, each, self.off) for each in outcome.left)
        self._results = [SearchResult(engine, query, each, self.off) for each in outcome.results]
        self._engine, self._query, self._outcome = engine, query, outcome

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> SearchResult: ...
    @overload
    def __getitem__(self, index: slice) -> SearchResults: ...
    def __getitem__(self, index: int | slice) -> SearchResult | SearchResults:
        if not isinstance(index, slice):
            return self._results[index]
        part = SearchResults(self._engine, self._query, self._outcome, self.strictness)
        part._results = self._results[index]
        return part

    def __iter__(self) -> Iterator[SearchResult]:
        return iter(self._results)

    @property
    def terms(self) -> pd.DataFrame:
        """Terms of the query: `term`, `kind`, `weight` and `excluded`, as they were understood.

        `kind` is text, item, image or concept.
        """
        return pd.DataFrame(terms_json(self._query))

    @property
    def dimensions(self) -> pd.DataFrame:
        """Dimensions of the query, indexed by dimension, those proposed to be off first.

        Columns: `name`; `strength`, the activation by what is searched for; `without_strength`,
        that by what is excluded; `off`; `concept`, the leading dimension of its concept.
        """
        rows = [
            (
                one.dimension,
                one.name,
                one.strength,
                one.without_strength,
                one.dimension in self.off,
                one.concept,
            )
            for one in self._query.dimensions
        ]
        columns = ["dimension", "name", "strength", "without_strength", "off", "concept"]
        return pd.DataFrame(rows, columns=columns).set_index("dimension")

    @property
    def concepts(self) -> pd.DataFrame:
        """Concepts of the query, indexed by concept, those proposed to be off first.

        Columns: `name`; `strength` and `without_strength`, the sums over the concept's dimensions
        in `dimensions`; `dimensions`; `off`, the share of them that are off.
        """
        rows = []
        for one in self._query.concepts:
            parts = tuple(part.dimension for part in one.dimensions)
            off = sum(part in self.off for part in parts) / len(parts)
            rows.append((one.concept, one.name, one.strength, one.without_strength, parts, off))
        columns = ["concept", "name", "strength", "without_strength", "dimensions", "off"]
        return pd.DataFrame(rows, columns=columns).set_index("concept")

    @property
    def contributions(self) -> pd.DataFrame:
        """Contributions to all scores: one line per result and dimension.

        Columns: `rank`, `id`, `dimension`, `name`, `value`, `off`, `concept`; see
        `SearchResult.contributions`.
        """
        parts = [_contribution_table(each._parts, self.off) for each in self]
        for result, part in zip(self, parts, strict=True):
            part.insert(0, "rank", result.rank)
            part.insert(1, "id", result.id)
        if not parts:
            return pd.DataFrame(columns=["rank", "id", *_CONTRIBUTION_COLUMNS])
        return pd.concat(parts, ignore_index=True)

    def to_pandas(self) -> pd.DataFrame:
        """Return one line per result, indexed by rank.

        Columns: `id`, `score`, `rank_before`, `captions`, `labels`, `file` and `copies`.
        """
        columns = ["rank", "id", "score", "rank_before", "captions", "labels", "file", "copies"]
        rows = [[getattr(result, name) for name in columns] for result in self]
        table = pd.DataFrame(rows, columns=columns)
        return table.astype({"rank_before": "Int64"}).set_index("rank")

    @python_errors
    def explain(self, a: SearchResult | str, b: SearchResult | str) -> Explanation:
        """Explain why item `a` is ranked before or after item `b` in these results.

        Parameters
        ----------
        a, b : SearchResult or str
            Two results, or the ids of two items of the collection.

        Raises
        ------
        ValueError
            If there is no such item, or both are the same.

        Examples
        --------
        >>> results.explain(results[0], results.dropped[0])
        """
        first, second = (one.id if isinstance(one, SearchResult) else one for one in (a, b))
        if first == second:
            raise ValueError(f"a and b are the same item, {first}; choose two different ones")
        level, off = read_strictness(self.strictness), tuple(self.off)
        found = explain(self._engine, self._query, first, second, off, level, self.where)
        return Explanation._of_ranking(self._engine, found)

    def __repr__(self) -> str:
        off = off_concepts(self._outcome)
        lines = [tidy(_title(self)), *(f"off: {tidy(describe_concept(one))}" for one in off)]
        for result in self:
            caption = tidy(next(iter(result.captions), ", ".join(result.labels)))[:60]
            lines.append(f"{result.rank:>3}  {result.score:+.3f}  {result.id}  {caption}")
        return "\n".join([*lines, *map(tidy, self.notes)])

    def _repr_html_(self) -> str:
        return _html.page(
            _html.heading(_title(self)),
            _html.off_line(off_concepts(self._outcome)),
            _html.notes(
                [
                    *([f"Only {self.where}"] if self.where else ()),
                    *([f"Hides {self.hides}"] if self.hides else ()),
                    *self.notes,
                ]
            ),
            _html.grid([_tile(result) for result in self], self._engine),
        )


_CONTRIBUTION_COLUMNS = ["dimension", "name", "value", "off", "concept"]


def _contribution_table(parts: Iterable[Contribution], off: Iterable[int]) -> pd.DataFrame:
    """Return one line per dimension, the largest value first."""
    off = set(off)
    rows = [
        (part.dimension, part.name, part.value, part.dimension in off, part.concept)
        for part in parts
    ]
    return pd.DataFrame(rows, columns=_CONTRIBUTION_COLUMNS)


def _title(results: SearchResults) -> str:
    """Describe a search: `“a dog” without “a beach”, strictness never: 24 results, 2 off: …`."""
    query = results._query
    image = f"Like item {query.item}" if query.item else "Image"
    find = f"“{query.title}”" if query.text else image
    without = " or ".join(f"“{one.title}”" for one in query.terms if one.excluded)
    strict = results.strictness
    level = "" if strict == 1 or not results.off else f", strictness {strict}"
    return f"{find}{without and f' without {without}'}{level}: {summary(results._outcome)}"


def _tile(result: SearchResult) -> _html.ResultTile:
    bars = [
        _html.Bar(part.name, part.value, result._off.issuperset(part.dimensions))
        for part in result._concepts
    ]
    caption = next(iter(result.captions), ", ".join(result.labels) or result.file)
    head = f"{result.rank}" if result.rank else f"was {result.rank_before}"
    return _html.ResultTile(result.id, caption, head, format_number(result.score), bars)


class DimensionSummary:
    """One dimension: its name, statistics and examples.

    Attributes
    ----------
    dimension : int
    name : str
    label : str
        The label that it predicts best, or empty; `statistics["label_auc"]` has its AUC.
    statistics : pandas.Series of float
        Its row of `Engine.dimensions`: shares in [0, 1] of the images and captions in which it
        fires, mean and maximum activation, and measures of interpretability.
    words : pandas.Series of float
        Words of captions that go with it, with scores in [0, 1], best first.
    top_images : pandas.DataFrame
        The images in which it is strongest: `id`, `value` (activation in [0, 1]), `captions` and
        `file`.
    top_captions : pandas.DataFrame
        The captions in which it is strongest: `text`, `value` and `id`, the item.
    concept_name : str
        Name of its concept: see `Engine.concepts`.
    concept, coactive : pandas.DataFrame
        The other dimensions of its concept, and those that fire on the same
        images, indexed by dimension: `name`, `similarity` (a cosine), and `name_in_concept`, which
        says how a dimension differs from the others of its concept.

    Examples
    --------
    >>> dimension = engine.dimension(17)
    >>> dimension.name, dimension.statistics["firing_images"]
    """

    def __init__(self, engine: SearchEngine, page: DimensionPage) -> None:
        self.dimension = page.dimension
        self.name = page.name
        self.label = page.label
        self.statistics = pd.Series(page.statistics, name=page.name)
        self.words = pd.Series(dict(page.words), name="score", dtype=float)
        images = [(each.id, each.value, each.captions, each.file) for each in page.top_images]
        self.top_images = pd.DataFrame(images, columns=["id", "value", "captions", "file"])
        self.top_captions = pd.DataFrame(page.top_captions, columns=["text", "value", "id"])
        columns = ["dimension", "name", "similarity", "name_in_concept"]
        self.concept_name = page.concept_name
        self.concept = pd.DataFrame(page.concept, columns=columns).set_index("dimension")
        self.coactive = pd.DataFrame(page.coactive, columns=columns).set_index("dimension")
        self._engine = engine

    def __repr__(self) -> str:
        shares = [f"{name} {self._share(f'firing_{name}')}" for name in ("images", "texts")]
        return f"DimensionSummary({self.dimension}, {self.name!r}, fires in {', '.join(shares)})"

    def _share(self, name: str) -> str:
        value = self.statistics.get(name)
        return "n/a" if value is None else f"{100 * float(value):.1f}%"

    def _repr_html_(self) -> str:
        facts = {"of the images": self._share("firing_images")}
        if "firing_texts" in self.statistics:
            facts["of the captions"] = self._share("firing_texts")
        if self.label:
            facts[f"AUC for label “{self.label}”"] = f"{self.statistics['label_auc']:.2f}"
        tiles = [
            _html.ResultTile(id_, next(iter(captions), file), f"{value:.2f}", "", [])
            for id_, value, captions, file in self.top_images.itertuples(index=False)
        ]
        words = [_html.Bar(str(word), value, False) for word, value in self.words.items()]
        captions = [
            _html.Bar(text, value, False)
            for text, value, _ in self.top_captions.itertuples(index=False)
        ]
        return _html.page(
            _html.heading(numbered(self.dimension, self.name)),
            _html.facts(facts),
            _html.grid(tiles, self._engine),
            _html.columns({"Words": words, "Top captions": captions[:8]}),
        )


class Explanation:
    """Dimensions that explain why two items are ranked as they are, or why two inputs are similar.

    Attributes
    ----------
    summary : str
        One sentence.
    total : float
        The difference of the scores of `a` and `b`, or the cosine of their codes.
    table : pandas.DataFrame
        Indexed by dimension, the largest absolute effect first: `name`; `a` and `b`, the
        contributions to both scores, or the values in both codes; `effect`, their difference, or
        their product; `off`. The effects sum to `total`.

    Examples
    --------
    >>> engine.explain("a dog", "a wolf").table.head()
    """

    def __init__(
        self, engine: SearchEngine, summary: str, total: float, table: pd.DataFrame
    ) -> None:
        self.summary = summary
        self.total = total
        self.table = table
        self._tiles: list[_html.ResultTile] = []
        self._titles = ["Shared, by their part of the cosine"]
        self._engine = engine

    @classmethod
    def _of_ranking(cls, engine: SearchEngine, found: ItemComparison) -> Explanation:
        names = engine.names()
        rows = [
            (
                part.dimension,
                names(part.dimension),
                part.left,
                part.right,
                part.difference,
                part.off,
            )
            for part in found.parts
        ]
        sentence = describe_difference(found, names, ("item a", "item b"))
        total = found.left.score - found.right.score
        made = cls(engine, sentence, total, _explanation_table(rows))
        made._titles = ["In favour of a", "In favour of b"]
        ids = engine.collection.items["id"]
        made._tiles = [
            _html.ResultTile(
                str(ids.iloc[side.row]), "", f"{name}: {rank}", format_number(side.score), []
            )
            for name, side in (("a", found.left), ("b", found.right))
            for rank in [f"rank {side.rank:,}" if side.rank else "no result"]
        ]
        return made

    @classmethod
    def _of_overlap(
        cls, engine: SearchEngine, a: np.ndarray, b: np.ndarray, items: Sequence[str]
    ) -> Explanation:
        """Explain the cosine of two codes, (m,) float32; `items` are the ids of inputs or empty."""
        names = engine.names()
        found = overlap(a, b)
        rows = [(s.dimension, names(s.dimension), s.left, s.right, s.product) for s in found.shared]
        rows += [(j, names(j), value, 0.0, 0.0) for j, value in found.left]
        rows += [(j, names(j), 0.0, value, 0.0) for j, value in found.right]
        table = _explanation_table([(*row, False) for row in rows])
        made = cls(engine, _overlap_sentence(found, names), found.cosine, table)
        made._tiles = [
            _html.ResultTile(id_, "", name, "", [])
            for name, id_ in zip("ab", items, strict=True)
            if id_
        ]
        return made

    def __repr__(self) -> str:
        return f"{self.summary}\n{self.table.head(10).to_string(float_format='{:.3f}'.format)}"

    def _repr_html_(self) -> str:
        lists: dict[str, list[_html.Bar]] = {title: [] for title in self._titles}
        least = _MIN_EFFECT * self.table["effect"].abs().max()
        for j, name, effect, off in self.table[["name", "effect", "off"]].itertuples():
            if effect and abs(effect) >= least:
                bar = _html.Bar(numbered(j, name), abs(effect), off)
                lists[self._titles[0 if effect > 0 else -1]].append(bar)
        shown = {title: bars[:_MAX_EFFECTS] for title, bars in lists.items()}
        return _html.page(
            _html.lead(self.summary), _html.grid(self._tiles, self._engine), _html.columns(shown)
        )


def _explanation_table(rows: Iterable[tuple[int, str, float, float, float, bool]]) -> pd.DataFrame:
    columns = ["dimension", "name", "a", "b", "effect", "off"]
    return pd.DataFrame(rows, columns=columns).set_index("dimension")


def _overlap_sentence(found: Overlap, names: Callable[[int], str]) -> str:
    if not found.shared:
        return "a and b share no dimension."
    first = ", ".join(
        f"{numbered(part.dimension, names(part.dimension), '“”')} ({part.share:.0%})"
        for part in found.shared[:3]
    )
    n = len(found.shared)
    shared = f"{n} shared dimension{'' if n == 1 else 's'}"
    return f"The cosine of a and b is {found.cosine:.2f}, from {shared}: {first}."
