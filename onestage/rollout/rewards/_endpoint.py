"""One question to a model behind an OpenAI-compatible endpoint (POST /chat/completions).

By the standard library alone. Whatever comes back, or does not, ends in a `Reply` or in `Trouble`.
Redirects are not followed: urllib would hand the key to wherever they lead. What was paid for is a
`Reply` also where it is of no use: refused, filtered, cut at the limit of tokens.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
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
CUT = "cut at the limit of tokens"
_SPENT = "insufficient_quota"
"""What OpenAI's status 429 holds where no waiting helps."""
_OTHER_NAME = "max_completion_tokens"
"""What OpenAI's newer models want instead of `max_tokens`; others do not know it."""
_renamed: set[tuple[str, str]] = set()
"""Address and model of those that have asked for the other name."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, and the tokens that the endpoint counts (0 where it does not)."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    lacks: str = ""
    """Why it is not whole, or not there: `CUT`, refused, filtered."""

    @property
    def said(self) -> str:
        """Without a last line that may go on: `Score: 1` may be the beginning of 10."""
        return self.text.rpartition("\n")[0] if self.lacks else self.text


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
    asked = (base_url, str(body.get("model")))
    if asked not in _renamed:
        try:
            return _reply(_sent(base_url, body, key, timeout))
        except Trouble as trouble:
            if trouble.again or "max_tokens" not in body or _OTHER_NAME not in str(trouble):
                raise
            _renamed.add(asked)
    other = {(_OTHER_NAME if name == "max_tokens" else name): body[name] for name in body}
    return _reply(_sent(base_url, other, key, timeout))


def _sent(base_url: str, body: Mapping[str, Any], key: str | None, timeout: float) -> bytes:
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
            return _read(response, end)
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
    again = (error.code >= 500 or error.code in LATER) and _SPENT not in text
    after = _asked_wait(error.headers)
    return Trouble("network", told + f" (wait {after:.0f} s)" * (after >= 1), again, after)


def _asked_wait(headers: Any) -> float:
    """Seconds that an endpoint asks to wait: told as a number or as a date (RFC 9110)."""
    told = headers.get("Retry-After") or "0"
    try:
        return max(float(told), 0.0) if math.isfinite(float(told)) else 0.0
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(told).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _without(text: str, key: str | None) -> str:
    return text.replace(key, "***") if key else text


def _reply(raw: bytes) -> Reply:
    try:
        found = _streamed(raw) or json.loads(raw)
        choice = found["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        start = raw[:100].decode(errors="replace")
        raise Trouble("nonsense", f"not a chat completion: {start!r}", again=True) from None
    if isinstance(content, list):  # parts, of which some are text
        content = "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    text = content if isinstance(content, str) else ""
    used = found.get("usage")
    used = used if isinstance(used, dict) else {}
    lacks = _lacking(choice, message, text)
    return Reply(text, _count(used, "prompt_tokens"), _count(used, "completion_tokens"), lacks)


def _lacking(choice: Mapping[str, Any], message: Mapping[str, Any], text: str) -> str:
    why = choice.get("finish_reason")
    if why == "length":
        return CUT
    if why == "content_filter":
        return "stopped by the endpoint's content filter"
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return f"refused: {message['refusal'][:200]!r}"
    return "" if text else "a message without text"


def _streamed(raw: bytes) -> dict[str, Any] | None:
    """A stream of events as the one answer that it tells in parts; None for other answers. Some
    endpoints stream whether they are asked to or not."""
    lines = [line.strip() for line in raw.splitlines()]
    told = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    if not told or next(line for line in lines if line)[:1] not in b"de:i":  # data, event, id, ":"
        return None
    text, last, used = "", None, None
    for part in map(json.loads, told[:-1] if told[-1] == b"[DONE]" else told):
        used = part.get("usage") or used
        for choice in part["choices"][:1]:
            text += (choice.get("delta") or {}).get("content") or ""
            last = choice.get("finish_reason") or last
    if last is None and told[-1] != b"[DONE]":
        raise Trouble("network", "the stream broke off", again=True)
    return {"choices": [{"message": {"content": text}, "finish_reason": last}], "usage": used}


def _count(used: Mapping[str, Any], name: str) -> int:
    value = used.get(name)
    return value if type(value) is int and value > 0 else 0
