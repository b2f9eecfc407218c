"""`sieve space`: write a Hugging Face Space that serves a checkpoint on a collection."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sieve.explorer.cli.options import Device, Json
from sieve.explorer.cli.output import print_facts, print_json
from sieve.explorer.cli.publish import (
    NOT_STATED,
    Card,
    card_facts,
    copy_checkpoint,
    copy_collection,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection

_PACKAGE = "sieve-explorer"
_MODULES = ("sieve", "sieve.assets", "sieve.data_prep", "sieve.explorer", "sieve.model")
_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
_APP = '''"""The Sieve explorer as a Hugging Face Space: search only, of the files beside it."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ["SIEVE_HOME"] = str(HERE / "home")  # has the cached codes
os.environ.pop("SPACE_ID", None)  # otherwise Gradio watches the files, to reload them

from sieve.explorer.cli import main  # noqa: E402

arguments = [
    "explore",
    str(HERE / "collection"),
{options}    *("--host", "0.0.0.0"),
    *("--port", os.environ.get("GRADIO_SERVER_PORT", "7860")),
    "--public-safe",
    *("--allow-host", "*"),
    *("--embed-in", "https://huggingface.co"),
]
if host := os.environ.get("SPACE_HOST", "").partition(",")[0]:
    arguments += ["--root-path", f"https://{{host}}"]

if __name__ == "__main__":
    main(arguments)
