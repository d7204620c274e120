"""One's own texts: how well a model foresees them, and how far it has moved from its base on them.

`loss` is nats a token, `perplexity` its exponential, `bits_per_byte` can be compared between models of
other tokenizers. The first token of what is read at once is given and not foreseen, so none of the three
counts it, nor its bytes. `kl` is KL(base || model), nats a token, over the whole vocabulary: what is
called forgetting follows it (Shenfeld et al. 2025, arXiv 2509.04259). A text longer than `max_length` is
read in parts, each without what was before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from onestage.data._row_error import RowError
from onestage.data.packing import pack
from onestage.data.raw import RawRow
from onestage.data.rows import arguments_of
from onestage.data.sharegpt import with_system
from onestage.data.tokenize import whole_ids
from onestage.data.trees import TokenPath
from onestage.rollout.rewards import Failure
from onestage.rollout.suites import Content, Item, Scores, Subject, Suite, _files
from onestage.rollout.suites._subject import TOKENS_PER_ROW
from onestage.stats import Estimate, Weighted

ALPHABET = frozenset(ByteLevel.alphabet())
"""The characters that stand for bytes in tokens."""


@dataclass(frozen=True)
class Text(Suite):
    path: str | None = None
    """Rows with `text`, read as it stands, or `messages` (and `system`), which go through the chat
    template."""
    max_length: int = 1024
    """Tokens that are read at once."""

    headline: ClassVar[str] = "perplexity"
    uses_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {self.max_length}")

    def items(self, chat: bool) -> list[Item]:
        found = []
        for number, row in enumerate(_files.rows("text", self.path, self.data, ("text",), None)):
            text = row.columns.get("text")
            messages = row.columns.get("messages")
            if isinstance(text, str) and text:
                found.append(Item(str(number), text))
            elif isinstance(messages, list) and messages:
                if self.chat is False:
                    raise ValueError(
                        f"the suite text: {row.where} has messages, which are read through the chat "
                        "template: leave chat: false (--raw) out, or give rows with `text`"
                    )
                try:
                    messages = with_system(tuple(messages), row.columns.get("system"), "messages")
                except RowError as error:
                    raise ValueError(f"the suite text: {row.where}: {error}") from error
                template = _template(row)
                asked = {"asked": {"template": template}} if template else {}
                found.append(Item(str(number), tuple(messages), asked))
            else:
                raise ValueError(
                    f"the suite text: {row.where} needs the column `text` or `messages`; got "
                    f"{', '.join(row.columns) or 'no column'}"
                )
        return found

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        parts = [
            (number, part)
            for number, item in enumerate(items)
            for part in self._parts(_ids(item, subject.tokenizer), subject)
        ]
        records = [
            [TokenPath(ids, ((1, len(ids)),), (number,))] for number, (_, ids) in enumerate(parts)
        ]
        owner = np.asarray([number for number, _ in parts])
        found = {name: np.zeros(len(items)) for name in ("logp", "tokens", "bytes", "kl")}
        for number, ids in parts:
            found["bytes"][number] += _bytes(subject.tokenizer, ids)
        with subject.policy.evaluating():
            for row in pack(records, max(self.max_length, TOKENS_PER_ROW)):
                whose = owner[row.tree.response_K]
                logp_K, kl_K = self._read(subject, row)
                np.add.at(found["logp"], whose, logp_K)
                np.add.at(found["tokens"], whose, 1)
                np.add.at(found["kl"], whose, kl_K)
        told = [name for name in found if subject.base is not None or name != "kl"]
        return [{name: float(found[name][n]) for name in told} for n in range(len(items))]

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Scores | Failure]:
        return [_scores(item, answer) for item, answer in zip(items, answers, strict=True)]

    def summarise(self, scores: Mapping[str, Scores]) -> dict[str, Estimate]:
        metrics = super().summarise(scores)
        return {"perplexity": metrics["loss"].exp(), **metrics}

    def lower_is_better(self, metric: str) -> bool:
        return True

    def _parts(self, ids: Sequence[int], subject: Subject) -> Iterator[np.ndarray[Any, Any]]:
        size = min(self.max_length, subject.context)
        for start in range(0, len(ids), size):
            part = np.asarray(ids[start : start + size], np.int32)
            if len(part) > 1:  # a single token has nothing to be foreseen from
                yield part

    def _read(self, subject: Subject, row: Any) -> tuple[Any, Any]:
        """Log-probabilities (K) of a row's tokens, and their KL to the base, where there is one."""
        from onestage.models.divergence import between

        if subject.base is None:
            return subject.policy(row).cpu().double().numpy(), 0.0
        with subject.base.evaluating():
            found = between(subject.base, subject.policy, row)
        return found.now_logp_K.cpu().double().numpy(), found.kl_K.cpu().double().numpy()


def _template(row: RawRow) -> dict[str, Any]:
    try:
        return arguments_of(row.columns)
    except RowError as error:
        raise ValueError(f"the suite text: {row.where}: {error}") from None


def _ids(item: Item, tokenizer: Any) -> list[int]:
    return whole_ids(tokenizer, item.prompt, item.facts.get("asked", {}).get("template", {}))


def _bytes(tokenizer: Any, ids: Any) -> int:
    """Of the text that token ids behind the first stand for; special tokens stand for none.

    A token may be a part of a character, which decoding writes as U+FFFD, three bytes: tokens that are
    written in bytes are counted by them.
    """
    special = set(tokenizer.all_special_ids)
    words = tokenizer.convert_ids_to_tokens([int(i) for i in ids[1:] if int(i) not in special])
    if all(ALPHABET.issuperset(word) for word in words) and _in_bytes(tokenizer):
        return sum(map(len, words))
    whole, first = (
        tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for part in (ids, ids[:1])
    )
    return len(whole.encode()) - len(first.encode())


def _in_bytes(tokenizer: Any) -> bool:
    """Whether the characters of tokens stand for bytes (ByteLevel, as of GPT-2 and most since)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in repr(backend.decoder)


def _scores(item: Item, answer: Content) -> Scores | Failure:
    tokens = answer["tokens"]
    if not tokens:
        return Failure("value", "a text of one token")
    # Of a conversation, what of it is text and what the template's is not asked.
    size = answer.get("bytes", 0) if isinstance(item.prompt, str) else 0
    found = {"loss": Weighted(-answer["logp"] / tokens, tokens)}
    if size:
        found["bits_per_byte"] = Weighted(-answer["logp"] / math.log(2) / size, size)
    if "kl" in answer:
        found["kl"] = Weighted(answer["kl"] / tokens, tokens)
    return found
