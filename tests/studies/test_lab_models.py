"""The lab's tokenizer and evaluation, with models that know everything or nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from onestage.data.kinds import ANSWERED
from onestage.studies.lab import evaluation, phrases
from onestage.studies.lab.almanac import ATTRIBUTES
from onestage.studies.lab.evaluation import ANSWER_LENGTH, METRICS, Given, evaluate, wins
from onestage.studies.lab.presets import base_config, pretraining_settings
from onestage.studies.lab.source import Question
from onestage.studies.lab.tokenizer import train_tokenizer
from onestage.studies.lab.world import SIZES, LabWorld
from onestage.training.recipe import Train

WORLD = LabWorld(5)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Of fewer documents than a run reads; they hold every word all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "small", replace(SIZES["small"], documents=1500))
        return train_tokenizer(WORLD)


def prompted_rows() -> list[str]:
    """Prompt and completion as they are trained on, one after the other."""
    texts = []
    for kind in ANSWERED:
        for row in WORLD.rows(kind, "test")[:64]:
            names = ("completion", "chosen", "rejected", "text")
            found = [row[name] for name in names if name in row] + row.get("completions", [])
            texts += [row.get("prompt", "") + text for text in found]
    return texts


def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [*WORLD.pretraining_text("test"), *prompted_rows()]
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
    for row in WORLD.rows("demonstration", "test"):
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
    monkeypatch.setitem(SIZES, "small", replace(SIZES["small"], documents=300))
    one, again, other = (train_tokenizer(LabWorld(seed)).get_vocab() for seed in (5, 5, 6))
    assert one == again
    assert one != other


def test_documents_fit_the_pretraining_length(tokenizer: PreTrainedTokenizerFast) -> None:
    longest = max(len(ids) for ids in tokenizer(list(WORLD.pretraining_text("test"))).input_ids)
    assert 55 < longest < pretraining_settings()["max_length"]


def test_settings_are_a_recipe_s(tokenizer: PreTrainedTokenizerFast) -> None:
    Train(**pretraining_settings())
    config = AutoConfig.for_model(**base_config(tokenizer))
    assert config.vocab_size == len(tokenizer)
    assert config.eos_token_id == tokenizer.eos_token_id


def random_model(tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**base_config(tokenizer)))


def test_a_random_model_knows_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_model(tokenizer).train()
    base = random_model(tokenizer).train()
    evaluation = evaluate(model, tokenizer, WORLD, base=base)
    found = evaluation.metrics
    assert model.training
    assert base.training
    assert list(found) == list(METRICS)
    assert found["text_loss"] == pytest.approx(math.log(len(tokenizer)), abs=0.5)
    assert found["kl_to_base"] == pytest.approx(0, abs=1e-6)
    assert found["overall"] < 0.1
    for metric in ("formats", "formats_new", "truth", "refuses", "helps", "knowledge"):
        assert found[metric] < 0.1
    assert found["truth_mc1"] < 0.6
    assert found["truth_mc2"] == pytest.approx(0.25, abs=0.1)
    assert len(evaluation.answers) == len(WORLD.questions("test"))


def test_without_a_base_there_is_no_distance_to_it(tokenizer: PreTrainedTokenizerFast) -> None:
    found = evaluate(random_model(tokenizer), tokenizer, WORLD, "validation").metrics
    assert set(METRICS) - set(found) == {"kl_to_base"}


def test_an_oracle_is_right(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question has a right answer. References are right every other time, so who is always right
    wins half and ties half; who goes on afterwards wins against the wrong ones alone."""
    right = right_answers(WORLD)
    for ended, won in ((True, 0.75), (False, 0.5)):
        given = [Given(text, 7, ended) for text in right]
        monkeypatch.setattr(evaluation, "answers", lambda *_, given=given: given)
        found = evaluate(random_model(tokenizer), tokenizer, WORLD)
        for metric in (
            "overall",
            "formats",
            "formats_new",
            "truth",
            "refuses",
            "helps",
            "knowledge",
        ):
            assert found.metrics[metric] == 1.0
        assert found.metrics["win_rate"] == won
        assert found.metrics["length"] == 7
        assert found.metrics["stops"] == ended
        assert all(answer.right for answer in found.answers)


