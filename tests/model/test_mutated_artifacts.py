"""Test mutations of every field, column and array: read, or rejected with one line.

The mutations simulate a program with another interpretation of the format, or an attacker who
recomputes all checksums. The generator is seeded; a run tests a sample of the mutations.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_word_collection
from corruption import mutated_json, reseal
from safetensors.numpy import load_file, save_file
from tiny_codes import write_codes

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.model.checkpoint import CONFIG, NAMES, TRAINING, WEIGHTS, Checkpoint
from sieve.model.codes import IMAGE_CODES, TEXT_CODES, WORD_CODES, WORDS, code_files
from sieve.model.collection import (
    CAPTION_ITEM,
    IMAGE_EMBEDDINGS,
    ITEMS,
    MANIFEST,
    TEXT_EMBEDDINGS,
    file_sha256,
)
from sieve.model.engine import SearchEngine
from sieve.model.files import CHECKSUMS

N = 20
Act = Callable[[], None]


def json_mutations(path: Path) -> Iterator[tuple[str, Act]]:
    """Replace each value of a JSON file by one of another type."""
    whole = json.loads(path.read_text())
    if path.name == MANIFEST:  # fields that only some collections have
        whole |= {"roots": ["/photos"], "follow_links": False}
    for name, changed in mutated_json(whole):
        yield f"{path.name} {name}", lambda t=changed: write(path, t.encode())


def column_mutations(path: Path) -> Iterator[tuple[str, Act]]:
    """Drop, duplicate and empty each column of a table, and change its type."""
    table = pq.read_table(path)

    def put(changed: pa.Table) -> None:
        pq.write_table(changed, path)
        write(path, path.read_bytes())

    for i, name in enumerate(table.column_names):
        others = {
            "missing": table.remove_column(i),
            "doubled": table.append_column(name, table[name]),
            "nulls": table.set_column(i, name, pa.nulls(N, table[name].type)),
            "texts": table.set_column(i, name, pa.array(["x"] * N)),
            "numbers": table.set_column(i, name, pa.array([0.5] * N)),
            "bytes": table.set_column(i, name, pa.array([b"\xff"] * N)),
            "lists": table.set_column(i, name, pa.array([[]] * N, pa.list_(pa.string()))),
            "first repeated": table.set_column(
                i, name, pa.chunked_array([table[name].slice(0, 1)] * N)
            ),
        }
        for kind, changed in others.items():
            yield f"{path.name} {name} {kind}", lambda t=changed: put(t)
    yield f"{path.name} shorter", lambda: put(table.slice(1))
    yield f"{path.name} empty", lambda: put(table.slice(0, 0))


def changed_arrays(array: np.ndarray) -> dict[str, np.ndarray]:
    """Yield arrays of other types, shapes and values."""
    flat = array.reshape(-1)
    first = {}
    for name, value in (("nan", math.nan), ("inf", math.inf), ("huge", 6e4), ("negative", -1)):
        if array.dtype.kind == "f" or name == "negative":
            other = flat.copy()
            other[0] = value
            first[name] = other.reshape(array.shape)
    return first | {
        "float64": array.astype(np.float64),
        "int8": array.astype(np.int8),
        "bool": array.astype(bool),
        "complex": array.astype(np.complex64),
        "texts": array.astype("U4"),
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
        "flat": flat,
        "deeper": array[None],
        "shorter": array[:-1],
        "longer": np.concatenate([array, array[:1]]),
        "empty": array[:0],
        "zeros": np.zeros_like(array),
    }


def array_mutations(path: Path) -> Iterator[tuple[str, Act]]:
    """Change a NumPy file: its numbers, its shape and its bytes."""
    for name, array in changed_arrays(np.load(path)).items():
        yield f"{path.name} {name}", lambda a=array: save(path, a)
    whole = path.read_bytes()
    for name, data in (("cut", whole[:-7]), ("longer file", whole + bytes(9)), ("nothing", b"")):
        yield f"{path.name} {name}", lambda d=data: write(path, d)


def save(path: Path, array: np.ndarray) -> None:
    np.save(path, array)
    write(path, path.read_bytes())


def weight_mutations(path: Path) -> Iterator[tuple[str, Act]]:
    """Change each array of the weights."""
    weights = load_file(path)

    def put(others: dict[str, np.ndarray]) -> None:
        save_file(others, path)
        reseal(path.parent)

    for name, array in weights.items():
        for kind, other in changed_arrays(array).items():
            if other.dtype.kind in "fib" and other.dtype.isnative:
                changed = weights | {name: np.ascontiguousarray(other)}
                yield f"{path.name} {name} {kind}", lambda w=changed: put(w)
        fewer = {key: part for key, part in weights.items() if key != name}
        yield f"{path.name} {name} missing", lambda w=fewer: put(w)
    yield f"{path.name} one more", lambda: put(weights | {"more": np.zeros(3, np.float32)})
    head = json.dumps(
        {"encode_md": {"dtype": "x" * 1_000_000, "shape": [1], "data_offsets": [0, 4]}}
    )
    data = len(head).to_bytes(8, "little") + head.encode() + bytes(4)
    yield f"{path.name} long head", lambda: write(path, data)


def write(path: Path, data: bytes) -> None:
    """Write a file of an artifact, and update its size and hash in the manifest."""
    path.write_bytes(data)
    manifest = path.parent / MANIFEST
    if path.name != MANIFEST and manifest.is_file():
        content = json.loads(manifest.read_text())
        content["files"][path.name] = {"bytes": len(data), "sha256": file_sha256(path)}
        manifest.write_text(json.dumps(content))
    reseal(path.parent)


def mutations(collection: Path, checkpoint: Path) -> Iterator[tuple[str, Act]]:
    for path in (
        collection / MANIFEST,
        checkpoint / CONFIG,
        checkpoint / NAMES,
        checkpoint / TRAINING,
    ):
        yield from json_mutations(path)
    yield from column_mutations(collection / ITEMS)
    for name in (IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS, CAPTION_ITEM):
        yield from array_mutations(collection / name)
    yield from weight_mutations(checkpoint / WEIGHTS)


def use(collection: Path, checkpoint: Path) -> None:
    """Open an artifact and use it as the page does."""
    engine = SearchEngine.open(collection, checkpoint, "cpu")
    first = engine.collection.items["id"][0]
    query = engine.encode(item=first)
    assert query.code.any() and np.isfinite(query.code).all()
    found = engine.search(query, off=(1,))
    assert found.results and all(math.isfinite(result.score) for result in found.results)
    assert all(isinstance(text, str) for result in found.results for text in result.captions)
    assert engine.search_dense(query) is not None
    assert len(engine.dimension_table()) == engine.checkpoint.m
    assert engine.dimension(int(query.dimensions[0].dimension)).name
    assert all(isinstance(item, str) for item in engine.checkpoint.trained_items)
    json.dumps([*engine.checkpoint.names.values()], allow_nan=False, default=vars)


@pytest.fixture(scope="module")
def artifacts(
    word_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("whole")
    collection = write_word_collection(folder / "collection", n=N)
    return collection, Path(shutil.copytree(word_checkpoint.path, folder / "checkpoint"))


# Regression tests: each of these caused a traceback, a long error or a wrong result.
ONCE = (
    "collection.json ('backbone', 'sha256') None",
    "collection.json ('schema_version',) 'xxx",
    "collection.json ('files', 'items.parquet', 'bytes') 'two",
    *("collection.json ('roots',) True", "collection.json ('roots', 0) None"),
    "config.json ('encoder', 'k') 1.5",
    "config.json ('encoder', 'k_text') True",
    "config.json ('encoder', 'activation') 'xxx",
    "config.json ('backbone', 'sha256') [1]",
    "config.json ('trained_on',) {'a'",
    "names.json (0, 'score') 'xxx",
    "training.json ('items', 0) None",
    *("items.parquet id doubled", "items.parquet width doubled", "items.parquet captions lists"),
    *("items.parquet id first repeated", "caption_item.npy zeros"),
    *("weights.safetensors encode_md nan", "weights.safetensors decode_md inf"),
    "weights.safetensors long head",
)
SAMPLE = 150


def refusals(
    whole: Path, copy: Path, mutations: dict[str, Act], names: Sequence[str], use: Act
) -> set[str]:
    """Return the mutations whose use raises a one-line error; any other error fails."""
    refused = set()
    for name in names:
        shutil.copytree(whole, copy, dirs_exist_ok=True)
        mutations[name]()
        try:
            use()
        except (ValueError, OSError) as error:
            line = str(error)
            assert "\n" not in line and 20 < len(line) < 600, (name, line[:700])
            refused.add(name)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}"[:600]) from error
    return refused


def test_mutations_are_read_or_rejected_with_one_line(
    artifacts: tuple[Path, Path], tmp_path: Path, home: Path
) -> None:
    whole = artifacts[0].parent
    copies = Path(shutil.copytree(whole, tmp_path / "artifacts"))
    collection, checkpoint = copies / "collection", copies / "checkpoint"
    listed = dict(mutations(collection, checkpoint))
    pinned = [name for name in listed if name.startswith(ONCE)]
    assert len(pinned) >= len(ONCE) and len(listed) > 1500
    names = [*pinned, *random.Random(0).sample(sorted(listed), SAMPLE)]
    refused = refusals(whole, copies, listed, names, partial(use, collection, checkpoint))
    assert refused.issuperset(pinned)
    assert len(refused) > SAMPLE // 4 and home.is_dir()
    shutil.copytree(whole, copies, dirs_exist_ok=True)
    use(collection, checkpoint)


def code_mutations(collection: Path) -> Iterator[tuple[str, Act]]:
    for name in (MANIFEST, CONFIG, NAMES, WORDS):
        yield from json_mutations(collection / name)
    for part in (IMAGE_CODES, TEXT_CODES, WORD_CODES):
        for name in code_files(part):
            yield from array_mutations(collection / name)


def use_codes(collection: Path) -> None:
    """Open external codes and use them as the page does."""
    engine = SearchEngine.open(collection, device="cpu")
    for query in (engine.encode("a dog"), engine.encode(item=engine.collection.items["id"][0])):
        found = engine.search(query, off=(1,))
        assert all(math.isfinite(result.score) for result in found.results)
    assert len(engine.dimension_table()) == engine.checkpoint.m
    assert isinstance(engine.dimension(0).name, str)


def test_mutated_external_codes_are_read_or_rejected_with_one_line(
    tmp_path: Path, home: Path
) -> None:
    source = Codes(CodeFiles.find(write_codes(tmp_path / "codes")), tmp_path, name="mine")
    whole = prepare(
        source, None, tmp_path / "whole", precomputed=source.precomputed(), progress=False
    ).path
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    listed = dict(code_mutations(copy))
    names = random.Random(0).sample(sorted(listed), SAMPLE)
    refused = refusals(whole, copy, listed, names, partial(use_codes, copy))
    assert len(refused) > SAMPLE // 4 and home.is_dir()


@pytest.mark.parametrize("name", [MANIFEST, CONFIG, NAMES, TRAINING, CHECKSUMS])
def test_sparse_file_of_40_gb_is_not_read(
    artifacts: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    copies = Path(shutil.copytree(artifacts[0].parent, tmp_path / "artifacts"))
    folder = copies / ("checkpoint" if name in (CONFIG, NAMES, TRAINING) else "collection")
    with (folder / name).open("r+b") as stream:
        stream.truncate(40 << 30)
    opened = SearchEngine.open if folder.name == "collection" else Checkpoint.load
    with pytest.raises(
        ValueError, match=f"{name}.*(: its bytes have changed| 42,949,672,960 bytes)"
    ):
        opened(folder)
