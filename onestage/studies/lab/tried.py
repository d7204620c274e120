"""What the base itself answers to the lab's problems, and which of that is right.

Of all policies that answer rightly, the one with the least KL to the start model is the start model
restricted to its right answers (RL's Razor, Shenfeld et al. 2025, arXiv 2509.04259): so right answers
that the base drew at temperature 1 are the demonstrations that ask for the least change, and SFT on
them is that paper's oracle. Beside them: the same problems, and demonstrations of them by somebody
else. All that the base said, right or wrong, is what the KL on the problems is an average over.

Problems that the base always or never answers rightly are left out: there is nothing to learn, or
nothing that it could be learnt from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from onestage import models
from onestage.rollout.complete import Drawn, drawn
from onestage.rollout.engines import Decoding
from onestage.runfolder import Say, write_text
from onestage.studies.lab import phrases
from onestage.studies.lab.source import SPLITS, Rows

LONGEST = 64
"""Tokens of an answer at most, as of the texts that the base has read: it goes on behind its answer."""
EACH = 4
"""Demonstrations of each problem."""
FILES = ("solved.train", "right.train", "given.train", "said.validation", "said.test")


def write_tried(base: Path, world: Rows, folder: Path, number: int, *, seed: int, say: Say) -> None:
    """Write, unless they are there, what the base says to problems of the lab. The folder is of this
    base and number alone.

    `solved.train.jsonl`: problems that it sometimes answers rightly; `right.train.jsonl`: its own right
    answers to them, and `given.train.jsonl`: others', `EACH` a problem; `said.validation.jsonl` and
    `said.test.jsonl`: what it answers, right or wrong, a fourth of the tries (where it ends its answer,
    and says something).

    number: answers of the base to each problem. Raises `ValueError` where it solves none of them
    sometimes.
    """
    files = {name: folder / f"{name}.jsonl" for name in FILES}
    if all(file.is_file() for file in files.values()):
        return
    policy, found = models.open(base), dict[str, list[dict[str, Any]]]()
    for split in SPLITS:
        problems = list({row["prompt"]: row for row in world.rows("check", split)}.values())
        tries = number if split == "train" else max(1, number // 4)
        prompts = [row["prompt"] for row in problems for _ in range(tries)]
        answers = drawn(policy, prompts, Decoding(LONGEST), seed=seed)
        if split == "train":
            by_problem = [answers[n * tries : (n + 1) * tries] for n in range(len(problems))]
            found |= _sorted_out(problems, by_problem, seed)
        else:
            both = zip(prompts, answers, strict=True)
            # One that ends at once has said nothing, and a row needs text.
            whole = [(prompt, one) for prompt, one in both if one.ended and one.text.strip()]
            found[f"said.{split}"] = [_row(prompt, one) for prompt, one in whole]
    solved = len(found["solved.train"])
    if not solved:
        raise ValueError(
            f"world lab: of {number} answers to each problem the base gives only right or only wrong "
            "ones; tried may be larger"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        write_text(file, "".join(json.dumps(row) + "\n" for row in found[name]))
    say(f"{folder}: {solved:,} problems that the base solves sometimes")


def _sorted_out(
    problems: Sequence[Mapping[str, Any]], answers: Sequence[Sequence[Drawn]], seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the train split."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in FILES if name.endswith("train")}
    for problem, tries in zip(problems, answers, strict=True):
        prompt, random = problem["prompt"], Random(f"{seed}/{problem['prompt']}")
        right = [one for one in tries if _is_right(problem, one)]
        whole = [one for one in right if one.ended]
        if not whole or len(right) == len(tries):
            continue
        found["solved.train"].append({"prompt": prompt, "answer": problem["answer"]})
        found["right.train"] += [_row(prompt, random.choice(whole)) for _ in range(EACH)]
        given = [text for text in problem["answer"] if text.count(".") == 1]
        told = islice(cycle(given), EACH)
        found["given.train"] += [{"prompt": prompt, "completion": f" {text}"} for text in told]
    return found


def _is_right(problem: Mapping[str, Any], one: Drawn) -> bool:
    return phrases.accepted(one.text, problem["answer"]) == 1.0


def _row(prompt: str, one: Drawn) -> dict[str, Any]:
    text = one.text if one.text.startswith(" ") else f" {one.text}"
    return {"prompt": prompt, "completion": text}
