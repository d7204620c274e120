"""Chat templates x conversations: what is scored, of every template that the installed TRL ships and of
families after their public formats."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bench.trust.conversations import SHAPES, outcome
from bench.trust.families import FAMILIES, trl_templates, with_markers

MARKERS = re.compile(
    r"<[|\uff5c][^<>\s'\"{}]*[|\uff5c]?>|<\|?/?[a-z_]+\|>|</?(?:start_of|end_of)_(?:turn|utterance)>"
    r"|<\|END_\w+\|>|\[/?INST\]"
)
"""What looks like a marker in a template's source: a real tokenizer has these as tokens."""


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and for <s> and </s>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def tokenizer_for(template: str) -> Any:
    """A tokenizer with the template, and its markers as special tokens."""
    tokenizer = bytes_tokenizer()
    tokenizer.add_tokens(sorted(set(MARKERS.findall(template))), special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def table() -> str:
    """One line a template: of how many conversations the right text is scored, with a note or without,
    how many are refused by name, and how many are wrong."""
    found = {name: tokenizer_for(template) for name, template in trl_templates().items()}
    found |= {
        f"*{name}*": with_markers(bytes_tokenizer(), family) for name, family in FAMILIES.items()
    }
    lines = ["| template | right | noted | refused by name | wrong |", "|---|---|---|---|---|"]
    total: Counter[str] = Counter()
    for name, tokenizer in found.items():
        counts = Counter(outcome(tokenizer, shape).partition(":")[0] for shape in SHAPES.values())
        total += counts
        lines.append(_line(name, counts))
    lines.append(_line(f"**all {len(found)}**", total))
    return "\n".join(lines)


def _line(name: str, counts: Counter[str]) -> str:
    figures = (counts[kind] for kind in ("right", "noted", "refused", "WRONG"))
    return f"| {name} | {' | '.join(map(str, figures))} |"
