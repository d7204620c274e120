"""Reward models against a forward pass by hand on the text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import CHAT, TINY, make_tokenizer, sharpen
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from onestage.rollout import rewards as registry
from onestage.rollout.rewards import Answer, Failure
from onestage.rollout.rewards.reward_model import RewardModel

OWN_CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
REFUSING = (
    "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + OWN_CHAT
)

ASKED = ({"role": "user", "content": "What is the capital of France?"},)
ANSWERS = [
    Answer("<|user|>\n...", "Paris.", turns=ASKED),
    Answer("<|user|>\n...", " The capital of France is [link] arr[i] Paris, I think.", turns=ASKED),
    Answer("<|user|>\n...", "No", hint="one two three ", turns=ASKED),
    Answer("one two three", " four five", {"answer": "4"}),
    Answer("<|user|>\n...", "", turns=ASKED),
]


def save(
    folder: Path,
    kind: str = "llama",
    *,
    chat: str | None = OWN_CHAT,
    labels: int = 1,
    pad: int | None = None,
    seed: int = 0,
    **changes: Any,
) -> str:
    """A classifier with random weights, as a folder, with a tokenizer of 300 tokens."""
    torch.manual_seed(seed)
    if kind == "bert":
        shape = {k: v for k, v in TINY.items() if k not in ("num_key_value_heads", "bos_token_id")}
        options = {**shape, "num_labels": labels, "pad_token_id": pad or 0, **changes}
        config: Any = BertConfig(**options)
    else:
        config = LlamaConfig(**{**TINY, "num_labels": labels, "pad_token_id": pad, **changes})
    factor = 10.0 if kind == "bert" else 3.0  # its layer norms leave little of small weights
    model = sharpen(AutoModelForSequenceClassification.from_config(config), factor)
    model.save_pretrained(folder)
    own_tokenizer(chat).save_pretrained(folder)
    return str(folder)


def own_tokenizer(chat: str | None = OWN_CHAT) -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer(300, chat)
    tokenizer.pad_token = None
    return tokenizer


def by_hand(folder: str, text: str, column: int = 0, *, special: bool = False) -> float:
    """The logit of one text by itself: no padding, no batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.config.pad_token_id = None  # the last token is the last token
    ids = own_tokenizer().encode(text, add_special_tokens=special)
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, column])


def templated(answer: Answer) -> str:
    asked = answer.turns[0]["content"] if answer.turns else answer.prompt
    return f"<s>[user] {asked}[assistant] {answer.response}</s>"


@pytest.mark.parametrize(("kind", "pad"), [("llama", None), ("llama", 5), ("bert", None)])
def test_rewards_are_those_of_the_text_alone(tmp_path: Path, kind: str, pad: int | None) -> None:
    folder = save(tmp_path, kind, pad=pad)
    expected = [by_hand(folder, templated(answer)) for answer in ANSWERS]
    assert max(expected) - min(expected) > 0.05  # it can tell them apart
    assert RewardModel(folder)(ANSWERS) == pytest.approx(expected, abs=1e-5)


