"""A server that speaks what huggingface_hub asks of a hub, for tests without a network.

It serves one repository from a folder, a model's or a dataset's: its revisions, the list of its files, and the files with
ranges. Faults are set by attributes: a status for every request, an error code that the Hub sends, a cut after some bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "a" * 40
LARGE = (".safetensors", ".parquet", ".png")
"""Endings of files that Git LFS keeps."""


class Hub:
    """The state of the server."""

    def __init__(self, folder: Path, repo: str = "org/model", kind: str = "models") -> None:
        self.folder, self.repo, self.kind = folder, repo, kind
        self.commit = COMMIT
        """What the branch `main` points to."""
        self.token = ""
        """Required in requests; empty for none."""
        self.status, self.code = 0, ""
        """Status and error code that every request is answered with; 0 for none."""
        self.cut = 0
        """Bytes after which a file's connection is closed; 0 for none."""
        self.rotten: set[str] = set()
        """Files that are sent with another last byte than the Hub states."""
        self.requests: list[str] = []
        """Method, path and range of every request."""
        self.added: list[str] = []
        """Names that the list of files has besides; they have the content of no file."""
        self.url = ""

    @property
    def page(self) -> str:
        """Path of the repository, below which its files are."""
        return f"/{self.repo}" if self.kind == "models" else f"/{self.kind}/{self.repo}"

    def environment(self, home: Path) -> dict[str, str]:
        """The variables that send huggingface_hub here."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if hub.status:
            return self._error(hub.status, hub.code)
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._error(401, "GatedRepo")
        if path.startswith(f"/api/{hub.kind}/{hub.repo}"):
            return self._about(path)
        if not path.startswith(hub.page):
            return self._error(404, "RepoNotFound")
        found = re.fullmatch(rf"{hub.page}/resolve/([^/]+)/(.+)", path)
        if found is None or not (hub.folder / found[2]).is_file():
            return self._error(404, "EntryNotFound")
        return self._file(hub.folder / found[2], body)

    def _about(self, path: str) -> None:
        hub = self.hub
        _, _, rest = path.partition(f"/api/{hub.kind}/{hub.repo}")
        kind, _, revision = rest.strip("/").partition("/")
        if revision and revision.split("/")[0] not in ("main", hub.commit):
            return self._error(404, "RevisionNotFound")
        files = sorted(file for file in hub.folder.rglob("*") if file.is_file())
        names = [str(file.relative_to(hub.folder)) for file in files]
        siblings = [_stated(name, file) for name, file in zip(names, files, strict=True)]
        siblings += [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in hub.added]
        if kind == "tree":
            return self._json([_of_tree(each) for each in siblings])
        return self._json({"id": hub.repo, "sha": hub.commit, "siblings": siblings})

    def _file(self, file: Path, body: bool) -> None:
        data = file.read_bytes()
        if file.name in self.hub.rotten:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{_etag(file)}"')
        self.send_header("X-Linked-Etag", f'"{_etag(file)}"')
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.end_headers()
        if body and self.hub.cut and len(data) - start > self.hub.cut:
            self.wfile.write(data[start : start + self.hub.cut])
            self.close_connection = True
        elif body:
            self.wfile.write(data[start:])

    def _json(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _stated(name: str, file: Path) -> dict[str, Any]:
    """What the Hub states of a file: git's hash, or the SHA-256 of one that Git LFS keeps."""
    data = file.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    large = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    kept = {"lfs": large} if file.suffix in LARGE else {}
    return {"rfilename": name, "size": len(data), "blobId": git, **kept}


def _of_tree(stated: Mapping[str, Any]) -> dict[str, object]:
    """The same as the list of a tree has it."""
    made = {"type": "file", "path": stated["rfilename"], "size": stated["size"], "oid": stated["blobId"]}
    if "lfs" not in stated:
        return made
    large = stated["lfs"]
    return made | {"lfs": {"oid": large["sha256"], "size": large["size"], "pointerSize": large["pointerSize"]}}


def _etag(file: Path) -> str:
    stated = _stated(file.name, file)
    return str(stated["lfs"]["sha256"] if "lfs" in stated else stated["blobId"])


@contextlib.contextmanager
def serving(folder: Path, repo: str = "org/model", kind: str = "models") -> Iterator[Hub]:
    """A hub on a free port of the loopback interface that serves a folder. kind: models or datasets."""
    hub = Hub(folder, repo, kind)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def redirect(monkeypatch: pytest.MonkeyPatch, hub: Hub, cache: Path) -> None:
    """Sends huggingface_hub, as this process has imported it, to a hub, with another cache."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
