"""Three ways to tell whether weights are the same: in memory, on disk, and since a moment ago."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from onestage.runfolder import digest_of

BLOCK = 1 << 24
"""Bytes of a file that are read at once."""
SETTINGS = re.compile(r"-s[0-9a-f]+")
"""What a fingerprint has of `digest_of_settings`."""
ASIDE = {
    *("_name_or_path", "_commit_hash", "transformers_version", "architectures", "auto_map"),
    *("dtype", "torch_dtype", "_attn_implementation", "attn_implementation", "use_cache"),
    *("task_specific_params", "id2label", "label2id", "num_labels", "quantization_config"),
    *("output_attentions", "output_hidden_states", "return_dict", "problem_type"),
}
"""Of a configuration: names, precisions (the weights' own is told) and ways to compute."""
STRENGTH = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest(model: torch.nn.Module) -> str:
    """A digest of every parameter and buffer: names, shapes, types and bytes.

    It names the caches of what a model says, and a checkpoint's start: the same on every machine.
    """
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        found.update(raw.numpy().data)
    return found.hexdigest()


def digest_of_settings(model: Any) -> str:
    """A digest of what decides a model's answers beside its weights: positions, windows, scales of its
    configuration, and how strong its adapters are. Where it lies, how it is computed and how it ends
    decide nothing of a given text."""
    said = computed_by(model.config)
    adapters = {
        label: {name: getattr(one, name, None) for name in STRENGTH}
        for label, one in (getattr(model, "peft_config", None) or {}).items()
    }
    return digest_of([said, adapters])


def computed_by(config: Any) -> dict[str, Any]:
    """What of a configuration decides answers."""
    said = config.to_diff_dict()
    return {k: v for k, v in said.items() if k not in ASIDE and not k.endswith("token_id")}


def told_by_settings(fingerprint: str) -> bool:
    """Whether it says what the settings were; those of earlier versions do not."""
    return SETTINGS.search(fingerprint) is not None


def same_weights(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same weights, whatever the settings are."""
    return SETTINGS.sub("", one) == SETTINGS.sub("", other)


def digest_files(files: Iterable[Path]) -> str:
    """A digest of some files of a model folder, by their names and bytes."""
    found = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        found.update(file.name.encode())
        with file.open("rb") as opened:
            while block := opened.read(BLOCK):
                found.update(block)
    return found.hexdigest()


def bit_sums(model: torch.nn.Module) -> tuple[int, ...]:
    """Sums of the bits of all weights: other numbers after any update.

    For the question that is asked before each sampling, whether an engine's copy is out of date: a
    digest would bring every weight to the CPU, this reads them where they are.
    """
    sums = [
        p.detach().contiguous().view(BITS[p.element_size()]).sum(dtype=torch.int64)
        for p in model.parameters()
    ]
    return tuple(torch.stack([total.cpu() for total in sums]).tolist())
