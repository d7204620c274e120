"""Models out: plain transformers and PEFT folders that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from onestage.models.endings import as_read, save_ends
from onestage.models.preserved import tell
from onestage.models.sharding import local
from onestage.models.stacking import is_stacked, restore_trained, save_sum, save_trained
from onestage.runfolder.disk import whole_folder

if TYPE_CHECKING:
    from onestage.models.policy import Policy

Weights = Mapping[str, Tensor]
"""By the names of a model's own state dict."""
TRAINED_FILE = "trained.safetensors"
"""Of a checkpoint of stacked adapters: the trained one alone, from which a run goes on exactly."""


def save_model(model: Any, tokenizer: Any, folder: Path, weights: Weights | None = None) -> None:
    """Save what plain transformers (or PEFT, for adapters) loads, tokenizer included. `weights`: as for
    `fill_model`."""
    with whole_folder(folder) as draft:
        fill_model(model, tokenizer, draft, weights)


def fill_model(model: Any, tokenizer: Any, folder: Path, weights: Weights | None = None) -> None:
    """Write model and tokenizer into an existing folder. `weights`: those of a model that lies in parts,
    whole (`sharding.gathered`)."""
    fill_weights(model, folder, weights)
    if hasattr(model, "peft_config"):
        save_ends(model, folder)
        if not is_stacked(model):
            tell(model, folder)
    tokenizer.save_pretrained(folder)


def fill_weights(model: Any, folder: Path, weights: Weights | None = None) -> None:
    """Write the model, or its adapter, into an existing folder. `weights`: as for `fill_model`."""
    if is_stacked(model):
        save_sum(model, folder, weights)
    elif hasattr(model, "peft_config"):
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": dict(weights)}))
    elif weights is None:
        with as_read(model, folder):
            model.save_pretrained(folder)
    else:
        with as_read(model, folder):
            model.save_pretrained(folder, state_dict=dict(weights))
        # transformers has written the precision of the parts, which may be their masters'.
        model.config.dtype = next(w.dtype for w in weights.values() if w.is_floating_point())
        model.config.save_pretrained(folder)


def copied(model: Any, weights: Weights | None = None) -> Weights:
    """What `fill_weights` writes, as it stands, for who writes it later: on the CPU, but for what is
    frozen, which stays as it is anyway. `weights`: as for `fill_model`."""
    frozen = {local(p).data_ptr() for p in model.parameters() if not p.requires_grad}
    own = model.state_dict()
    changing = {local(tensor).data_ptr() for tensor in own.values()} - frozen
    copies: dict[int, Tensor] = {}  # tied weights stay one
    found = dict(own if weights is None else weights)
    for name, tensor in found.items():
        if (place := tensor.data_ptr()) in changing:
            if place not in copies:
                copies[place] = tensor.detach().to("cpu", copy=True)
            found[name] = copies[place]
    return found


def fill_exact(model: Any, folder: Path) -> None:
    """Write into a checkpoint what its ordinary model folder does not hold bit for bit."""
    if is_stacked(model):
        # The sum holds s B, out of which B comes back rounded; a run must go on from B itself.
        save_trained(model, folder / TRAINED_FILE)


def saved_weights(policy: Policy, checkpoint: Path) -> dict[str, Tensor]:
    """The trained weights of a checkpoint's model, by the policy's own names."""
    model, folder = policy.model, checkpoint / "model"
    if is_stacked(model):
        saved = load_file(checkpoint / TRAINED_FILE)
        return {f"model.{name}": tensor for name, tensor in saved.items()}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    if not hasattr(model, "peft_config"):
        saved = type(policy.base).from_pretrained(folder).state_dict()
        return {f"model.{name}": saved[name] for name in trained}
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    # PEFT renames what it writes: numbers go in by our names, and come out by those of the file.
    numbered = {name: torch.tensor(number) for number, name in enumerate(trained)}
    names = get_peft_model_state_dict(model, state_dict=numbered, save_embedding_layers=False)
    found = load_peft_weights(str(folder), device="cpu")
    return {f"model.{trained[int(number)]}": found[name] for name, number in names.items()}


def restore_weights(model: Any, checkpoint: Path) -> None:
    """Put a checkpoint's weights into a model of the same kind, in place and bit for bit."""
    folder = checkpoint / "model"
    if is_stacked(model):
        restore_trained(model, checkpoint / TRAINED_FILE)
        return
    if hasattr(model, "peft_config"):
        from peft.utils import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    saved = type(model).from_pretrained(folder, dtype=model.dtype)
    with torch.no_grad():
        model.load_state_dict(saved.state_dict())
