"""Test that mutated layouts never give a wrong pair without a report."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import layouts
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import MUTATIONS, TEXT_MUTATIONS, Layout, World, check

from sieve.data_prep.sources.coco import Coco
from sieve.data_prep.sources.folder import Folder


def in_folder(folder: Path, table: Path) -> Folder:
    return Folder(folder / "img", table)


def text_table(name: str, delimiter: str = ",", head: bool = True) -> Any:
    def write(folder: Path, world: World) -> Path:
        world.write_files(folder / "img")
        stream = StringIO()
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        if head:
            writer.writerow(["image", "caption"])
        writer.writerows((row.name, row.caption) for row in world.rows)
        (folder / name).write_text(stream.getvalue(), encoding="utf-8")
        return folder / name

    return write


def token_file(folder: Path, world: World) -> Path:
    world.write_files(folder / "img")
    lines = [f"{row.name}#{row.view}\t{row.caption}\n" for row in world.rows]
    (folder / "a.token").write_text("".join(lines), encoding="utf-8")
    return folder / "a.token"


def results_csv(folder: Path, world: World) -> Path:
    world.write_files(folder / "img")
    lines = [f"{row.name}| {row.view}| {row.caption}\n" for row in world.rows]
    text = "image_name| comment_number| comment\n" + "".join(lines)
    (folder / "results.csv").write_text(text, encoding="utf-8")
    return folder / "results.csv"


def json_file(name: str, value_of: Any) -> Any:
    def write(folder: Path, world: World) -> Path:
        world.write_files(folder / "img")
        (folder / name).write_text(value_of(world), encoding="utf-8")
        return folder / name

    return write


def json_lines(world: World) -> str:
    rows = ({"file_name": row.name, "text": row.caption} for row in world.rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def json_list(world: World) -> str:
    named = world.by_name().items()
    return json.dumps([{"image": n, "caption": [r.caption for r in rows]} for n, rows in named])


def json_by_name(world: World) -> str:
    return json.dumps({n: [r.caption for r in rows] for n, rows in world.by_name().items()})


def karpathy(world: World) -> str:
    images = [
        {
            "filename": name.rpartition("/")[2],
            **({"filepath": name.rpartition("/")[0]} if "/" in name else {}),
            "sentences": [{"raw": row.caption, "tokens": row.caption.split()} for row in rows],
            "split": world.splits.get(rows[0].picture, "train"),
        }
        for name, rows in world.by_name().items()
    ]
    return json.dumps({"images": images, "dataset": "own"}, indent=0)


def coco_json(world: World) -> str:
    names = list(world.by_name())
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    notes = [
        {"id": number, "image_id": names.index(row.name), "caption": row.caption}
        for number, row in enumerate(world.rows)
    ]
    return json.dumps({"images": images, "annotations": notes}, indent=0)


def parquet(folder: Path, world: World) -> Path:
    world.write_files(folder / "img")
    named = world.by_name()
    columns = {
        "file_name": list(named),
        "captions": [[row.caption for row in rows] for rows in named.values()],
    }
    pq.write_table(pa.table(columns), folder / "captions.parquet")
    return folder / "captions.parquet"


def metadata(folder: Path, world: World) -> Path:
    """Hugging Face's imagefolder, one metadata.jsonl in each folder."""
    world.write_files(folder / "img")
    by_folder: dict[str, list[str]] = {"": []}
    for row in world.rows:
        inside, _, name = row.name.rpartition("/")
        if not (folder / "img" / inside).is_dir():
            inside, name = "", row.name
        by_folder.setdefault(inside, []).append(
            json.dumps({"file_name": name, "text": row.caption}, ensure_ascii=False) + "\n"
        )
    for inside, lines in by_folder.items():
        path = folder / "img" / inside / "metadata.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
    return max((folder / "img").rglob("metadata.jsonl"), key=lambda path: path.stat().st_size)


