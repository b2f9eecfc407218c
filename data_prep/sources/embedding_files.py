"""Files of embeddings, with tables that describe their rows.

Supported are clip-retrieval's output, numbered shards in three folders (`img_emb/img_emb_0.npy`,
`text_emb/text_emb_0.npy`, `metadata/metadata_0.parquet`); an array of images, optionally one of
texts (`.npy`, `.npz`, `.pt`, `.safetensors`, `.h5`, TensorBoard's `vectors.tsv`), and a table; and
Parquet files with embeddings in a list column. Arrays in `.npy` are memory-mapped; a file that
changes while it is in use is an error.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sieve.data_prep.captions.caption_rows import IMAGE_SUFFIX
from sieve.data_prep.captions.delimited import numbered_lines
from sieve.model.files import UNREADABLE, MappedArray, reason_of

IMAGES, TEXTS, METADATA = "img_emb", "text_emb", "metadata"
"""clip-retrieval's folders, and prefixes of its files."""

TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
_LISTS = (".txt",)
"""Text files with a name or a caption on each line."""
_ARRAYS = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".h5", ".hdf5")
_NUMBER = re.compile(r"_(\d+)$")
_OF_TEXTS = re.compile(r"(?i)te?xt|caption|sentence|prompt")
_OF_INDEX = re.compile(r"(?i)index|item|owner|mapping|_to_|2im")
_VECTORS = re.compile(r"(?i)(vectors?|tensors?|embeddings?)\.tsv")
_DELIMITERS = (",", ";", "\t", "|")
_BATCH = 4096
_MAX_LINE = 1 << 20
_LARGE, _BOMB_RATIO = 1 << 30, 200


class EmbeddingShard(NamedTuple):
    """Arrays and a table with corresponding rows."""

    images: np.ndarray
    """(n, d) float"""
    texts: np.ndarray | None
    """(c, d) float, or (n, k, d) for k captions of each image"""
    table: Path
    owners: np.ndarray | None = None
    """(c,) int: the image row that each text belongs to, if a file says so"""
    name: str = ""
    """Name of the array of images, for messages."""
    n_rows: int = 0
    """Number of rows of the table."""


