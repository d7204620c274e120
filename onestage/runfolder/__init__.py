"""What a run leaves on disk, and how it is read again: all that the report knows of training.

`recipe.yaml`, `manifest.json`, `data.json` are written before step 0, whole or not at all;
`metrics.jsonl` and `samples.jsonl` grow a line at a time. The small things that every room does with
files and lines are here, too: the cache folder, digests, and saying what goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from onestage.runfolder.disk import draft_of, writing
from onestage.runfolder.disk import write_text as write_text
from onestage.runfolder.secrets import hidden

PACKAGES = ("onestage", "torch", "transformers", "peft", "accelerate", "datasets", "numpy")
Say = Callable[[str], None]
"""Told a line of what goes on: `print`, the terminal's, or `silent`."""


EVALUATIONS = "evaluations.jsonl"
KEPT_ITEMS = "keep_items.json"
"""What the start model's answers were worth, by bound on a suite: those of a run that goes on, too."""
LOCK = ".lock"
"""Held by the run that goes on in a folder: who, in words. Left behind only where it was killed."""


def silent(line: str) -> None:
    """Says nothing."""


STAGE = re.compile(r"(\d+)-.+")
"""The name of a stage's folder: its number and its name."""


class OutputError(ValueError):
    """A run folder that cannot be used."""


def json_line(content: Any) -> str:
    """A line of JSON Lines, as people read it: only what some readers take for the end of a line is
    written as an escape."""
    text = json.dumps(content, ensure_ascii=False)
    for mark in ("\x85", "\u2028", "\u2029"):
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text + "\n"


def json_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """What stands in the lines of a file, and the number of lines that are damaged (cut off where the
    run was killed, or spoilt): each loses itself and no other."""
    lines = [line for line in file.read_bytes().split(b"\n") if line]
    found = [content for line in lines if (content := json_table(line)) is not None]
    return found, len(lines) - len(found)


def json_table(line: bytes) -> dict[str, Any] | None:
    """What a line of JSON Lines says; None where it is damaged."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=1) + "\n")


def read_json(file: Path) -> Any:
    """What a file says; `ValueError` where it is no JSON."""
    try:
        return json.loads(file.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{file} is no JSON of ours: it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{file} is no JSON, or damaged: {error}") from error


def taken(folder: Path) -> str | None:
    """Why a new run cannot be kept in a folder, in a sentence; None where it can."""
    names = ("stages.json", "metrics.jsonl", "model", "checkpoints")
    used = [name for name in names if (folder / name).exists()]
    if not used:
        return None
    return (
        f"{folder} already holds a run ({', '.join(used)}): continue it with --resume, or choose "
        "another --out"
    )


def stages_in(folder: Path) -> list[Path]:
    """The folders of a run's stages, in their order: `10-sft` stands behind `9-dpo`."""
    found = {path: STAGE.fullmatch(path.name) for path in folder.glob("[0-9]*-*")}
    numbers = {path: int(named[1]) for path, named in found.items() if named and path.is_dir()}
    return sorted(numbers, key=lambda path: numbers[path])


def parts_in(folder: Path) -> list[Path]:
    """Where a run wrote metrics: in each of its stages that was begun, or in its own folder."""
    begun = [stage for stage in stages_in(folder) if (stage / "metrics.jsonl").is_file()]
    return begun or [folder]


def require_writable(out: Path, called: str = "--out") -> None:
    """Raise `OutputError`, before anything long begins, where a file or folder could not be made or
    replaced. Nothing of the trial is left, and folders on the way are not made."""
    held = next(one for one in out.absolute().parents if one.exists())
    try:
        # Only who tries knows: root may write anywhere but on what is mounted to be read.
        with draft_of(held / out.name).open("xb") as draft:
            pass
        Path(draft.name).unlink()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise OutputError(
            f"{called} {out}: nothing can be written in {held} ({why}); choose another place"
        ) from error


def require_ours(file: Path, mark: str, called: str = "--out") -> None:
    """Raise `OutputError` for a page or a table that is there already and that we did not write, by a
    pattern that all of ours begin or end with: they are written anew whenever what they are made of has
    grown. Also for one that cannot be written."""
    if file.is_file() and not re.search(mark, file.read_text(encoding="utf-8", errors="replace")):
        raise OutputError(
            f"{file} is there already and was not written by this command; choose another {called}, or "
            "move it away"
        )
    require_writable(file, called)


