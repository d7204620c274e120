"""`onestage evaluate`: the base beside, differences paired, interrupted and gone on, judged, refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.endpoint import Endpoint, endpoint, says, sends  # noqa: F401
from support.tiny import make_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from onestage.cli import app
from onestage.cli.evaluate import _remarks
from onestage.rollout import suites
from onestage.rollout.engines.transformers import Transformers
from onestage.rollout.evaluation import evaluate
from onestage.rollout.suites import Kept, Subject, measure

TaskManager = pytest.importorskip("lm_eval.tasks", reason="extra: eval").TaskManager

PROBLEMS = [
    {"question": f"{'Very ' * n}well, how many?", "answer": f"Some.\n#### {n}"} for n in range(9)
]
TEXTS = [{"text": "The capital of France is Paris."}, {"text": "one two three four " * 9}]
GSM8K = {"name": "gsm8k", "shots": 0, "max_completion_length": 5, "path": "problems.jsonl"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter of it, which really changes it."""
    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    tiny_llama().save_pretrained(place / "base")
    adapted: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(place / "base"),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(place / "adapter")
    for name in ("base", "adapter"):
        make_tokenizer().save_pretrained(place / name)
    return place


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("problems", PROBLEMS), ("text", TEXTS)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_adapter_stands_beside_its_base(folders: Path) -> None:
    """Perplexity and KL as plain transformers and PEFT have them; the difference pairs the texts."""
    told = ["evaluate", str(folders / "adapter"), "--suite", "text", "--data", ".", "--out", "ev"]
    result = CliRunner().invoke(app, told)
    assert result.exit_code == 0, result.output
    base, model = json.loads(Path("ev/evaluation.json").read_text())["models"]
    assert (base["name"], model["base"]) == (str(folders / "base"), str(folders / "base"))
    plain = AutoModelForCausalLM.from_pretrained(folders / "base").eval()
    moved = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folders / "base"), folders / "adapter"
    ).eval()
    losses, kl = {"base": [], "model": []}, []
    for row in TEXTS:
        ids = make_tokenizer()(row["text"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            old, new = (m(ids).logits[0, :-1].log_softmax(-1) for m in (plain, moved))
        kl.append((old.exp() * (old - new)).sum(-1))
        for name, logp in (("base", old), ("model", new)):
            losses[name].append(-logp.gather(1, ids[0, 1:, None])[:, 0])
    mean = {name: torch.cat(each).mean().item() for name, each in losses.items()}
    found = model["suites"]["text"]["metrics"]
    assert found["loss"]["value"] == pytest.approx(mean["model"], abs=1e-4)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(mean["model"]), rel=1e-4)
    assert found["kl"]["value"] == pytest.approx(torch.cat(kl).mean().item(), abs=1e-4)
    assert found["loss"]["difference"]["value"] == pytest.approx(
        mean["model"] - mean["base"], abs=1e-4
    )
    # By hand: residuals of the differences of two texts, weighted by their tokens.
    size = np.array([len(one) for one in losses["model"]])
    gained = np.array([(a - b).sum().item() for a, b in zip(*losses.values(), strict=True)]) * -1
    residual = gained - size * gained.sum() / size.sum()
    by_hand = math.sqrt(2 * (residual**2).sum()) / size.sum()
    assert found["loss"]["difference"]["stderr"] == pytest.approx(by_hand, abs=1e-5)


def test_what_samples_is_handed_the_model_before_it_is_asked(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM, say, runs a copy, which is the base until it is told of the adapter."""
    told: list[str] = []
    call = Transformers.__call__
    monkeypatch.setattr(Transformers, "sync", lambda engine: told.append("handed over"))
    monkeypatch.setattr(
        Transformers, "__call__", lambda *given: told.append("asked") or call(*given)
    )
    evaluate([str(folders / "adapter")], [GSM8K], Path("handed"), base=None)
    assert told[:2] == ["handed over", "asked"]


def test_bits_are_of_the_bytes_that_were_foreseen(folders: Path) -> None:
    """The first token of each window is given: neither its surprise nor its bytes count."""
    found = evaluate(
        [str(folders / "base")],
        [{"name": "text", "path": "text.jsonl", "max_length": 8}],
        Path("ev"),
    )
    tokenizer = make_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folders / "base").eval()
    bits, size = 0.0, 0
    for row in TEXTS:
        ids = tokenizer(row["text"])["input_ids"]
        for window in (ids[start : start + 8] for start in range(0, len(ids), 8)):
            with torch.no_grad():
                logp = model(torch.tensor([window])).logits[0].log_softmax(-1)
            for before, token in enumerate(window[1:]):
                bits -= logp[before, token].item() / math.log(2)
                size += len(tokenizer.decode([token]).encode())
    metrics = found.models[0].found["text"].metrics
    assert metrics["bits_per_byte"].value == pytest.approx(bits / size, rel=1e-4)
    assert size < sum(len(row["text"]) for row in TEXTS)


def test_killed_five_times_it_ends_with_the_same_numbers(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time inside a block: one with half a line on disk, one with half a block."""
    monkeypatch.setattr(suites, "BLOCK", 2)
    suite = suites.make(GSM8K)
    from onestage import models

    subject = Subject.of(models.open(folders / "base"))
    whole = measure(suite, subject, Kept(Path("whole.jsonl")))
    asked: list[int] = []
    ask, add = type(suite).ask, Kept.add
    monkeypatch.setattr(
        type(suite), "ask", lambda s, m, items: (asked.append(len(items)), ask(s, m, items))[1]
    )
    for number in range(5):

        def dies(kept: Kept, answers: Any, number: int = number) -> None:
            assert kept.file is not None
            add(kept, list(answers)[: 1 + number % 2])
            with kept.file.open("a") as opened:
                opened.write('{"id": "8", "ans' if number == 3 else "")
            raise KeyboardInterrupt

        monkeypatch.setattr(Kept, "add", dies)
        with pytest.raises(KeyboardInterrupt):
            measure(suite, subject, Kept(Path("killed.jsonl")))
    monkeypatch.setattr(Kept, "add", add)
    again = measure(suite, subject, Kept(Path("killed.jsonl")))
    assert again.answers == whole.answers
    assert again.metrics == whole.metrics
    assert sum(asked) < 6 * len(PROBLEMS)


def test_answers_of_another_model_or_another_question_are_not_taken(folders: Path) -> None:
    """What is kept is known by the content of the model and of what is asked."""
    for _ in range(2):
        evaluate([str(folders / "base")], [GSM8K], Path("ev"))
    assert len(list(Path("ev/answers").iterdir())) == 2  # answers, and what they are worth
    evaluate([str(folders / "adapter")], [GSM8K], Path("ev"), base=None)
    evaluate([str(folders / "base")], [{**GSM8K, "max_completion_length": 4}], Path("ev"))
    names = [f.name for f in Path("ev/answers").iterdir() if "scores" not in f.name]
    assert len(names) == 3


def test_what_is_kept_of_a_comparison_is_of_that_base(folders: Path) -> None:
    """Nothing was compared without one, and a model is no base of itself."""
    base, text = str(folders / "base"), {"name": "text", "path": "text.jsonl"}
    alone = evaluate([base], [text], Path("ev"), base=None)
    assert "kl" not in alone.models[0].found["text"].metrics
    for other in (base, str(folders / "adapter")):
        found = evaluate([base], [text], Path("ev"), base=other)
        of, metrics = found.base_of(found.models[-1]), found.models[-1].found["text"].metrics
        assert (of is None) == ("kl" not in metrics) == (other == base)
    assert metrics["kl"].value > 0


def test_each_adapter_stands_beside_the_base_in_its_own_template(
    folders: Path, tmp_path: Path
) -> None:
    shutil.copytree(folders / "adapter", "plain")
    Path("plain/chat_template.jinja").unlink(missing_ok=True)
    make_tokenizer(chat=None).save_pretrained("plain")
    names = [str(folders / "adapter"), str(tmp_path / "plain")]
    found = evaluate(names, [{**GSM8K, "limit": 1}], Path("ev"))
    assert len(found.models) == 4
    for one in found.models:
        beside = found.base_of(one)
        assert (beside is None) == (one.model.base is None)
        if beside is not None:
            assert beside.model.tokenizer == one.model.name


def test_a_base_that_is_listed_is_compared_as_its_model_is_asked(folders: Path) -> None:
    """The base has no template and the model has one: the base is asked by itself, and once more."""
    shutil.copytree(folders / "base", "bare")
    Path("bare/chat_template.jinja").unlink(missing_ok=True)
    make_tokenizer(chat=None).save_pretrained("bare")
    one = {**GSM8K, "limit": 1}
    found = evaluate(["bare", str(folders / "base")], [one], Path("ev"), base="bare")
    asked = [(m.model.name, m.model.tokenizer) for m in found.models]
    assert asked == [("bare", None), ("bare", str(folders / "base")), (str(folders / "base"), None)]
    model = found.models[-1]
    assert found.base_of(model) is found.models[1]
    told = json.loads(Path("ev/evaluation.json").read_text())["models"]
    assert [m["suites"]["gsm8k"]["chat"] for m in told] == [False, True, True]


def test_answers_of_another_engine_are_others(folders: Path) -> None:
    """Kept answers are found again for the engine that drew them."""
    said: list[str] = []
    for engine in ("transformers", {"name": "transformers", "batch_size": 2}, "transformers"):
        evaluate([str(folders / "base")], [GSM8K], Path("ev"), engine=engine, say=said.append)
    known = [line for line in said if "answers are known" in line]
    assert len(known) == 1


QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Say hello.", "Again, shorter."]},
    {
        "question_id": 2,
        "category": "math",
        "turns": ["Two and two?", "And two more?"],
        "reference": ["4", "6"],
    },
    {"question_id": 3, "category": "stem", "turns": ["What is light?", "And dark?"]},
]


def test_a_judge_that_fails_every_fifth_time_loses_nothing(
    folders: Path,
    endpoint: Endpoint,  # noqa: F811
) -> None:
    Path("mt_bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))

    def act(handler: Any, number: int, text: str) -> None:
        if number % 5 == 2:
            sends(handler, 503, "busy")
        else:
            grade = 8 if "reference answer:" in text else 4 if "first question" in text else 6
            says(handler, f"Fine.\nScore: {grade}")

    endpoint.act = act
    judge = {"model": "j", "base_url": endpoint.url, "backoff": 0, "price_out": 1e6}
    suite = {"name": "mt_bench", "max_completion_length": 6}
    place = Path("ev")
    found = evaluate([str(folders / "base")], [suite], place, data=Path(), judge=judge)
    metrics = found.models[0].found["mt_bench"].metrics
    assert not found.models[0].found["mt_bench"].failures
    assert metrics["turn_1"].value == pytest.approx((6 + 8 + 6) / 3)
    assert metrics["turn_2"].value == pytest.approx((4 + 8 + 4) / 3)
    assert metrics["score"].value == pytest.approx((20 / 3 + 16 / 3) / 2)
    assert metrics["category/math"].value == 8
    asked = [one["messages"][0]["content"] for one in endpoint.seen]
    assert sum("Again, shorter." in text and "<response-" in text for text in asked) >= 1
    told = json.loads((place / "evaluation.json").read_text())
    kept = [json.loads(line) for line in next(place.glob("answers/*[!s].jsonl")).open()]
    short = sum(one["answer"].get("ended") is False for one in kept)
    assert told["models"][0]["suites"]["mt_bench"]["unfinished"] == short > 0
    assert f"{short} of 3 answers ended at the limit of tokens" in "\n".join(_remarks(found))
    costs = told["costs"]["mt_bench"]
    assert costs["money"] == pytest.approx(costs["tokens_out"])
    before = len(endpoint.seen)
    evaluate([str(folders / "base")], [suite], place, data=Path(), judge=judge)
    assert len(endpoint.seen) == before + 1  # the test question: all else is kept


def test_what_cannot_be_is_said_before_weights_are_read(
    folders: Path,
    endpoint: Endpoint,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onestage.rollout.candidates.open_model", lambda *_: pytest.fail("read"))
    monkeypatch.setattr("onestage.data.reach._out_of_reach", lambda: "no network")
    small = TaskManager(include_defaults=False)  # the library's own tasks are thousands of files
    monkeypatch.setattr("onestage.rollout.suites._task_data._library", lambda: small)
    base = str(folders / "base")

    def refused(match: str, *words: str, model: str = base) -> None:
        result = CliRunner().invoke(app, ["evaluate", model, "--out", "ev", *words])
        assert result.exit_code == 1
        assert match in " ".join(result.output.split())

    refused("did you mean 'ifeval'?", "--suite", "ifevall")
    refused("there is no task file none.yaml", "--suite", "none.yaml")
    refused("nothing at ./nowhere", "--suite", "text", "--data", ".", model="./nowhere")
    refused("holds no model", "--suite", "text", "--data", ".", model=".")
    refused("put gsm8k.test.jsonl into a folder", "--suite", "{name: gsm8k, shots: 0}")
    Path("mt_bench.jsonl").write_text(json.dumps(QUESTIONS[0]))
    judged = ("--suite", "mt_bench", "--data", ".")
    refused("needs a judge: --judge", *judged)
    down = "{model: j, base_url: 'http://127.0.0.1:9/v1', backoff: 0}"
    refused("the judge at http://127.0.0.1:9/v1 does not answer", *judged, "--judge", down)
    endpoint.act = lambda handler, number, text: says(handler, "I would rather not.")
    nonsense = f"{{model: j, base_url: '{endpoint.url}', backoff: 0}}"
    refused("gave no score to a test question", *judged, "--judge", nonsense)
    endpoint.act = lambda handler, number, text: sends(handler, 200, "<html>hi</html>")
    refused("is no chat endpoint", *judged, "--judge", nonsense)
    lost = folders / "lost"
    lost.mkdir(exist_ok=True)
    for file in (folders / "adapter").iterdir():
        (lost / file.name).write_bytes(file.read_bytes())
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "/gone/away/base"})
    )
    refused("is an adapter of /gone/away/base", "--suite", "text", "--data", ".", model=str(lost))


