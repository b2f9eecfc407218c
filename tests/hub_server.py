"""A local server that speaks the calls of the Hugging Face Hub that huggingface_hub makes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

TOKEN = "hf_secret"
_LARGE = (".safetensors", ".npy", ".parquet", ".zip")
_API = re.compile(r"/api/(model|dataset)s/([\w.-]+/[\w.-]+)(?:/(\w+)(?:/([^/?]+)(?:/([^?]+))?)?)?")
_FILE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
_BATCH = re.compile(r"/(?:datasets/)?[\w.-]+/[\w.-]+\.git/info/lfs/objects/batch")
Files = dict[str, bytes]


class HubServer(ThreadingHTTPServer):
    """Repositories in memory, and the faults that tests ask for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.branches: dict[tuple[str, str], dict[str, str]] = {}
        self.commits: dict[str, Files] = {}
        self.uploads: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.cut: set[str] = set()
        """Files whose next download breaks off in the middle."""
        self.changed: set[str] = set()
        """Files of which one byte changes on the way."""
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and Range of each request."""

    def files(self, kind: str, repository: str, revision: str = "main") -> Files:
        """Return the files of a branch."""
        return self.commits[self.branches[kind, repository][revision]]

    def commit(self, kind: str, repository: str, files: Files, branch: str = "main") -> str:
        """Set the files of a branch; return the commit."""
        content = b"".join(name.encode() + data for name, data in sorted(files.items()))
        oid = hashlib.sha1(content + repository.encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.branches.setdefault((kind, repository), {})[branch] = oid
        return oid


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.path == "/api/validate-yaml":
            return self.reply({})
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            kind, name = wanted["type"], f"{wanted['organization']}/{wanted['name']}"
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.reply({"error": "log in"}, 401)
            if (kind, name) in hub.branches:
                return self.reply({"url": f"{hub.url}/{name}"}, 409)
            hub.commit(kind, name, {})
            if wanted.get("private") or wanted.get("visibility") == "private":
                hub.private.add(name)
            return self.reply({"url": f"{hub.url}/{name}"})
        if _BATCH.match(self.path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.reply({"transfer": "basic", "objects": objects})
        if self.path.startswith("/upload/"):
            hub.uploads[hashlib.sha256(body).hexdigest()] = body
            return self.reply({})
        if found := _FILE.match(self.path):
            kind, (_, name, revision, file) = "dataset" if found[1] else "model", found.groups()
            return self.repository(kind, name, revision, lambda oid: self.send_file(oid, file))
        if not (found := _API.match(self.path)):
            return self.reply({}, 404)
        kind, name, what, revision, folder = found.groups()
        if what == "branch":
            hub.branches[kind, name].setdefault(revision, hub.branches[kind, name]["main"])
            return self.reply({})
        answer = {
            None: lambda oid: self.reply({"id": name, "sha": oid, "siblings": []}),
            "revision": lambda oid: self.reply({"id": name, "sha": oid, "siblings": []}),
            "tree": lambda oid: self.reply(_tree(hub.commits[oid], folder or "", self.path)),
            "preupload": lambda _: self.reply(
                {"files": [_mode(f) for f in json.loads(body)["files"]]}
            ),
            "commit": lambda oid: self.add_commit(kind, name, revision, oid, body),
        }[what]
        return self.repository(kind, name, revision or "main", answer)

    do_HEAD = do_POST = do_PUT = do_GET

    def repository(self, kind: str, name: str, revision: str, answer: Any) -> None:
        """Answer with a commit of a repository, or say why it is not accessible."""
        hub = self.server
        branches = hub.branches.get((kind, name))
        knows = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name in hub.gated and not knows:
            return self.reply({}, 403, **{"X-Error-Code": "GatedRepo"})
        if branches is None or (name in hub.private and not knows):
            return self.reply({}, 404 if knows else 401, **{"X-Error-Code": "RepoNotFound"})
        oid = branches.get(revision, revision)
        if oid not in hub.commits:
            return self.reply({}, 404, **{"X-Error-Code": "RevisionNotFound"})
        return answer(oid)

    def add_commit(self, kind: str, name: str, branch: str, oid: str, body: bytes) -> None:
        hub, files = self.server, dict(self.server.commits[oid])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = hub.uploads[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        made = hub.commit(kind, name, files, branch)
        self.reply({"commitOid": made, "commitUrl": f"{hub.url}/{name}/commit/{made}"})

    def send_file(self, oid: str, name: str) -> None:
        hub = self.server
        if name not in hub.commits[oid]:
            return self.reply({}, 404, **{"X-Error-Code": "EntryNotFound"})
        data, entry = hub.commits[oid][name], _entry(name, hub.commits[oid][name])
        etag = entry.get("lfs", entry)["oid"]
        if name in hub.changed:
            data = bytes([data[0] ^ 1]) + data[1:]
        given = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(given[1]) if given else 0
        facts = {"ETag": f'"{etag}"', "X-Repo-Commit": oid}
        if given:
            facts["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_head(206 if given else 200, len(data) - start, facts)
        if self.command == "HEAD":
            return None
        if name in hub.cut:
            hub.cut.remove(name)
            self.wfile.write(data[start : (start + len(data)) // 2])
            self.close_connection = True
            return None
        self.wfile.write(data[start:])
        return None

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_head(status, len(data), {"Content-Type": "application/json", **headers})
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(key, value)
        self.end_headers()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": blob}
    if name.endswith(_LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
    return entry


def _tree(files: Files, folder: str, query: str) -> list[dict[str, Any]]:
    prefix, entries = f"{folder}/" if folder else "", {}
    for name, data in files.items():
        inside = name.removeprefix(prefix)
        if name.startswith(prefix) and ("recursive=true" in query or "/" not in inside):
            entries[name] = _entry(name, data)
        elif name.startswith(prefix):
            path = prefix + inside.partition("/")[0]
            entries[path] = {"type": "directory", "path": path, "oid": "0" * 40}
    return list(entries.values())


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(_LARGE) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub without repositories, an empty cache, and a token that it accepts."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
