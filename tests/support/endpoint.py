"""A chat-completions endpoint on this machine that a test tells what to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Endpoint:
    """What the server has seen, and what it does next."""

    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    act: Callable[[Any, int, str], None] = lambda handler, number, text: None
    """Gets the request handler, the number of the request (from 0) and the text that was asked."""
    lock: Any = field(default_factory=threading.Lock)


def says(
    handler: Any,
    text: Any,
    tokens: tuple[int, int] = (100, 20),
    finish_reason: str = "stop",
    **more: Any,
) -> None:
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    message = {"role": "assistant", "content": text, **more}
    choice = {"message": message, "finish_reason": finish_reason}
    sends(handler, 200, json.dumps({"choices": [choice], "usage": usage}))


def sends(handler: Any, status: int, body: str, **headers: str) -> None:
    raw = body.encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    here = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with here.lock:
                number = len(here.seen)
                here.seen.append(body)
                here.headers.append(dict(self.headers))
            try:
                assert self.path == "/v1/chat/completions"
                here.act(self, number, body["messages"][0]["content"])
            except (BrokenPipeError, ConnectionResetError):
                pass  # the judge has hung up

        do_GET = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    here.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield here
    server.shutdown()
    server.server_close()
    thread.join()
