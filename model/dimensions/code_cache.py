"""Cache of the codes and dimension statistics of a collection and a checkpoint.

Stored in `$SIEVE_HOME/codes` under the hashes of both, so that read-only collections work and the
cache is never stale. A cache with changed bytes is computed again.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array

from sieve.model.checkpoint import MEASUREMENTS, Checkpoint
from sieve.model.codes import (
    IMAGE_CODES,
    TEXT_CODES,
    SparseCodes,
    code_files,
    encode_codes,
    read_codes,
)
from sieve.model.collection import Collection
from sieve.model.dimensions.naming import nameable
from sieve.model.dimensions.statistics import (
    both_modalities,
    mean_caption_codes,
    word_association,
)
from sieve.model.dimensions.table import COLUMNS, VERSION, dimension_table
from sieve.model.files import (
    atomic_file,
    atomic_folder,
    check_files,
    sieve_home,
    write_checksums,
)
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.words.text import WordPresence, word_presence

log = logging.getLogger(__name__)

_TABLE = "dimensions.parquet"
_RECOMPUTED = "it is computed again"
_DIMENSIONS_AT_ONCE = 4096
MEASURED = ("stability", "own_fall", "other_fall")
"""Columns of the table that only some commands measure: see `sieve.model.sanity_checks`."""
_T = TypeVar("_T")


@dataclass(eq=False)
class CodeCache:
    """Codes of a collection, and statistics of every dimension."""

    collection: Collection
    image_codes: SparseCodes
    """Of the n images."""
    text_codes: SparseCodes
    """Of the c captions."""
    dimensions: pd.DataFrame
    """See `sieve.model.dimensions.table.dimension_table`; also has `top_word`."""

    @property
    def mean_positive(self) -> np.ndarray:
        """Mean activation of each dimension over the images that have it: (m,) float32."""
        return self.dimensions["mean"].to_numpy(np.float32)

    @cached_property
    def _words(self) -> WordPresence:
        return nameable(word_presence(self.collection.items["captions"].tolist(), min_items=3))

    @cached_property
    def _both(self) -> csr_array:
        texts = mean_caption_codes(
            self.text_codes, self.collection.caption_item, self.image_codes.n
        )
        return both_modalities(self.image_codes.by_row, texts)

    def words_of(self, dimension: int, count: int = 10) -> tuple[tuple[str, float], ...]:
        """Return the caption words with the highest association to a dimension, with scores."""
        column = csr_array(self._both[:, [dimension]])
        association = word_association(column, self._words.presence)[0]
        order = np.argsort(-association, kind="stable")[:count]
        words = self._words.words
        return tuple((words[w], float(association[w])) for w in order if association[w] > 0)

    def coactivation(self, dimension: int) -> np.ndarray:
        """Return the cosine of a dimension with all others over the images: (m,) float32."""
        codes = self.image_codes.by_dimension
        shared = (codes.T @ codes[:, [dimension]]).toarray().ravel()
        norms = np.sqrt(np.asarray((codes**2).sum(0)).ravel())
        return shared / np.maximum(norms * norms[dimension], 1e-12)

    @classmethod
    def compute(cls, collection: Collection, checkpoint: Checkpoint) -> CodeCache:
        """Encode a collection and compute its statistics."""
        log.info("encoding %s items and %s captions", collection.n_items, collection.n_captions)
        image_codes, text_codes = codes_of(collection, checkpoint)
        table = dimension_table(collection, checkpoint, image_codes, text_codes)
        cache = cls(collection, image_codes, text_codes, table)
        table["top_word"] = cache._top_words()
        return cache

    def _top_words(self) -> list[str]:
        """Return the most associated word of each dimension, or nothing."""
        if not self._words.words:
            return [""] * self.image_codes.m
        words = np.array(self._words.words, object)
        columns = csc_array(self._both)
        top_words: list[str] = []
        for start in range(0, self.image_codes.m, _DIMENSIONS_AT_ONCE):
            part = csr_array(columns[:, start : start + _DIMENSIONS_AT_ONCE])
            association = word_association(part, self._words.presence)
            best = words[association.argmax(1)]
            top_words += np.where(association.max(1) > 0, best, "").tolist()
        return top_words

    def save(self, folder: Path) -> None:
        """Write the cache to an empty folder."""
        self.image_codes.save_cache(folder, IMAGE_CODES, postings=True)
        self.text_codes.save_cache(folder, TEXT_CODES)
        self.dimensions.to_parquet(folder / _TABLE, index=False)

    @classmethod
    def load(cls, folder: Path, collection: Collection, m: int) -> CodeCache:
        """Read a cache that `save` wrote; raise a ValueError if it lacks a column of `COLUMNS`."""
        table = pd.read_parquet(folder / _TABLE)
        if missing := [one.name for one in COLUMNS if one.name not in table]:
            raise ValueError(f"{_TABLE} has no column {', '.join(missing)}; {_RECOMPUTED}")
        return cls(
            collection,
            SparseCodes.load_cache(folder, IMAGE_CODES, m),
            SparseCodes.load_cache(folder, TEXT_CODES, m),
            table,
        )


def codes_of(collection: Collection, checkpoint: Checkpoint) -> tuple[SparseCodes, SparseCodes]:
    """Encode the images and captions of a collection, or read its stored codes."""
    if collection.codes:
        counts = {IMAGE_CODES: collection.n_items, TEXT_CODES: collection.n_captions}
        images, texts = (
            read_codes(collection.checked(*code_files(part)), part, n, collection.codes.m)
            for part, n in counts.items()
        )
        return images, texts
    return (
        encode_codes(checkpoint.encoder, collection.image_embeddings, IMAGE),
        encode_codes(checkpoint.encoder, collection.text_embeddings, TEXT),
    )


def open_code_cache(collection: Collection, checkpoint: Checkpoint) -> CodeCache:
    """Read the cached codes of a collection, or compute and cache them."""
    return read_or_compute(
        cache_folder(collection, checkpoint, str(VERSION)),
        lambda folder: CodeCache.load(folder, collection, checkpoint.m),
        lambda: CodeCache.compute(collection, checkpoint),
        CodeCache.save,
    )


def codes_folder() -> Path:
    """Return the folder of all cached codes, which a Space also expects inside `$SIEVE_HOME`."""
    return sieve_home() / "codes"


def cache_folder(collection: Collection, checkpoint: Checkpoint, what: str) -> Path:
    """Return the cache folder of a collection and a checkpoint, for the content `what`."""
    name = f"{collection.sha256[:16]}-{checkpoint.sha256[:24]}-{what}"
    return codes_folder() / name


def read_measurements(checkpoint: Checkpoint) -> pd.DataFrame:
    """Return the columns `MEASURED`, (m,) float64 each, NaN where nothing was measured.

    These are the last ones measured here, or else those in the checkpoint's folder.
    """
    for path in (_measurements_path(checkpoint), checkpoint.path / MEASUREMENTS):
        try:
            table = pd.read_csv(path, usecols=list(MEASURED), dtype=np.float64)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s)", path, error)
            continue
        if len(table) == checkpoint.m:
            return pd.DataFrame(table[list(MEASURED)])
    return pd.DataFrame(np.nan, index=range(checkpoint.m), columns=list(MEASURED))


def save_measurements(checkpoint: Checkpoint, columns: Mapping[str, np.ndarray]) -> None:
    """Save measurements of the dimensions, (m,) float each, in addition to earlier ones."""
    path = _measurements_path(checkpoint)
    table = read_measurements(checkpoint).assign(**columns).round(3)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            table.to_csv(temporary, index_label="dimension")
    except OSError as error:
        log.warning("%s is not cached: %s", path.name, error)


def _measurements_path(checkpoint: Checkpoint) -> Path:
    return codes_folder() / f"{checkpoint.sha256[:24]}-{MEASUREMENTS}"


def read_or_compute(
    folder: Path,
    load: Callable[[Path], _T],
    compute: Callable[[], _T],
    save: Callable[[_T, Path], None],
) -> _T:
    """Read cached data, or compute and cache it; a damaged cache is replaced."""
    if folder.is_dir():
        try:
            check_files(folder, _RECOMPUTED)
            return load(folder)
        except (OSError, ValueError, KeyError, EOFError) as error:
            log.warning("the cache in %s cannot be read (%s)", folder, error)
            _discard(folder)
    found = compute()
    write_cache(folder, lambda temporary: save(found, temporary))
    return found


def write_cache(folder: Path, save: Callable[[Path], None]) -> None:
    """Write cached data; log a warning if that fails."""
    try:
        with atomic_folder(folder) as temporary:
            save(temporary)
            write_checksums(temporary, (path.name for path in temporary.iterdir()))
    except FileExistsError:
        pass  # another process has written the same data
    except OSError as error:
        log.warning("%s is not cached: %s", folder.name, error)


def _discard(folder: Path) -> None:
    """Remove an unusable cache, so that it can be written again."""
    try:
        trash = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.rename(trash / folder.name)
        shutil.rmtree(trash, ignore_errors=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", folder, error)
