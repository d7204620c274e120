"""Which adapters are exact where, each against PEFT's own result; all others are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.odd_adapters import ADAPTERS, FANNED, ROW, lora, make_adapter, make_base, said_by
from support.tiny import make_tokenizer
from transformers import AutoModelForCausalLM

import onestage as one
from onestage import models
from onestage.models import Lora, Model
from onestage.models.export import (
    adapter_rank,
    base_weights,
    merged_weights,
    random_adapter,
    save_adapter,
)
from onestage.models.features import Door
from onestage.models.loading import LoadError
from onestage.models.merge import merge
from onestage.models.merge.into_base import base_of
from onestage.models.save import save_model
from onestage.models.start import prepare
from onestage.rollout.candidates import candidates

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT warns of ties, and goes on
LLAMA = [(name, tied, False) for tied in (True, False) for name in ADAPTERS]
CASES = [*LLAMA, *((name, tied, True) for tied in (True, False) for name in FANNED)]
OUTSIDE = {"prompt tuning", "prefix tuning", "adaption prompt", "activated by tokens"}
"""Adapters that are no part of the layers, or not always."""
OWN = {"embedding", "head", "embedding saved whole", "head saved whole", "tokens of the head"}
"""Adapters of one of two layers, which may share a weight."""
NOT_TRAINED = OUTSIDE | {"adalora"}
NOT_MERGED = OUTSIDE | {"bias of its own", "layers repeated"}
NOT_SERVED = NOT_MERGED | {"tokens", "tokens of the head", "norms", "adalora"}
NOT_SERVED |= {"pissa start", "olora start"}
PRODUCTS = {"lora", "rank and alpha by layer", "some layers", "all linear but some", "rslora"}
PRODUCTS |= {"gaussian start", "orthogonal start", "fan in, fan out"}
Made = Callable[[str, bool, bool], tuple[Path, Path, torch.Tensor]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A base, one of the adapters on it, and what PEFT makes of the two; each made once."""
    root, bases, known = tmp_path_factory.mktemp("odd"), {}, {}

    def make(name: str, tied: bool, gpt2: bool = False) -> tuple[Path, Path, torch.Tensor]:
        kin = (tied, gpt2)
        if kin not in bases:
            bases[kin] = make_base(root / f"base-{tied}-{gpt2}", tied=tied, gpt2=gpt2)
        if (name, *kin) not in known:
            folder = root / f"{len(known)}"
            config = (FANNED if gpt2 else ADAPTERS)[name]
            known[(name, *kin)] = (folder, make_adapter(bases[kin], config, folder))
        folder, said = known[(name, *kin)]
        return bases[kin], folder, said

    return make


def close(found: torch.Tensor, said: torch.Tensor) -> None:
    torch.testing.assert_close(found, said, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "tied", "gpt2"), CASES)
def test_it_says_what_peft_says_or_is_refused(
    name: str, tied: bool, gpt2: bool, made: Made
) -> None:
    _, folder, said = made(name, tied, gpt2)
    if name in OUTSIDE:
        with pytest.raises(LoadError, match="which cannot be asked for"):
            models.open(folder)
        return
    policy = models.open(folder)
    close(policy(ROW).detach(), said)
    if name in NOT_TRAINED:
        with pytest.raises(LoadError, match="which cannot be trained further"):
            models.load(Model(name=str(folder)))


@pytest.mark.parametrize(("name", "tied", "gpt2"), CASES)
def test_merged_into_its_base_it_is_what_peft_makes_or_is_refused(
    name: str, tied: bool, gpt2: bool, made: Made, tmp_path: Path
) -> None:
    """`model.adapter: merge`, as plain transformers loads the folder: law 8."""
    base, folder, said = made(name, tied, gpt2)
    source = Model(name=str(folder), adapter="merge")
    if name in NOT_MERGED or (tied and name in OWN):
        with pytest.raises(LoadError, match=r"cannot be merged into its base|is tied to another"):
            prepare(source, make_tokenizer(), tmp_path / "start", 0, keep=False)
        assert not (tmp_path / "start").exists()
        return
    prepare(source, make_tokenizer(), tmp_path / "start", 0, keep=False)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
    close(said_by(plain.eval()), said)
    whole: Any = AutoModelForCausalLM.from_pretrained(base)
    theirs = PeftModel.from_pretrained(whole, folder).merge_and_unload()
    close(said_by(plain), said_by(theirs.eval()))


