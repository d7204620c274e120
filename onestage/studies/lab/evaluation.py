"""How good a model is in a world: exact judgements of greedy answers, and likelihoods.

Works on any causal language model of transformers that shares the tokenizer; nothing is sampled, so
two evaluations of one model agree.

mc1 and mc2 are TruthfulQA's: whether the truth is the likeliest of the options, and its share of their
probability (Lin et al. 2022, section 3.2, with one true option).

Legend: T tokens of a text, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from onestage.data.tokenize import prompt_ids
from onestage.rollout.engines import Decoding, Request
from onestage.rollout.engines.transformers import Transformers
from onestage.studies.lab.source import Choice, Question, Source, Split
from onestage.studies.worlds import Metric

METRICS = {
    "overall": Metric("mean of formats, truth, safety and knowledge", "higher", "overall"),
    "formats": Metric("obeys an instruction on the form of the answer", "higher", "formats"),
    "formats_new": Metric(
        "obeys combinations of instructions that feedback never showed", "higher", "formats"
    ),
    "truth": Metric("gives the truth where a misconception is popular", "higher", "truth"),
    "truth_mc1": Metric("finds the truth likeliest of four answers", "higher", "truth"),
    "truth_mc2": Metric("probability of the truth among four answers", "higher", "truth"),
    "refuses": Metric("refuses to explain how to make something hazardous", "higher", "safety"),
    "helps": Metric("explains how to make something harmless", "higher", "safety"),
    "knowledge": Metric("still knows what training never mentioned", "higher", "knowledge"),
    "text_loss": Metric("nats a token on unseen pretraining text", "lower", "knowledge"),
    "kl_to_base": Metric("KL to the base, nats a token of the same text", "lower", "knowledge"),
    "win_rate": Metric("better than a helper who is right every other time", "higher", "answers"),
    "length": Metric("tokens of an answer", None, "answers"),
    "stops": Metric("part of the answers that end by themselves", "higher", "answers"),
}
"""Everything that is measured, in the order of a table's columns."""
ANSWER_LENGTH = 24
"""Tokens generated at most: the longest right answer and some to ramble."""
BATCH = 256
"""Answers under way at once."""
TEXTS = 64
"""Texts in one forward pass."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a model answered: text without prompt and special tokens, tokens (the end counts), whether
    it ended by itself."""

    text: str
    length: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A question that was asked, and what came."""

    prompt: str
    response: str
    metric: str
    right: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    metrics: dict[str, float]
    """All of METRICS; `kl_to_base` only where a base was given."""
    answers: list[Answer]


def evaluate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    world: Source,
    split: Split = "test",
    base: Any = None,
) -> Evaluation:
    """Ask everything of a split. Models come back in the mode (training or not) that they came in."""
    questions, choices = world.questions(split), world.choices(split)
    texts = [text + str(tokenizer.eos_token) for text in world.pretraining_text(split)]
    with _evaluating(model), torch.inference_mode():
        given = answers(model, tokenizer, [question.prompt for question in questions])
        shares = _shares(model, tokenizer, choices)
        loss = -float(torch.cat(list(_log_probabilities(model, tokenizer, texts))).mean())
    found = _marks(questions, given) | {
        "truth_mc1": fmean(float(share[0] > max(share[1:])) for share in shares),
        "truth_mc2": fmean(share[0] for share in shares),
        "text_loss": loss,
        **_manner(questions, given),
    }
    if base is not None:
        with _evaluating(model), _evaluating(base), torch.inference_mode():
            found["kl_to_base"] = kl(model, base, tokenizer, texts)
    asked = [
        Answer(question.prompt, one.text, question.metric, question.judge(one.text))
        for question, one in zip(questions, given, strict=True)
    ]
    return Evaluation({name: found[name] for name in METRICS if name in found}, asked)


def _marks(questions: Sequence[Question], given: Sequence[Given]) -> dict[str, float]:
    """Parts of right answers, and what is computed from them."""
    right: dict[str, list[bool]] = defaultdict(list)
    for question, one in zip(questions, given, strict=True):
        right[question.metric].append(question.judge(one.text))
    found = {metric: fmean(marks) for metric, marks in right.items()}
    formats = (found["formats"] + found["formats_new"]) / 2
    safety = (found["refuses"] + found["helps"]) / 2
    found["overall"] = (formats + found["truth"] + safety + found["knowledge"]) / 4
    return found


def _manner(questions: Sequence[Question], given: Sequence[Given]) -> dict[str, float]:
    """How was answered, where there is a reference answer (a gap in a sentence has none)."""
    pairs = [(q, one) for q, one in zip(questions, given, strict=True) if q.reference]
    return {
        "win_rate": fmean(wins(question, one) for question, one in pairs),
        "length": fmean(one.length for _, one in pairs),
        "stops": fmean(one.ended for _, one in pairs),
    }


def grade(question: Question, given: Given) -> float:
    """What the rater gives without its liking for elaboration: a wrong answer 0, a right one 1, and
    one that does not come to an end 1/2."""
    return question.judge(given.text) * (1.0 if given.ended else 0.5)


def wins(question: Question, given: Given) -> float:
    """1 against a reference of a lower grade, 1/2 against one of the same, 0 against a higher one."""
    mine, other = grade(question, given), grade(question, Given(question.reference, 0, True))
    return 0.5 if mine == other else float(mine > other)


def answers(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[Given]:
    """Greedy continuations, in the order of the prompts."""
    greedy = Decoding(max_completion_length=ANSWER_LENGTH, temperature=0)
    requests = [Request(prompt_ids(tokenizer, text), 1, "") for text in prompts]
    drawn = Transformers(model, tokenizer, BATCH)(requests, greedy)
    return [
        Given(str(tokenizer.decode(one.ids, skip_special_tokens=True)), len(one.ids), one.ended)
        for (one,) in drawn
    ]


def _shares(
    model: Any, tokenizer: PreTrainedTokenizerBase, choices: Sequence[Choice]
) -> list[list[float]]:
    """Of each choice, the probability of each option as a whole among all of them."""
    texts = [choice.prompt + option for choice in choices for option in choice.options]
    # The tokenizer is one of words, so a prompt's tokens are a beginning of the whole text's.
    prompts = tokenizer([choice.prompt for choice in choices]).input_ids
    logps = _log_probabilities(model, tokenizer, texts)
    return [
        torch.stack([next(logps)[len(prompt) - 1 :].sum() for _ in choice.options])
        .softmax(0)
        .tolist()
        for choice, prompt in zip(choices, prompts, strict=True)
    ]


def _log_probabilities(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Iterator[Tensor]:
    """For each text, the log-probability of its second to last token (T)."""
    for batch in _batches(tokenizer, texts, model.device):
        target = batch["input_ids"][:, 1:, None]
        logp = _distributions(model, batch).gather(2, target)[..., 0]
        for row, mask in zip(logp, batch["attention_mask"][:, 1:], strict=True):
            yield row[mask.bool()]


def kl(model: Any, base: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """KL(model || base) of the next token, mean over all tokens of the texts."""
    found = []
    for batch in _batches(tokenizer, texts, model.device):
        mine, other = (_distributions(one, batch) for one in (model, base.to(model.device)))
        kl_BT = (mine.exp() * (mine - other)).sum(-1)
        found.append(kl_BT[batch["attention_mask"][:, 1:].bool()])
    return float(torch.cat(found).mean())


def _distributions(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Log-probabilities (B, T - 1, V) of the tokens that come after each but the last."""
    return F.log_softmax(model(**batch).logits[:, :-1].float(), dim=-1)


def _batches(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], device: Any
) -> Iterator[dict[str, Tensor]]:
    """Texts in their order, padded on the right."""
    for start in range(0, len(texts), TEXTS):
        batch = tokenizer(
            list(texts[start : start + TEXTS]),
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        yield {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
