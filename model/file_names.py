"""Display names of the original files of a collection's items.

The column `image` of `items.parquet` holds an original's location on the machine that prepared it:
a path, a member of a tar file (`TAR::MEMBER@START+SIZE`), a cell of a Parquet file
(`FILE.parquet::COLUMN[GROUP,ROW]`), or a scene (`scene:SEED:INDEX`). Results show only the part
inside the source folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_MEMBER = re.compile(r"(?P<tar>.+?)::(?P<member>.+)@\d+\+\d+", re.S)
_CELL = re.compile(r"(?P<table>.+\.parquet)::[^:\[\]]+\[(?P<group>\d+),(?P<row>\d+)\]", re.S)


class FileNames:
    """Names of files relative to a collection's source folders.

    Parameters
    ----------
    images : (n,) pandas.Series of str
        The column `image` of the items.
    roots : sequence of str
        Source folders, absolute. Files outside all of them are named relative to the deepest
        folder that they have in common.
    """

    def __init__(self, images: pd.Series, roots: Sequence[str]) -> None:
        self._images = images
        # Longest first, because one source folder may be inside another.
        self._roots = sorted({_with_slash(root) for root in roots}, key=len, reverse=True)
        self._roots += _common_folder(images, self._roots)

    def __getitem__(self, row: int) -> str:
        """Return the name of an item's file.

        Returns
        -------
        str
            A path with forward slashes inside the source folder; `SHARD.tar/KEY` and
            `SHARD.parquet/GROUP-ROW` for images in shards.
        """
        image = self._images.iloc[row]
        return "" if pd.isna(image) else self._inside(_shard_path(str(image)))

    def _inside(self, path: str) -> str:
        for root in self._roots:
            if path.startswith(root):
                return path[len(root) :]
        return path.rpartition("/")[2] if os.path.isabs(path) else path


def _shard_path(image: str) -> str:
    """Convert a reference into a shard to a path with forward slashes."""
    if member := _MEMBER.fullmatch(image):
        folder, _, name = member["member"].removeprefix("./").rpartition("/")
        key = name.rpartition(".")[0] or name
        image = "/".join(part for part in (member["tar"], folder, key) if part)
    elif cell := _CELL.fullmatch(image):
        image = f"{cell['table']}/{cell['group']}-{cell['row']}"
    return image.replace(os.sep, "/")


def _with_slash(root: str) -> str:
    return root.replace(os.sep, "/").rstrip("/") + "/"


def _common_folder(images: pd.Series, roots: Sequence[str]) -> list[str]:
    """Return the common folder of absolute paths outside the roots, unless it is `/`."""
    paths = pa.array(images, pa.string())
    outside = pc.call_function("starts_with", [paths], pc.MatchSubstringOptions("/"))
    for root in roots:
        inside = pc.call_function("starts_with", [paths], pc.MatchSubstringOptions(root))
        outside = pc.call_function("and_not", [outside, inside])
    ends = pc.call_function("min_max", [paths.filter(outside)]).as_py()
    if ends["min"] is None:
        return []
    # The common folder of the first and the last path in order is that of all.
    folder = os.path.commonpath(
        [os.path.dirname(path.partition("::")[0]) for path in ends.values()]
    )
    return [] if folder == os.sep else [_with_slash(folder)]
