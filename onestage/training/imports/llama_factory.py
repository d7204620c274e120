"""LLaMA-Factory: its YAML; data sets are looked up in the `dataset_info.json` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage.data.parts import MEDIA
from onestage.training.imports import Carried, Tool
from onestage.training.imports._losses import judged, preference, strength, thumbs, with_margin
from onestage.training.imports._shared import (
    CUT,
    NOT_NEEDED,
    TRAINER,
    adapter,
    entries,
    epochs,
    lost,
    named,
    streams,
    trainer,
    whole_batch,
)

PAIRS = ("sigmoid", "hinge", "ipo", "orpo", "simpo")
WEIGHED = ("use_asft_loss", "use_eaft_loss")
"""Losses of demonstrations whose options go by other names here (objectives `asft`, `eaft`)."""
STAGES = ("sft", "pt", "dpo", "kto", "rm")


class LlamaFactory(Tool):
    title = "LLaMA-Factory"
    marks = frozenset(
        {"stage", "finetuning_type", "lora_target", "lora_rank", "cutoff_len", "dataset_dir"}
        | {"template", "max_samples", "pref_beta", "pref_loss", "pref_ftx", "neat_packing"}
        | {"preprocessing_num_workers"}
    )
    keys = {
        **TRAINER,
        "model_name_or_path": "model.name",
        "cutoff_len": "train.max_length",
        "preprocessing_num_workers": "train.dataset_num_proc",
    }
    unneeded = {
        **NOT_NEEDED,
        "neat_packing": "rows are always packed, without seeing each other",
        "flash_attn": "attention is chosen by device (model.attn_implementation)",
        "output_dir": "give --out to onestage train",
        "overwrite_cache": "caches are keyed by content",
        "plot_loss": "onestage report",
        "include_num_input_tokens_seen": "tokens are always counted",
        "enable_liger_kernel": "logits are made in chunks, never whole",
    }

    def rest(self, carried: Carried, devices: int) -> None:
        trainer(carried, devices)
        kind = carried.given.get("finetuning_type", "lora")
        if kind in ("lora", "full"):
            carried.take("finetuning_type")
        went = carried.given.get("adapter_name_or_path")
        if isinstance(went, str) and "," not in went:  # several are left, and so told
            self._goes_on(carried, went)
        elif kind == "lora":
            rank = carried.given.get("lora_rank")
            usual = {"r": 8, "alpha": 2 * (rank if isinstance(rank, int) else 8), "dropout": 0}
            names = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target")
            adapter(carried, *names, usual, everywhere=True)
        if carried.given.get("quantization_bit") == 4:
            carried.put("model.load_in_4bit", carried.take("quantization_bit") == 4)
        template = carried.take("template")
        if template:
            carried.notes.append(
                f"template {template!r} is LLaMA-Factory's own; here the tokenizer's is used, or a "
                "Jinja file under model.chat_template"
            )
        plain = carried.given.get("stage") == "pt"
        carried.packed = plain and carried.given.get("packing") is not False
        self._objective(carried)
        self._data(carried, plain)

    def _goes_on(self, carried: Carried, went: str) -> None:
        """An adapter is trained on, as it is."""
        shape = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target")
        for key in ("adapter_name_or_path", "model_name_or_path", *shape):
            carried.take(key)
        carried.put("model.name", went)
        carried.notes.append(
            f"adapter_name_or_path {went}: it is trained on as it is, on the base that its own "
            "configuration names. Of DPO and KTO the reference there is the base without it; here it is "
            "what the run starts from"
        )

    def _objective(self, carried: Carried) -> None:
        stage, loss = carried.given.get("stage", "sft"), carried.given.get("pref_loss", "sigmoid")
        odd = any(carried.given.get(key) for key in WEIGHED)
        if stage not in STAGES or odd or (stage == "dpo" and loss not in PAIRS):
            return  # left, and so told
        carried.take("stage")
        if stage in ("sft", "pt"):
            weighed = "dft" if carried.take("use_dft_loss") else None
            strength(carried, "sft", None, reweight=weighed)
        elif stage == "rm":
            judged(carried)
        elif stage == "kto":
            # What other objectives do not take is left, and so told.
            beta = carried.take("pref_beta")
            thumbs(carried, beta, "kto_chosen_weight", "kto_rejected_weight")
        else:
            self._preference(carried, str(carried.take("pref_loss", "sigmoid")))

    def _preference(self, carried: Carried, loss: str) -> None:
        beta = carried.take("pref_beta")
        likelihood = carried.take("pref_ftx") if loss == "sigmoid" else None
        if likelihood:
            strength(carried, "rpo", beta, sft_coef=likelihood)
        elif loss == "simpo":
            with_margin(carried, beta or 0.1, carried.take("simpo_gamma", 0.5))
        else:
            preference(carried, loss, beta, "dpo_label_smoothing")

    def usual(self, carried: Carried, devices: int) -> Mapping[str, Any]:
        carried.unsaid.append(CUT)
        found = {**epochs(carried, 3.0), "train.max_length": 2048}
        return {**found, **whole_batch(carried, 8 * devices)}

    def _data(self, carried: Carried, plain: bool) -> None:
        """plain: whether it trains on text, of which `prompt` names the column."""
        folder = Path(str(carried.take("dataset_dir", "data")))
        known = _info(folder / "dataset_info.json")
        given = carried.take("dataset", "")
        names = given if isinstance(given, list) else str(given).split(",")
        wanted = [one["path"].strip() for one in entries(names, "dataset")]
        most, parts = carried.take("max_samples"), carried.take("interleave_probs")
        parts = parts if isinstance(parts, list) else str(parts).split(",") if parts else []
        weights = [float(one) for one in parts]
        found = []
        for number, name in enumerate(name for name in wanted if name):
            stream = self._stream(carried, name, folder, known.get(name), plain)
            stream |= {"limit": most} if most else {}
            stream |= {"weight": weights[number]} if number < len(weights) else {}
            if name not in known:
                carried.notes.append(
                    f"data {name}: {folder / 'dataset_info.json'} does not tell of it; mend its path"
                )
            found.append(stream)
        if carried.take("mix_strategy") and not weights:
            carried.notes.append("mix_strategy: streams count by size, unless they have a weight")
        if carried.take("val_size"):
            carried.notes.append("val_size: no rows are split off; give a stream an eval_path")
        streams(carried, found)

    def _stream(
        self,
        carried: Carried,
        name: str,
        folder: Path,
        info: dict[str, Any] | None,
        plain: bool,
    ) -> dict[str, Any]:
        told = info or {}
        path = told.get("hf_hub_url") or str(folder / told.get("file_name", f"{name}.json"))
        stream: dict[str, Any] = {"name": named(name), "path": path}
        for theirs, ours in (("subset", "subset"), ("split", "split"), ("num_samples", "limit")):
            if told.get(theirs):
                stream[ours] = told[theirs]
        if plain:
            column = told.get("columns", {}).get("prompt", USUAL["prompt"])
            renamed = {"columns": {"text": column}} if info and column != "text" else {}
            return {**stream, **renamed, "kind": "text"}
        # Alpaca's and ShareGPT's own columns are read as they are.
        renamed = {
            OURS.get(theirs, theirs): column
            for theirs, column in told.get("columns", {}).items()
            if USUAL.get(theirs, theirs) != column and theirs not in MEDIA
        }
        media = sorted(MEDIA & set(told.get("columns", {})))
        if media:
            lost(carried, name, media)
        if told.get("formatting") != "sharegpt":
            stream["as_messages"] = True  # every row goes through its template
        return stream | ({"columns": renamed} if renamed else {})


USUAL = {
    **{"prompt": "instruction", "query": "input", "response": "output"},
    "messages": "conversations",
}
"""Columns of `dataset_info.json`, and what they are called where it does not say."""
OURS = {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "label"}
"""What it calls Alpaca's columns, which are read together."""


def _info(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
