from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import WordBackbone, write_word_collection
from scipy.sparse import csr_array

from sieve.model import query_encoder
from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes, encode_codes
from sieve.model.collection import Collection
from sieve.model.encoder import SparseEncoder
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness


def share_with(results: tuple, label: str) -> float:
    return float(np.mean([label in result.labels for result in results]))


def test_exclusion_keeps_a_and_removes_b(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "a beach")
    before = engine.search(query, off=(), top=20)
    after = engine.search(query, top=20)
    never = engine.search(query, strictness=Strictness(never=True), top=20)
    assert query.proposed
    assert share_with(after.results, "beach") < share_with(before.results, "beach")
    assert share_with(after.results, "beach") <= 0.1
    assert share_with(never.results, "beach") <= 0.1
    assert share_with(after.results, "dog") >= 0.8


def test_search_reports_what_changed(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "a beach")
    before = [result.id for result in engine.search(query, off=()).results]
    outcome = engine.search(query)
    for result in outcome.results:
        expected = before.index(result.id) + 1 if result.id in before else None
        assert result.rank_before == expected
    now = {result.id for result in outcome.results}
    assert [result.id for result in outcome.left] == [i for i in before if i not in now]
    assert outcome.left, "something left"


def test_proposed_dimensions_are_the_best_of_each_exclusion(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "a beach, a cat")
    off_concepts = [one.name for one in query.concepts if one.proposed_off is not False]
    assert sorted(off_concepts) == ["beach", "cat"]
    off = tuple(one.dimension for one in engine.search(query).off)
    assert off == query.proposed != tuple(sorted(off)), "by evidence, not by number"


def test_off_then_on_gives_the_same_results(engine: SearchEngine) -> None:
    query = engine.encode("a dog")
    first = engine.search(query)
    engine.search(query, off=(query.dimensions[0].dimension,))
    assert engine.search(query).results == first.results


def test_dimension_outside_the_query_is_subtracted_by_its_mean(engine: SearchEngine) -> None:
    query = engine.encode("a dog")
    absent = int(np.flatnonzero((query.code == 0) & (engine.derived.mean_positive > 0))[0])
    (off,) = engine.search(query, off=(absent,)).off
    assert off.weight == pytest.approx(float(engine.derived.mean_positive[absent]))


def test_query_with_an_exclusion_is_split_and_shown(engine: SearchEngine) -> None:
    query = engine.encode("a dog but not on a beach")
    assert (query.text, query.without) == ("a dog", "a beach")
    assert any("without" in note for note in query.notes)
    assert query.proposed == engine.encode("a dog", "a beach").proposed


def test_several_exclusions_are_encoded_separately(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "a beach, a car")
    apart = [engine.encode("a dog", phrase).proposed for phrase in ("a beach", "a car")]
    assert query.excluded == ("a beach", "a car")
    assert set(query.proposed) == set(apart[0]) | set(apart[1])
    again = engine.encode(query.text, query.without)
    assert (again.excluded, again.proposed) == (query.excluded, query.proposed)


def test_plural_excludes_like_its_singular(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "Beaches")
    assert query.proposed == engine.encode("a dog", "beach").proposed != ()
    assert "“Beaches” is read as “beach”." in query.notes


@pytest.mark.parametrize("without", ["quokka", "🏖️", "42", "the"])
def test_unknown_exclusion_switches_nothing_off(engine: SearchEngine, without: str) -> None:
    query = engine.encode("a dog", without)
    assert query.proposed == ()
    assert any(f"“{without}” " in note for note in query.notes)


def test_known_words_of_an_exclusion_are_used(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "a quokka beach")
    assert query.proposed == engine.encode("a dog", "a beach").proposed != ()
    assert "“quokka” is unknown; only “a beach” is excluded." in query.notes


