"""Fuzzing targets: every handler of a running explorer, for local use and with `--public`."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from sieve.data_prep.bundled import locate_collection
from sieve.explorer.app import start
from sieve.explorer.errors import INTERNAL_ERROR
from sieve.explorer.jobs.manager import JobLock
from sieve.explorer.security.access import Access
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.engine import SearchEngine
from sieve.model.files import sieve_home
from tests.benchmarks.fuzzing import FAULT, Target
from tests.benchmarks.random_inputs import changed
from tests.page_api import RPC_URL, request_body, server_functions

SLOW = 20.0
_PLACE = {
    "q": "a dog", "without": "a beach", "item": "", "off": [3, 17], "strictness": 0.5,
    "never": False, "compare": False, "list": True, "upload": "",
}  # fmt: skip
_RECIPE = {
    "collection": "", "columns": 4, "width_cm": 12, "font_size": 7, "tiles": "square",
    "label": "fig:a",
    "rows": [{"query": "a dog", "without": "a beach", "strictness": "never", "off": [3]}],
}  # fmt: skip
_SLOT = {"text": "a dog", "item": "", "upload": ""}
_SETTINGS = {"preset": "compact", "m": 64, "k": 8, "epochs": 1, "seed": 0, "batch_size": 64}
SEEDS: dict[str, tuple[Any, ...]] = {
    "open": ("", "?q=a+dog&without=beach&off=17,203&strictness=1", "?dimension=3"),
    "ask": (_PLACE, {"q": "a dog without a beach", "list": True}, {"item": "0123456789abcdef"}),
    "item": ("0123456789abcdef", ""),
    "export_results": (_PLACE | {"kind": "csv"}, _PLACE | {"kind": "parquet"}),
    "export_dimensions": ({"kind": "csv"}, {"kind": "json"}),
    "page": ({"dimension": 3, "seed": 1}, {"dimension": 0}),
    "probe": ({"dimension": 3},),
    "map": ({}, None),
    "table": ({}, None),
    "preview": (_RECIPE,),
    "download": ({"recipe": _RECIPE, "kind": "png"}, {"recipe": _RECIPE, "kind": "tex"}),
    "inspect": ({"left": _SLOT, "right": _SLOT | {"text": "a cat"}, "off": [1], "list": True},),
    "why": ({"left": _SLOT, "ids": ["0123456789abcdef", "0123456789abcdee"], "off": []},
            _PLACE | {"a": "0123456789abcdef", "b": "0123456789abcdee"}),
    "compare": (_PLACE | {"method": "subtraction", "hyperparameter": 0.5},),
    "notes_of": ({"dimension": 3},),
    "notes_write": ({"dimension": 3, "field": "name", "value": "dog", "version": 0},),
    "notes_export": ({"kind": "json"}, {"kind": "csv"}),
    "notes_import": (
        {"text": '{"sieve_annotations": 1, "dimensions": [{"dimension": 3, "name": "dog"}]}',
         "name": "a.json", "apply": True, "replace": False},
        {"text": "dimension,name\n3,dog\n", "name": "a.csv", "apply": True, "replace": True},
    ),
    "search_save": ({"name": "dogs", "link": "?q=a+dog"},),
    "search_rename": ({"id": 1, "name": "cats", "version": 1},),
    "search_delete": ({"id": 1, "undo": False}, {"id": 1, "undo": True}),
    "training_start": (_SETTINGS, {}),
    "upload": ("/tmp/gradio/a/b.png",),
}  # fmt: skip
_ARGUMENTS: dict[str, tuple[list[Any], ...]] = {
    "/encode": (["a dog", "a beach"],),
    "/search": (["a dog", "a beach", None, 1.0, 10], ["a dog", "", [3, 17], "never", 5]),
    "/dimension": ([3],),
    "/figure": ([_RECIPE, "png"],),
}
_BODIES = {
    "queue/join": {
        "data": ["a dog", "a beach"], "fn_index": 0, "session_hash": "s", "trigger_id": 1,
        "event_data": None, "batched": False, "simple_format": False, "event_id": "e",
    },
    "call/encode": {"data": ["a dog", "a beach"], "session_hash": "s", "fn_index": 0},
    "call/v2/encode": {"text": "a dog", "without": "a beach"},
    "cancel": {"session_hash": "s", "fn_index": 0, "event_id": "e"},
    "reset": {"event_id": "e"},
}  # fmt: skip


class _Overheard(logging.Handler):
    """Records every traceback that reaches the log or the terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.tracebacks: list[str] = []
        self._terminal = sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            self.tracebacks.append(
                f"{record.name}: {record.exc_info[0].__name__}: {record.exc_info[1]}"
            )

    def write(self, text: str) -> int:
        if "Traceback" in text or text.startswith('  File "'):
            self.tracebacks.append(text.strip()[-200:])
        return len(text)

    def flush(self) -> None:
        self._terminal.flush()

    def isatty(self) -> bool:
        return False


