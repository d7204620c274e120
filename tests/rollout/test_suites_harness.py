"""Tasks of lm-eval through our model class, against its own evaluation with its own model class."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny import make_tokenizer, tiny_llama

from onestage.models.policy import Policy
from onestage.rollout import suites
from onestage.rollout.evaluation import evaluate
from onestage.rollout.suites import Subject, _task_data, measure

pytest.importorskip("lm_eval.tasks", reason="extra: eval")

ROWS: list[dict[str, Any]] = [
    {
        "question": f"What is {a} and {b}?",
        "choices": [f"{a + b}", f"{a * b + 7}", "no number"],
        "gold": 0,
    }
    for a in range(1, 4)
    for b in range(3, 6)
]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "num_fewshot": 2,
    "fewshot_split": "train",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "exact_match"}],
}
TEXT = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}
WRITTEN = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"until": ["e"], "max_gen_toks": 6},
    "metric_list": [{"metric": "exact_match"}],
}


def a_task(folder: Path, name: str, how: dict[str, Any]) -> str:
    """A task of one's own: the library's YAML beside a local file."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    files = {"data_files": {"test": str(rows), "train": str(rows)}, "cache_dir": str(folder / "c")}
    local = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**local, **how}))
    return str(folder / f"{name}.yaml")


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library without its own tasks, whose thousands of files take seconds to look through."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(_task_data, "_library", lambda: TaskManager(include_defaults=False))


@pytest.fixture
def subject() -> Subject:
    return Subject.of(Policy(tiny_llama(), make_tokenizer()))


def theirs(path: str, chat: bool = False, max_length: int | None = None) -> dict[str, Any]:
    """By the library alone: its evaluation, its model class, plain transformers."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(
        pretrained=tiny_llama(), tokenizer=make_tokenizer(), batch_size=4, max_length=max_length
    )
    found: Any = simple_evaluate(
        model,
        tasks=[path],
        task_manager=TaskManager(include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=1000,
    )
    return found


@pytest.mark.parametrize("chat", [False, True])
def test_choices_are_as_likely_as_lm_eval_finds_them(
    tmp_path: Path, subject: Subject, chat: bool
) -> None:
    path = a_task(tmp_path, "sums", CHOICE)
    known = theirs(path, chat)
    found = measure(suites.make({"name": "lm_eval", "tasks": path, "chat": chat}), subject)
    for sample in known["samples"]["sums"]:
        mine = found.answers[f"sums/{sample['doc_id']}"]["resps"]
        for (logp, greedy), ((their_logp, their_greedy),) in zip(
            mine, sample["resps"], strict=True
        ):
            assert logp == pytest.approx(their_logp, abs=1e-3)
            assert greedy == their_greedy
    for metric in ("acc", "acc_norm", "exact_match"):
        mine = found.metrics[f"sums/{metric},none"]
        assert mine.value == pytest.approx(known["results"]["sums"][f"{metric},none"])
        assert mine.stderr == pytest.approx(known["results"]["sums"][f"{metric}_stderr,none"])
    assert found.headline.value == found.metrics["sums/acc_norm,none"].value
    assert not found.suite.lower_is_better("average")


def test_texts_are_as_perplexing_as_lm_eval_finds_them(tmp_path: Path, subject: Subject) -> None:
    path = a_task(tmp_path, "texts", TEXT)
    known = theirs(path)["results"]["texts"]
    found = measure(suites.make({"name": "lm_eval", "tasks": path}), subject)
    for metric in ("word_perplexity", "bits_per_byte"):
        assert found.metrics[f"texts/{metric},none"].value == pytest.approx(
            known[f"{metric},none"], rel=1e-5
        )
    for name in ("texts/word_perplexity,none", "texts", "average"):
        assert found.suite.lower_is_better(name)


def test_what_is_longer_than_the_context_is_read_in_parts_or_cut_and_counted(
    tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the library does it with a model that reads 5 or 11 tokens, to foresee one more."""
    monkeypatch.setattr(Subject, "context", 6)
    texts, sums = a_task(tmp_path, "texts", TEXT), a_task(tmp_path, "sums", CHOICE)
    found = measure(suites.make({"name": "lm_eval", "tasks": texts}), subject)
    known = theirs(texts, max_length=5)["results"]["texts"]
    assert found.metrics["texts/word_perplexity,none"].value == pytest.approx(
        known["word_perplexity,none"], rel=1e-5
    )
    assert not found.count("cut")
    monkeypatch.setattr(Subject, "context", 12)
    found = measure(suites.make({"name": "lm_eval", "tasks": sums}), subject)
    for sample in theirs(sums, max_length=11)["samples"]["sums"]:
        mine = found.answers[f"sums/{sample['doc_id']}"]["resps"]
        assert [one[0] for one in mine] == pytest.approx(
            [one[0][0] for one in sample["resps"]], abs=1e-3
        )
    assert found.count("cut") == len(ROWS)


