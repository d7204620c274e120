"""Which adapters are exact where: one list, asked at every door through which an adapter comes in.

PEFT has forty kinds of adapters and LoRA has thirty options, and none of onestage's doors can do them
all: two adapters are one of a larger rank only while each is a sum of products B A; a layer that is
merged into a weight which another layer shares changes both; a prompt that is prepended lies outside the
model. What is not on the list was not compared with PEFT's own result (tests/models/test_features.py
compares what is), and is refused with what helps instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from onestage.models.loading import LoadError


class Door(StrEnum):
    """What is to be done with an adapter, in the words of its refusal."""

    ASKED = "asked for what it says of a text"
    TRAINED = "trained further (model.adapter: same)"
    MERGED = "merged into its base (model.adapter: merge)"
    WHOLE = "made one model with its base"
    STACKED = "stacked on"
    MIXED = "merged with other models"
    SERVED = "handed to another engine"
    LOADED = "loaded by another engine as it is"


ADVICE = {
    Door.ASKED: "merge it into its base with PEFT (merge_and_unload) where that can be done",
    Door.TRAINED: "set model.adapter: merge, or train a new adapter",
    Door.MERGED: "train it further (model.adapter: same), or give a whole model",
    Door.WHOLE: "serve it as it is with `onestage serve --engine transformers`",
    Door.STACKED: "use merge",
    Door.MIXED: "merge it into its base with PEFT and give the whole model",
    Door.SERVED: "sample with `rollout.engine: transformers`, which runs the policy itself",
    Door.LOADED: "hand it over merged into its base (`lora: merged`)",
}
ALONE = frozenset({Door.ASKED, Door.TRAINED, Door.MERGED, Door.WHOLE})
KINDS: dict[str, frozenset[Door]] = {
    "LORA": frozenset(Door),
    **dict.fromkeys(("IA3", "LOHA", "LOKR", "OFT", "BOFT", "HRA"), ALONE | {Door.SERVED}),
    **dict.fromkeys(("VERA", "TRAINABLE_TOKENS"), ALONE | {Door.SERVED}),
    "LN_TUNING": ALONE,
    # Its ranks are reallocated by a call between steps, which a run of ours does not make.
    "ADALORA": frozenset({Door.ASKED, Door.MERGED, Door.WHOLE}),
}
"""Where each kind of adapter is exact; others lie outside the layers, or were not compared."""
PRODUCT = frozenset(
    (
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("fan_in_fan_out", "inference_mode", "task_type", "peft_type", "auto_mapping"),
        *("base_model_name_or_path", "revision", "peft_version", "init_lora_weights"),
        *("megatron_core", "runtime_config", "qalora_group_size", "eva_config"),
    )
)
"""Options of LoRA that say which s B A lies where, and no more."""
SAME_BASE = (True, False, "gaussian", "orthogonal", "eva")
"""Initial values that leave the base's weights as they are. Others (PiSSA, OLoRA) take the product off
them, each time that the adapter is loaded."""
OPTIONS: dict[str, frozenset[Door]] = {
    "use_dora": ALONE | {Door.SERVED},
    "bias": ALONE | {Door.SERVED},
    "target_parameters": ALONE | {Door.SERVED},
    "modules_to_save": ALONE | {Door.SERVED},
    "trainable_token_indices": ALONE,
    "ensure_weight_tying": ALONE,
    "lora_bias": frozenset({Door.ASKED, Door.TRAINED}),
    "layer_replication": frozenset({Door.ASKED, Door.TRAINED}),
    "init_lora_weights: pissa": ALONE,
    "init_lora_weights: olora": ALONE,
}
"""Where the other options of LoRA are exact; what is not named here is exact nowhere."""
SHARING = frozenset({Door.ASKED, Door.TRAINED, Door.WHOLE})
"""Where adapters of a tied weight are exact: a layer runs with its own, but what is added to the weight
in one place is added in both, but for a whole model, which can have two (`untied.py`)."""


def require(config: Any, door: Door, name: str) -> None:
    """Raise `LoadError` where an adapter of this configuration is not exact at a door."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    odd = [option for option in options_of(config) if door not in OPTIONS.get(option, ())]
    if door not in KINDS.get(kind, ()) or odd:
        options = f" with {', '.join(odd)}" if odd else ""
        raise LoadError(
            f"{name} is an adapter of type {kind}{options}, which cannot be {door}; {ADVICE[door]}"
        )


def require_untied(model: Any, door: Door, name: str) -> None:
    """Raise `LoadError` where an adapter (on PEFT's model, loaded) adapts tied weights, which a door
    cannot have."""
    tied = sorted(adapted_ties(model))
    if tied and door not in SHARING:
        raise LoadError(
            f"{name} adapts {', '.join(tied)}, whose weight is tied to another layer's; it cannot be "
            f"{door}; {ADVICE[door]}"
        )


def options_of(config: Any) -> list[str]:
    """The options of an adapter that make it more than a product, as messages name them."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        return ["modules_to_save"] if getattr(config, "modules_to_save", None) else []
    plain = type(config)()
    found = [
        name
        for name, value in vars(config).items()
        if name not in PRODUCT and value and value != getattr(plain, name, None)
    ]
    start = config.init_lora_weights
    if start not in SAME_BASE:
        found.append(f"init_lora_weights: {start}")
    return found


def adapted_ties(model: Any) -> Iterator[str]:
    """The layers of tied weights that have an adapter of their own, which the other does not follow."""
    base = model.get_base_model()
    if not getattr(base.config.get_text_config(), "tie_word_embeddings", False):
        return
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    if all(_of_tokens(end) for end in ends):  # PEFT puts those on both
        return
    for name, layer in base.named_modules():
        if any(layer is end for end in ends) and _adapted(layer):
            yield name


def _of_tokens(layer: Any) -> bool:
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import TrainableTokensWrapper

    return isinstance(layer, TrainableTokensLayer | TrainableTokensWrapper)


def _adapted(layer: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper)