class RunFolder:
    """One run folder. `folder` is made here; refused where it holds a run, unless resumed."""

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(f"cannot write to the output folder {folder}: {error}") from error
        held = taken(folder)
        if held and not resume:
            raise OutputError(held)

    def begin(self, recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write what the run was told and on what it runs."""
        write_text(self.folder / "recipe.yaml", yaml.safe_dump(dict(recipe), sort_keys=False))
        write_json(self.folder / "manifest.json", {**environment(), **facts})

    def change(self, recipe: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
        """Write what the run is told from now on, and in which keys that is not what it was told."""
        file = self.folder / "manifest.json"
        facts = read_json(file) if file.is_file() else {}
        write_json(file, {**facts, "changed": [*facts.get("changed", []), entry]})
        write_text(self.folder / "recipe.yaml", yaml.safe_dump(dict(recipe), sort_keys=False))

    def saved(self, step: int | None) -> None:
        """Write at which step the trained model was saved; None of a run that goes on. What becomes of
        `model/` afterwards is its owner's business: a run whose model was moved is finished, too."""
        self.note({"saved": step})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Write what is found out of a run after it was begun."""
        file = self.folder / "manifest.json"
        if file.is_file():
            write_json(file, {**read_json(file), **facts})

    def require_plugins(self, now: Mapping[str, Mapping[str, str | None]]) -> None:
        """Refuse to go on with other people's classes that are not those the run was begun with."""
        file = self.folder / "manifest.json"
        before = read_json(file).get("plugins", {}) if file.is_file() else {}
        for name in sorted({*before, *now}):
            was, is_now = before.get(name), now.get(name)
            if was is None or is_now is None or was["digest"] != is_now["digest"]:
                where = (was or is_now or {}).get("from")
                raise OutputError(
                    f"the run in {self.folder} was begun with another {name} (of {where}): its file has "
                    "changed since; put it back to go on with --resume, or choose another --out"
                )

    def data(self, table: Any) -> None:
        write_json(self.folder / "data.json", table)

    def log(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Append a line of metrics, and return it as it was written: numbers that are not finite are
        None."""
        clean = _clean_line(line)
        with writing(self.metrics), self.metrics.open("a") as file:
            file.write(json.dumps(clean) + "\n")
        return clean

    def certify(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Write what became of the bounds on forgetting."""
        write_json(self.folder / "keep.json", [_clean_line(one) for one in found])

    def kept_items(self, name: str, content: Mapping[str, Any]) -> None:
        """Write what a bound on a suite compares with."""
        file = self.folder / KEPT_ITEMS
        write_json(file, {**(read_json(file) if file.is_file() else {}), name: content})

    def samples(self, step: int, examples: Iterable[Mapping[str, Any]]) -> None:
        """Append some sampled responses, a problem a line, to `samples.jsonl`."""
        lines = "".join(json_line({"step": step, **one}) for one in examples)
        if lines:
            place = self.folder / "samples.jsonl"
            with writing(place), place.open("ab") as file:
                file.write(lines.encode("utf-8", "backslashreplace"))

    def evaluations(self, line: Mapping[str, Any]) -> None:
        """Append what a suite found, item by item, to `evaluations.jsonl`."""
        place = self.folder / EVALUATIONS
        with writing(place), place.open("ab") as file:
            file.write(json_line(line).encode("utf-8", "backslashreplace"))

    def logged(self) -> dict[str, tuple[int, str]]:
        """Bytes and digest of each file that grows, for a checkpoint to keep."""
        return {file.name: _prefix(file) for file in self._growing()}

    def altered(self, before: Mapping[str, Sequence[Any]]) -> list[str]:
        """Which of these files do not begin as they did (`logged`): they hold other numbers than were
        measured, or fewer."""
        files = {file.name: file for file in self._growing()}
        return [
            name
            for name, (size, digest) in before.items()
            if name not in files or _prefix(files[name], size) != (size, digest)
        ]

    def _growing(self) -> list[Path]:
        names = ("samples.jsonl", EVALUATIONS)
        return [f for f in (self.metrics, *(self.folder / n for n in names)) if f.is_file()]

    def rewind(self, step: int) -> dict[str, int]:
        """Drop metrics and samples of steps after `step`: they will be measured again. Returns how many
        lines of each file are damaged, and left out, where there are any."""
        damaged: dict[str, int] = {}
        for file in self._growing():
            lines, lost = json_lines(file)
            told = [line for line in lines if isinstance(line.get("step"), int)]
            lost += len(lines) - len(told)
            write_text(file, "".join(json_line(one) for one in told if one["step"] <= step))
            damaged |= {file.name: lost} if lost else {}
        return damaged


def _prefix(file: Path, size: int | None = None) -> tuple[int, str]:
    content = file.read_bytes()[:size]
    return len(content), hashlib.blake2b(content, digest_size=8).hexdigest()


def _clean_line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _clean(value) for key, value in line.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        # Eight digits are what float32 holds.
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; damaged ones are left out."""
    return json_lines(folder / "metrics.jsonl")[0]


def environment() -> dict[str, Any]:
    """Versions, machine and command."""
    return {
        "command": [hidden(word) for word in sys.argv],
        "versions": {package: version_of(package) or "not installed" for package in PACKAGES},
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
        "git": _git_commit(),
    }


@cache
def version_of(package: str) -> str:
    """The version of a package that is installed; nothing where it is not. Kept, since it takes some
    milliseconds to find, and what is imported stays as it is."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def digest_of(content: Any) -> str:
    """A short digest of plain data."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def code_digest() -> str:
    """A digest of onestage's own source: what else must be the same where two machines do one work."""
    root = Path(__file__).parents[1]
    files = sorted(root.rglob("*.py"))
    return digest_of([[file.relative_to(root).as_posix(), file.read_text()] for file in files])


def default_cache() -> Path:
    """Where everything is kept between runs that is told nothing else."""
    return Path(os.environ.get("ONESTAGE_CACHE") or "~/.cache/onestage").expanduser()
