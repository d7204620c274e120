"""A hub on a port of this machine, as huggingface_hub 2.4 asks one to make a repository and to commit.

There is no network in the tests: what goes out is what this receives, over HTTP, from the library.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".gguf")
"""Files that go by large file storage, in two steps."""


@dataclass
class Hub:
    """What has arrived."""

    url: str = ""
    made: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large ones, by their hash."""
    summary: str = ""
    tokens: set[str] = field(default_factory=set)
    refuses: int = 0
    """A status with which everything is answered."""

    def answer(self, method: str, path: str, raw: bytes) -> tuple[int, Any]:
        place = path.partition("?")[0]
        if self.refuses:
            return self.refuses, {"error": "you may not write here"}
        if method == "PUT":
            self.stored[place.rpartition("/")[2]] = raw
            return 200, {}
        if place == "/api/repos/create":
            self.made.append(json.loads(raw))
            return 200, {"url": f"{self.url}/me/mine"}
        if place == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in place:
            return 200, {"files": [self._how(one) for one in json.loads(raw)["files"]]}
        if place.endswith("/info/lfs/objects/batch"):
            told = [self._upload(one) for one in json.loads(raw)["objects"]]
            return 200, {"transfer": "basic", "objects": told}
        if "/commit/" in place:
            self._commit([json.loads(line) for line in raw.splitlines()])
            return 200, {"commitUrl": f"{self.url}/me/mine/commit/1", "commitOid": "1" * 40}
        return 404, {"error": f"{method} {path}"}

    def _how(self, one: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if one["path"].endswith(LARGE) else "regular"
        return {"path": one["path"], "uploadMode": mode, "shouldIgnore": False}

    def _upload(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.url}/store/{one['oid']}"}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            told = line["value"]
            if line["key"] == "header":
                self.summary = told["summary"]
            elif line["key"] == "file":
                self.files[told["path"]] = base64.b64decode(told["content"])
            else:
                content = self.stored[told["oid"]]
                assert hashlib.sha256(content).hexdigest() == told["oid"]
                self.files[told["path"]] = content


@contextmanager
def a_hub(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            raw = self._body()
            hub.tokens.add(self.headers.get("Authorization", ""))
            status, told = hub.answer(self.command, self.path, raw)
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = do_HEAD = _answer

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
