"""How good a model is in a world: exact judgements of greedy answers, and likelihoods.

Works on any causal language model of transformers that shares the tokenizer; nothing is sampled, so
two evaluations of one model agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from onestage.lab.contract import Choice, Source, Split
from onestage.rollout.samplers.contract import Decoding
from onestage.rollout.texts import complete

METRICS = {
    "formats": "obeys an instruction on the form of the answer",
    "formats_new": "obeys combinations of instructions that training never showed",
    "truth": "gives the truth where a misconception is popular",
    "truth_mc1": "finds the truth likelier than misconception and other values",
    "refuses": "refuses to explain how to make something hazardous",
    "helps": "explains how to make something harmless",
    "knowledge": "still knows what training never mentioned",
    "overall": "mean of formats, truth, safety (refuses and helps) and knowledge",
    "text_loss": "loss in nats a token on unseen pretraining text",
}
"""Metric -> what it says. All lie in [0, 1] and up is better, except for `text_loss`."""

ANSWER_LENGTH = 20
"""Tokens generated at most: the longest right answer and some to ramble."""
BATCH = 256
"""Texts in one forward pass."""


def evaluate(
    model: Any, tokenizer: PreTrainedTokenizerBase, world: Source, split: Split = "eval"
) -> dict[str, float]:
    """All of METRICS. The model comes back in the mode (training or not) that it came in."""
    marks: dict[str, list[bool]] = defaultdict(list)
    questions, choices = world.questions(split), world.choices(split)
    with _evaluating(model), torch.inference_mode():
        given = answers(model, tokenizer, [question.prompt for question in questions])
        for question, answer in zip(questions, given, strict=True):
            marks[question.metric].append(question.judge(answer))
        for choice, right in zip(choices, _chosen_rightly(model, tokenizer, choices), strict=True):
            marks[choice.metric].append(right)
        text_loss = _text_loss(model, tokenizer, list(world.pretraining_text("eval")))
    found = {metric: sum(right) / len(right) for metric, right in marks.items()}
    safety = (found["refuses"] + found["helps"]) / 2
    found["overall"] = (found["formats"] + found["truth"] + safety + found["knowledge"]) / 4
    found["text_loss"] = text_loss
    return {metric: found[metric] for metric in METRICS}


def answers(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> Iterator[str]:
    """Greedy continuations, in order, without the prompt and special tokens."""
    greedy = Decoding(max_completion_length=ANSWER_LENGTH, temperature=0)
    return iter(complete(model, tokenizer, prompts, greedy, batch_size=BATCH))


def _chosen_rightly(
    model: Any, tokenizer: PreTrainedTokenizerBase, choices: Sequence[Choice]
) -> Iterator[bool]:
    """Whether the first option is likelier than each other one, as a whole."""
    texts = [choice.prompt + option for choice in choices for option in choice.options]
    lengths = [
        len(ids)
        for choice, ids in zip(
            choices, tokenizer([choice.prompt for choice in choices]).input_ids, strict=True
        )
        for _ in choice.options
    ]
    totals = iter(
        float(logp_T[length - 1 :].sum())
        for logp_T, length in zip(_log_probabilities(model, tokenizer, texts), lengths, strict=True)
    )
    for choice in choices:
        right, *wrong = [next(totals) for _ in choice.options]
        yield all(right > other for other in wrong)


def _text_loss(model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    ended = [text + str(tokenizer.eos_token) for text in texts]
    return -float(torch.cat(list(_log_probabilities(model, tokenizer, ended))).mean())


def _log_probabilities(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Iterator[Tensor]:
    """For each text, the log-probability of its second to last token (T)."""
    for start in range(0, len(texts), BATCH):
        batch = _padded(tokenizer, texts[start : start + BATCH], model.device)
        logits = model(**batch).logits[:, :-1].float()
        target = batch["input_ids"][:, 1:, None]
        logp = F.log_softmax(logits, dim=-1).gather(2, target)[..., 0]
        for row, mask in zip(logp, batch["attention_mask"][:, 1:], strict=True):
            yield row[mask.bool()]


def _padded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], device: Any
) -> dict[str, Tensor]:
    batch = tokenizer(list(texts), padding=True, padding_side="right", return_tensors="pt")
    return {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
