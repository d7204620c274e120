"""Axolotl: its YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.config import RecipeError
from onestage.training.imports import Carried, Tool
from onestage.training.imports._losses import (
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
    attention,
    batch,
    count,
    entries,
    files_of,
    lost,
    named,
    precision,
    prompts,
    recomputed,
    streams,
    warmup,
    whole_batch,
)

PAIRS = {"dpo": "sigmoid", "ipo": "ipo", "orpo": "orpo"}
"""`rl`, of pairs: the loss as TRL calls it."""
WRITTEN = ("completion", "chat_template", "chat_template.default", "chat_template.argilla")
"""`type` of rows that are as they stand, or for a chat template."""
LONGER = {"drop": "drop", "raise": "error"}
"""`excess_length_strategy`, but for the one that cuts answers."""
RENAMED = {
    "field_instruction": "prompt",
    "field_output": "completion",
    "field_messages": "messages",
    "field_chosen": "chosen",
    "field_rejected": "rejected",
    "field": "text",
}
"""Of a data set: its word, our column."""
OTHER = ("process_reward_model", "diffusion")
"""Keys that say what is trained, of which nothing is here."""
NOT_LINEAR = ("embed_tokens", "lm_head")
"""Layers on which `lora_target_linear` puts no adapter."""
UNUSED = ("pad_token", "unk_token")
"""Special tokens that no row of ours holds."""


class Axolotl(Tool):
    title = "Axolotl"
    marks = frozenset(
        {"base_model", "micro_batch_size", "num_epochs", "sequence_len", "sample_packing", "rl"}
        | {"val_set_size", "lora_target_linear", "flash_attention", "dataset_prepared_path"}
    )
    keys = {
        **{key: path for key, path in TRAINER.items() if key not in ("optim", "bf16")},
        "base_model": "model.name",
        "revision_of_model": "model.revision",
        "tokenizer_config": "model.tokenizer",
        "sequence_len": "train.max_length",
        "num_epochs": "train.num_train_epochs",
        "lr_scheduler": "train.lr_scheduler_type",
        "optimizer": "train.optim",
        "attn_implementation": "model.attn_implementation",
        "load_in_4bit": "model.load_in_4bit",
        "save_steps": "train.save_steps",
        "eval_steps": "train.eval_steps",
        "dataset_processes": "train.dataset_num_proc",
    }
    unneeded = {
        **NOT_NEEDED,
        "sample_packing": "rows are always packed, without seeing each other",
        "eval_sample_packing": "rows are always packed",
        "pad_to_sequence_len": "there is no padding",
        "flash_attention": "attention is chosen by device (model.attn_implementation)",
        "sdp_attention": "attention is chosen by device (model.attn_implementation)",
        "dataset_prepared_path": "encoded data are kept in the cache",
        "output_dir": "give --out to onestage train",
        "strict": "every weight must be loaded",
        "is_llama_derived_model": "the model is read from its folder",
        "model_type": "the model is read from its folder",
        "tokenizer_type": "the tokenizer is read from its folder",
        "cut_cross_entropy": "logits are made in chunks, never whole",
        "liger_fused_linear_cross_entropy": "logits are made in chunks, never whole",
        "wandb_project": "give train.report_to: wandb",
        "plugins": "give train.callbacks",
    }

    def rest(self, carried: Carried, devices: int) -> None:
        whole = count(carried.given.get("batch_size"))
        if isinstance(whole, int) and carried.given.get("gradient_accumulation_steps") is None:
            carried.put("train.batch_size", whole)
            carried.take("batch_size")
            carried.take("micro_batch_size")
        batch(carried, "micro_batch_size", devices, "gradient_accumulation_steps", usual=1)
        warmup(carried)
        recomputed(carried)
        attention(carried)
        precision(carried, carried.take("torch_dtype"))
        half = carried.take("bf16", "auto")
        if not carried.given.get("fp16"):
            carried.put("train.bf16", half in (True, "auto", "full", "true"))
        steps = count(carried.take("max_steps"))
        if steps:
            carried.put("train.max_steps", steps)
            carried.take("num_epochs")
        if carried.given.get("adapter") in ("lora", "qlora"):  # others are left, and so told
            carried.take("adapter")
            if carried.take("lora_target_linear"):
                named_too = carried.take("lora_target_modules") or []
                more = [one for one in NOT_LINEAR if one in named_too]
                if more:
                    carried.notes.append(
                        f"lora_target_modules {', '.join(more)}, beside lora_target_linear, could not "
                        "be carried: adapters go on all linear layers"
                    )
                carried.given["lora_target_modules"] = "all-linear"
            adapter(carried, "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
        self._tokens(carried)
        self._data(carried)
        self._objective(carried)
        longer = carried.given.get("excess_length_strategy", "drop")
        if longer in LONGER:
            carried.take("excess_length_strategy")
            carried.put("train.overflow", LONGER[longer])
        for key in ("evals_per_epoch", "saves_per_epoch"):
            if carried.take(key):
                carried.notes.append(f"{key}: give train.{key.partition('s_')[0]}_steps in steps")
        template = carried.take("chat_template")
        if template not in (None, "tokenizer_default"):
            carried.notes.append(
                f"chat_template {template!r} is Axolotl's own; here the tokenizer's is used, or a Jinja "
                "file under model.chat_template"
            )

    def _objective(self, carried: Carried) -> None:
        """`rl`; of a kind that is not here it is left, and so told."""
        rl, given = carried.given.get("rl"), carried.given
        if given.get("reward_model"):
            carried.take("reward_model")
            judged(carried)
        elif any(given.get(key) for key in OTHER):
            return  # left, and so told
        elif rl is None:
            carried.take("rl")
            strength(carried, "sft", None)
        elif rl == "grpo":
            carried.take("rl")
            inner = Carried(dict(carried.take("trl", {})), carried.recipe)
            single(inner)
            answers_to_problems(inner, inner.take("beta"), "dapo")
            if "max_completion_length" not in carried.recipe.get("rollout", {}):
                carried.put("rollout.max_completion_length", 256)
                carried.notes.append("max_completion_length is not given: 256, our default")
            prompts(inner)
            carried.notes += inner.notes
            carried.given |= {f"trl.{key}": value for key, value in inner.left.items()}
        elif rl in PAIRS or rl in ("kto", "simpo"):
            carried.take("rl")
            self._preference(carried, str(rl))

    def _preference(self, carried: Carried, rl: str) -> None:
        beta = carried.take("rl_beta", carried.take("dpo_beta"))
        if rl == "kto":
            thumbs(carried, beta, "kto_desirable_weight", "kto_undesirable_weight")
        elif rl == "simpo":
            with_likelihood(carried, beta or 0.1, 0.5)
        else:
            beta = carried.take("orpo_alpha", beta) if rl == "orpo" else beta
            preference(carried, PAIRS[rl], beta, "dpo_label_smoothing")

    def usual(self, carried: Carried, devices: int) -> Mapping[str, Any]:
        train = carried.recipe.get("train", {})
        found: dict[str, Any] = {"train.max_length": 512, "train.lr_scheduler_type": "cosine"}
        if "warmup_steps" not in train:
            found["train.warmup_ratio"] = 0.03
            carried.unsaid.append("warm-up: 0.03 of the steps, and at most 100 of them there")
        return {**found, **whole_batch(carried, devices)}

    def _tokens(self, carried: Carried) -> None:
        """`special_tokens`: those that change what a response ends with are left, and so told."""
        given = carried.take("special_tokens", {})
        if not isinstance(given, Mapping):
            raise RecipeError(
                f"special_tokens must be a table of names and tokens, found {given!r}: write "
                "special_tokens: {pad_token: ...}"
            )
        others = {name: token for name, token in given.items() if name not in UNUSED}
        if others:
            carried.given["special_tokens"] = others
            carried.notes.append(
                f"special_tokens: {', '.join(others)} must be set in the tokenizer's folder, which "
                "model.tokenizer names"
            )
        elif given:
            carried.unneeded["special_tokens"] = "there is no padding"

    def _data(self, carried: Carried) -> None:
        given = entries(carried.take("datasets", []), "datasets")
        found = [self._streams(carried, entry) for entry in given]
        held_out = entries(carried.take("test_datasets", []), "test_datasets")
        for number, entry in enumerate(held_out):
            files = files_of(entry)
            mine = found[number] if number < len(found) else []
            for stream, path in zip(mine, files, strict=False):
                stream["eval_path"] = path
                stream |= {"eval_split": entry["split"]} if entry.get("split") else {}
            for path in files[len(mine) :]:
                carried.notes.append(f"test_datasets: {path} is of no stream; left out")
        part = carried.take("val_set_size")
        if part and not held_out:
            carried.notes.append(
                f"val_set_size {part}: no rows are split off; give a stream an eval_path"
            )
        streams(carried, [stream for several in found for stream in several])

    def _streams(self, carried: Carried, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """A stream for each file of a data set."""
        stream: dict[str, Any] = {}
        for theirs, ours in (("name", "subset"), ("split", "split")):
            if entry.get(theirs):
                stream[ours] = entry[theirs]
        columns = {ours: entry[key] for key, ours in RENAMED.items() if key in entry}
        if columns:
            stream["columns"] = columns
        how = entry.get("type")
        if how == "completion":
            stream["kind"] = "text"
        elif isinstance(how, str) and how not in WRITTEN:
            carried.notes.append(
                f"data {named(str(entry.get('path')))}: type {how!r} puts Axolotl's words around a row "
                "or reads other columns; here a prompt stands as it is, or in the chat template with "
                "as_messages: true"
            )
        known = {"path", "data_files", "name", "split", "type", "ds_type", *RENAMED}
        own = {"type"} if isinstance(entry.get("type"), dict) else set()
        files = files_of(entry)
        lost(carried, named(files[0]), (set(entry) - known) | own)
        return [{"name": named(path), "path": path, **stream} for path in files]
