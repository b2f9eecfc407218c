from __future__ import annotations

import pandas as pd
import pytest

from sieve.model.item_table import FileNames


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/photos/a.jpg", "a.jpg"),
        ("/photos/cam1/0001.png", "cam1/0001.png"),
        ("/photos/00003.tar::000030012.jpg@512+77", "00003.tar/000030012"),
        ("/photos/s/00003.tar::./dogs/img.v1.0003.jpg@512+77", "s/00003.tar/dogs/img.v1.0003"),
        ("/photos/train-0.parquet::image[2,13]", "train-0.parquet/2-13"),
        ("/photos/a::b@c.jpg", "a::b@c.jpg"),
        ("scene:0:17", "scene:0:17"),
        ("sub/named-by-a-table.jpg", "sub/named-by-a-table.jpg"),
        (None, ""),
    ],
)
def test_names_are_paths_inside_the_source(image: str | None, name: str) -> None:
    assert FileNames(pd.Series([image]), ["/photos"])[0] == name


def test_innermost_source_folder_is_used() -> None:
    images = pd.Series(["/a/b/x.jpg", "/a/y.jpg", "/a/bc/z.jpg"])
    names = FileNames(images, ["/a", "/a/b/"])
    assert [names[row] for row in range(3)] == ["x.jpg", "y.jpg", "bc/z.jpg"]


def test_files_outside_all_sources_are_named_from_their_common_folder() -> None:
    images = pd.Series(["/home/me/old/1/x.jpg", "/photos/y.jpg", "/home/me/old/2/x.jpg"])
    names = FileNames(images, ["/photos"])
    assert [names[row] for row in range(3)] == ["1/x.jpg", "y.jpg", "2/x.jpg"]
    apart = FileNames(pd.Series(["/home/me/x.jpg", "/mnt/z.jpg"]), [])
    assert [apart[row] for row in range(2)] == ["x.jpg", "z.jpg"]  # no local path
