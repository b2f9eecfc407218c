"""Files of embeddings with the tables that say what each row is of.

Either clip-retrieval's output, numbered shards in three folders (`img_emb/img_emb_0.npy`,
`text_emb/text_emb_0.npy`, `metadata/metadata_0.parquet`), or one `.npy` of images, perhaps one of
texts, and a table. Row i of each belongs together. Arrays are mapped, not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from sieve.data_prep.captions.formats import numbered_lines
from sieve.model.faults import UNREADABLE, reason_of

IMAGES, TEXTS, FACTS = "img_emb", "text_emb", "metadata"
"""clip-retrieval's folders; its files begin with these names too."""

TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
_NUMBER = re.compile(r"_(\d+)$")
_OF_TEXTS = re.compile(r"(?i)te?xt|caption")
_BATCH = 4096
_MAX_LINE = 1 << 20


class Shard(NamedTuple):
    """Files whose rows belong together."""

    images: np.ndarray
    """(r, d) float, mapped"""
    texts: np.ndarray | None
    """(r, d) float, mapped"""
    table: Path


def open_shards(folder: Path) -> list[Shard]:
    """Find and check the files of a folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        In one line, where files are missing, are no tables of numbers, or do not fit together.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give the folder of the embeddings")
    files = _numbered(folder) if (folder / IMAGES).is_dir() else [_plain(folder)]
    shards = [Shard(_array(i), None if t is None else _array(t), table) for i, t, table in files]
    first = shards[0]
    for (images, texts, _), shard in zip(files, shards, strict=True):
        if shard.images.shape[1] != first.images.shape[1]:
            raise ValueError(
                f"{images} is {shard.images.shape[1]} wide, but {files[0].images.name} "
                f"{first.images.shape[1]}; all shards must be of one backbone"
            )
        if shard.texts is not None and shard.texts.shape != shard.images.shape:
            raise ValueError(
                f"{texts} has shape {shard.texts.shape}, but {images.name} {shard.images.shape}; "
                "one row a caption is expected, of the same backbone"
            )
    return shards


def read_table(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read a table row by row; a row of it cannot be left out, as arrays go by its numbers.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(_BATCH):
                    yield from batch.to_pylist()
            return
        if path.suffix == ".jsonl":
            yield from _json_lines(path)
            return
        separator = "\t" if path.suffix == ".tsv" else ","
        parts = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            chunksize=_BATCH,
        )  # fmt: skip
        for part in parts:
            yield from part.to_dict("records")  # type: ignore[misc]
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a table that can be read: {reason}") from None


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as stream:
        for number, line in numbered_lines(stream, _MAX_LINE):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield value


class _Files(NamedTuple):
    images: Path
    texts: Path | None
    table: Path


def _numbered(folder: Path) -> list[_Files]:
    """List clip-retrieval's shards, by their numbers."""
    found = {part: _by_number(folder / part) for part in (IMAGES, TEXTS, FACTS)}
    if not found[IMAGES]:
        raise ValueError(f"{folder / IMAGES} holds no .npy files; run clip-retrieval inference")
    for part in (TEXTS, FACTS):
        differing = found[IMAGES].keys() ^ found[part].keys()
        if differing and (found[part] or part == FACTS):
            missing = found[IMAGES] if min(differing) in found[IMAGES] else found[part]
            raise ValueError(
                f"{folder} holds {len(found[IMAGES])} shards in {IMAGES} and {len(found[part])} in "
                f"{part}: {missing[min(differing)].name} has no counterpart; copy all of them"
            )
    return [
        _Files(found[IMAGES][number], found[TEXTS].get(number), found[FACTS][number])
        for number in sorted(found[IMAGES])
    ]


def _by_number(folder: Path) -> dict[int, Path]:
    """Find the numbered files of a folder."""
    files = sorted(folder.glob("*.npy")) + sorted(folder.glob("*.parquet"))
    numbers = ((_NUMBER.search(path.stem), path) for path in files)
    return {int(found[1]): path for found, path in numbers if found}


def _plain(folder: Path) -> _Files:
    """Find one array of images, perhaps one of texts, and one table."""
    arrays = sorted(folder.glob("*.npy"))
    tables = sorted(path for path in folder.iterdir() if path.suffix in TABLES)
    texts = [path for path in arrays if _OF_TEXTS.search(path.stem)]
    images = [path for path in arrays if path not in texts]
    if len(images) != 1 or len(texts) > 1 or len(tables) != 1:
        found = ", ".join(path.name for path in [*arrays, *tables][:8]) or "none of these"
        raise ValueError(
            f"{folder} holds {found}; expected clip-retrieval's folders {IMAGES}, {TEXTS} and "
            f"{FACTS}, or one .npy of images, perhaps one named text….npy, and one table "
            "(.csv, .tsv, .jsonl, .parquet) with a row each"
        )
    return _Files(images[0], texts[0] if texts else None, tables[0])


def _array(path: Path) -> np.ndarray:
    """Map an array of embeddings."""
    try:
        array = open_memmap(path, mode="r")
    except UNREADABLE as error:
        reason = reason_of(error)
        # NumPy's advice is to allow what must not be allowed.
        if any(word in reason for word in ("pickle", "Python objects", "magic string")):
            reason = "it holds Python objects or is no array; save plain numbers with numpy.save"
        raise ValueError(f"{path} cannot be read: {reason}") from None
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{path} has shape {array.shape}; expected (rows, width), neither of them 0"
        )
    if array.dtype.kind != "f":
        raise ValueError(f"{path} holds {array.dtype}; expected floating-point numbers")
    return array
