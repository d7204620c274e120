"""Loading is whole or refused: what libraries raise, warn of or pass over becomes one sentence.

transformers fills what a folder lacks with random numbers and PEFT leaves such adapters at nothing, each
with a warning that scrolls by; what a damaged file makes them raise ranges from `KeyError:
'added_tokens'` to a page of advice. Here every call that reads a folder is made inside `reading`, and
what transformers reports of keys goes through `require_whole` (design law 11: every weight was loaded).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open

LONGEST = 300
"""Characters of a library's own words that are repeated."""
SHOWN = 3
"""Names that are listed of many."""
GIVE = "give a folder as save_pretrained wrote it, or a hub id"
WORDS = (ValueError, OSError, ImportError, RuntimeError)
"""Errors that are told in words: the name of others says more than their text."""


class LoadError(ValueError):
    """Something that cannot be loaded, or not whole: what it is, what is wrong, what to do."""


@contextmanager
def reading(what: str, advice: str = GIVE) -> Iterator[None]:
    """Whatever a library raises inside becomes one sentence (`LoadError`) about `what`."""
    try:
        yield
    except (LoadError, MemoryError):
        raise  # said already, or nothing that is wrong with the folder
    except Exception as error:  # libraries raise everything: KeyError, ZeroDivisionError, ...
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not loaded for its name
            raise
        if "trust_remote_code" in str(error):
            advice = "to run the code that lies beside it, set model.trust_remote_code: true"
        raise LoadError(f"{what} cannot be read ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """What a library says, in a line."""
    text = " ".join(str(error).split())
    name = "" if text and type(error) in WORDS else f"{type(error).__name__}: "
    said = f"{name}{text}".removesuffix(".").removesuffix(": ")
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."


def require_whole(
    what: str,
    report: Mapping[str, Any],
    *,
    fresh: str | None = None,
    unused: tuple[str, ...] = (),
    advice: str = "its config.json and its weights must be of one model, as save_pretrained wrote them",
) -> None:
    """Raise `LoadError` where a loading report names weights that were not there or not used.

    report: as transformers makes it (`output_loading_info`), without tied weights and those that a
    model's class says it can do without; fresh, unused: how the names begin of weights that are new, or
    left out, on purpose.
    """
    mismatched = {
        key: f"{key} {tuple(a)} for {tuple(b)}" for key, a, b in report["mismatched_keys"]
    }
    missing = {k for k in report["missing_keys"] if fresh is None or not k.startswith(fresh)}
    wrong = {
        "missing": missing - mismatched.keys(),
        "not known to the model": {
            k for k in report["unexpected_keys"] if not k.startswith(unused)
        },
        "of another shape": mismatched.values(),
    }
    told = [f"{count_of(names)} {how}" for how, names in wrong.items() if names]
    if told:
        raise LoadError(f"{what} is not whole: {'; '.join([*told, advice])}")


def count_of(names: Iterable[str]) -> str:
    """`5 weights (a, b, c, ...)`."""
    known = sorted(names)
    shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
    return f"{len(known)} weight{'s' if len(known) > 1 else ''} ({shown})"


def require_weights(folder: Path, file: Path) -> None:
    """Raise `LoadError` where a folder has a model's configuration and none of its weights."""
    if file.exists():
        return
    gguf = any(folder.glob("*.gguf"))
    why = ", only GGUF, which llama.cpp runs and nobody trains" if gguf else ""
    raise LoadError(
        f"{folder} holds no weights (no {file.name} and no index of parts){why}; {GIVE}"
    )


def check_files(name: str, stem: str = "model") -> None:
    """Raise `LoadError` where a folder's weights are not there or cut short; reads no tensor.

    stem: `model`, or `adapter_model`. Names of the hub are not looked at.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    index = folder / f"{stem}.safetensors.index.json"
    with reading(f"{name}: the weights", "copy the folder again, whole"):
        alone = folder / f"{stem}.safetensors"
        # A whole file goes before an index of parts, as in transformers.
        if index.is_file() and not alone.is_file():
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            files = [folder / part for part in parts]
        else:
            files = [alone]
            if not files[0].exists() and any(folder.glob("*.bin")):
                return  # of older times; `torch.load` will say
            require_weights(folder, files[0])
        generation = folder / "generation_config.json"
        if generation.is_file():
            json.loads(generation.read_text())  # which transformers would do without
        for file in files:
            with safe_open(file, framework="pt") as opened:
                opened.keys()