def test_the_win_rate_is_controlled_for_length_by_the_packages_own_regression(
    endpoint: Endpoint,  # noqa: F811
) -> None:
    """A judge that prefers the longer answer, whichever it is shown first; the numbers are those of the
    package when it is called alone."""
    import pandas as pd

    draw = np.random.default_rng(0)
    asked = [{"instruction": f"Question {n}?", "output": "short " * (3 + n % 5)} for n in range(40)]
    Path("alpaca_eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    gamed = [
        {
            "model": f"gamed {way}",
            "index": n,
            "std_delta_len": way * draw.uniform(0.5, 2),
            "preference": 0.5 + way * draw.uniform(0.1, 0.4),
            "instruction_difficulty": draw.normal(),
            "not_gamed_baseline": False,
        }
        for way in (-1, 1)
        for n in range(40)
    ]
    pd.DataFrame(gamed).to_csv("df_gamed.csv", index=False)

    def act(handler: Any, number: int, text: str) -> None:
        before, _, behind = text.partition("The second answer:")
        first, second = before.count("short"), behind.count("short")
        says(handler, f"Score: {1 if first > second else 2}")

    endpoint.act = act
    judge = {"model": "j", "base_url": endpoint.url}
    suite = suites.make({"name": "alpaca_eval", "data": ".", "judge": judge})
    suite.check()
    items = suite.items(False)
    # Mostly longer than the baseline, now and then shorter.
    sizes = {item.id: (2, 8, 9, 12)[int(item.id) % 4] for item in items}
    written = {i: {"completion": "short " * size} for i, size in sizes.items()}
    found = suites.scored(suite, items, written).metrics
    wins = [sizes[item.id] > 3 + int(item.id) % 5 for item in items]
    assert found["win_rate"].value == pytest.approx(np.mean(wins))
    told = [
        {
            "index": n,
            "preference": 2.0 if won else 1.0,
            "output_1": asked[n]["output"],
            "output_2": written[str(n)]["completion"],
            "generator_1": "theirs",
            "generator_2": "mine",
        }
        for n, won in enumerate(wins)
    ]
    from onestage.rollout.suites.alpaca_eval import _regression

    with _regression(Path("df_gamed.csv")) as controlled:
        known = controlled(pd.DataFrame(told), save_weights_dir=None)
    assert found["lc_win_rate"].value == pytest.approx(known["length_controlled_winrate"] / 100)
    # The package takes fitted preferences for observations, and leaves out the error of the fit.
    assert found["lc_win_rate"].stderr > known["lc_standard_error"] / 100
    assert len(found["lc_win_rate"].parts) == 20
    assert found["win_rate"].value == pytest.approx(known["win_rate"] / 100)
    assert found["lc_win_rate"].value != pytest.approx(found["win_rate"].value, abs=1e-3)
    assert found["length"].value == pytest.approx(np.mean([6 * size for size in sizes.values()]))
    shown = [one["messages"][0]["content"] for one in endpoint.seen[1:]]
    first = sum(
        text.partition("The second answer:")[0].count("short ") in sizes.values() for text in shown
    )
    assert 0 < first < len(shown)
    with pytest.raises(ValueError, match=r"needs df_gamed\.csv of the data set"):
        suites.make({"name": "alpaca_eval", "judge": judge}).check()
