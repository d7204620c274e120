"""Adapters on a model: fresh ones, and those of a folder, which are read whole or refused.

PEFT warns of tensors that a folder lacks and leaves those adapters at nothing, warns of tensors that fit
nowhere and drops them, and says nothing of a module that is named and not there. Here each is refused
(design law 11: every adapter is bound to the modules it names).
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from torch.nn import Linear

from onestage.config import nearest
from onestage.models.features import Door, require, require_untied
from onestage.models.loading import LoadError, check_files, count_of, reading
from onestage.models.model import Lora, Model, Task
from onestage.models.preserved import FILE, go_on, preserve, told
from onestage.models.resized import require_own_size, written_twice
from onestage.models.stacking import stack

CONFIG = "adapter_config.json"
NAMING = ("target_modules", "modules_to_save", "target_parameters")
"""Options of an adapter that name parts of the base."""
PASSED_BY = "incompatible with Mamba"
"""How PEFT refuses layers whose weights a fused kernel uses by themselves."""
OF_THIS_BASE = "its files must be as PEFT saved them, and made for this base"


def adapted(lora: Lora, model: Any, task: Task = "causal", revision: str | None = None) -> Any:
    """The model with fresh adapters, drawn from torch's global generator.

    revision: the model's, of the hub, which is saved with them.

    Raises `ValueError` where they would lie on the output head, or on nothing, or on layers of which no
    directions can be preserved where that is asked for.
    """
    from peft import get_peft_model

    try:
        made: Any = get_peft_model(model, _peft_config(lora, task), revision=revision)
    except ValueError as error:
        if PASSED_BY not in str(error):
            raise
        raise ValueError(_elsewhere(model)) from error
    _require_bound(made, "model.lora", "default")
    _refuse_adapted_head(made)
    if lora.preserve_rank is not None:
        preserve(made, lora.preserve_rank)
    return made


def _elsewhere(model: Any) -> str:
    """Where adapters can lie in a model whose kernels use some weights without their layers."""
    # Some layers have their adapter already.
    layers = {
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, one in model.named_modules()
        if type(one) is Linear and ".lora_" not in name
    }
    names = ", ".join(sorted(layers - {"out_proj", "lm_head"}))
    return (
        f"model.lora.target_modules reaches out_proj or conv1d of a {model.config.model_type}, whose "
        f"weights its kernels use without the layer, and so without an adapter; set it to [{names}]"
    )


def continued(source: Model, model: Any, door: Door) -> Any:
    """The model with the adapter in `source.name`, to be asked or trained (`adapter: same`), or to stay
    under another (`stack`).

    Raises `ValueError` where `merge` is asked for, which makes a folder first (see `start`).
    """
    if source.adapter == "merge":
        raise ValueError("a merged adapter is loaded from the folder it was merged into (start)")
    made = put_on(model, str(source.name), Door.STACKED if source.adapter == "stack" else door)
    if k := preserved_in(source) if door == Door.TRAINED else 0:
        go_on(made, k)
    return made


def preserved_in(source: Model) -> int:
    """How many directions of its base an adapter that is trained further was kept off, and is to be kept
    off. Raises `ValueError` for a folder that does not say it well, and for a base that packs them."""
    if source.adapter != "same" or source.name is None:
        return 0
    k = told(source.name)
    if k and source.load_in_4bit:
        raise ValueError(
            f"the adapter in {source.name} is kept off the {k} strongest directions of its base, which "
            f"model.load_in_4bit packs; load the base whole, or remove {source.name}/{FILE} to train "
            "on without"
        )
    return k


def put_on_top(lora: Lora, model: Any) -> None:
    """Add a fresh adapter beside a loaded one, which stays as it is (`adapter: stack`), in place."""
    stack(model, _peft_config(lora))
    _refuse_adapted_head(model)


def put_on(model: Any, folder: str, door: Door, label: str = "default") -> Any:
    """The model with the adapter of a folder, whole; one more (`label`) where it has some already.

    Raises `LoadError` for a folder that is damaged or of another model, and for an adapter that is not
    exact at the door.
    """
    from peft import PeftModel

    require(config_in(folder), door, folder)
    check_files(folder, "adapter_model")
    require_own_size(model, door, folder)
    with reading(f"the adapter {folder}", OF_THIS_BASE):
        if hasattr(model, "peft_config"):
            model.load_adapter(folder, adapter_name=label)
        else:
            trained = door in (Door.TRAINED, Door.ASKED)
            model = PeftModel.from_pretrained(
                model, folder, adapter_name=label, is_trainable=trained
            )
        _require_every_tensor(model, folder, label)
    _require_bound(model, folder, label)
    require_untied(model, door, folder)
    return model


def require_given(model: Any) -> None:
    """Raise `LoadError` where a model in memory has adapters that a run cannot train and save."""
    if not hasattr(model, "get_base_model"):
        raise LoadError(
            "an earlier run has put adapters into the layers of the model that is given; load it anew, "
            "or go on from the folder that the run saved (model: RUN/model)"
        )
    (label, *others) = model.peft_config
    if others or label != "default":
        names = ", ".join(model.peft_config)
        raise LoadError(
            f"the model that is given has the adapters {names}; give one with a single adapter named "
            "default, which is the one that a saved folder holds"
        )
    require(model.peft_config[label], Door.TRAINED, "the model that is given")


def config_in(folder: str | Path) -> Any:
    """PEFT's configuration of an adapter folder; `LoadError` where it is none, or unknown here."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    file = Path(folder) / CONFIG
    with reading(str(file), "an adapter's configuration is as PEFT saves it"):
        content = json.loads(file.read_text())
        kind, kinds = content.get("peft_type"), [str(k.value) for k in PEFT_TYPE_TO_CONFIG_MAPPING]
        if kind not in kinds:
            raise LoadError(
                f"{file}: peft_type is {kind!r}, which the installed PEFT does not know"
                f"{nearest(str(kind), kinds)}"
            )
        config: Any = PeftConfig.from_pretrained(str(folder))
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(key for key, value in content.items() if value and key not in known):
        raise LoadError(
            f"{folder} is an adapter with {', '.join(unknown)}, which the installed PEFT does not know "
            "and would leave out; update peft, or save the adapter without"
        )
    if not config.base_model_name_or_path:
        raise LoadError(
            f"{file} names no base: write the folder or hub id of its base model into "
            "base_model_name_or_path"
        )
    return config


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


