"""TRL: the YAML of `trl sft --config`, or the arguments of an `SFTConfig`, `DPOConfig`, ... as YAML."""

from __future__ import annotations

from onestage.training.imports import Carried, Tool
from onestage.training.imports._shared import (
    NOT_NEEDED,
    TRAINER,
    adapter,
    files_of,
    lost,
    named,
    precision,
    streams,
    strength,
    trainer,
)

LOSSES = {
    "sigmoid": "dpo",
    "robust": "robust_dpo",
    "hinge": "slic",
    "ipo": "ipo",
    "bco_pair": "bco",
    "nca_pair": "nca",
    "apo_zero": "apo",
    "sppo_hard": "sppo",
    "kto": "kto",
    "apo_zero_unpaired": "apo",
}
"""`loss_type`, of pairs and of thumbs; those that are not here are left."""

LIKELIHOOD = ("nll", "chunked_nll", "dft")
"""`loss_type` of demonstrations."""

KNOWN = (*LOSSES, *LIKELIHOOD)


class TRL(Tool):
    title = "TRL"
    marks = frozenset(
        {"dataset_name", "dataset_train_split", "use_peft", "loss_type", "max_prompt_length"}
        | {"lora_target_modules", "lora_task_type", "dataset_config", "assistant_only_loss", "beta"}
    )
    keys = {
        **TRAINER,
        "model_name_or_path": "model.name",
        "model_revision": "model.revision",
        "attn_implementation": "model.attn_implementation",
        "load_in_4bit": "model.load_in_4bit",
        "max_length": "train.max_length",
        "max_completion_length": "rollout.max_completion_length",
        "num_generations": "rollout.num_generations",
        "temperature": "rollout.temperature",
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
        "lora_task_type": "it is a language model",
    }

    def rest(self, carried: Carried, devices: int) -> None:
        trainer(carried, devices)
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
        loss = carried.given.get("loss_type")
        if carried.given.get("completion_only_loss") is False:
            carried.notes.append("completion_only_loss false: here prompts are never trained on")
        if isinstance(loss, list) or (loss is not None and loss not in KNOWN):
            carried.notes.append(f"loss_type {loss!r} is not known here: onestage list objectives")
            return
        beta = carried.take("beta")
        if loss in LIKELIHOOD or (loss is None and beta is None):
            carried.take("loss_type")
            strength(carried, "sft", None, reweight="dft" if loss == "dft" else None)
            return
        carried.take("loss_type")
        smoothing = carried.take("label_smoothing") or None
        strength(carried, LOSSES.get(str(loss), "dpo"), beta, label_smoothing=smoothing)
        if loss is None:
            carried.notes.append(
                "beta without loss_type is read as DPO's; of KTO or GRPO name the objective yourself"
            )
