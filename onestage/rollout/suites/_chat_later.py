"""Messages inside a text: prompts are made before it is known whose chat template they get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MARK = "\x00messages\x00"


def as_messages(messages: Sequence[Any], add_generation_prompt: bool = True) -> str:
    """What a chat template would be given, as a text that `rendered` reads."""
    return MARK + json.dumps([list(messages), add_generation_prompt])


def rendered(text: str, tokenizer: Any) -> str:
    """The text with its messages in the tokenizer's template, as the library renders them."""
    if not text.startswith(MARK):
        return text
    (messages, begin), end = json.JSONDecoder().raw_decode(text, len(MARK))
    told: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=begin, continue_final_message=not begin
    )
    return told + text[end:]
