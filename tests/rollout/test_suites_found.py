"""What a reader found who held suites against lm-eval's own code: groups, seeds, intervals, bytes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.tiny import make_tokenizer, tiny_llama
from transformers import AutoTokenizer

from onestage.models.policy import Policy
from onestage.rollout import suites
from onestage.rollout.engines import Completion, Decoding
from onestage.rollout.evaluation import Evaluated, Evaluation
from onestage.rollout.suites import Kept, Measured, Subject, _harness, _task_data
from onestage.rollout.suites.text import _bytes
from onestage.stats import Weighted, estimate, mean_of

pytest.importorskip("lm_eval.tasks", reason="extra: eval")

CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "dataset_path": "json",
    "test_split": "test",
}


@pytest.fixture(autouse=True)
def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library with the tasks of a folder alone."""
    from lm_eval.tasks import TaskManager

    folder = tmp_path / "tasks"
    folder.mkdir()

    def library() -> Any:
        return TaskManager(include_path=str(folder), include_defaults=False)

    monkeypatch.setattr(_task_data, "_library", library)
    return folder


def a_task(folder: Path, name: str, items: int, *metrics: str, **more: Any) -> None:
    rows = [{"question": f"{name} {n}", "choices": ["a", "b"], "gold": 0} for n in range(items)]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data_files": {"test": str(file), "train": str(file)}, "cache_dir": str(folder / "c")}
    told = {**CHOICE, "task": name, "dataset_kwargs": files, "fewshot_split": "train", **more}
    told["metric_list"] = [{"metric": metric} for metric in metrics]
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(told))


def a_group(folder: Path, name: str, tasks: list[Any], **more: Any) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"group": name, "task": tasks, **more}))


def judged(tasks: Any, right: dict[str, int], **options: Any) -> Any:
    """A suite and its numbers, where of each task so many items were answered rightly."""
    suite = suites.make({"name": "lm_eval", "tasks": tasks, **options})
    items = suite.items(False)
    answers = {}
    for item in items:
        task, _, number = item.id.rpartition("/")
        good = int(number) < right[task]
        answers[item.id] = {"resps": [[-1.0, True], [-2.0, False]][:: 1 if good else -1]}
    return suite, suites.scored(suite, items, answers).metrics


def test_no_task_of_a_group_is_left_out_of_its_number(small_library: Path) -> None:
    a_task(small_library, "ta", 30, "acc")
    a_task(small_library, "tn", 12, "acc", "acc_norm")
    a_group(small_library, "mix", ["ta", "tn"])
    _, found = judged("mix", {"ta": 10, "tn": 3})
    assert found["average"].value == pytest.approx(13 / 42)  # acc, which both have
    assert found["average"].n == 42


def test_tasks_without_a_common_metric_go_by_their_own(small_library: Path) -> None:
    a_task(small_library, "ta", 30, "acc")
    a_task(small_library, "tn", 12, "acc_norm")
    a_group(small_library, "mix", ["ta", "tn"])
    _, found = judged("mix", {"ta": 10, "tn": 6})
    assert found["average"].value == pytest.approx(16 / 42)


def test_a_group_that_does_not_weigh_by_size(small_library: Path) -> None:
    a_task(small_library, "ta", 30, "acc")
    a_task(small_library, "tb", 6, "acc")
    told = {"metric": "acc", "weight_by_size": False}
    a_group(small_library, "even", ["ta", "tb"], aggregate_metric_list=[told])
    _, found = judged("even", {"ta": 9, "tb": 3})
    assert found["average"].value == pytest.approx((9 / 30 + 3 / 6) / 2)


def test_what_a_group_says_of_one_within_it_holds_for_its_tasks(small_library: Path) -> None:
    a_task(small_library, "ta", 6, "acc")
    a_task(small_library, "tc", 6, "acc")
    a_group(small_library, "inner", ["ta"])
    outer = [{"task": "tc", "num_fewshot": 3}, {"group": "inner", "num_fewshot": 2}]
    a_group(small_library, "outer", outer)
    suite = suites.make({"name": "lm_eval", "tasks": "outer"})
    prompts = {item.id: item.facts["asked"][0][1] for item in suite.items(False)}
    assert [prompts["tc/0"].count("tc "), prompts["ta/0"].count("ta ")] == [4, 3]


def test_a_task_does_not_count_twice(small_library: Path) -> None:
    a_task(small_library, "ta", 6, "acc")
    a_task(small_library, "tb", 6, "acc")
    a_group(small_library, "grp", ["ta", "tb"])
    a_group(small_library, "sub", ["tb"])
    suite = suites.make({"name": "lm_eval", "tasks": ["grp", "sub"]})
    with pytest.raises(ValueError, match="the task tb is in grp and in sub, and counts in one"):
        suite.items(False)


def test_two_tasks_have_two_names(small_library: Path, tmp_path: Path) -> None:
    for name in ("sci.1", "sci.2"):
        a_task(small_library, name, 6, "acc")
    _, found = judged(["sci.1", "sci.2"], {"sci.1": 2, "sci.2": 6})
    assert (found["sci.1"].value, found["sci.2"].value) == pytest.approx((2 / 6, 1))
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        a_task(tmp_path / place, "mine", 2, "acc")
    files = [str(tmp_path / place / "mine.yaml") for place in ("a", "b")]
    with pytest.raises(ValueError, match="would both be called mine: leave one out"):
        suites.make({"name": "lm_eval", "tasks": files}).check()


SHUFFLES = """
import random

def shuffled(rows):
    def one(row):
        random.shuffle(row["choices"])
        return row
    return rows.map(one)
"""


