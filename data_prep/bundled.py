"""Find collections by name or on the Hub, and prepare the bundled one on first use.

Sieve ships a program that draws the bundled collection, Scenes, and the embeddings of its images.
Thumbnails and caption embeddings are computed once, on the user's machine, under `$SIEVE_HOME`.
"""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache
from pathlib import Path

import numpy as np

from sieve import assets
from sieve.model.collection import MANIFEST, PUBLISHED, file_sha256
from sieve.model.files import check_files, sieve_home
from sieve.model.hub import download, is_reference, reference_of

log = logging.getLogger(__name__)

SCENES = "scenes"
BUNDLED = (SCENES,)
"""Names of the collections that ship with Sieve."""
BACKBONE = "sieve-lite"
"""The backbone of the bundled collections."""


def locate_collection(name: str | Path, *, device: str = "auto", progress: bool = True) -> Path:
    """Return the path of a collection.

    `hf://ORG/NAME@REVISION` is downloaded from the Hub if it is not cached; see `download`. For
    other names, an existing path comes first, then a bundled name, then a name in `$SIEVE_HOME`. A
    bundled collection is prepared on first use. Raise FileNotFoundError, which lists the available
    collections, if none has that name.
    """
    if is_reference(name):
        return download(str(name), "dataset", PUBLISHED, MANIFEST)
    path = Path(name).expanduser()
    if (path / MANIFEST).is_file():
        return path
    if str(name) in BUNDLED:
        return prepare_bundled_scenes(device=device, progress=progress)
    in_home = sieve_home() / "collections" / path
    if (in_home / MANIFEST).is_file():
        return in_home
    if path.exists():
        return path  # opening it raises an error that says what is wrong
    available = ", ".join([*BUNDLED, *list_collections()])
    raise FileNotFoundError(
        f"there is no collection {str(name)[:200]!r}; there are: {available}. Give the path of "
        "one, or hf://ORG/NAME, or make one with `sieve prepare folder DIR --captions CSV --out "
        "COLLECTION`"
    )


def collection_reference(path: Path) -> str:
    """Return the shortest argument that opens a collection: its name if possible, else its path."""
    if reference := reference_of(path):
        return reference
    path = path.resolve()
    if path == bundled_path().resolve():
        return SCENES
    return path.name if path.parent == (sieve_home() / "collections").resolve() else str(path)


def list_collections() -> list[str]:
    """Return the names of the collections in `$SIEVE_HOME`, without the bundled ones."""
    found = (sieve_home() / "collections").glob(f"*/{MANIFEST}")
    names = (path.parent.name for path in found)
    return sorted(name for name in names if not name.startswith(f"{SCENES}-"))


def prepare_bundled_scenes(*, device: str = "auto", progress: bool = True) -> Path:
    """Prepare the bundled collection unless it exists; return its path."""
    target = bundled_path()
    if (target / MANIFEST).is_file():
        return target
    # Imported here because later starts need neither drawing nor torch.
    from sieve.data_prep.pipeline.plan import WorkDirLockedError
    from sieve.data_prep.precomputed import PrecomputedEmbeddings
    from sieve.data_prep.prepare import prepare
    from sieve.data_prep.scenes import Scenes
    from sieve.model.backbone.clip import Backbone

    shipped = scenes_embeddings_path()
    precomputed = None
    if shipped.is_file():
        check_files(shipped.parent, "install Sieve again")
        precomputed = PrecomputedEmbeddings(np.load(shipped, "r"))
    log.warning("preparing the bundled collection in %s (once, about a minute)", target)
    backbone = Backbone.load(BACKBONE, device)
    source = Scenes()
    while not (target / MANIFEST).is_file():
        try:
            prepare(source, backbone, target, progress=progress, precomputed=precomputed)
        except WorkDirLockedError:
            log.warning("another process is preparing the bundled collection; waiting for it")
        except FileExistsError:
            if not (target / MANIFEST).is_file():
                raise
    return target


def bundled_path() -> Path:
    """Return the path of the prepared bundled collection: `scenes-` and a hash of what ships."""
    folder = assets.ROOT / "backbones" / BACKBONE
    files = [scenes_embeddings_path(), *sorted(folder.glob("open_clip_*"))]
    found = ((path, path.stat()) for path in files if path.is_file())
    version = _hash_of_files(
        tuple((path, facts.st_size, facts.st_mtime_ns) for path, facts in found)
    )
    return sieve_home() / "collections" / f"{SCENES}-{version}"


@lru_cache(maxsize=1)
def _hash_of_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash the names and bytes of files; their sizes and times are the key of the cache."""
    hashes = (f"{path.name} {file_sha256(path)}" for path, *_ in files)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:12]


def scenes_embeddings_path() -> Path:
    """Return the path of the shipped image embeddings of Scenes: (5000, d) float16."""
    return assets.ROOT / "collections" / SCENES / "image_embeddings.npy"