'''


@dataclass(frozen=True)
class WriteSpace:
    """Write a Hugging Face Space that shows a checkpoint on a collection.

    The folder has everything that the Space needs: `app.py`, the checkpoint, the collection with
    thumbnails and codes, and this version of Sieve; `requirements.txt` installs the CPU build of
    torch and the versions of the libraries in use here. Backbones other than sieve-lite are
    downloaded when the Space starts. Visitors can search, but not upload, train or edit. Your own
    names and notes of dimensions are not included.

    Try it with `python DIR/app.py`, and publish it with `hf upload ORG/NAME DIR --repo-type space`.

    Example: sieve space my-space my-codes my-photos --licence cc-by-4.0
    """

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder to write; must not exist."""
    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")]
    """Path or name of a checkpoint, or hf://ORG/NAME."""
    collection: Annotated[Positional[str], arg(metavar="COLLECTION")]
    """Path or name of a collection of the same backbone, or hf://ORG/NAME."""
    title: str = ""
    """Title of the Space; by default the name of the collection."""
    licence: str = ""
    """Licence of the images; by default that of the collection."""
    no_images: bool = False
    """Show captions in place of thumbnails."""
    device: Device = "auto"
    json: Json = False

    def run(self) -> None:
        """Write the folder, and report it."""
        from sieve.data_prep.bundled import locate_collection
        from sieve.model.backbone.names import is_local_name
        from sieve.model.checkpoint import Checkpoint
        from sieve.model.checkpoint_choice import checkpoint_path
        from sieve.model.collection import Collection
        from sieve.model.files import atomic_folder

        target = Path(os.path.abspath(self.folder.expanduser()))
        if target.exists():
            raise FileExistsError(f"{target} exists already; choose another DIR or remove it first")
        checkpoint = Checkpoint.load(checkpoint_path(self.checkpoint))
        path = locate_collection(self.collection, progress=sys.stderr.isatty())
        collection = Collection.open(path)
        checkpoint.check_fits(collection)
        if not collection.codes and is_local_name(collection.backbone.name):
            raise ValueError(
                f"{collection.name} was made with backbone {collection.backbone.name}, a path on "
                "this machine, which a Space cannot open; publish the backbone on the Hub, and "
                "prepare the collection with hf-hub:ORG/NAME"
            )
        licence = self.licence or collection.manifest.licence
        if licence == NOT_STATED and not self.no_images:
            raise ValueError(
                f"the licence of the images of {collection.name} is not stated; give --licence "
                "LICENCE or --no-images"
            )
        with atomic_folder(target) as folder:
            self._write(folder, checkpoint, collection, licence)
            n_bytes = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
        report = {
            "space": str(target),
            "bytes": n_bytes,
            "try": f"python {shlex.quote(str(self.folder / 'app.py'))}",
            "publish": f"hf upload ORG/NAME {shlex.quote(str(self.folder))} --repo-type space",
        }
        print_json(report) if self.json else print_facts(report)

    def _write(
        self, folder: Path, checkpoint: Checkpoint, collection: Collection, licence: str
    ) -> None:
        from sieve.model.backbone.names import parse_name
        from sieve.model.collection import Collection

        with _copied(folder / "collection") as copy:
            copy_collection(collection, copy, thumbnails=not self.no_images, licence=licence)
        copied = Collection.open(folder / "collection")
        place = None
        if collection.codes is None:  # otherwise the collection is its own checkpoint
            place = Path("checkpoints", checkpoint.name)
            with _copied(folder / place) as copy:
                copy_checkpoint(checkpoint, copy)
        _cache_codes(folder, copied, folder / place if place else copied.path, self.device)
        _copy_package(folder)
        backbone = None if collection.codes else collection.backbone.name
        options = f'    *("--checkpoint", str(HERE / {place.as_posix()!r})),\n' if place else ""
        if backbone and parse_name(backbone).kind == "hub":
            options += '    "--trust-backbone",\n'
        app = _APP.format(options=options)
        (folder / "app.py").write_text(app, encoding="utf-8")
        extra = "blip" if backbone and backbone.startswith("blip:") else ""
        (folder / "requirements.txt").write_text(_requirements(extra), encoding="utf-8")
        card = space_card(self.title or collection.name, checkpoint, copied, licence)
        (folder / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def _copied(target: Path) -> Iterator[Path]:
    """Yield a folder to write, with links to files, and copy it to `target`."""
    with TemporaryDirectory(prefix="sieve-space-") as made:
        folder = Path(made, target.name)
        folder.mkdir()  # with the permissions of the umask
        yield folder
        shutil.copytree(folder, target)


def _cache_codes(folder: Path, collection: Collection, checkpoint: Path, device: str) -> None:
    """Compute the codes and maps that the page needs, and move them from the cache to the Space."""
    from sieve.model.dimensions.code_cache import cache_folder, codes_folder
    from sieve.model.dimensions.map import dimension_map, project_items
    from sieve.model.engine import SearchEngine
    from sieve.model.files import sieve_home

    engine = SearchEngine.open(collection.path, checkpoint, device)
    engine.dimension_table()
    dimension_map(engine.collection, engine.checkpoint, engine.derived)
    project_items(engine.collection, engine.checkpoint, engine.image_codes)
    copied = folder / "home" / codes_folder().relative_to(sieve_home())
    copied.mkdir(parents=True)
    every = cache_folder(engine.collection, engine.checkpoint, "*")
    for cache in every.parent.glob(every.name):
        shutil.move(cache, copied / cache.name)


def _copy_package(folder: Path) -> None:
    """Copy the running version of Sieve, which Python finds beside `app.py`.

    A wheel in the folder could not be installed: a Space installs `requirements.txt` before it
    copies the other files.
    """
    for name in _MODULES:
        source = Path(str(import_module(name).__file__)).parent
        ignored = shutil.ignore_patterns("__pycache__", "sieve")
        target = folder.joinpath(*name.split("."))
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    facts = folder / f"{_PACKAGE.replace('-', '_')}-{version(_PACKAGE)}.dist-info"
    facts.mkdir()
    metadata = distribution(_PACKAGE).read_text("METADATA") or ""
    (facts / "METADATA").write_text(metadata, encoding="utf-8")


def _requirements(extra: str) -> str:
    """Return the requirements of Sieve in their installed versions, with the CPU build of torch."""
    names = ["torchvision"]
    for requirement in distribution(_PACKAGE).requires or ():
        if "extra ==" not in requirement or (extra and f'"{extra}"' in requirement):
            names += re.findall(r"^[\w.-]+", requirement)
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in sorted({*names})]
    return "\n".join([f"--extra-index-url {_CPU_WHEELS}", *pins]) + "\n"


def space_card(title: str, checkpoint: Checkpoint, collection: Collection, licence: str) -> str:
    """Return the README of a Space, whose YAML configures it."""
    settings: dict[str, Any] = {
        "title": title,
        "emoji": "🔎",
        "colorFrom": "blue",
        "colorTo": "indigo",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
    }
    card = Card(card_facts(licence, None, **settings))
    card.title(title)
    card.parts.append(
        "Search a collection of images with sparse codes whose dimensions have names, and can be "
        "switched off: “a dog, without a beach”."
    )
    card.table(
        ("collection", f"{collection.name}, {collection.n_items:,} images"),
        ("checkpoint", f"{checkpoint.name}, {checkpoint.m:,} dimensions"),
        ("backbone", "none" if collection.codes else collection.backbone.name),
        ("licence of the images", licence),
        ("Sieve", version(_PACKAGE)),
    )
    return str(card)
