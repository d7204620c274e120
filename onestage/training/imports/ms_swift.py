"""ms-swift: the arguments of `swift sft` and `swift rlhf`, as its YAML or JSON of arguments."""

from __future__ import annotations

from typing import Any

from onestage.training.imports import Carried, Tool
from onestage.training.imports._shared import (
    NOT_NEEDED,
    TRAINER,
    adapter,
    named,
    precision,
    streams,
    strength,
    trainer,
)

OBJECTIVES = {"dpo": "dpo", "kto": "kto", "cpo": "cpo", "orpo": "orpo", "simpo": "simpo"}
OBJECTIVES |= {"rm": "bradley_terry", "grpo": "grpo"}


class MsSwift(Tool):
    title = "ms-swift"
    marks = frozenset(
        {"rlhf_type", "train_type", "tuner_type", "split_dataset_ratio", "dataset", "loss_scale"}
        | {"target_modules", "lora_rank", "rpo_alpha", "interleave_prob", "val_dataset", "model"}
    )
    keys = {
        **TRAINER,
        "model": "model.name",
        "model_revision": "model.revision",
        "max_length": "train.max_length",
        "num_generations": "rollout.num_generations",
        "max_completion_length": "rollout.max_completion_length",
        "temperature": "rollout.temperature",
    }
    unneeded = {
        **NOT_NEEDED,
        "attn_impl": "attention is chosen by device (model.attn_implementation)",
        "output_dir": "give --out to onestage train",
        "model_author": "onestage push writes a card",
        "model_name": "onestage push writes a card",
        "use_chat_template": "the chat template is used where rows are messages",
        "model_type": "the model is read from its folder",
    }

    def rest(self, carried: Carried, devices: int) -> None:
        trainer(carried, devices)
        precision(carried, carried.take("torch_dtype"))
        kind = carried.given.get("tuner_type", carried.given.get("train_type", "lora"))
        if kind in ("lora", "full"):
            carried.take("tuner_type")
            carried.take("train_type")
        if kind == "lora":
            usual = {"r": 8, "alpha": 32, "dropout": 0.05}
            names = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules")
            adapter(carried, *names, usual)
        if carried.given.get("quant_bits") == 4:
            carried.put("model.load_in_4bit", carried.take("quant_bits") == 4)
        self._objective(carried)
        self._data(carried)

    def _objective(self, carried: Carried) -> None:
        kind = carried.given.get("rlhf_type")
        if kind is not None and kind not in OBJECTIVES:
            return  # left, and so told
        carried.take("rlhf_type")
        beta = carried.take("beta") if kind not in (None, "rm") else None  # else left, and so told
        likelihood = carried.take("rpo_alpha") if kind == "dpo" else None
        if kind == "rm":
            carried.put("model.task", "reward")
        name = "rpo" if likelihood else OBJECTIVES.get(str(kind), "sft")
        strength(carried, name, beta, sft_coef=likelihood)

    def _data(self, carried: Carried) -> None:
        given, held_out = _listed(carried.take("dataset")), _listed(carried.take("val_dataset"))
        parts = _listed(carried.take("interleave_prob"))
        found = []
        for number, one in enumerate(given):
            path, subset, most = _place(one)
            stream: dict[str, Any] = {"name": named(path), "path": path}
            stream |= {"subset": subset} if subset else {}
            stream |= {"limit": int(most)} if most.isdigit() else {}
            stream |= {"weight": float(parts[number])} if number < len(parts) else {}
            if number < len(held_out):
                stream["eval_path"], _, limit = _place(held_out[number])
                stream |= {"eval_limit": int(limit)} if limit.isdigit() else {}
            found.append(stream)
        for one in held_out[len(given) :]:
            carried.notes.append(f"val_dataset: {one} is of no stream; left out")
        if carried.take("split_dataset_ratio"):
            carried.notes.append(
                "split_dataset_ratio: no rows are split off; give a stream an eval_path"
            )
        streams(carried, found)


def _place(given: Any) -> tuple[str, str, str]:
    """(path, subset, number of rows) of `path:subset#number`; `hf::` in front names the hub, and what
    is of another one (`ms::`) stays as it is."""
    hub, _, name = str(given).rpartition("::")
    path, _, most = (name if hub.lower() in ("", "hf") else str(given)).partition("#")
    alone = "://" in path or "::" in path
    path, _, subset = (path, "", "") if alone else path.partition(":")
    return path, subset, most


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return given if isinstance(given, list) else str(given).split()
