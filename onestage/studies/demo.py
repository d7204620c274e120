"""`onestage demo`: the main job from nothing, in minutes on two CPU cores.

A small world is generated, a real Llama and tokenizer are made and pretrained on its text, and the base
is fine-tuned three ways on the same feedback. It is an ordinary study (`demo.yaml`), left in the output
folder with its recipes, for reading and changing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from onestage.report.page import write_report
from onestage.runfolder import Say
from onestage.studies.file import StudyFile, load_study
from onestage.studies.lab.ground import make_base
from onestage.studies.lab.world import LabWorld
from onestage.studies.study import Outcome, Study
from onestage.studies.tables import tables
from onestage.training.callbacks import Callback

FILE = Path(__file__).with_name("demo.yaml")


def demo_study(seed: int) -> StudyFile:
    """The demo's study, in the world of a seed."""
    return load_study(FILE, [f"seeds=[{seed}]"])


def run_demo(
    out: Path,
    seed: int,
    cache: Path,
    jobs: int | None,
    console: Console,
    say: Say,
    progress: Callable[[], Callback],
) -> Outcome:
    """Build or load the base, do the study, print its table, write the report; all in `out`."""
    began = time.perf_counter()
    study = Study(demo_study(seed), out / f"seed-{seed}", cache, jobs=jobs, say=say)
    base = make_base(LabWorld(seed), cache, seed=seed, say=say, callbacks=[progress()])
    outcome = study.go()
    for table in tables(study.out, outcome):
        console.print(table)
    written = write_report([study.out], study.out / "report.html")
    say(f"{time.perf_counter() - began:.0f} s in all; base model {base}")
    say(f"report {written.file}")
    return outcome
