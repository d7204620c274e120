"""Small real things to test with: a trained tokenizer, transformers' own model classes, files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from onestage.data.trees import TokenPath

os.environ.setdefault("HF_HUB_OFFLINE", "1")


torch.set_num_threads(1)


ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
REAL_DATA = SHARED / "data"


CORPUS = [
    "Question: what is the capital of France? Answer: The capital of France is Paris.",
    "Write a short poem about the sea, the wind and the moon.\n\nRoses are red.",
    "Human: hello there! Assistant: good morning, how can I help you today?",
    "one two three four five six seven eight nine ten 0123456789",
]


CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make_tokenizer(vocab_size: int = 400, chat: str | None = CHAT) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that puts BOS in front, as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    wrapped.chat_template = chat
    return wrapped


TINY = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def sharpen(model: Any, factor: float = 3.0) -> Any:
    """Larger random weights, so that a wrong mask or head shows in the log-probabilities."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return model


def tiny_llama(seed: int = 0, attention: str = "sdpa", **changes: Any) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(**TINY, **changes)
    return sharpen(AutoModelForCausalLM.from_config(config, attn_implementation=attention)).eval()


def token_path(
    ids: Iterable[int], *spans: tuple[int, int], responses: tuple[int, ...] | None = None
) -> TokenPath:
    numbers = responses if responses is not None else tuple(range(len(spans)))
    return TokenPath(np.asarray(list(ids), np.int32), spans, numbers)


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_recipe(file: Path, content: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(content))
    return file
