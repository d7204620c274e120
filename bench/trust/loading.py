"""Damaged folders and odd adapters: each tried, and what came of it.

The cases are those of the tests (`tests/support/damaged.py`, `tests/support/odd_adapters.py`). The other
side of an adapter is PEFT's own model of it, called on token ids.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import damaged, odd_adapters
from support.tiny import make_tokenizer

import onestage as one
from onestage import models
from onestage.models import Lora, Model
from onestage.models.export import merged_weights
from onestage.models.merge import merge
from onestage.models.save import save_model
from onestage.models.start import prepare
from onestage.runfolder import silent

REFUSED = (ValueError, OSError, ImportError)
"""What the command line tells in a line."""
REFUSAL = "refused"
ROWS = [{"prompt": "a", "completion": " b"}] * 4


def table() -> str:
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return "\n\n".join((_damaged(Path(root)), _adapters(Path(root))))


def _damaged(root: Path) -> str:
    """A table of folders, and what `onestage.train` makes of each."""
    base = damaged.whole(root / "base")
    sound = damaged.adapter(base, root / "sound")
    lines = [
        "| damaged | folders | refused in one sentence | traceback | loaded |",
        "|---|---|---|---|---|",
    ]
    for what, whole, cases in (
        ("a model's folder", base, damaged.MODELS),
        ("an adapter's folder", sound, damaged.ADAPTERS),
    ):
        found = {
            name: _outcome(whole, hurt, root / f"{whole.name}-{number}")
            for number, (name, hurt) in enumerate(cases.items())
        }
        counts = Counter(found.values())
        loaded = ", ".join(name for name, outcome in found.items() if outcome == "loaded")
        lines.append(
            f"| {what} | {len(found)} | {counts['refused']} | {counts['traceback']} | "
            f"{counts['loaded']}{f' ({loaded})' if loaded else ''} |"
        )
    return "\n".join(lines)


def _outcome(whole: Path, hurt: damaged.Damage, folder: Path) -> str:
    shutil.copytree(whole, folder)
    hurt(folder)
    options: dict[str, Any] = {"data": ROWS, "objective": "sft", "train": {"max_steps": 1}}
    try:
        one.train(
            model=str(folder), out=folder.with_name(f"{folder.name}.run"), say=silent, **options
        )
    except REFUSED as error:
        return "refused" if "\n" not in str(error) else "traceback"
    except Exception:
        return "traceback"
    return "loaded"


Door = Callable[[Path, Path, Path], torch.Tensor]
"""Base, adapter, and a folder for what is made; what is then said of the row (K)."""


def _adapters(root: Path) -> str:
    """A table of adapters and doors: the largest difference from PEFT's model, or `refused`."""
    doors: Mapping[str, Door] = {
        "asked": _asked,
        "merge": _merged,
        "stack": _stacked,
        "onestage merge": _mixed,
        "vLLM": _served,
    }
    lines = [f"| adapter | {' | '.join(doors)} |", f"|---|{'---|' * len(doors)}"]
    untied: dict[str, list[str]] = {}
    for tied in (False, True):
        base = odd_adapters.make_base(root / f"base {tied}", tied=tied)
        for name, config in odd_adapters.ADAPTERS.items():
            folder = root / f"{name} {tied}"
            said = odd_adapters.make_adapter(base, config, folder)
            cells = list(_tried(doors.values(), base, folder, said))
            known = untied.setdefault(name, cells)
            # Tied, most adapters fare as they do untied: those that do not are shown.
            if not tied or [c == REFUSAL for c in cells] != [c == REFUSAL for c in known]:
                lines.append(f"| {name}{', tied' if tied else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _tried(doors: Any, base: Path, folder: Path, said: torch.Tensor) -> Iterator[str]:
    for number, door in enumerate(doors):
        try:
            found = door(base, folder, folder.with_name(f"{folder.name} {number}"))
            yield f"{(found - said).abs().max().item():.0e}"
        except REFUSED:
            yield REFUSAL


def _plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def _asked(base: Path, adapter: Path, out: Path) -> torch.Tensor:
    return models.open(adapter)(odd_adapters.ROW).detach()


def _merged(base: Path, adapter: Path, out: Path) -> torch.Tensor:
    source = Model(name=str(adapter), adapter="merge")
    prepare(source, make_tokenizer(), out, 0, keep=False)
    return odd_adapters.said_by(_plain(out))


def _stacked(base: Path, adapter: Path, out: Path) -> torch.Tensor:
    lora = Lora(r=2, target_modules=["q_proj"])
    loaded = models.load(Model(name=str(adapter), adapter="stack", lora=lora))
    save_model(loaded.model, loaded.tokenizer, out)
    return odd_adapters.said_by(PeftModel.from_pretrained(_plain(base), out).eval())


def _mixed(base: Path, adapter: Path, out: Path) -> torch.Tensor:
    merge([base, adapter], out, weights=[0, 1])
    return odd_adapters.said_by(_plain(out))


def _served(base: Path, adapter: Path, out: Path) -> torch.Tensor:
    copy, adapted = _plain(base), PeftModel.from_pretrained(_plain(base), adapter).eval()
    copy.load_state_dict(dict(merged_weights(adapted)), strict=False)
    return odd_adapters.said_by(copy)
