"""Questions to a vLLM server: JSON there and back, by the standard library alone.

An answer may take as long as it takes. Who waits for one asks now and then whether the server is well,
so that one that died, or hangs, or whose machine is gone, is told within two minutes, in one sentence.
"""

from __future__ import annotations

import errno
import http.client
import json
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WATCH = 60.0
"""Seconds of waiting after which a server is asked whether it is well; as many it may take to say so."""
PLAIN = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Said with every request: vLLM takes what is not said from the folder's generation settings, and the
policy, whose answers are wanted, knows of no penalty."""
AGAIN = "start it, and go on with --resume where the run had begun (docs/rollout.md)"
STARTING = 240.0
"""Seconds that a server may take from listening to being up."""
UNHEARD = 3.0
"""Seconds after which it is told that nobody listens."""
SECONDS = "SECONDS waits for a server that is being started"
TELL = 20.0
"""Seconds of waiting from one line to the next."""
NOWHERE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
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

    def wait(
        self, seconds: float | None = None, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        """Until it is up, for some seconds, which `tell` is told of. Where none are given: as long as a
        server takes to start, if somebody listens there, and else no longer than to look again.

        Raises `ServerError`, at once for one that says it has no such thing as a state.
        """
        began, told = time.monotonic(), 0.0
        while True:
            spent = time.monotonic() - began
            most = STARTING if seconds is None else seconds
            try:
                self.get("/health", patience=max(min(most - spent, TELL), PAUSE))
                return
            except RefusedError as error:
                if error.status < BROKEN:
                    raise
                failed: ServerError = error
            except ServerError as error:
                failed = error
            alone = seconds is None and _is_nobody(failed.__cause__)
            spent = time.monotonic() - began
            if spent + PAUSE > (UNHEARD if alone else most):
                raise (
                    ServerError(f"{failed}; timeout: {SECONDS}") if alone else failed
                ) from failed
            if spent >= told and not alone:
                left = f"waits up to {most - spent:.0f} s more for it to be up"
                tell(f"{str(failed).removesuffix(f'; {AGAIN}')}; {left}")
                told = spent + TELL
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


def _is_nobody(error: BaseException | None) -> bool:
    """Whether there was nobody to take a connection."""
    if isinstance(error, ConnectionRefusedError | socket.gaierror):
        return True
    return isinstance(error, OSError) and error.errno in NOWHERE


def _told(raw: bytes) -> str:
    """What an error says, on one line."""
    text = raw.decode(errors="replace")
    try:
        found = json.loads(text)
        text = str(found["error"]["message"] if "error" in found else found["detail"])
    except (ValueError, LookupError, TypeError):
        pass
    return " ".join(text.split())[:TOLD]