def test_excluding_the_query_itself_is_reported(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "dogs")
    assert query.proposed == ()
    assert "“a dog” without “dogs” asks for what it excludes: nothing is switched off." in (
        query.notes
    )


def test_ambiguous_query_has_a_suggestion(engine: SearchEngine) -> None:
    query = engine.encode("a dog - a beach")
    assert (query.text, query.excluded, query.proposed) == ("a dog - a beach", (), ())
    assert query.suggested == {"query": "a dog", "without": "a beach"}


def test_quoted_query_is_preserved(engine: SearchEngine) -> None:
    query = engine.encode('"a dog -beach"')
    assert (query.text, query.without) == ('"a dog -beach"', "")
    assert engine.encode(query.text).without == ""


def test_no_results_with_every_dimension_off(engine: SearchEngine) -> None:
    query = engine.encode("a dog")
    off = tuple(part.dimension for part in query.dimensions)
    for never in (True, False):
        outcome = engine.search(query, off, Strictness(never=never))
        assert outcome.results == () and outcome.all_off
        assert len(outcome.left) == 24


def test_never_returns_only_items_that_share_a_dimension(engine: SearchEngine) -> None:
    query = engine.encode("a dog")
    strongest = max(query.dimensions, key=lambda part: part.strength).dimension
    off = tuple(part.dimension for part in query.dimensions if part.dimension != strongest)
    outcome = engine.search(query, off, Strictness(never=True))
    assert all(
        any(part.value > 0 and part.dimension == strongest for part in result.contributions)
        for result in outcome.results
    )


def test_unknown_word_is_reported(engine: SearchEngine) -> None:
    assert any("xylophone" in note for note in engine.encode("a xylophone").notes)


def test_search_by_item_loads_no_backbone(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = SearchEngine(engine.collection, engine.checkpoint, "cpu")
    monkeypatch.setattr(
        "sieve.model.backbone.clip.Backbone.load", lambda *_: pytest.fail("it is loaded")
    )
    query = fresh.encode(item=engine.collection.items["id"].iloc[3])
    assert fresh.search(query, off=(query.dimensions[0].dimension,)).results


def test_search_by_item_omits_the_item(engine: SearchEngine) -> None:
    item = engine.collection.items["id"].iloc[3]
    query = engine.encode(item=item)
    for results in (engine.search(query).results, engine.search_dense(query)):
        assert item not in [result.id for result in results]
        assert len(results) == 24


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"text": "  "}, {"text": "\u200b"}, {"text": "?!"}, {"text": "not a dog"},
        {"item": "../../etc"}, {"item": "<b>"}, {"without": "a dog"},
    ],
)  # fmt: skip
def test_invalid_queries_are_rejected(engine: SearchEngine, arguments: dict) -> None:
    with pytest.raises(
        ValueError, match="nothing to search for|no words to search for|has no item"
    ):
        engine.encode(**arguments)


@pytest.mark.parametrize("text", ["x" * 10_000, "🐕🏖️", "כלב על החוף", "<script>"])
def test_unusual_texts_are_searched_or_reported(engine: SearchEngine, text: str) -> None:
    query = engine.encode(text)
    engine.search(query)
    assert len(query.text) <= 1000


@pytest.mark.parametrize("bad", [{"off": (-1,)}, {"off": (64,)}, {"top": 0}, {"top": 10**9}])
def test_numbers_out_of_range_are_rejected(engine: SearchEngine, bad: dict) -> None:
    with pytest.raises(ValueError):
        engine.search(engine.encode("a dog"), **bad)


