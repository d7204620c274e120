"""Models in: plain transformers and PEFT folders, nothing of our own.

A folder with an adapter is loaded on its base and trained further, and the run starts (and measures its
reference) from there. `adapter` says whether it is trained itself (`same`), merged into its base first
(`merge`: see `start`), or kept under a new one (`stack`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from onestage.models import four_bits
from onestage.models.adapters import (
    adapted,
    continued,
    preserved_in,
    put_on_top,
    require_given,
)
from onestage.models.attention import NAME as FOREST_ATTENTION
from onestage.models.endings import begin_as, settle_beside, stop_at_markers
from onestage.models.features import Door
from onestage.models.fingerprint import digest, digest_of_settings
from onestage.models.lent import noise_of
from onestage.models.loading import check_files, reading, require_whole
from onestage.models.model import Lora, Model, Precision
from onestage.models.policy import Policy
from onestage.models.preserved import FILE
from onestage.models.resized import resize
from onestage.models.reward_model import (
    auto_class,
    check_head,
    check_task,
    is_classifier,
    is_judge,
    settle,
)
from onestage.models.save import save_model
from onestage.models.source import (
    adapter_base,
    adapter_task,
    check_adapter,
    check_vocabulary,
    config_of,
    is_nested,
    revision_of,
    text_part_note,
    tokenizer_of,
)
from onestage.models.text_part import text_part
from onestage.models.yardstick import own_attention, switches
from onestage.randomness import seed_torch

Held = Literal["cpu", "meta"]
HEADS = ("lm_head.", "embed_out.")
"""Of a language model, how the names of its head begin: a reward model made of it has another."""


@dataclass(frozen=True)
class Loaded:
    """A model, its tokenizer, and the fingerprint of what the run starts from."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    notes: list[str] = field(default_factory=list)


def load(
    source: Model,
    device: torch.device | str = "cpu",
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
    door: Door = Door.TRAINED,
    held: Held | None = None,
) -> Loaded:
    """Load or make the model with what is to be trained set to require gradients.

    device: where it will compute; tokenizer: the model's, where it was loaded before; seed: of fresh
    weights and adapters; door: what an earlier adapter is wanted for; held: where its weights lie until
    they are laid out on many devices (`sharding`): `meta` reads none, and gives no fingerprint. Raises
    `ValueError` for a model that cannot be had as the section says.
    """
    check_adapter(source)
    config, tokenizer = config_of(source), tokenizer or tokenizer_of(source)
    check_vocabulary(tokenizer, config)
    earlier = adapter_base(source) is not None
    if earlier:
        kind = adapter_task(str(source.name))
        check_task(source.task, source.name, config, kind, source.adapter)
    model = _without_dropout(load_whole(source, config, device, seed, held))
    if source.config is not None:
        begin_as(model, tokenizer, source.config if isinstance(source.config, dict) else {})
    if source.task == "reward":
        check_head(model)
        settle(model, tokenizer)
    notes = text_part_note(source)
    seed_torch(seed)  # a fresh adapter is a function of the seed
    with _weightless() if held == "meta" else nullcontext():
        model, fingerprint = _adapted(source, model, door)
    if earlier:
        what = "goes on with" if source.adapter == "same" else "adds an adapter to"
        settle_beside(model, str(source.name))
        notes.append(f"training {what} the adapter in {source.name}")
        if k := preserved_in(source) if door == Door.TRAINED else 0:
            notes.append(
                f"its update stays off the {k} strongest directions of each weight ({FILE})"
            )
    if source.gradient_checkpointing:
        _checkpoint_gradients(model)
    stop_at_markers(model, tokenizer)
    return Loaded(model, tokenizer, fingerprint, notes)


