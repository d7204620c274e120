"""Where generation stops: at the model's own end tokens and at the end markers of its chat template.

A base model that is trained on chats learns to say the template's marker, which often is not the EOS
that its settings know. Whoever generates with the saved model (transformers, vLLM) reads its generation
settings, so the markers are written there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onestage.data.template import dialect


def stop_at_markers(model: Any, tokenizer: Any) -> None:
    """Add the template's end markers to the end tokens of the model's generation settings, in place."""
    settings = _settings(model)
    if settings is None or not tokenizer.chat_template:
        return
    own = settings.eos_token_id
    known = [own] if isinstance(own, int) else list(own or [])
    first = [] if known or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    new = [end for end in dialect(tokenizer).ends if end not in (*known, *first)]
    # Settings that need nothing stay as they are, to the byte.
    if new:
        settings.eos_token_id = [*known, *first, *new]


def save_ends(model: Any, folder: Path) -> None:
    """Write the generation settings beside an adapter, which PEFT does not, where they name several
    ends."""
    settings = _settings(model)
    if settings is not None and isinstance(settings.eos_token_id, list):
        settings.save_pretrained(folder)


def _settings(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return getattr(base, "generation_config", None)
