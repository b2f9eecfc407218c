"""Finding collections by name, and making the bundled one on first use.

Scenes ships as a program that draws them and the embeddings of its images; thumbnails and caption
embeddings are made on the person's machine, once, under `$SIEVE_HOME`.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from sieve import assets
from sieve.model.collection import MANIFEST, file_sha256
from sieve.model.files import check_files, sieve_home

if TYPE_CHECKING:
    from sieve.data_prep.records import Source

log = logging.getLogger(__name__)

SCENES = "scenes"
BUNDLED = (SCENES,)
"""Names of the collections that ship with Sieve."""
BACKBONE = "sieve-lite"
"""The backbone of the bundled collections."""


def locate_collection(name: str | Path, *, device: str = "auto", progress: bool = True) -> Path:
    """Find a collection: an existing path, else a bundled name, else one in `$SIEVE_HOME`.

    A bundled collection is prepared when it is first asked for.

    Parameters
    ----------
    name : str or Path
    device, progress
        For the preparation of a bundled collection.

    Raises
    ------
    FileNotFoundError
        If there is none of that name; the message lists what there is.
    """
    path = Path(name).expanduser()
    if (path / MANIFEST).is_file():
        return path
    if str(name) in BUNDLED:
        return prepare_bundled_scenes(device=device, progress=progress)
    kept = sieve_home() / "collections" / path
    if (kept / MANIFEST).is_file():
        return kept
    if path.exists():
        return path  # opening it says what is wrong with it
    known = ", ".join([*BUNDLED, *list_collections()])
    raise FileNotFoundError(
        f"there is no collection {str(name)[:200]!r}; there are: {known}. Give the path of one, or "
        "make one with `sieve prepare folder DIR --captions CSV --out COLLECTION`"
    )


def collection_reference(path: Path) -> str:
    """Tell the shortest word that opens a collection: its name where that is enough."""
    path = path.resolve()
    if path == bundled_path().resolve():
        return SCENES
    return path.name if path.parent == (sieve_home() / "collections").resolve() else str(path)


def list_collections() -> list[str]:
    """Names of the collections in `$SIEVE_HOME`, without the bundled ones."""
    found = (sieve_home() / "collections").glob(f"*/{MANIFEST}")
    names = sorted(path.parent.name for path in found)
    return [name for name in names if not name.startswith(f"{SCENES}-")]


def scenes_embeddings_path() -> Path:
    """Where the embeddings of Scenes' images ship: (5000, d) float16 by the bundled backbone."""
    return assets.ROOT / "collections" / SCENES / "image_embeddings.npy"


def prepare_bundled_scenes(*, device: str = "auto", progress: bool = True) -> Path:
    """Find the bundled collection, prepared before or now.

    Returns
    -------
    Path
        See `bundled_path`.
    """
    target = bundled_path()
    if (target / MANIFEST).is_file():
        return target
    # Drawing and torch are loaded only here: the second start needs neither.
    from sieve.data_prep.pipeline.work_dir import WorkDirLockedError
    from sieve.data_prep.precomputed import PrecomputedEmbeddings
    from sieve.data_prep.prepare import prepare
    from sieve.data_prep.scenes import Scenes
    from sieve.model.backbone import Backbone

    shipped = scenes_embeddings_path()
    known = None
    if shipped.is_file():
        check_files(shipped.parent, "install Sieve again")
        known = PrecomputedEmbeddings(np.load(shipped, "r"))
    log.warning("preparing the bundled collection in %s, once; it takes about a minute", target)
    backbone = Backbone.load(BACKBONE, device)
    while not (target / MANIFEST).is_file():
        try:
            prepare(
                cast("Source", Scenes()), backbone, target, progress=progress, precomputed=known
            )
        except WorkDirLockedError:
            log.warning("another process is preparing it; waiting")
        except FileExistsError:
            if not (target / MANIFEST).is_file():
                raise
    return target


def bundled_path() -> Path:
    """Where the bundled collection lies once prepared: `scenes-` and a hash of what ships."""
    return sieve_home() / "collections" / f"{SCENES}-{_scenes_version()}"


def _scenes_version() -> str:
    """Short hash of what ships and shapes the collection: its embeddings and the backbone."""
    folder = assets.ROOT / "backbones" / BACKBONE
    files = [scenes_embeddings_path(), *sorted(folder.glob("open_clip_*"))]
    hashes = (f"{path.name} {file_sha256(path)}" for path in files if path.is_file())
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:12]