def _adapted(source: Model, model: Any, door: Door) -> tuple[Any, str]:
    """The model with its adapters, earlier and fresh, and the fingerprint of what it starts from."""
    earlier = adapter_base(source) is not None
    if earlier:
        model = continued(source, model, door)
    # Of the model as the run starts from it: a fresh adapter changes nothing yet, an earlier one does.
    fingerprint = fingerprint_of(model)
    if k := preserved_in(source) if earlier and door == Door.TRAINED else 0:
        fingerprint += f"-off-{k}"  # the same weights with or without, and another run
    if earlier and source.adapter == "stack":
        assert source.lora is not None
        put_on_top(source.lora, model)
    elif source.lora is not None:
        model = adapted(source.lora, model, source.task, source.revision)
    return model, fingerprint


def given(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lora: Lora | None = None,
    base: Path | None = None,
    keep: bool = False,
    seed: int = 0,
    gradient_checkpointing: bool = False,
) -> Loaded:
    """A model that is in memory already, as the start of a run; it is changed in place (`lent` puts back
    what is not its weights).

    lora: train fresh adapters on it; base: the folder that it is then written to, since a saved adapter
    is worth what its base is worth, and nobody else has this one; keep: leave what lies there (another
    process wrote it, or the run that is resumed); seed: of the adapters. The model's dropout is switched
    off and its attention becomes one that knows forests, as for a loaded one.

    Raises `ValueError` for a tokenizer of another vocabulary, for a model that has adapters where more
    are asked for, and for `lora` without `base`.
    """
    whole = not hasattr(model, "peft_config")
    if not whole:
        require_given(model)
    if lora is not None and not whole:
        raise ValueError("the model that is given has adapters already: leave model.lora out")
    if lora is not None and base is None:
        raise ValueError("adapters of a model that is given need a folder for their base")
    inner = model if whole else model.get_base_model()
    check_vocabulary(tokenizer, inner.config)
    _require_weights(model, lora is not None)
    task = "reward" if is_judge(inner) else "causal"
    if task == "reward":
        if whole:
            check_head(model)
        settle(inner, tokenizer)
    _use_forest_attention(inner, inner.device)
    four_bits.trainable(_without_dropout(inner))
    fingerprint = fingerprint_of(model)
    if lora is not None and base is not None:
        if not (keep and base.exists()):
            save_model(model, tokenizer, base)
        model.name_or_path = str(base.resolve())  # PEFT writes this name beside the adapter
        seed_torch(seed)
        model = adapted(lora, model, task)  # type: ignore[arg-type]
    if gradient_checkpointing:
        _checkpoint_gradients(model)
    stop_at_markers(model, tokenizer)
    return Loaded(model, tokenizer, fingerprint)


def _require_weights(model: Any, adapted: bool) -> None:
    """Raise `ValueError` for a model without weights, or of which none is trained."""
    if any(weight.is_meta for weight in model.parameters()):
        raise ValueError(
            "the model that is given has no weights (some lie on the meta device); load it with "
            "from_pretrained"
        )
    if not adapted and not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(
            "the model that is given has requires_grad off for every weight, so nothing of it would be "
            "trained; set it where it shall be, or give lora"
        )