@contextmanager
def running_targets(port: int) -> Iterator[list[Target]]:
    """Start both explorers on the bundled collection, with a temporary $SIEVE_HOME."""
    path, ours = locate_collection("scenes", device="cpu", progress=False), sieve_home()
    log_monitor, terminal = _Overheard(), sys.stderr
    run, home = JobLock.run, os.environ.get("SIEVE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("collections", "codes"):
            (Path(folder) / name).symlink_to(ours / name)
        os.environ["SIEVE_HOME"] = folder
        engine = SearchEngine.open(path, device="cpu")
        training = TrainHandlers(engine.collection, engine.checkpoint.path, "cpu")
        served = [
            start(engine, port=port, training=training),
            start(engine, port=port + 1, access=Access(public=True)),
        ]
        logging.getLogger().addHandler(log_monitor)
        for name in ("uvicorn.error", "uvicorn"):
            logging.getLogger(name).addHandler(log_monitor)
        # A valid form starts a process, which this benchmark does not wait for.
        JobLock.run = lambda *_: None
        sys.stderr = log_monitor
        try:
            known = [engine.collection.items["id"].iloc[7], engine.collection.items["id"].iloc[99]]
            with httpx.Client(timeout=120) as web:
                yield [
                    target
                    for kind, each in zip(("own", "public"), served, strict=True)
                    for target in _targets(web, each.url, kind, known, log_monitor.tracebacks)
                ]
        finally:
            sys.stderr, JobLock.run = terminal, run
            logging.getLogger().removeHandler(log_monitor)
            for each in served:
                each.app.close(verbose=False)
            os.environ.pop("SIEVE_HOME") if home is None else os.environ.update(SIEVE_HOME=home)


def _targets(
    web: httpx.Client, url: str, kind: str, ids: list[str], tracebacks: list[str]
) -> Iterator[Target]:
    known = server_functions(web.get(f"{url}/config").json())
    for name in known:
        seeds = SEEDS.get(name.removeprefix("sieve_"), ({}, None))
        text = (
            json.dumps(seeds)
            .replace("0123456789abcdef", ids[0])
            .replace("0123456789abcdee", ids[1])
        )
        ask = _server_function(web, url + RPC_URL, request_body(known, name, None), tracebacks)
        yield Target(f"{kind} {name}", changed(tuple(json.loads(text))), ask)
    named = web.get(f"{url}/gradio_api/info").json()["named_endpoints"]
    for name in named:
        data = changed(_ARGUMENTS.get(name, ([],)))
        yield Target(f"{kind} {name}", data, _endpoint(web, url, name, tracebacks))
    bodies = {"component_server": request_body(known, "sieve_open", ""), **_BODIES}
    for route, whole in bodies.items():
        ask = _envelope(web, f"{url}/gradio_api/{route}", tracebacks)
        yield Target(f"{kind} body of {route}", changed((whole,)), ask)


def _body(value: Any) -> bytes:
    return json.dumps(value).encode()


def _fault(answer: httpx.Response, tracebacks: list[str], begun: float) -> str:
    """Return the fault of a response, or an empty string."""
    logged, tracebacks[:] = list(tracebacks), []
    if answer.status_code >= 500:
        return f"status {answer.status_code} {logged[:1]}"
    if logged:
        return f"logged {logged[0]}"
    if "Traceback" in answer.text or 'File "' in answer.text:
        return f"traceback in the answer {answer.text[:100]}"
    if time.monotonic() - begun > SLOW:
        return f"took {time.monotonic() - begun:.0f} s"
    return ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _server_function(
    web: httpx.Client, post: str, fields: dict[str, Any], tracebacks: list[str]
) -> Callable[[Any], str]:
    def ask(value: Any) -> str:
        begun = time.monotonic()
        answer = web.post(post, content=_body({**fields, "data": value}), headers=_JSON)
        if fault := _fault(answer, tracebacks, begun):
            return FAULT + fault
        if answer.status_code != 200:
            return f"status {answer.status_code}"
        parsed = json.loads(answer.text, parse_constant=_refuse)
        line = parsed.get("error") if isinstance(parsed, dict) else None
        if line is None:
            return "answered"
        if INTERNAL_ERROR in str(line) or "\n" in str(line):
            return f"{FAULT}{line}"
        return "one-line error"

    return ask


def _endpoint(
    web: httpx.Client, url: str, name: str, tracebacks: list[str]
) -> Callable[[Any], str]:
    def ask(value: Any) -> str:
        begun = time.monotonic()
        path = f"{url}/gradio_api/call{name}"
        begin = web.post(path, content=_body({"data": value}), headers=_JSON)
        if fault := _fault(begin, tracebacks, begun):
            return FAULT + fault
        if begin.status_code != 200:
            return f"status {begin.status_code}"
        answer = web.get(f"{path}/{begin.json()['event_id']}")
        if fault := _fault(answer, tracebacks, begun):
            return FAULT + fault
        if "event: complete" in answer.text:
            return "answered"
        message = answer.text.partition("data: ")[2].strip()
        return "one-line error" if "\n" not in message else f"{FAULT}two lines {message[:100]}"

    return ask


def _envelope(web: httpx.Client, post: str, tracebacks: list[str]) -> Callable[[Any], str]:
    def ask(value: Any) -> str:
        begun = time.monotonic()
        answer = web.post(post, content=_body(value), headers=_JSON)
        fault = _fault(answer, tracebacks, begun)
        return FAULT + fault if fault else f"status {answer.status_code}"

    return ask


_JSON = {"content-type": "application/json"}
