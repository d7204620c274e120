"""Multiple-choice tasks by lm-eval's own model class and by ours, side by side: numbers and seconds.

    python bench/evaluate.py FOLDER DATA [--items 60] [--rounds 1] [--dtype float32]
    python bench/evaluate.py FOLDER DATA --quick      # 6 items of each task

FOLDER: a model (SmolLM2-135M-Instruct, say); DATA: a folder that holds `gsm8k.test.jsonl.gz` and
`hh_harmless_pairs.eval.jsonl.gz`. Tasks are YAML files of lm-eval made of these: a problem and four
numbers, without and with five examples in front, one whose answer is written, and a conversation with
two answers. Each is run by
`lm_eval.simple_evaluate` with `HFLM` and with our class; log-likelihoods and accuracies must agree.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

MULTIPLE = {
    "dataset_path": "json",
    "test_split": "test",
    "fewshot_split": "test",
    "output_type": "multiple_choice",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in ("acc", "acc_norm")
    ],
}


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


WRITTEN = {
    **{key: MULTIPLE[key] for key in ("dataset_path", "test_split", "fewshot_split")},
    "output_type": "generate_until",
    "doc_to_target": "{{choices[gold]}}",
    "generation_kwargs": {"until": ["Question:", "\n\n"], "max_gen_toks": 96, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def rows_of(file: Path, count: int) -> list[dict[str, Any]]:
    with gzip.open(file, "rt") as opened:
        return [json.loads(line) for line, _ in zip(opened, range(count), strict=False)]


def sums(data: Path, count: int) -> list[dict[str, Any]]:
    """GSM8K: the right number among four that are near it."""
    draw, found = random.Random(0), []
    for row in rows_of(data / "gsm8k.test.jsonl.gz", count):
        right = int(float(row["answer"].rpartition("####")[2].replace(",", "")))
        others = draw.sample([n for n in range(right // 2, right * 2 + 9) if n != right], 3)
        choices = sorted([right, *others])
        found.append(
            {
                "text": f"Question: {row['question']}\nAnswer:",
                "choices": [str(n) for n in choices],
                "gold": choices.index(right),
            }
        )
    return found


def talks(data: Path, count: int) -> list[dict[str, Any]]:
    return [
        {"text": row["prompt"], "choices": [row["chosen"], row["rejected"]], "gold": 0}
        for row in rows_of(data / "hh_harmless_pairs.eval.jsonl.gz", count)
    ]


def task(
    folder: Path, name: str, rows: list[dict[str, Any]], shots: int, sort: dict[str, Any] = MULTIPLE
) -> str:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")}
    how = {"task": name, "dataset_kwargs": own, "num_fewshot": shots, "doc_to_text": "{{text}}"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**sort, **how}))
    return str(folder / f"{name}.yaml")


def run(model: Any, path: str, batch_size: int) -> tuple[dict[str, Any], float]:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    began = time.perf_counter()
    manager = TaskManager(include_defaults=False)
    found: Any = simple_evaluate(
        model, tasks=[path], task_manager=manager, bootstrap_iters=0, batch_size=batch_size
    )
    return found, time.perf_counter() - began


def answers(found: dict[str, Any]) -> list[Any]:
    (samples,) = found["samples"].values()
    return [one[0] for sample in samples for one in sample["resps"]]


def apart(left: list[Any], right: list[Any]) -> float:
    """The largest gap of log-likelihoods; of texts, the share that is not the same."""
    if isinstance(left[0], str):
        return sum(a != b for a, b in zip(left, right, strict=True)) / len(left)
    return max(abs(a[0] - b[0]) for a, b in zip(left, right, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-eval's class")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--quick", action="store_true", help="6 items")
    given = parser.parse_args()
    if given.quick:
        given.items = 6
    import logging

    from lm_eval.models.huggingface import HFLM

    from onestage import models
    from onestage.rollout.suites import Subject
    from onestage.rollout.suites._forest_lm import Forests

    theirs = HFLM(
        pretrained=given.folder, dtype=given.dtype, batch_size=given.batch_size, device=DEVICE
    )
    ours = Forests(Subject.of(models.open(given.folder, given.dtype)))
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = {
            "sums": task(folder, "sums", sums(given.data, given.items), 0),
            "sums_5_shots": task(folder, "sums_5_shots", sums(given.data, given.items), 5),
            "written": task(folder, "written", sums(given.data, given.items), 0, WRITTEN),
            "talks": task(folder, "talks", talks(given.data, given.items), 0),
        }
        print("task, seconds of lm-eval's class, of ours, ratio, largest gap, accuracies")
        for name, path in made.items():
            if given.only not in name:
                continue
            for _ in range(given.rounds):
                a, slow = run(theirs, path, given.batch_size)
                b, fast = run(ours, path, given.batch_size)
                gap = apart(answers(a), answers(b))
                shown = [k for k in a["results"][name] if k.endswith(",none") and "stderr" not in k]
                scores = {k: [f"{r['results'][name][k]:.4f}" for r in (a, b)] for k in shown}
                print(
                    f"{name} {slow:.1f} {fast:.1f} {slow / fast:.2f} {gap:.2g} {scores}", flush=True
                )


if __name__ == "__main__":
    main()
