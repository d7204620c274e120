"""TRL: the YAML of `trl sft --config`, or the arguments of an `SFTConfig`, `DPOConfig`, ... as YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from onestage.training.imports import Carried, Tool, objective_of
from onestage.training.imports._losses import (
    LOSSES,
    THUMBS,
    answers_to_problems,
    judged,
    left_one_out,
    preference,
    single,
    strength,
    thumbs,
    with_likelihood,
)
from onestage.training.imports._shared import (
    CUT,
    NOT_NEEDED,
    TRAINER,
    adapter,
    attention,
    entries,
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
TRAINERS = ("sft", "dpo", "kto", "grpo", "rloo", "cpo", "orpo", "bco", "reward")
"""Words in the names of commands (`trl dpo`) and scripts (`dpo.py`, `reward_modeling.py`)."""
NAMELESS = frozenset("train training trainer run main finetune fine tune tuning script llm".split())
"""Words in the names of scripts that say of no trainer."""
OTHERS = ("online", "async", "self")
"""Words beside them in the names of what is another method."""
UNKNOWN = "?"
LOSSES_OF: Mapping[str, tuple[Any, ...]] = {
    "sft": (None, *LIKELIHOOD),
    "dpo": (None, *LOSSES),
    "kto": (None, *THUMBS),
    "cpo": (None, "sigmoid", "simpo"),
    **dict.fromkeys(("orpo", "bco"), (None,)),
}
"""`loss_type` of each that is here."""


class TRL(Tool):
    title = "TRL"
    marks = frozenset(
        {"dataset_name", "dataset_train_split", "use_peft", "loss_type", "max_prompt_length"}
        | {"lora_target_modules", "lora_task_type", "dataset_config", "assistant_only_loss", "beta"}
        | {"dataset_mixture", "dataset_mixer", "max_seq_length"}
    )
    commands = frozenset({"trl"})
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
        precise = carried.take("dtype") or carried.take("torch_dtype")
        whole = not carried.given.get("load_in_4bit") and "model_name_or_path" in carried.given
        if precise is None and whole:
            precise = "float32"
            carried.unsaid.append("dtype is not given: float32, the tool's own default")
        precision(carried, precise)
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
        mixed = mixed if isinstance(mixed, Mapping) else {"datasets": mixed}
        listed = entries(mixed.get("datasets", []), "dataset_mixture")
        many += [_mixed(entry) for entry in listed]
        lost(carried, "mixture", set(mixed) - {"datasets"})
        for entry in [*many, *entries(carried.take("datasets", []), "datasets")]:
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
        loss = single(carried)
        trainer = _trainer(carried.command) or self._guess(carried, loss)
        if trainer == UNKNOWN:
            carried.notes.append(f"what {carried.command!r} trains is not known here")
            return
        if trainer in LOSSES_OF and (isinstance(loss, list) or loss not in LOSSES_OF[trainer]):
            carried.notes.append(
                f"loss_type {loss!r} of {trainer} is not known here: onestage list objectives"
            )
            return
        if trainer == "reward":
            judged(carried)
        elif trainer == "grpo":
            answers_to_problems(carried, carried.take("beta"), "dapo")
            prompts(carried)
        elif trainer == "rloo":
            left_one_out(carried, carried.take("beta", 0.05))
            if "num_generations" not in carried.recipe.setdefault("rollout", {}):
                carried.put("rollout.num_generations", 2)  # by which the batch is divided
                carried.unsaid.append("num_generations is not given: 2, the tool's own default")
            prompts(carried)
        else:
            carried.take("loss_type")
            self._of_rows(carried, trainer, loss)

    def _of_rows(self, carried: Carried, trainer: str, loss: Any) -> None:
        """What is trained on answers that are there."""
        if carried.given.get("completion_only_loss") is False:
            carried.notes.append("completion_only_loss false: here prompts are never trained on")
        if trainer == "sft":
            strength(carried, "sft", None, reweight="dft" if loss == "dft" else None)
            self._spoken(carried)
            return
        beta = carried.take("beta")
        if trainer == "kto":
            thumbs(carried, beta, "desirable_weight", "undesirable_weight", loss or "kto")
        elif trainer == "cpo" and loss == "simpo":
            with_likelihood(carried, beta or 0.1, 0.5)
        elif trainer == "cpo":
            strength(carried, "cpo", beta, sft_coef=carried.take("cpo_alpha"))
        elif trainer == "bco":
            strength(carried, "bco", beta)
        else:
            preference(carried, str(loss or "sigmoid") if trainer == "dpo" else "orpo", beta)

    def _guess(self, carried: Carried, loss: Any) -> str:
        """The trainer, of which a file has no word; told where nothing names it."""
        given = carried.given
        if given.get("lora_task_type") == "SEQ_CLS" or "center_rewards_coefficient" in given:
            return "reward"
        if isinstance(loss, list):
            return "dpo"  # which alone takes several
        if loss in THUMBS or (loss is None and WEIGHING & set(given)):
            return "kto"
        # Its older DPO and KTO have max_completion_length too.
        paired = loss in (*LOSSES, *LIKELIHOOD) or COMPARING & set(given)
        if SAMPLING & set(given) and not paired:
            return "grpo"
        if loss in LIKELIHOOD:
            return "sft"
        if loss is not None:
            return "dpo"
        compared = given.get("beta") is not None or COMPARING & set(given)
        why = "beta without loss_type is read as DPO's" if compared else "read as SFT's (trl sft)"
        others = "KTO, ORPO, CPO or GRPO" if compared else "DPO, KTO, ORPO, a reward model or GRPO"
        carried.notes.append(
            f"nothing here names the trainer: {why}; of {others} name the objective yourself"
        )
        return "dpo" if compared else "sft"

    def _spoken(self, carried: Carried) -> None:
        """Whose words are trained on, which is another thing there where nothing is said."""
        if carried.given.get("assistant_only_loss") is not True:
            carried.unsaid.append(
                "without assistant_only_loss TRL trains on all of a conversation, the user's words too; "
                "here only what the assistant says is trained on"
            )

    def usual(self, carried: Carried, devices: int) -> Mapping[str, Any]:
        name = objective_of(carried)
        rate = {"sft": 2e-5, "bradley_terry": 1e-4}.get(name, 1e-6)
        found = {**epochs(carried, 3.0), "train.learning_rate": rate, **halved(carried)}
        if name in ("grpo", "rloo"):
            # 8 answers a device: of GRPO as many as there are to a problem.
            found["rollout.max_completion_length"] = 512
            return {**found, **whole_batch(carried, devices if name == "grpo" else 4 * devices)}
        if "overflow" not in carried.recipe.get("train", {}):
            carried.unsaid.append(CUT)
        return {**found, **whole_batch(carried, 8 * devices)}


def _trainer(command: str) -> str:
    """What a command or script trains, by its name: one of `TRAINERS`, or UNKNOWN; "" of a file, and of
    a script that is called `train.py`."""
    words = re.findall(r"[a-z0-9]+", command.removeprefix("trl ").removesuffix(".py").lower())
    if NAMELESS.issuperset(words):
        return ""
    found = {one for one in TRAINERS if one in words}
    return found.pop() if len(found) == 1 and not set(OTHERS) & set(words) else UNKNOWN


def _mixed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A data set of `dataset_mixture`, in the words of `datasets`."""
    words = {"id": "path", "config": "name"}
    told = {words.get(key, key): value for key, value in entry.items()}
    return {key: value for key, value in told.items() if (key, value) != ("weight", 1.0)}
