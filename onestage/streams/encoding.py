"""Text to token ids: every method trains on the same ids, because there is only this one path.

A whole conversation is encoded at once and the characters of a response are mapped to tokens through
the tokenizer's offsets, so no token is split or doubled at the border of prompt and response. A
token that holds characters of both sides counts as the response's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from onestage.forest.trees import Ids, Path
from onestage.records.record import Kind, Record, Refusal
from onestage.streams.checks import encode_check
from onestage.streams.encoded import Encoded, first_token
from onestage.streams.template import Rendered, TemplateError, render

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

    def _path(self, rendered: Rendered, encoding: Any) -> Path:
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
        return Path(ids, tuple(spans), tuple(range(len(spans))))

    def _fit(
        self, record: Record, paths: list[Path], longest: int
    ) -> tuple[list[Path], int] | Refusal:
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

    def _windows(self, record: Record, path: Path) -> Iterator[Encoded]:
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
                (Path(piece, (span,), (0,)),),
                (float("nan"),),
                record.weight,
                record.source,
                name,
            )


def _numbered(kind: Kind, paths: Sequence[Path]) -> list[Path]:
    """Demonstrations: each turn is a response. Other kinds: each completion is one response."""
    if kind == "demonstration":
        return list(paths)
    return [
        Path(path.ids, path.spans, (number,) * len(path.spans)) for number, path in enumerate(paths)
    ]


def _shortened(path: Path, keep: int, cut: int) -> Path:
    ids = np.concatenate([path.ids[:keep], path.ids[keep + cut :]])
    return Path(ids, tuple((a - cut, b - cut) for a, b in path.spans), path.responses)
