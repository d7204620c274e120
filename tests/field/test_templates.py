"""What is scored, of every template that TRL ships and of our own after public formats (law 5)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support.tiny import make_tokenizer

import onestage as one
from bench.trust.conversations import SHAPES, called, encode, outcome, said, scored, user
from bench.trust.families import CHATML, FAMILIES, trl_templates, with_markers
from bench.trust.templates import bytes_tokenizer, tokenizer_for
from onestage.data._row_error import RowError
from onestage.data.encoded import Encoded
from onestage.data.messages import messages_of
from onestage.data.record import Record, Refusal
from onestage.data.rows import record_of
from onestage.data.spoken import in_parts
from onestage.data.stream import Stream
from onestage.data.template import NO_END, NO_TOKEN, dialect, render_prompt
from onestage.data.tokenize import Encoder

TRL = trl_templates()


@pytest.mark.parametrize("name", TRL)
def test_trl_templates_score_the_assistant_or_say_why_not(name: str) -> None:
    tokenizer = tokenizer_for(TRL[name])
    found = {shape: outcome(tokenizer, SHAPES[shape]) for shape in SHAPES}
    assert not {shape: text for shape, text in found.items() if text.startswith("WRONG")}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_score_the_assistant_up_to_and_with_the_end_marker(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = with_markers(make_tokenizer(), family)
    found = {shape: outcome(tokenizer, SHAPES[shape]) for shape in SHAPES}
    assert not {shape: text for shape, text in found.items() if text.startswith("WRONG")}
    both = SHAPES["short answer that stands in the question"]
    for text, (reply,) in zip(spans(tokenizer, *both.messages), both.turns, strict=True):
        # The template may write something of its own before a reply, never behind its end marker.
        assert re.fullmatch(rf"(<.*>|\s)*{re.escape(reply)}\s?{re.escape(family.end)}", text, re.S)


MARKED = [name for name, text in TRL.items() if "generation %}" in text]


@pytest.mark.parametrize("name", MARKED)
def test_ends_agree_with_trls_own_marks(name: str) -> None:
    """TRL marks what it trains on in its training templates. Some marks begin earlier, with what the
    generation prompt holds; from the reply on, to the end of the turn, they must be ours."""
    tokenizer = tokenizer_for(TRL[name])
    shape = SHAPES["short answer that stands in the question"]
    reply = shape.turns[-1][0]
    content: Any = dialect(tokenizer).content
    turns = in_parts(shape.messages) if content == "parts" else list(shape.messages)
    marked = tokenizer.apply_chat_template(
        turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    theirs = tokenizer.decode(
        [i for i, mask in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if mask]
    )
    ours = spans(tokenizer, *shape.messages)[-1]
    assert ours.partition(reply)[2].strip() == theirs.partition(reply)[2].split("\n")[0].strip()


def spans(tokenizer: Any, *messages: dict[str, Any]) -> list[str]:
    encoded = encode(tokenizer, messages)
    assert isinstance(encoded, Encoded), encoded
    return [text for _, text in scored(encoded, tokenizer)]


def reason(tokenizer: Any, *messages: dict[str, Any]) -> str:
    refused = encode(tokenizer, messages)
    assert isinstance(refused, Refusal)
    return refused.reason


def notes(tokenizer: Any, *messages: dict[str, Any]) -> tuple[str, ...]:
    encoded = encode(tokenizer, messages)
    assert isinstance(encoded, Encoded)
    return encoded.notes


@pytest.fixture(scope="module")
def chatml() -> Any:
    return with_markers(
        bytes_tokenizer(), FAMILIES["ChatML on a base model (EOS is another token)"]
    )


def test_each_turn_stands_in_the_context_in_which_it_will_be_said() -> None:
    """History without thinking, the present with it: two paths, whose prompts agree."""
    name, shape = "thinking dropped from history, thinking prompt", SHAPES["reasoning, two turns"]
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES[name])
    encoded = encode(tokenizer, shape.messages)
    assert isinstance(encoded, Encoded)
    (first, _), (second, _) = scored(encoded, tokenizer)
    assert second == tokenizer.apply_chat_template(
        list(shape.messages[:3]), tokenize=False, add_generation_prompt=True
    )
    assert "ADD1" not in second
    assert first.endswith("<think>\n")
    assert [path.responses for path in encoded.paths] == [(0,), (1,)]


def test_a_reply_behind_the_prompt_where_history_changes_with_it() -> None:
    name = "history rendered otherwise once a reply follows"
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES[name])
    encoded = encode(tokenizer, (user("Hi"), said("Yes")))
    assert isinstance(encoded, Encoded)
    assert scored(encoded, tokenizer) == [("<|user|>Hi</s><|assistant|>", "Yes</s>")]


def test_weights_of_turns(chatml: Any) -> None:
    turns = [user("a"), said("one", weight=0.5), user("b"), said("two"), user("c"), said("no")]
    turns[-1]["loss"] = False
    encoded = encode(chatml, turns)
    assert isinstance(encoded, Encoded)
    assert encoded.weights == (0.5, 1.0)
    assert spans(chatml, *turns) == ["one<|im_end|>", "two<|im_end|>"]
    assert "every assistant turn" in reason(chatml, user("a"), said("b", train=False))


@pytest.mark.parametrize(
    ("turn", "sentence"),
    [
        (said("b", weight=-1), "weight of at least 0, found int -1"),
        (said("b", train="yes"), "must be true, false or a weight"),
        (said("b", weight=1, train=False), "do not agree"),
        ({**user("c"), "train": True}, "only assistant messages are"),
        (said("b", function_call={"name": "f"}), "give it as `tool_calls`"),
    ],
)
def test_wishes_that_cannot_be_honoured_are_refused(turn: Any, sentence: str) -> None:
    with pytest.raises(RowError, match=re.escape(sentence)):
        messages_of([user("a"), turn], "messages")


def test_a_weight_inside_a_pair_is_all_or_nothing(chatml: Any) -> None:
    turns = (said("one", weight=0), user("b"), said("two"))
    pair = Record("pair", (user("a"),), (turns, (said("three"),)), source="s", id="x")
    encoded = Encoder(chatml, 999).encode(pair)
    assert isinstance(encoded, Encoded)
    assert [text for _, text in scored(encoded, chatml)] == ["two<|im_end|>", "three<|im_end|>"]
    half = Record("pair", (user("a"),), ((said("x", weight=0.5),), (said("y"),)), id="x")
    refused = Encoder(chatml, 999).encode(half)
    assert isinstance(refused, Refusal)
    assert "a message may have weight 0 or 1" in refused.reason


def test_what_the_template_leaves_out_is_said_by_name(chatml: Any) -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    pirate = {"role": "system", "content": "Speak like a pirate."}
    (note,) = notes(tokenizer, pirate, user("Hi"), said("Arr"))
    assert note == "the chat template does not render the system message"
    row = Record(
        "demonstration",
        (user("Hi"),),
        ((said("Yes", mood="glad"),),),
        id="x",
        template={"tools": [{"function": {"name": "get_weather"}}], "enable_thinking": True},
    )
    encoded = Encoder(chatml, 999).encode(row)
    assert isinstance(encoded, Encoded)
    assert encoded.notes == (
        "the chat template does not render `mood` of a message",
        "the chat template has no use for chat_template_kwargs.enable_thinking",
        "the chat template does not render `tools`",
    )


def test_a_user_who_is_not_heard_is_refused() -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    assert "drops or rewrites what the user says, 'Hi'" in reason(
        tokenizer, user("Hi"), said("Yes")
    )


def test_a_template_without_an_end_marker_is_noted_and_one_of_plain_text_too() -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "")
    assert NO_END in notes(tokenizer, user("Hi"), said("Yes"))
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML, markers are plain text"])
    assert NO_TOKEN in notes(tokenizer, user("Hi"), said("Yes"))
    assert spans(tokenizer, user("Hi"), said("Yes")) == ["Yes<|im_end|>"]


def test_a_template_that_asks_without_a_prompt_is_noted() -> None:
    (known,) = (one for one in FAMILIES if "without a generation prompt" in one)
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES[known])
    (note,) = notes(tokenizer, user("Hi"), said("Yes"))
    assert r"renders every reply behind '<|im_start|>assistant\n'" in note
    assert render_prompt((user("Hi"),), tokenizer).notes == (note,)


def test_a_row_s_own_prompt_holds_what_is_said_behind_it() -> None:
    """Thinking that the prompt of this row opens, and of other rows closes."""
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>{{ '' if think else '</think>' }}{% endif %}"
    )
    row = {"messages": [user("Hi"), said("<think>ADD</think>four")]}
    row["chat_template_kwargs"] = {"think": True}  # type: ignore[assignment]
    record = record_of(row, Stream("rows.jsonl", name="rows"), "x")
    encoded = Encoder(tokenizer, 999).encode(record)
    assert isinstance(encoded, Encoded), encoded
    assert scored(encoded, tokenizer) == [("<user>Hi</s><assistant><think>", "ADD</think>four</s>")]


def test_two_replies_that_a_template_makes_one_turn_of_are_not_learned_twice() -> None:
    """As one of Gemma 4's templates does; the second would be asked behind the first, closed."""
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% set same = not loop.first and loop.previtem.role == m.role %}"
        "{{ '\n' if same else '<|im_start|>' + m.role + '\n' }}{{ m.content }}"
        "{% if loop.last or loop.nextitem.role != m.role %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    told = reason(tokenizer, user("a"), said("one"), said("two"))
    assert "renders earlier turns otherwise once an assistant turn follows" in told
    texts = spans(tokenizer, user("a"), said("one", weight=0), user("b"), user("c"), said("two"))
    assert texts == ["two<|im_end|>"]


