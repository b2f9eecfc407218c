"""Functions of the Python API that make things: collections, checkpoints, figures, a web page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from sieve import _html
from sieve._engine import Device, Engine
from sieve._paper_figure import PaperFigure, draw, parse_recipe_fields
from sieve.explorer.cli.experiments import Hyperparameters, Train
from sieve.explorer.cli.export import ImportEncoder
from sieve.explorer.cli.options import BackboneOptions, EmbedOptions
from sieve.explorer.cli.preparation import PrepareFolder
from sieve.explorer.errors import check_types, python_errors
from sieve.explorer.figures.content import recipe_checkpoint
from sieve.model.hyperparameters import TrainingConfig

if TYPE_CHECKING:
    from sieve.explorer.app import Served


@python_errors
def prepare_folder(
    directory: str | Path,
    captions: str | Path | None = None,
    *,
    out: str | Path | None = None,
    backbone: str = "sieve-lite",
    only: str | Path | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
    labels_column: str | None = None,
    licence: str = "not stated",
    keep_going: bool = False,
    workers: int | None = None,
    device: Device = "auto",
    progress: bool = True,
) -> Path:
    """Make a collection of a folder of images, with or without captions.

    Nothing in the folder is changed. An interrupted call resumes when it is repeated. Images and
    rows that cannot be used are listed with the reason in `skipped.csv` of the collection.

    Parameters
    ----------
    directory : str or Path
        Folder of images, with subfolders.
    captions : str or Path, optional
        CSV, TSV, JSON, JSON lines or Parquet file with one row per caption: columns image, caption
        and optionally split and labels (separated by semicolons).
    out : str or Path, optional
        Folder of the new collection; must not exist. By default `$SIEVE_HOME/collections/NAME`,
        with the name of the directory, where `Engine.open` finds it by name.
    backbone : str
        "sieve-lite", which is bundled and small, or a CLIP model such as "ViT-B-32/openai".
    only : str or Path, optional
        Text file with one image name per line; use only these images.
    image_column, caption_column, split_column, labels_column : str, optional
        Columns of the caption file; by default the usual names.
    licence : str
        Licence of the images, recorded in the collection.
    keep_going : bool
        Continue even if more than 5 % of the images or rows cannot be used.
    workers : int, optional
        Worker processes that decode images; by default one per core, or none for a small folder.
        Scripts on macOS and Windows that use workers need `if __name__ == "__main__":`.
    device : {"auto", "cuda", "mps", "cpu"}
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The collection, for `Engine.open` and `train`.

    Raises
    ------
    FileExistsError
        If `out` exists.
    FileNotFoundError
        If the folder or a file does not exist.
    ValueError
        If no image can be used, or more than 5 % cannot, or the backbone is unknown.

    Examples
    --------
    >>> path = sieve.prepare_folder("photos/", "captions.csv", out="my-photos")
    >>> engine = sieve.Engine.open(path)
    """
    command = PrepareFolder(
        Path(directory),
        captions=_path(captions),
        only=_path(only),
        image_column=image_column,
        caption_column=caption_column,
        split_column=split_column,
        labels_column=labels_column,
        backbone=backbone,
        licence=licence,
        common=EmbedOptions(out=_path(out), workers=workers, keep_going=keep_going, device=device),
    )
    return Path(command.prepare(progress).path)


@python_errors
def train(
    collection: str | Path,
    out: str | Path | None = None,
    *,
    preset: Literal["compact", "paper"] = "compact",
    device: Device = "auto",
    text_encoder: str = "",
    allow_code: bool = False,
    trust_backbone: bool = False,
    log: Literal["tensorboard", "wandb"] | None = None,
    progress: bool = True,
    **hyperparameters: Any,
) -> Path:
    """Train a sparse encoder on the captions of a collection.

    An interrupted training resumes when the call is repeated.

    Parameters
    ----------
    collection : str or Path
        As for `Engine.open`.
    out : str or Path, optional
        Folder of the new checkpoint; must not exist. By default `$SIEVE_HOME/checkpoints/NAME`,
        where `Engine.open` finds it.
    preset : {"compact", "paper"}
        Base settings, which the hyperparameters override.
    device : {"auto", "cuda", "mps", "cpu"}
    text_encoder, allow_code, trust_backbone
        As for `Engine.open`.
    log : {"tensorboard", "wandb"}, optional
        Log losses and validation metrics during the training, as `sieve train --log` does.
    progress : bool
        Show a progress bar.
    **hyperparameters
        Such as `m` (number of dimensions), `k` (active dimensions), `epochs`, `batch_size`,
        `learning_rate`, `seed`; `sieve train --help` describes most of them, and
        `sieve.model.hyperparameters.TrainingConfig` all.

    Returns
    -------
    Path
        The checkpoint. Its `training.json` has the validation metrics and the learning curves.

    Raises
    ------
    FileExistsError
        If `out` exists.
    FileNotFoundError
        If there is no such collection.
    TypeError
        If there is no such hyperparameter.
    ValueError
        If a hyperparameter is out of range, or the collection cannot be trained on.

    Examples
    --------
    >>> checkpoint = sieve.train("my-photos", m=512, k=32, epochs=20)
    >>> engine = sieve.Engine.open("my-photos", checkpoint)
    """
    known = [field.name for field in fields(TrainingConfig)]
    for name in hyperparameters:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise TypeError(f"train() has no hyperparameter {name!r}; {advice}")
    check_types(hyperparameters, get_type_hints(TrainingConfig))
    options = BackboneOptions(
        device=device,
        text_encoder=text_encoder,
        allow_code=allow_code,
        trust_backbone=trust_backbone,
    )
    given = Hyperparameters(hyperparameters)
    command = Train(str(collection), _path(out), preset, given, options, log)
    return Path(command.train(progress).path)


@python_errors
def import_encoder(
    source: str | Path,
    collection: str | Path | None = None,
    *,
    backbone: str = "",
    out: str | Path | None = None,
    tool: Literal["auto", "SAELens", "sparsify", "overcomplete", "MSAE"] = "auto",
    activation: Literal["", "relu", "topk", "jumprelu", "batchtopk"] = "",
    k: int = 0,
    threshold: float | None = None,
    input_scale: float = 1.0,
    tensors: Mapping[str, str] | None = None,
    any_hook: bool = False,
    device: Device = "auto",
    trust_backbone: bool = False,
) -> Path:
    """Make a checkpoint of a sparse autoencoder that another tool trained.

    Images and texts share its weights. Its activations are those of the tool; Sieve divides each
    code by its L2 norm. The same as `sieve import-encoder`.

    Parameters
    ----------
    source : str or Path
        Folder or file of SAELens or sparsify, or a state dict of overcomplete or MSAE. It must read
        the embeddings of the backbone, of width d, and have m dimensions.
    collection : str or Path, optional
        As for `Engine.open`. Names the dimensions and calibrates exclusion. By default the largest
        installed one of the backbone.
    backbone : str
        Backbone whose embeddings the encoder reads; by default that of the collection.
    out : str or Path, optional
        Folder of the new checkpoint; must not exist. By default `$SIEVE_HOME/checkpoints/NAME`.
    tool : str
        Tool that saved it; by default recognised by its files.
    activation, k, threshold : optional
        Activation function, its number of active dimensions (topk), or its threshold (jumprelu,
        batchtopk), if the files do not record them.
    input_scale : float
        Factor of the unit-length embeddings, if the encoder was trained on longer ones.
    tensors : mapping of str to str, optional
        Names of the tensors in a file of another tool: "encode", (m, d) or (d, m), and optionally
        "bias", (m,), "decode", (m, d) or (d, m), "decode_bias" and "input_bias", (d,), and
        "threshold", (m,).
    any_hook : bool
        Accept an encoder of a hook that is not known to be the embedding.
    device : {"auto", "cuda", "mps", "cpu"}
    trust_backbone : bool
        As for `Engine.open`.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    FileExistsError
        If `out` exists.
    FileNotFoundError
        If there is no encoder or no such collection.
    ValueError
        If the encoder is damaged, of another width, or cannot be computed by Sieve.

    Examples
    --------
    >>> checkpoint = sieve.import_encoder("my-sae/", "my-photos", out="my-sae-codes")
    >>> engine = sieve.Engine.open("my-photos", checkpoint)
    """
    command = ImportEncoder(
        Path(source),
        backbone,
        _path(out),
        None if collection is None else str(collection),
        tool,
        activation,
        k,
        threshold,
        input_scale,
        ",".join(f"{part}={name}" for part, name in (tensors or {}).items()),
        any_hook,
        BackboneOptions(device=device, trust_backbone=trust_backbone),
    )
    return Path(command.make(progress=False).path)


@python_errors
def export_encoder(
    checkpoint: str | Path,
    out: str | Path,
    format: Literal["saelens", "sentence-transformers"],
    *,
    modality: Literal["image", "text"] | None = None,
    centred_input: bool = False,
) -> Path:
    """Write the encoder of a checkpoint for SAELens or sentence-transformers.

    Loaded there, it gives the codes of Sieve before they are divided by their norms, from
    embeddings (n, d) to activations (n, m). The same as `sieve export CHECKPOINT --format`.

    Parameters
    ----------
    checkpoint : str or Path
        Path or name of a checkpoint.
    out : str or Path
        Folder to write; must not exist.
    format : {"saelens", "sentence-transformers"}
    modality : {"image", "text"}, optional
        Required if the checkpoint encodes images and texts differently.
    centred_input : bool
        For saelens: write an encoder whose input is the embedding minus its modality's mean, which
        is written beside it.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        If `out` exists.
    FileNotFoundError
        If there is no such checkpoint.
    ValueError
        If the format cannot express the encoder.

    Examples
    --------
    >>> sieve.export_encoder("my-sae-codes", "back/", "saelens")
    """
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.checkpoint_choice import checkpoint_path
    from sieve.model.encoder_conversion import export_encoder as write

    opened = Checkpoint.load(checkpoint_path(str(checkpoint)))
    write(opened, Path(out), format, modality, centred_input)
    return Path(out)


@python_errors
def figure(
    recipe: Mapping[str, Any] | str | Path | None = None,
    *,
    out: str | Path | None = None,
    kind: str = "",
    collection: str | Path | None = None,
    checkpoint: str | Path | None = None,
    **fields: Any,
) -> PaperFigure:
    """Open the collection of a recipe, and draw its figure; the same as `sieve figure`.

    Parameters
    ----------
    recipe, out, kind, **fields
        As for `Engine.figure`.
    collection, checkpoint : str or Path, optional
        As for `Engine.open`; by default those of the recipe.

    Returns
    -------
    PaperFigure

    Raises
    ------
    FileNotFoundError
        If the recipe, its collection or its checkpoint does not exist.
    ValueError
        If a field is invalid or missing.

    Examples
    --------
    >>> sieve.figure("recipe.json", out="figure.pdf")
    >>> sieve.figure(collection="scenes", rows=["a dog", "a cat"], columns=4)
    """
    read = parse_recipe_fields(recipe, fields)
    name = collection or read.collection
    if not name:
        raise ValueError('the recipe has no "collection"; add it, or give collection=NAME')
    chosen = checkpoint or recipe_checkpoint(read.checkpoint)
    engine = Engine.open(name, chosen)
    return draw(engine._engine, replace(read, collection=read.collection or str(name)), out, kind)


class LaunchedExplorer:
    """A running explorer; close it with `close`, or use it as a context manager.

    Attributes
    ----------
    url : str
        Address of the page.

    Examples
    --------
    >>> with sieve.launch(engine) as explorer:
    ...     print(explorer.url)
    """

    def __init__(self, served: Served) -> None:
        self.url = served.url
        self._served: Served | None = served

    @property
    def is_running(self) -> bool:
        """Whether it was not closed yet."""
        return self._served is not None

    def close(self) -> None:
        """Stop the server; has no effect if it is closed."""
        if self._served is not None:
            self._served.close()
            self._served = None

    def __enter__(self) -> LaunchedExplorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LaunchedExplorer({self.url!r}{'' if self.is_running else ', closed'})"

    def _repr_html_(self) -> str:
        return _html.link(self.url, f"Sieve is at {self.url}") if self.is_running else repr(self)


@python_errors
def launch(
    engine: Engine | str | Path = "scenes",
    *,
    port: int = 7860,
    inline: bool | None = None,
    height: int = 900,
) -> LaunchedExplorer:
    """Serve the explorer on this machine, in the background.

    Parameters
    ----------
    engine : Engine, str or Path
        An open engine, or a collection to open.
    port : int
        Port; if it is in use, the next free one.
    inline : bool, optional
        Show the page in the output of a notebook cell; by default in a notebook. It appears in
        notebooks that are open at localhost; elsewhere (VS Code, a remote server) the browser
        refuses to embed it, so open `url` in its own tab, over a tunnel if it is remote.
    height : int
        Height of the page in a notebook, in pixels.

    Returns
    -------
    LaunchedExplorer
        It has the `url` and can be closed. The server stops at the latest when Python exits.

    Raises
    ------
    ValueError
        If no port is free, or `inline` is True outside of a notebook.

    Examples
    --------
    >>> explorer = sieve.launch(engine, port=8000)
    >>> explorer.close()
    """
    in_notebook = _in_notebook()
    if inline and not in_notebook:
        raise ValueError(
            "inline=True needs a Jupyter notebook, which this is not; leave it out, and open the "
            "url in a browser"
        )
    opened = engine if isinstance(engine, Engine) else Engine.open(engine)
    from sieve.explorer.app import start  # gradio takes seconds to import

    launched = LaunchedExplorer(start(opened._engine, port=port))
    if in_notebook if inline is None else inline:
        from IPython.display import IFrame, display

        display(IFrame(launched.url, "100%", height))
    return launched


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