def open(
    name: str | Path,
    dtype: Precision = "auto",
    tokenizer: str | None = None,
    revision: str | None = None,
) -> Policy:
    """A model to be asked, not trained, on the device there is: `policy(row)` gives log-probabilities.

    name: any folder that training leaves, adapters included, or a hub id; tokenizer: a folder or hub id
    of another one than the model's own, which is found as `policy.tokenizer`; revision: of the hub.
    """
    source = Model(name=str(name), tokenizer=tokenizer, dtype=dtype, revision=revision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = load(source, device, door=Door.ASKED)
    return Policy(found.model.eval(), found.tokenizer)


def load_whole(
    source: Model,
    config: PretrainedConfig,
    device: torch.device | str = "cpu",
    seed: int = 0,
    held: Held | None = None,
) -> Any:
    """The model without adapters, made as transformers makes it, then given an attention that knows
    forests where it can change its own.

    Raises `ValueError` where what is stored is no model for the task.
    """
    check_task(source.task, source.name, config, None, source.adapter)
    where = device if held is None else held
    if held == "meta":
        model = _shape(source, config)
    else:
        model = _built(source, config, where, source.attn_implementation, seed)
    if source.attn_implementation is None:
        _use_forest_attention(model, torch.device(device))
    return model


def fingerprint_of(model: Any) -> str:
    """What a run that starts from this model is known by: its weights, their precision, and the settings
    that decide what it says; nothing of a model that has no weights (`meta`)."""
    if model.device.type == "meta":
        return ""
    precision = str(model.dtype).removeprefix("torch.")
    return f"{digest(model)}-{precision}-s{digest_of_settings(model)}"


def _built(
    source: Model,
    config: PretrainedConfig,
    device: torch.device | str,
    attention: str | None,
    seed: int,
) -> Any:
    how = {} if attention is None else {"attn_implementation": attention}
    seed_torch(seed)  # fresh weights, or a fresh head, are a function of the seed
    if source.config is not None:
        if source.task == "reward":
            config.num_labels = 1
        with reading("model.config"):
            model = auto_class(source.task).from_config(config, **how)
        return model.to(dtype=_dtype(source.dtype, torch.float32), device=device)
    options: dict[str, Any] = {"dtype": source.dtype, **how}
    if source.load_in_4bit:
        options |= {"quantization_config": four_bits.settings(), "device_map": {"": str(device)}}
    if source.task == "reward":
        options["num_labels"] = 1
    name = adapter_base(source) or str(source.name)
    check_files(name)
    with reading(name):
        model, report = auto_class(source.task).from_pretrained(
            name,
            revision=revision_of(source),
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # named, with all others, below
            **options,
        )
    fresh = source.task == "reward" and not is_classifier(config)
    require_whole(name, report, fresh="score." if fresh else None, unused=HEADS if fresh else ())
    if is_nested(model.config):
        model = text_part(model)
    resize(model, config.vocab_size)
    # Also of a folder that is stored in 4 bits, which nobody needs to ask for.
    return four_bits.trainable(model if source.load_in_4bit else model.to(device))


def _shape(source: Model, config: PretrainedConfig) -> Any:
    """The model as `_built` makes it, without any weight: names and shapes (on `meta`)."""
    how = {"attn_implementation": source.attn_implementation} if source.attn_implementation else {}
    if source.task == "reward":
        config.num_labels = 1
    with torch.device("meta"), reading(str(source.name)):
        model = auto_class(source.task).from_config(
            config, trust_remote_code=source.trust_remote_code, **how
        )
        return text_part(model) if is_nested(model.config) else model


@contextmanager
def _weightless() -> Iterator[None]:
    """Inside, weights are names and shapes (`meta`): what a folder holds of them goes nowhere."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*non-meta parameter in the checkpoint to a meta")
        yield


def _without_dropout(model: Any) -> Any:
    """Switch off the base model's own dropout, and the noise of its routers: policy and reference must
    be the same function at step 0 (TRL does so with dropout for DPO and KTO). Dropout of adapters
    (`lora.dropout`) stays as asked for."""
    for module, name, _ in noise_of(model):
        setattr(module, name, 0.0)
    return model


def _checkpoint_gradients(model: Any) -> None:
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    inner.gradient_checkpointing_enable({"use_reentrant": False})
    inner.enable_input_require_grads()


def _dtype(name: Precision, default: torch.dtype) -> torch.dtype:
    return default if name == "auto" else getattr(torch, name)


def _use_forest_attention(model: Any, device: torch.device) -> None:
    """An attention that knows forests, where the model can be given one: FlexAttention on CUDA, else
    ours in the place of scaled-dot-product attention. Where it cannot, its own stays: eager attention
    may hold what no other has (sinks, soft caps, the causal mask itself)."""
    own = own_attention(model)
    choices = ["flex_attention"] if device.type == "cuda" else []
    if own == "sdpa":
        choices.append(FOREST_ATTENTION)
    for attention in choices if switches(model) else ():
        try:
            model.set_attn_implementation(attention)
            return
        except (ValueError, ImportError):
            continue
