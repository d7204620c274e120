"""A configuration that is a command in a shell script, as most of ms-swift's and TRL's examples are."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.config import RecipeError, number, read_yaml

ENDINGS = (".sh", ".bash", ".slurm")
ASSIGNED = re.compile(r"^\s*(?:export\s+)?(\w+)=(\"[^\"]*\"|'[^']*'|\S+)\s*(?:#.*)?$")
QUOTIENT = re.compile(r"\$\((?:expr|\() *(\d+) *\\?([*/]) *(\d+) *\)?\)")
VARIABLE = re.compile(r"\$(?:(\w+)|{(\w+)(?::?-([^}]*))?})")
SHELL = re.compile(r"(?:&?\d?>>?|[|;&]).*")
"""A word with which a program's arguments end."""
KEYS = ("learning_rate", "...")
"""What a configuration has, for somebody whose file has none."""
PROGRAMS = ("trl", "swift", "megatron")
"""What is started with a word for what it trains."""
SWITCHES = frozenset(
    {"multi_gpu", "multi_cpu", "cpu", "mps", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm"}
    | {"standalone", "no_python", "module", "debug", "quiet", "no_local_rank"}
)
"""Options of launchers behind which no value stands."""
DEVICES = ("nproc_per_node", "num_processes", "num_gpus")
"""Options of launchers for how many devices there are."""
ON_EACH = re.compile(r"\bNPROC_PER_NODE=(\d+)")
PAIRS_BY_DEFAULT = ("swift rlhf", "rlhf.py")
"""ms-swift's commands that train DPO where no `--rlhf_type` is given."""
FEW = 3
"""A command with fewer options trains nothing."""


@dataclass(frozen=True)
class Configuration:
    """What a file says."""

    given: dict[str, Any]
    command: str = ""
    """What was typed: `trl dpo`, `swift pt`, or the name of a script; "" of a file that is no script."""
    devices: int | None = None
    """On how many, where a script says so."""
    notes: tuple[str, ...] = field(default=())


def read(file: Path) -> Configuration:
    """A configuration: YAML, JSON, or the longest command of a script. `RecipeError` where there is
    none."""
    if file.suffix not in ENDINGS:
        try:
            return Configuration(read_yaml(file, "configuration", KEYS))
        except RecipeError:
            if file.suffix != ".json":
                raise
            return Configuration(_object(file))  # with tabs, say, which no YAML has
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"no script can be read at {file}: {error}") from error
    commands = [_words(line) for line in _lines(text)]
    longest = max(commands, key=_flags, default=[])
    if not _flags(longest):
        raise RecipeError(f"{file}: no command with arguments (--learning_rate ...) stands in it")
    others = [_program(one)[0] for one in commands if one is not longest and _flags(one) >= FEW]
    also = ", ".join(filter(None, others))
    notes = (f"the command with most options is read; also in the script: {also}",) if also else ()
    command, start = _program(longest)
    launched = _options(longest[: start - len(command.split())])
    said = [launched[key] for key in DEVICES if isinstance(launched.get(key), int)]
    before = " ".join(longest[:start])
    said += [int(many) for many in ON_EACH.findall(before) or ON_EACH.findall(text)]
    if command.startswith("megatron "):
        raise RecipeError(
            f"{file}: `{command}` is ms-swift's Megatron, whose options are others and not read: write "
            "the recipe by hand (onestage init)"
        )
    told = {"rlhf_type": "dpo"} if command in PAIRS_BY_DEFAULT else {}
    given = told | _options(longest[start:])
    return Configuration(given, command, next(iter(said), None), notes)


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"no configuration can be read at {file}: {error}") from error
    if not isinstance(found, dict):
        raise RecipeError(
            f"{file}: a configuration is an object of keys, found {str(found)[:60]!r}"
        )
    return found


def _lines(text: str) -> Iterator[str]:
    """Commands, each in one line, with the variables that the script has set before it."""
    text = re.sub(r"^\s*#.*\n", "", text.replace("\r\n", "\n") + "\n", flags=re.MULTILINE)
    known: dict[str, str] = {}
    for line in re.sub(r"\\\s*\n", " ", text).split("\n"):
        filled = QUOTIENT.sub(_quotient, VARIABLE.sub(lambda found: _value_of(found, known), line))
        assigned = ASSIGNED.match(filled)
        if assigned:
            known[assigned[1]] = assigned[2].strip("\"'")
        else:
            yield filled


def _value_of(found: re.Match[str], known: Mapping[str, str]) -> str:
    """What stands for a variable: what it was set to, what is said in case it was not, or its name."""
    usual = found[0] if found[3] is None else found[3]
    return known.get(found[1] or found[2], usual)


def _quotient(found: re.Match[str]) -> str:
    """`$(expr 16 / 2)`, by which scripts say a batch for any number of devices."""
    whole, sign, part = int(found[1]), found[2], int(found[3])
    return str(whole // part if sign == "/" and part else whole * part)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quotation that goes on in the next line
        words = line.replace('"', " ").replace("'", " ").split()
    end = next((n for n, word in enumerate(words) if SHELL.fullmatch(word)), len(words))
    return [word.rstrip(";") for word in words[:end]]


def _flags(words: Sequence[str]) -> int:
    return sum(word.startswith("--") for word in words)


def _program(words: Sequence[str]) -> tuple[str, int]:
    """(what is started, where its arguments begin), behind what launches it."""
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        valued = before.startswith("--") and "=" not in before
        if word.endswith(".py") and not (valued and _name(before) not in SWITCHES):
            return Path(word).name, place + 1
        if word in PROGRAMS and place + 1 < len(words) and not valued:
            return f"{word} {words[place + 1]}", place + 2
    return "", 0


def _name(word: str) -> str:
    return word[2:].partition("=")[0].replace("-", "_")


def _options(words: Sequence[str]) -> dict[str, Any]:
    given: dict[str, list[str]] = {}
    key = ""
    for word in words:
        if word.startswith("--"):
            key = _name(word)
            given[key] = [word.partition("=")[2]] if "=" in word else []
        elif key:
            given[key].append(word)
    return {key: _value(values) for key, values in given.items()}


def _value(values: Sequence[str]) -> Any:
    read = [_scalar(one) for one in values]
    return True if not read else read[0] if len(read) == 1 else read


def _scalar(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else number(text)
