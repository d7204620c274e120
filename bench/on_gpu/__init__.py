"""The parts of `bench/gpu.py`: each file has `measure(given) -> Found`."""

from __future__ import annotations

import gzip
import importlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PARTS = ("laws", "flex", "head", "varlen", "dpo", "sft", "sampling", "runs")
SEED = 42


@dataclass(frozen=True)
class Given:
    """Where a part works, and on what."""

    work: Path
    data: Path
    tokenizer: Path
    tiny: bool
    """Shapes of a test, on whatever device there is."""
    quick: bool = False
    """Fewer contestants."""

    @cached_property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def of(self, tiny: Any, real: Any) -> Any:
        """The first for a test of the bench, the second for what it is for."""
        return tiny if self.tiny else real


@dataclass
class Found:
    """What a part found: a table and sentences, and whatever was wrong."""

    title: str
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, *row: Any) -> None:
        """A row of the table; told at once, so that a part that is stopped keeps those before it."""
        self.rows.append(row)
        print("\n" + json.dumps(self.told()), flush=True)

    def told(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**self.__dict__, "rows": [[shown(cell) for cell in row] for row in self.rows]}

    def require(self, holds: bool, what: str) -> str:
        """Note a verdict; what it says in a table."""
        if not holds:
            self.failed.append(what)
        return "yes" if holds else "NO"


def run_part(name: str, given: Given) -> dict[str, Any]:
    """What the part found, for JSON."""
    found: Found = importlib.import_module(f"on_gpu.{name}").measure(given)
    return found.told()


def shown(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def page(found: Mapping[str, Mapping[str, Any]], where: Mapping[str, Any]) -> str:
    """The page of results, in Markdown."""
    lines = ["# Measured on a GPU", ""] if where else []
    lines += [f"- {name}: {value}" for name, value in where.items()]
    for part, one in found.items():
        seconds = f" ({one['seconds']:.0f} s)" if "seconds" in one else ""
        lines += ["", f"## {part}{seconds}", "", one.get("title", ""), ""]
        lines += [f"**FAILED: {what}**" for what in one.get("failed", [])]
        if one.get("rows"):
            lines += [
                "",
                "| " + " | ".join(one["columns"]) + " |",
                "|---" * len(one["columns"]) + "|",
            ]
            lines += ["| " + " | ".join(row) + " |" for row in one["rows"]]
        lines += ["", *one.get("notes", [])]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """The device and the libraries."""
    import torch

    names = ("torch", "triton", "transformers", "peft", "accelerate", "trl", "liger_kernel")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "GPU": f"{gpu}, {torch.cuda.device_count()} of them",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }


def rows_of(given: Given, name: str, count: int, most: int = 3000) -> list[dict[str, Any]]:
    """The first rows of a data set of which no text is longer than `most` characters."""
    with gzip.open(given.data / f"{name}.train.jsonl.gz", "rt") as lines:
        rows = (json.loads(line) for line in lines)
        short = (row for row in rows if len(json.dumps(row)) <= most)
        return [row for row, _ in zip(short, range(count), strict=False)]


def written(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def tokenizer_folder(folder: Path, data: Path, tiny: bool) -> Path:
    """A tokenizer trained on the data, by the script that recipes use."""
    spec = importlib.util.spec_from_file_location(
        "train_tokenizer", Path(__file__).parents[2] / "recipes" / "train_tokenizer.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = ["alpaca_eval_scored"] if tiny else ["gpteacher_roleplay", "hh_harmless_pairs"]
    files = [str(data / f"{name}.train.jsonl.gz") for name in names]
    module.train(files, 1000 if tiny else 16384).save_pretrained(folder)
    return folder


def llama(given: Given, **changes: Any) -> Any:
    """The configuration of a Llama: of Llama 3.2 1B's shape, or a tiny one."""
    from transformers import AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    shape = given.of(
        {
            **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)},
        },
        {
            **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
            **{"head_dim": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        },
    )
    return LlamaConfig(
        **{**shape, "max_position_embeddings": 8192, "tie_word_embeddings": True, **changes},
        **{"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id},
        pad_token_id=tokenizer.pad_token_id,
    )


def folder_of(given: Given, name: str, config: Any, dtype: str = "float32") -> Path:
    """A model folder with random weights and the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = given.work / name
    if not folder.exists():
        torch.manual_seed(0)
        with torch.device(given.device):
            model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(given.tokenizer).save_pretrained(folder)
    return folder


def waited() -> float:
    """Now, when all that was asked of the device is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(do: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each of some calls after two that are not counted."""
    seconds = []
    for _ in range(times + 2):
        began = waited()
        do()
        seconds.append(waited() - began)
    return seconds[2:]


def peak_gib() -> float:
    """Largest memory of the device since `fresh`."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def fresh() -> None:
    """Nothing left on the device but what is held, and the peak begins anew."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median, and the least and most."""
    ordered = sorted(values)
    low, middle, high = (ordered[n] * scale for n in (0, len(ordered) // 2, -1))
    return f"{middle:.3g} ({low:.3g}-{high:.3g})"
