"""Text to token ids: every method trains on the same ids, because there is only this one path.

Rows, problems, prompts that are only sampled from and texts that reward models read are rendered
(`template.py`) and then tokenised here. A whole conversation is encoded at once and the characters of a
response are mapped to tokens through the tokenizer's offsets. Where a token would hold characters of
prompt and response, the two are tokenised apart and their ids joined: that is what the model sees when
it is asked, and nothing of the prompt is scored.

Of a problem, prompt and worked answer are tokenised apart and their ids joined, so that the ids of the
prompt are those that the policy continues and a hint is a beginning of the ids that supervised training
sees. A token that holds characters of two sentences belongs to the later one, so a hint never gives more
than it should.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from onestage.data._row_error import RowError
from onestage.data.dialect import TemplateError
from onestage.data.edges import first_token, token_spans
from onestage.data.encoded import Encoded, ProblemFacts
from onestage.data.kinds import FEEDBACK
from onestage.data.messages import Turns, text_of
from onestage.data.record import Record, Refusal
from onestage.data.template import NOTHING, Rendered, render, render_prompt, render_whole
from onestage.data.trees import Ids, TokenPath, same_responses, shortened
from onestage.data.workers import in_order

Overflow = Literal["drop", "truncate_prompt"]
"""What becomes of a path longer than `max_length`: it is refused, or its prompt is shortened."""

BATCH = 512
"""Records tokenised in one call."""


def encode(
    records: Iterable[Record | Refusal],
    tokenizer: Any,
    max_length: int = 1024,
    *,
    overflow: Overflow = "drop",
    room: int = 0,
) -> Iterator[Encoded | Refusal]:
    """Records as token ids, in order and lazily: `encode(read("pairs.jsonl"), tokenizer)`.

    tokenizer: a fast one of transformers, with an EOS token. max_length: of each path (a prompt with
    one response), in tokens, special ones included; what is longer comes out as a `Refusal` that is
    `overlong`, or with `overflow="truncate_prompt"` loses the beginning of its prompt. room: tokens that
    must be left for the answer to a problem. Refusals that come in go out in their place.

    Raises ValueError for a tokenizer without character offsets or without an EOS token.
    """
    return Encoder(tokenizer, max_length, overflow, room).encode_all(records)


def prompt_ids(tokenizer: Any, prompt: Turns, template: Mapping[str, Any] = NOTHING) -> Ids:
    """Ids to sample from, of a text or of messages (with `template` as extra arguments of the chat
    template): those that a problem with that prompt has.

    Raises `TemplateError`, a ValueError, where there is nothing to continue or no template for it.
    """
    rendered = render_prompt(prompt, tokenizer, template)
    return _continued(tokenizer, rendered, _tokenise(tokenizer, [rendered])[0])


def taught_ids(tokenizer: Any, about: ProblemFacts, worked: TokenPath) -> Ids:
    """Ids of a problem's prompt with its worked answer in it, which a teacher reads. Raises
    `TemplateError`."""
    solution = tokenizer.decode(worked.ids[worked.opening :], skip_special_tokens=True)
    return prompt_ids(tokenizer, about.with_solution(solution), about.template)


def whole_ids(tokenizer: Any, text: Turns, template: Mapping[str, Any] = NOTHING) -> list[int]:
    """Ids of a text or conversation that is only read, uncut. Raises `TemplateError`."""
    return _tokenise(tokenizer, [render_whole(text, tokenizer, template)])[0].ids


class _Tokens(NamedTuple):
    ids: list[int]
    encoding: Any
    """The tokenizers library's, with offsets; None of a tokenizer that has none."""


def _tokenise(tokenizer: Any, texts: Sequence[Rendered]) -> list[_Tokens]:
    """The one place where text becomes token ids, in the order of `texts`."""
    made: dict[int, _Tokens] = {}
    # Two calls: a template has written its special tokens itself, a plain text has none yet.
    for special in (True, False):
        chosen = [i for i, text in enumerate(texts) if text.special == special]
        if chosen:
            batch = tokenizer(
                [texts[i].text for i in chosen], add_special_tokens=special, verbose=False
            )
            encodings = batch.encodings or [None] * len(chosen)
            made.update(zip(chosen, map(_Tokens, batch.input_ids, encodings), strict=True))
    return [made[i] for i in range(len(texts))]


def _continued(tokenizer: Any, rendered: Rendered, tokens: _Tokens) -> Ids:
    ids = np.asarray(tokens.ids, np.int32)
    if rendered.special and len(ids) and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]  # some tokenizers end every text; a prompt is to be continued
    if not len(ids):
        raise TemplateError("the prompt has no token: there is nothing to continue")
    _check_beginning(tokenizer, ids)
    return ids


