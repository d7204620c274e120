"""Kinds of templates that were found in the field after those of `test_templates.py` were mended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.tiny import make_tokenizer
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bench.trust.conversations import called, encode, said, scored, user
from bench.trust.families import FAMILIES, with_markers
from bench.trust.templates import bytes_tokenizer
from onestage.data.dialect import Dialect
from onestage.data.encoded import Encoded
from onestage.data.record import Record, Refusal
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.data.template import NO_END, dialect
from onestage.data.tokenize import Encoder, prompt_ids
from onestage.data.turns import _other_turn

CALL = (
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}</tool_call>{% endfor %}"
)


def chatml(template: str) -> Any:
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<|call|>"])
    tokenizer.chat_template = template
    return tokenizer


def spans(tokenizer: Any, *messages: dict[str, Any]) -> list[str]:
    encoded = encode(tokenizer, messages)
    assert isinstance(encoded, Encoded), encoded
    return [text for _, text in scored(encoded, tokenizer)]


def test_a_reply_in_front_of_all_questions_begins_behind_its_header() -> None:
    """Granite 3 and GigaChat make no prompt behind a system message: the header was learned."""
    tokenizer = chatml(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role == 'user' %}"
        "<|im_start|>assistant\n{% endif %}"
    )
    talk = ({"role": "system", "content": "SYS"}, said("one"), user("a"), said("two"))
    assert spans(tokenizer, *talk) == ["one<|im_end|>", "two<|im_end|>"]


def test_what_ends_one_of_several_calls_ends_no_turn() -> None:
    """GLM: a model that stops there never makes its second call."""
    tokenizer = chatml(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
        + CALL
        + "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    known = dialect(tokenizer)
    assert (known.ends, known.inside) == ((), ("</tool_call>",))
    encoded = encode(tokenizer, [user("Hi"), called({"city": "Paris"})])
    assert isinstance(encoded, Encoded)
    assert NO_END in encoded.notes
    ended = chatml(
        tokenizer.chat_template.replace("</tool_call>{% endfor %}", "{% endfor %}<|call|>")
    )
    assert [ended.decode([end]) for end in dialect(ended).ends] == ["<|call|>"]


def test_a_template_that_needs_tools_is_asked_with_one() -> None:
    """Hermes 3's own file for tools raises without any: its end marker was unknown."""
    tokenizer = chatml("{{ tools[0].function.name }}" + FAMILIES["ChatML"].template)
    known = dialect(tokenizer)
    assert [tokenizer.decode([end]) for end in known.ends] == ["<|im_end|>"]


def test_the_spelling_that_is_taken_keeps_the_content_as_it_is() -> None:
    """With no content at all this template writes no end (LFM 2.5)."""
    tokenizer = chatml(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        + CALL
        + "{% if m.content is not none %}"
        "{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = {**called(json.dumps({"city": "Paris"})), "content": ""}
    assert spans(tokenizer, user("Hi"), call) == [
        '<tool_call>get_weather{"city": "Paris"}</tool_call><|im_end|>'
    ]


def test_the_prompt_of_an_earlier_call_is_not_taken_for_this_reply_s() -> None:
    """What was said last stands in front of a reply, and not in what is scored (Solar Open)."""
    tokenizer = chatml(
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'NOW ' if loop.last }}{{ m.content }}"
        "{% else %}BOT{{ '<think>' ~ m.thinking if m.thinking }}</think>{{ m.content or '' }}"
        + CALL
        + "{{ '<|call|>' if m.tool_calls else '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}BOT</think>{% endif %}"
    )
    call = {**called({"city": "Paris"}), "thinking": "T"}
    row = {"prompt": [user("a"), call, user("b")], "completion": [said("two")]}
    refused = Encoder(tokenizer, 99).encode(record_of(row, Stream("r.jsonl"), "r.jsonl:1"))
    assert isinstance(refused, Refusal) or [t for _, t in scored(refused, tokenizer)] == [
        "two<|im_end|>"
    ]


def test_another_turn_in_what_would_be_scored_is_seen() -> None:
    known = dialect(with_markers(bytes_tokenizer(), FAMILIES["ChatML"]))
    assert known.others == ("<|im_start|>user", "<|im_start|>system")
    assert known.own == "<|im_start|>assistant"
    both = "x<|im_end|>\n<|im_start|>assistant\ny<|im_end|>"
    assert _other_turn(said("x"), "x<|im_end|>", known) == ""
    assert _other_turn(said("x"), both, known) == ""  # what some templates write between two parts
    assert _other_turn(said("x"), "x<|im_end|>\n<|im_start|>user\ny", known) == "<|im_start|>user"
    assert _other_turn(said("x"), "x<|im_end|>\n<|im_start|>assistant\n", known) == known.own
    assert _other_turn(said("say <|im_start|>user"), "say <|im_start|>user<|im_end|>", known) == ""
    assert _other_turn(said("x"), "x<|im_start|>user", Dialect()) == ""


def looking_ahead() -> Any:
    """A tokenizer with one token for two line feeds, whose pattern leaves the last to what follows."""
    given = json.loads(make_tokenizer().backend_tokenizer.to_str())
    feed = "\u010a"
    given["model"]["vocab"][2 * feed] = len(given["model"]["vocab"])
    given["model"]["merges"].append([feed, feed])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(given)), bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("real", [False, True])
def test_prompts_have_the_tokens_that_a_model_is_asked_with(real: bool) -> None:
    folder = Path(os.environ.get("ONESTAGE_SMOLLM2", "not there"))
    if real and not (folder / "tokenizer.json").is_file():
        pytest.skip("no real model")
    tokenizer = AutoTokenizer.from_pretrained(folder) if real else looking_ahead()
    prompt = "Question: two?\n\n"
    assert len(tokenizer(f"{prompt}Four").input_ids) != len(tokenizer(prompt).input_ids) + len(
        tokenizer("Four", add_special_tokens=False).input_ids
    )
    pair = Record("pair", prompt, ("Four", " five"), source="s", id="x")
    encoded = Encoder(tokenizer, 99).encode(pair)
    assert isinstance(encoded, Encoded)
    asked = prompt_ids(tokenizer, prompt).tolist()
    for path in encoded.paths:
        assert path.ids[: path.spans[0][0]].tolist() == asked


@pytest.mark.parametrize(("closes", "told"), [("<|im_end|>", True), ("<|call|>", False)])
def test_an_end_that_closes_thoughts_too_is_told(closes: str, told: bool) -> None:
    """gpt-oss as Unsloth has it, and Solar Open: generation stops there before it has replied."""
    tokenizer = chatml(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.thinking %}{{ m.thinking }}" + closes + "<|im_start|>assistant\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoded = encode(tokenizer, [user("Hi"), said("Yes")])
    assert isinstance(encoded, Encoded)
    notes = [note for note in encoded.notes if "ends what is thought before" in note]
    assert [note.split("ends a reply on ")[1].split(",")[0] for note in notes] == (
        ["<|im_end|>"] if told else []
    )


def test_a_thought_behind_an_empty_one_is_refused_with_both() -> None:
    """Qwen3 with enable_thinking: false, and a response that thinks all the same."""
    tokenizer = chatml(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m.content.replace('<think>\n', '') }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n{% endif %}"
    )
    refused = encode(tokenizer, [user("Hi"), said("<think>\nHm.\n</think>\n\nYes")])
    assert isinstance(refused, Refusal)
    assert "behind '>assistant\\n<think>\\n\\n</think>\\n\\n' it renders 'Hm." in refused.reason
