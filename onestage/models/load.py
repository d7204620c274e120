"""Models in and out: plain transformers and PEFT folders, nothing of our own.

A run's model is a folder or hub name, or a fresh one from a transformers config. A folder with
`adapter_config.json` is a trained adapter on its base: it is loaded and trained further, and the run
starts (and measures its reference) from there. `adapter` says whether it is trained further itself
(`same`), merged into its base first (`merge`: see `starting`), or kept under a new one (`stack`).

Models to be asked, not trained: any folder that training leaves, on the device there is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from onestage.models.attention import NAME as FOREST_ATTENTION
from onestage.models.policy import Task
from onestage.models.reward_model import adapter_task, auto_class, check_head, check_task, settle
from onestage.models.save import weights_digest
from onestage.models.stacking import stack

Precision = Literal["auto", "float32", "bfloat16", "float16"]


AdapterPolicy = Literal["same", "merge", "stack"]


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021), with PEFT's meaning of each name."""

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from and how it is held. Exactly one of `name` and `config` is given."""

    name: str | None = None
    config: Mapping[str, Any] | str | None = None
    task: Task = "causal"
    tokenizer: str | None = None
    revision: str | None = None
    dtype: Precision = "auto"
    attn_implementation: str | None = None
    load_in_4bit: bool = False
    gradient_checkpointing: bool = False
    chat_template: str | None = None
    lora: Lora | None = None
    adapter: AdapterPolicy = "same"
    """What becomes of an adapter that `name` holds."""
    trust_remote_code: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Loaded:
    """A model, its tokenizer, and the fingerprint of what the run starts from."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    notes: list[str] = field(default_factory=list)


def adapter_base(source: ModelSource) -> str | None:
    """The base of an adapter folder; None where `name` is a whole model."""
    if source.name is None or not (Path(source.name) / "adapter_config.json").is_file():
        return None
    from peft import PeftConfig

    return PeftConfig.from_pretrained(source.name).base_model_name_or_path


def check_adapter(source: ModelSource) -> None:
    """Raise `ValueError` where the policy for an earlier adapter cannot be honoured."""
    earlier = adapter_base(source) is not None
    if not earlier and source.adapter != "same":
        raise ValueError(
            f"model.adapter: {source.adapter} needs an adapter folder, and {source.name} is none"
        )
    if earlier and source.adapter == "same" and source.lora is not None:
        raise ValueError(
            f"{source.name} is already an adapter, whose shape is fixed: remove model.lora to train "
            "it further, or set model.adapter to merge or stack"
        )


def check_trained(source: ModelSource) -> None:
    """As `check_adapter`, and refuse what could be loaded but not trained."""
    check_adapter(source)
    going_on = source.adapter == "same" and adapter_base(source) is not None
    if source.load_in_4bit and source.lora is None and not going_on:
        raise ValueError("model.load_in_4bit trains adapters only: add model.lora")