def test_many_drawn_answers_of_a_question_are_refused(tmp_path: Path) -> None:
    drawn = {"do_sample": True, "temperature": 0.5, "until": ["e"], "max_gen_toks": 6}
    path = a_task(tmp_path, "votes", {**WRITTEN, "repeats": 4, "generation_kwargs": drawn})
    with pytest.raises(ValueError, match="task votes judges 4 drawn answers of each question"):
        suites.make({"name": "lm_eval", "tasks": path}).items(False)


def test_answers_are_those_that_lm_eval_draws(tmp_path: Path, subject: Subject) -> None:
    path = a_task(tmp_path, "written", WRITTEN)
    known = theirs(path)["samples"]["written"]
    asked: list[Any] = []

    def engine(requests: Any, how: Any) -> Any:
        asked.extend(one.ids.dtype for one in requests)  # arrays, as every engine may expect
        return subject.engine(requests, how)

    listening = Subject(subject.policy, subject.tokenizer, engine)
    found = measure(suites.make({"name": "lm_eval", "tasks": path, "limit": 5}), listening)
    assert len(asked) == len(found.items) == 5
    for sample in known[:5]:
        assert found.answers[f"written/{sample['doc_id']}"]["resps"] == sample["resps"][0]


def test_how_it_was_asked_and_what_ran_into_the_limit_is_told(tmp_path: Path) -> None:
    """Prompts of the library are texts until they are rendered, and its class knows of no limit."""
    tiny_llama().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    never = {"until": ["never said"], "max_gen_toks": 2}
    path = a_task(tmp_path, "written", {**WRITTEN, "generation_kwargs": never})
    asked = [{"name": "lm_eval", "tasks": path, "limit": 2, "chat": chat} for chat in (True, None)]
    evaluate([str(tmp_path / "model")], asked, tmp_path / "out")
    (model,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["models"]
    told = [(one["chat"], one["unfinished"], one["items"]) for one in model["suites"].values()]
    assert told == [(True, 2, 2), (False, 2, 2)]


def test_a_task_that_says_nothing_of_sampling_is_answered_greedily_by_every_class(
    tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's class would draw at temperature 1: what it makes of what it is told is looked at."""
    from lm_eval.models.utils import normalize_gen_kwargs

    from onestage.rollout.suites import _forest_lm

    told: list[Any] = []

    class Listening:
        def generate_until(self, requests: Any, disable_tqdm: bool) -> list[str]:
            told.extend(one.args[1] for one in requests)
            return ["e"] * len(requests)

    monkeypatch.setattr(_forest_lm, "_theirs", lambda *of: Listening())
    drawn = {"do_sample": True, "temperature": 0.5, "until": ["e"]}
    for name, how in (("silent", {"until": ["e"]}), ("drawn", drawn)):
        path = a_task(tmp_path, name, {**WRITTEN, "generation_kwargs": how})
        asked = suites.make({"name": "lm_eval", "tasks": path, "backend": "hf", "limit": 1})
        measure(asked, Subject(subject.policy, subject.tokenizer, subject.engine, source="x"))
    assert [normalize_gen_kwargs(dict(how)).get("temperature") for how in told] == [0.0, 0.5]


def test_an_unknown_task_and_missing_data_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onestage.data.reach._out_of_reach", lambda: "no network")
    with pytest.raises(ValueError, match="no task, group or tag 'arc_essy'"):
        suites.make({"name": "lm_eval", "tasks": "arc_essy"}).items(False)
    from lm_eval.tasks import TaskManager

    far = {**CHOICE, "task": "far", "dataset_path": "nobody/far_away", "test_split": "test"}
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(far))
    own = TaskManager(include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(_task_data, "_library", lambda: own)
    with pytest.raises(
        ValueError, match=r"nobody/far_away; fetch each data set elsewhere .*--data FOLDER"
    ):
        suites.make({"name": "lm_eval", "tasks": "far"}).items(False)


def test_its_own_model_class_by_choice(tmp_path: Path, subject: Subject) -> None:
    """`backend: hf` loads the folder with plain transformers."""
    tiny_llama().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    path = a_task(tmp_path, "sums", CHOICE)
    ours = measure(suites.make({"name": "lm_eval", "tasks": path}), subject)
    asked = suites.make({"name": "lm_eval", "tasks": path, "backend": "hf"})
    with pytest.raises(ValueError, match="backend hf reads a model from its folder"):
        measure(asked, subject)
    loaded = Subject(
        subject.policy, subject.tokenizer, subject.engine, source=str(tmp_path / "model")
    )
    theirs = measure(asked, loaded)
    for item, answer in ours.answers.items():
        for mine, other in zip(answer["resps"], theirs.answers[item]["resps"], strict=True):
            assert mine[0] == pytest.approx(other[0], abs=1e-3)


@pytest.mark.parametrize(
    ("backend", "match"),
    [
        ("hff", "no model class 'hff'; did you mean 'hf'"),
        ("vllm", "backend vllm needs the package vllm: pip install"),
    ],
)
def test_a_backend_that_there_is_not_is_said_before_weights_are_read(
    backend: str, match: str
) -> None:
    if backend == "vllm" and find_spec("vllm"):
        pytest.skip("it is installed")
    with pytest.raises(ValueError, match=match):
        suites.make({"name": "quick", "backend": backend}).check()


def test_the_papers_suites_are_made_of_tasks_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All leaves of the library's own groups, and the data sets that they need, in one line."""
    import lm_eval.tasks

    # Those of its folders that are needed: all of them take seconds to look through.
    home = Path(lm_eval.tasks.__file__).parent
    named = ("arc", "gsm8k", "hellaswag", "leaderboard", "mmlu/default", "truthfulqa", "winogrande")
    own = lm_eval.tasks.TaskManager(
        include_path=[str(home / one) for one in named], include_defaults=False
    )
    monkeypatch.setattr(_task_data, "_library", lambda: own)
    monkeypatch.setattr("onestage.data.reach._out_of_reach", lambda: "no network")
    monkeypatch.setattr("onestage.data.reach._is_kept", lambda *_: False)
    assert len([*_task_data._leaves("mmlu")]) == 57
    assert len([*_task_data._leaves("leaderboard_bbh")]) == 24
    assert len([*_task_data._leaves("leaderboard_math_hard")]) == 7
    needed = {
        "open_llm_v1": "openai/gsm8k, truthfulqa/truthful_qa, .*winogrande.*, cais/mmlu; fetch",
        "open_llm_v2": "TIGER-Lab/MMLU-Pro",
        "mmlu": "asked: cais/mmlu; fetch",
        "quick": "asked: allenai/ai2_arc, .*, openai/gsm8k; fetch",
    }
    for name, match in needed.items():
        with pytest.raises(ValueError, match=match):
            suites.make(name).items(False)
    with pytest.raises(ValueError, match="did you mean 'arc_easy'"):
        suites.make({"name": "lm_eval", "tasks": "arc_essy"}).items(False)


def test_a_number_that_is_no_mean_is_of_the_scores_that_are_given(tmp_path: Path) -> None:
    """The chrF of a base is not that of whoever was scored last, and it can be kept on disk."""
    sacrebleu = pytest.importorskip("sacrebleu")
    path = a_task(tmp_path, "said", {**WRITTEN, "metric_list": [{"metric": "chrf"}]})
    suite = suites.make({"name": "lm_eval", "tasks": path})
    items = suite.items(False)

    def scores_of(texts: list[str]) -> dict[str, Any]:
        found = suite.score(items, [{"resps": [text]} for text in texts])
        lines = json.dumps([suites.told(one) for one in found])  # type: ignore[arg-type]
        return {
            i.id: suites.scores_in(one) for i, one in zip(items, json.loads(lines), strict=True)
        }

    gold = [row["choices"][0] for row in ROWS]
    some = [text if n % 3 else "no" for n, text in enumerate(gold)]
    start, now = scores_of(some), scores_of(["none"] * len(items))
    known = sacrebleu.corpus_chrf(some, [gold]).score
    assert suite.summarise(start)["said/chrf,none"].value == pytest.approx(known)
    assert suite.summarise(now)["said/chrf,none"].value < known
    half = {i: start[i] for i in list(start)[:3]}
    known = sacrebleu.corpus_chrf(some[:3], [gold[:3]]).score
    assert suite.summarise(half)["said/chrf,none"].value == pytest.approx(known)


def test_a_folder_of_data_is_looked_into_for_a_file_of_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set `owner/name` of the hub that lies in the folder; without it, one line."""
    monkeypatch.setattr("onestage.data.reach._out_of_reach", lambda: "no network")
    place = tmp_path / "data" / "owner" / "name"
    place.mkdir(parents=True)
    (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    told = {**WRITTEN, "task": "mine", "dataset_path": "owner/name", "test_split": "test"}
    told["dataset_kwargs"] = {"cache_dir": str(tmp_path / "cache")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(told))
    asked = {"name": "lm_eval", "tasks": str(tmp_path / "mine.yaml")}
    assert len(suites.make({**asked, "data": tmp_path / "data"}).items(False)) == len(ROWS)
    with pytest.raises(ValueError, match=r"owner/name; fetch each data set elsewhere"):
        suites.make(asked).items(False)
    (tmp_path / "mine.yaml").write_text("output_type: generate_until\n")
    with pytest.raises(ValueError, match=r"mine\.yaml names no task \(task: NAME\)"):
        suites.make(asked).items(False)


def test_a_name_that_is_none_is_known_without_the_librarys_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_task_data, "_library", lambda: pytest.fail("seven seconds"))
    for name in ("arc_easy", "mmlu", "ai2_arc", "leaderboard_bbh", "hendrycks_math"):
        assert _task_data.known(name)
    assert not _task_data.known("arc_essy")
    assert "did you mean 'arc_easy'" in _task_data.near("arc_essy")
