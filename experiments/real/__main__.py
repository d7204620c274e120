"""`make demo-real`: one stage (UFT, MAXRIGHT) and two (SFT, then DPO) on a small real model.

SmolLM2-135M-Instruct learns eight instructions from demonstrations and pairs, all three ways from the
same rows in the same number of steps. Then it is asked: the benchmark's own checkers of IFEval on
prompts of other topics, questions that it could answer before, and sentences that it knew. Ends with a
table, a verdict and a page, which is opened where somebody sits at a terminal. Every step is a
command of onestage, which is printed before it is run.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from experiments.real import known, mixture
from experiments.real.model import smollm2
from onestage.cli import app as onestage
from onestage.cli._terminal import plain_errors, say
from onestage.data.reach import require_within_reach

WAYS: dict[str, dict[str, Any]] = {
    "uft": {"objective": {"name": "uft", "beta": 0.03}},
    "maxright": {
        "objective": {"demonstration": "sft", "pair": {"name": "dpo", "beta": 0.1}},
        "schedule": {"name": "maxright", "weights": {"dpo": 0.5, "sft": 0.5}},
    },
    "sft_then_dpo": {
        "stages": [
            {"name": "sft", "streams": ["shown"], "objective": "sft"},
            {
                "name": "dpo",
                "streams": ["compared"],
                "objective": {"name": "dpo", "beta": 0.1},
                "adapter": "merge",
                "reference": "start",
            },
        ]
    },
}
ROWS = 160
"""Demonstrations, and as many pairs."""
ALLOWED = 5
"""Points of 100, or per cent, by which a measure may fall."""
QUICK = {"name": "quick", "limit": 20}
"""Of five tasks of the hub, where it can be reached."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[
        str,
        typer.Option(
            envvar="ONESTAGE_SMOLLM2", help="Folder or hub id. [default: SmolLM2, fetched]"
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="Where all of it is kept.")] = Path("runs/demo-real"),
    steps: Annotated[int, typer.Option(min=1, help="Of each way; of stages, all together.")] = 40,
    limit: Annotated[
        int | None, typer.Option(help="The first so many items of each suite.")
    ] = None,
) -> None:
    """Train a small real model in three ways on the same rows, evaluate them, and compare: a report."""
    with plain_errors():
        began = time.monotonic()
        data = out / "data"
        data.mkdir(parents=True, exist_ok=True)
        start = smollm2(model, out / "smollm2", say)
        write_data(data)
        runs = [out / name for name in WAYS]
        for folder in runs:
            if (folder / "model").exists():
                say(f"{folder} was trained before; remove it to have it trained again")
                continue
            file = out / f"{folder.name}.yaml"
            told = recipe(folder.name, start, data, steps)
            file.write_text(yaml.safe_dump(told, sort_keys=False))
            going = ["--resume"] if folder.exists() else []
            run(["train", str(file), "--out", str(folder), *going])
        asked = [word for one in suites(data) for word in ("--suite", one)]
        models = [str(last_model(folder)) for folder in runs]
        place = ["--base", start, "--out", str(out / "evaluation"), "--allowed", str(ALLOWED)]
        few = [] if limit is None else ["--limit", str(limit)]
        run(["evaluate", *models, *asked, *place, *few])
        page = str(out / "report.html")
        run(["report", *map(str, runs), "--out", page, "--title", "SmolLM2 in three ways"])
        say(f"{time.monotonic() - began:.0f} s in all")
        if sys.stdout.isatty():
            typer.launch(page)


def run(words: Sequence[str]) -> None:
    """A command of onestage, in this process. Raises `typer.Exit` where it did not end well."""
    say(f"\n$ onestage {shlex.join(words)}")
    if code := onestage([*words], standalone_mode=False):
        raise typer.Exit(code)


def write_data(folder: Path) -> None:
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "shown": mixture.demonstrations(ROWS),
        "compared": mixture.pairs(ROWS),
        "asked": mixture.asked(),
        "everyday": known.questions(),
        "text": known.texts(),
    }
    for name, of_it in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_it))
    task = known.task(str((folder / "everyday.jsonl").resolve()), str(folder.resolve() / "cache"))
    (folder / "everyday.yaml").write_text(yaml.safe_dump(task))


def recipe(name: str, model: str, data: Path, steps: int) -> dict[str, Any]:
    """Each way sees the same rows; a stage of two has half of the steps."""
    way = WAYS[name]
    streams = [{"name": one, "path": str(data / f"{one}.jsonl")} for one in ("shown", "compared")]
    each = max(1, steps // len(way.get("stages", [1])))
    return {
        "description": f"make demo-real: {name}",
        "model": {"name": model, "dtype": "float32", "lora": {"r": 8}},
        "data": streams,
        **way,
        "train": {
            "max_steps": each,
            "batch_size": 8,
            "learning_rate": 2e-4,
            "max_length": 256,
            "logging_steps": 5,
        },
        "evaluate": {"suites": [instructions(data)], "prompts": [PROMPT], "share": 0.2},
        "verdict": {"allowed": ALLOWED},
    }


PROMPT = "Write two short sentences about apples. Do not use any commas."


def instructions(data: Path) -> dict[str, Any]:
    path = str(data / "asked.jsonl")
    return {"name": "ifeval", "path": path, "max_completion_length": 64}


def suites(data: Path) -> list[str]:
    """As they are given to `onestage evaluate`."""
    sentences = {"name": "text", "path": str(data / "text.jsonl")}
    found = [json.dumps(instructions(data)), str(data / "everyday.yaml"), json.dumps(sentences)]
    try:
        require_within_reach("quick", "allenai/ai2_arc", "dataset")
    except ValueError as error:
        say(f"left out: the suite quick, whose data are the hub's ({error})")
        return found
    return [*found, json.dumps(QUICK)]


def last_model(folder: Path) -> Path:
    """Of a run, or of its last stage."""
    return sorted([*folder.glob("model"), *folder.glob("*/model")])[-1]


if __name__ == "__main__":
    app()
