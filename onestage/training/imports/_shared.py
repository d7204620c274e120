"""What configurations of several tools share: transformers' own arguments, batches, adapters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onestage.config import RecipeError
from onestage.models import Lora
from onestage.training.imports import Carried
from onestage.training.recipe import Train

TRAINER: Mapping[str, str] = {
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.num_train_epochs",
    "lr_scheduler_type": "train.lr_scheduler_type",
    "lr_scheduler_kwargs": "train.lr_scheduler_kwargs",
    "warmup_ratio": "train.warmup_ratio",
    "warmup_steps": "train.warmup_steps",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "optim": "train.optim",
    "optim_args": "train.optim_args",
    "adam_beta1": "train.adam_beta1",
    "adam_beta2": "train.adam_beta2",
    "adam_epsilon": "train.adam_epsilon",
    "seed": "train.seed",
    "bf16": "train.bf16",
    "logging_steps": "train.logging_steps",
    "save_total_limit": "train.save_total_limit",
    "dataset_num_proc": "train.dataset_num_proc",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "trust_remote_code": "model.trust_remote_code",
}
"""Arguments of transformers' trainer that go by the same name here."""

NOT_NEEDED: Mapping[str, str] = {
    "packing": "rows are always packed, without padding and without seeing each other (what that does "
    "to a batch is noted)",
    "padding_free": "there is no padding",
    "group_by_length": "there is no padding",
    "remove_unused_columns": "columns that are not used are listed by onestage check",
    "dataloader_num_workers": "rows are encoded before the first step (train.dataset_num_proc)",
    "dataloader_pin_memory": "rows are encoded before the first step",
    "dataloader_drop_last": "every record of a batch counts the same, so none is dropped",
    "per_device_eval_batch_size": "evaluation is packed by train.tokens_per_row",
    "ddp_timeout": "accelerate's",
    "ddp_find_unused_parameters": "every parameter that is trained is used",
    "gradient_checkpointing_kwargs": "checkpoints are not reentrant",
    "use_liger_kernel": "logits are made in chunks, never whole",
    "precompute_ref_log_probs": "always, and kept between runs",
    "logging_first_step": "the first step is always logged",
    "do_train": "that is what the command says",
    "do_eval": "held-out rows are evaluated where a stream has some",
    "overwrite_output_dir": "a folder that holds a run is not overwritten",
    "save_strategy": "by train.save_steps",
    "tf32": "torch's own default is used",
    "push_to_hub": "onestage push",
}


def count(value: Any) -> Any:
    """A whole number, also as YAML and scripts write it: 1e3, "100"; anything else as it is."""
    try:
        whole = int(float(value)) if not isinstance(value, bool) else value
        return whole if whole == float(value) else value
    except (TypeError, ValueError, OverflowError):
        return value


def entries(given: Any, key: str) -> list[dict[str, Any]]:
    """The data sets of a list, of which one may be a path alone. `RecipeError` for anything else."""
    listed = given if isinstance(given, list) else [given]
    found = [{"path": one} if isinstance(one, str) else one for one in listed if one]
    odd = next((one for one in found if not isinstance(one, dict)), None)
    if odd is not None:
        raise RecipeError(
            f"{key} must be a list of data sets, each with its path, found {odd!r}: write "
            f"{key}: [{{path: FILE}}]"
        )
    return found


def batch(
    carried: Carried, per_device: str, devices: int, accumulation: str, usual: int = 8
) -> None:
    """Records of a step, over all devices and accumulation. usual: on a device, where the tool is told
    of accumulation alone; of neither, see `whole_batch`."""
    each, steps = count(carried.given.get(per_device)), count(carried.given.get(accumulation))
    if each is None and steps is None:
        return
    if each is None:
        each = usual
        carried.unsaid.append(f"{per_device} is not given: {usual}, the tool's own default")
    steps = 1 if steps is None else steps
    if not (isinstance(each, int) and isinstance(steps, int)):
        ours = Train.model_fields["batch_size"].default
        carried.notes.append(
            f"the batch could not be read, and train.batch_size is our default, {ours}"
        )
        return  # "auto": left, and so told
    carried.take(per_device)
    carried.take(accumulation)
    carried.put("train.batch_size", each * steps * devices)
    carried.notes.append(
        f"batch_size is of a whole step: {each} a device x {steps} accumulated x {devices} devices "
        "(--devices N, if there were more); how rows are cut for memory follows from tokens_per_row"
    )


