"""The Gradio app of the explorer: `build_app(engine)` builds it, `start(engine)` serves it.

A `Server` serves a collection until stopped. If no checkpoint fits the collection, the page offers
to train one. When the page asks for another checkpoint, the app is restarted with it at the same
address, and the page reloads itself.

Environment variables that Gradio reads at import are set first.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from sieve.explorer.uploads import MAX_UPLOAD_BYTES, private_temp_dir

# No data about what users explore leaves their machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
private_temp_dir()
# uvicorn would trust X-Forwarded headers of every local program; RouteAllowList handles them.
os.environ["FORWARDED_ALLOW_IPS"] = ""

import gradio as gr  # noqa: E402
import plotly  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.exceptions import RequestValidationError  # noqa: E402
from gradio.themes import Base  # noqa: E402
from gradio.utils import get_upload_folder  # noqa: E402

from sieve.explorer import figures  # noqa: E402
from sieve.explorer.annotations import import_export  # noqa: E402
from sieve.explorer.api import add_api  # noqa: E402
from sieve.explorer.checkpoint_report import CheckpointReporter  # noqa: E402
from sieve.explorer.components import component, page_head  # noqa: E402
from sieve.explorer.concurrency import (  # noqa: E402
    API_CONCURRENCY,
    API_THREADS,
    MAX_WAITING,
    UnfetchedResponses,
    limit_memory_arenas,
)
from sieve.explorer.figures.drawing import figures_folder  # noqa: E402
from sieve.explorer.security.access import Access  # noqa: E402
from sieve.explorer.security.middleware import RouteAllowList, handle_exception  # noqa: E402
from sieve.explorer.tabs.annotations import AnnotationHandlers, annotations_component  # noqa: E402
from sieve.explorer.tabs.benchmark import benchmark_tab  # noqa: E402
from sieve.explorer.tabs.compare import compare_tab  # noqa: E402
from sieve.explorer.tabs.dimensions import dimensions_tab  # noqa: E402
from sieve.explorer.tabs.figure import figure_tab  # noqa: E402
from sieve.explorer.tabs.inspect import RegionHandlers, inspect_tab  # noqa: E402
from sieve.explorer.tabs.search import SearchHandlers, search_tab  # noqa: E402
from sieve.explorer.tabs.train import TrainHandlers, form_settings, train_tab  # noqa: E402
from sieve.model.checkpoint_choice import explain_choice, find_checkpoint  # noqa: E402
from sieve.model.collection import Collection  # noqa: E402
from sieve.model.engine import SearchEngine  # noqa: E402
from sieve.model.exclusion import PRESENCE_LIMIT  # noqa: E402

log = logging.getLogger(__name__)

STYLE = Path(__file__).parent / "theme.css"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PORTS_TRIED = 100
PAGE_SETTINGS = {
    "presence_limit": PRESENCE_LIMIT,
    "upload_bytes": MAX_UPLOAD_BYTES,
    "import_bytes": import_export.MAX_BYTES,
    "figure": {"defaults": figures.DEFAULTS, "styles": figures.STYLES, "rows": figures.MAX_ROWS},
    "training": form_settings(),
}
"""Limits and defaults of the server that the page needs too."""
_SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
_POLL_SECONDS = 0.3


class Served(NamedTuple):
    """A running explorer."""

    app: gr.Blocks
    url: str

    def close(self) -> None:
        """Stop the server without waiting for open event streams."""
        if self.app.server is not None:
            self.app.server.config.timeout_graceful_shutdown = 1
        self.app.close(verbose=False)


def build_app(
    engine: SearchEngine,
    training: TrainHandlers | None = None,
    *,
    public: bool = False,
    mcp: bool = False,
) -> gr.Blocks:
    """Build the app of the explorer for one engine; `start` adds the style and the allow-list.

    `training` handles the Train tab; without it there is no such tab. `public` is whether untrusted
    users can open the page: then no handler that accepts files, trains, writes or edits is
    registered, and figures are drawn from thumbnails. With `mcp`, the API is also available over
    the Model Context Protocol.
    """
    training = None if public else training
    handlers = SearchHandlers(engine, Path(get_upload_folder()), public=public)
    annotations = AnnotationHandlers(engine, editing=not public)
    with gr.Blocks(
        title=f"Sieve · {engine.collection.name}",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as app:
        component("header", *([training.checkpoint_open] if training else []))
        annotations_component(annotations)
        with gr.Tabs(elem_id="sieve-tabs"):
            with _tab("search"):
                search_tab(handlers)
            with _tab("dimensions"):
                dimensions_tab(engine, annotations)
            with _tab("inspect"):
                inspect_tab(handlers)
            with _tab("compare"):
                compare_tab(handlers)
            with _tab("figure"):
                figure_tab(handlers)
            with _tab("benchmark"):
                benchmark_tab(engine, training)
            if training is not None:
                with _tab("train"):
                    train_tab(training)
        regions = RegionHandlers(handlers).regions
        component("item_detail", *([] if public else [regions]))
        component("checkpoint_panel", CheckpointReporter(engine).checkpoint_report)
        component("guide")
        add_api(handlers, regions, mcp=mcp)
    Thread(target=handlers.warm_up, daemon=True).start()
    return app.queue(max_size=MAX_WAITING, default_concurrency_limit=API_CONCURRENCY)


def _tab(name: str) -> gr.Tab:
    tab = gr.Tab(name.capitalize(), id=name, elem_id=f"tab-{name}")
    # Selecting a tab changes only the address and runs no Python.
    js = f"() => {{ Sieve.showTab('{name}', {{ push: true }}) }}"
    tab.select(None, js=js, api_visibility="private")
    return tab


def build_training_page(training: TrainHandlers) -> gr.Blocks:
    """Build the app for a collection without a checkpoint: it offers to train one."""
    with gr.Blocks(
        title=f"Sieve · {training.collection.name}", analytics_enabled=False, fill_width=True
    ) as app:
        component("header")
        train_tab(training)
    return app.queue(max_size=64)


def start(
    engine: SearchEngine | None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    training: TrainHandlers | None = None,
    access: Access = Access(),  # noqa: B008  (frozen)
) -> Served:
    """Serve the explorer in the background, at the first free port of the 100 from `port`.

    Without an engine, it serves the page of `build_training_page`, which needs `training`. A `host`
    other than the loopback address needs restricted access. Raises a ValueError if no port is free,
    the host is open to the whole network without restriction, or the extra for the Model Context
    Protocol is not installed.
    """
    access.check_host(host)
    if access.mcp and find_spec("mcp") is None:
        raise ValueError('--mcp needs an extra: pip install "sieve-explorer[mcp]"')
    port = _free_port(host, port)
    thumbnails = None
    if engine is None:
        assert training is not None
        app, access = build_training_page(training), replace(access, mcp=False)
    else:
        app = build_app(engine, training, public=access.public, mcp=access.mcp)
        thumbnails = engine.collection.path.resolve() / "thumbnails"
    installed: list[RouteAllowList] = []

    @asynccontextmanager
    async def lifespan(server: FastAPI) -> AsyncIterator[None]:
        # Gradio adds its own middleware last, so outside of any passed to it. When the server
        # starts, before it accepts a request, all of it exists and can be wrapped.
        assert server.middleware_stack is not None
        allow_list = RouteAllowList(
            server.middleware_stack,
            access,
            host,
            port,
            functions=app.fns,
            unfetched=UnfetchedResponses(app._queue),  # noqa: SLF001  (there is no public way)
            thumbnails=thumbnails,
            plotly=PLOTLY,
            generated=figures_folder(Path(get_upload_folder())),
        )
        server.middleware_stack = allow_list
        installed.append(allow_list)
        sweep = asyncio.create_task(allow_list.unfetched.sweep_forever())
        yield
        sweep.cancel()
        with suppress(asyncio.CancelledError):
            await sweep

    app.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        inline=False,
        share=False,
        root_path=access.root_path,
        mcp_server=access.mcp,
        app_kwargs={
            "lifespan": lifespan,
            "exception_handlers": {
                RequestValidationError: handle_exception,
                Exception: handle_exception,
            },
        },
        show_error=False,
        footer_links=["api"],
        allowed_paths=[],
        max_file_size=MAX_UPLOAD_BYTES,
        max_threads=API_THREADS,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        state_session_capacity=100,
        theme=Base(font=_SYSTEM_FONTS, font_mono=_MONO_FONTS),
        head=page_head(STYLE, PAGE_SETTINGS),
    )
    if not installed or app.app.middleware_stack is not installed[0]:
        app.close(verbose=False)
        raise ValueError("this version of Gradio does not let Sieve protect its server")
    installed[0].is_started = True
    if access.mcp and app.mcp_error:
        app.close(verbose=False)
        raise ValueError(f"--mcp: {app.mcp_error}")
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return Served(app, f"http://{f'[{shown}]' if ':' in shown else shown}:{port}")


def _free_port(host: str, first: int) -> int:
    if not 1 <= first <= 65535:
        raise ValueError(f"a port must be from 1 to 65535; got {first}")
    last = min(first + PORTS_TRIED, 65536)
    for port in range(first, last):
        # Gradio needs the port of 127.0.0.1 to be free for any host.
        if all(_is_free(one, port) for one in {host, "127.0.0.1"}):
            return port
    raise ValueError(f"no port from {first} to {last - 1} is free on {host}; choose one by --port")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the server does: a port that was closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            log.debug("port %s: %s", port, error)
            return False
    return True


@dataclass(eq=False)
class Server:
    """Serve one collection with one checkpoint at a time."""

    collection: Collection
    open_engine: Callable[[Path | None], SearchEngine]
    """Opens the collection with a checkpoint; None chooses the one that fits best."""
    host: str = "127.0.0.1"
    port: int = 7860
    """The first port to try; later the one in use."""
    device: str = "auto"
    """Device for training."""
    training: bool = True
    """Whether checkpoints can be trained on the page; a public page never offers it."""
    text_encoder: str = ""
    """Text encoder to use instead of the collection's backbone; empty for the backbone."""
    access: Access = Access()
    served: Served | None = field(default=None, init=False)
    note: str = field(default="", init=False)
    """Explains the choice of the open checkpoint if another one could be expected."""
    _train_handlers: TrainHandlers | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.training = self.training and not self.access.public

    def start(self, checkpoint: Path | None = None) -> Served:
        """Serve a checkpoint, by default the best; if none fits, serve a page to train one.

        Raises a FileNotFoundError or ValueError if it cannot be opened, or no port is free.
        """
        if checkpoint is None and self.training:
            try:
                find_checkpoint(self.collection)
            except FileNotFoundError as error:
                log.info("%s", error)
                return self._serve(None)
        return self._serve(self.open_engine(checkpoint))

    def switch_checkpoint(self) -> None:
        """Restart at the same address with the checkpoint that the page asks for, if any."""
        handlers = self._train_handlers
        wanted = handlers.wanted() if handlers else None
        if handlers is None or self.served is None or wanted is None:
            return
        try:
            engine = self.open_engine(wanted)
        except (ValueError, OSError) as error:
            handlers.not_opened(wanted, error)
            return
        self.served.app.close(verbose=False)
        self.port = int(self.served.url.rsplit(":", 1)[1])
        self._serve(engine)

    def _serve(self, engine: SearchEngine | None) -> Served:
        path = Path(engine.checkpoint.path) if engine else None
        if self.training:
            self._train_handlers = TrainHandlers(
                self.collection, path, self.device, self.text_encoder
            )
        self.note = str(explain_choice(self.collection, path)) if path else ""
        self.served = start(
            engine,
            host=self.host,
            port=self.port,
            training=self._train_handlers,
            access=self.access,
        )
        return self.served


def launch(server: Server, port: int, checkpoint: Path | None = None) -> None:
    """Print the address, and whether the requested port is in use; serve until interrupted."""
    limit_memory_arenas()
    served = server.start(checkpoint)
    gc.freeze()  # a full garbage collection of what stays open anyway stops all requests for 0.4 s
    note = "" if served.url.endswith(f":{port}") else f" (port {port} is in use)"
    sys.stdout.write(f"Sieve is at {served.url}{note}\n")
    if server.note:
        sys.stdout.write(f"{server.note}\n")
    sys.stdout.flush()
    try:
        while True:
            time.sleep(_POLL_SECONDS)
            server.switch_checkpoint()
    except KeyboardInterrupt:
        log.info("stopped")
    finally:
        (server.served or served).close()
        # Otherwise the garbage collection at exit takes seconds.
        gc.freeze()
