"""Questions to a vLLM server: JSON there and back, by the standard library alone.

An answer may take as long as it takes. Who waits for one asks now and then whether the server is well,
so that one that died, or hangs, or whose machine is gone, is told within two minutes, in one sentence.
"""

from __future__ import annotations

import http.client
import json
import selectors
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WATCH = 60.0
"""Seconds of waiting after which a server is asked whether it is well; as many it may take to say so."""
AGAIN = "start it, and go on with --resume where the run had begun (docs/rollout.md)"
PAUSE = 1.0
"""Seconds between two looks whether a server is up."""
BROKEN = http.HTTPStatus.INTERNAL_SERVER_ERROR
"""The first status that is not the question's fault."""
TOLD = 300
"""Characters of a refusal that are passed on."""


class ServerError(RuntimeError):
    """The server gave no answer, or not the one that a run needs."""


class RefusedError(ServerError):
    """It answered with an error. `status`: of HTTP."""

    def __init__(self, told: str, status: int) -> None:
        super().__init__(told)
        self.status = status


@dataclass(frozen=True)
class Link:
    """A server, asked from any thread."""

    base_url: str

    def wait(self, seconds: float) -> None:
        """Until it is up; raises `ServerError` after some seconds."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.get("/health", patience=max(end - time.monotonic(), PAUSE))
                return
            except ServerError:
                if time.monotonic() + PAUSE > end:
                    raise
            time.sleep(PAUSE)

    def get(self, path: str, patience: float | None = None) -> Any:
        """Raises `ServerError`. `patience`: seconds in which the next piece of an answer must come."""
        return self._ask("GET", path, None, patience)

    def post(self, path: str, body: Any = None) -> Any:
        """Raises `ServerError`."""
        return self._ask("POST", path, json.dumps(body or {}).encode(), None)

    def _ask(self, method: str, path: str, body: bytes | None, patience: float | None) -> Any:
        try:
            status, raw = self._talk(method, path, body, patience)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ServerError(
                f"no answer from the vLLM server at {self.base_url} ({reason}); {AGAIN}"
            ) from error
        if status != http.HTTPStatus.OK:
            told = f"the vLLM server at {self.base_url} answers {path} with {status}: {_told(raw)}"
            raise RefusedError(f"{told}; {AGAIN}" if status >= BROKEN else told, status)
        try:
            return json.loads(raw)
        except ValueError:  # some say "done" in words, and some with nothing
            return None

    def _talk(
        self, method: str, path: str, body: bytes | None, patience: float | None
    ) -> tuple[int, bytes]:
        place = urlsplit(self.base_url)
        kind = (
            http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(place.netloc, timeout=patience)
        try:
            connection.request(
                method, place.path.rstrip("/") + path, body, {"Content-Type": "application/json"}
            )
            if patience is None:
                self._watch(connection.sock)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _watch(self, sock: Any) -> None:
        """Until an answer comes; raises `ServerError` where the server is not well."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(sock, selectors.EVENT_READ)
            while not waiting.select(WATCH):
                self.get("/health", patience=WATCH)


def _told(raw: bytes) -> str:
    """What an error says, on one line."""
    text = raw.decode(errors="replace")
    try:
        found = json.loads(text)
        text = str(found["error"]["message"] if "error" in found else found["detail"])
    except (ValueError, LookupError, TypeError):
        pass
    return " ".join(text.split())[:TOLD]
