"""ms-swift: the arguments of `swift sft` and `swift rlhf`, as its YAML or JSON of arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.training.imports import Carried, Tool, objective_of
from onestage.training.imports._losses import (
    LOSSES,
    THUMBS,
    answers_to_problems,
    judged,
    preference,
    single,
    strength,
    thumbs,
    with_likelihood,
)
from onestage.training.imports._shared import (
    NOT_NEEDED,
    TRAINER,
    adapter,
    answered,
    epochs,
    named,
    precision,
    prompts,
    streams,
    trainer,
)

KNOWN = (None, "dpo", "kto", "cpo", "orpo", "simpo", "rm", "grpo")
"""`rlhf_type`; those that are not here are left."""
LONGER = {"delete": "drop", "left": "truncate_prompt"}
"""`truncation_strategy`, but for those that cut answers."""


class MsSwift(Tool):
    title = "ms-swift"
    marks = frozenset(
        {"rlhf_type", "train_type", "tuner_type", "split_dataset_ratio", "dataset", "loss_scale"}
        | {"target_modules", "lora_rank", "rpo_alpha", "interleave_prob", "val_dataset", "model"}
    )
    commands = frozenset({"swift"})
    keys = {
        **TRAINER,
        "model": "model.name",
        "model_revision": "model.revision",
        "max_length": "train.max_length",
    }
    unneeded = {
        **NOT_NEEDED,
        "attn_impl": "attention is chosen by device (model.attn_implementation)",
        "output_dir": "give --out to onestage train",
        "load_from_cache_file": "caches are keyed by content",
        "model_author": "onestage push writes a card",
        "model_name": "onestage push writes a card",
        "model_type": "the model is read from its folder",
    }

    def rest(self, carried: Carried, devices: int) -> None:
        self._accumulated(carried, devices)
        trainer(carried, devices, usual=1)
        precision(carried, carried.take("torch_dtype"))
        kind = carried.given.get("tuner_type", carried.given.get("train_type", "lora"))
        if kind in ("lora", "full"):
            carried.take("tuner_type")
            carried.take("train_type")
        if kind == "lora":
            usual = {"r": 8, "alpha": 32, "dropout": 0.05}
            names = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules")
            adapter(carried, *names, usual, everywhere=True)
        if carried.given.get("quant_bits") == 4:
            carried.put("model.load_in_4bit", carried.take("quant_bits") == 4)
        self._objective(carried)
        self._data(carried)
        longer = carried.given.get("truncation_strategy")
        grpo = objective_of(carried) == "grpo"  # its max_length is a prompt's
        if longer in LONGER or (longer is None and ("max_length" in carried.given or grpo)):
            carried.take("truncation_strategy")
            carried.put("train.overflow", LONGER[longer or ("left" if grpo else "delete")])

    def _objective(self, carried: Carried) -> None:
        kind, loss = carried.given.get("rlhf_type"), single(carried)
        known = {"dpo": (*LOSSES, *THUMBS), "grpo": ("grpo", "dapo", "dr_grpo")}.get(
            str(kind), (loss,)
        )
        odd = loss is not None and (isinstance(loss, list) or loss not in known)
        odd = odd or carried.given.get("advantage_estimator", "grpo") != "grpo"
        if kind not in KNOWN or odd or carried.given.get("task_type", "causal_lm") != "causal_lm":
            return  # left, and so told
        carried.take("rlhf_type")
        if kind is None:
            strength(carried, "sft", None)
        elif kind == "rm":
            judged(carried)
        elif kind == "kto":
            thumbs(carried, carried.take("beta"), "desirable_weight", "undesirable_weight")
        elif kind == "grpo":
            answers_to_problems(carried, carried.take("beta", 0.04), "grpo")
            prompts(carried)
        else:
            self._preference(carried, kind)

    def _preference(self, carried: Carried, kind: str) -> None:
        beta = carried.take("beta")
        likelihood = carried.take("rpo_alpha") if kind == "dpo" else None
        if likelihood:
            strength(carried, "rpo", beta, sft_coef=likelihood)
        elif kind == "simpo":
            with_likelihood(carried, beta or 2.0, 1.0)
        elif kind == "cpo":
            strength(carried, "cpo", beta, sft_coef=carried.take("cpo_alpha"))
        else:
            loss = carried.take("loss_type", "sigmoid") if kind == "dpo" else kind
            if loss in THUMBS:
                thumbs(carried, beta, "desirable_weight", "undesirable_weight", loss)
            else:
                preference(carried, loss, beta)

    def usual(self, carried: Carried, devices: int) -> Mapping[str, Any]:
        grpo = objective_of(carried) == "grpo"
        found: dict[str, Any] = {
            **epochs(carried, 3.0),
            "train.learning_rate": 1e-4 if "lora" in carried.recipe["model"] else 1e-5,
            "train.lr_scheduler_type": "cosine",
            "train.weight_decay": 0.1,
            "train.adam_beta2": 0.95,
        }
        if grpo:
            found |= {"rollout.temperature": 0.9, "rollout.max_completion_length": 512}
            found["train.batch_size"] = max(1, devices // answered(carried))
        return found

    def _accumulated(self, carried: Carried, devices: int) -> None:
        """Where nothing is said of accumulation, but for GRPO it makes 16 records a step, or more."""
        given = carried.given
        if given.get("gradient_accumulation_steps") is None and given.get("rlhf_type") != "grpo":
            each = given.get("per_device_train_batch_size")
            each = 1 if each is None else each
            if isinstance(each, int):
                steps = max(1, -(-16 // (each * devices)))
                given |= {"per_device_train_batch_size": each, "gradient_accumulation_steps": steps}

    def _data(self, carried: Carried) -> None:
        given, held_out = _listed(carried.take("dataset")), _listed(carried.take("val_dataset"))
        parts = _listed(carried.take("interleave_prob"))
        text = carried.command in ("swift pt", "pt.py")
        plain = carried.given.pop("use_chat_template", not text) is False
        if text:
            carried.notes.append(
                "pt trains on every token of a row: here its rows are texts; where they are "
                "messages, say so by columns: {text: COLUMN} or convert them"
            )
        found = []
        for number, one in enumerate(given):
            path, subset, most = _place(one)
            stream: dict[str, Any] = {"name": named(path), "path": path}
            stream |= {"kind": "text"} if text else {} if plain else {"as_messages": True}
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