@dataclass(frozen=True, slots=True)
class Encoder:
    """How records become token ids. `max_length` bounds each path, special tokens included."""

    tokenizer: Any
    max_length: int
    overflow: Overflow = "drop"
    room: int = 0
    """Tokens that a sampled completion may have: a problem must leave room for them."""
    processes: int = 1
    """That share the work; what comes out is the same."""
    taught: Mapping[str, bool] = field(default_factory=dict)
    """Streams whose answers are also read behind a prompt that holds the solution (`taught_ids`), which
    must leave room for them, too; and whether it must for a hint."""

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
        batches = _batches(records)
        if self.processes == 1:
            return chain.from_iterable(map(self._encode_batch, batches))
        made = in_order(lambda batch: list(self._encode_batch(batch)), batches, self.processes)
        return chain.from_iterable(made)

    def encode_responses(self, records: Iterable[Record | Refusal]) -> Iterator[Encoded | Refusal]:
        """As `encode_all`; problems to solve are refused, because they have no responses yet."""
        for item in self.encode_all(records):
            if isinstance(item, Encoded) and item.is_problem:
                reason = "a problem has no response; kind: demonstration takes its worked one"
                yield Refusal(item.id, reason)
            else:
                yield item

    def encode(self, record: Record) -> Encoded | Refusal:
        """One record."""
        return next(self.encode_all([record]))

    def _encode_batch(self, batch: Sequence[Record | Refusal]) -> Iterator[Encoded | Refusal]:
        rendered = [self._rendered(item) for item in batch]
        texts = [text for _, some in rendered for text in some]
        tokens = iter(_tokenise(self.tokenizer, texts))
        for item, some in rendered:
            if isinstance(item, Refusal):
                yield item
                continue
            mine = [next(tokens) for _ in some]
            try:
                yield from self._assembled(item, some, mine)
            except TemplateError as error:
                yield Refusal(item.id, str(error))

    def _rendered(self, item: Record | Refusal) -> tuple[Record | Refusal, list[Rendered]]:
        if isinstance(item, Refusal):
            return item, []
        try:
            rendered = render(item, self.tokenizer)
            for (
                one
            ) in rendered:  # tools and arguments of a template hold texts that nobody read yet
                text_of(one.text, "what the chat template makes of it")
            return item, rendered
        except (TemplateError, RowError) as error:
            return Refusal(item.id, str(error)), []

    def _assembled(
        self, record: Record, rendered: Sequence[Rendered], tokens: Sequence[_Tokens]
    ) -> Iterable[Encoded | Refusal]:
        layout = FEEDBACK[record.kind].layout
        if layout == "problem":
            return [self._problem(record, rendered, tokens)]
        paths = [self._path(t, e) for t, e in zip(rendered, tokens, strict=True)]
        if layout == "windows":
            return self._windows(record, rendered[0], paths[0])
        return [self._responses(record, rendered, paths)]

    def _responses(
        self, record: Record, rendered: Sequence[Rendered], paths: list[TokenPath]
    ) -> Encoded | Refusal:
        cut, longest = 0, max(len(path.ids) for path in paths)
        if longest > self.max_length:
            shared = min(path.spans[0][0] for path in paths)
            fitted = self._fit(record, paths, shared, longest, f"{longest} tokens")
            if isinstance(fitted, Refusal):
                return fitted
            paths, cut = fitted
        responses = 1 + max(number for path in paths for number in path.responses)
        if FEEDBACK[record.kind].paired and same_responses(paths):
            return Refusal(record.id, "`chosen` and `rejected` are the same tokens", tie=True)
        scores = record.scores or (float("nan"),) * responses
        return Encoded(
            record.kind,
            tuple(paths),
            scores,
            record.weight,
            record.source,
            record.id,
            cut,
            weights=rendered[0].weights,
            notes=_noted(rendered),
        )

    def _path(self, rendered: Rendered, tokens: _Tokens) -> TokenPath:
        ids = np.asarray(tokens.ids, dtype=np.int32)
        end = self.tokenizer.eos_token_id
        if rendered.special and len(ids) > 1 and ids[-1] == ids[-2] == end:
            ids = ids[:-1]  # the tokenizer adds an EOS of its own behind the one we wrote
        _check_beginning(self.tokenizer, ids)
        ids, spans = token_spans(self.tokenizer, rendered, tokens.encoding, ids)
        if any(last <= first for first, last in spans):
            raise TemplateError("the response has no token of its own")
        # Without a BOS the first token has nothing in front that it could be predicted from.
        if spans[0][0] == 0:
            if spans[0][1] == 1 or len(rendered.text) > rendered.spans[0][1]:
                raise TemplateError("the first token of the sequence cannot be scored")
            spans[0] = (1, spans[0][1])
        return TokenPath(ids, tuple(spans), rendered.responses)

    def _fit(
        self, record: Record, paths: list[TokenPath], prompt: int, longest: int, what: str
    ) -> tuple[list[TokenPath], int] | Refusal:
        """Shorten the prompt, of so many tokens, from its left, the same for all paths; never a
        response. `longest`, and in words `what`: the tokens that must come to fit."""
        reason = f"{what}, more than max_length {self.max_length}"
        if self.overflow == "drop":
            return Refusal(record.id, reason, overlong=True)
        # The BOS stays. All paths lose the same tokens, so that they go on sharing their prompt.
        keep = 1 if paths[0].ids[0] == self.tokenizer.bos_token_id else 0
        cut = longest - self.max_length
        if cut > prompt - max(keep, 1):
            return Refusal(
                record.id, f"{reason}, and the prompt is too short to make room", overlong=True
            )
        return [shortened(path, keep, cut) for path in paths], cut

    def _windows(self, record: Record, rendered: Rendered, path: TokenPath) -> Iterator[Encoded]:
        """Plain text longer than `max_length` becomes several records; every token is scored once."""
        ids, begin = path.ids, path.spans[0][0]
        head = ids[:begin] if ids[0] == self.tokenizer.bos_token_id else ids[:0]
        # Where there is no BOS, the token before a window is read with it, and not scored again.
        step = self.max_length - max(len(head), 1)
        for number, start in enumerate(range(begin, len(ids), step)):
            context = head if len(head) else ids[start - 1 : start]
            piece: Ids = np.concatenate([context, ids[start : start + step]])
            window = TokenPath(piece, ((len(context), len(piece)),), (0,))
            name = record.id if len(ids) <= self.max_length else f"{record.id}#{number}"
            notes = () if number else rendered.notes  # of the whole text
            yield Encoded(
                *(record.kind, (window,), (float("nan"),), record.weight, record.source, name),
                notes=notes,
            )

    def _problem(
        self, record: Record, rendered: Sequence[Rendered], tokens: Sequence[_Tokens]
    ) -> Encoded | Refusal:
        """What must fit is the worked answer, and a completion of `room` tokens behind the prompt or
        behind the longest hint. A reward is told the whole prompt, also of one that was shortened."""
        prompt = _continued(self.tokenizer, rendered[0], tokens[0])
        paths = [TokenPath(prompt, (), ())]
        paths += [_worked(prompt, t, e) for t, e in zip(rendered[1:], tokens[1:], strict=True)]
        # The last span is what follows the last sentence: no hint reaches into it.
        hinted = paths[-1].spans[-1][0] if record.solution else len(prompt)
        cut, longest = 0, max(hinted + self.room, len(paths[-1].ids))
        if longest > self.max_length:
            behind = f"a completion of {self.room} tokens behind prompt and longest hint"
            what = "its worked answer" if longest == len(paths[-1].ids) else behind
            what = f"with {what} it has {longest} tokens"
            fitted = self._fit(record, paths, len(prompt), longest, what)
            if isinstance(fitted, Refusal):
                return fitted
            paths, cut = fitted
        turns = () if isinstance(record.prompt, str) else record.prompt
        facts = ProblemFacts(rendered[0].text, turns, record.facts, record.template)
        if record.source in self.taught and len(paths) > 1:
            read = len(taught_ids(self.tokenizer, facts, paths[1])) + self.room
            read += hinted - len(prompt) if self.taught[record.source] else 0
            if read > self.max_length:
                return self._too_long_to_read(record, read)
        return Encoded(
            record.kind,
            tuple(paths),
            (),
            record.weight,
            record.source,
            record.id,
            cut,
            facts.dump(),
            notes=_noted(rendered),
        )

    def _too_long_to_read(self, record: Record, longest: int) -> Refusal:
        # Of a prompt that was shortened a teacher would read another problem.
        reason = (
            f"with a completion of {self.room} tokens behind the prompt that holds its solution, as a "
            f"teacher reads it, it has {longest} tokens, more than max_length {self.max_length}"
        )
        return Refusal(record.id, reason, overlong=True)


