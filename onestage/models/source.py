"""What can be known of a model before its weights are read: config, tokenizer, earlier adapter.

A run's model is a folder or hub name, or a fresh one from a transformers config. A folder with
`adapter_config.json` is a trained adapter on its base. Everything that can be refused is refused here,
since weights take minutes to load.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import TemplateSyntaxError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from onestage.config import RecipeError
from onestage.data.bounded import EndlessTemplateError, bounded, refuse_endless
from onestage.data.reach import require_within_reach
from onestage.models.adapters import config_in, preserved_in
from onestage.models.features import Door, require
from onestage.models.loading import LoadError, check_files, reading
from onestage.models.model import Model
from onestage.models.resized import vocabulary_of

CONFIGS = ("config.json", "adapter_config.json")
"""What a model's folder holds, whatever else."""

COMPUTED = ("rope_parameters", "rope_scaling", "rope_theta", "alibi")
"""What the config of a model says whose positions are computed."""

BECOMES = {"same": Door.TRAINED, "merge": Door.MERGED, "stack": Door.STACKED}
"""What `model.adapter` asks of an earlier adapter."""


def adapter_base(model: Model) -> str | None:
    """The base of an adapter folder; None where `name` is a whole model."""
    if model.name is None or not (Path(model.name) / "adapter_config.json").is_file():
        return None
    return str(config_in(model.name).base_model_name_or_path)


def revision_of(model: Model) -> str | None:
    """The revision of what holds the weights: as the section says, or as an adapter says of its base."""
    if model.revision is not None or adapter_base(model) is None:
        return model.revision
    said: str | None = config_in(str(model.name)).revision
    return said


def adapter_task(folder: str | Path) -> str | None:
    """The task type that an adapter folder names, as PEFT calls it."""
    kind = config_in(folder).task_type
    return None if kind is None else str(getattr(kind, "value", kind))


def check_adapter(model: Model) -> None:
    """Raise `ValueError` where the policy for an earlier adapter cannot be honoured."""
    earlier = adapter_base(model) is not None
    if not earlier and model.adapter != "same":
        raise ValueError(
            f"model.adapter: {model.adapter} needs an adapter folder, and {model.name} is none"
        )
    if earlier and model.adapter == "same" and model.lora is not None:
        raise ValueError(
            f"{model.name} is already an adapter, whose shape is fixed: remove model.lora to train "
            "it further, or set model.adapter to merge or stack"
        )


def check_trained(model: Model) -> None:
    """As `check_adapter`, and refuse what could be loaded but not trained, or is cut short."""
    check_adapter(model)
    base = adapter_base(model)
    if base is not None:
        _require_no_adapter(str(model.name), base)
    if model.name is not None:
        check_files(base or model.name)
    if base is not None:
        check_files(str(model.name), "adapter_model")
        require(config_in(str(model.name)), BECOMES[model.adapter], str(model.name))
        preserved_in(model)
    going_on = model.adapter == "same" and base is not None
    if model.load_in_4bit and model.lora is None and not going_on:
        raise ValueError("model.load_in_4bit trains adapters only: add model.lora")


def config_of(model: Model) -> PretrainedConfig:
    """The transformers config, without any weights: of a model of text and images, its text part's.

    Raises `ValueError` where it is none, or not of a language model.
    """
    found = stored_config(model)
    if model.task == "causal":
        _require_causal(found, str(model.name or "model.config"))
    found = found.get_text_config() if is_nested(found) else found
    if adapter_base(model) is not None:
        found.vocab_size = vocabulary_of(str(model.name), found)
    return found


def stored_config(model: Model) -> PretrainedConfig:
    """The config as it was saved, or as the section has it."""
    if isinstance(model.config, str):
        check_found("model.config", model.config)
        with reading(f"model.config {model.config}"):
            return AutoConfig.from_pretrained(model.config, revision=model.revision)
    if model.config is not None:
        options = dict(model.config)
        if "model_type" not in options:
            raise ValueError("model.config needs model_type, for example `model_type: llama`")
        with reading(
            "model.config", "its keys are those of the transformers config of that model_type"
        ):
            return AutoConfig.for_model(options.pop("model_type"), **options)
    base = adapter_base(model)
    name = base or str(model.name)
    check_found("model.name", name) if base is None else check_base(str(model.name), base)
    require_folder(name)
    with reading(f"the configuration of {name}"):
        return AutoConfig.from_pretrained(
            name, revision=revision_of(model), trust_remote_code=model.trust_remote_code
        )