def open_shards(folder: Path) -> list[EmbeddingShard]:
    """Open and validate the files of a folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        In one line, if files are missing, are not two-dimensional arrays of numbers, or do not
        match.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give the folder of the embeddings")
    if not (folder / IMAGES).is_dir():
        shards = _unsharded(folder)
    else:
        shards = [_numbered_shard(files) for files in _numbered(folder)]
    first = shards[0]
    for shard in shards:
        if shard.images.shape[1] != first.images.shape[1]:
            raise ValueError(
                f"{shard.name} is {shard.images.shape[1]} wide, but {first.name} is "
                f"{first.images.shape[1]} wide; all shards must be from one backbone"
            )
    return [shard._replace(n_rows=count_rows(shard.table)) for shard in shards]


def _numbered_shard(files: _Files) -> EmbeddingShard:
    images = _array(files.images)
    if files.texts is None:
        return EmbeddingShard(images, None, files.table, name=files.images.name)
    texts = _array(files.texts)
    if texts.shape != images.shape:
        raise ValueError(
            f"{files.texts} has shape {texts.shape}, but {files.images.name} {images.shape}; "
            "expected one row per caption, from the same backbone"
        )
    return EmbeddingShard(images, texts, files.table, name=files.images.name)


def count_rows(path: Path) -> int:
    """Count the rows of a table."""
    if path.suffix == ".parquet":
        try:
            return pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):
            pass  # read_table reports what is wrong
    return sum(1 for _ in read_table(path))


def read_table(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read all rows of a table; none can be skipped, because arrays refer to row numbers.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as table:
                wanted = [field.name for field in table.schema_arrow if not _is_vector(field.type)]
                for batch in table.iter_batches(_BATCH, columns=wanted):
                    yield from batch.to_pylist() if wanted else [{}] * batch.num_rows
        elif path.suffix == ".jsonl":
            yield from _json_lines(path)
        else:
            yield from _delimited(path)
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as a table: {reason}") from None


def _delimited(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read delimited text; a file with one column and no delimiter is a list."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline(_MAX_LINE)
        if not first.strip():
            raise ValueError("its first line is empty; expected column names")
        # Of several delimiters in the header, the most frequent one separates columns.
        delimiter = max(_DELIMITERS, key=first.count)
        if path.suffix in _LISTS or (path.suffix == ".tsv" and delimiter not in first):
            yield from _lines([first, *stream])
            return
        stream.seek(0)
        rows = csv.reader(stream, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(rows, [])]
        if len(set(header)) < len(header):
            raise ValueError(f"repeated column: {', '.join(header)[:80]}")
        for row in rows:
            if row and len(row) != len(header):
                raise ValueError(
                    f"line {rows.line_num} has {len(row)} fields, but the header has {len(header)}"
                )
            if row:
                yield dict(zip(header, row, strict=True))


def _lines(lines: list[str]) -> Iterator[Mapping[str, Any]]:
    """Read a list of image names or captions without a header."""
    texts = [line.rstrip("\r\n") for line in lines]
    named = sum(bool(IMAGE_SUFFIX.search(text)) for text in texts)
    if named not in (0, len(texts)):
        raise ValueError(
            f"{named} of its {len(texts)} lines are names of images; expected names or captions"
        )
    column = "image" if named else "caption"
    yield from ({column: text} for text in texts)


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as stream:
        for number, line in numbered_lines(stream, _MAX_LINE):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise ValueError(f"line {number} is not a JSON object")
            yield value


class _Files(NamedTuple):
    images: Path
    texts: Path | None
    table: Path


def _numbered(folder: Path) -> list[_Files]:
    """Return clip-retrieval's shards, sorted by number."""
    found = {part: _by_number(folder / part) for part in (IMAGES, TEXTS, METADATA)}
    if not found[IMAGES]:
        raise ValueError(f"{folder / IMAGES} holds no .npy files; run clip-retrieval inference")
    for part in (TEXTS, METADATA):
        differing = found[IMAGES].keys() ^ found[part].keys()
        if differing and (found[part] or part == METADATA):
            missing = found[IMAGES] if min(differing) in found[IMAGES] else found[part]
            raise ValueError(
                f"{folder} holds {len(found[IMAGES])} shards in {IMAGES} and {len(found[part])} in "
                f"{part}: {missing[min(differing)].name} has no counterpart; copy all of them"
            )
    return [
        _Files(found[IMAGES][number], found[TEXTS].get(number), found[METADATA][number])
        for number in sorted(found[IMAGES])
    ]


def _by_number(folder: Path) -> dict[int, Path]:
    """Return the numbered files of a folder, by number."""
    files = sorted(folder.glob("*.npy")) + sorted(folder.glob("*.parquet"))
    numbers = ((_NUMBER.search(path.stem), path) for path in files)
    return {int(found[1]): path for found, path in numbers if found}


def _unsharded(folder: Path) -> list[EmbeddingShard]:
    """Open arrays of images and optionally texts with one table, or Parquet files with vectors."""
    vectors, tables, _ = _sorted_files(folder)
    found = ", ".join(path.name for path in [*vectors, *tables][:8]) or "none of these"
    if not vectors and tables and all(map(_has_vectors, tables)):
        return [_shard(path, _parquet_arrays(path), found) for path in tables]
    if not vectors or len(tables) != 1:
        raise ValueError(
            f"{folder} holds {found}; expected clip-retrieval's folders {IMAGES}, {TEXTS} and "
            f"{METADATA}, or one array of images ({', '.join(_ARRAYS[:5])}), optionally one "
            "named text…, and one table (.csv, .tsv, .jsonl, .parquet, or .txt with a name or a "
            "caption on each line) with a row for each image"
        )
    arrays: dict[str, np.ndarray] = {}
    for path in vectors:
        arrays |= embedding_arrays(path)
    return [_shard(tables[0], arrays, found)]


