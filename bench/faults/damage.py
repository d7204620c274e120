"""Damaged files: whatever lies on the disk between two commands, spoilt in every way.

Checkpoints and logs of runs that were killed (resumed), caches, models and adapters, finished runs and
studies. What reads them must come to the result that it has without the damage, and say what it made
anew, or end in one `error:` line; once the file is whole again, the command must come to its result.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.small_studies import content, ground

from bench.faults.runs import Said, begin, chances, digest, sorts
from onestage.runfolder import json_lines
from onestage.studies.lab.lock import LockWorld
from onestage.studies.lab.lock_base import make_lock_base

SECONDS = 120
"""In which a command ends."""
EXPERTS = {"attempts": 64, "train": {"max_steps": 2, "batch_size": 8}}


def flip(file: Path, chance: random.Random) -> None:
    raw = bytearray(file.read_bytes())
    if raw:
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    file.write_bytes(raw)


def cut(file: Path, chance: random.Random) -> None:
    os.truncate(file, int(chance.random() * file.stat().st_size))


def folder_instead(file: Path, chance: random.Random) -> None:
    file.unlink()
    (file / "inside").mkdir(parents=True)


def unreadable(file: Path, chance: random.Random) -> None:
    file.unlink()
    file.symlink_to(file.name)  # to itself: not even root can read that


def others(file: Path, chance: random.Random) -> None:
    """Another file of the same folder, or of the same sort somewhere above."""
    near = [one for one in file.parent.parent.rglob("*") if one.is_file() and one != file]
    alike = [one for one in near if one.suffix == file.suffix] or near
    if alike:
        shutil.copyfile(chance.choice(sorted(alike)), file)


Damage = Callable[[Path, random.Random], object]
DAMAGES: dict[str, Damage] = {
    "flipped": flip,
    "cut": cut,
    "emptied": lambda file, _: file.write_bytes(b""),
    "gone": lambda file, _: file.unlink(),
    "a folder": folder_instead,
    "unreadable": unreadable,
    "another's": others,
    "noise": lambda file, chance: file.write_bytes(chance.randbytes(64)),
    "longer": lambda file, chance: file.write_bytes(file.read_bytes() + chance.randbytes(9)),
}
QUIET = {"flipped", "another's", "longer"}
"""What no reader can see in a file that others made and nobody sealed: a model, a log."""


@contextmanager
def in_time() -> Any:
    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Place:
    """Something on the disk, and a command that reads it."""

    name: str
    whole: Path
    words: Callable[[Path, Path], list[str]]
    """The command, of the (damaged) folder and a folder for what comes out."""
    result: Callable[[Path, Path], Any]
    """What it came to; None where it only prints."""
    sealed: bool
    """Whether every changed bit must be seen."""
    wanted: Any = None
    logs: set[str] | None = None
    """The lines of metrics that it has without damage, where they are looked at."""


def killed(recipe: dict[str, Any], out: Path, log: Path) -> None:
    """A run that was killed after its second checkpoint (of its last stage)."""
    child = begin(recipe, out, log, resume=False)
    place = (out / "2-b" if "stages" in recipe else out) / "checkpoints" / "step-000004"
    while not place.is_dir() and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _resumed(file: Path, at: Path, _: Path) -> list[str]:
    return ["train", str(file), "--resume", "--out", str(at)]


def weights(out: Path) -> str | None:
    files = sorted((out / "model").resolve().glob("*.safetensors"))
    return "".join(str(hash(file.read_bytes())) for file in files) or None


def places(root: Path) -> list[Place]:
    found: list[Place] = []
    recipes = sorts(root)
    for name, recipe in recipes.items():
        file, out = root / f"{name}.yaml", root / f"killed-{name}"
        file.write_text(yaml.safe_dump(recipe))
        killed(recipe, out, root / "log")
        again = ["train", str(file), "--resume", "--out"]
        found.append(
            Place(
                f"run {name}",
                out,
                lambda at, _, w=again: [*w, str(at)],
                lambda at, _: weights(at),
                True,
            )
        )
    (root / "other-cache").mkdir()
    found.append(_cache(root, recipes["maxright"]))
    found.append(_beneath(root, recipes["lora"]))
    found += _models(root, recipes)
    found += _finished(root, recipes)
    return found


def _cache(root: Path, recipe: dict[str, Any]) -> Place:
    def words(at: Path, out: Path) -> list[str]:
        (out.parent / "cached.yaml").write_text(yaml.safe_dump({**recipe, "cache_dir": str(at)}))
        return ["train", str(out.parent / "cached.yaml"), "--out", str(out)]

    return Place("cache", root / "cache", words, lambda _, out: digest(out), True)


def _beneath(root: Path, recipe: dict[str, Any]) -> Place:
    """The model that a killed run was trained from."""
    model, file, out = root / "trial" / "model", root / "beneath.yaml", root / "beneath"
    shutil.copytree(root / "model", model)
    recipe = {**recipe, "model": {**recipe["model"], "name": str(model)}}
    file.write_text(yaml.safe_dump(recipe))
    killed(recipe, out, root / "log")

    def words(_: Path, at: Path) -> list[str]:
        shutil.copytree(out, at, symlinks=True)
        return _resumed(file, at, at)

    return Place("model of a run", root / "model", words, lambda _, at: weights(at), True)


def _models(root: Path, recipes: dict[str, dict[str, Any]]) -> list[Place]:
    adapter, tuned = root / "adapter", root / "tuned"
    for name, place in (("lora", adapter), ("maxright", tuned)):
        Said(["train", str(root / f"{name}.yaml"), "--out", str(root / f"from-{name}")])
        shutil.copytree((root / f"from-{name}" / "model").resolve(), place)
    rows, twin = str(root / "demos.jsonl"), root / "twin"
    shutil.copytree(adapter, twin)

    def trained(at: Path, out: Path) -> list[str]:
        recipe = copy.deepcopy(recipes["lora"])
        recipe["model"] |= {"name": str(at)}
        (out.parent / "model.yaml").write_text(yaml.safe_dump(recipe))
        return ["train", str(out.parent / "model.yaml"), "--out", str(out)]

    def scored(at: Path, out: Path) -> list[str]:
        return ["score", "--model", str(at), "--data", rows, "--out", str(out)]

    def merged(at: Path, out: Path) -> list[str]:
        return ["merge", str(at), str(twin), "--data", rows, "--out", str(out)]

    def text(_: Path, out: Path) -> Any:
        return out.read_text() if out.exists() else None

    return [
        Place("model", root / "model", trained, lambda _, out: weights(out), False),
        Place("adapter", adapter, scored, text, False),
        Place("model", tuned, scored, text, False),
        Place("adapter", adapter, merged, lambda _, out: None, False),
    ]


def _finished(root: Path, recipes: dict[str, dict[str, Any]]) -> list[Place]:
    file, folder = root / "study.yaml", root / "study"
    base, data = ground(root / "ground", root / "model")
    file.write_text(yaml.safe_dump(content(base, data, seeds=[0])))

    def study(at: Path, out: Path) -> list[str]:
        more = ["--jobs", "1", "--cache", str(root / "study-cache")]
        return ["study", str(file), "--out", str(at), *more]

    said = Said(study(folder, folder))
    if said.code:
        raise RuntimeError(said.text)

    def results(at: Path, _: Path) -> Any:
        rows = (
            (at / "results.csv").read_text().split("\n") if (at / "results.csv").is_file() else []
        )
        return [row for row in rows if ",seconds," not in row]

    def report(at: Path, out: Path) -> list[str]:
        return ["report", str(at), "--out", str(out) + ".html"]

    def locks(at: Path, out: Path) -> list[str]:
        return ["list"]

    def base_of(at: Path, out: Path) -> Any:
        made = make_lock_base(LockWorld(0, 4), at, lambda line: None, **EXPERTS)  # type: ignore[arg-type]
        return [hash((made / n).read_bytes()) for n in ("model.safetensors", "tokenizer.json")]

    base_of(root / "lab-cache", root)
    return [
        Place("study", folder, study, results, True),
        Place("report of a study", folder, report, lambda *_: None, False),
        Place("report of a run", root / "from-maxright", report, lambda *_: None, False),
        Place("report of stages", root / "killed-stages", report, lambda *_: None, False),
        Place("base of a world", root / "lab-cache", locks, base_of, True),
    ]


def lines_of(out: Path) -> set[str]:
    """Every line of metrics of a run, or its last stage, but for what its clock says."""
    file = max(out.rglob("metrics.jsonl"), default=None)
    lines = json_lines(file)[0] if file and file.is_file() else []
    return {json.dumps({k: v for k, v in line.items() if "second" not in k}) for line in lines}


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def tried(place: Place, how: str, chance: random.Random, root: Path) -> tuple[str, str]:
    """What came of one damage, and why that is a fault (`""`: it is none)."""
    work = root / "trial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    at, out = work / place.whole.name, work / "out"
    shutil.copytree(place.whole, at, symlinks=True)
    file = chance.choice(files_of(at))
    before = file.read_bytes()
    DAMAGES[how](file, chance)
    same = file.is_file() and file.read_bytes() == before
    where = f"{place.name}: {file.relative_to(at)} {how}"
    with in_time():
        said = Said(place.words(at, out))
        if not said.plain:
            return "FAULT", f"{where}: {said.text[-600:]}"
        if said.code == 0:
            got, logs = place.result(at, out), lines_of(at)
            if (
                place.logs is not None
                and logs != place.logs
                and "as this run wrote" not in said.text
            ):
                return "FAULT", f"{where}: other metrics without a word: {logs ^ place.logs}"
            if got == place.wanted:
                return "same", ""
            seen = "could not" in said.text or "damaged" in said.text
            if not place.sealed and (how in QUIET or same or seen):
                return "nobody can see", ""
            return "FAULT", f"{where}: another result, and it said {said.text[-300:]}"
        if len(said.errors) > 1 and said.words[0] != "check":
            return "FAULT", f"{where}: {len(said.errors)} lines {said.errors}"
        return _mended(place, at, out, file, before, where)


def _mended(
    place: Place, at: Path, out: Path, file: Path, before: bytes, where: str
) -> tuple[str, str]:
    """Refused: nothing else may have changed."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(before)
    shutil.rmtree(out, ignore_errors=True)
    said = Said(place.words(at, out))
    if said.code or place.result(at, out) != place.wanted:
        return "FAULT", f"{where}: refused, and then mended it says {said.text[-600:]}"
    return "refused in a line", ""


def faults(most: int, seed: int, root: Path) -> tuple[str, list[str]]:
    """Files damaged: how many trials came to what, and what should not be."""
    every, chance = places(root), chances(seed, "damage")
    for place in every:
        work = root / "trial"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        shutil.copytree(place.whole, work / place.whole.name, symlinks=True)
        said = Said(place.words(work / place.whole.name, work / "out"))
        if said.code:
            raise RuntimeError(f"{place.name}: {said.text}")
        place.wanted = place.result(work / place.whole.name, work / "out")
        if place.name.startswith("run "):
            place.logs = lines_of(work / place.whole.name)
    found: Counter[str] = Counter()
    wrong = []
    for number in range(most):
        place = every[number % len(every)]
        how = chance.choice(list(DAMAGES))
        try:
            what, why = tried(place, how, chance, root)
        except Exception as error:
            what, why = "FAULT", f"{place.name} {how}: {type(error).__name__}: {error}"
        found[what] += 1
        if why:
            wrong.append(why)
            print(f"FAULT {why}", flush=True)
    return f"{most} damaged files: {dict(found)}", wrong
