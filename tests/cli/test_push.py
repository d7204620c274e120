"""A model and its card to a hub: huggingface_hub itself, in front of a small hub of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fake_hub import Hub, a_hub
from support.report_folders import make_run, make_stages

EMPTY = "\x02" + 7 * "\x00" + "{}"
"""A file of weights that holds none."""
MODEL = {
    "config.json": "{}",
    "generation_config.json": '{"eos_token_id": [1, 2]}',
    "model.safetensors": EMPTY,
    "tokenizer.json": "{}",
    "chat_template.jinja": "{{ messages }}",
}
STAYS = {"optimizer.pt": "state", "notes.txt": "mine", "merge.json": '{"models": ["/home/me"]}'}


def call(*words: object, url: str = "", code: int = 0, **around: str) -> str:
    """In a process of its own: the library reads the hub's address when it is imported."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    given |= {"HF_ENDPOINT": url, "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1"} if url else {}
    given |= {"HF_HOME": "/nowhere", "COLUMNS": "250", "NO_PROXY": "127.0.0.1", **around}
    done = subprocess.run(
        [sys.executable, "-m", "onestage", "push", *map(str, words)],
        capture_output=True,
        text=True,
        env=given,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "chat")
    told = yaml.safe_load((folder / "recipe.yaml").read_text())
    told["data"] = [{"name": "scores", "path": "/home/me/private/scores.jsonl"}]
    told["description"] = "Answers in the asked format."
    told["evaluate"] = {"suites": [{"name": "text", "data": "/home/me/private"}]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(told))
    for name, content in (MODEL | STAYS).items():
        (folder / "model" / name).write_text(content)
    return folder


def front(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_model_folder_goes_and_nothing_else(run: Path) -> None:
    with a_hub(Hub()) as hub:
        text = call(run, "me/mine", "--private", "--license", "mit", url=hub.url)
    assert set(hub.files) == {*MODEL, "README.md"}
    for name, content in MODEL.items():
        assert hub.files[name].decode() == content
    assert "stay here: merge.json, notes.txt, optimizer.pt" in text
    assert hub.tokens == {"Bearer hf_secret"} | ({""} & hub.tokens)
    assert hub.made[0]["name"] == "mine"
    assert hub.made[0]["visibility"] == "private"
    assert hub.summary == "Model and card"
    assert f"{hub.url}/me/mine" in text
    assert hub.files["README.md"].decode() == (run / "model" / "README.md").read_text()


def test_the_card_says_what_was_done(run: Path) -> None:
    text = call(
        *(run / "model", "me/mine", "--card-only", "--license", "mit"),
        *("--base-license", "apache-2.0", "--data-license", "scores=cc-by-4.0"),
        HF_HUB_OFFLINE="1",
    )
    assert "would be sent: 6 files" in text
    card = (run / "model" / "README.md").read_text()
    told = front(card)
    assert told["license"] == "mit"
    assert told["base_model"] == "base"
    assert told["tags"] == ["onestage", "uft"]
    assert "Answers in the asked format." in card
    # The data table, with what was left out; the place without the folders of the machine.
    row = "| scores | scores.jsonl | 64 score | 2,048 | 1 refused, 2 ties | cc-by-4.0 |"
    assert row in card
    assert "/home/me" not in card
    # sft 2.0 to 1.0, dpo .7 to .4, pairs .5 to .75; kept text from .8 (first probe .867) to 1.0
    assert "Gained: sft loss 2 to 1 (-50.0 %, no interval)" in card
    assert "pairs accuracy 50 to 75 (+25.0 points, no interval)" in card
    assert "- its base, base: apache-2.0" in card
    assert "max_steps: 60" in card
    assert "onestage 0.1.0" in card


def test_what_is_not_known_is_said(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    (run / "model").rename(alone)
    call(alone, "me/mine", "--card-only")
    card = (alone / "README.md").read_text()
    assert "Not known: the folder lies in no run folder" in card
    assert "- this model: not known" in card
    for _ in range(2):  # the card of the first is no word on the base
        call(alone, "me/mine", "--card-only", "--license", "mit")
    card = (alone / "README.md").read_text()
    assert "- this model: mit" in card
    assert "- its base, not known: not known" in card
    (alone / "README.md").write_text("my own words")
    assert "left as it is" in call(alone, "me/mine", "--card-only")
    assert (alone / "README.md").read_text() == "my own words"


def test_stages_are_told_one_after_another(tmp_path: Path) -> None:
    folder = make_stages(tmp_path / "chain")
    for name, content in MODEL.items():
        (folder / "2-dpo" / "model" / name).write_text(content)
    call(folder, "me/mine", "--card-only")
    card = (folder / "2-dpo" / "model" / "README.md").read_text()
    assert "Trained by: uft, then uft." in card
    assert "### sft" in card
    assert "### dpo" in card


def test_an_adapter_is_sent_with_its_bases_public_name(run: Path, tmp_path: Path) -> None:
    model = run / "model"
    for file in model.iterdir():
        file.unlink()
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: llama3\n---\nA model.\n")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 8}
    (model / "adapter_config.json").write_text(json.dumps(config))
    (model / "adapter_model.safetensors").write_text(EMPTY)
    (model / "README.md").write_text("# Model Card for Model ID\n\n<!-- fill me in -->\n")
    text = call(run, "me/mine", "--card-only", code=1)
    assert "a folder that nobody else has: give its hub id with --base, or make one model" in text
    with a_hub(Hub()) as hub:
        call(run, "me/mine", "--base", "them/base", url=hub.url)
    sent = json.loads(hub.files["adapter_config.json"])
    assert sent == {**config, "base_model_name_or_path": "them/base"}
    assert json.loads((model / "adapter_config.json").read_text()) == config
    told = front(hub.files["README.md"].decode())
    assert (told["base_model"], told["base_model_relation"]) == ("them/base", "adapter")
    assert "- its base, them/base: llama3" in hub.files["README.md"].decode()
    # One that was trained on what a run made to start from is of that alone.
    (base / "onestage_origin.json").write_text("{}")
    text = call(run, "me/mine", "--base", "them/base", "--card-only", code=1)
    assert "which a run made to start from" in text
    assert "onestage merge" in text


@pytest.mark.parametrize(
    ("words", "around", "message"),
    [
        ("{run} me/mine", {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "x"}, "HF_HUB_OFFLINE is set"),
        ("{run} me/mine", {}, "there is no token for the hub: log in with `hf auth login`"),
        ("{run} me//mine --card-only", {}, "is no name on the hub: write USER/NAME"),
        ("{run}/nothing me/mine --card-only", {}, "is no model folder and no run that left one"),
        ("{run} me/mine --card-only --data-license sores=mit", {}, "did you mean 'scores'?"),
    ],
)
def test_bad_input_is_one_line(words: str, around: dict[str, str], message: str, run: Path) -> None:
    text = call(*words.format(run=run).split(), code=1, **around)
    assert message in text
    assert "Traceback" not in text


def test_a_hub_that_refuses_is_one_line(run: Path) -> None:
    with a_hub(Hub(refuses=403)) as hub:
        text = call(run, "me/mine", url=hub.url, code=1)
    assert "the hub did not take me/mine (" in text
    assert "hf_secret" not in text
    assert not hub.files
