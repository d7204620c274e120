"""Reward models as folders: a transformers sequence classifier with one label, or an adapter of one.

A reward is the value of a linear head at the last token of a response. Plain transformers looks for that
token itself: the last one that is not padding. So the padding must be a token in which no response ends
(with the usual `pad = eos` it would take the token before the end), and it is written into the model's
config and the tokenizer. The tokenizer also says how texts were made (`READS`), since a template may put
more behind the end of a turn than the model was trained on.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from onestage.models.model import Task

READS = "reward_reads"
"""Key of the saved tokenizer's configuration."""
TO_THE_END = "response_end"
"""Its value: training's own text, up to the end token of the response."""
FAMILY = (
    "model.task: reward needs a decoder whose classifier in transformers is its base model and one "
    "linear layer named `score` (Llama, Mistral, Qwen, Gemma, ...)"
)


def auto_class(task: Task) -> Any:
    """The transformers class that loads models for the task."""
    return AutoModelForSequenceClassification if task == "reward" else AutoModelForCausalLM


def is_classifier(config: PretrainedConfig) -> bool:
    """Whether a stored model is a sequence classifier."""
    return any(n.endswith("ForSequenceClassification") for n in config.architectures or ())


def is_judge(model: Any) -> bool:
    """Whether a model (without adapters) is a sequence classifier."""
    return any(c.__name__.endswith("ForSequenceClassification") for c in type(model).__mro__)


def check_task(
    task: Task, name: str | None, config: PretrainedConfig, adapter: str | None, policy: str
) -> None:
    """Raise `ValueError` where a stored model cannot be loaded for the task.

    adapter: the task type that an adapter folder names, None for whole models; policy: as
    `model.adapter`, what becomes of it.
    """
    judges = adapter == "SEQ_CLS" if adapter else is_classifier(config)
    if task == "causal":
        if judges:
            raise ValueError(
                f"{name} is a classifier (a reward model), which writes no text and has no "
                "log-probabilities; give a causal language model, or train it with model.task: reward"
            )
        return
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise ValueError(f"{FAMILY}; transformers has none for {config.model_type}")
    if judges and not adapter and config.num_labels != 1:
        raise ValueError(f"{name} tells {config.num_labels} labels; a reward model has one")
    if adapter and policy == "stack":
        raise ValueError(
            "model.adapter: stack keeps sums of products, and a reward model's head is none; use merge"
        )
    if adapter and not judges and policy == "same":
        raise ValueError(
            f"{name} is an adapter of a language model and has no head for rewards; set model.adapter: "
            "merge to start a reward model from what it makes of its base"
        )


def check_head(model: Any) -> None:
    """Raise `ValueError` where rewards are not a linear map of the last hidden states."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or model.base_model is model or head.out_features != 1:
        raise ValueError(f"{FAMILY}; {type(model).__name__} has another head")


def settle(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a classifier and its tokenizer the padding and the mark that their folder needs.

    Done after the weights are there: an embedding made with `padding_idx` would never learn that token.
    Raises `ValueError` where the tokenizer has no token that could stand for padding.
    """
    config = model.config.get_text_config()
    padding = padding_of(tokenizer, config.pad_token_id)
    model.config.pad_token_id = config.pad_token_id = padding
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    tokenizer.init_kwargs[READS] = TO_THE_END


def padding_of(tokenizer: Any, given: int | None = None) -> int:
    """A special token in which no response ends: `given` or the tokenizer's own if they will do."""
    special = sorted({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder})
    first = (given, tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    ends = _ends(tokenizer)
    for token in (*first, *special):
        if token in special and token not in ends:
            return int(token)
    raise ValueError(
        "model.task: reward needs a special token for padding in which no response ends; the tokenizer "
        f"has only {[tokenizer.convert_ids_to_tokens(token) for token in special]}: give it a pad_token"
    )


def _ends(tokenizer: Any) -> set[int]:
    """EOS, and whatever the chat template puts behind an answer."""
    ends, answer = {tokenizer.eos_token_id}, "An answer, 7351."
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception:  # whatever a template raises; step-0 law 2 looks at real conversations
            return ends
        ends |= set(tokenizer(text.rpartition(answer)[2], add_special_tokens=False)["input_ids"])
    return ends