def test_what_is_shuffled_while_a_task_is_loaded_is_the_same_each_time(small_library: Path) -> None:
    """As GPQA's choices are; lm-eval seeds before it loads."""
    import random

    (small_library / "own.py").write_text(SHUFFLES)
    found = []
    for run in range(2):
        a_task(small_library, "gq", 12, "acc")
        file = small_library / "gq.yaml"
        files = yaml.safe_load(file.read_text())
        files["dataset_kwargs"]["cache_dir"] = str(small_library / f"cache{run}")
        text = yaml.safe_dump(files) + "process_docs: !function own.shuffled\n"
        file.write_text(text)
        random.seed(run + 7)
        suite = suites.make({"name": "lm_eval", "tasks": "gq"})
        found.append([item.facts["asked"] for item in suite.items(False)])
    assert found[0] == found[1]


def test_a_text_without_a_word_weighs_nothing() -> None:
    class Task:
        def aggregation(self) -> dict[str, Any]:
            def weighted_perplexity(items: Any) -> float:
                raise NotImplementedError

            return {"ppl": weighted_perplexity}

    assert _harness._number(Task(), "ppl", (0.0, 0)) == Weighted(0.0, 0.0)
    assert estimate({"a": Weighted(2.0, 3.0), "b": Weighted(0.0, 0.0)}).value == 2.0


@pytest.mark.parametrize("kind", ["nanmean", "gmean"])
def test_values_that_are_not_averaged_are_left_to_the_library(kind: str) -> None:
    class Task:
        def aggregation(self) -> dict[str, Any]:
            def own(items: Any) -> float:
                raise NotImplementedError

            own.__name__ = kind
            return {"m": own}

    for value in (float("nan"), 15.0, np.float32(15.0)):
        assert _harness._number(Task(), "m", value) is None


def test_of_a_single_item_no_error_is_known() -> None:
    one, many = estimate({"a": 1.0}), estimate({str(n): n % 2 for n in range(100)})
    assert math.isnan(one.stderr)
    assert math.isnan(mean_of([one, estimate({"b": 0.0})]).stderr)
    assert math.isnan(mean_of([one, many]).half)
    assert many.stderr == pytest.approx(0.0502519)


def test_before_and_after_are_of_the_same_items() -> None:
    """A base some of whose answers could not be judged."""
    from onestage.cli.evaluate import _changes

    class Own(suites.Suite):
        headline = "score"

        def lower_is_better(self, metric: str) -> bool:
            return False

        def summarise(self, scores: Any) -> Any:
            return {"score": estimate({i: one["score"] for i, one in scores.items()})}

        items = ask = score = None  # type: ignore[assignment]

    Own.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    suite: Any = Own()

    def of(name: str, base: str | None, count: int, first: float) -> Any:
        scores = {str(n): {"score": first if n < 10 else 9.0} for n in range(count)}
        measured = Measured(suite, [], {}, scores, {}, suite.summarise(scores))

        class Model:
            def stands_beside(self, other: Any) -> bool:
                return self.base is not None and other.name == self.base

        model: Any = Model()
        model.name, model.base = name, base
        return Evaluated(model, {"own": measured})

    found = Evaluation({"own": suite}, [of("base", None, 10, 4.5), of("mine", "base", 20, 4.0)])
    (change,) = _changes(found, found.models[1])
    assert (change.before, change.after) == (4.5, 4.0)


def test_a_stop_that_is_a_special_token_is_an_end() -> None:
    """Decoding leaves it out of the text, in which it was looked for."""
    tokenizer = make_tokenizer()
    plain = Subject.of(Policy(tiny_llama(), tokenizer))
    (stop, *_), words = tokenizer.all_special_tokens, tokenizer("one").input_ids
    ids = np.asarray([*words, tokenizer.convert_tokens_to_ids(stop)], np.int32)
    drawn = [
        [Completion(ids, False, np.zeros(len(ids)))]
    ]  # which stops at texts, and calls tokens its ends
    subject = replace(plain, engine=lambda requests, how: drawn)  # type: ignore[arg-type]
    (one,) = subject.continued([ids], Decoding(40, 0.0, 1.0), ["a"], [stop])
    assert one["ended"]
    assert one["completion"] == tokenizer.decode(words, skip_special_tokens=True)


def test_damaged_lines_of_kept_answers_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    lines: list[Any] = [{}, {"id": 3, "answer": {}}, {"id": "a", "answer": {"x": 1}}, {"id": "b"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = Kept(file)
    assert (len(kept), kept.damaged) == (1, 3)


@pytest.mark.parametrize(
    "text", ["今天天气很好。", "안녕하세요 세계", "Привет", "😀 hi", "plain words"]
)
def test_bytes_are_those_of_the_text(text: str) -> None:
    """A token may be a part of a character, which was counted as three bytes."""
    import os

    if not os.environ.get("ONESTAGE_SMOLLM2"):
        pytest.skip("needs SmolLM2's tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(os.environ["ONESTAGE_SMOLLM2"])
    ids = tokenizer(f"a{text}").input_ids
    head = len(tokenizer.convert_ids_to_tokens(ids)[0])
    assert _bytes(tokenizer, ids) == len(f"a{text}".encode()) - head
    parts = [ids[start : start + 4] for start in range(0, len(ids), 4)]
    whole = sum(_bytes(tokenizer, part) for part in parts)
    firsts = sum(len(tokenizer.convert_ids_to_tokens([part[0]])[0]) for part in parts)
    assert whole + firsts == len(f"a{text}".encode())
