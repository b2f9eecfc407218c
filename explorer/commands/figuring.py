"""The subcommand that draws paper figures: `sieve figure`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sieve.explorer.arguments import (
    CheckpointName,
    Device,
    TextEncoderName,
    TrustBackbone,
    open_engine,
)
from sieve.explorer.commands.printing import print_json, print_text
from sieve.explorer.commands.writing import kind_of
from sieve.model.drafts import whole_file

_KINDS = ("pdf", "svg", "png")


@dataclass(frozen=True)
class Figure:
    """Draw a paper figure from a recipe: the same recipe gives the same file, byte for byte.

    A short recipe is enough: {"collection": "scenes", "rows": [{"query": "a dog"}, {"query":
    "a dog", "without": "a beach"}], "columns": 6, "width_cm": 17}

    Example: sieve figure recipe.json -o figure.pdf --latex --recipe
    """

    source: Annotated[Positional[Path], arg(metavar="RECIPE")]
    """The recipe, a JSON file."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="PATH")]
    """The figure; its suffix says which kind: .pdf, .svg or .png (300 dpi). Written over."""
    latex: bool = False
    """Also write the LaTeX figure block beside it, as .tex."""
    recipe: bool = False
    """Also write the full recipe beside it, as .json: with hashes and version."""
    collection: Annotated[str | None, arg(metavar="COLLECTION")] = None
    """Where the recipe's collection is, if not where its name leads."""
    checkpoint: CheckpointName = None
    """Where the recipe's checkpoint is, if not in $SIEVE_HOME or bundled."""
    device: Device = "auto"
    """Where the backbone runs."""
    text_encoder: TextEncoderName = ""
    """Read texts with this backbone, or with this Python function and --allow-code, in place of the
    collection's own backbone."""
    allow_code: bool = False
    """Load the Python function that reads texts, if one is named. It may do anything that you may:
    only for code that you trust."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Draw, write, and say what was written."""
        kind = kind_of(self.out, _KINDS, "a figure")
        from sieve.explorer.figures.drawing import draw_figure
        from sieve.explorer.figures.latex import latex_block
        from sieve.explorer.figures.recipe import read_recipe, write_recipe

        recipe = read_recipe(self.source)
        name = self.collection or recipe.collection
        if not name:
            raise ValueError(f"{self.source}: no collection is named; add one, or --collection")
        checkpoint = self.checkpoint or _checkpoint_of(recipe.checkpoint)
        engine = open_engine(
            name,
            checkpoint,
            self.device,
            self.allow_code,
            trust_backbone=self.trust_backbone,
            text_encoder=self.text_encoder,
        )
        drawn = draw_figure(engine, replace(recipe, collection=recipe.collection or name), kind)
        files = {self.out: drawn.data}
        if self.latex:
            block = latex_block(drawn.recipe, drawn.content, self.out.name)
            files[self.out.with_suffix(".tex")] = block.encode()
        if self.recipe:
            files[self.out.with_suffix(".json")] = write_recipe(drawn.recipe).encode()
        self._spare_source(files)
        for path, data in files.items():
            with whole_file(path) as draft:
                draft.write_bytes(data)
        self._tell(list(files), drawn.notes, drawn.width_cm, drawn.height_cm)

    def _spare_source(self, files: dict[Path, bytes]) -> None:
        for path, data in files.items():
            if path.exists() and path.samefile(self.source) and path.read_bytes() != data:
                raise ValueError(f"{path} is the recipe itself; choose another name for -o")

    def _tell(
        self, files: list[Path], notes: tuple[str, ...], width_cm: float, height_cm: float
    ) -> None:
        if self.json:
            size = {"width_cm": width_cm, "height_cm": height_cm}
            print_json({"files": list(map(str, files)), **size, "notes": list(notes)})
            return
        for note in notes:
            sys.stderr.write(f"sieve: {note}\n")
        print_text(f"{', '.join(map(str, files))}: {width_cm:g} × {height_cm:g} cm\n")


def _checkpoint_of(sha256: str) -> str | None:
    """Find the checkpoint that a recipe names by its hash; None for the default one.

    Raises
    ------
    FileNotFoundError
        If none has that hash.
    """
    if not sha256:
        return None
    from sieve.model.checkpoint import Checkpoint, checkpoint_folders

    for folder in checkpoint_folders():
        try:
            found = Checkpoint.load(folder).sha256
        except (ValueError, FileNotFoundError):
            continue
        if found.startswith(sha256):
            return str(folder)
    raise FileNotFoundError(
        f"there is no checkpoint with hash {sha256[:12]}; say where it is by --checkpoint, or take "
        "checkpoint out of the recipe"
    )