@pytest.mark.parametrize(("name", "tied", "gpt2"), CASES)
def test_handed_to_an_engine_it_is_the_merged_model_or_is_refused(
    name: str, tied: bool, gpt2: bool, made: Made
) -> None:
    base, folder, said = made(name, tied, gpt2)
    whole: Any = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(whole, folder).eval()
    if name in NOT_SERVED or (tied and name in OWN):
        with pytest.raises(LoadError, match=r"cannot be handed to another|is tied to another"):
            dict(merged_weights(adapted))
        return
    copy: Any = AutoModelForCausalLM.from_pretrained(base)
    copy.load_state_dict(dict(merged_weights(adapted)), strict=False)
    close(said_by(copy.eval()), said)


@pytest.mark.parametrize("name", sorted(OWN))
def test_one_of_two_tied_layers_is_whole_with_a_weight_for_each(
    name: str, made: Made, tmp_path: Path
) -> None:
    """`onestage merge ADAPTER`, and so `export`: what plain PEFT says with the adapter on."""
    _, folder, said = made(name, True, False)
    merge([folder], tmp_path / "whole")
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    close(said_by(plain.eval()), said)
    assert not plain.config.tie_word_embeddings


@pytest.mark.parametrize(("name", "tied", "gpt2"), CASES)
def test_loaded_by_an_engine_it_is_on_its_base_what_it_was_or_is_refused(
    name: str, tied: bool, gpt2: bool, made: Made, tmp_path: Path
) -> None:
    base, folder, said = made(name, tied, gpt2)
    whole: Any = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(whole, folder).eval()
    if name not in PRODUCTS:
        refused = r"cannot be loaded by another|is tied to another|adapts embeddings or the head"
        with pytest.raises(LoadError, match=refused):
            adapter_rank(adapted)
        return
    assert adapter_rank(adapted) == (4 if name == "rank and alpha by layer" else 2)
    with torch.no_grad(), random_adapter(adapted, 3.0):
        assert not torch.allclose(said_by(adapted), said, atol=0.1)
    save_adapter(adapted, tmp_path / "as it is")
    copy: Any = AutoModelForCausalLM.from_pretrained(base)
    for parameter in copy.parameters():
        parameter.data.zero_()
    copy.load_state_dict(dict(base_weights(adapted)), strict=False)
    close(said_by(PeftModel.from_pretrained(copy, tmp_path / "as it is").eval()), said)


@pytest.mark.parametrize(("name", "tied", "gpt2"), CASES)
def test_stacked_on_it_stays_what_it_is_or_is_refused(
    name: str, tied: bool, gpt2: bool, made: Made, tmp_path: Path
) -> None:
    """The sum of the two adapters, saved as one, on the base as plain PEFT loads it."""
    base, folder, said = made(name, tied, gpt2)
    targets = ["c_attn"] if gpt2 else ["q_proj"]
    source = Model(name=str(folder), adapter="stack", lora=Lora(r=2, target_modules=targets))
    if name not in PRODUCTS:
        refused = (
            r"cannot be stacked on|cannot stack adapters of|is tied to another|adapts the output"
        )
        with pytest.raises(ValueError, match=refused):
            models.load(source)
        return
    loaded = models.load(source)
    save_model(loaded.model, loaded.tokenizer, tmp_path / "sum")
    whole: Any = AutoModelForCausalLM.from_pretrained(base)
    close(said_by(PeftModel.from_pretrained(whole, tmp_path / "sum").eval()), said)