def is_nested(config: PretrainedConfig) -> bool:
    """Whether a model's text decoder is configured inside another configuration."""
    return config.get_text_config() is not config


def text_part_note(model: Model) -> list[str]:
    """What is said where the text part of a model is all that is used."""
    if model.config is not None or not is_nested(stored := stored_config(model)):
        return []
    kind = (stored.architectures or [stored.model_type])[0]
    return [f"{model.name} is a {kind}; its text part is used, and saved, alone"]


def _require_causal(config: PretrainedConfig, name: str) -> None:
    """Raise `LoadError` for what is known not to write from left to right."""
    known = type(config) in AutoModelForCausalLM._model_mapping
    two_sided = type(config) in AutoModelForMaskedLM._model_mapping and not getattr(
        config, "is_decoder", True
    )
    if (known or getattr(config, "auto_map", None)) and not (
        two_sided or config.is_encoder_decoder
    ):
        return
    raise LoadError(
        f"{name} is a model of the type {config.model_type}, which does not write from left to right; "
        "give a causal language model, one that transformers' AutoModelForCausalLM is for"
    )


def check_found(option: str, name: str) -> None:
    """Raise `ValueError` where a name can only be a path, and nothing is there.

    transformers takes such a name for a malformed hub id, which tells nobody about the folder.
    """
    is_path = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
    if is_path and not Path(name).exists():
        raise ValueError(
            f"{option}: nothing at {name}; give a folder that exists (~ is not expanded), or a hub "
            "id such as HuggingFaceTB/SmolLM2-135M"
        )
    require_within_reach(option, name)


def _require_no_adapter(adapter: str, base: str) -> None:
    """Raise `LoadError` where an adapter's base is an adapter."""
    if (Path(base) / "adapter_config.json").is_file():
        raise LoadError(
            f"{adapter} is an adapter of {base}, which is an adapter itself; make that whole (onestage "
            f"merge {base} --out FOLDER) and write FOLDER into base_model_name_or_path of "
            f"{Path(adapter) / 'adapter_config.json'}"
        )


def check_base(adapter: str, base: str) -> None:
    """Raise `ValueError` where an adapter's base is not to be had."""
    _require_no_adapter(adapter, base)
    try:
        check_found("model", base)
        check_files(base)
    except ValueError as error:
        raise ValueError(
            f"{adapter} is an adapter of {base}, which cannot be had ({error}); bring that model here, "
            f"or set base_model_name_or_path in {Path(adapter) / 'adapter_config.json'} to where it is"
        ) from error


def require_folder(name: str) -> None:
    """Raise `ValueError` for a name under which a file or folder lies, but no model. Names of the hub
    are not looked at."""
    folder = Path(name)
    if not folder.exists():
        return
    if folder.is_file():
        gguf = " (GGUF is what llama.cpp runs: none of its weights can be trained)"
        kind = gguf if folder.suffix.lower() == ".gguf" else ""
        raise ValueError(
            f"{name} is a file{kind}; give a folder as save_pretrained wrote it, or a hub id"
        )
    if not any((folder / one).is_file() for one in CONFIGS):
        nested = folder / "model"
        inside = any((nested / one).is_file() for one in CONFIGS)
        hint = nested if inside else "a folder as training or save_pretrained wrote it, or a hub id"
        raise ValueError(
            f"{name} holds no model (no config.json, no adapter_config.json); give {hint}"
        )