def unused_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are neither arrays, tables nor images."""
    rest = _sorted_files(folder).rest
    if (folder / IMAGES).is_dir():
        rest = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return sorted(path for path in rest if not IMAGE_SUFFIX.search(path.name))


class _SortedFiles(NamedTuple):
    vectors: list[Path]
    tables: list[Path]
    rest: list[Path]


def _sorted_files(folder: Path) -> _SortedFiles:
    """Classify the files of a folder as arrays, tables and others."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    vectors = [path for path in files if path.suffix in _ARRAYS or _VECTORS.fullmatch(path.name)]
    tables = [path for path in files if path.suffix in TABLES and path not in vectors]
    tables = tables or [path for path in files if path.suffix in _LISTS]
    used = {*vectors, *tables}
    return _SortedFiles(vectors, tables, [path for path in files if path not in used])


def _shard(table: Path, arrays: Mapping[str, np.ndarray], found: str) -> EmbeddingShard:
    """Identify the arrays of images, texts and caption owners by name and shape."""
    owners = {
        name: array for name, array in arrays.items()
        if array.ndim == 1 and array.dtype.kind in "iu" and _OF_INDEX.search(name)
    }  # fmt: skip
    # Ids and labels beside embeddings are not needed.
    rest = {name: array for name, array in arrays.items() if array.ndim > 1 or len(arrays) == 1}
    texts = {name: array for name, array in rest.items() if _OF_TEXTS.search(name)}
    images = {name: array for name, array in rest.items() if name not in texts}
    if len(images) != 1 or len(texts) > 1 or len(owners) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:8])
        raise ValueError(
            f"{table.parent} holds {found} with the arrays {shapes or 'none'}; expected one of "
            "images, and optionally one with text or caption in its name: rename or remove others"
        )
    name, array = next(iter(images.items()))
    text = next(((key, value) for key, value in texts.items()), None)
    _check(name, array, (2,))
    if text is not None:
        _check(*text, (2, 3))
        if text[1].shape[-1] != array.shape[1]:
            raise ValueError(
                f"{text[0]} has shape {text[1].shape}, but {name} {array.shape}; embeddings "
                "of one backbone have the same width"
            )
    return EmbeddingShard(
        array, None if text is None else text[1], table, next(iter(owners.values()), None), name
    )


def embedding_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file by name, without unpickling.

    Raises
    ------
    ValueError
        In one line, if it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        try:
            return _parquet_arrays(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} cannot be read: {reason_of(error)}") from None
    if suffix == ".npy":
        return {path.name: _mapped(path)}
    if suffix in (".h5", ".hdf5"):
        return _hdf5(path)
    try:
        if suffix == ".npz":
            named = read_npz(path)
        elif suffix == ".tsv":
            named = {"": np.loadtxt(path, np.float32, delimiter="\t", ndmin=2)}
        elif suffix == ".safetensors":
            from safetensors.torch import load_file

            named = {name: _numpy(tensor) for name, tensor in load_file(path).items()}
        else:
            named = _torch(path)
    except (*UNREADABLE, ValueError, NotImplementedError, RuntimeError) as error:
        reason = reason_of(error)
    except Exception as error:  # safetensors and pickle have their own errors
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    else:
        alone = len(named) == 1
        return {path.name if alone else f"{path.name}[{name}]": a for name, a in named.items()}
    if "pickle" in reason.lower() or "weights" in reason.lower():
        reason = "it holds Python objects, which are never loaded"  # instead of torch's advice
    raise ValueError(f"{path} cannot be read: {reason[:200]}; save plain arrays with numpy.save")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, without unpickling.

    Raises
    ------
    ValueError
        If it would unpack to an implausible size, or holds Python objects.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _LARGE and unpacked > _BOMB_RATIO * path.stat().st_size:
        raise ValueError(f"it would unpack to {unpacked / 2**30:.0f} GiB, an implausible size")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _torch(path: Path) -> dict[str, np.ndarray]:
    import torch

    value = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(value, torch.Tensor):
        return {"": _numpy(value)}
    if isinstance(value, list | tuple) and all(isinstance(one, torch.Tensor) for one in value):
        return {"": _numpy(torch.stack([one.squeeze() for one in value]))}
    if isinstance(value, dict):
        tensors = {str(k): _numpy(v) for k, v in value.items() if isinstance(v, torch.Tensor)}
        if tensors:
            return tensors
    raise ValueError(f"it holds {type(value).__name__}, not a tensor or a dictionary of tensors")