def load_config(source: ModelSource) -> PretrainedConfig:
    """The transformers config, without any weights."""
    if isinstance(source.config, str):
        return AutoConfig.from_pretrained(source.config, revision=source.revision)
    if source.config is not None:
        options = dict(source.config)
        if "model_type" not in options:
            raise ValueError("model.config needs model_type, for example `model_type: llama`")
        return AutoConfig.for_model(options.pop("model_type"), **options)
    return AutoConfig.from_pretrained(
        adapter_base(source) or str(source.name),
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
    )


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The tokenizer of the model, or the one that is named."""
    name = source.tokenizer or source.name
    if name is None:
        raise ValueError("model.config makes a fresh model: model.tokenizer must name a tokenizer")
    if source.tokenizer is None and not has_tokenizer(name):
        name = adapter_base(source) or name
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=source.trust_remote_code)
    if source.chat_template is not None:
        file = Path(source.chat_template)
        tokenizer.chat_template = file.read_text() if file.is_file() else source.chat_template
    return tokenizer


def has_tokenizer(name: str) -> bool:
    folder = Path(name)
    return not folder.is_dir() or any(folder.glob("tokenizer*"))


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Raise `ValueError` where the tokenizer can give an id that the model has no embedding for."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise ValueError(
            f"the tokenizer gives ids up to {highest}, but the model has {config.vocab_size} "
            "embeddings (0 to vocab_size - 1); they do not belong together"
        )


def load(
    source: ModelSource,
    device: torch.device | str = "cpu",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Loaded:
    """Load or make the model with what is to be trained set to require gradients.

    `tokenizer`: the source's, where it was loaded before.
    """
    if (source.name is None) == (source.config is None):
        raise ValueError("model: give exactly one of name and config")
    check_adapter(source)
    config, tokenizer = load_config(source), tokenizer or load_tokenizer(source)
    check_vocabulary(tokenizer, config)
    if adapter_base(source) is not None:
        kind = adapter_task(str(source.name))
        check_task(source.task, source.name, config, kind, source.adapter)
    model = _without_dropout(load_whole(source, config, device))
    if source.task == "reward":
        check_head(model)
        settle(model, tokenizer)
    fingerprint = f"{weights_digest(model)}-{str(model.dtype).removeprefix('torch.')}"
    notes: list[str] = []
    torch.manual_seed(source.seed)  # a fresh adapter is a function of the seed
    if adapter_base(source) is not None:
        model, fingerprint = _continued(source, model)
        what = "goes on with" if source.adapter == "same" else "adds an adapter to"
        notes.append(f"training {what} the adapter in {source.name}")
    elif source.lora is not None:
        model = _adapted(source.lora, model, source.task)
    if source.gradient_checkpointing:
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        inner.gradient_checkpointing_enable({"use_reentrant": False})
        inner.enable_input_require_grads()
    return Loaded(model, tokenizer, fingerprint, notes)


def check_lora(source: ModelSource, config: PretrainedConfig) -> None:
    """Raise `ValueError` where the model has no layers such as `lora` names; makes no weights."""
    if source.lora is not None:
        with torch.device("meta"):
            shape = auto_class(source.task).from_config(
                config, trust_remote_code=source.trust_remote_code
            )
            _adapted(source.lora, shape, source.task)


def load_whole(
    source: ModelSource, config: PretrainedConfig, device: torch.device | str = "cpu"
) -> Any:
    """The model without adapters, with the first attention of its device that it supports.

    Raises `ValueError` where what is stored is no model for the task.
    """
    check_task(source.task, source.name, config, None, source.adapter)
    wanted = source.attn_implementation
    choices = [wanted] if wanted else _attentions(config, torch.device(device))
    for attention in choices[:-1]:
        try:
            return _built(source, config, device, attention)
        except (ValueError, ImportError) as error:
            if "attention" not in str(error):
                raise
    return _built(source, config, device, choices[-1])


def _built(
    source: ModelSource, config: PretrainedConfig, device: torch.device | str, attention: str
) -> Any:
    torch.manual_seed(source.seed)  # fresh weights, or a fresh head, are a function of the seed
    if source.config is not None:
        if source.task == "reward":
            config.num_labels = 1
        model = auto_class(source.task).from_config(config, attn_implementation=attention)
        return model.to(dtype=_dtype(source.dtype, torch.float32), device=device)
    options: dict[str, Any] = {"dtype": source.dtype, "attn_implementation": attention}
    if source.load_in_4bit:
        options |= {"quantization_config": _four_bits(device), "device_map": {"": str(device)}}
    if source.task == "reward":
        options["num_labels"] = 1
    model = auto_class(source.task).from_pretrained(
        adapter_base(source) or str(source.name),
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
        **options,
    )
    return model if source.load_in_4bit else model.to(device)


def _without_dropout(model: Any) -> Any:
    """Switch off the base model's own dropout: policy and reference must be the same function at
    step 0 (TRL does so for DPO and KTO). Dropout of adapters (`lora.dropout`) stays as asked for."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "activation_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def _dtype(name: Precision, default: torch.dtype) -> torch.dtype:
    return default if name == "auto" else getattr(torch, name)


def _attentions(config: PretrainedConfig, device: torch.device) -> list[str]:
    """Attention implementations to try, best first. A soft cap rules scaled-dot-product out."""
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    last = "eager" if capped else FOREST_ATTENTION
    return ["flex_attention", last] if device.type == "cuda" else [last]


def _four_bits(device: torch.device | str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "model.load_in_4bit needs the package bitsandbytes: pip install 'onestage[quantized]'"
        )
    if torch.device(device).type == "cpu":
        # Measured with bitsandbytes 0.50: on the CPU its product has no backward pass through the
        # input, so gradients of all but the last adapters are wrong by their whole size, silently.
        raise ValueError("model.load_in_4bit needs a GPU: bitsandbytes cannot train on the CPU")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _adapted(lora: Lora, model: Any, task: Task = "causal") -> Any:
    from peft import get_peft_model

    adapted: Any = get_peft_model(model, _lora_config(lora, task))
    _refuse_adapted_head(adapted)
    return adapted


def _lora_config(lora: Lora, task: Task = "causal") -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides; fractions are fine
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        bias="none",
        task_type="SEQ_CLS" if task == "reward" else "CAUSAL_LM",  # its head is trained whole
    )


def _refuse_adapted_head(adapted: Any) -> None:
    head = adapted.get_base_model().get_output_embeddings()
    if hasattr(head, "base_layer"):
        raise ValueError(
            "model.lora.target_modules adapts the output head, which the chunked head cannot honour; "
            "leave it out (`all-linear` does)"
        )


def _continued(source: ModelSource, model: Any) -> tuple[Any, str]:
    """The model with its earlier adapter, to be trained itself or kept under a new one."""
    from peft import PeftModel

    if source.adapter == "merge":
        raise ValueError("a merged adapter is loaded from the folder it was merged into (starting)")
    stacked = source.adapter == "stack"
    adapted = PeftModel.from_pretrained(model, str(source.name), is_trainable=not stacked)
    fingerprint = f"{weights_digest(adapted)}-{str(model.dtype).removeprefix('torch.')}"
    if stacked:
        if source.lora is None:
            raise ValueError("model.adapter: stack trains a new adapter: add model.lora")
        stack(adapted, _lora_config(source.lora))
        _refuse_adapted_head(adapted)
    return adapted, fingerprint


def loaded(model: str | Path, dtype: Precision = "auto", tokenizer: str | None = None) -> Loaded:
    """A model folder, adapter folder or hub id, ready to be asked, with its tokenizer or another."""
    source = ModelSource(name=str(model), tokenizer=tokenizer, dtype=dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = load(source, device)
    found.model.eval()
    return found