@pytest.mark.parametrize(("name", "tied"), [(name, tied) for name, tied, _ in LLAMA])
def test_merged_with_others_it_is_whole_or_refused(
    name: str, tied: bool, made: Made, tmp_path: Path
) -> None:
    """A weighted mean of the base and the adapter, all weight on the adapter: the adapter."""
    base, folder, said = made(name, tied)
    if name not in PRODUCTS | {"embedding", "head"} or (tied and name in OWN):
        with pytest.raises(ValueError, match=r"cannot be merged with|is tied to another"):
            merge([base, folder], tmp_path / "out", weights=[0, 1])
        return
    merge([base, folder], tmp_path / "out", weights=[0, 1])
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    close(said_by(plain.eval()), said)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", ["saved whole", "tokens", "beside"])
def test_an_adapter_of_a_base_that_was_resized_brings_its_embeddings(
    tied: bool, how: str, tmp_path: Path
) -> None:
    """Tokens were added, and the base's folder has none of them: as PEFT saves it, either way."""
    base, folder = make_base(tmp_path / "base", tied=tied), tmp_path / "adapter"
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"<new{n}>" for n in range(9)])
    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    plain.resize_token_embeddings(len(tokenizer))
    ends = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    options: dict[str, Any] = {"modules_to_save": ends, "ensure_weight_tying": tied}
    options = options if how == "saved whole" else {"trainable_token_indices": [400, 401]}
    config = lora(**({} if how == "beside" else options))
    model: Any = get_peft_model(plain, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * parameter.requires_grad)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    said = said_by(model)
    policy = models.open(folder)
    close(policy(ROW).detach(), said)
    loaded = models.load(Model(name=str(folder)))
    save_model(loaded.model, loaded.tokenizer, tmp_path / "further")
    close(models.open(tmp_path / "further")(ROW).detach(), said)
    merging = Model(name=str(folder), adapter="merge"), tokenizer, tmp_path / "start", 0
    if tied and how == "saved whole":
        with pytest.raises(LoadError, match="is tied to another layer"):
            prepare(*merging, keep=False)
        merge([folder], tmp_path / "whole")
        close(said_by(AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()), said)
    else:
        prepare(*merging, keep=False)
        close(said_by(AutoModelForCausalLM.from_pretrained(tmp_path / "start").eval()), said)
    if how == "beside":
        with pytest.raises(LoadError, match="has 409 embeddings and its base 400; it cannot be st"):
            models.load(Model(name=str(folder), adapter="stack", lora=Lora(r=2)))
    with pytest.raises(ValueError, match=r"409 embeddings and its base .* has 400"):
        candidates([str(folder)], "auto", "auto")


def test_what_is_new_and_not_in_the_adapter_is_missed(tmp_path: Path) -> None:
    base, folder = make_base(tmp_path / "base", tied=False), tmp_path / "adapter"
    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    plain.resize_token_embeddings(409)
    model: Any = get_peft_model(plain, lora(modules_to_save=["embed_tokens"]))
    model.save_pretrained(folder, save_embedding_layers=False)
    with pytest.raises(LoadError, match="409 embeddings and its base has 400; it holds no lm_head"):
        models.open(folder)


def test_an_adapter_of_an_adapter_is_refused_at_every_door(made: Made, tmp_path: Path) -> None:
    _, folder, _ = made("lora", False, False)
    other = shutil.copytree(folder, tmp_path / "other")
    file = other / "adapter_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "base_model_name_or_path": str(folder)}))
    asked = (models.open, base_of, lambda name: models.check_trained(Model(name=name)))
    for ask in asked:
        with pytest.raises(LoadError, match="which is an adapter itself; make that whole"):
            ask(str(other))


def test_a_recipe_is_refused_before_anything_is_loaded(made: Made) -> None:
    _, folder, _ = made("adalora", False, False)
    rows = [{"prompt": "a", "completion": " b"}] * 4
    (checked,) = one.check(model=str(folder), data=rows, objective="sft")
    (line,) = checked.findings.errors
    assert "type ADALORA, which cannot be trained further" in line
    assert "model.adapter: merge" in line


def test_an_option_of_tomorrow_is_on_no_list(made: Made, tmp_path: Path) -> None:
    """What this PEFT does not know would be left out; what we do not know is exact nowhere."""
    _, folder, _ = made("lora", False, False)
    other = shutil.copytree(folder, tmp_path / "other")
    file = other / "adapter_config.json"
    file.write_text(file.read_text().replace('"use_qalora": false', '"use_qalora": true'))
    for door in (Door.ASKED, Door.TRAINED):
        with pytest.raises(LoadError, match="with use_qalora, which cannot be"):
            models.load(Model(name=str(other)), door=door)


def test_a_given_model_has_one_adapter_that_will_be_saved() -> None:
    from support.tiny import tiny_llama

    for labels, message in ((["mine"], "the adapters mine"), (["default", "b"], "default, b")):
        config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"])
        model: Any = get_peft_model(tiny_llama(), config, adapter_name=labels[0])
        for label in labels[1:]:
            model.add_adapter(label, config)
        with pytest.raises(LoadError, match=message):
            models.given(model, make_tokenizer())


def test_a_fresh_adapter_on_the_head_is_not_overlooked() -> None:
    """At the start it adds nothing, so that trying the chunked head would not show it."""
    from support.tiny import tiny_llama

    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["lm_head"])
    loaded = models.given(get_peft_model(tiny_llama(), config), make_tokenizer())
    policy = models.Policy(loaded.model)
    assert not policy.fit.chunked_head
    policy(ROW).sum().backward()
    trained = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