def _numpy(tensor: Any) -> np.ndarray:
    """Convert a tensor to an array; NumPy has no bfloat16."""
    import torch

    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py  # type: ignore[import-not-found]  # not a dependency
    except ImportError:
        raise ValueError(
            f'{path} is HDF5, which requires h5py; convert it once: python -c "import h5py, numpy; '
            f"numpy.save('{path.stem}.npy', h5py.File('{path.name}')['KEY'][:])\" with the name of "
            "its data set instead of KEY, after `pip install h5py`"
        ) from None
    try:
        with h5py.File(path) as file:
            arrays = {name: np.asarray(file[name]) for name in file if hasattr(file[name], "shape")}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}") from None
    return {f"{path.name}[{name}]": array for name, array in arrays.items()}


def _is_vector(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(of(kind) for of in lists) and pa.types.is_floating(kind.value_type)


def _has_vectors(path: Path) -> bool:
    try:
        return path.suffix == ".parquet" and any(map(_is_vector, pq.read_schema(path).types))
    except (pa.ArrowException, OSError):
        return False


def _parquet_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the list columns of a Parquet file as arrays, by name."""
    arrays = {}
    for field in pq.read_schema(path):
        if not _is_vector(field.type):
            continue
        column = pq.read_table(path, columns=[field.name]).column(0).combine_chunks()
        lengths = pc.list_value_length(column)  # pyright: ignore[reportAttributeAccessIssue]
        width = lengths[0].as_py()
        wrong = [row for row, length in enumerate(lengths.to_pylist()) if length != width]
        if wrong or not width:
            row = wrong[0] if wrong else 0
            raise ValueError(
                f"{path}, column {field.name}: row {row} has {lengths[row].as_py() or 'no'} "
                f"numbers, row 0 has {width}; expected one embedding per row"
            )
        values = column.flatten().to_numpy(zero_copy_only=False)
        arrays[f"{path.name}[{field.name}]"] = values.reshape(-1, width)
    return arrays


def _array(path: Path) -> np.ndarray:
    """Map and validate an array of embeddings."""
    array = _mapped(path)
    _check(str(path), array, (2,))
    return array


def _mapped(path: Path) -> np.ndarray:
    try:
        return MappedArray.open(path)
    except UNREADABLE as error:
        reason = reason_of(error)
        # NumPy would advise to allow pickle.
        if any(word in reason for word in ("pickle", "Python objects", "magic string")):
            reason = "it holds Python objects or is not an array; save numbers with numpy.save"
        raise ValueError(f"{path} cannot be read: {reason}") from None


def _check(name: str, array: np.ndarray, dimensions: tuple[int, ...]) -> None:
    """Raise an error unless an array is a non-empty table of floating-point numbers."""
    if array.ndim not in dimensions or not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}; expected (rows, width), both above 0 "
            "(numpy.squeeze removes a dimension of 1)"
        )
    if array.dtype.kind != "f":
        raise ValueError(f"{name} holds {array.dtype}; expected floating-point numbers")
