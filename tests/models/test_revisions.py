"""A revision of a hub model: weights, tokenizer, and whoever has the adapter afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from support.tiny import CHAT, make_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM

from onestage.models import Model, load, tokenizer_of
from onestage.models.adapters import config_in
from onestage.models.merge.into_base import open_whole
from onestage.models.release.serving import by_vllm
from onestage.models.save import save_model
from onestage.rollout.candidates import candidates

pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file")
MAIN, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the hub's library has kept of me/tiny: two revisions, with other weights and templates."""
    place = tmp_path / "hub" / "models--me--tiny"
    for seed, (name, commit) in enumerate({"main": MAIN, "v2": OTHER}.items()):
        folder = place / "snapshots" / commit
        folder.mkdir(parents=True)
        tiny_llama(seed=seed).save_pretrained(folder)
        make_tokenizer(chat=CHAT if name == "main" else "{# v2 #}" + CHAT).save_pretrained(folder)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / name).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for module in ("huggingface_hub.constants", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    return place / "snapshots" / OTHER


def test_an_adapter_goes_where_it_was_trained(hub: Path, tmp_path: Path) -> None:
    """On the weights of its revision, with the words of that one: all were on main's."""
    section = Model(name="me/tiny", revision="v2", lora={"r": 2})
    assert tokenizer_of(section).chat_template.startswith("{# v2 #}")
    loaded = load(section)
    adapter = tmp_path / "adapter"
    save_model(loaded.model, loaded.tokenizer, adapter)
    assert config_in(str(adapter)).revision == "v2"
    theirs = AutoModelForCausalLM.from_pretrained(hub)
    ids = torch.arange(2, 9)[None]
    with torch.no_grad():
        want = theirs(ids).logits
        for model in (load(Model(name=str(adapter))).model, open_whole(str(adapter)).model):
            torch.testing.assert_close(model.eval()(ids).logits, want)
        base, _ = candidates([str(adapter)])
        torch.testing.assert_close(base.load().model.eval()(ids).logits, want)
    words = by_vllm(str(adapter)).words
    assert words[words.index("--revision") + 1] == "v2"


def test_answers_are_kept_by_the_commit(hub: Path) -> None:
    """The same name is another model once the repository has been updated."""
    first = candidates(["me/tiny"])[0].key
    assert candidates(["me/tiny"])[0].key == first
    (hub.parents[1] / "refs" / "main").write_text(OTHER)
    assert candidates(["me/tiny"])[0].key != first
