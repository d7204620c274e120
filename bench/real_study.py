r"""A study file on a real model and real data.

    python bench/real_study.py out --base MODEL [--study uft_tables_1_3] [--seeds 0 1] [--updates 30]
    python bench/real_study.py out --base MODEL --study real_models --longest 500      # a small model
    python bench/real_study.py out --base MODEL --study real_models --seeds 0 1 2 3 4 \
        --tuning-seeds 100 101 102 --updates 400 --suites ifeval      # on a GPU, 1B to 8B
    python bench/real_study.py out --base MODEL --study controllers --seeds 0 \
        --updates 12 --longest 500 --held 12
    python bench/real_study.py out --base MODEL --quick      # one seed, one update, few rows

Makes a data folder from ../shared/data (instructions and answers, human pairs, judged answers,
arithmetic text; short rows only), splits by row, and runs a study file in the world `folder` on it.
Prompts are chat messages where the model's tokenizer has a chat template. `uft_tables_1_3` is the lab's
own file, unchanged, with one trial a method, two seeds and 30 updates: it shows that nothing in a study
is about the lab. Files that are made for real models, `real_*`, run as they say where nothing else is
given; a small model and few updates decide little about recipes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
SPLITS = ("validation", "test", "train")
"""The first two are served first where a kind has few short rows."""
TRAIN, QUICK = 400, 4
"""Rows to train on; of every split with `--quick`."""
TURN = re.compile(r"\n\n(Human|Assistant):")


def read(data: Path, name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(data / f"{name}.jsonl.gz", "rt") as file:
        yield from map(json.loads, file)


def messages(prompt: str) -> list[dict[str, str]]:
    """A prompt as chat messages: one of the user, or the turns of a transcript that ends with
    "Assistant:"."""
    first, *parts = TURN.split(prompt)
    if first.strip() or not parts:
        return [{"role": "user", "content": prompt}]
    names = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": names[who], "content": text.strip()} for who, text in turns if text.strip()]


def as_chat(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its prompt and answers as messages; plain text stays plain text."""
    answers = {
        key: [{"role": "assistant", "content": row[key].strip()}]
        for key in ("completion", "chosen", "rejected")
        if key in row
    }
    return {**row, "prompt": messages(row["prompt"]), **answers} if "prompt" in row else row


def rows(data: Path, longest: int) -> dict[str, list[dict[str, Any]]]:
    """Short rows of every kind; scores are of single answers, thumbs are those scores at 1/2."""
    judged = [
        {"prompt": group["prompt"], "completion": text, "score": min(1.0, 4 * score)}
        for group in read(data, "alpaca_eval_scored.train")
        for text, score in zip(group["completions"], group["scores"], strict=True)
    ]
    found = {
        "demonstration": list(read(data, "gpteacher_roleplay.train")),
        "pair": list(read(data, "hh_harmless_pairs.train")),
        "score": judged,
        "label": [
            {"prompt": r["prompt"], "completion": r["completion"], "label": r["score"] >= 0.5}
            for r in judged
        ],
        "text": [{"text": f"{r['question']}\n{r['answer']}"} for r in read(data, "gsm8k.train")],
    }
    return {
        kind: [row for row in many if sum(len(v) for v in row.values() if isinstance(v, str)) < longest]
        for kind, many in found.items()
    }  # fmt: skip


def kinds(study: Path) -> set[str]:
    """Those that a study file trains on, and the text that forgetting is measured on."""
    return {"text", *re.findall(r"\{data\}/(\w+)\.", study.read_text())}


