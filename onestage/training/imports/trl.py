"""TRL: the YAML of `trl sft --config`, or the arguments of an `SFTConfig`, `DPOConfig`, ... as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.training.imports import Carried, Tool
from onestage.training.imports._losses import (
    LOSSES,
    answers_to_problems,
    judged,
    preference,
    strength,
    thumbs,
)
from onestage.training.imports._shared import (
    NOT_NEEDED,
    TRAINER,
    adapter,
    attention,
    epochs,
    files_of,
    halved,
    lost,
    named,
    precision,
    prompts,
    streams,
    trainer,
    whole_batch,
)

SAMPLING = frozenset(
    {"num_generations", "reward_funcs", "reward_weights", "scale_rewards", "num_iterations"}
    | {"epsilon", "epsilon_high", "max_completion_length", "vllm_mode", "steps_per_generation"}
)
"""Keys of its GRPO."""
COMPARING = frozenset(
    {"precompute_ref_log_probs", "rpo_alpha", "reference_free", "ref_model_init_kwargs"}
)
"""Keys of its DPO."""
WEIGHING = frozenset({"desirable_weight", "undesirable_weight"})
"""Keys of its KTO."""
LIKELIHOOD = ("nll", "chunked_nll", "dft")
"""`loss_type` of demonstrations."""


class TRL(Tool):
    title = "TRL"
    marks = frozenset(
        {"dataset_name", "dataset_train_split", "use_peft", "loss_type", "max_prompt_length"}
        | {"lora_target_modules", "lora_task_type", "dataset_config", "assistant_only_loss", "beta"}
        | {"dataset_mixture", "dataset_mixer", "max_seq_length"}
    )
    keys = {
        **TRAINER,
        "model_name_or_path": "model.name",
        "model_revision": "model.revision",
        "attn_implementation": "model.attn_implementation",
        "load_in_4bit": "model.load_in_4bit",
        "max_length": "train.max_length",
        "max_seq_length": "train.max_length",
        "chat_template": "model.chat_template",
    }
    unneeded = {
        **NOT_NEEDED,
        "assistant_only_loss": "only what the assistant says is trained on",
        "completion_only_loss": "only completions are trained on",
        "dataset_text_field": "columns are recognised; data.NAME.columns renames them",
        "packing_strategy": "rows are packed by trees",
        "max_prompt_length": "prompts are not cut unless train.overflow says so",
        "use_vllm": "give rollout: {engine: vllm}",
        "output_dir": "give --out to onestage train",
        "run_name": "give --out to onestage train",
        "lora_task_type": "model.task says what is trained",
        "log_level": "what a run says goes to its folder",
        "logging_strategy": "by train.logging_steps",
        "hub_model_id": "onestage push",
        "hub_strategy": "onestage push",
    }

    def rest(self, carried: Carried, devices: int) -> None:
        trainer(carried, devices)
        attention(carried)
        precision(carried, carried.take("dtype") or carried.take("torch_dtype"))
        if carried.take("use_peft", "lora_r" in carried.given):
            usual = {"r": 16, "alpha": 32, "dropout": 0.05}
            names = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
            adapter(carried, *names, usual)
        self._data(carried)
        self._objective(carried)

    def _data(self, carried: Carried) -> None:
        subset, split = carried.take("dataset_config"), carried.take("dataset_train_split")
        held_out, found = carried.take("dataset_test_split"), []
        one = carried.take("dataset_name")
        many = [{"path": one, "name": subset, "split": split}] if one else []
        mixed = carried.take("dataset_mixture", {})
        many += [_mixed(entry) for entry in mixed.get("datasets", [])]
        lost(carried, "mixture", set(mixed) - {"datasets"})
        for entry in [*many, *carried.take("datasets", [])]:
            files = files_of(entry)
            for path in files:
                stream = {"name": named(path), "path": path}
                stream |= {"subset": entry["name"]} if entry.get("name") else {}
                stream |= {"split": entry["split"]} if entry.get("split") else {}
                stream |= {"eval_split": held_out} if held_out else {}
                found.append(stream)
            left = set(entry) - {"path", "data_files", "name", "split"}
            lost(carried, named(files[0]), left)
        streams(carried, found)

    def _objective(self, carried: Carried) -> None:
        given = carried.given
        loss = given.get("loss_type")
        if given.get("lora_task_type") == "SEQ_CLS" or "center_rewards_coefficient" in given:
            judged(carried)
            return
        # Its older DPO and KTO have max_completion_length too.
        paired = loss in (*LOSSES, *LIKELIHOOD) or (COMPARING | WEIGHING) & set(given)
        if SAMPLING & set(given) and not paired:
            answers_to_problems(carried, carried.take("beta"), "dapo")
            prompts(carried)
            return
        if carried.given.get("completion_only_loss") is False:
            carried.notes.append("completion_only_loss false: here prompts are never trained on")
        if isinstance(loss, list) or not (loss in LOSSES or loss in (None, *LIKELIHOOD)):
            carried.notes.append(f"loss_type {loss!r} is not known here: onestage list objectives")
            return
        beta = carried.take("beta")
        compared = loss is None and (beta is not None or (COMPARING | WEIGHING) & set(given))
        if loss in LIKELIHOOD or (loss is None and not compared):
            carried.take("loss_type")
            strength(carried, "sft", None, reweight="dft" if loss == "dft" else None)
            self._spoken(carried)
            return
        carried.take("loss_type")
        if loss == "kto" or WEIGHING & set(given):
            thumbs(carried, beta, "desirable_weight", "undesirable_weight")
            return
        preference(carried, str(loss or "sigmoid"), beta)
        if loss is None:
            carried.notes.append(
                "beta without loss_type is read as DPO's; of KTO or GRPO name the objective yourself"
            )

    def _spoken(self, carried: Carried) -> None:
        """Whose words are trained on, which is another thing there where nothing is said."""
        if carried.given.get("assistant_only_loss") is not True:
            carried.unsaid.append(
                "without assistant_only_loss TRL trains on all of a conversation, the user's words too; "
                "here only what the assistant says is trained on"
            )

    def usual(self, carried: Carried, devices: int) -> Mapping[str, Any]:
        objective = carried.recipe.get("objective")
        name = objective["name"] if isinstance(objective, dict) else objective
        rate = {"sft": 2e-5, "bradley_terry": 1e-4}.get(str(name), 1e-6)
        found = {**epochs(carried, 3.0), "train.learning_rate": rate, **halved(carried)}
        if name == "grpo":
            # 8 answers a device: as many as there are to a problem.
            found["rollout.max_completion_length"] = 512
            return {**found, **whole_batch(carried, devices)}
        return {**found, **whole_batch(carried, 8 * devices)}


def _mixed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A data set of `dataset_mixture`, in the words of `datasets`."""
    words = {"id": "path", "config": "name"}
    told = {words.get(key, key): value for key, value in entry.items()}
    return {key: value for key, value in told.items() if (key, value) != ("weight", 1.0)}