def _require_every_tensor(model: Any, folder: str, label: str) -> None:
    """Raise `LoadError` where the folder's tensors are not those of the adapter."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    found = load_peft_weights(folder, device="cpu")
    # Put in a second time, since only this call says which were not used (PEFT before 0.20 renames what
    # it is handed). What should be there is what PEFT would write of the same adapter.
    report: Any = set_peft_model_state_dict(model, dict(found), label)
    whole = get_peft_model_state_dict(model, adapter_name=label, save_embedding_layers=False)
    wrong = {
        "missing": whole.keys() - found.keys(),
        "that the base has no place for": [
            name for name in report.unexpected_keys if not written_twice(name, found)
        ],
    }
    told = [f"{count_of(names)} {how}" for how, names in wrong.items() if names]
    if told:
        raise LoadError(f"the adapter {folder} is not whole: {'; '.join(told)}; {OF_THIS_BASE}")


def _require_bound(model: Any, what: str, label: str) -> None:
    """Raise `LoadError` where an adapter names parts that the base has not."""
    config, base = model.peft_config[label], model.get_base_model()
    names = [_plain(name) for name, _ in (*base.named_modules(), *base.named_parameters())]
    for option in NAMING:
        given = getattr(config, option, None) or ()
        if option == "modules_to_save" and config.task_type == "SEQ_CLS":
            continue  # PEFT adds the names that heads of classifiers have, of which a model has one
        # A word alone is a pattern, of which PEFT says itself where nothing fits.
        for part in given if not isinstance(given, str) else ():
            if not any(name == part or name.endswith(f".{part}") for name in names):
                raise LoadError(
                    f"{what}: {option} names {part}, and the base has no such part; name parts that are "
                    "there, or give the base that it was made for"
                )
    layers = getattr(config, "layers_to_transform", None)
    for layer in [layers] if isinstance(layers, int) else layers or ():
        if not any(re.search(rf"\.{layer}\.", name) for name in names):
            raise LoadError(
                f"{what}: layers_to_transform names layer {layer}, which the base has not"
            )


def _plain(name: str) -> str:
    """A part's name in the base, without the adapters around it."""
    return name.replace(".base_layer", "").replace(".original_module", "")
