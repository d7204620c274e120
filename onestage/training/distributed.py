"""What a recipe says of many devices: the section `distributed`, and what a launcher's file says of it.

`accelerate launch` reads a file of its own and hands it on in the environment. What such a file asks of
FSDP2 becomes the section; what asks for another engine is refused in the words of this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from onestage.config import RecipeError, Section

Sharding = Literal["none", "full", "hybrid"]
YES = frozenset({"1", "true", "yes", "y", "on", "t"})
OLD = {
    "FULL_SHARD": "sharding: full",
    "SHARD_GRAD_OP": "sharding: full, reshard_after_forward: false",
    "NO_SHARD": "sharding: none",
    "HYBRID_SHARD": "sharding: hybrid",
    "HYBRID_SHARD_ZERO2": "sharding: hybrid, reshard_after_forward: false",
}
"""FSDP1's strategies in our words; a file has them by name or by number, from 1."""
ZERO = {
    "2": "sharding: full, reshard_after_forward: false",
    "3": "sharding: full",
}
"""DeepSpeed's stages in our words."""


class Distributed(Section):
    """How weights, gradients and the optimiser's state lie on many devices (torch's FSDP2)."""

    sharding: Sharding = "none"
    """`none`: whole on each. `full`: in parts over all. `hybrid`: in parts over those of a node, and
    each node has all of them."""
    reshard_after_forward: bool = True
    """Whether a layer's weights are let go of after its forward pass, and sent again for the backward
    pass: less memory, half as much more to send."""
    cpu_offload: bool = False
    """Whether parts lie in the host's memory while they are not used."""
    activation_checkpointing: bool = False
    """The same as `model.gradient_checkpointing`."""


def of_launcher(section: Distributed, environment: Mapping[str, str]) -> Distributed:
    """The section, with what the launcher's file says where the recipe says nothing.

    Raises `RecipeError` for an engine that is not ours, and where file and recipe contradict.
    """
    _refuse_others(environment)
    if not _is(environment, "ACCELERATE_USE_FSDP"):
        return section
    copies = int(environment.get("PARALLELISM_CONFIG_DP_REPLICATE_SIZE") or 1)
    asked = {
        "sharding": "hybrid" if copies > 1 else "full",
        "reshard_after_forward": _is(environment, "FSDP_RESHARD_AFTER_FORWARD", "true"),
        "cpu_offload": _is(environment, "FSDP_OFFLOAD_PARAMS"),
        "activation_checkpointing": _is(environment, "FSDP_ACTIVATION_CHECKPOINTING"),
    }
    for key in sorted(section.model_fields_set):
        said = getattr(section, key)
        if said != asked[key]:
            raise RecipeError(
                f"distributed.{key} is {_yaml(said)} in the recipe and {_yaml(asked[key])} in "
                "accelerate's configuration; say it in one place, or the same in both"
            )
    return Distributed.model_validate(asked)


def _refuse_others(environment: Mapping[str, str]) -> None:
    """Raise for DeepSpeed, Megatron-LM and FSDP1."""
    if _is(environment, "ACCELERATE_USE_DEEPSPEED"):
        stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
        ours = ZERO.get(stage, "sharding: none" if stage in ("0", "1") else "sharding: full")
        offload = environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none")
        more = "" if offload == "none" else ", cpu_offload: true"
        _refuse("DeepSpeed", ours + more)
    if _is(environment, "ACCELERATE_USE_MEGATRON_LM"):
        _refuse("Megatron-LM", "sharding: full")
    if _is(environment, "ACCELERATE_USE_FSDP") and environment.get("FSDP_VERSION", "1") != "2":
        strategy = environment.get("FSDP_SHARDING_STRATEGY", "FULL_SHARD")
        named = list(OLD)[int(strategy) - 1] if strategy in ("1", "2", "3", "4", "5") else strategy
        _refuse("FSDP1", OLD.get(named, "sharding: full"))


def _refuse(engine: str, ours: str) -> None:
    newer = " (or set fsdp_version: 2)" if engine == "FSDP1" else ""
    raise RecipeError(
        f"accelerate's configuration asks for {engine}, and onestage shards by FSDP2: take that part "
        f"out of the file{newer}, and write into the recipe `distributed: {{{ours}}}`"
    )


def _is(environment: Mapping[str, str], name: str, default: str = "false") -> bool:
    return environment.get(name, default).lower() in YES


def _yaml(value: bool | str) -> str:
    return str(value).lower()
