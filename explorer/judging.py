"""What counts as right in the Compare tab: what was chosen, else what the question names."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sieve.model.judging import Truth, find_concept, known_concepts, truth_of
from sieve.model.questions import TRACKS, TrackName
from sieve.model.words.nouns import benchmark_nouns

if TYPE_CHECKING:
    from sieve.model.collection import Collection
    from sieve.model.engine import EncodedQuery
    from sieve.model.questions.pairs import Concepts


class Judge:
    """Tells what is right by the labels or the captions of a collection.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._concepts = lru_cache(maxsize=2)(self._known_concepts)

    def tracks(self) -> tuple[TrackName, ...]:
        """Tell by what it can be known: labels, captions, or nothing."""
        collection = self._collection
        has = {"label": collection.has_labels, "caption": collection.n_captions > 0}
        return tuple(track for track in TRACKS if has[track])

    def truth(
        self, track: str, a: str, b: str, query: EncodedQuery
    ) -> tuple[Truth | None, dict[str, Any]]:
        """Mark what is right.

        Parameters
        ----------
        track, a, b : str
            What a person chose; each empty where the words of the question are to say it. An image
            has none.
        query : EncodedQuery

        Returns
        -------
        Truth or None
            None where nothing tells it.
        dict
            What was chosen, for the page: `track`, `a`, `b`, the `names` that there are, counts.

        Raises
        ------
        ValueError
            If there is no such label or noun.
        """
        tracks = self.tracks()
        if not tracks:
            return None, {"track": "", "a": "", "b": "", "names": []}
        chosen: tuple[TrackName, ...] = tuple(one for one in tracks if one == track)
        named, *words = self._named(query.text, query.without, chosen or tracks)
        first, second = (a or words[0], b or words[1]) if chosen else words
        told: dict[str, Any] = {"track": named, "a": first, "b": second}
        told["names"] = list(self._names(named))
        if not first or (query.without and not second):
            return None, told
        truth = truth_of(self._concepts(named), named, first, second)
        if query.item:
            truth = truth.besides(self._collection.row_of_id[query.item])
        counts = {"relevant": int(truth.relevant.sum()), "violating": int(truth.violating.sum())}
        return truth, told | counts

    def _named(
        self, text: str, without: str, tracks: tuple[TrackName, ...]
    ) -> tuple[TrackName, str, str]:
        """Find the labels or nouns that the words name, in the first track that has all."""
        partial: list[tuple[TrackName, str, str]] = []
        for track in tracks:
            names = self._names(track)
            a, b = find_concept(text, names), find_concept(without, names)
            if a and (b or not without):
                return track, a, b
            partial.append((track, a, b))
        return partial[0]

    def _names(self, track: TrackName) -> tuple[str, ...]:
        """Labels or nouns that can count, without reading all captions for them."""
        return self._concepts(track).names if track == "label" else benchmark_nouns().lemmas

    def _known_concepts(self, track: TrackName) -> Concepts:
        return known_concepts(self._collection, track)