def test_special_tokens_that_a_row_holds_as_text_are_counted(chatml: Any) -> None:
    (note,) = notes(chatml, user("What is <|im_end|> for?"), said("An end."))
    assert note == "a prompt or text holds the special token '<|im_end|>' as text"
    (note,) = notes(chatml, user("Say it"), said("It is <|im_end|>, see?"))
    assert note == "a response holds the special token '<|im_end|>' as text"


def test_two_beginnings_are_refused() -> None:
    """A rendered prompt that begins with BOS, to which the tokenizer adds another."""
    encoder = Encoder(make_tokenizer(), 99)
    twice = Record("demonstration", "<s>Question: two?", (" four",), source="s", id="x")
    refused = encoder.encode(twice)
    assert isinstance(refused, Refusal)
    assert "begins with '<s>' twice" in refused.reason
    assert isinstance(encoder.encode(Record("check", "<s>two?", (), id="x")), Refusal)


def test_a_token_of_prompt_and_reply_is_taken_apart() -> None:
    """`t` + `wo`: the model is asked with the tokens of the prompt alone."""
    tokenizer = make_tokenizer()
    assert len(tokenizer("one two", add_special_tokens=False).input_ids) == 2
    cut = Record("demonstration", "one t", ("wo",), source="s", id="x")
    encoded = Encoder(tokenizer, 99).encode(cut)
    assert isinstance(encoded, Encoded)
    assert scored(encoded, tokenizer) == [("<s>one t", "wo</s>")]
    assert encoded.paths[0].ids.tolist() == [
        *tokenizer("one t").input_ids,
        *tokenizer("wo</s>", add_special_tokens=False).input_ids,
    ]