def answered(carried: Carried) -> int:
    """Answers to a problem, as all tools have it where nothing is said."""
    each: int = carried.recipe.get("rollout", {}).get("num_generations", 8)
    return each


def prompts(carried: Carried) -> None:
    """Where the tool counts answers in a batch, `batch_size` becomes of problems, as ours is."""
    answers, each = carried.recipe.get("train", {}).get("batch_size"), answered(carried)
    if isinstance(answers, int) and isinstance(each, int):
        problems = max(1, answers // each)
        carried.put("train.batch_size", problems)
        rest = "" if problems * each == answers else f", which makes {problems * each} here"
        carried.notes.append(
            f"batch_size is of problems: {answers} answers of a step, {each} to a problem{rest}"
        )


def warmup(carried: Carried) -> None:
    """`warmup_steps` below 1 is a part of the run."""
    steps = carried.given.get("warmup_steps")
    if isinstance(steps, float) and 0 < steps < 1:
        carried.put("train.warmup_ratio", carried.take("warmup_steps"))


def recomputed(carried: Carried) -> None:
    """`gradient_checkpointing`, of which some say where what is kept shall lie."""
    how = carried.given.get("gradient_checkpointing")
    if isinstance(how, str):
        carried.put("model.gradient_checkpointing", carried.take("gradient_checkpointing") == how)
        carried.notes.append(f"gradient_checkpointing {how!r}: activations are recomputed")


def attention(carried: Carried) -> None:
    """`attn_implementation`: a kernel that is asked for because it is fast is not needed; with it rows
    could not be trees."""
    asked = str(carried.given.get("attn_implementation"))
    if asked.startswith(("flash", "kernels", "sdpa", "flex", "vllm")):
        carried.take("attn_implementation")
        carried.unneeded["attn_implementation"] = "attention is chosen by device"


def every(carried: Carried, key: str, strategy: str) -> None:
    """`eval_steps` and `save_steps`, which count only where the strategy is by steps."""
    steps, how = count(carried.take(key)), carried.take(strategy, "steps")
    if how in ("no", False) or (steps is None and how == "steps"):
        return
    if how == "steps" and isinstance(steps, int) and steps > 0:
        carried.put(f"train.{key}", steps)
    else:
        told = "" if steps is None else f" ({key}: {steps})"
        carried.notes.append(f"{strategy} {how!r}{told}: give train.{key} in steps")


def length(carried: Carried) -> None:
    """`max_steps`, which is -1 where epochs count, and which otherwise goes before them."""
    steps = count(carried.given.get("max_steps"))
    if isinstance(steps, int):
        carried.take("max_steps")
        if steps > 0:
            carried.put("train.max_steps", steps)
            carried.take("num_train_epochs")


def trackers(carried: Carried) -> None:
    told = carried.take("report_to")
    known = [told] if isinstance(told, str) else list(told or [])
    known = [name for name in known if name not in ("none", "all")]
    if known:
        carried.put("train.report_to", known)


def trainer(carried: Carried, devices: int, usual: int = 8) -> None:
    """What transformers' trainer is told by several arguments, which its tools call the same. usual:
    records on a device, as for `batch`."""
    batch(carried, "per_device_train_batch_size", devices, "gradient_accumulation_steps", usual)
    length(carried)
    warmup(carried)
    recomputed(carried)
    every(carried, "eval_steps", "eval_strategy")
    every(carried, "save_steps", "save_strategy")
    trackers(carried)


def adapter(
    carried: Carried,
    rank: str,
    alpha: str,
    dropout: str,
    target: str,
    usual: Mapping[str, Any] | None = None,
    everywhere: bool = False,
) -> None:
    """LoRA under a tool's names. usual: what it takes for `r`, `alpha`, `dropout` that are not given,
    carried as if it were where ours is another. everywhere: whether it takes all linear layers where
    none are given; else PEFT takes what its table has of the model."""
    lora: dict[str, Any] = {}
    for ours, theirs in (("r", rank), ("alpha", alpha), ("dropout", dropout)):
        value = carried.take(theirs)
        if value is not None:
            lora[ours] = value
        elif usual is None:
            ours_is = Lora.model_fields[ours].default
            carried.notes.append(
                f"{theirs} is not given: model.lora.{ours} is our default, {ours_is:g}"
            )
        elif usual[ours] != Lora.model_fields[ours].default:
            lora[ours] = usual[ours]
            carried.notes.append(f"{theirs} is not given: {usual[ours]:g}, the tool's own default")
    modules = carried.take(target)
    whole = modules in (None, "all", "all-linear", ["all"], ["all-linear"])
    if isinstance(modules, str) and "," in modules:
        modules = [name.strip() for name in modules.split(",")]
    elif isinstance(modules, str) and re.fullmatch(r"[\w.]+", modules):
        modules = [modules]  # one name of a list; PEFT takes a text for a pattern of whole names
    if not whole:
        lora["target_modules"] = modules
    elif modules is None and not everywhere:
        carried.notes.append(
            f"{target} is not given: adapters go on all linear layers here, and there on those that "
            "PEFT has for the model (q_proj and v_proj of Llama, Qwen, Mistral and Gemma): name them in "
            "model.lora.target_modules for the same"
        )
    carried.put("model.lora", lora)


def precision(carried: Carried, value: Any) -> None:
    """`bfloat16`, `torch.bfloat16`, `auto`."""
    name = str(value).removeprefix("torch.") if value is not None else "auto"
    if name != "auto":
        carried.put("model.dtype", name)


def epochs(carried: Carried, usual: float) -> dict[str, Any]:
    """`num_train_epochs` as the tool takes it, where steps do not count."""
    return (
        {} if "max_steps" in carried.recipe.get("train", {}) else {"train.num_train_epochs": usual}
    )


def halved(carried: Carried) -> dict[str, Any]:
    """`bf16`, which the tool switches on of itself where nobody asks for another precision."""
    return {} if carried.given.get("fp16") else {"train.bf16": True}


def whole_batch(carried: Carried, usual: int) -> dict[str, Any]:
    """`batch_size` as the tool takes it, where nothing of a batch is said."""
    odd = {"per_device_train_batch_size", "micro_batch_size", "gradient_accumulation_steps"}
    return {} if odd & set(carried.given) else {"train.batch_size": usual}


LOADERS = ("json", "csv", "text", "parquet", "arrow")
"""What stands for a path where `data_files` says which files are read."""


def files_of(entry: Mapping[str, Any]) -> list[str]:
    """The files, or the hub data set, that a data set's entry stands for; `data_files` are within its
    `path` where that is a folder or a hub data set. (Axolotl reads those of a folder from where it is
    started: what is there and not in the folder is meant so.)"""
    path, given = str(entry.get("path") or ""), entry.get("data_files")
    if isinstance(given, Mapping):  # by split
        given = given.get(entry.get("split") or "train")
    files = [given] if isinstance(given, str) else list(given or [])
    if not files or Path(path).name in [Path(one).name for one in files]:
        return [path]
    if not path or path in LOADERS:
        return files
    local = path.startswith((".", "/", "~")) or "://" in path or path.count("/") != 1
    local = local or Path(path).exists()
    within = path if local else f"hf://datasets/{path}"
    beside = {one for one in files if Path(one).is_file() and not Path(path, one).exists()}
    apart = [one.startswith("/") or "://" in one or (local and one in beside) for one in files]
    return [one if alone else f"{within}/{one}" for one, alone in zip(files, apart, strict=True)]


def lost(carried: Carried, name: str, keys: Iterable[str]) -> None:
    """Say what of a data set's entry is not carried."""
    told = sorted(keys)
    if told:
        carried.notes.append(f"data {name}: {', '.join(told)} could not be carried")


def streams(carried: Carried, given: list[dict[str, Any]]) -> None:
    """Streams with names that differ; `onestage check` says which of them want converting."""
    seen: dict[str, int] = {}
    for stream in given:
        name = stream["name"]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            stream["name"] = f"{name}_{seen[name]}"
    carried.put("data", given)


def named(path: str) -> str:
    """A stream's name, of a file or a hub id."""
    last = path.rstrip("/").rpartition("/")[2]
    return last.partition(".")[0].replace(" ", "_") or "data"


CUT = (
    "rows longer than max_length are cut there; here a run stops at the first unless train.overflow "
    "says drop or truncate_prompt"
)
"""Of tools that cut answers."""
