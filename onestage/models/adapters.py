"""Low-rank adapters on a model: fresh ones, and those of an earlier run."""

from __future__ import annotations

from typing import Any

from onestage.models.model import Lora, Model, Task
from onestage.models.stacking import stack


def adapted(lora: Lora, model: Any, task: Task = "causal") -> Any:
    """The model with fresh adapters, drawn from torch's global generator.

    Raises `ValueError` where they would lie on the output head.
    """
    from peft import get_peft_model

    made: Any = get_peft_model(model, _peft_config(lora, task))
    _refuse_adapted_head(made)
    return made


def continued(source: Model, model: Any) -> Any:
    """The model with the adapter in `source.name`, to be trained itself (`adapter: same`).

    Raises `ValueError` where `merge` is asked for, which makes a folder first (see `start`).
    """
    from peft import PeftModel

    if source.adapter == "merge":
        raise ValueError("a merged adapter is loaded from the folder it was merged into (start)")
    frozen = source.adapter == "stack"
    return PeftModel.from_pretrained(model, str(source.name), is_trainable=not frozen)


def put_on_top(lora: Lora, model: Any) -> None:
    """Add a fresh adapter beside a loaded one, which stays as it is (`adapter: stack`), in place."""
    stack(model, _peft_config(lora))
    _refuse_adapted_head(model)


def _peft_config(lora: Lora, task: Task = "causal") -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides; fractions are fine
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        bias="none",
        task_type="SEQ_CLS" if task == "reward" else "CAUSAL_LM",  # its head is trained whole
    )


def _refuse_adapted_head(model: Any) -> None:
    head = model.get_base_model().get_output_embeddings()
    if hasattr(head, "base_layer"):
        raise ValueError(
            "model.lora.target_modules adapts the output head, which the chunked head cannot honour; "
            "leave it out (`all-linear` does)"
        )
