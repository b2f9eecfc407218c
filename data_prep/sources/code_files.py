"""Files of sparse codes that were made elsewhere: matrices, names of dimensions, lists of words.

All of it may be hostile: nothing is unpickled, sizes are looked at before anything is unpacked, and
every number is checked before SciPy sees it.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sieve.data_prep.captions import tidy
from sieve.data_prep.sources.embedding_files import embedding_arrays
from sieve.model.code_checks import csr_fault
from sieve.model.codes import SparseCodes
from sieve.model.faults import UNREADABLE, reason_of

MAX_TEXT_BYTES = 1 << 26
MAX_NAME_CHARACTERS = 120
"""Longer names are cut: they stand on every chip."""

_PARTS = {
    "csr": ("shape", "indptr", "indices", "data"),
    "csc": ("shape", "indptr", "indices", "data"),
    "coo": ("shape", "row", "col", "data"),
}
_ALIASES = {
    "crow_indices": "indptr", "col_indices": "indices", "values": "data", "rows": "row",
    "cols": "col", "columns": "col",
}  # fmt: skip
"""Names that PyTorch and other libraries give to the arrays of a sparse matrix."""
CODE_SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".parquet")
_LARGE, _BOMB_RATIO = 1 << 30, 200
_DIMENSION_COLUMNS = ("dimension", "index", "latent", "feature", "id")
_NAME_COLUMNS = ("name", "concept", "word", "token", "label", "explanation", "description")


def read_codes_file(path: Path, m: int | None = None) -> SparseCodes:
    """Read a matrix of codes, sparse or dense, its rows scaled to length 1.

    Parameters
    ----------
    path : Path
        CSR, CSC or COO as `scipy.sparse.save_npz` writes them, or in `.safetensors`; a dense array
        in `.npy`, `.npz`, `.pt`, `.safetensors`, or in a list column of `.parquet`.
    m : int, optional
        How many dimensions it must have.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        In one line, if it is no matrix of finite numbers of 0 or more, in canonical form.
    """
    parts, (rows, width) = _csr_parts(path, _read_parts(path))
    fault = csr_fault(parts["indptr"], parts["indices"], parts["data"], (rows, width))
    if fault:
        raise ValueError(f"{path} cannot be used: {fault}")
    if m is not None and width != m:
        raise ValueError(
            f"{path} has {width:,} dimensions, but the images' codes have {m:,}; all must be of "
            "one space"
        )
    arrays = (parts["data"], parts["indices"], parts["indptr"])
    return SparseCodes.from_rows(csr_array(arrays, shape=(rows, width)))


def read_names(path: Path, m: int) -> dict[int, str]:
    """Read a name for each dimension, or for some; those without stay unnamed.

    Parameters
    ----------
    path : Path
        `.txt`: a name a line. `.json`: a list of names, or an object of names by dimension. `.csv`:
        a column of names, beside one of dimensions or in their order.
    m : int

    Raises
    ------
    FileNotFoundError, ValueError
        In one line; also where there are more or fewer names than dimensions.
    """
    text = _read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        named = _from_json(path, text)
    elif suffix == ".csv":
        named = _from_csv(path, text)
    else:
        named = text.splitlines()
    if isinstance(named, list):
        if len(named) != m:
            raise ValueError(
                f"{path} has {len(named):,} names, but the codes have {m:,} dimensions; one a "
                "dimension is expected, in their order (an empty one where there is none)"
            )
        named = dict(enumerate(named))
    outside = next((j for j in named if not 0 <= j < m), None)
    if outside is not None:
        raise ValueError(f"{path} names dimension {outside}; the codes have 0 to {m - 1}")
    tidied = {j: tidy(name) for j, name in sorted(named.items())}
    return {j: _short(name) for j, name in tidied.items() if name}


def read_word_list(path: Path, n: int) -> list[str]:
    """Read the words that a table of word codes has a row for, a word or short text a line.

    Raises
    ------
    FileNotFoundError, ValueError
        In one line.
    """
    words = [tidy(line) for line in _read_text(path).splitlines()]
    if len(words) != n:
        raise ValueError(
            f"{path} has {len(words):,} lines, but the codes of words have {n:,} rows; one line a "
            "row is expected"
        )
    return words


def _read_parts(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file, by name."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; save it with scipy.sparse.save_npz")
    if path.suffix == ".parquet":
        return embedding_arrays(path)
    if path.suffix != ".npz":
        found = embedding_arrays(path)
        # Several arrays are called FILE[NAME].
        return {name.partition("[")[2].rstrip("]") or name: array for name, array in found.items()}
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _LARGE and unpacked > _BOMB_RATIO * path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked / 2**30:.0f} GiB, no plausible codes")
        with np.load(path, allow_pickle=False) as archive:
            return {part: np.asarray(archive[part]) for part in archive.files}
    except (*UNREADABLE, NotImplementedError) as error:
        reason = reason_of(error)
        if "pickle" in reason:  # NumPy's advice is to allow what must not be allowed
            reason = "it holds Python objects"
    raise ValueError(
        f"{path} cannot be read: {reason}; save plain numbers with scipy.sparse.save_npz"
    )


def _csr_parts(
    path: Path, parts: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Convert a matrix in any usual format to the arrays of CSR and its shape.

    Read are SciPy's CSR, CSC and COO, their arrays under PyTorch's names, and one dense array.
    """
    named = {_ALIASES.get(name, name): array for name, array in parts.items()}
    if len(parts) == 1:
        (dense,) = parts.values()
        if dense.ndim == 2 and dense.dtype.kind in "fiub":
            rows, columns = np.nonzero(dense)
            return _from_coordinates(path, rows, columns, dense[rows, columns], dense.shape)
    kind = _format(named)
    missing = [part for part in _PARTS.get(kind, ()) if part not in named]
    if kind not in _PARTS or missing:
        what = f"it lacks {', '.join(missing)}" if missing else f"it is of format {kind[:20]!r}"
        if not missing and len(parts) == 1:
            what = f"its array has shape {next(iter(parts.values())).shape}"
        raise ValueError(
            f"{path} cannot be read: {what}; save it as CSR: "
            "scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(codes))"
        )
    shape = named["shape"]
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or (shape < 0).any():
        raise ValueError(f"{path} has no shape of two whole numbers; save it with scipy again")
    n, m = shape.tolist()
    if kind == "csr":
        return {part: named[part] for part in ("indptr", "indices", "data")}, (n, m)
    if kind == "coo":
        return _from_coordinates(path, named["row"], named["col"], named["data"], (n, m))
    indptr = named["indptr"]
    if indptr.ndim != 1 or indptr.dtype.kind not in "iu" or len(indptr) != m + 1 or (
        (np.diff(indptr.astype(np.int64)) < 0).any() or indptr[-1] != len(named["data"])
    ):  # fmt: skip
        raise ValueError(f"{path} cannot be used: its indptr does not fit {m:,} columns")
    columns = np.repeat(np.arange(m), np.diff(indptr.astype(np.int64)))
    return _from_coordinates(path, named["indices"], columns, named["data"], (n, m))


