"""Write golden outputs of the installed Sieve, to verify that a refactoring changes none of them.

    python -m tests.benchmarks.golden OUT [--only cli,prepare,figure,api]
    python -m tests.benchmarks.golden --compare A B

The first command writes everything that users get to the folder OUT. The second compares two such
folders and prints one line per item, with the first difference; its exit status is 1 if any item
differs. Commands run in separate processes and the page is called by HTTP, so that modules can be
renamed.

The bundled collection is copied from $SIEVE_HOME if it is prepared there; otherwise it is prepared
first, which takes a minute or two. Compare only folders made from the same collection on the same
machine, because rounding differs between machines. Everything runs in /tmp/sieve-golden, because
some artifacts contain paths; a second run waits for the first.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import load_npz

from tests.benchmarks.golden_inputs import draw, write_coco, write_folder, write_img2dataset
from tests.benchmarks.server_process import running, wait_for
from tests.page_api import request_body, server_functions
from tests.public_interface import HELP_WIDTH, address_lines, command_lines, endpoint_lines
from tests.tiny_codes import write_codes
from tests.unavailable_backbone import BACKBONE, write_embeddings

WORK = Path("/tmp/sieve-golden")
PARTS = ("cli", "prepare", "figure", "api")
LIMIT_S = 600
_VOLATILE = (
    (re.compile(r"[^\s\"'=]*/assets/(?=checkpoints/|backbones/)"), "<assets>/"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r"\d{8}-\d{6}(-[0-9a-f]{4,}\b)?"), "<stamp>"),
    (re.compile(r"(\"[a-z_]*seconds\": )[\d.e-]+"), r"\g<1>0"),
    (re.compile(r"\b\d+(\.\d+)? ms\b"), "0 ms"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "<url>"),
)
_DATA_URL = re.compile(r"data:[\w/;=.+-]+,[A-Za-z0-9+/=]+")
_USAGE_ERRORS = (
    (), ("serch",), ("search",), ("search", "scenes", "a dog", "--tpo", "3"),
    ("search", "scenes", "a dog", "--strictness", "2"), ("search", "scenes", "a dog", "-k", "x"),
    ("search", "scenes", "--without", "a beach"), ("search", "nowhere", "a dog"),
    ("search", "scenes", "a dog", "--item", "x"), ("search", "scenes", "a dog", "--off", "9999"),
    ("prepare", "folder"), ("prepare", "folder", "nowhere"), ("prepare", "photos"),
    ("evaluate", "scenes", "--track", "words"), ("export", "scenes", "codes", "-o", "codes.csv"),
    ("dimensions", "scenes", "--sort", "nothing"), ("figure", "nowhere.json", "-o", "figure.pdf"),
    ("explore", "scenes", "--host", "0.0.0.0"), ("--version",),
)  # fmt: skip
_NOTES = (
    ("dimension", "name", "note", "tags", "starred"),
    ("58", "dogs", "all kinds of dogs, also “puppies”", "animal,pet", "yes"),
    ("30", "=beach", "", "place", ""),
)
_RECIPE = {
    "collection": "scenes",
    "rows": [
        {"query": "a dog"},
        {"query": "a dog", "without": "a beach", "strictness": "never"},
        {"dimension": 58},
    ],
    "columns": 4,
    "width_cm": 12,
}
_EXPORTS = (
    ("results.csv", "results.json", "results.parquet"),
    ("codes.npz", "codes.parquet"),
    ("dimensions.csv", "dimensions.json", "dimensions.parquet"),
)


class Golden:
    """Runs commands in the work folder and saves their output.

    Parameters
    ----------
    out : Path
        Output folder; must not exist.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.environment = {
            **os.environ,
            "SIEVE_HOME": str(WORK / "home"),
            "COLUMNS": str(HELP_WIDTH),
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
            "GRADIO_TEMP_DIR": str(WORK / "temporary"),
        }

    def save(self, item: str, text: str) -> None:
        """Save a text without the parts that differ from run to run."""
        text = _DATA_URL.sub(lambda url: f"data: {_sha256(url[0].encode())}", text)
        for volatile, shown in _VOLATILE:
            text = volatile.sub(shown, text)
        path = self.out / item
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def save_json(self, item: str, value: Any) -> None:
        """Save a value as JSON."""
        self.save(item, json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    def save_file(self, item: str, path: Path) -> None:
        """Save a text file unchanged; for other files, hashes of the bytes and the content."""
        if path.suffix in (".csv", ".json", ".tex", ".svg"):
            self.save(item, path.read_bytes().decode())
            return
        hashes = f"{_sha256(path.read_bytes())}  bytes\n"
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            content = f"{table.schema.to_string(show_schema_metadata=False)}\n{table.to_pylist()}"
            hashes += f"{_sha256(content.encode())}  schema and rows\n"
        elif path.suffix == ".npz":
            codes = load_npz(path)
            parts = {"data": codes.data, "indices": codes.indices, "indptr": codes.indptr}
            for name, part in parts.items():
                hashes += f"{_sha256(np.ascontiguousarray(part).tobytes())}  {name} {part.dtype}\n"
        self.save(f"{item}.txt", hashes)

    def save_folder(self, item: str, folder: Path) -> None:
        """Save the hashes of all files of a folder, and its JSON files unchanged."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        hashes = {path.relative_to(folder): _sha256(path.read_bytes()) for path in files}
        self.save(f"{item}/files.txt", "".join(f"{h}  {name}\n" for name, h in hashes.items()))
        for path in folder.glob("*.json"):
            if path.name != "checksums.json":
                self.save(f"{item}/{path.name}", path.read_text(encoding="utf-8"))

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `sieve`."""
        return subprocess.run(
            [sys.executable, "-m", "sieve", *map(str, words)],
            env=self.environment, cwd=WORK, capture_output=True, text=True, timeout=LIMIT_S,
            check=False,
        )  # fmt: skip

    def done(self, *words: str | Path) -> str:
        """Run `sieve` and return its output; it must succeed."""
        ended = self.run(*words)
        if ended.returncode:
            raise RuntimeError(f"sieve {' '.join(map(str, words))}: {ended.stderr[-2000:]}")
        return ended.stdout


def command_line(golden: Golden) -> None:
    """Save the output of the commands."""
    golden.save(
        "cli/commands.txt",
        "\n".join(command_lines(lambda words: golden.done(*words, "--help"))) + "\n",
    )
    golden.save("addresses.txt", "\n".join(address_lines()) + "\n")
    usage_errors = []
    for words in _USAGE_ERRORS:
        ended = golden.run(*words)
        lines = len(ended.stderr.strip().splitlines())
        command = f"sieve {' '.join(words)}"
        usage_errors.append(f"{command}: {ended.returncode}, {lines} lines on stderr\n")
        usage_errors.append(ended.stdout)
    golden.save("cli/usage_errors.txt", "".join(usage_errors))

    search = ("search", "scenes", "a dog", "--without", "a beach", "--json")
    for strictness in ("1", "0.5", "never"):
        found = golden.done(*search, "--strictness", strictness)
        golden.save(f"cli/search_{strictness}.json", found)
        item = json.loads(found)["results"][0]["id"]
    picture = WORK / "picture.png"
    draw(5, (320, 240)).save(picture)
    searches = {
        "off.json": ("a dog -beach", "--off", "30,624", "-k", "5", "--json"),
        "item.json": ("--item", item, "--without", "a dog", "--json"),
        "image.json": ("--image", picture, "--copies", "--json"),
        "text.txt": ("a dog but not on a beach",),
        "paths.txt": ("a dog", "--paths"),
    }
    for name, words in searches.items():
        golden.save(f"cli/search_{name}", golden.done("search", "scenes", *words))
    commands = {
        "info.json": ("info", "scenes", "--json"),
        "info.txt": ("info", "scenes"),
        "dimensions.json": ("dimensions", "scenes", "--json"),
        "dimensions.txt": ("dimensions", "scenes", "--sort", "firing_images", "--match", "dog"),
        "dimensions_summary.json": ("dimensions", "scenes", "--summary", "--json"),
        "evaluate.json": ("evaluate", "scenes", "--quick", "--json"),
    }
    for name, words in commands.items():
        golden.save(f"cli/{name}", golden.done(*words))
    for names in _EXPORTS:
        for name in names:
            what = name.partition(".")[0]
            query = ("--query", "a dog", "--without", "a beach") if what == "results" else ()
            golden.done("export", "scenes", what, *query, "-o", name)
            golden.save_file(f"export/{name}", WORK / name)


def annotations(golden: Golden) -> None:
    """Import and export annotations; later outputs show the imported names."""
    with (WORK / "notes.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(_NOTES)
    took = golden.done("annotations", "import", "scenes", "notes.csv", "--json")
    golden.save("annotations/import.json", took)
    for name in ("exported.json", "exported.csv"):
        golden.done("annotations", "export", "scenes", name)
        golden.save_file(f"annotations/{name}", WORK / name)
    found = golden.done("search", "scenes", "a dog", "--without", "a beach", "-k", "2", "--json")
    golden.save("annotations/search.json", found)


def prepare_sources(golden: Golden) -> None:
    """Save the folders that `sieve prepare` writes."""
    data = WORK / "data"
    write_folder(data / "folder")
    write_folder(data / "more", 60, 6)
    write_coco(data / "coco")
    write_img2dataset(data / "shards")
    write_embeddings(data / "embeddings")
    write_codes(data / "codes")
    folder, coco, codes = data / "folder", data / "coco", data / "codes"
    pictures = ("--images", coco / "images", "--captions", coco / "captions.json")
    sources: dict[str, tuple[str | Path, ...]] = {
        "folder": (folder / "images", "--captions", folder / "captions.csv", "--licence", "CC0"),
        "coco": (*pictures, "--instances", coco / "instances.json"),
        "conceptual-captions": (data / "shards", "--keep-going"),
        "embeddings": (data / "embeddings", "--backbone", BACKBONE),
        "codes": (codes, "--images", codes / "photos"),
        "scenes": ("--count", "16", "--seed", "7"),
    }
    for kind, words in sources.items():
        made = WORK / "made" / kind
        report = golden.done("prepare", kind, *words, "--out", made, "--workers", "1", "--json")
        golden.save(f"prepare/{kind}/report.json", report)
        golden.save_folder(f"prepare/{kind}", made)
    added, more = WORK / "made" / "added", data / "more"
    captions = ("--captions", more / "captions.csv", "--workers", "1", "--json", "--keep-going")
    golden.done("add", WORK / "made" / "folder", more / "images", *captions, "--out", added)
    golden.save_folder("prepare/added", added)
    given = golden.done("search", WORK / "made" / "codes", "a dog", "--without", "snow", "--json")
    golden.save("prepare/codes/search.json", given)


def training(golden: Golden) -> None:
    """Save a checkpoint of 20 steps on the small folder, and a search with it."""
    collection, checkpoint = WORK / "made" / "folder", WORK / "made" / "checkpoint"
    shape = ("--m", "64", "--k", "8", "--epochs", "5", "--batch", "18", "--seed", "3")
    report = golden.done(
        "train", collection, *shape, "--device", "cpu", "--out", checkpoint, "--json"
    )
    golden.save("train/report.json", report)
    golden.save_folder("train", checkpoint)
    opened = (collection, "a red circle", "--without", "snow", "--checkpoint", checkpoint)
    golden.save("train/search.json", golden.done("search", *opened, "--json"))
    golden.save("train/paths.txt", golden.done("search", *opened, "--paths"))


def figures(golden: Golden) -> None:
    """Save one figure in every file format."""
    (WORK / "recipe.json").write_text(json.dumps(_RECIPE))
    for kind in ("pdf", "svg", "png"):
        options = ("--latex", "--recipe") if kind == "pdf" else ()
        golden.done("figure", "recipe.json", "-o", f"figure.{kind}", *options)
        data = (WORK / f"figure.{kind}").read_bytes()
        golden.save(f"figure/figure.{kind}.txt", f"{_sha256(data)}  {len(data)} bytes\n")
    for name in ("figure.tex", "figure.json"):
        golden.save_file(f"figure/{name}", WORK / name)


@contextmanager
def served(golden: Golden) -> Iterator[str]:
    """Serve the bundled collection until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", WORK / "server.log"
    command = [sys.executable, "-m", "sieve", "explore", "scenes", "--port", str(port)]
    with running(command, golden.environment, log) as process:
        wait_for(url, process, log)
        yield url


def api(golden: Golden) -> None:
    """Save the API's endpoints, and responses of the API and of the page's own functions."""
    from gradio_client import Client

    with served(golden) as url:
        client = Client(url, download_files=WORK / "downloads", verbose=False)
        info = client.view_api(return_format="dict", print_info=False)
        assert isinstance(info, dict)
        golden.save("api/endpoints.txt", "\n".join(endpoint_lines(info)) + "\n")
        calls: dict[str, tuple[str, tuple[Any, ...]]] = {
            "encode": ("/encode", ("a dog", "a beach")),
            "search": ("/search", ("a dog", "a beach", None, 0.5, 5, False)),
            "search_never": ("/search", ("a dog", "", [30, 58], "never", 5, True)),
            "dimension": ("/dimension", (58,)),
        }
        for name, (endpoint, arguments) in calls.items():
            golden.save_json(f"api/{name}.json", client.predict(*arguments, api_name=endpoint))
        drawn = Path(client.predict(_RECIPE, "pdf", api_name="/figure"))
        golden.save("api/figure.pdf.txt", f"{drawn.name} {_sha256(drawn.read_bytes())}\n")
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as web:
            page(golden, web)


def page(golden: Golden, web: httpx.Client) -> None:
    """Save the responses of the page's own functions, whose names are private and may change."""
    functions = server_functions(web.get("/config").json())
    golden.save("page/functions.txt", "\n".join(sorted(functions)) + "\n")
    query = {"q": "a dog", "without": "a beach"}
    item = json.loads((golden.out / "api/search.json").read_text())["results"][0]["id"]
    slots = {"left": {"text": "a dog"}, "right": {"item": item}}
    questions: dict[str, tuple[str, Any]] = {
        "open": ("sieve_open", "?q=a+dog&without=a+beach&off=17,203&strictness=never"),
        "open_tab": ("sieve_open", "?tab=dimensions&dimension=58&atlas=only:3&off=x"),
        "ask": ("sieve_ask", {**query, "list": True, "compare": True, "strictness": 0.5}),
        "ask_item": ("sieve_ask", {"item": item, "never": True, "without": "a beach"}),
        "ask_nothing": ("sieve_ask", {"q": ""}),
        "item": ("sieve_item", item),
        "export_results": ("sieve_export_results", {**query, "kind": "csv"}),
        "table": ("sieve_table", None),
        "map": ("sieve_map", None),
        "dimension": ("sieve_page", {"dimension": 58, "seed": 1}),
        "probe": ("sieve_probe", {"dimension": 58}),
        "inspect": ("sieve_inspect", slots),
        "why": ("sieve_why", query),
        "compare_options": ("sieve_compare_options", None),
        "compare": ("sieve_compare", {**query, "track": "label", "a": "dog", "b": "beach"}),
        "preview": ("sieve_preview", _RECIPE),
        "evaluations": ("sieve_evaluations", None),
        "notes_state": ("sieve_notes_state", None),
        "training_state": ("sieve_training_state", None),
        "training_collections": ("sieve_training_collections", None),
    }
    for name, (function, data) in questions.items():
        answer = web.post(
            "/gradio_api/component_server", json=request_body(functions, function, data)
        )
        golden.save_json(f"page/{name}.json", answer.json())


def make_home(home: Path) -> None:
    """Create a $SIEVE_HOME with the bundled collection, if the user's own has it prepared."""
    (home / "collections").mkdir(parents=True)
    own = os.environ.get("SIEVE_HOME")
    for prepared in Path(own, "collections").glob("scenes-*") if own else ():
        if (prepared / "collection.json").is_file():
            shutil.copytree(prepared, home / "collections" / prepared.name)


def make(out: Path, only: Sequence[str]) -> None:
    """Write the golden outputs into a new folder."""
    if out.exists():
        raise ValueError(f"{out} already exists")
    with Path(f"{WORK}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        golden = Golden(out.absolute())
        steps: dict[str, tuple[Callable[[Golden], None], ...]] = {
            "cli": (command_line,),
            "prepare": (prepare_sources, training),
            "figure": (figures,),
            "api": (api, annotations),
        }
        for part in only:
            shutil.rmtree(WORK, ignore_errors=True)
            make_home(WORK / "home")
            for step in steps[part]:
                begun = time.perf_counter()
                step(golden)
                print(f"{step.__name__}: {time.perf_counter() - begun:.0f} s", flush=True)
        shutil.rmtree(WORK, ignore_errors=True)


def compare(a: Path, b: Path) -> bool:
    """Print a table that compares two folders; returns whether all items are identical."""
    items = sorted(
        {str(path.relative_to(top)) for top in (a, b) for path in top.rglob("*") if path.is_file()}
    )
    if not items:
        raise ValueError(f"{a} and {b} contain no golden outputs")
    n_different = 0
    print("| item | |\n|---|---|")
    for item in items:
        difference = _difference(a / item, b / item)
        n_different += bool(difference)
        print(f"| {item} | {difference or 'identical'} |")
    print(f"\n{len(items)} items, {n_different} of them differ")
    return not n_different


def _difference(a: Path, b: Path) -> str:
    """Describe the first difference; empty if there is none."""
    for one, other in ((a, b), (b, a)):
        if not one.is_file():
            return f"differs: only in {other.parent}"
    lines = [path.read_text(encoding="utf-8").split("\n") for path in (a, b)]
    for number, (left, right) in enumerate(zip(*lines, strict=False), 1):
        if left != right:
            return f"differs: line {number}: `{left.strip()[:100]}` → `{right.strip()[:100]}`"
    if len(lines[0]) != len(lines[1]):
        return f"differs: {len(lines[0])} → {len(lines[1])} lines"
    return ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="folder to write; must not exist")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated parts to write")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"))
    given = parser.parse_args()
    if given.compare:
        sys.exit(0 if compare(*given.compare) else 1)
    only = given.only.split(",")
    if given.out is None or not set(only) <= set(PARTS):
        parser.error(f"expected a folder to write and parts among {', '.join(PARTS)}")
    make(given.out, only)


if __name__ == "__main__":
    main()