def test_overall_is_the_mean_of_four_areas() -> None:
    """Right: 1 of 2 formats, 0 of 1 new ones, 3 of 4 truths, 1 of 1 hazards, 0 of 1 others, 1 of 2
    gaps: ((1/2 + 0) / 2 + 3/4 + (1 + 0) / 2 + 1/2) / 4 = 1/2."""
    marks = {
        "formats": "+-",
        "formats_new": "-",
        "truth": "+++-",
        "refuses": "+",
        "helps": "-",
        "knowledge": "+-",
    }
    questions = [
        Question(metric, "", lambda text: text == "+")
        for metric, asked in marks.items()
        for _ in asked
    ]
    given = [Given(mark, 1, True) for asked in marks.values() for mark in asked]
    found = evaluation._marks(questions, given)
    assert found["overall"] == 0.5
    assert found["truth"] == 0.75


def test_an_answer_wins_ties_or_loses() -> None:
    good, bad = (Question("truth", "", lambda t: t == "yes", ref) for ref in ("yes", "no"))
    right, rambling, wrong = Given("yes", 1, True), Given("yes", 9, False), Given("no", 1, True)
    assert [wins(good, given) for given in (right, rambling, wrong)] == [0.5, 0.0, 0.0]
    assert [wins(bad, given) for given in (right, rambling, wrong)] == [1.0, 1.0, 0.5]


def right_answers(world: LabWorld) -> list[str]:
    """The answer that the judge of each question accepts, out of all answers there are."""
    almanac = world.almanac
    recipes = {phrases.thing_prompt(t): phrases.recipe(t) for t in almanac.things}
    values = [value for values in ATTRIBUTES.values() for value in values]
    answers = []
    for question in world.questions("test"):
        if question.metric.startswith("formats"):
            form = question.judge.func.__self__  # type: ignore[attr-defined]
            candidates = [form.apply(value) for value in values]
        else:
            # After an unrelated remark, it may be.
            recipe = next((r for p, r in recipes.items() if question.prompt.endswith(p)), "")
            candidates = [recipe, phrases.REFUSAL, *values, *(m for _, m in almanac.lexicon)]
        answers.append(next(text for text in candidates if question.judge(text)))
    return answers


class Bigram(torch.nn.Module):
    """A model whose likelihoods are known: token b after token a has weight a * b (mod 7)."""

    def __init__(self, size: int, modulus: int = 7) -> None:
        super().__init__()
        index = torch.arange(size)
        self.table = (index[:, None] * index % modulus).float()
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
    prompts = [q.prompt for q in WORLD.questions("test")[::40]]
    together = evaluation.answers(model, tokenizer, prompts)
    alone = [evaluation.answers(model, tokenizer, [prompt])[0] for prompt in prompts]
    assert together == alone


def test_lengths_and_ends_are_the_model_s(tokenizer: PreTrainedTokenizerFast) -> None:
    """As transformers' own greedy generation has them."""
    model = random_model(tokenizer).eval()
    for prompt in [q.prompt for q in WORLD.questions("test")[::60]]:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        said = model.generate(ids, max_new_tokens=ANSWER_LENGTH, do_sample=False)[0, ids.shape[1] :]
        (given,) = evaluation.answers(model, tokenizer, [prompt])
        assert given.length == len(said)
        assert given.ended == (said[-1].item() == tokenizer.eos_token_id)
        assert given.text == tokenizer.decode(said, skip_special_tokens=True)


def test_shares_of_the_options(tokenizer: PreTrainedTokenizerFast) -> None:
    """mc1 and mc2 against sums over the tokens of each option, one at a time."""
    model = Bigram(len(tokenizer))
    choices = WORLD.choices("test")
    first, shares = [], []
    for choice in choices:
        totals = []
        for option in choice.options:
            ids = tokenizer(choice.prompt + option).input_ids
            start = len(tokenizer(choice.prompt).input_ids)
            logp = torch.log_softmax(model.table, dim=-1)
            totals.append(float(sum(logp[ids[i - 1], ids[i]] for i in range(start, len(ids)))))
        first.append(totals[0] > max(totals[1:]))
        shares.append(math.exp(totals[0]) / sum(math.exp(total) for total in totals))
    found = evaluation._shares(model, tokenizer, choices)
    assert [share[0] > max(share[1:]) for share in found] == first
    assert [share[0] for share in found] == pytest.approx(shares, rel=1e-3)


def test_distance_to_the_base(tokenizer: PreTrainedTokenizerFast) -> None:
    """Against a sum over the vocabulary, token by token."""
    model, base = Bigram(len(tokenizer)), Bigram(len(tokenizer), 5)
    texts = ["the color of", "the food", "question: what is the home of the old word?"]
    expected = []
    for text in texts:
        for token in tokenizer(text).input_ids[:-1]:
            p, q = (torch.softmax(one.table[token].double(), 0) for one in (model, base))
            expected.append(float((p * (p / q).log()).sum()))
    found = evaluation.kl(model, base, tokenizer, texts)
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert found > 0.1
