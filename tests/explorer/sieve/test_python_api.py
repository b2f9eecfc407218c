"""Test the Python API: values as from the engine, and errors of one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sieve
from sieve.explorer.errors import python_terms
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness


@pytest.fixture(scope="module")
def engine(tiny_engine: SearchEngine) -> sieve.Engine:
    return sieve.Engine(tiny_engine)


@pytest.fixture
def external(tmp_path: Path, home: Path) -> sieve.Engine:  # noqa: ARG001
    """External codes, without a backbone and without words."""
    from tiny_codes import write_codes

    from sieve.data_prep.prepare import prepare
    from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes

    files = CodeFiles.find(write_codes(tmp_path / "codes", words=False))
    source = Codes(files, tmp_path / "codes" / "photos", name="given")
    codes = source.precomputed()
    made = prepare(source, None, tmp_path / "made", precomputed=codes, progress=False)
    return sieve.Engine.open(made.path)


def test_import_loads_neither_torch_nor_gradio() -> None:
    program = (
        "import sys, sieve; assert sieve.__version__; dir(sieve)\n"
        "print([name for name in ('torch', 'gradio', 'pandas') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout == "[]\n", shown.stderr


def test_every_public_name_has_a_docstring_with_an_example() -> None:
    for name in sieve.__all__:
        public = getattr(sieve, name)
        assert ">>> " in (public.__doc__ or ""), name
        for member, value in vars(public).items() if isinstance(public, type) else ():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"


def test_search_has_the_results_of_the_engine(
    engine: sieve.Engine, tiny_engine: SearchEngine
) -> None:
    results = engine.search("a circle", without="the snow", strictness=0.5, top=5)
    query = tiny_engine.encode("a circle", "the snow")
    expected = tiny_engine.search(query, strictness=Strictness(0.5), top=5)
    assert [result.id for result in results] == [result.id for result in expected.results]
    assert list(results.off) == [part.dimension for part in expected.off]
    assert [result.id for result in results.dropped] == [result.id for result in expected.left]
    table = results.to_pandas()
    assert table["score"].tolist() == [result.score for result in expected.results]
    assert table.index.tolist() == [1, 2, 3, 4, 5]
    assert len(results[1:3]) == 2 and results[1:3][0].rank == 2


def test_a_query_may_have_several_terms(engine: sieve.Engine) -> None:
    item = engine.search("a circle")[0]
    results = engine.search(
        "2:a circle - image:mine", item=item, images={"mine": item.thumbnail}, top=5
    )
    assert results.terms["kind"].tolist() == ["text", "item", "image"]
    assert results.terms["excluded"].tolist() == [False, False, True]
    assert item.id not in [one.id for one in results]
    for one in results:
        assert sum(one.terms.values()) == pytest.approx(one.score, abs=1e-5)
    again = engine.search(results.text, without=results.without, images={"mine": item.thumbnail})
    assert [one.id for one in again[:5]] == [one.id for one in results]


def test_contributions_sum_to_the_scores(engine: sieve.Engine) -> None:
    results = engine.search("a circle", without="the snow", strictness=1, top=8)
    sums = results.contributions.groupby("rank")["value"].sum()
    np.testing.assert_allclose(sums, results.to_pandas()["score"], atol=1e-6)
    first = results[0].contributions
    assert set(first.index[first["off"]]) <= set(results.off)
    assert (first.loc[first["off"], "value"] <= 0).all()


def test_concepts_group_dimensions_and_contributions(engine: sieve.Engine) -> None:
    concepts = engine.concepts
    assert sorted(j for members in concepts["members"] for j in members) == list(range(64))
    assert (concepts["size"] == concepts["members"].map(len)).all()
    assert concepts["size"].is_monotonic_decreasing
    results = engine.search("a circle", without="the snow", top=8)
    for result in results:
        parts = result.concepts
        assert parts["value"].sum() == pytest.approx(result.score, abs=1e-6)
        by_concept = result.contributions.groupby("concept")["value"].sum()
        pd.testing.assert_series_equal(parts["value"].sort_index(), by_concept, check_exact=False)
    listed = results.concepts
    assert (listed["name"] == concepts["name"].loc[listed.index]).all()
    off = listed.index[listed["off"] > 0]
    assert {j for one in off for j in listed.loc[one, "dimensions"]} >= set(results.off)


@pytest.mark.parametrize(("strictness", "limit"), [("never", 0.5), ("never:0.2", 0.2)])
def test_never_hides_every_item_that_reaches_the_limit(
    engine: sieve.Engine, strictness: str, limit: float
) -> None:
    results = engine.search("a circle", without="the snow", strictness=strictness, top=60)
    assert len(results) and results.off
    assert results.hides == f"images with P(snow) ≥ {limit:.0%}"
    assert all(result.presence["the snow"] < limit for result in results)
    pushed = engine.search("a circle", without="the snow", top=60)
    assert pushed.hides == ""
    gone = {r.id for r in pushed} - {r.id for r in results}
    assert gone
    # Hidden, or without any dimension of the query that is on.
    assert all(
        r.presence["the snow"] >= limit or not (r.contributions["value"] > 0).any()
        for r in pushed
        if r.id in gone
    )
    assert results.strictness == strictness


def test_off_takes_any_iterable_of_integers(engine: sieve.Engine) -> None:
    proposed = engine.search("a circle", without="the snow")
    for off in ({3, 17}, np.array([17, 3]), range(3, 18, 14)):
        found = engine.search("a circle", off=off)
        assert list(found.off) == [3, 17]
    assert not engine.search("a circle", without="the snow", off=[]).off
    assert proposed.off


def test_ambiguous_text_has_a_suggestion_that_can_be_searched(engine: sieve.Engine) -> None:
    results = engine.search("a circle - the snow")
    assert results.suggestion == {"text": "a circle", "without": "the snow"}
    assert "search('a circle', without='the snow')" in repr(results)
    assert engine.search(**results.suggestion).without == "the snow"
    assert engine.search("a circle").suggestion is None


def test_image_and_item_queries_find_the_same_picture(engine: sieve.Engine, tmp_path: Path) -> None:
    first = engine.search("a circle")[0]
    first.image.save(tmp_path / "circle.png")
    by_path = engine.search(image=tmp_path / "circle.png", copies=True)
    by_image = engine.search(image=first.image.convert("RGBA"), copies=True)
    assert [result.id for result in by_path] == [result.id for result in by_image]
    assert by_path[0].score == pytest.approx(1, abs=1e-3)
    by_item = engine.search(item=first)
    assert first.id not in [result.id for result in by_item]
    assert by_item.to_pandas().equals(engine.search(item=first.id).to_pandas())


def test_codes_of_texts_and_images_are_those_of_a_search(
    engine: sieve.Engine, tiny_engine: SearchEngine
) -> None:
    texts = ["a red circle", "a square in the snow", "night"]
    codes = engine.encode(texts=texts)
    matrix, names = codes.matrix, codes.names
    expected = np.stack([tiny_engine.encode_text(text).code for text in texts])
    np.testing.assert_allclose(matrix.toarray(), expected, atol=1e-5)
    assert matrix.dtype == np.float32 and len(names) == matrix.shape[1]
    assert names[5] == tiny_engine.name_of(5)
    picture = Image.open(engine.items["image"].iloc[4])
    of_image = engine.encode(images=[picture, engine.items["image"].iloc[4]]).matrix
    np.testing.assert_allclose(of_image.toarray()[0], engine.codes.matrix.toarray()[4], atol=2e-2)
    assert engine.encode(texts=[]).matrix.shape == (0, len(names))
    table = engine.encode(texts=texts[:1]).to_pandas()
    assert table["value"].is_monotonic_decreasing and len(table) == matrix[[0]].nnz


def test_own_embeddings_of_any_length_are_encoded(
    engine: sieve.Engine, tiny_engine: SearchEngine
) -> None:
    embeddings = 7 * np.asarray(tiny_engine.collection.image_embeddings, np.float32)
    codes = engine.encode(embeddings=embeddings).matrix
    np.testing.assert_allclose(codes.toarray(), engine.codes.matrix.toarray(), atol=1e-3)
    captions = np.asarray(tiny_engine.collection.text_embeddings)
    of_text = engine.encode(embeddings=captions, modality="text").matrix
    expected = tiny_engine.text_codes.by_row.toarray()
    np.testing.assert_allclose(of_text.toarray(), expected, atol=1e-3)


def test_dimension_has_its_statistics_and_strongest_images(engine: sieve.Engine) -> None:
    table = engine.dimensions
    number = int(table["firing_images"].idxmax())
    dimension = engine.dimension(np.int64(number))  # type: ignore[arg-type]
    assert dimension.name == table.loc[number, "name"]
    assert dimension.statistics["firing_images"] == table.loc[number, "firing_images"]
    column = engine.codes.matrix[:, [number]].toarray().ravel()
    strongest = engine.items["id"].iloc[int(column.argmax())]
    assert dimension.top_images.iloc[0]["id"] == strongest
    assert dimension.top_images["value"].iloc[0] == pytest.approx(column.max())


def test_examples_of_a_dimension_pass_a_filter(engine: sieve.Engine) -> None:
    number = int(engine.dimensions["firing_images"].idxmax())
    images = engine.dimension(number, where="split:test").top_images
    assert set(engine.items.set_index("id").loc[images["id"], "split"]) == {"test"}
    with pytest.raises(ValueError, match="a set of items is"):
        engine.dimension(number, where="test")


def test_explanation_sums_to_what_it_explains(engine: sieve.Engine) -> None:
    results = engine.search("a circle", without="the snow", top=12)
    for a, b in ((results[0], results[-1]), (results[3].id, results[1].id)):
        found = results.explain(a, b)
        assert found.table["effect"].sum() == pytest.approx(found.total, abs=1e-5)
        again = engine.explain(a, b, "a circle", without="the snow")
        assert again.summary == found.summary and again.table.equals(found.table)
    assert results.explain(results[0], results[-1]).total == pytest.approx(
        results[0].score - results[-1].score, abs=1e-5
    )


def test_similarity_is_explained_for_texts_items_and_images(engine: sieve.Engine) -> None:
    item = engine.search("a circle")[0]
    for a, b in (("a circle", "a square"), (item, "a circle"), (item.id, item.image)):
        found = engine.explain(a, b)
        assert found.table["effect"].sum() == pytest.approx(found.total, abs=1e-5)
    assert engine.explain(item, item.id).total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.search(), "expected a text, an image or an item; got none"),
        (lambda e: e.search("a dog", item="x"), "has no item 'x'"),
        (lambda e: e.search("a dog + image:no"), "image no: file is missing"),
        (lambda e: e.search("a dog", strictness="always"), "strictness must be a number from 0"),
        (lambda e: e.search("a dog", strictness=2), "strictness must be a number from 0 to 1"),
        (lambda e: e.search("a dog", top=0), "top must be between 1 and 200; got 0"),
        (lambda e: e.search("a dog", off=[64]), "there is no dimension 64; this checkpoint has 0"),
        (lambda e: e.search("a dog", off=17), "off must be a list of dimensions; got 17"),
        (lambda e: e.search("a dog", off=["x"]), "a dimension is a whole number of at least 0"),
        (lambda e: e.search(7), "text must be a string; got 7"),
        (lambda e: e.search(item="0123"), "has no item '0123'"),
        (lambda e: e.search(image="no.png"), "image no.png: file is missing"),
        (
            lambda e: e.search(image=Image.new("RGB", (0, 5))),
            "image has no pixels: it is 0 × 5",
        ),
        (lambda e: e.search(image=7), "an image must be a PIL image or a path; got 7"),
        (lambda e: e.search(without="the snow"), "enter something to find"),
        (lambda e: e.encode(), "exactly one of texts, images and embeddings; got none"),
        (lambda e: e.encode(texts="a dog"), "texts must be a list; got 'a dog'"),
        (lambda e: e.encode(texts=[3]), "a text must be a string; got 3"),
        (
            lambda e: e.encode(embeddings=np.ones((2, 5))),
            r"must have shape \(n, 32\).*got \(2, 5\)",
        ),
        (lambda e: e.encode(embeddings=np.zeros((1, 32))), "embedding 0 is zero or not finite"),
        (lambda e: e.encode(embeddings=np.ones((1, 32)), modality="x"), "modality must be one of"),
        (lambda e: e.dimension(64), "there is no dimension 64"),
        (lambda e: e.dimension("dog"), "dimension must be a number; got 'dog'"),
        (lambda e: e.explain("a", "b", "a circle"), "has no item 'a'"),
        (lambda e: e.explain("a", "b", without="c"), "without and off need a query"),
        (lambda e: e.figure(rows=["a"], colums=3), "a recipe has no field 'colums'"),
        (lambda e: e.figure(rows=["a"], kind="gif"), "kind must be one of pdf, svg, png"),
        (lambda _: sieve.Engine.open("no-such"), "there is no collection 'no-such'; there are:"),
        (lambda e: sieve.Engine.open(e._engine.collection.path, "none"), "there is no checkpoint"),
        (lambda e: sieve.launch(e, inline=True), "inline=True needs a Jupyter notebook"),
        (lambda _: sieve.figure(rows=["a dog"]), 'the recipe has no "collection"'),
    ],
)
def test_errors_are_one_line(
    engine: sieve.Engine, call: Callable[[sieve.Engine], Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        call(engine)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _, __: sieve.Engine.open(7), "collection must be a path; got 7"),
        (
            lambda _, t: sieve.Engine.open(t, device="tpu"),
            "device must be one of auto, cuda, mps, cpu; got 'tpu'",
        ),
        (lambda e, _: e.encode(texts=7), "texts must be a list; got 7"),
        (lambda e, _: e.encode(images=np.zeros((2, 3, 3))), "an image must be a PIL image or a"),
        (lambda e, _: e.encode(embeddings=[[1.0], ["a"]]), "embeddings must be an array of numb"),
        (lambda e, _: e.encode(embeddings=[[1, 2], [3]]), r"numbers of shape \(n, 32\); got"),
        (lambda e, _: e.encode(embeddings=np.full((1, 32), np.nan)), "embedding 0 is zero or not"),
        (lambda e, _: e.regions(3), "item must be a string or a SearchResult; got 3"),
        (lambda e, _: e.search("a circle + image:x", images=["x"]), "images must be a dict; got"),
        (lambda e, _: e.search("a circle", where="foo:bar"), "a set of items is label:…"),
        (
            lambda e, _: e.search("a circle")[:2].explain(1, 2),
            "a must be a SearchResult or a string",
        ),
        (lambda e, _: e.difference("foo:bar"), "a set of items is label:…"),
        (lambda e, _: e.figure(7), "recipe must be a dict or a path; got 7"),
        (lambda _, __: sieve.prepare_folder(None), "directory must be a path; got None"),
        (
            lambda _, t: sieve.prepare_folder(t, t / "no.csv", out=t / "out"),
            "no.csv; check captions=$",
        ),
        (
            lambda _, t: sieve.prepare_folder(t, out=t),
            "exists already; choose another out= or remove it first",
        ),
        (lambda _, t: sieve.train("x", t / "out", m="8"), "m must be a whole number; got '8'"),
        (lambda _, t: sieve.train("x", t / "out", preset="big"), "preset must be one of compact,"),
        (
            lambda _, t: sieve.train("no-such", t / "out"),
            r"`sieve.prepare_folder\(DIR, CSV, out=COLLECTION\)`",
        ),
        (lambda _, t: sieve.import_encoder(t, out=t / "out"), "add backbone=NAME or collection="),
        (
            lambda _, t: sieve.export_encoder("scenes", t / "out", "saelens"),
            'give modality="image" or modality="text"$',
        ),
        (lambda _, t: sieve.export_encoder("x", t / "out", "onnx"), "format must be one of saele"),
        (lambda e, _: sieve.launch(e, port="x"), "port must be a whole number; got 'x'"),
        (
            lambda _, __: sieve.Engine.open("scenes", text_encoder="os:system"),
            'text_encoder="os:system" is a Python function.* add allow_code=True',
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_faults_name_arguments_and_leave_nothing(
    engine: sieve.Engine,
    tmp_path: Path,
    scenes_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[sieve.Engine, Path], Any],
    message: str,
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(scenes_home))
    with pytest.raises((ValueError, FileNotFoundError, FileExistsError), match=message) as raised:
        call(engine, tmp_path)
    assert "\n" not in str(raised.value) and "--" not in str(raised.value)
    ours = [entry for entry in raised.traceback if entry.path != Path(__file__)]
    assert [entry.path.name for entry in ours] == ["errors.py"], "the traceback ends at the API"
    assert raised.value.__cause__ is None and raised.value.__context__ is None
    assert not [*tmp_path.iterdir()]


def test_offline_hub_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"hf://a/b is not.*HF_HUB_OFFLINE") as raised:
        sieve.Engine.open("hf://a/b")
    assert "\n" not in str(raised.value)


def test_options_in_messages_become_arguments() -> None:
    for message, expected in {
        "add --activation topk --k K, or --allow-code": (
            'add activation="topk" k=K, or allow_code=True'
        ),
        "leave out --threshold": "leave out threshold=",
        "use --tensors encode=NAME,bias=NAME": 'use tensors={"encode": NAME, "bias": NAME}',
        "use `sieve x --to …` or `sieve train C`": "use `sieve x --to …` or `sieve.train(C)`",
        "give --text-encoder NAME, not --k-means": "give text_encoder=NAME, not --k-means",
    }.items():
        assert python_terms(message) == expected


def test_unknown_hyperparameter_is_a_type_error_with_a_suggestion() -> None:
    with pytest.raises(TypeError, match="no hyperparameter 'epoch'; did you mean 'epochs'"):
        sieve.train("scenes", epoch=3)


def test_external_codes_are_searched_by_item_and_refuse_the_rest(external: sieve.Engine) -> None:
    first = external.items["id"].iloc[0]
    assert len(external.search(item=first, top=3))
    with pytest.raises(ValueError, match="search by an item"):
        external.search("a dog")
    with pytest.raises(ValueError, match="no backbone that could encode an image"):
        external.encode(images=[Image.new("RGB", (8, 8))])
    with pytest.raises(ValueError, match="names the dimensions of external codes"):
        external.encode(embeddings=np.ones((1, 4)))


def test_missing_backbone_is_a_note_for_texts_and_an_error_for_images(
    tmp_path: Path,
    home: Path,  # noqa: ARG001
) -> None:
    from unavailable_backbone import BACKBONE, write_embeddings

    from sieve.data_prep.prepare import prepare
    from sieve.data_prep.sources.embeddings import Embeddings, open_identity

    source = Embeddings(write_embeddings(tmp_path / "files"), name="own")
    embeddings = source.precomputed()
    identity = open_identity(BACKBONE, source.width, "cpu")
    made = prepare(source, identity, tmp_path / "own", precomputed=embeddings, progress=False)
    checkpoint = sieve.train(
        made.path, tmp_path / "codes", m=64, k=8, epochs=20, batch_size=32, progress=False
    )
    own = sieve.Engine.open(made.path, checkpoint)
    results = own.search("a dog", top=3)
    assert all("dog" in result.captions[0] for result in results)
    assert any("backbone is unavailable" in note for note in results.notes)
    matrix = own.encode(texts=["a dog", "quokka"]).matrix
    assert matrix[[0]].nnz and not matrix[[1]].nnz
    with pytest.raises(ValueError, match="backbone is unavailable .*search by an item"):
        own.encode(images=[Image.new("RGB", (8, 8))])
