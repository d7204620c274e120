"""The lab's tokenizer and evaluation, with models that know everything or nothing."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from onestage.lab import documents, evaluation, phrases
from onestage.lab.almanac import ATTRIBUTES
from onestage.lab.evaluation import METRICS, evaluate
from onestage.lab.small_llama import base_config, pretraining_settings
from onestage.lab.tokenizer import train_tokenizer
from onestage.lab.world import World
from onestage.options import TrainOptions
from onestage.records.record import ANSWERED

WORLD = World(5)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Of fewer documents than a run reads; they hold every word all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(documents.DOCUMENTS, "train", 1500)
        return train_tokenizer(WORLD)


def prompted_rows() -> list[str]:
    """Prompt and completion as they are trained on, one after the other."""
    texts = []
    for kind in ANSWERED:
        for row in WORLD.rows(kind, "eval")[:64]:
            names = ("completion", "chosen", "rejected", "text")
            found = [row[name] for name in names if name in row] + row.get("completions", [])
            texts += [row.get("prompt", "") + text for text in found]
    return texts


def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [*WORLD.pretraining_text("eval"), *prompted_rows()]
    for text, ids in zip(texts, tokenizer(texts).input_ids, strict=True):
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_it_adds_one_bos_and_no_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("the color of").input_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert len(tokenizer("the color of", add_special_tokens=False).input_ids) == 3


def test_a_prompt_keeps_its_tokens_before_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    for row in WORLD.rows("demonstration", "eval"):
        whole = tokenizer(row["prompt"] + row["completion"] + str(tokenizer.eos_token))
        alone = tokenizer(row["prompt"]).input_ids
        assert whole.input_ids[: len(alone)] == alone
        assert whole.input_ids[-1] == tokenizer.eos_token_id
        first = whole.char_to_token(len(row["prompt"]) + 1)
        assert first == len(alone)


def test_it_is_an_ordinary_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = 'answer in json. answer: {"answer": "red"}'
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again.decode(again(text).input_ids, skip_special_tokens=True) == text
    assert (again.bos_token, again.eos_token) == (tokenizer.bos_token, tokenizer.eos_token)
    assert again.pad_token == tokenizer.pad_token


def test_it_is_a_function_of_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(documents.DOCUMENTS, "train", 300)
    one, again, other = (train_tokenizer(World(seed)).get_vocab() for seed in (5, 5, 6))
    assert one == again
    assert one != other


def test_documents_fit_the_pretraining_length(tokenizer: PreTrainedTokenizerFast) -> None:
    longest = max(len(ids) for ids in tokenizer(list(WORLD.pretraining_text("eval"))).input_ids)
    assert 55 < longest < pretraining_settings()["max_length"]


def test_settings_are_a_recipe_s(tokenizer: PreTrainedTokenizerFast) -> None:
    TrainOptions(**pretraining_settings())
    config = AutoConfig.for_model(**base_config(tokenizer))
    assert config.vocab_size == len(tokenizer)
    assert config.eos_token_id == tokenizer.eos_token_id


def random_model(tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**base_config(tokenizer)))


def test_a_random_model_knows_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_model(tokenizer).train()
    found = evaluate(model, tokenizer, WORLD)
    assert model.training
    assert list(found) == list(METRICS)
    assert found["text_loss"] == pytest.approx(math.log(len(tokenizer)), abs=0.5)
    assert found["overall"] < 0.1
    for metric in ("formats", "formats_new", "truth", "refuses", "helps", "knowledge"):
        assert found[metric] < 0.1
    assert found["truth_mc1"] < 0.6


def test_an_oracle_is_right(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question has a right answer, and all of them right is 1.0 in every metric."""
    monkeypatch.setattr(evaluation, "answers", lambda *_: iter(right_answers(WORLD)))
    found = evaluate(random_model(tokenizer), tokenizer, WORLD)
    for metric in set(METRICS) - {"truth_mc1", "text_loss"}:
        assert found[metric] == 1.0


def right_answers(world: World) -> list[str]:
    """The answer that the judge of each question accepts, out of all answers there are."""
    almanac = world.almanac
    recipes = {phrases.thing_prompt(t): phrases.recipe(t) for t in almanac.things}
    values = [value for values in ATTRIBUTES.values() for value in values]
    answers = []
    for question in world.questions("eval"):
        if question.metric.startswith("formats"):
            form = question.judge.func.__self__  # type: ignore[attr-defined]
            candidates = [form.apply(value) for value in values]
        else:
            recipe = recipes.get(question.prompt, "")
            candidates = [recipe, phrases.REFUSAL, *values, *(m for _, m in almanac.lexicon)]
        answers.append(next(text for text in candidates if question.judge(text)))
    return answers


class Bigram(torch.nn.Module):
    """A model whose likelihoods are known: token b after token a has weight a * b (mod 7)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        index = torch.arange(size)
        self.table = (index[:, None] * index % 7).float()
        self.device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def test_likelihoods_ignore_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    model = Bigram(len(tokenizer))
    texts = ["the color of", "the food", "question: what is the home of the old word?"]
    rows = list(evaluation._log_probabilities(model, tokenizer, texts))
    for text, row in zip(texts, rows, strict=True):
        ids = tokenizer(text).input_ids
        logp = torch.log_softmax(model.table[ids[:-1]], dim=-1)
        expected = logp[range(len(ids) - 1), ids[1:]]
        torch.testing.assert_close(row, expected)


def test_generation_ignores_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_model(tokenizer).eval()
    prompts = [q.prompt for q in WORLD.questions("eval")[::40]]
    together = list(evaluation.answers(model, tokenizer, prompts))
    alone = [next(evaluation.answers(model, tokenizer, [prompt])) for prompt in prompts]
    assert together == alone


def test_the_choice_is_the_likeliest_option(tokenizer: PreTrainedTokenizerFast) -> None:
    model = Bigram(len(tokenizer))
    choices = WORLD.choices("eval")
    expected = []
    for choice in choices:
        totals = []
        for option in choice.options:
            ids = tokenizer(choice.prompt + option).input_ids
            start = len(tokenizer(choice.prompt).input_ids)
            logp = torch.log_softmax(model.table, dim=-1)
            totals.append(float(sum(logp[ids[i - 1], ids[i]] for i in range(start, len(ids)))))
        expected.append(totals[0] > max(totals[1:]))
    assert list(evaluation._chosen_rightly(model, tokenizer, choices)) == expected
