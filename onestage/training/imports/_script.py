"""A configuration that is a command in a shell script, as most of ms-swift's and TRL's examples are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from onestage.config import RecipeError, number, read_yaml
from onestage.training.imports import known_keys

ENDINGS = (".sh", ".bash", ".slurm")
ASSIGNED = re.compile(r"^\s*(?:export\s+)?(\w+)=(\S+)\s*$", re.MULTILINE)
QUOTIENT = re.compile(r"\$\((?:expr|\() *(\d+) *\\?([*/]) *(\d+) *\)?\)")
VARIABLE = re.compile(r"\$(?:(\w+)|{(\w+)})")
TOLD_BY_NAME: Mapping[str, dict[str, Any]] = {
    "sft": {"loss_type": "nll"},
    "dpo": {"loss_type": "sigmoid"},
    "kto": {"loss_type": "kto"},
    "grpo": {"num_generations": 8},
    "reward": {"lora_task_type": "SEQ_CLS"},
}
"""What TRL's commands (`trl dpo`) and scripts (`dpo.py`) say by their names."""


def read(file: Path) -> dict[str, Any]:
    """A configuration: YAML, JSON, or the longest command of a script. `RecipeError` where there is
    none."""
    if file.suffix not in ENDINGS:
        return read_yaml(file, "configuration", known_keys())
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"no script can be read at {file}: {error}") from error
    commands = [_words(line) for line in _lines(text)]
    longest = max(commands, key=_flags, default=[])
    if not _flags(longest):
        raise RecipeError(f"{file}: no command with arguments (--learning_rate ...) stands in it")
    return _arguments(longest)


def _lines(text: str) -> list[str]:
    """Commands, each in one line, with the variables that the script sets itself."""
    text = re.sub(r"^\s*#.*\n", "", text + "\n", flags=re.MULTILINE)
    text = re.sub(r"\\\s*\n", " ", text)
    known = {name: value.strip("\"'") for name, value in ASSIGNED.findall(text)}
    filled = VARIABLE.sub(lambda found: known.get(found[1] or found[2], found[0]), text)
    return QUOTIENT.sub(_quotient, filled).split("\n")


def _quotient(found: re.Match[str]) -> str:
    """`$(expr 16 / 2)`, by which scripts say a batch for any number of devices."""
    whole, sign, part = int(found[1]), found[2], int(found[3])
    return str(whole // part if sign == "/" and part else whole * part)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quotation that goes on in the next line
        return line.replace('"', " ").replace("'", " ").split()


def _flags(words: Sequence[str]) -> int:
    return sum(word.startswith("--") for word in words)


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a program, without those of its launcher."""
    # What follows an option is its value.
    pairs = enumerate(pairwise(words), 1)
    scripts = [n for n, (left, right) in pairs if right.endswith(".py") and left[:2] != "--"]
    start = scripts[-1] + 1 if scripts else 0
    found: dict[str, Any] = {}
    if start:
        found |= _by_name(Path(words[start - 1]).stem)
    elif "trl" in words[:-1]:
        found |= _by_name(words[words.index("trl") + 1])
    given: dict[str, list[str]] = {}
    key = ""
    for word in words[start:]:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            key = name[2:].replace("-", "_")
            given[key] = [value] if equals else []
        elif key:
            given[key].append(word)
    return found | {key: _value(values) for key, values in given.items()}


def _by_name(name: str) -> dict[str, Any]:
    return next((told for one, told in TOLD_BY_NAME.items() if one in name), {})


def _value(values: Sequence[str]) -> Any:
    read = [_scalar(one) for one in values]
    return True if not read else read[0] if len(read) == 1 else read


def _scalar(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else number(text)
