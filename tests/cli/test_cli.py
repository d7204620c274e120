"""The commands, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.tiny import make_tokenizer, write_recipe, write_rows
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.rollout import complete
from onestage.rollout.suites import Kept

Make = Callable[..., dict[str, Any]]


def call(*words: object, code: int = 0, given: str | None = None) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], input=given)
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("command", ["train", "check", "score", "sample", "demo"])
def test_help_says_what_and_defaults(command: str) -> None:
    text = call(command, "--help")
    assert "--help" in text
    assert "default" in text


def test_train_resume_and_set(recipe_of: Make, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe_of("demonstration", objective="sft"))
    out = tmp_path / "out"
    text = call(
        "train", file, "--set", "train.max_steps=2", "--set", "train.save_steps=1", "--out", out
    )
    assert "law 2 forest = naive: holds" in text
    assert "step 2/2" in text
    text = call(
        "train", file, "--set", "train.max_steps=4", "--out", out, "--resume", "--no-self-check"
    )
    assert "resumed after step 2" in text
    assert "law" not in text
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_errors_are_one_line(recipe_of: Make, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe_of("demonstration", objective="dpo"))
    text = call("train", file, "--out", tmp_path / "out", code=1)
    assert "error: objective dpo cannot use demonstration" in text
    assert "Traceback" not in text


def test_check_a_recipe(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of()
    pairs = next(stream for stream in recipe["data"] if stream["name"] == "pairs")
    pairs["eval_path"] = pairs["path"]
    file = write_recipe(tmp_path / "r.yaml", recipe)
    text = call("check", file)
    for kind in ("demonstration", "score", "label", "pair", "group", "text"):
        assert kind in text
    assert "\u27e6" in text
    assert "8 held-out records have a prompt that is also trained on" in " ".join(text.split())
    assert "parameters" in text
    assert "ready to train" in text
    assert not (tmp_path / "out").exists()


def test_check_finds_what_is_wrong(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("pair", "label", objective={"pair": "dpo", "label": "dpo"})
    rows = [{"prompt": "p", "chosen": " a", "rejected": " b"}] * 2
    turned = {"prompt": "p", "chosen": " b", "rejected": " a"}
    write_rows(Path(recipe["data"][0]["path"]), [*rows, turned, {"prompt": "p", "chosen": " a"}])
    write_rows(
        Path(recipe["data"][1]["path"]),
        [{"prompt": f"p{n}", "completion": " a", "label": True} for n in range(3)],
    )
    text = " ".join(call("check", write_recipe(tmp_path / "r.yaml", recipe), code=1).split())
    assert "1 rows are refused" in text
    assert "1 records are repeated" in text
    assert "1 pairs both ways round: records that pull against each other" in text
    assert "all labels are the same" in text
    assert "dpo cannot use label" in text
    assert "cannot be trained as it is" in text


def test_check_a_data_file(tmp_path: Path, tokenizer_folder: Path) -> None:
    rows = [{"question": "q", "completion": " a"}, {"question": "q"}]
    file = write_rows(tmp_path / "d.jsonl", rows)
    text = call("check", file, "--column", "prompt=question", code=1)
    assert "1 demonstration records" in text
    assert "d.jsonl:2" in text
    write_rows(file, rows[:1])
    text = call("check", file, "--column", "prompt=question", "--tokenizer", tokenizer_folder)
    assert "\u27e6 a</s>\u27e7" in text
    judged = [{"prompt": "q", "completion": " a", "label": up} for up in (True, False)]
    write_rows(file, judged)
    text = call("check", file, "--tokenizer", tokenizer_folder)
    assert "1 answers that are up and down: records that pull against each other" in " ".join(
        text.split()
    )


def test_what_to_type_next_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    file = write_rows(folder / "d.jsonl", [{"prompt": "q", "completion": " a"}])
    text = " ".join(call("convert", file, folder / "rows.jsonl").split())
    assert f"next: onestage check '{folder / 'rows.jsonl'}'" in text


def test_score(model_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "say", "chosen": " yes", "rejected": " no no", "id": "one"},
        {"prompt": "hello", "completion": " there"},
    ]
    out = tmp_path / "scores.jsonl"
    call(
        "score",
        "--model",
        model_folder,
        "--data",
        write_rows(tmp_path / "d.jsonl", rows),
        "--out",
        out,
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["id"], line["response"]) for line in lines] == [
        ("one", 0),
        ("one", 1),
        ("d.jsonl:2", 0),
    ]
    tokenizer, model = make_tokenizer(), AutoModelForCausalLM.from_pretrained(model_folder)
    texts = [("say", " yes"), ("say", " no no"), ("hello", " there")]
    for line, (prompt, response) in zip(lines, texts, strict=True):
        ids = torch.tensor(tokenizer(prompt + response + "</s>").input_ids)
        start = len(tokenizer(prompt).input_ids)
        with torch.no_grad():
            logp = torch.log_softmax(model(ids[None]).logits[0], -1)
        want = sum(float(logp[i - 1, ids[i]]) for i in range(start, len(ids)))
        assert line["logp"] == pytest.approx(want, abs=1e-4)
        assert line["tokens"] == len(ids) - start


def test_sample_from_a_file(model_folder: Path, tmp_path: Path) -> None:
    prompts = write_rows(
        tmp_path / "p.jsonl",
        [{"prompt": "hello"}, {"prompt": [{"role": "user", "content": "say something longer"}]}],
    )
    out = tmp_path / "out.jsonl"
    words = ["sample", "--model", model_folder, "--prompts", prompts, "--max-new-tokens", 5]
    assert "2 completions; 2 cut at 5 tokens are" in call(*words, "--temperature", 0, "--out", out)
    assert "all 2 completions were cut" in call(
        *words, "--temperature", 0, "--only-ended", "--out", tmp_path / "none.jsonl", code=1
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    tokenizer, model = make_tokenizer(), AutoModelForCausalLM.from_pretrained(model_folder)
    ids = tokenizer("hello", return_tensors="pt").input_ids
    want = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=1)[0, ids.shape[1] :]
    assert lines[0] == {
        "prompt": "hello",
        "completion": tokenizer.decode(want, skip_special_tokens=True),
    }
    assert len(lines) == 2
    same = [call(*words, "--seed", 3) for _ in range(2)]
    assert "2 cut at 5 tokens are among them" in same[0]
    assert same[0] == same[1] != call(*words, "--seed", 4)


def test_sampling_goes_on_behind_what_was_answered_before_a_kill(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": f"say {n}"} for n in range(6)])
    words = ["sample", "--model", model_folder, "--prompts", prompts, "--max-new-tokens", 4]
    call(*words, "--out", tmp_path / "whole.jsonl")
    add, drawn = Kept.add, complete.drawn
    asked: list[int] = []

    def killed(kept: Kept, answers: Any) -> None:
        add(kept, answers)
        raise KeyboardInterrupt

    def by_one(*given: Any, **more: Any) -> Any:
        asked.append(len(more["kept"]))
        return drawn(*given, **more, batch_size=1)

    monkeypatch.setattr(complete, "drawn", by_one)
    with monkeypatch.context() as once:
        once.setattr(Kept, "add", killed)
        call(*words, "--out", tmp_path / "out.jsonl", code=130)
    assert not (tmp_path / "out.jsonl").exists()
    other = call(*words, "--out", tmp_path / "out.jsonl", "--seed", 1)
    assert "are there" not in other
    said = call(*words, "--out", tmp_path / "out.jsonl", "--force")
    assert "4 of 6 completions are there" in said
    assert asked == [0, 0, 4]
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert not list(tmp_path.glob(".*.part"))


def test_a_wish_stands_before_the_prompt(model_folder: Path, tmp_path: Path) -> None:
    """As if it had been typed; the file that is written has the prompt as it was."""
    plain = write_rows(tmp_path / "plain.jsonl", [{"prompt": "hello"}])
    typed = write_rows(tmp_path / "typed.jsonl", [{"prompt": "<helpfulness: 4>\nhello"}])
    words = ["sample", "--model", model_folder, "--max-new-tokens", 5, "--temperature", 0]
    found = []
    for file, more in ((plain, ["--wish", "helpfulness=4"]), (typed, []), (plain, [])):
        out = tmp_path / f"out{len(found)}.jsonl"
        call(*words, "--prompts", file, "--out", out, *more)
        found.append(json.loads(out.read_text()))
    assert found[0]["completion"] == found[1]["completion"] != found[2]["completion"]
    assert found[0]["prompt"] == "hello"
    assert "NAME=VALUE" in call(*words, "--prompts", plain, "--wish", "helpful", code=1)


def test_chat_in_the_terminal(model_folder: Path) -> None:
    text = call("sample", "--model", model_folder, "--max-new-tokens", 3, given="hello\nagain\n")
    assert text.count("> ") == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prmpt": 1}\n', "expected an object with `prompt`"),
        ("{\n", "not JSON"),
        ("", "no prompt"),
    ],
)
def test_bad_prompt_files(content: str, message: str, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    assert message in call(
        "sample", "--model", model_folder, "--prompts", tmp_path / "p.jsonl", code=1
    )


def test_a_scored_adapter_is_its_base_and_adapter(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["model"] = {"name": str(model_folder), "lora": {"r": 2}}
    file = write_recipe(tmp_path / "r.yaml", recipe)
    call("train", file, "--out", tmp_path / "out")
    data, out = recipe["data"][0]["path"], tmp_path / "s.jsonl"
    sums = []
    for model in (model_folder, tmp_path / "out" / "model"):
        call("score", "--model", model, "--data", data, "--out", out, "--force")
        sums.append(np.mean([json.loads(line)["logp"] for line in out.read_text().splitlines()]))
    assert sums[1] > sums[0] + 1
    short = ("--max-length", "2", "--out", tmp_path / "none.jsonl")
    told = call("score", "--model", model_folder, "--data", data, *short, code=1)
    assert "no response is left to score" in told
    assert not (tmp_path / "none.jsonl").exists()


def test_a_row_that_json_cannot_hold_is_known_before_anything_is_sampled(
    model_folder: Path, tmp_path: Path
) -> None:
    asked = [{"role": "user", "content": "hi"}]
    rows = {"prompt": [asked], "chat_template_kwargs": [{"day": date(2026, 1, 1)}]}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    words = ("sample", "--model", model_folder, "--prompts", tmp_path / "p.parquet")
    told = call(*words, "--out", tmp_path / "o.jsonl", "--max-new-tokens", "2", code=1)
    assert "prompt 1: cannot stand in" in told
    call(*words, "--max-new-tokens", "2")
