"""A disk that is full, at every place where a run or a study writes.

`raised`: the rename or wait for the disk of a number says that there is no room. `filled`: at the
file, folder, rename or wait of a number a real (small) disk is filled, but for some bytes, so that every
library finds out for itself, in the middle of a write. One line must say what is full and what to type;
every checkpoint must be whole, and the command that is named must end as the run that had room.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from support.small_studies import content, ground

from bench.faults.damage import in_time, weights
from bench.faults.runs import Said, chances, sorts
from onestage.runfolder.seal import damage

SIZE = 48 << 20
"""Bytes of the disk that is filled."""
LEFT = (0, 1, 4096, 20_000, 70_000)
"""Bytes that are left on it."""
Cases = list[tuple[str, str, int]]


@contextmanager
def failing(at: int) -> Iterator[list[str]]:
    """Every rename and every wait for the disk inside; the one of this number (from 1) finds no room."""
    met: list[str] = []

    def put(name: str) -> Any:
        real = getattr(os, name)

        def call(*given: Any, **more: Any) -> Any:
            met.append(f"{name} {given[0]}")
            if len(met) == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given, **more)

        return patch.object(os, name, call)

    with put("replace"), put("fsync"):
        yield met


class Disk:
    """A small disk of its own, which can be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ballast = folder, folder / ".ballast"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "onestage", str(folder)]
        self.real = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self, left: int) -> None:
        found = os.statvfs(self.folder)
        free = found.f_bavail * found.f_frsize - left
        if free > 0:
            file = os.open(self.ballast, os.O_WRONLY | os.O_CREAT)
            with contextlib.suppress(OSError):
                os.posix_fallocate(file, 0, free)
            os.close(file)

    def clear(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def close(self) -> None:
        if self.real:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)

    def watch(self, at: int, left: int) -> list[str]:
        """Note, in this process from now on, everything that is begun on the disk; fill it before the
        one of this number."""
        met: list[str] = []
        inside = False

        def note(what: str, path: Any) -> None:
            nonlocal inside
            if inside or not str(path).startswith(str(self.folder)):
                return
            met.append(f"{what} {path}")
            if len(met) == at:
                inside = True
                self.fill(left)
                inside = False

        def hook(event: str, given: tuple[Any, ...]) -> None:
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            if event == "open" and isinstance(given[2], int) and given[2] & writes:
                note("open", given[0])
            elif event in ("os.mkdir", "os.rename"):
                note(event, given[0])

        sys.addaudithook(hook)  # for good: a process that watches does nothing afterwards
        real = os.fsync
        os.fsync = lambda file: (note("fsync", os.readlink(f"/proc/self/fd/{file}")), real(file))[1]
        return met


class Ground:
    """The commands that are tried, and what they come to where there is room."""

    def __init__(self, root: Path) -> None:
        self.root, self.disk = root, Disk(root / "disk")
        self.cache, self.out = self.disk.folder / "cache", self.disk.folder / "out"
        recipes = {n: {**r, "cache_dir": str(self.cache)} for n, r in sorts(root).items()}
        base, data = ground(root / "ground", root / "model")
        files = {**recipes, "study": content(base, data, seeds=[0])}
        for name, file in files.items():
            (root / f"{name}.yaml").write_text(yaml.safe_dump(file))
        self.names = list(files)

    def words(self, name: str) -> list[str]:
        command = "study" if name == "study" else "train"
        more = ["--jobs", "1", "--cache", str(self.cache)] if name == "study" else []
        return [command, str(self.root / f"{name}.yaml"), "--out", str(self.out), *more]

    def result(self, name: str) -> Any:
        if name != "study":
            return weights(self.out)
        rows = (self.out / "results.csv").read_text().split("\n")
        return [row for row in rows if ",seconds," not in row]

    def clear(self) -> None:
        self.disk.clear()
        for folder in (self.cache, self.out):
            shutil.rmtree(folder, ignore_errors=True)

    def apart(self, name: str, how: str, at: int, left: int = 0) -> dict[str, Any]:
        """The command in a process of its own; what it said, how it ended, what was met."""
        child, told = os.fork(), self.root / "told.json"
        if not child:
            try:
                if how == "filled":
                    met = self.disk.watch(at, left)
                    said = Said(self.words(name))
                else:
                    with failing(at) as met:
                        said = Said(self.words(name))
                told.write_text(
                    json.dumps(
                        {
                            "code": said.code,
                            "plain": said.plain,
                            "text": said.text,
                            "errors": said.errors,
                            "met": met,
                        }
                    )
                )
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        self.disk.clear()
        return json.loads(told.read_text())


def tried(there: Ground, name: str, how: str, at: int, left: int, wanted: Any) -> tuple[str, str]:
    """What came of a disk that was full there, and why that is a fault (`""`: it is none)."""
    there.clear()
    said = there.apart(name, how, at, left)
    where = f"{name}: {how} at {at} of {len(said['met'])}, {left} bytes left"
    if len(said["met"]) >= at:
        where += f" ({said['met'][at - 1]})"
    if said["code"] == 0:
        same = there.result(name) == wanted
        return ("went on", "") if same else ("FAULT", f"{where}: another result")
    # A run looks for room before it begins, too, and then nothing has been written.
    line = " ".join(said["text"].split())[-2000:] if said["errors"] else ""
    if not said["plain"] or "disk" not in line or "make room" not in line:
        return "FAULT", f"{where}: {said['text'][-600:]}"
    broken = [str(one) for one in there.out.rglob("step-*") if one.parent.name == "checkpoints"]
    broken = [one for one in broken if damage(Path(one))]
    if broken:
        return "FAULT", f"{where}: {broken} are no longer whole"
    if name == "study":
        again = ["--retry"] if (there.out / "cells").is_dir() else []
    else:
        again = ["--resume"] if "--resume" in line else []
    then = Said([*there.words(name), *again])
    if then.code or there.result(name) != wanted:
        return "FAULT", f"{where}: {line[-300:]}; then {again}: {then.text[-500:]}"
    drafts = [str(path) for path in there.out.rglob(".*-*")]
    return ("one line, then the same", "") if not drafts else ("FAULT", f"{where}: left {drafts}")


def faults(most: int, seed: int, root: Path) -> tuple[str, list[str]]:
    """Full disks: the `seed`-th piece of `most` of all places; what came of them, and what is wrong."""
    there = Ground(root)
    try:
        cases, wanted = Cases(), {}
        for name in there.names:
            for how in ("raised", "filled") if there.disk.real else ("raised",):
                there.clear()
                said = there.apart(name, how, 0)
                if said["code"]:
                    raise RuntimeError(said["text"])
                wanted[name] = there.result(name)
                cases += [(name, how, at + 1) for at in range(len(said["met"]))]
        chances(0, "disk").shuffle(cases)
        chance, found, wrong = chances(seed, "left"), Counter[str](), []
        mine = cases[seed * most : (seed + 1) * most]
        for name, how, at in mine:
            left = chance.choice(LEFT) if how == "filled" else 0
            try:
                with in_time():
                    what, why = tried(there, name, how, at, left, wanted[name])
            except Exception as error:
                what, why = "FAULT", f"{name}: {how} at {at}: {type(error).__name__}: {error}"
            found[f"{how}: {what}"] += 1
            if why:
                wrong.append(why)
                print(f"FAULT {why}", flush=True)
        real = "" if there.disk.real else " (no disk could be mounted to be filled)"
        return f"{len(mine)} of {len(cases)} places{real}: {dict(sorted(found.items()))}", wrong
    finally:
        there.disk.close()
