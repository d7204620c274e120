"""Text to token ids: every method trains on the same ids, because there is only this one path.

A whole conversation is encoded at once and the characters of a response are mapped to tokens through
the tokenizer's offsets, so no token is split or doubled at the border of prompt and response. A
token that holds characters of both sides counts as the response's.

A checkable problem to token ids: a prompt to sample from, and a worked answer to take hints from.

Prompt and answer are tokenised apart and their ids joined, so that the ids of the prompt are those that
the policy continues and a hint is a beginning of the ids that supervised training sees. A token that
holds characters of two sentences belongs to the later one, so a hint never gives more than it should.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Literal

import numpy as np

from onestage.data.encoded import Encoded, first_token
from onestage.data.record import Kind, Record, Refusal
from onestage.data.template import Rendered, TemplateError, generation_prompt, render, response_text
from onestage.data.trees import Ids, TokenPath

Overflow = Literal["drop", "truncate_prompt"]
"""What becomes of a path longer than `max_length`: it is refused, or its prompt is shortened."""


BATCH = 512
"""Records tokenised in one call."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """How records become token ids. `max_length` bounds each path, special tokens included."""

    tokenizer: Any
    max_length: int
    overflow: Overflow = "drop"
    room: int = 0
    """Tokens that a sampled completion may have: a `check` record must leave room for them."""

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "is_fast", False):
            raise ValueError(
                f"{type(self.tokenizer).__name__} gives no character offsets; "
                "a fast tokenizer (tokenizer.json) is needed"
            )
        if self.tokenizer.eos_token is None:
            raise ValueError("the tokenizer has no EOS token: no response could ever end")

    def encode_all(self, records: Iterable[Record | Refusal]) -> Iterator[Encoded | Refusal]:
        """Encoded records in order; what cannot be encoded comes out as a `Refusal`."""
        source = iter(records)
        while batch := list(islice(source, BATCH)):
            yield from self._encode_batch(batch)

    def encode_responses(self, records: Iterable[Record | Refusal]) -> Iterator[Encoded | Refusal]:
        """As `encode_all`; problems to solve are refused, because they have no responses yet."""
        for item in self.encode_all(records):
            if isinstance(item, Encoded) and item.asks:
                reason = "a problem has no response; kind: demonstration takes its worked one"
                yield Refusal(item.id, reason)
            else:
                yield item

    def encode(self, record: Record) -> Encoded | Refusal:
        """One record."""
        return next(self.encode_all([record]))

    def _encode_batch(self, batch: Sequence[Record | Refusal]) -> Iterator[Encoded | Refusal]:
        rendered: list[list[Rendered] | Refusal] = []
        for record in batch:
            if isinstance(record, Refusal) or record.kind == "check":
                rendered.append([] if isinstance(record, Record) else record)
                continue
            try:
                rendered.append(render(record, self.tokenizer))
            except TemplateError as error:
                rendered.append(Refusal(record.id, str(error)))
        tokens = self._tokenise(
            [t for item in rendered if not isinstance(item, Refusal) for t in item]
        )
        for record, item in zip(batch, rendered, strict=True):
            if isinstance(item, Refusal) or isinstance(record, Refusal):
                yield item if isinstance(item, Refusal) else record  # type: ignore[misc]
                continue
            if record.kind == "check":
                yield encode_check(record, self.tokenizer, self.max_length, self.room)
                continue
            encodings = [next(tokens) for _ in item]
            yield from self._assemble(record, item, encodings)

    def _tokenise(self, texts: Sequence[Rendered]) -> Iterator[Any]:
        """Encodings (the tokenizers library's) in the order of `texts`."""
        made: dict[int, Any] = {}
        for special in (True, False):
            chosen = [i for i, text in enumerate(texts) if text.special == special]
            if chosen:
                batch = self.tokenizer(
                    [texts[i].text for i in chosen], add_special_tokens=special, verbose=False
                )
                made.update(zip(chosen, batch.encodings, strict=True))
        return iter([made[i] for i in range(len(texts))])

    def _assemble(
        self, record: Record, rendered: Sequence[Rendered], encodings: Sequence[Any]
    ) -> Iterator[Encoded | Refusal]:
        try:
            paths = [self._path(t, e) for t, e in zip(rendered, encodings, strict=True)]
        except TemplateError as error:
            yield Refusal(record.id, str(error))
            return
        if record.kind == "text":
            yield from self._windows(record, paths[0])
            return
        paths = _numbered(record.kind, paths)
        cut = 0
        longest = max(len(path.ids) for path in paths)
        if longest > self.max_length:
            fitted = self._fit(record, paths, longest)
            if isinstance(fitted, Refusal):
                yield fitted
                return
            paths, cut = fitted
        responses = 1 + max(number for path in paths for number in path.responses)
        scores = record.scores or (float("nan"),) * responses
        yield Encoded(
            record.kind, tuple(paths), scores, record.weight, record.source, record.id, cut
        )

    def _path(self, rendered: Rendered, encoding: Any) -> TokenPath:
        ids = np.asarray(encoding.ids, dtype=np.int32)
        end = self.tokenizer.eos_token_id
        if rendered.special and len(ids) > 1 and ids[-1] == ids[-2] == end:
            ids = ids[:-1]  # the tokenizer adds an EOS of its own behind the one we wrote
        offsets = encoding.offsets
        spans = []
        for start, stop in rendered.spans:
            first = first_token(encoding, offsets, start, stop)
            last = first_token(encoding, offsets, stop, len(rendered.text))
            last = min(last, len(ids))
            if last <= first:
                raise TemplateError("the response has no token of its own")
            spans.append((first, last))
        if spans[0][0] == 0:
            if spans[0][1] == 1 or len(rendered.text) > rendered.spans[0][1]:
                raise TemplateError("the first token of the sequence cannot be scored")
            spans[0] = (1, spans[0][1])
        return TokenPath(ids, tuple(spans), tuple(range(len(spans))))

    def _fit(
        self, record: Record, paths: list[TokenPath], longest: int
    ) -> tuple[list[TokenPath], int] | Refusal:
        """Shorten the prompt from its left, the same for all paths; never a response."""
        reason = f"{longest} tokens, more than max_length {self.max_length}"
        if self.overflow == "drop":
            return Refusal(record.id, reason, overlong=True)
        keep = 1 if paths[0].ids[0] == self.tokenizer.bos_token_id else 0
        cut = longest - self.max_length
        if cut > min(path.spans[0][0] for path in paths) - max(keep, 1):
            return Refusal(
                record.id, f"{reason}, and the prompt is too short to make room", overlong=True
            )
        return [_shortened(path, keep, cut) for path in paths], cut

    def _windows(self, record: Record, path: TokenPath) -> Iterator[Encoded]:
        """Plain text longer than `max_length` becomes several records; every token is scored once."""
        ids, begin = path.ids, path.spans[0][0]
        head = ids[:begin] if ids[0] == self.tokenizer.bos_token_id else ids[:0]
        step = self.max_length - max(len(head), 1)
        for number, start in enumerate(range(begin, len(ids), step)):
            context = head if len(head) else ids[start - 1 : start]
            piece: Ids = np.concatenate([context, ids[start : start + step]])
            span = (len(context), len(piece))
            name = record.id if len(ids) <= self.max_length else f"{record.id}#{number}"
            yield Encoded(
                "text",
                (TokenPath(piece, (span,), (0,)),),
                (float("nan"),),
                record.weight,
                record.source,
                name,
            )


def _numbered(kind: Kind, paths: Sequence[TokenPath]) -> list[TokenPath]:
    """Demonstrations: each turn is a response. Other kinds: each completion is one response."""
    if kind == "demonstration":
        return list(paths)
    return [
        TokenPath(path.ids, path.spans, (number,) * len(path.spans))
        for number, path in enumerate(paths)
    ]


def _shortened(path: TokenPath, keep: int, cut: int) -> TokenPath:
    ids = np.concatenate([path.ids[:keep], path.ids[keep + cut :]])
    return TokenPath(ids, tuple((a - cut, b - cut) for a, b in path.spans), path.responses)


@dataclass(frozen=True, slots=True)
class About:
    """What a reward is told about a problem; kept as JSON in the store."""

    prompt: str
    """As the model sees it, chat template applied."""
    turns: tuple[Mapping[str, Any], ...]
    """The prompt as messages, if it is any."""
    facts: Mapping[str, Any]

    def dump(self) -> str:
        content = {"prompt": self.prompt, "turns": list(self.turns), "facts": dict(self.facts)}
        return json.dumps(content, default=str)

    @staticmethod
    def load(text: str) -> About:
        content = json.loads(text)
        return About(content["prompt"], tuple(content["turns"]), content["facts"])


def encode_check(record: Record, tokenizer: Any, max_length: int, room: int) -> Encoded | Refusal:
    """The record as paths (`Encoded`); refused where prompt, worked answer or a completion of `room`
    tokens behind either the prompt or the longest hint would exceed `max_length`."""
    try:
        text, special = generation_prompt(record, tokenizer)
        prompt = prompt_ids(tokenizer, text, special=special)
        paths = [TokenPath(prompt, (), ())]
        if record.completions or record.solution:
            paths.append(_worked(record, prompt, tokenizer))
    except TemplateError as error:
        return Refusal(record.id, str(error))
    hinted = paths[-1].spans[-1][0] if record.solution else len(prompt)
    longest = max(hinted + room, len(paths[-1].ids))
    if longest > max_length:
        behind = f"a completion of {room} tokens behind prompt and longest hint"
        what = "its worked answer" if longest == len(paths[-1].ids) else behind
        reason = f"with {what} it has {longest} tokens, more than max_length {max_length}"
        return Refusal(record.id, reason, overlong=True)
    turns = () if isinstance(record.prompt, str) else record.prompt
    return Encoded(
        kind="check",
        paths=tuple(paths),
        scores=(),
        weight=record.weight,
        source=record.source,
        id=record.id,
        about=About(text, turns, record.facts).dump(),
    )


def prompt_ids(tokenizer: Any, text: str, *, special: bool) -> Ids:
    """Ids to sample from. `special`: whether the tokenizer is to add its own special tokens."""
    ids = np.asarray(tokenizer(text, add_special_tokens=special, verbose=False).input_ids, np.int32)
    if special and len(ids) and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]  # some tokenizers end every text; a prompt is to be continued
    if not len(ids):
        raise TemplateError("the prompt has no token: there is nothing to continue")
    return ids


def _worked(record: Record, prompt: Ids, tokenizer: Any) -> TokenPath:
    """Prompt and worked answer; a span for each sentence, and one for what follows the last."""
    solution = "".join(record.solution)
    text = response_text(record, solution, tokenizer)
    encoding = tokenizer(text, add_special_tokens=False, verbose=False).encodings[0]
    ids = np.asarray(encoding.ids, np.int32)
    at, starts = 0, [0]
    for sentence in record.solution:
        at += len(sentence)
        starts.append(first_token(encoding, encoding.offsets, at, len(text)))
    edges = sorted({*starts, len(ids)})
    spans = tuple((len(prompt) + a, len(prompt) + b) for a, b in pairwise(edges))
    return TokenPath(np.concatenate([prompt, ids]), spans, (0,) * len(spans))