def sidecars(suffix: str) -> Any:
    def write(folder: Path, world: World) -> Path:
        world.write_files(folder / "img")
        for name, rows in world.by_name().items():
            path = folder / "img" / (name.removesuffix(".png") + suffix)
            if not path.resolve().is_relative_to(folder):
                world.rows = [row for row in world.rows if row.name != name]
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            captions = [row.caption for row in rows]
            text = json.dumps({"captions": captions}) if suffix == ".json" else "\n".join(captions)
            path.write_text(text, encoding="utf-8")
        return folder

    return write


LAYOUTS = [
    Layout("csv", text_table("a.csv"), in_folder),
    Layout("csv without a header", text_table("a.csv", head=False), in_folder),
    Layout("semicolons", text_table("a.csv", ";"), in_folder),
    Layout("tsv", text_table("a.tsv", "\t"), in_folder),
    Layout("token", token_file, in_folder),
    Layout("results.csv", results_csv, in_folder),
    Layout("json lines", json_file("a.jsonl", json_lines), in_folder),
    Layout("json list", json_file("a.json", json_list), in_folder),
    Layout("json by name", json_file("a.json", json_by_name), in_folder),
    Layout("karpathy", json_file("dataset.json", karpathy), in_folder),
    Layout("coco in a folder", json_file("captions.json", coco_json), in_folder),
    Layout("parquet", parquet, in_folder),
    Layout("imagefolder", metadata, lambda folder, _: Folder(folder / "img")),
    Layout("txt beside", sidecars(".txt"), lambda folder, _: Folder(folder / "img")),
    Layout("json beside", sidecars(".json"), lambda folder, _: Folder(folder / "img")),
    Layout(
        "coco",
        json_file("captions.json", coco_json),
        lambda folder, table: Coco(folder / "img", (table,)),
    ),
]
BINARY = {"parquet", "txt beside", "json beside"}


def mutated(layout: Layout, seed: int) -> tuple[World, list[str]]:
    """Apply one to three mutations, drawn by a seed; the first goes through all in turn."""
    draw = random.Random(f"{layout.name} {seed}")
    world = World.made()
    first = MUTATIONS[(seed + LAYOUTS.index(layout) * 5) % len(MUTATIONS)]
    chosen = [first, *draw.sample(MUTATIONS, draw.randrange(3))]
    for mutation in chosen:
        mutation(world, draw)
    return world, [mutation.__name__ for mutation in chosen]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_intact_layout_is_read_completely(
    layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.made()
    table = layout.write(tmp_path, world)
    found = check(lambda: layout.open(tmp_path, table), world, lambda: caplog.text)
    assert found == layouts.Checked(len(world.rows), "", [], [])


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_mutated_layout_is_never_paired_wrongly_without_a_report(
    layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(len(MUTATIONS)):
        caplog.clear()
        world, names = mutated(layout, seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        table = layout.write(folder, world)
        found = check(lambda f=folder, t=table: layout.open(f, t), world, lambda: caplog.text)
        where = (layout.name, seed, names)
        # A pair by name instead of path may be wrong if files or rows are missing, but is reported.
        assert not found.wrong or "matched if only one fits" in caplog.text, (*where, found)
        assert not found.unreported, (*where, found)
        outcomes["refused" if found.refusal else "wrong, said" if found.wrong else "right"] += 1
    assert outcomes["right"] >= len(MUTATIONS) // 2, outcomes
    assert outcomes["wrong, said"] <= 2, outcomes


@pytest.mark.parametrize(
    "layout", [one for one in LAYOUTS if one.name not in BINARY], ids=lambda layout: layout.name
)
def test_damaged_table_never_moves_a_caption_to_another_image(
    layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(3 * len(TEXT_MUTATIONS)):
        caplog.clear()
        draw = random.Random(f"{layout.name} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        world = World.made(6)
        table = layout.write(folder, world)
        mutation = TEXT_MUTATIONS[seed % len(TEXT_MUTATIONS)]
        table.write_bytes(mutation(table.read_bytes(), draw))
        found = check(lambda f=folder, t=table: layout.open(f, t), world, lambda: caplog.text)
        assert not found.wrong, (layout.name, seed, mutation.__name__, found)