def test_checkpoint_of_another_backbone_is_rejected_with_both_names(
    word_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    other = Collection.open(write_word_collection(tmp_path / "w", n=10, backbone_hash="ee" * 32))
    with pytest.raises(ValueError, match=r"backbone words \(ffff.*backbone words \(eeee"):
        SearchEngine(other, word_checkpoint)


def test_codes_are_cached_and_a_damaged_cache_is_rebuilt(
    engine: SearchEngine, tmp_path: Path
) -> None:
    cached = next((tmp_path / "codes").iterdir())
    again = SearchEngine(engine.collection, engine.checkpoint)
    assert again.dimension_table().equals(engine.dimension_table())
    (cached / "image_entries.npy").write_bytes(b"broken")
    mended = SearchEngine(engine.collection, engine.checkpoint)
    assert mended.dimension_table().equals(engine.dimension_table())


def test_dimension_page_has_statistics_and_examples(engine: SearchEngine) -> None:
    table = engine.dimension_table()
    for j in table["dimension"][:8]:
        page = engine.dimension(int(j), seed=1)
        values = [example.value for example in page.top_images]
        assert values == sorted(values, reverse=True)
        assert page.histogram.images.sum() == len(engine.image_codes.postings(j)[0])
        assert sum(interval.count for interval in page.intervals) == page.histogram.images.sum()
        assert (page.words[0][0] if page.words else "") == table["top_word"][j]
        assert j not in [other.dimension for other in page.concept]
    with pytest.raises(ValueError, match="no dimension 64"):
        engine.dimension(64)


def test_examples_of_a_dimension_pass_the_filter(engine: SearchEngine) -> None:
    crowded = int(engine.dimension_table()["firing_images"].argmax())
    where = "split:test not caption:snow"
    mask = engine.facets.mask(where)
    assert mask is not None
    page, whole = engine.dimension(crowded, where=where), engine.dimension(crowded)
    rows, values = engine.image_codes.postings(crowded)
    passing = rows[mask[rows]]
    best = passing[np.argsort(-values[mask[rows]], kind="stable")][:12]
    assert [example.row for example in page.top_images] == best.tolist()
    assert page.passing == len(passing) == sum(one.count for one in page.intervals)
    shown = [*page.random_images, *(each for one in page.intervals for each in one.examples)]
    assert all(mask[example.row] for example in shown)
    rows_of = engine.collection.row_of_id
    assert page.top_captions and all(mask[rows_of[one.id]] for one in page.top_captions)
    assert page.statistics == whole.statistics and whole.passing is None
    assert page.histogram.images.tolist() == whole.histogram.images.tolist()
    table = engine.passing_dimensions(where).set_index("dimension")
    assert table.passing[crowded] == page.passing
    assert table.example[crowded] == page.top_images[0].id
    with pytest.raises(ValueError, match="selects no item"):
        engine.dimension(crowded, where="label:nothing")


def test_random_examples_depend_only_on_the_seed(engine: SearchEngine) -> None:
    crowded = int(engine.dimension_table()["firing_images"].argmax())
    once, again, other = (engine.dimension(crowded, seed).random_images for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_a_sum_finds_what_shows_all_its_terms(engine: SearchEngine) -> None:
    both = engine.search(engine.encode("a dog + a ball"), top=10).results
    assert share_with(both, "dog") >= 0.8 and share_with(both, "ball") >= 0.8
    heavy = engine.search(engine.encode("a dog + 10:a ball"), top=20).results
    assert share_with(heavy, "ball") > share_with(heavy, "dog")
    same = engine.search(engine.encode("3:a dog")).results
    assert [one.score for one in same] == [
        one.score for one in engine.search(engine.encode("a dog")).results
    ]


def test_the_score_is_the_sum_of_its_terms(engine: SearchEngine) -> None:
    item = engine.collection.items["id"].iloc[3]
    query = engine.encode(f"a dog + 0.5:item:{item} - beach - 0.5 street")
    outcome = engine.search(query)
    off = [part.dimension for part in outcome.off]
    assert off
    for result in outcome.results:
        values = np.array([part.value for part in result.contributions])
        by_term = query.shares([part.dimension for part in result.contributions], off) @ values
        assert by_term.sum() == pytest.approx(result.score, abs=1e-5)
        assert (by_term[:2] >= 0).all() and (by_term[2:] <= 0).all()


def test_the_weight_of_an_exclusion_scales_what_it_subtracts(engine: SearchEngine) -> None:
    whole, half = (engine.encode("a dog", f"{weight}:beach") for weight in (1, 0.5))
    assert whole.proposed == half.proposed
    np.testing.assert_allclose(half.without_weights, whole.without_weights / 2)


def test_an_image_can_be_what_is_not_wanted(engine: SearchEngine) -> None:
    beach = engine.search(engine.encode("a dog on a beach"), top=1).results[0]
    query = engine.encode("a dog", f"item:{beach.id}")
    before = engine.search(query, off=(), top=20).results
    after = engine.search(query, top=20).results
    assert query.proposed
    assert share_with(after, "beach") < share_with(before, "beach")
    assert share_with(after, "dog") >= 0.8


def test_items_of_a_sum_are_no_results(engine: SearchEngine) -> None:
    first, second = engine.search(engine.encode("a dog"), top=2).results
    query = engine.encode(f"item:{first.id} + item:{second.id}")
    found = engine.search(query, top=20).results
    assert not {first.id, second.id} & {one.id for one in found}


def test_a_concept_is_found_and_excluded_with_all_its_dimensions(engine: SearchEngine) -> None:
    beach = next(one for one in engine.encode("a beach").concepts if one.name == "beach")
    members = set(engine.concepts.members(beach.concept).tolist())
    found = engine.encode("concept:beach")
    assert set(np.flatnonzero(found.code).tolist()) == members
    assert share_with(engine.search(found, top=10).results, "beach") >= 0.9
    # Even if the query itself is a beach.
    assert set(engine.encode("a beach", f"concept:{beach.concept}").proposed) == members


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a dog + item:dddddddddddddddd", "has no item 'dddddddddddddddd'"),
        ("a dog + concept:xyzzy", "there is none of this name; give its dimension"),
        ("a dog + concept:99999", "there is no dimension 99999"),
        ("a dog + image:ball.jpg", "this collection's backbone is unavailable"),
    ],
)
def test_terms_that_do_not_exist_are_refused(engine: SearchEngine, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        engine.encode(text)


def test_an_image_that_is_not_given_is_refused(tiny_engine: SearchEngine) -> None:
    with pytest.raises(ValueError, match=r"image 'ball\.jpg' is not available here"):
        tiny_engine.encode("a circle + image:ball.jpg")


def test_a_query_that_no_image_is_likely_to_show_says_so(engine: SearchEngine) -> None:
    says = "No image here is likely to show “a quokka”: no caption or label mentions it."
    assert engine.encode("a quokka").notes[0] == says
    assert says in engine.encode("a dog + a quokka").notes
    for text in ("a dog", "dogs", "a dog on a beach", "🐶", "12345"):
        assert not any("likely to show" in note for note in engine.encode(text).notes), text


def test_a_word_without_a_code_is_encoded_as_part_of_a_phrase(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    class Backbone(WordBackbone):
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            asked.append(texts)
            return super().encode_texts(texts)

    def encode(encoder: SparseEncoder, embeddings: np.ndarray, modality: str) -> SparseCodes:
        has_code = [[text != "dog"] for text in asked[-1]]
        codes = encode_codes(encoder, embeddings, modality).by_row
        return SparseCodes.from_rows(csr_array(codes * np.array(has_code, np.float32)))

    word = engine.encode_texts(["dog", "beach"]).by_row.toarray()
    monkeypatch.setitem(engine.__dict__, "backbone", Backbone())
    monkeypatch.setattr(query_encoder, "encode_codes", encode)
    codes = engine.encode_texts(["dog", "beach"]).by_row.toarray()
    assert asked == [["dog", "beach"], ["a photo of a dog"]]
    np.testing.assert_allclose(codes, word, atol=1e-6)  # this backbone ignores the other words
