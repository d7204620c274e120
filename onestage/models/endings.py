"""Where generation stops: at the model's own end tokens, its tokenizer's and its chat template's.

A base model that is trained on chats learns to say the template's marker, which often is not the EOS
that its settings know, and one that is trained on plain text the tokenizer's. Whoever generates with the
saved model (transformers, vLLM) reads its generation settings, so all of them are written there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from onestage.data.template import dialect

SAMPLING = ("temperature", "top_p", "top_k", "min_p")
NO_WAY = frozenset(
    ("eos_token_id", "bos_token_id", "pad_token_id", "transformers_version", "_from_model_config")
)
"""Of generation settings, what does not say how a text is drawn."""
TELLING = (
    *("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("typical_p", "epsilon_cutoff", "eta_cutoff", "sequence_bias", "min_length"),
    *("min_new_tokens", "num_beams", "guidance_scale", "watermarking_config"),
    "exponential_decay_length_penalty",
)
"""Generation settings that change which text is drawn, and that no engine of ours reads."""
NEUTRAL: tuple[Any, ...] = (None, 0, 1, [])
"""Values of theirs that change nothing."""


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


def settle_together(model: Any, folders: Sequence[str]) -> list[str]:
    """Give a model the ends of all that are merged into it, in place, and how they are sampled where
    those that say it agree; what is said where they do not."""
    from transformers import GenerationConfig

    settings = settings_of(model)
    found = [
        GenerationConfig.from_pretrained(folder)
        for folder in folders
        if (Path(folder) / "generation_config.json").is_file()
    ]
    if settings is None or not found:
        return []
    ends = [end for one in (settings, *found) for end in _ends(one)]
    ways = [{k: v for k, v in one.to_diff_dict().items() if k not in NO_WAY} for one in found]
    agreed = all(way == ways[0] for way in ways)
    if agreed:
        settle_as(model, found[0])
    settings = settings_of(model)
    if len(dict.fromkeys(ends)) > len(_ends(settings)):
        settings.eos_token_id = list(dict.fromkeys(ends))
    said = "the models are sampled differently (generation_config.json); the base's way is kept"
    return [] if agreed else [said]


def _ends(settings: Any) -> list[int]:
    own = settings.eos_token_id
    return [own] if isinstance(own, int) else list(own or [])


def save_ends(model: Any, folder: Path) -> None:
    """Write the generation settings beside an adapter, which PEFT does not, where they name other ends
    than its base's, as a list then."""
    settings = settings_of(model)
    if settings is not None and isinstance(settings.eos_token_id, list):
        _write(settings, folder)


@contextmanager
def as_read(model: Any, folder: Path) -> Iterator[None]:
    """Save a whole model inside, with the generation settings that it was read with.

    transformers reads settings that it will not write, once one of them has changed (a temperature
    without `do_sample`, a penalty of beams without beams) or where they stand in config.json. The
    weights of a run do not wait for them: they are written as they are.
    """
    settings = settings_of(model)
    for name in _misplaced(model.config):
        delattr(model.config, name)  # what reads them has them in its settings
    if "auto_map" in vars(model.config) and type(model).__module__.startswith("transformers."):
        del model.config.auto_map  # names code that was not used, and does not go along
    if settings is None or _writable(settings):
        yield
        return
    model.generation_config = type(settings)()
    try:
        yield
    finally:
        model.generation_config = settings
    _write(settings, folder)


def _writable(settings: Any) -> bool:
    try:
        settings.validate(strict=True)
    except ValueError:
        return False
    return True


def _misplaced(config: Any) -> list[str]:
    """Generation settings that stand in a model's config.json."""
    from transformers import GenerationConfig

    usual = GenerationConfig().to_dict()
    declared = {one.name for one in fields(config)} if is_dataclass(config) else set()
    return [
        name
        for name in usual
        if name != "use_cache"
        and name in vars(config)
        and name not in declared
        and getattr(config, name) is not None
    ]


def _write(settings: Any, folder: Path) -> None:
    settings.to_json_file(folder / "generation_config.json", use_diff=True)


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
    elif (settings.do_sample is not False or sampling) and any(
        getattr(settings, name) is not None for name in SAMPLING
    ):
        # Numbers that greedy decoding would not read: whoever wrote them meant that they are used,
        # but for those who have said that they are not.
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


def unread(model: Any) -> list[str]:
    """The generation settings of a model, as `name value`, that change a text and are not read here."""
    settings = settings_of(model)
    said = [(name, getattr(settings, name, None)) for name in TELLING]
    return [f"{name} {value}" for name, value in said if value not in NEUTRAL]


def settings_of(model: Any) -> Any:
    """The generation settings of a model, or of what adapters lie on; None where it has none."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return getattr(base, "generation_config", None)


def settle_as(model: Any, settings: Any) -> None:
    """Give a model the generation settings that another process found beside its weights, in place."""
    if settings is not None:
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        base.generation_config = settings
