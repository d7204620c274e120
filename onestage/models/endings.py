"""Where generation stops: at the model's own end tokens, its tokenizer's and its chat template's.

A base model that is trained on chats learns to say the template's marker, which often is not the EOS
that its settings know, and one that is trained on plain text the tokenizer's. Whoever generates with the
saved model (transformers, vLLM) reads its generation settings, so all of them are written there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage.data.template import dialect

SAMPLING = ("temperature", "top_p", "top_k", "min_p")


def stop_at_markers(model: Any, tokenizer: Any) -> None:
    """Add the tokenizer's EOS and the template's end markers, whichever a response ends with, to the end
    tokens of the model's generation settings, in place."""
    settings = settings_of(model)
    if settings is None:
        return
    own = settings.eos_token_id
    known = [own] if isinstance(own, int) else list(own or [])
    first = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    said = [*first, *(dialect(tokenizer).ends if tokenizer.chat_template else ())]
    new = [end for end in dict.fromkeys(said) if end not in known]
    # Settings that need nothing stay as they are, to the byte.
    if new:
        settings.eos_token_id = [*known, *new]


def begin_as(model: Any, tokenizer: Any, given: Mapping[str, Any]) -> None:
    """Give a model that was made of a configuration its tokenizer's special tokens, in place: those of
    its class are another vocabulary's. `given`: what the configuration says itself."""
    from transformers import GenerationConfig

    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if name not in given:
            setattr(model.config, name, getattr(tokenizer, name))
    if settings_of(model) is not None:
        model.generation_config = GenerationConfig.from_model_config(model.config)


def settle_beside(model: Any, adapter: str | Path) -> None:
    """Give a model with an adapter the generation settings that lie beside the adapter, in place."""
    from transformers import GenerationConfig

    if (Path(adapter) / "generation_config.json").is_file():
        settle_as(model, GenerationConfig.from_pretrained(adapter))


def save_ends(model: Any, folder: Path) -> None:
    """Write the generation settings beside an adapter, which PEFT does not, where they name other ends
    than its base's, as a list then."""
    settings = settings_of(model)
    if settings is not None and isinstance(settings.eos_token_id, list):
        settings.save_pretrained(folder)


def settle(model: Any, tokenizer: Any, sampling: Mapping[str, float]) -> None:
    """Make the generation settings of a whole model say all that whoever serves it must know, in place:
    its ends, and the sampling defaults that are given beside its own."""
    from transformers import GenerationConfig

    if settings_of(model) is None:
        model.generation_config = GenerationConfig.from_model_config(model.config)
    settings = model.generation_config
    stop_at_markers(model, tokenizer)
    if settings.eos_token_id is None:
        settings.eos_token_id = tokenizer.eos_token_id
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    for name, value in sampling.items():
        setattr(settings, name, value)
    if settings.temperature == 0:
        settings.do_sample, settings.temperature = False, None
        settings.top_p = settings.top_k = None
    elif any(getattr(settings, name) is not None for name in SAMPLING):
        # Numbers that greedy decoding would not read: whoever wrote them meant that they are used.
        settings.do_sample = True


def told_settings(model: Any) -> str:
    """How a model ends and is sampled by default, in words."""
    settings = model.generation_config
    own = settings.eos_token_id
    ends = [own] if isinstance(own, int) else list(own or [])
    sampled = [
        f"{name} {value:g}"
        for name in SAMPLING
        if (value := getattr(settings, name)) is not None and settings.do_sample
    ]
    how = ", ".join(sampled) or "no sampling defaults (--temperature, --top-p write some)"
    return f"ends at {', '.join(map(str, ends)) or 'nothing'}; {how}"


def settings_of(model: Any) -> Any:
    """The generation settings of a model, or of what adapters lie on; None where it has none."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return getattr(base, "generation_config", None)


def settle_as(model: Any, settings: Any) -> None:
    """Give a model the generation settings that another process found beside its weights, in place."""
    if settings is not None:
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        base.generation_config = settings