def test_it_reads_text_and_never_the_policys_ids(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The same answers as the policy's ids would be judged otherwise, without any error."""
    folder = save(tmp_path)
    text = templated(ANSWERS[1])
    theirs = tokenizer.encode(text, add_special_tokens=False)
    assert own_tokenizer().encode(text, add_special_tokens=False) != theirs
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wrong = float(model(input_ids=torch.tensor([theirs])).logits[0, 0])
    [found] = RewardModel(folder)([ANSWERS[1]])
    assert found == pytest.approx(by_hand(folder, text), abs=1e-5)
    assert abs(found - wrong) > 0.01
    assert tokenizer.chat_template == CHAT != own_tokenizer().chat_template
    assert RewardModel(folder).text(ANSWERS[1]) == text


@pytest.fixture(scope="module", params=["llama", "llama padded with eos", "bert"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("reward")
    kind, _, padded = request.param.partition(" ")
    return RewardModel(save(folder, kind, pad=1 if padded else None), batch_size=4)


@given(words=st.lists(st.text("ab .</s>", max_size=40), min_size=2, max_size=9), data=st.data())
@settings(max_examples=15, deadline=None)
def test_scores_do_not_depend_on_the_batch(
    model: RewardModel, words: list[str], data: st.DataObject
) -> None:
    """Also where the padding token is one in which every text ends (eos)."""
    answers = [Answer("p", word) for word in words]
    alone = [model([answer])[0] for answer in answers]
    assert model(answers) == pytest.approx(alone, abs=2e-5)
    order = data.draw(st.permutations(range(len(words))))
    assert model([answers[i] for i in order]) == pytest.approx([alone[i] for i in order], abs=2e-5)


def test_padding_is_never_taken_for_the_end_of_a_text(tmp_path: Path) -> None:
    """Texts that end in the ids that a batch might be padded with."""
    folder = save(tmp_path, chat=None)
    texts = ["one two " * (i % 3 + 1) + own_tokenizer().decode([i]) for i in range(12)]
    ends = [own_tokenizer().encode(text)[-1] for text in texts]
    assert ends == list(range(12))
    expected = [by_hand(folder, text, special=True) for text in texts]
    found = RewardModel(folder, batch_size=12)([Answer("", text) for text in texts])
    assert found == pytest.approx(expected, abs=2e-5)


def test_without_a_chat_template_the_text_stands_as_it_is(tmp_path: Path) -> None:
    folder = save(tmp_path, chat=None)
    found = RewardModel(folder)([ANSWERS[3]])
    text = "one two three four five"
    assert RewardModel(folder).text(ANSWERS[3]) == text
    assert found == pytest.approx([by_hand(folder, text, special=True)], abs=1e-5)


def test_a_begun_turn_is_gone_on_with(tmp_path: Path) -> None:
    turns = (*ASKED, {"role": "assistant", "content": "It is"})
    text = RewardModel(save(tmp_path)).text(Answer("", " Paris", turns=turns))
    assert text == "<s>[user] What is the capital of France?[assistant] It is Paris</s>"
    assert turns[1]["content"] == "It is"


def test_labels_by_number_and_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path, labels=3, id2label={0: "bad", 1: "fair", 2: "good"})
    expected = by_hand(folder, templated(ANSWERS[0]), 2)
    assert RewardModel(folder, label=2)(ANSWERS[:1]) == pytest.approx([expected], abs=1e-5)
    assert RewardModel(folder, label="good")(ANSWERS[:1]) == pytest.approx([expected], abs=1e-5)
    for label in (None, 3, -1, "best"):
        with pytest.raises(ValueError, match=r"has 3: 0 bad, 1 fair, 2 good"):
            RewardModel(folder, label=label).check({})


def test_sigmoid(tmp_path: Path) -> None:
    folder = save(tmp_path)
    raw = RewardModel(folder)(ANSWERS)
    squeezed = RewardModel(folder, transform="sigmoid")(ANSWERS)
    assert squeezed == pytest.approx(torch.tensor(raw).double().sigmoid().tolist())


def test_overlong_texts_fail_and_are_not_cut(tmp_path: Path) -> None:
    folder = save(tmp_path, max_position_embeddings=64)
    whole = [Answer("p", "one two " * 50), Answer("p", "one")]
    long, short = RewardModel(folder)(whole)
    assert isinstance(long, Failure)
    assert long.sort == "overlong"
    assert long.reason.endswith(" tokens, at most 64")
    assert short == pytest.approx(by_hand(folder, templated(whole[1])), abs=1e-5)
    tokens = len(own_tokenizer().encode(templated(whole[1]), add_special_tokens=False))
    assert RewardModel(folder, max_length=tokens)(whole[1:]) == [pytest.approx(short)]
    [cut] = RewardModel(folder, max_length=tokens - 1)(whole[1:])
    assert cut == Failure("overlong", f"{tokens} tokens, at most {tokens - 1}")
    with pytest.raises(ValueError, match=r"max_length 65, but .* reads 64 tokens"):
        RewardModel(folder, max_length=65)(whole)


def test_what_cannot_be_judged_is_a_failure_of_that_answer(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", chat=REFUSING)
    turns = (*ASKED, {"role": "assistant", "content": "?"}, {"role": "user", "content": "!"})
    refused, fine = RewardModel(folder)([Answer("", "x", turns=turns), ANSWERS[0]])
    assert isinstance(refused, Failure)
    assert refused.reason.endswith("one turn only")
    assert isinstance(fine, float)
    folder = save(tmp_path / "b")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.score.weight, float("nan"))
    model.save_pretrained(folder)
    assert RewardModel(folder)(ANSWERS[:1]) == [Failure("value", "a logit of nan")]
    assert RewardModel(folder)([]) == []


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(tmp_path)
    own_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no weights for score\.weight: it is no trained"):
        RewardModel(str(tmp_path)).check({})


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        RewardModel(save(tmp_path, vocab_size=200)).check({})


def test_half_precision_and_letting_go(tmp_path: Path) -> None:
    folder = save(tmp_path)
    half = RewardModel(folder, dtype="bfloat16", device="cpu")
    assert half(ANSWERS) == pytest.approx(RewardModel(folder)(ANSWERS), abs=0.2)
    assert next(half._loaded.model.parameters()).dtype is torch.bfloat16
    half.close()
    assert "_loaded" not in vars(half)
    half.close()
    assert len(half(ANSWERS)) == len(ANSWERS)  # loads anew


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_length": -1}, "max_length must be at least 1, got -1"),
        ({"transform": "softmax"}, "transform"),
        ({"batchsize": 4}, "unknown option 'batchsize'.*batch_size"),
    ],
)
def test_bad_options(options: dict[str, Any], told: str) -> None:
    assert isinstance(
        registry.make({"name": "reward_model", "model": "m", "label": 1}), RewardModel
    )
    with pytest.raises(ValueError, match=told):
        registry.make({"name": "reward_model", "model": "m", **options})
