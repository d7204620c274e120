"""A reward model: any sequence classifier of transformers, on the text of the answer.

It reads text, never the policy's token ids: the same ids mean other words to another tokenizer, and
nothing would tell (una_uft.md 4b, trap 15). The conversation goes through the model's own chat template
and its own tokenizer, unaltered and uncut. A model without a template is given prompt and response as
they stand, one after the other. A model that onestage trained is given exactly what it was trained on:
its tokenizer says so, and the text is made by the code that made training's.

A score is a property of its text: it must not change with what else is in the batch. So padding stands
on the right and is masked; where the model finds the last token by looking for padding, it is padded
with the id that its config names, and where none is named, with an id that no text of the batch ends in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from onestage.data.messages import Message, Turns
from onestage.data.record import Record, Refusal
from onestage.data.template import TemplateError, render, render_whole
from onestage.data.tokenize import Encoder, whole_ids
from onestage.models.loading import reading
from onestage.models.model import Model, Precision
from onestage.models.reward_model import READS, TO_THE_END
from onestage.models.source import adapter_base, adapter_task, check_vocabulary
from onestage.models.weights import load
from onestage.rollout.rewards import Answer, Failure, Reward

BOUNDLESS = 10**9
"""Tokenizers without a limit name a far larger one."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """What is loaded."""

    model: Any
    tokenizer: Any
    column: int
    """Of the label, in its logits."""
    longest: int
    """Tokens that it reads at most."""
    pads_freely: bool
    """Whether its config names no padding."""


@dataclass(frozen=True)
class RewardModel(Reward):
    """The logit of a classifier with one label, or of one of several."""

    model: str
    """A folder or a name on the hub."""
    revision: str | None = None
    label: int | str | None = None
    """Which label's logit, by number or by name; needed where there are several."""
    transform: Literal["none", "sigmoid"] = "none"
    batch_size: int = 8
    max_length: int | None = None
    """Tokens that it reads at most (default: as many as it can). A longer text is a failure, not cut."""
    dtype: Precision = "auto"
    """auto: as stored. Under half precision scores differ a little from batch to batch."""
    device: str = "auto"
    """auto: the first GPU where there is one, or the CPU."""
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def check(self, facts: Mapping[str, Any]) -> None:
        """Loads the model: what is wrong with it is told before the first step."""
        _ = self._loaded

    def close(self) -> None:
        self.__dict__.pop("_loaded", None)

    def __call__(self, answers: Sequence[Answer]) -> list[float | Failure]:
        longest = self._loaded.longest
        found: dict[int, float | Failure] = {}
        rows: dict[int, list[int]] = {}
        for place, answer in enumerate(answers):
            ids = self._ids(answer)
            if isinstance(ids, Failure):
                found[place] = ids
            elif len(ids) > longest:
                found[place] = Failure("overlong", f"{len(ids):,} tokens, at most {longest:,}")
            elif not ids:
                found[place] = Failure("value", "an empty text")
            else:
                rows[place] = ids
        # Texts of one length share a batch, so that little is padding.
        order = sorted(rows, key=lambda place: -len(rows[place]))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            for place, logit in zip(places, self._logits([rows[p] for p in places]), strict=True):
                found[place] = self._reward(logit)
        return [found[place] for place in range(len(answers))]

    def text(self, answer: Answer) -> str:
        """What the model reads, special tokens of its chat template included."""
        tokenizer = self._loaded.tokenizer
        if tokenizer.init_kwargs.get(READS) == TO_THE_END:
            (rendered,) = render(_record(answer), tokenizer)
            return rendered.text[: rendered.spans[-1][1]]
        return render_whole(self._read(answer), tokenizer, _tools(answer)).text

    def _read(self, answer: Answer) -> Turns:
        """What others' classifiers are given: the conversation, or a text where there is no template."""
        if not self._loaded.tokenizer.chat_template:
            return answer.prompt + answer.response
        asked = {"role": "user", "content": answer.prompt}
        return _answered(answer) or (asked, {"role": "assistant", "content": answer.response})

    def _ids(self, answer: Answer) -> list[int] | Failure:
        tokenizer = self._loaded.tokenizer
        if tokenizer.init_kwargs.get(READS) == TO_THE_END:
            encoded = Encoder(tokenizer, BOUNDLESS).encode(_record(answer))
            if isinstance(encoded, Refusal):
                return Failure("value", encoded.reason)
            (path,) = encoded.paths
            return path.ids[: path.spans[-1][1]].tolist()
        try:
            return whole_ids(tokenizer, self._read(answer), _tools(answer))
        except TemplateError as error:
            return Failure("value", str(error))

    @torch.inference_mode()
    def _logits(self, rows: Sequence[list[int]]) -> Iterator[float]:
        model, column = self._loaded.model, self._loaded.column
        config = model.config.get_text_config()
        padding = config.pad_token_id
        if self._loaded.pads_freely:
            ends = {ids[-1] for ids in rows}
            # It looks for the last token that is not padding, so no text may end in what pads.
            padding = config.pad_token_id = next(i for i in range(len(ends) + 1) if i not in ends)
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), padding)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        return iter(logits[:, column].cpu().double().tolist())

    def _reward(self, logit: float) -> float | Failure:
        if not math.isfinite(logit):
            return Failure("value", f"a logit of {logit}")
        if self.transform != "sigmoid":
            return logit
        return float(torch.tensor(logit, dtype=torch.float64).sigmoid())

    @cached_property
    def _loaded(self) -> Classifier:
        where = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        with reading(f"reward_model: the tokenizer of {self.model}"):
            tokenizer = AutoTokenizer.from_pretrained(self.model, **where)
        model = self._adapted() or self._whole(where)
        config = model.config.get_text_config()
        check_vocabulary(tokenizer, config)
        limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
        limit = min((n for n in limits if n is not None and 0 < n < BOUNDLESS), default=BOUNDLESS)
        if self.max_length is not None and self.max_length > limit:
            raise ValueError(
                f"reward_model: max_length {self.max_length:,}, but {self.model} reads {limit:,} tokens"
            )
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return Classifier(
            model.eval().to(device),
            tokenizer,
            self._column(model.config),
            self.max_length or limit,
            pads_freely=config.pad_token_id is None,
        )

    def _adapted(self) -> Any:
        """A classifier that is an adapter folder, on its base; None for other folders."""
        source = Model(
            name=self.model,
            task="reward",
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )
        if adapter_base(source) is None:
            return None
        if adapter_task(self.model) != "SEQ_CLS":
            raise ValueError(f"reward_model: {self.model} is an adapter, but of no classifier")
        return load(source).model

    def _whole(self, where: Mapping[str, Any]) -> Any:
        with reading(f"reward_model: {self.model}"):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                self.model, dtype=self.dtype, output_loading_info=True, **where
            )
        missing = sorted(report["missing_keys"])
        if missing:
            raise ValueError(
                f"reward_model: {self.model} holds no weights for {', '.join(missing[:3])}: it is no "
                "trained classifier, and random weights would judge"
            )
        return model

    def _column(self, config: Any) -> int:
        names = [str(config.id2label[i]) for i in range(config.num_labels)]
        if self.label is None and len(names) == 1:
            return 0
        if self.label in names:
            return names.index(str(self.label))
        if isinstance(self.label, int) and 0 <= self.label < len(names):
            return self.label
        raise ValueError(
            f"reward_model: label {self.label!r}, but {self.model} has {len(names)}: "
            + ", ".join(f"{i} {name}" for i, name in enumerate(names[:20]))
        )


def _answered(answer: Answer) -> tuple[Message, ...]:
    """The conversation with the response in it; empty where the prompt was no conversation."""
    if not answer.turns:
        return ()
    *before, last = answer.turns
    if last["role"] == "assistant":  # the response goes on with what was begun
        return (*before, {**last, "content": last["content"] + answer.response})
    return (*answer.turns, {"role": "assistant", "content": answer.response})


def _tools(answer: Answer) -> dict[str, Any]:
    """What another's chat template is told: the tools, and nothing that was said to the policy's own."""
    return {name: held for name, held in answer.template.items() if name == "tools"}


def _record(answer: Answer) -> Record:
    """The answer as a row that training could have read."""
    turns = _answered(answer)
    if turns:
        return Record("demonstration", turns[:-1], (turns[-1:],), template=answer.template)
    return Record("demonstration", answer.prompt, (answer.response,))
