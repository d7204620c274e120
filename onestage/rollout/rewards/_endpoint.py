"""One question to a model behind an OpenAI-compatible endpoint (POST /chat/completions).

By the standard library alone. Whatever comes back, or does not, ends in a `Reply` or in `Trouble`.
Redirects are not followed: urllib would hand the key to wherever they lead.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST = 4 << 20
"""Bytes of an answer that are read at most."""
LATER = frozenset({408, 409, 425, 429})
"""Statuses under 500 that are worth another try."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, and the tokens that the endpoint counts (0 where it does not)."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


class Trouble(Exception):
    """No reply. `sort` as in `rewards.Failure`."""

    def __init__(self, sort: str, reason: str, again: bool, after: float = 0.0) -> None:
        super().__init__(reason)
        self.sort, self.again, self.after = sort, again, after
        """`again`: whether another try may help; `after`: seconds the endpoint asks to wait."""


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


# A redirect would be sent the key.
_OPENER = urllib.request.build_opener(_Stay)


def ask(base_url: str, body: Mapping[str, Any], key: str | None, timeout: float) -> Reply:
    """Send one request; raises `Trouble`.

    `timeout`: seconds until the whole answer must be there. `key`: sent as a bearer token; it is cut
    out of every message.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        base_url.rstrip("/") + "/chat/completions",
        json.dumps(body).encode(),
        headers,
        method="POST",
    )
    end = time.monotonic() + timeout
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            raw = _read(response, end)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error, key, end) from None
    except TimeoutError:
        raise Trouble("network", f"no answer within {timeout:g} s", again=True) from None
    except (OSError, http.client.HTTPException) as error:
        # URLError wraps a timeout while connecting
        reason = getattr(error, "reason", None) or error
        told = str(reason) or type(reason).__name__
        raise Trouble("network", _without(told, key), again=True) from None
    return _reply(raw)


def _read(response: Any, end: float) -> bytes:
    """All of it, within the time: a socket's own timeout starts anew with every byte."""
    parts, size = [], 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if time.monotonic() > end:
            raise TimeoutError
        if size > LARGEST:
            raise Trouble("nonsense", f"an answer of more than {LARGEST:,} bytes", again=True)
    return b"".join(parts)


def _refused(error: urllib.error.HTTPError, key: str | None, end: float) -> Trouble:
    told = f"HTTP status {error.code}"
    try:
        text = _read(error, end)[:300].decode(errors="replace").strip()
    except (OSError, http.client.HTTPException, Trouble):
        text = ""
    if text and error.code not in (401, 403):  # such messages like to repeat a part of the key
        told += f": {_without(text, key)}"
    try:
        after = max(float(error.headers.get("Retry-After", 0)), 0.0)
    except ValueError:  # a date
        after = 0.0
    return Trouble("network", told, again=error.code >= 500 or error.code in LATER, after=after)


def _without(text: str, key: str | None) -> str:
    return text.replace(key, "***") if key else text


def _reply(raw: bytes) -> Reply:
    try:
        found = json.loads(raw)
        content = found["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        start = raw[:100].decode(errors="replace")
        raise Trouble("nonsense", f"not a chat completion: {start!r}", again=True) from None
    if isinstance(content, list):  # parts, of which some are text
        content = "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    if not isinstance(content, str):
        raise Trouble("nonsense", "a message without text", again=True)
    used = found.get("usage")
    used = used if isinstance(used, dict) else {}
    return Reply(content, _count(used, "prompt_tokens"), _count(used, "completion_tokens"))


def _count(used: Mapping[str, Any], name: str) -> int:
    value = used.get(name)
    return value if type(value) is int and value > 0 else 0
