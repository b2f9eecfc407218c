"""Run the inputs of `../shared/cases` and report which give the result that their README expects.

    python -m tests.benchmarks.cases [NAME…]

Write each case's input, run its command and check the output. Prints a Markdown table; the exit
status is 1 if a case fails.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.case_folder import (
    CASES,
    LIMIT_S,
    Case,
    Run,
    captions,
    check,
    items,
    machine_load,
    outcome,
    picture,
    shows,
    skipped,
)


@check
def awkward_names(case: Case) -> tuple[str, str, bool]:
    case.make()
    run, made = case.prepare(
        "folder", case.out / "img", "--captions", case.out / "captions.csv", "--keep-going"
    )
    found = captions(made)
    one_each = len(found) and all(len(of) == 1 for of in captions(made).values())
    space = " lead.png" in found and found[" lead.png"] == [picture(18)[1]]
    named = "latin" in skipped(made)
    got = f"{len(items(made))} items, leading space {'preserved' if space else 'lost'}"
    return (
        "28 items with their captions, the Latin-1 name reported",
        got + ("" if named else ", Latin-1 name not reported"),
        run.code == 0 and len(items(made)) == 28 and bool(one_each) and space and named,
    )


@check
def backbone_names(case: Case) -> tuple[str, str, bool]:
    case.make(name="flickr_row19999")
    advice = {
        "ViT-B/32": "backbone 'ViT-B-32/openai' cannot be opened",
        "ViT-B-32/laion2b_s34b_b79k": "cannot be opened",
        "openai/clip-vit-base-patch32": "use ViT-B-32/openai, which reads the same weights",
        f"ViT-B-32/{case.out / 'none.pt'}": "there is no file",
    }
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(case.folder / "hub")}
    load = machine_load()
    wrong, first, last = [], 0.0, 0.0
    for name, expected in advice.items():
        run = case.prepare("folder", case.out / "img", "--backbone", name, **offline)[0]
        first, last = max(first, run.first_line), max(last, run.seconds)
        if not (run.code == 1 and expected in run.err.splitlines()[-1]) or "Traceback" in run.err:
            wrong.append(f"{name}: {run.output}")
    in_time = first < 2 * load and last < 20 * load
    return (
        "opened, or the correct name suggested; first line within 2 s, offline error within 20 s",
        f"first line after {first:.1f} s, the end after {last:.1f} s on a machine "
        f"{load:.1f} times slower than when idle; {'; '.join(wrong) or 'all as expected'}",
        in_time and not wrong,
    )


@check
def caption_encodings(case: Case) -> tuple[str, str, bool]:
    case.make()
    texts = [picture(n)[1] for n in range(8)]
    wrong = []

    def read(name: str, *more: str) -> tuple[Run, dict[str, list[str]], Path]:
        run, made = case.prepare("folder", case.out / "img", "--captions", case.out / name, *more)
        return run, captions(made), made

    def each(form: str) -> dict[str, list[str]]:
        return {f"{n}.png": form.format(text).split("|") for n, text in enumerate(texts)}

    run, _, _ = read("latin1.csv")
    if not (run.is_one_line and "--encoding latin-1" in run.err):
        wrong.append(f"latin1 without --encoding: {run.output[-60:]}")
    for name, form, *more in (
        *((name, "{}, café") for name in ("bom_crlf", "utf16", "mac", "sepline", "semicolon")),
        *((name, "{}, café") for name in ("Header", "HEADER2", "noheader")),
        ("latin1", "{}, café", "--encoding", "cp1252"),
        ("index", "{}"),
        ("multiline", "{} and a second line"),
        ("two_caption_cols", "{}|other {}"),
        ("space_header", "{}"),
        ("wide", "{}", "--caption-column", "title"),
    ):
        run, found, _ = read(f"{name}.csv", *more)
        if found != each(form.replace("{}", "{0}")):
            wrong.append(f"{name}: {run.output[-60:]}")
    run, _, _ = read("wide.csv")
    if not (run.is_one_line and "'title' or 'description'" in run.err):
        wrong.append(f"wide without a column: {run.output[-60:]}")
    run, found, made = read("openquote.csv")
    reported = "openquote" in run.output or "quote" in run.output.lower() or run.is_one_line
    merged = any("\n" in text for of in found.values() for text in of) or any(
        texts[4] in text and texts[3] in text for of in found.values() for text in of
    )
    if merged or not reported:
        wrong.append(f"openquote: {run.output[-60:]}")
    run, found, made = read("nulls.csv")
    nulls = {text for of in found.values() for text in of} & {"nan", "NULL", "None", "N/A", "-"}
    if nulls - {"-"} or "Traceback" in run.err:
        wrong.append(f"nulls read as captions: {nulls}")
    expected = "all read; no rows merged; no null is a caption"
    return expected, "; ".join(wrong) or "as expected", not wrong


@check
def cc3m_one_based(case: Case) -> tuple[str, str, bool]:
    case.make()
    wrong = []
    for name in ("Train_GCC-training.tsv", "with_header.tsv", "labels.tsv"):
        run, made = case.prepare(
            "conceptual-captions", case.out / name, "--images", case.out / "img"
        )
        found = captions(made)
        if not (len(found) == 20 and all(f"(file {file})" in of[0] for file, of in found.items())):
            wrong.append(f"{name}: {len(found)} items, {run.output[-60:]}")
    return "20 of 20 match", "; ".join(wrong) or "as expected", not wrong


@check
def coco_odd(case: Case) -> tuple[str, str, bool]:
    case.make()
    wrong = []
    for name, n in (("captions_val2014", 12), ("string_ids", 12), ("nulls", 12)):
        run, made = case.prepare(
            "coco", "--images", case.out / "val2014", "--captions", case.out / f"{name}.json",
            "--instances", case.out / "instances_val2014.json", "--keep-going",
        )  # fmt: skip
        found = captions(made)
        right = len(found) == n and all(
            of == [picture(int(Path(file).stem[-4:]))[1]] for file, of in found.items()
        )
        named = name == "string_ids" and run.is_one_line and "id" in run.err
        if not (right or named):
            wrong.append(f"{name}: {len(found)} items, {run.output[-80:]}")
    expected = "string ids read or reported; others read"
    return expected, "; ".join(wrong) or "as expected", not wrong


@check
def coco_same_basename(case: Case) -> tuple[str, str, bool]:
    case.make()
    run, made = case.prepare(
        "coco", "--images", case.out / "img", "--captions", case.out / "captions.json"
    )
    right = 0
    for row in items(made).itertuples():
        camera, file = Path(row.image).parts[-2:]
        number = int(Path(file).stem) + (8 if camera == "cam2" else 0)
        own = list(row.captions) == [f"{picture(number)[1]} from {camera}"]
        right += own and shows(made, row.id, number)
    return (
        "16 items, each with its own pixels",
        f"{right} of {len(items(made))} correct",
        right == 16,
    )


@check
def csv_extra_comma(case: Case) -> tuple[str, str, bool]:
    case.make()
    whole = {f"{n}.png": [f"{picture(n)[1]}, next to a tall tree, at night"] for n in range(8)}
    bars = {f"{n}.png": 'a ball | a tree ; and "a sign" .' for n in range(8)}
    wrong = []
    for name, wanted in (("c.csv", whole), ("results.csv", bars)):
        run, made = case.prepare("folder", case.out / "img", "--captions", case.out / name)
        found = captions(made)
        first = {file: of[0] if of else "" for file, of in found.items()}
        expected = {file: of if isinstance(of, str) else of[0] for file, of in wanted.items()}
        reported = run.is_one_line or all(f"{n}.png" in skipped(made) for n in range(8))
        if first != expected and not (reported and not any(first.values())):
            wrong.append(f"{name}: {next(iter(first.values()), '')!r} {run.output[-60:]}")
    return "captions complete, or the rows reported", "; ".join(wrong) or "as expected", not wrong


@check
def embeddings_dead_end(case: Case) -> tuple[str, str, bool]:
    case.make(name="embeddings_layouts")
    offline = {"HF_HUB_OFFLINE": "1"}
    run, made = case.prepare(
        "embeddings", case.out / "two_npys", "--backbone", "my-lab/own-clip", **offline
    )
    if run.code:
        return "trains; searches by item", run.output, False
    trained = case.folder / "trained"
    train = case.sieve("train", made, "--out", trained, "--epochs", "2", "--m", "64", **offline)
    item = items(made)["id"].iloc[0]
    search = case.sieve("search", made, "--item", item, "--checkpoint", trained, "--json")
    found = json.loads(search.out)["results"] if search.code == 0 else []
    return "trains; searches by item", f"{train.output[-60:]}; {len(found)} results", len(found) > 0


LAYOUTS_READ = {
    *("cr_plain", "cr_padded", "cr_nocaption", "cr_laion", "npy32", "npy64", "npy_unnorm"),
    *("npy_fortran", "npy_bigendian", "npz", "pt", "safetensors", "parquet_list", "projector"),
    *("projector_npy", "two_npys", "text_five", "names_txt", "semicolon"),
}
LAYOUTS_REFUSED = {"cr_empty", "npy_3d", "npy_transposed", "npy_object", "npy_short", "npy_768"}


@check
def embeddings_layouts(case: Case) -> tuple[str, str, bool]:
    case.make()
    wrong = []
    for name in sorted({*LAYOUTS_READ, *LAYOUTS_REFUSED, "h5"}):
        run, made = case.prepare(
            "embeddings", case.out / name, "--backbone", "ViT-B-32/openai", HF_HUB_OFFLINE="1"
        )
        read = run.code == 0 and len(items(made)) > 0
        if not (read and name in LAYOUTS_READ or run.is_one_line):
            wrong.append(f"{name}: {run.output[-60:]}")
        elif name == "text_five" and read:
            counts = [len(of) for of in items(made)["captions"]]
            if counts != [5] * 8:
                wrong.append(f"text_five: captions per image {sorted(set(counts))}")
    return (
        "read, or rejected with one line; 768 dimensions rejected",
        "; ".join(wrong) or "as expected",
        not wrong,
    )


@check
def exclusion_wording(case: Case) -> tuple[str, str, bool]:
    wrong = []
    for query in ("a dog -beach", 'a dog -"a beach"', "a dog, no beach", "dog NOT beach"):
        run = case.sieve("search", "scenes", query, "-k", "2", "--json")
        found = json.loads(run.out) if run.code == 0 else {}
        if "beach" not in found.get("without", "") and not found.get("notes"):
            wrong.append(f"{query}: {run.output[-60:]}")
    run = case.sieve("search", "scenes", "not a dog", "-k", "2", "--json")
    found = json.loads(run.out) if run.code == 0 else {}
    if "dog" not in found.get("without", "") and not (run.is_one_line or found.get("notes")):
        wrong.append(f"not a dog: {run.output[-60:]}")
    run = case.sieve("search", "scenes", "an animal", "--without", "beaches", "-k", "1", "--json")
    names = [part["name"] for part in json.loads(run.out)["off"]] if run.code == 0 else []
    if not any("beach" in name for name in names) or any("city" in name for name in names):
        wrong.append(f"beaches: off {names}")
    expected = "parsed as exclusion, or a note shown; beaches = beach"
    return expected, "; ".join(wrong) or "as expected", not wrong


@check
def flickr_row19999(case: Case) -> tuple[str, str, bool]:
    case.make()
    run, made = case.prepare("folder", case.out / "img", "--captions", case.out / "results.csv")
    n = int(items(made)["captions"].map(len).sum()) if len(items(made)) else 0
    rows = max(len(list(csv.reader(skipped(made).splitlines()))) - 1, 0)
    return (
        "39 captions, one row reported",
        f"{n} captions, {rows} reported; {run.output[-50:]}",
        (n == 39 and rows == 1) or (n == 40 and rows == 0),
    )


@check
def heic_only(case: Case) -> tuple[str, str, bool]:
    case.make("mixed")
    run, made = case.prepare("folder", case.out, "--keep-going")
    named = sum(f"IMG_{n:04}.HEIC" in skipped(made) for n in range(1, 6))
    # The files of this case are truncated: no decoder can read them.
    advised = find_spec("pillow_heif") is not None or "sieve-explorer[heif]" in run.out + run.err
    got = f"{named} listed; {run.output[-90:]}"
    return "5 HEIC files listed, install command shown", got, named == 5 and advised


@check
def hf_cache_symlinks(case: Case) -> tuple[str, str, bool]:
    case.make()
    snapshot = case.out / "datasets--someone--toys" / "snapshots" / "abc123"
    arguments = ("folder", snapshot / "images", "--captions", snapshot / "images/metadata.jsonl")
    run, made = case.prepare(*arguments)
    if run.code:
        run, made = case.prepare(*arguments, "--follow-links")
    found = [list(of) for of in items(made)["captions"]]
    right = found == [[picture(n)[1]] for n in range(10)]
    return (
        "10 items, with --follow-links if necessary",
        f"{len(found)} items; {run.output[-60:]}",
        right,
    )


@check
def json_list_captions(case: Case) -> tuple[str, str, bool]:
    case.make()
    two = {f"{n}.png": [picture(n)[1], f"seen: {picture(n)[1]}"] for n in range(12)}
    one = {f"{n}.png": [picture(n)[1]] for n in range(12)}
    wrong = []
    for name, wanted in (("list", two), ("dataset_flickr8k", two), ("by_name", one)):
        run, made = case.prepare(
            "folder", case.out / "img", "--captions", case.out / f"{name}.json"
        )
        if captions(made) != wanted:
            wrong.append(f"{name}: {run.output[-80:]}")
    return (
        "12 items with all captions, for all three files",
        "; ".join(wrong) or "as expected",
        not wrong,
    )


@check
def laion_meta(case: Case) -> tuple[str, str, bool]:
    case.make()
    run, _ = case.prepare("conceptual-captions", case.out)
    return "says to run img2dataset first", run.output, run.is_one_line and "img2dataset" in run.err


@check
def mixed_formats(case: Case) -> tuple[str, str, bool]:
    case.make()
    _, made = case.prepare("folder", case.out, "--keep-going")
    wanted = ["IMG_0001.HEIC", "IMG_0002.heif", "m.jxl", "DSC1.NEF", "x.svg", "noext"]
    wanted += ["html.jpg", "zero.png", "truncated.jpg"]
    missing = [name for name in wanted if name not in skipped(made)]
    return "all 9 listed in skipped.csv", f"not listed: {', '.join(missing) or 'none'}", not missing


@check
def parquet_caption_list(case: Case) -> tuple[str, str, bool]:
    case.make()
    run, made = case.prepare("conceptual-captions", case.out)
    found = items(made)
    wanted = [
        [c, f"someone photographed {c}", f"{c}, seen from below"]
        for c in (picture(n)[1] for n in range(12))
    ]
    texts = [list(of) for of in found["captions"]] == wanted
    splits = found["split"].tolist() == ["train", "select", "test"] * 4
    got = f"{sum(map(len, found['captions']))} captions, split {'given' if splits else 'drawn'}"
    return "36 captions, the published split", f"{got}; {run.output[-40:]}", texts and splits


@check
def pythonpath_shadow(case: Case) -> tuple[str, str, bool]:
    case.make()
    commands = (["-m", "sieve"], ["-c", "from sieve.explorer.cli import main; main()"])
    codes = [
        subprocess.run(
            [sys.executable, *command, "info", "scenes"],
            cwd=case.out,
            env={**os.environ, "PYTHONPATH": "."},
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        ).returncode
        for command in commands
    ]
    (case.out / "explorer").mkdir()
    (case.out / "explorer" / "__init__.py").write_text("raise SystemExit('not this one')\n")
    trained = case.sieve(
        "prepare", "scenes", "--count", "60", "--out", case.folder / "few", "--workers", "1"
    )
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "--", "sieve", "train"]
    done = subprocess.run(
        [sys.executable, *launch, "few", "--out", "codes", "--epochs", "1", "--m", "64"],
        cwd=case.folder,
        env={**os.environ, "PYTHONPATH": str(case.out)},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    codes += [trained.code, done.returncode]
    return (
        "works next to a model.py and an explorer/, also with torchrun",
        f"exit codes {codes}",
        codes == [0, 0, 0, 0] and (case.folder / "codes" / "config.json").is_file(),
    )


@check
def repeated_images_splits(case: Case) -> tuple[str, str, bool]:
    case.make()
    run, made = case.prepare("conceptual-captions", case.out)
    found = items(made)
    if not len(found):
        return "identical images in one split, shown once", run.output, False
    number = found["image"].str.extract(r"::(\d+)", expand=False).astype(int) // 5
    crossing = int((found.groupby(number)["split"].nunique() > 1).sum())
    search = case.sieve("search", made, "a red circle", "-k", "8", "--json")
    shown = json.loads(search.out)["results"] if search.code == 0 else []
    keys = [int(one["file"].rpartition("/")[2]) // 5 for one in shown]
    return (
        "identical images in one split; results not repeated",
        f"{crossing} of {number.nunique()} split; {len(set(keys))} images in {len(keys)} results",
        crossing == 0 and len(keys) == len(set(keys)) == 8,
    )


@check
def results_without_file_names(case: Case) -> tuple[str, str, bool]:
    case.make(name="mixed_formats")
    _, made = case.prepare("folder", case.out, "--keep-going")
    names = {path.name for path in case.out.iterdir()}
    plain = case.sieve("search", made, "a red circle", "-k", "3")
    results = json.loads(case.sieve("search", made, "red", "--json").out)["results"]
    paths = case.sieve("search", made, "red", "--paths").out.splitlines()
    table = case.folder / "r.csv"
    case.sieve("export", made, "results", "--query", "red", "-o", table)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    right = (
        any(name in plain.out for name in names)
        and {one["file"] for one in results} <= names
        and all(Path(path).is_file() for path in paths)
        and {row["file"] for row in rows} <= names
    )
    got = ", ".join(one["file"] for one in results[:3])
    return "each result shows its file name", got, bool(right)


@check
def sae_checkpoints(case: Case) -> tuple[str, str, bool]:
    case.make()
    wrong = []
    for name, tool in (("saelens", "SAELens"), ("sparsify", "sparsify"), ("overcomplete", "over")):
        for command in (("search", "scenes", "a dog"), ("explore", "scenes", "--port", "0")):
            run = case.sieve(*command, "--checkpoint", case.out / name)
            if not (
                run.is_one_line
                and tool.lower() in run.err.replace(str(case.out), "").lower()
                and "sieve import-encoder" in run.err
            ):
                wrong.append(f"{command[0]} {name}: {run.output[-80:]}")
    expected = "opens, or names the tool and the command that imports it"
    return expected, "; ".join(wrong) or "as expected", not wrong


@check
def webdataset_odd(case: Case) -> tuple[str, str, bool]:
    case.make()
    wrong = []
    texts = [[picture(n)[1]] for n in range(6)]
    for part in "abdef":
        run, made = case.prepare("conceptual-captions", case.out / part, "--keep-going")
        found = [list(of) for of in items(made)["captions"]]
        wanted = [[*of, "another caption"] for of in texts] if part in "de" else texts
        own = all(shows(made, item, n) for n, item in enumerate(items(made)["id"]))
        if not (found == wanted and own):
            wrong.append(f"{part}: {found[:1]} {run.output[-50:]}")
    run, made = case.prepare("conceptual-captions", case.out / "c", "--keep-going")
    found = [list(of) for of in items(made)["captions"]]
    own = all(map(lambda item, n: shows(made, item, n), items(made)["id"], (0, 1, 2, 9)))
    if found != [["a red thing"], [], ["a green thing"], ["a blue thing"]] or not own:
        wrong.append(f"c: {found} {run.output[-50:]}")
    if "00000/1," not in skipped(made):
        wrong.append("c: the image without a caption is not listed")
    run, _ = case.prepare("conceptual-captions", case.out / "g")
    if not (run.is_one_line and "gz" in run.err):
        wrong.append(f"g: {run.output[-60:]}")
    expected = "a–f: correct images and captions; g: error mentions gzip"
    return expected, "; ".join(wrong) or "as expected", not wrong


def main(names: list[str]) -> int:
    """Run cases and print the table; returns the exit status."""
    if not CASES.is_dir():
        sys.stdout.write(f"no cases found at {CASES}\n")
        return 0
    there = sorted(path.name for path in CASES.iterdir() if path.is_dir())
    unknown = [name for name in names if name not in there]
    if unknown:
        sys.stderr.write(f"unknown case {unknown[0]!r}; expected one of: {', '.join(there)}\n")
        return 2
    sys.stdout.write("| case | expected | actual | passes |\n|---|---|---|---|\n")
    n_failed = 0
    for name in names or there:
        expected, got, holds = outcome(name)
        n_failed += not holds
        cells = (name, expected, got, "yes" if holds else "**no**")
        escaped = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
        sys.stdout.write(f"| {' | '.join(escaped)} |\n")
        sys.stdout.flush()
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