def write(
    data: Path, folder: Path, chat: bool, splits: dict[str, int], longest: int, wanted: set[str]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, many in rows(data, longest).items():
        if kind not in wanted:
            continue
        at = 0
        for split, number in splits.items():
            part = many[at : at + number]
            at += number
            text = "".join(json.dumps(as_chat(row) if chat else row) + "\n" for row in part)
            (folder / f"{kind}.{split}.jsonl").write_text(text)
            print(f"{kind}.{split}: {len(part)} rows")
        if len(many) <= sum(number for split, number in splits.items() if split != "train"):
            raise SystemExit(
                f"{len(many)} {kind} rows have fewer than {longest} characters, and none is left to "
                "train on; give a larger --longest, or a smaller --held"
            )


def adapted(updates: int) -> dict[str, Any]:
    """The lab's study of controllers at a real model's size: adapters, small batches, one weight."""
    small = {"batch_size": 4, "max_length": 1024, "tokens_per_row": 2048, "logging_steps": 1}
    whole = {"batch_size": 8}
    measured = {"given": {}, "steps": updates}
    asking = ("MAXRIGHT", "Smooth MAXRIGHT", "FAMO", "EPO")
    return {
        "axes": {"part": [0.5]},
        "front": None,
        "headline": ["demonstration_loss", "preference", "retention", "text_kl", "seconds"],
        "recipe.model": {"name": "{base}", "dtype": "float32", "lora": {"r": 16, "alpha": 32}},
        **{f"recipe.train.{name}": value for name, value in small.items()},
        **{f"methods.{name}.train": whole for name in ("ALRIGHT", "MAXRIGHT")},
        **{f"methods.{name}.optimum": measured for name in asking},
    }


def measured(said: dict[str, Any]) -> list[dict[str, Any]]:
    """A lab study's claims, without those of what only the lab measures, which are told."""
    from onestage.studies.worlds.folder import METRICS

    kept = [one for one in said["claims"] if one["metric"] in METRICS]
    if left := sorted({one["metric"] for one in said["claims"]} - set(METRICS)):
        print(
            f"{len(said['claims']) - len(kept)} claims are of {', '.join(left)}: not measured here"
        )
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", required=True, help="a model folder or hub id")
    parser.add_argument("--study", default="uft_tables_1_3", help="of studies/")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: as the study has them")
    parser.add_argument(
        "--tuning-seeds", nargs="+", type=int, help="default: as the study has them"
    )
    parser.add_argument("--updates", type=int, help="default: as the study has them")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--held", type=int, help="rows to test on; default: as the study has them")
    parser.add_argument(
        "--held-tuning", type=int, help="rows to validate trials on; default: as --held"
    )
    parser.add_argument("--longest", type=int, default=700, help="characters of a row")
    parser.add_argument(
        "--dtype", default="float32", help="of what is trained and measured (auto: as saved)"
    )
    parser.add_argument(
        "--suites", nargs="+", default=[], help="what reported models are asked, as ifeval"
    )
    parser.add_argument("--items", type=int, default=150, help="of each of these")
    parser.add_argument(
        "--keep-models", action="store_true", help="those that are reported, to ask them more later"
    )
    parser.add_argument("--retry", action="store_true", help="do failed cells again")
    parser.add_argument(
        "--cell", help="this one alone, as of `onestage study`: '{method: Mix, seed: 4}'"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, one update, few rows")
    given = parser.parse_args()
    file = HERE.parent / "studies" / f"{given.study}.yaml"
    said = yaml.safe_load(file.read_text())
    if given.quick:
        given.seeds, given.updates = [0], 1
    if said["world"]["name"] != "folder":  # made for the lab, with as many as are cheap there
        given.seeds, given.updates = given.seeds or [0, 1], given.updates or 30
    if given.held is None:
        given.held = said["world"].get("limit", 48)
    from transformers import AutoTokenizer

    chat = AutoTokenizer.from_pretrained(given.base).chat_template is not None
    tuning = given.held if given.held_tuning is None else given.held_tuning
    sizes = [QUICK] * 3 if given.quick else [tuning, given.held, TRAIN]
    splits = dict(zip(SPLITS, sizes, strict=True))
    write(given.data, given.out / "data", chat, splits, given.longest, kinds(file))
    world = {"name": "folder", "model": given.base, "data": str(given.out / "data")}
    world |= {"dtype": given.dtype, "limit": given.held}
    if given.suites:
        asked = {"data": str(given.data), "limit": given.items}
        world |= {"suites": [{"name": name, **asked} for name in given.suites]}
    settings: dict[str, Any] = {"recipe.model.dtype": given.dtype}
    told = {"seeds": given.seeds, "budget.updates": given.updates, "tune.seeds": given.tuning_seeds}
    told |= {"keep_models": given.keep_models}
    settings |= {key: value for key, value in told.items() if value}
    if said["world"]["name"] != "folder":
        settings["claims"] = measured(said)
    if given.study == "uft_tables_1_3":
        settings |= {"recipe.train.batch_size": 8, "recipe.train.max_length": 512}
        settings |= {"tune.trials": 1, "tune.widen": 0}
        world |= {"answers": 8, "max_completion_length": 32}
    else:
        world |= {"max_length": 384, "answers": 0}
    if given.updates and "MAXRIGHT" in said["methods"]:
        settings |= {"methods.MAXRIGHT.optimum": {"steps": max(1, given.updates // 2)}}
    if given.study == "controllers":
        settings |= adapted(given.updates)
    command = [sys.executable, "-m", "onestage", "study", str(file)]
    command += ["--out", str(given.out / "study")]
    command += ["--cache", str(given.out / "cache"), "--jobs", str(given.jobs)]
    for key, value in {"world": world, **settings}.items():
        command += ["--set", f"{key}={json.dumps(value, default=str)}"]
    command += ["--cell", given.cell] if given.cell else []
    command += ["--retry"] if given.retry else []
    raise SystemExit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