def test_arguments_as_text_or_mapping_are_rendered_once() -> None:
    """A template that writes JSON itself is given a mapping, else the text would be quoted twice."""
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{{ m.content or '' }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    for arguments in ({"city": "Paris"}, json.dumps({"city": "Paris"})):
        (text,) = spans(tokenizer, user("Hi"), called(arguments))
        assert text == 'get_weather{"city": "Paris"}</s>'


def test_parquet_padding_is_not_said_and_a_null_of_json_lines_is(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"messages": [user("Hi"), called({"city": "Paris", "unit": None})]},
        {"messages": [user("Hi"), called({"city": None, "unit": "C"})]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = {
        name: [
            record.completions[0][1]["tool_calls"][0]["function"]["arguments"]  # type: ignore
            for record in one.read(str(tmp_path / name))
        ]
        for name in ("rows.parquet", "rows.jsonl")
    }
    assert held["rows.parquet"] == [{"city": "Paris"}, {"unit": "C"}]
    assert held["rows.jsonl"][0] == {"city": "Paris", "unit": None}


def test_the_end_markers_of_replies_and_calls_are_known(chatml: Any) -> None:
    assert [chatml.decode([end]) for end in dialect(chatml).ends] == ["<|im_end|>"]
    if "gptoss" in TRL:
        tokenizer = tokenizer_for(TRL["gptoss"])
        ends = [tokenizer.decode([end]) for end in dialect(tokenizer).ends]
        assert ends == ["<|return|>", "<|call|>"]


def family(name: str) -> Any:
    (full,) = (known for known in FAMILIES if name in known)
    return with_markers(bytes_tokenizer(), FAMILIES[full])


def test_an_opening_that_is_always_written_ends_no_reply() -> None:
    tokenizer = family("R7B")
    assert [tokenizer.decode([end]) for end in dialect(tokenizer).ends] == ["<|STOP|>"]
    texts = spans(tokenizer, user("a"), said("one"), user("b"), said("two"))
    assert texts == ["one<|/SAY|><|STOP|>", "two<|/SAY|><|STOP|>"]


def test_the_end_of_a_text_is_no_part_of_the_turn_that_ends_in_front_of_it() -> None:
    tokenizer = family("Phi 4")
    assert [tokenizer.decode([end]) for end in dialect(tokenizer).ends] == ["<|end|>"]
    texts = spans(tokenizer, user("a"), said("one"), user("b"), said("two"))
    assert texts == ["one<|end|>", "two<|end|>"]


def test_a_prompt_in_words_that_is_always_written_ends_no_reply() -> None:
    """As DeepSeek Coder's templates are passed on."""
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.chat_template = (
        "{% for m in messages %}### {{ 'Response' if m.role == 'assistant' else 'Instruction' }}:\n"
        "{{ m.content }}{{ '<|im_end|>' if m.role == 'assistant' }}\n{% endfor %}{{ '### Response:\n' }}"
    )
    texts = spans(tokenizer, user("a"), said("one"), user("b"), said("two"))
    assert texts == ["one<|im_end|>", "two<|im_end|>"]


def test_a_turn_ends_where_its_message_does_and_not_its_channel() -> None:
    tokenizer = family("K3")
    assert [tokenizer.decode([end]) for end in dialect(tokenizer).ends] == ["<|end_of_msg|>"]


def test_system_text_that_only_the_last_question_holds_stands_in_front_of_each_reply() -> None:
    tokenizer = family("v0.3")
    talk = (user("a"), said("one"), user("b"), said("two"))
    encoded = encode(tokenizer, [{"role": "system", "content": "SYS"}, *talk])
    assert isinstance(encoded, Encoded)
    assert scored(encoded, tokenizer) == [
        ("<s>[INST] SYS\n\na[/INST]", " one</s>"),
        ("<s>[INST] a[/INST] one</s>[INST] SYS\n\nb[/INST]", " two</s>"),
    ]
    assert not encoded.notes


def test_another_prompt_than_is_asked_with_is_counted_and_none_of_its_marks_are_scored() -> None:
    tokenizer = family("GLM 4.7")
    assert spans(tokenizer, user("a"), said("one")) == ["one<|endoftext|>"]
    (note,) = notes(tokenizer, user("a"), said("one"))
    assert "with '<think>' in front of its reply" in note
    assert "with '</think>' there" in note
    thinking = (user("a"), said("one", reasoning_content="T"))
    assert spans(tokenizer, *thinking) == ["T</think>one<|endoftext|>"]
    assert not notes(tokenizer, *thinking)


def asking(asked: str, rendered: str) -> str:
    """ChatML that asks so, and renders so in front of a reply."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        + rendered
        + "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + asked + "{% endif %}"
    )


@pytest.mark.parametrize(
    ("asked", "rendered", "scored_too"),
    [
        ("<think>\n</think>", "", ""),
        ("<think></think>", "</think>", ""),
        ("<|channel>thought\n<channel|>", "", ""),
        ("<|START_THINKING|><|END_THINKING|>", "<|START_SAYING|>", "<|START_SAYING|>"),
    ],
)
def test_a_reply_stands_behind_the_empty_thinking_that_it_will_be_asked_with(
    asked: str, rendered: str, scored_too: str
) -> None:
    """QwQ, DeepSeek V3.2, Gemma 4 and Command R7B render replies without it."""
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.chat_template = asking(asked, rendered)
    encoded = encode(tokenizer, (user("a"), said("one"), user("b"), said("two")))
    assert isinstance(encoded, Encoded)
    (before, first), (_, second) = scored(encoded, tokenizer)
    assert before == f"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{asked}"
    assert (first, second) == (f"{scored_too}one<|im_end|>", f"{scored_too}two<|im_end|>")
    assert not encoded.notes


def test_a_reply_that_thinks_stands_behind_no_thinking_that_is_closed() -> None:
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.chat_template = asking("<think>\n</think>\n\n", "{{ m.reasoning_content }}")
    thinking = (user("a"), said("one", reasoning_content="<think>T</think>"))
    assert spans(tokenizer, *thinking) == ["<think>T</think>one<|im_end|>"]
    (note,) = notes(tokenizer, *thinking)
    assert "renders this reply with '' there" in note


@pytest.mark.parametrize("usual", ["", "<think>\n"])
def test_a_prompt_may_be_another_where_a_row_says_so(usual: str) -> None:
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    empty = "{% if thinking is false %}<think>\n\n</think>\n\n{% else %}" + usual + "{% endif %}"
    tokenizer.chat_template = asking(empty, "")
    row = {"messages": [user("a"), said("one")], "chat_template_kwargs": {"thinking": False}}
    encoded = Encoder(tokenizer, 99).encode(record_of(row, Stream("r.jsonl"), "r.jsonl:1"))
    assert isinstance(encoded, Encoded)
    ((before, text),) = scored(encoded, tokenizer)
    assert before.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert (text, encoded.notes) == ("one<|im_end|>", ())


def test_the_prompt_of_an_earlier_reply_is_not_taken_for_this_one() -> None:
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'NOW ' if loop.last }}{{ m.content }}"
        "{% else %}BOT{{ '<think>' ~ m.thinking if m.thinking }}</think>{{ m.content }}<|im_end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}BOT<think>{% endif %}"
    )
    prompt = [user("a"), said("one", thinking="T"), user("b")]
    row = {"prompt": prompt, "completion": [said("two")]}
    refused = Encoder(tokenizer, 99).encode(record_of(row, Stream("r.jsonl"), "r.jsonl:1"))
    assert isinstance(refused, Refusal)
    assert "its generation prompt is not in what it renders" in refused.reason


def test_what_a_template_says_at_the_end_of_each_conversation_is_no_part_of_a_reply() -> None:
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.chat_template = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endfor %}{% for m in messages if m.role == 'system' %}<|im_start|>system\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    talk = ({"role": "system", "content": "SYS"}, user("a"), said("one"))
    assert spans(tokenizer, *talk) == ["one<|im_end|>"]


def test_the_end_marker_of_a_template_that_asks_for_a_system_message_is_known() -> None:
    tokenizer = with_markers(
        bytes_tokenizer(), FAMILIES["ChatML on a base model (EOS is another token)"]
    )
    needed = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    tokenizer.chat_template = needed + tokenizer.chat_template
    assert [tokenizer.decode([end]) for end in dialect(tokenizer).ends] == ["<|im_end|>"]
    talk = ({"role": "system", "content": "SYS"}, user("a"), said("one"))
    assert (spans(tokenizer, *talk), notes(tokenizer, *talk)) == (["one<|im_end|>"], ())


def test_the_date_of_the_day_in_a_prompt_is_told() -> None:
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    dated = "{% if not day %}{% set day = strftime_now('%d %b %Y') %}{% endif %}Today: {{ day }}\n"
    tokenizer.chat_template = dated + tokenizer.chat_template
    (note,) = notes(tokenizer, user("a"), said("one"))
    assert note.startswith("the chat template writes the day's date, ")
    row = {"messages": [user("a"), said("one")], "chat_template_kwargs": {"day": "1 May 2025"}}
    encoded = Encoder(tokenizer, 99).encode(record_of(row, Stream("r.jsonl"), "r.jsonl:1"))
    assert isinstance(encoded, Encoded)
    assert not encoded.notes


def test_a_second_reply_in_a_row_begins_behind_the_header_that_its_template_writes() -> None:
    tokenizer = with_markers(bytes_tokenizer(), FAMILIES["ChatML"])
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "if add_generation_prompt", "if add_generation_prompt and messages[-1].role == 'user'"
    )
    assert spans(tokenizer, user("a"), said("one"), said("two")) == [
        "one<|im_end|>",
        "two<|im_end|>",
    ]


@pytest.mark.parametrize("variable", ["ONESTAGE_SMOLLM2", "ONESTAGE_GEMMA3"])
def test_real_tokenizers(variable: str) -> None:
    """SmolLM2 with its own template; Gemma 3, whose base model has none, with the family's."""
    from transformers import AutoTokenizer

    folder = Path(os.environ.get(variable, "not there"))
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("no real model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template or FAMILIES["Gemma"].template
    end = "<|im_end|>" if "SMOL" in variable else "<end_of_turn>"
    found = {shape: outcome(tokenizer, SHAPES[shape]) for shape in SHAPES}
    assert not {shape: text for shape, text in found.items() if text.startswith("WRONG")}
    both = SHAPES["short answer that stands in the question"].messages
    assert spans(tokenizer, *both) == [f"Yes{end}", f"Yes, the sky is blue.{end}"]
    assert tokenizer.convert_tokens_to_ids(end) in dialect(tokenizer).ends