def tokenizer_of(model: Model) -> PreTrainedTokenizerBase:
    """The tokenizer of the model, or the one that is named, with the chat template that is given."""
    name = str(model.name) if model.tokenizer is None else model.tokenizer
    # Many adapters are saved without a tokenizer: theirs is the base's.
    if model.tokenizer is None and not has_tokenizer(name):
        name = adapter_base(model) or name
    check_found("model.tokenizer" if model.tokenizer else "model.name", name)
    if Path(name).is_file() or (model.tokenizer is None and not has_tokenizer(name)):
        require_folder(name)
    of_weights = revision_of(model) if model.tokenizer is None else None
    with reading(f"the tokenizer of {name}", "name one in model.tokenizer (a folder or hub id)"):
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=of_weights, trust_remote_code=model.trust_remote_code
        )
    if model.chat_template is not None:
        tokenizer.chat_template = template_of(model.chat_template)
        check_template(tokenizer)
    return tokenizer


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ValueError` for a chat template that is no Jinja: rows of plain text would not show it."""
    refuse_endless(str(tokenizer.chat_template))
    try:
        with bounded():
            tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise ValueError(
            f"model.chat_template is no Jinja: line {error.lineno}: {error.message}; mend it there or "
            "name another chat template"
        ) from error
    except EndlessTemplateError:
        raise
    except (
        Exception
    ):  # whatever a template raises, such as of a text where it reads a list of parts
        return  # it refuses what we say; whether it does what rows say, they will show


def template_of(given: str) -> str:
    """A chat template given as Jinja text, or as the file it stands in; `ValueError` for neither."""
    if "{{" in given or "{%" in given:
        return given
    try:
        return Path(given).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(
            f"model.chat_template: {given[:80]!r} is no Jinja text (there is no {{{{ or {{% in it), and "
            f"no file that can be read ({why})"
        ) from error


def has_tokenizer(name: str) -> bool:
    """Whether a folder holds a tokenizer. Hub models count as having one."""
    folder = Path(name)
    return not folder.is_dir() or any(folder.glob("tokenizer*"))


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Raise `ValueError` where the tokenizer can give an id that the model has no embedding for."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise ValueError(
            f"the tokenizer gives ids up to {highest}, but the model has {config.vocab_size} "
            "embeddings (0 to vocab_size - 1); they do not belong together: give the tokenizer that the "
            "model came with, or, of tokens that were added, a model that was saved after "
            "`model.resize_token_embeddings(len(tokenizer))`"
        )


def positions_of(config: PretrainedConfig) -> tuple[int | None, bool]:
    """How many positions the model was made for, None where it counts none; and whether it has no other:
    learned or stored ones end, those that are computed (rotary, ALiBi) go on."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    goes_on = any(getattr(text, name, None) for name in COMPUTED)
    return (limit if isinstance(limit, int) and limit > 0 else None), not goes_on


def reference_of(model: Model, reference: str) -> Model | None:
    """The model that losses compare with, where it is not the one the run starts from.

    reference: `start` (that one), or a folder or hub id of another. Revision and precision are the
    model's own where the two have a base in common.
    """
    if reference == "start":
        return None
    unsaid = {"config": None, "tokenizer": None, "chat_template": None, "lora": None}
    held = {"adapter": "same", "gradient_checkpointing": False}
    other = model.model_copy(update={"name": reference, **unsaid, **held})
    shared = (adapter_base(other) or other.name) in (model.name, adapter_base(model))
    return other if shared else other.model_copy(update={"revision": None})


def check_reference(
    reference: Model, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> None:
    """Refuse another reference whose tokens are not the policy's, before any weights are loaded.

    `tokenizer` and `config` are the policy's. Raises `RecipeError`.
    """
    theirs = config_of(reference)
    if theirs.vocab_size != config.vocab_size:
        raise RecipeError(
            f"reference {reference.name}: its vocabulary has {theirs.vocab_size} tokens, the policy's "
            f"{config.vocab_size}; log-probabilities of other tokens cannot be compared"
        )
    folders = [name for name in (reference.name, adapter_base(reference)) if name]
    # An adapter that was saved without a tokenizer, on a base without one, says nothing of its tokens.
    if not any(map(has_tokenizer, folders)):
        return
    if tokenizer_of(reference).get_vocab() != tokenizer.get_vocab():
        raise RecipeError(
            f"reference {reference.name}: its tokenizer gives other ids than the policy's; "
            "log-probabilities of other tokens cannot be compared"
        )
