"""Keys that people bring from other tools, and what ours are called.

`onestage import` carries their whole files; this is for those who write a recipe from memory.
"""

from __future__ import annotations

from collections.abc import Mapping

LORA = "adapters are model.lora: {r, alpha, dropout, target_modules}"
BATCH = (
    "train.batch_size is of the whole step, over all devices; train.tokens_per_row bounds memory"
)
EPOCHS = "it is train.num_train_epochs"
LENGTH = "it is train.max_length"
WEIGHT = (
    "a stream's share of a batch is data: [{name: mine, weight: 2}], a term's in the loss is "
    "schedule: {name: mix, weights: {sft: 2}}"
)
STUDY = "a file with methods is a study: onestage study FILE"

OURS: Mapping[str, str] = {
    "lora_r": LORA,
    "rank": LORA,
    "lora_rank": LORA,
    "lora_alpha": LORA,
    "lora_dropout": LORA,
    "use_peft": LORA,
    "gradient_accumulation_steps": BATCH,
    "micro_batch_size": BATCH,
    "per_device_train_batch_size": BATCH,
    "epochs": EPOCHS,
    "num_epochs": EPOCHS,
    "sequence_len": LENGTH,
    "max_seq_length": LENGTH,
    "cutoff_len": LENGTH,
    "lr": "it is train.learning_rate",
    "output_dir": "where a run is written is said on the command line: --out FOLDER",
    "model_name_or_path": "it is model.name",
    "base_model": "it is model.name",
    "weight": WEIGHT,
    "weights": WEIGHT,
}
