"""The worlds of studies: what each makes of a seed, and that it judges what it says."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from onestage.config import plugins
from onestage.data.encoded import Encoded
from onestage.data.reading import read
from onestage.data.tokenize import Encoder
from onestage.models.policy import Policy
from onestage.rollout.complete import Drawn
from onestage.runfolder import read_json
from onestage.studies.cells import reported
from onestage.studies.file import parse_study
from onestage.studies.lab import lock_base, presets
from onestage.studies.lab.world import SIZES
from onestage.studies.run_cell import world_of
from onestage.studies.study import Study
from onestage.studies.tables import markdown
from onestage.studies.tuning import settled
from onestage.studies.worlds import PLUGINS, Ground, Metric, World, folder
from onestage.studies.worlds.folder import Logps, _logps

SHORT = {"max_steps": 3}
STRANGE = """\
from dataclasses import dataclass
from pathlib import Path

from onestage.studies.worlds import Evaluated, Ground, Metric, World


@dataclass(frozen=True)
class Letters(World):
    base: Path
    more: int = 0

    headline = ("letters",)
    metrics = {"letters": Metric("letters of the model's folder, and more")}

    def prepare(self, seed, cache, say):
        return Ground(self.base, self.base, notes=["a small world"])

    def evaluate(self, ground, model, seed, split):
        return Evaluated({"letters": len(model.name) + self.more + seed}, notes=["few letters"])
"""


def judged(world: World, tmp_path: Path, seed: int) -> None:
    """Ground, splits and evaluation fit together; the base found again is the one that was made."""
    ground = world.prepare(seed, tmp_path, lambda line: None)
    assert world.prepare(seed, tmp_path, lambda line: None) == ground
    for split in ("train", "validation", "test"):
        assert (ground.data / f"check.{split}.jsonl").is_file()
    validation = world.evaluate(ground, ground.base, seed, "validation")
    test = world.evaluate(ground, ground.base, seed, "test")
    assert set(test.metrics) == set(world.metrics)
    assert set(world.headline) <= set(world.metrics)
    asked = [
        {answer["prompt"] for answer in found.answers if answer["metric"] != "knowledge"}
        for found in (
            validation,
            test,
        )  # the old words are asked for in both: nothing trains on them
    ]
    assert asked[0]
    assert not asked[0] & asked[1]
    assert {"prompt", "response", "metric", "right"} <= set(test.answers[0])
    again = world.evaluate(ground, ground.base, seed, "test")
    assert again.metrics == test.metrics


def test_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = presets.PRESETS["small"]
    monkeypatch.setitem(presets.PRESETS, "small", replace(small, train={**small.train, **SHORT}))
    monkeypatch.setitem(SIZES, "small", replace(SIZES["small"], documents=1500))
    judged(world_of({"name": "lab"}), tmp_path, 7)


def test_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lock_base.TRAIN, "max_steps", 3)
    judged(world_of({"name": "lock", "horizon": 4, "solved": 8}), tmp_path, 7)


def test_a_world_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"unknown world 'lap'.*lab"):
        world_of({"name": "lap"})
    with pytest.raises(ValueError, match="horizon"):
        world_of({"name": "lock", "horizon": 0})
    with pytest.raises(ValueError, match=r"world: expected"):
        world_of({"horizon": 3})


def strange(file: Path, name: str, base: Path) -> dict[str, Any]:
    """A study of one method that trains nothing worth it, in a world that somebody else wrote."""
    return {
        "name": "strange",
        "world": {"name": name, "base": str(base), "more": 10},
        "seeds": [0, 1],
        "budget": {"updates": 1},
        "recipe": {
            "model": {"name": "{base}"},
            "data": [{"name": "rows", "path": str(write_rows(file, [{"text": "one two three"}]))}],
            "train": {"batch_size": 1, "max_length": 16},
        },
        "methods": {"SFT": {"objective": "sft"}},
    }


def a_base_and_another(base: Path, to: Path) -> tuple[Any, Any]:
    """The base, and the same with some noise, which is saved in the folder `to`."""
    AutoTokenizer.from_pretrained(base).save_pretrained(to)
    models = [AutoModelForCausalLM.from_pretrained(base) for _ in range(2)]
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in models[1].parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    models[1].save_pretrained(to)
    return models[0], models[1]


def test_how_far_a_model_has_moved_on_real_text(tmp_path: Path, model_folder: Path) -> None:
    """The KL of a folder's world, by plain transformers over the whole vocabulary."""
    base, moved = a_base_and_another(model_folder, tmp_path / "moved")
    (tmp_path / "data").mkdir()
    texts = ["one two three", "four five six seven eight nine"]
    write_rows(tmp_path / "data" / "text.test.jsonl", [{"text": text} for text in texts])
    world = world_of({"name": "folder", "model": str(model_folder), "data": str(tmp_path / "data")})
    encoder = Encoder(AutoTokenizer.from_pretrained(model_folder), 64, "drop")
    apart = []
    for record in encoder.encode_responses(read(tmp_path / "data" / "text.test.jsonl")):
        ids = torch.tensor(record.paths[0].ids.astype("int64"))[None]
        with torch.no_grad():
            old, new = (model(ids).logits[0].log_softmax(-1) for model in (base, moved))
        ((start, end),) = record.paths[0].spans
        apart.append((old.exp() * (old - new)).sum(-1)[start - 1 : end - 1])
    found = world.evaluate(Ground(model_folder, tmp_path / "data"), tmp_path / "moved", 0, "test")
    assert float(torch.cat(apart).mean()) > 0.01
    assert found.metrics["text_kl"] == pytest.approx(float(torch.cat(apart).mean()), rel=1e-4)