def _format(named: Mapping[str, np.ndarray]) -> str:
    """Return the format that SciPy notes, or that the names of the arrays imply."""
    if "format" in named:
        kind = named["format"]
        return bytes(kind.item()).decode(errors="replace") if kind.dtype.kind == "S" else "?"
    return "coo" if "row" in named else "csr"


def _from_coordinates(
    path: Path, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Sort coordinates into the arrays of CSR, without zeros."""
    n, m = shape
    same = rows.shape == columns.shape == values.shape and rows.ndim == 1
    if not same or rows.dtype.kind not in "iu" or columns.dtype.kind not in "iu":
        raise ValueError(
            f"{path} cannot be used: its rows, columns and values have shapes {rows.shape}, "
            f"{columns.shape} and {values.shape}; expected as many whole numbers as values"
        )
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < n:
        raise ValueError(
            f"{path} cannot be used: it has row {int(rows.max())}; rows are 0 to {n - 1}"
        )
    kept = values != 0
    rows, columns, values = rows[kept].astype(np.int64), columns[kept], values[kept]
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    return {"indptr": indptr, "indices": columns[order], "data": values[order]}, (n, m)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check its name")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"{path} has over {MAX_TEXT_BYTES >> 20} MiB, which is no list of names")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None


def _from_json(path: Path, text: str) -> list[str] | dict[int, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {' '.join(str(error).split())[:120]}") from None
    if isinstance(value, list) and all(isinstance(name, str | None) for name in value):
        return [name or "" for name in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value.values()):
        return _by_dimension(path, value.items())
    raise ValueError(f"{path} is neither a list of names nor an object of names by dimension")


def _from_csv(path: Path, text: str) -> list[str] | dict[int, str]:
    try:
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV: {error}") from None
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    name = next((head.index(each) for each in _NAME_COLUMNS if each in head), None)
    number = next((head.index(each) for each in _DIMENSION_COLUMNS if each in head), None)
    if name is None:
        raise ValueError(f"{path} has no column `name`; its first line says {head[:5]}")
    cells = [[*row, *[""] * (len(head) - len(row))] for row in rows[1:]]
    if number is None:
        return [row[name] for row in cells]
    return _by_dimension(path, ((row[number], row[name]) for row in cells))


def _by_dimension(path: Path, pairs: Iterable[tuple[Any, str]]) -> dict[int, str]:
    named: dict[int, str] = {}
    for dimension, name in pairs:
        text = str(dimension).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(f"{path} names dimension {text[:40]!r}, which is no whole number")
        if int(text) in named:
            raise ValueError(f"{path} names dimension {int(text)} twice")
        named[int(text)] = name
    return named


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARACTERS else f"{name[: MAX_NAME_CHARACTERS - 1]}…"