def _batches(records: Iterable[Record | Refusal]) -> Iterator[list[Record | Refusal]]:
    source = iter(records)
    while batch := list(islice(source, BATCH)):
        yield batch


def _noted(rendered: Sequence[Rendered]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for text in rendered for note in text.notes))


def _check_beginning(tokenizer: Any, ids: Ids) -> None:
    begin = tokenizer.bos_token_id
    if begin is not None and len(ids) > 1 and ids[0] == ids[1] == begin:
        raise TemplateError(
            f"it begins with {tokenizer.bos_token!r} twice: the tokenizer or the chat template writes "
            "it, so take it out of the row's own text"
        )


def _worked(prompt: Ids, rendered: Rendered, tokens: _Tokens) -> TokenPath:
    """Prompt and worked answer; a span for each sentence, and one for what follows the last."""
    ids, length = np.asarray(tokens.ids, np.int32), len(rendered.text)
    encoding, offsets = tokens.encoding, tokens.encoding.offsets
    ends = {first_token(encoding, offsets, end, length) for _, end in rendered.spans}
    edges = sorted({0, *ends, len(ids)})
    spans = tuple((len(prompt) + a, len(prompt) + b) for a, b in pairwise(edges))
    return TokenPath(np.concatenate([prompt, ids]), spans, (0,) * len(spans))