def test_a_head_that_is_not_plain_moves_by_its_own_logits(
    tmp_path: Path, model_folder: Path
) -> None:
    """An adapter on the head: neither world nor suite may leave the KL out."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "text.test.jsonl", [{"text": "four five six seven"}])
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["lm_head"])
    config.init_lora_weights = "gaussian"
    plain = AutoModelForCausalLM.from_pretrained(model_folder)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.5)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path / "adapter")
    (record,) = Encoder(AutoTokenizer.from_pretrained(model_folder), 64, "drop").encode_responses(
        read(tmp_path / "data" / "text.test.jsonl")
    )
    ids = torch.tensor(record.paths[0].ids.astype("int64"))[None]
    ((start, end),) = record.paths[0].spans
    with torch.no_grad():
        old, new = (
            model(input_ids=ids).logits[0, start - 1 : end - 1].double().log_softmax(-1)
            for model in (plain, adapted.eval())
        )
    world = world_of({"name": "folder", "model": str(model_folder), "data": str(tmp_path / "data")})
    found = world.evaluate(Ground(model_folder, tmp_path / "data"), tmp_path / "adapter", 0, "test")
    kl = float((old.exp() * (old - new)).sum(-1).mean())
    loss = -float(new.gather(1, ids[0, start:end, None]).mean())
    assert kl > 0.01
    assert found.metrics["text_kl"] == pytest.approx(kl, rel=1e-4)
    assert found.metrics["text_loss"] == pytest.approx(loss, rel=1e-4)


def test_the_loss_of_held_out_pairs(tmp_path: Path, model_folder: Path) -> None:
    """DPO's (Rafailov et al., equation 7) at beta .1, by plain transformers."""
    both = a_base_and_another(model_folder, tmp_path / "moved")
    data = tmp_path / "data"
    data.mkdir()
    pairs = [
        {"prompt": "one two", "chosen": " three four", "rejected": " nine"},
        {"prompt": "five", "chosen": " six", "rejected": " one two three"},
    ]
    write_rows(data / "pair.test.jsonl", pairs)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    losses = []
    for record in Encoder(tokenizer, 64, "drop").encode_responses(read(data / "pair.test.jsonl")):
        gained = []
        for path in record.paths:
            ids, ((start, end),) = torch.tensor(path.ids.astype("int64")), path.spans
            with torch.no_grad():
                old, new = (model(ids[None]).logits[0].log_softmax(-1) for model in both)
            asked = range(start, end)
            gained.append(sum(float((new - old)[at - 1, ids[at]]) for at in asked))
        losses.append(math.log1p(math.exp(-0.1 * (gained[0] - gained[1]))))
    world = world_of({"name": "folder", "model": str(model_folder), "data": str(data)})
    ground = Ground(model_folder, data)
    found = world.evaluate(ground, tmp_path / "moved", 0, "test").metrics
    assert abs(losses[0] - math.log(2)) > 1e-3
    assert found["pair_loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    at_start = world.evaluate(ground, model_folder, 0, "test").metrics
    assert at_start["pair_loss"] == pytest.approx(math.log(2))


def test_suites_are_asked_of_what_is_reported(tmp_path: Path, model_folder: Path) -> None:
    """The perplexity of a suite by plain transformers, and none of a trial."""
    data, asked = tmp_path / "data", tmp_path / "asked.jsonl"
    data.mkdir()
    texts = ["one two three", "four five six seven eight nine"]
    for split in ("validation", "test"):
        write_rows(data / f"text.{split}.jsonl", [{"text": texts[0]}])
    write_rows(asked, [{"text": text} for text in [*texts, "ten nine"]])
    suite = {"name": "text", "path": str(asked), "limit": 2}
    given = {"name": "folder", "model": str(model_folder), "data": str(data), "suites": [suite]}
    world, ground = world_of(given), Ground(model_folder, data)
    world.check()
    world.prepare(0, tmp_path / "cache", print)
    found = {
        split: world.evaluate(ground, model_folder, 0, split).metrics
        for split in ("validation", "test")
    }
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    parts = []
    for text in texts:
        ids = torch.tensor(tokenizer(text).input_ids)
        with torch.no_grad():
            logps = model(ids[None]).logits[0].log_softmax(-1)
        parts.append(-logps[:-1].gather(1, ids[1:, None])[:, 0])
    assert found["test"].pop("text") == pytest.approx(float(torch.cat(parts).mean().exp()), 1e-4)
    assert found["test"] == found["validation"]
    assert world.metrics["text"].better == "lower"
    assert world.metrics["text"].says == "perplexity of the suite text"


LOST = """\
from dataclasses import dataclass

from onestage.rollout.rewards import Failure
from onestage.rollout.suites import Item, Suite


@dataclass(frozen=True)
class Lost(Suite):
    headline = "right"

    def items(self, chat):
        return [Item(str(number), "one") for number in range(3)]

    def ask(self, subject, items):
        return [{} for _ in items]

    def score(self, items, answers):
        return [Failure("network", "the judge is down"), *({"right": 1.0} for _ in items[1:])]
"""


def test_a_suite_that_loses_answers_is_no_result(tmp_path: Path, model_folder: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "lost.py"
    data.mkdir()
    write_rows(data / "text.test.jsonl", [{"text": "one two"}])
    file.write_text(LOST)
    given = {"name": "folder", "model": str(model_folder), "data": str(data)}
    world = world_of({**given, "suites": [f"{file}:Lost"]})
    with pytest.raises(ValueError, match=r"1 of 3 answers could not be scored \(the judge is down"):
        world.evaluate(Ground(model_folder, data), model_folder, 0, "test")


def test_suites_that_cannot_be_asked_are_refused_before_the_first_cell(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "text.test.jsonl", [{"text": "one two"}])
    given = {"name": "folder", "model": str(model_folder), "data": str(data)}
    texts = {"name": "text", "path": str(data / "text.test.jsonl")}
    twice = {**given, "suites": [texts, texts]}
    assert {"text", "text_2"} < set(world_of(twice).metrics)
    assert world_of(twice).metrics["text_2"].says == "perplexity of the suite text_2"
    with monkeypatch.context() as changed:
        changed.setitem(folder.METRICS, "text_2", Metric("another"))
        with pytest.raises(ValueError, match="name, and text_2 is another metric"):
            world_of(twice).check()
    with pytest.raises(ValueError, match="unknown suite 'texts'; did you mean 'text'"):
        world_of({**given, "suites": ["texts"]}).check()
    missing = {**texts, "path": str(tmp_path / "none.jsonl")}
    with pytest.raises(ValueError, match=r"none\.jsonl"):
        world_of({**given, "suites": [missing]}).prepare(0, tmp_path / "cache", print)


def test_a_base_is_measured_once_for_all_cells(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its weights, or what it is asked, are others."""
    monkeypatch.setattr(folder, "BEFORE", {})
    asked = []

    def counted(policy: Policy, records: list[Encoded]) -> Logps:
        asked.append(policy)
        return _logps(policy, records)

    monkeypatch.setattr(folder, "_logps", counted)
    base, data = tmp_path / "base", tmp_path / "data"
    shutil.copytree(model_folder, base)
    data.mkdir()
    write_rows(data / "demonstration.test.jsonl", [{"prompt": "one", "completion": "two three"}])
    write_rows(data / "text.test.jsonl", [{"text": "one two three"}])
    world = world_of({"name": "folder", "model": str(base), "data": str(data)})

    def judged() -> tuple[int, Mapping[str, float]]:
        before = len(asked)
        found = world.evaluate(Ground(base, data), model_folder, 0, "test").metrics
        return len(asked) - before, found

    first, again = judged(), judged()
    assert first[0] == 2
    assert again == (1, first[1])
    write_rows(data / "demonstration.test.jsonl", [{"prompt": "one", "completion": "two four"}])
    assert judged()[0] == 2
    moved = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        moved.get_input_embeddings().weight.mul_(0.5)
    moved.save_pretrained(base)
    asked_again, found = judged()
    assert asked_again == 2
    assert first[1]["text_kl"] == 0.0 < found["text_kl"]


def test_a_stranger_s_world(tmp_path: Path, model_folder: Path) -> None:
    """In two processes, which must find it where this one did."""
    (tmp_path / "letters.py").write_text(STRANGE)
    name = f"{tmp_path / 'letters.py'}:Letters"
    file = parse_study(strange(tmp_path / "rows.jsonl", name, model_folder))
    said: list[str] = []
    study = Study(file, tmp_path / "out", tmp_path, jobs=2, say=said.append)
    outcome = study.go()
    assert not outcome.failed
    # Grounds are made by processes that nobody hears: what is to be known of them is told here, once.
    assert said.count("a small world") == 1
    assert read_json(tmp_path / "out" / "study.json")["headline"] == ["letters"]
    found = {(row.method, row.seed): row.value for row in outcome.rows if row.metric == "letters"}
    assert found["SFT", 1] == len("model") + 10 + 1
    assert found["base", 0] == len(model_folder.name) + 10
    # What it remarks of judging is told once, and stays.
    note = f"few letters (in {len(found)} of {len(found)} cells)"
    assert note in outcome.notes
    assert read_json(tmp_path / "out" / "study.json")["remarks"] == [note]
    assert f"- {note}" in markdown(tmp_path / "out", outcome).splitlines()


def test_a_stranger_s_world_that_changes_is_asked_again(tmp_path: Path, model_folder: Path) -> None:
    file = tmp_path / "letters.py"
    file.write_text(STRANGE)
    content = parse_study(strange(tmp_path / "rows.jsonl", f"{file}:Letters", model_folder))
    before = [cell.digest for cell in reported(content, settled(content))]
    file.write_text(STRANGE + "# changed\n")
    after = [cell.digest for cell in reported(content, settled(content))]
    assert not set(before) & set(after)


def test_worlds_of_installed_packages_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_letters.py").write_text(STRANGE)
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("letters", "installed_letters:Letters", PLUGINS.group)
    monkeypatch.setattr(plugins, "_entry_points", lambda: metadata.EntryPoints([point]))
    assert PLUGINS.group == "onestage.worlds"
    assert world_of({"name": "letters", "base": "b", "more": 2}).headline == ("letters",)
    with pytest.raises(ValueError, match="unknown option 'les'"):
        world_of({"name": "letters", "les": 2})


def test_rows_that_a_folder_cannot_measure_are_told(tmp_path: Path, model_folder: Path) -> None:
    """Too long or unreadable; and a mean over fewer areas is not called by the same name."""
    data = tmp_path / "data"
    data.mkdir()
    pair = {"prompt": "one", "chosen": "two three", "rejected": "four"}
    write_rows(data / "pair.test.jsonl", [pair, {**pair, "chosen": "two " * 40}, {"prompt": "one"}])
    write_rows(data / "pair.validation.jsonl", [pair])
    write_rows(data / "text.test.jsonl", [{"text": "one two three"}])
    given = {"name": "folder", "model": str(model_folder), "data": str(data), "max_length": 24}
    said: list[str] = []
    world_of(given).prepare(0, tmp_path, said.append)
    assert [line.split("; 1 refused")[0] for line in said] == [
        "pair.test.jsonl: not measured are 2 of 3 rows (1 longer than max_length 24",
        "overall is a mean over ['pair'] on validation, and over ['pair', 'text'] on test",
    ]
    found = world_of(given).evaluate(Ground(model_folder, data), model_folder, 0, "test")
    assert list(found.notes) == said[:1]
    write_rows(data / "pair.test.jsonl", [{"prompt": "one"}])
    with pytest.raises(
        ValueError, match=r"nothing of pair.test.jsonl can be measured.*1 of 1 rows"
    ):
        world_of(given).prepare(0, tmp_path, said.append)


def test_answers_are_counted_as_they_were_drawn(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by their text, which lacks special tokens: one that is cut has not stopped."""
    write_rows(tmp_path / "demonstration.test.jsonl", [{"prompt": "one", "completion": "two"}] * 2)
    world = world_of(
        {"name": "folder", "model": str(model_folder), "data": str(tmp_path), "answers": 2}
    )
    both = [Drawn("", False, 128), Drawn("two", True, 2)]
    monkeypatch.setattr(folder, "drawn", lambda *given: both)
    found = world.evaluate(Ground(model_folder, tmp_path), model_folder, 0, "test").metrics
    assert (found["stops"], found["length"]) == (0.5, 65)
