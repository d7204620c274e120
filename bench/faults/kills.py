"""Runs that are killed at random moments and resumed until they are done.

Runs of four sorts (a schedule that measures, adapters with dropout, stages, answers sampled online) are
ended by SIGKILL; weights and metrics must be those of a run that was left alone, bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import time
from pathlib import Path

from bench.faults.runs import begin, chances, digest, sorts

MOST_ATTEMPTS = 6
"""Kills of one run before it is let through."""


def faults(most: int, seed: int, root: Path) -> tuple[str, list[str]]:
    """Runs killed until there were so many kills: what came of them, and those that ended otherwise."""
    recipes, chance, whole = sorts(root), chances(seed, "kills"), {}
    for name, recipe in recipes.items():
        start = time.monotonic()
        if os.waitpid(begin(recipe, root / name, root / "log", resume=False), 0)[1]:
            raise RuntimeError((root / "log").read_text()[-2000:])
        whole[name] = digest(root / name), time.monotonic() - start
    kills, wrong = 0, []
    for trial, name in enumerate(itertools.cycle(recipes)):
        if kills >= most:
            return f"{kills} kills in {trial} runs, {len(wrong)} ended otherwise", wrong
        out, status = root / f"{name}-{trial}", 1
        for attempt in range(MOST_ATTEMPTS + 1):
            resume = out.is_dir() and any(out.iterdir())
            child = begin(recipes[name], out, root / "log", resume=resume)
            if attempt < MOST_ATTEMPTS and kills < most:
                time.sleep(chance.uniform(0.02, 1.1) * whole[name][1])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status):
                break
            kills += 1
        if status or digest(out) != whole[name][0]:
            wrong.append(out.name)
        else:
            shutil.rmtree(out)
    raise AssertionError
