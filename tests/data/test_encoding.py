"""From records to token ids: spans, special tokens, templates, lengths (law 5)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import CHAT, make_tokenizer

from onestage.data.encoded import Encoded
from onestage.data.reading import read
from onestage.data.record import Record, Refusal
from onestage.data.tokenize import Encoder

BOS, EOS = 0, 1


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(make_tokenizer(), 200)


def demo(prompt: str, completion: str) -> Record:
    return Record("demonstration", prompt, (completion,), source="s", id="x:1")


def chat(*turns: tuple[str, str], kind: Any = "demonstration") -> Record:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return Record(kind, (), (messages,), source="s", id="x:1")


def encoded(encoder: Encoder, record: Record) -> Encoded:
    out = encoder.encode(record)
    assert isinstance(out, Encoded), out
    return out


def spans_of(encoder: Encoder, record: Record) -> list[str]:
    out = encoded(encoder, record)
    return [
        encoder.tokenizer.decode(path.ids[start:end])
        for path in out.paths
        for start, end in path.spans
    ]


def test_plain_strings_are_encoded_as_trl_does(encoder: Encoder) -> None:
    """BOS and prompt from the tokenizer, then the response, then EOS; all as one text."""
    out = encoded(encoder, demo("Question: what? Answer:", " Paris."))
    whole = encoder.tokenizer("Question: what? Answer: Paris.</s>").input_ids
    assert out.paths[0].ids.tolist() == whole
    prompt = encoder.tokenizer("Question: what? Answer:").input_ids
    assert out.paths[0].spans == ((len(prompt), len(whole)),)


words = st.text(alphabet="abc XYZ.,\n\té\u4e2d🙂", min_size=1, max_size=20).filter(str.strip)


@given(words, words)
@settings(max_examples=150, deadline=None)
def test_plain_text_comes_back_with_one_bos_and_one_eos(prompt: str, completion: str) -> None:
    encoder = ENCODER
    out = encoded(encoder, demo(prompt, completion))
    (path,) = out.paths
    ((start, end),) = path.spans
    assert end == len(path.ids)
    assert (path.ids == BOS).sum() == 1
    assert path.ids[0] == BOS
    assert (path.ids == EOS).sum() == 1
    assert path.ids[-1] == EOS
    decoded = encoder.tokenizer.decode(path.ids[1:-1], clean_up_tokenization_spaces=False)
    assert decoded == prompt + completion
    response = encoder.tokenizer.decode(path.ids[start:end], clean_up_tokenization_spaces=False)
    assert (completion + "</s>").endswith(response) or response.endswith(completion + "</s>")


ENCODER = Encoder(make_tokenizer(), 400)


def test_an_eos_that_is_there_is_not_doubled(encoder: Encoder) -> None:
    out = encoded(encoder, demo("say", " yes</s>"))
    assert (out.paths[0].ids == EOS).sum() == 1


def test_a_tokenizer_that_adds_eos_itself_does_not_double_it() -> None:
    from tokenizers import processors

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    out = encoded(Encoder(tokenizer, 100), demo("say", " yes"))
    assert (out.paths[0].ids == EOS).sum() == 1
    assert out.paths[0].spans[0][1] == len(out.paths[0].ids)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_every_assistant_turn_is_a_span_and_nothing_else(turns: list[tuple[str, str]]) -> None:
    record = chat(*[t for user, said in turns for t in (("user", user), ("assistant", said))])
    out = encoded(ENCODER, record)
    (path,) = out.paths
    assert (path.ids == BOS).sum() == 1
    assert len(path.spans) == len(turns) == len(out.scores)
    for (start, end), (_, said) in zip(path.spans, turns, strict=True):
        text = ENCODER.tokenizer.decode(path.ids[start:end], clean_up_tokenization_spaces=False)
        assert text == said + "</s>"


def test_chat_prompt_and_completion(encoder: Encoder) -> None:
    prompt = ({"role": "user", "content": "hello"},)
    record = Record(
        "pair",
        prompt,
        (
            ({"role": "assistant", "content": "good morning"},),
            ({"role": "assistant", "content": "no"},),
        ),
        source="s",
        id="x",
    )
    assert spans_of(encoder, record) == ["good morning</s>", "no</s>"]
    out = encoded(encoder, record)
    assert [path.responses for path in out.paths] == [(0,), (1,)]
    assert len(out.scores) == 2


def test_turns_in_the_prompt_are_context(encoder: Encoder) -> None:
    prompt = tuple(
        {"role": role, "content": text}
        for role, text in [("user", "a"), ("assistant", "b"), ("user", "c")]
    )
    record = Record("demonstration", prompt, (({"role": "assistant", "content": "d"},),), id="x")
    assert spans_of(encoder, record) == ["d</s>"]


def test_several_turns_of_a_scored_completion_are_one_response(encoder: Encoder) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = tuple({"role": role, "content": text} for role, text in turns)
    record = Record("score", messages[:1], (messages[1:],), (0.5,), id="x")
    out = encoded(encoder, record)
    assert out.paths[0].responses == (0, 0)
    assert len(out.paths[0].spans) == 2
    assert out.scores == (0.5,)


def test_white_space_behind_the_end_of_a_turn_is_not_scored(encoder: Encoder) -> None:
    out = encoded(encoder, chat(("user", "hi"), ("assistant", "yes")))
    ids = out.paths[0].ids
    assert encoder.tokenizer.decode(ids).endswith("</s>\n")
    assert ids[out.paths[0].spans[0][1] - 1] == EOS


DROPS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)
UPPER = CHAT.replace("{{ message['content'] }}", "{{ message['content'] | upper }}")
RAISES = "{{ raise_exception('only user and assistant') }}"
REWRITES_EARLIER = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if loop.last and m['role'] == 'assistant' %}<think></think>{% endif %}"
    "{{ m['content'] }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [(DROPS, "drops"), (UPPER, "drops or rewrites"), (RAISES, "refuses roles")],
)
def test_an_unfaithful_template_is_refused(template: str, message: str) -> None:
    out = Encoder(make_tokenizer(chat=template), 200).encode(
        chat(("user", "hi"), ("assistant", "yes"))
    )
    assert isinstance(out, Refusal)
    assert message in out.reason


def test_a_template_that_renders_earlier_turns_differently() -> None:
    encoder = Encoder(make_tokenizer(chat=REWRITES_EARLIER), 200)
    record = chat(("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two"))
    # Each turn is trained as the model will say it: the last one, whatever follows in the row.
    assert spans_of(encoder, record) == ["<think></think>one</s>", "<think></think>two</s>"]
    assert len(encoded(encoder, record).paths) == 2


def test_messages_without_a_template_are_refused() -> None:
    out = Encoder(make_tokenizer(chat=None), 200).encode(chat(("user", "hi"), ("assistant", "yes")))
    assert isinstance(out, Refusal)
    assert "no chat template" in out.reason


def test_overlong_is_refused_or_loses_prompt_only() -> None:
    tokenizer = make_tokenizer()
    record = demo("one two three four five six seven eight nine ten", " hello there")
    whole = encoded(Encoder(tokenizer, 200), record).paths[0]
    limit = len(whole.ids) - 4
    refused = Encoder(tokenizer, limit).encode(record)
    assert isinstance(refused, Refusal)
    assert refused.overlong
    cut = encoded(Encoder(tokenizer, limit, "truncate_prompt"), record)
    path = cut.paths[0]
    assert cut.cut == 4
    assert len(path.ids) == limit
    assert path.ids[0] == BOS
    assert path.ids[1:].tolist() == whole.ids[5:].tolist()
    start, end = path.spans[0]
    assert path.ids[start:end].tolist() == whole.ids[whole.spans[0][0] :].tolist()
    never = Encoder(tokenizer, 3, "truncate_prompt").encode(record)
    assert isinstance(never, Refusal)
    assert "too short to make room" in never.reason


def test_both_sides_of_a_pair_lose_the_same_prompt() -> None:
    prompt = "one two three four five six seven eight nine ten"
    record = Record("pair", prompt, (" hello there my friend", " no"), source="s", id="x")
    tokenizer = make_tokenizer()
    longest = max(len(p.ids) for p in encoded(Encoder(tokenizer, 200), record).paths)
    chosen, rejected = encoded(Encoder(tokenizer, longest - 3, "truncate_prompt"), record).paths
    start = chosen.spans[0][0]
    assert chosen.ids[:start].tolist() == rejected.ids[:start].tolist()


@pytest.mark.parametrize("worked", [False, True])
@pytest.mark.parametrize("messages", [False, True])
def test_a_long_problem_loses_prompt_only(worked: bool, messages: bool) -> None:
    tokenizer = make_tokenizer()
    solution = (" hello there.", " good morning.") if worked else ()
    prompt = "one two three four five six seven eight nine ten"
    record = Record("check", prompt, (), id="x", solution=solution, facts={"answer": "1"})
    record = record.as_messages() if messages else record
    whole, room = encoded(Encoder(tokenizer, 200), record), 9
    hinted = whole.paths[-1].spans[-1][0] if worked else len(whole.paths[0].ids)
    limit = hinted + room - 5
    out = Encoder(tokenizer, limit, room=room).encode(record)
    assert isinstance(out, Refusal)
    assert out.overlong
    cut = encoded(Encoder(tokenizer, limit, "truncate_prompt", room), record)
    assert cut.cut == 5
    for left, right in zip(cut.paths, whole.paths, strict=True):
        assert left.ids.tolist() == [BOS, *right.ids[6:].tolist()]
        assert left.spans == tuple((a - 5, b - 5) for a, b in right.spans)
        assert left.responses == right.responses
    assert cut.about == whole.about  # a reward is told all of it
    never = Encoder(tokenizer, room, "truncate_prompt", room).encode(record)
    assert isinstance(never, Refusal)
    assert never.overlong


def test_text_is_scored_from_its_second_token_on() -> None:
    out = encoded(ENCODER, Record("text", "", ("Roses are red.",), id="x"))
    path = out.paths[0]
    assert path.spans == ((1, len(path.ids)),)
    assert path.ids[-1] == EOS


def test_long_text_becomes_windows_that_score_every_token_once() -> None:
    tokenizer = make_tokenizer()
    text = "one two three four five six seven eight nine ten " * 6
    whole = tokenizer(text + "</s>").input_ids
    pieces = list(Encoder(tokenizer, 20).encode_all([Record("text", "", (text,), id="x")]))
    assert len(pieces) > 2
    scored: list[int] = []
    for piece in pieces:
        assert isinstance(piece, Encoded)
        (path,) = piece.paths
        assert len(path.ids) <= 20
        assert path.ids[0] == BOS
        scored += path.ids[slice(*path.spans[0])].tolist()
    assert scored == whole[1:]
    assert [piece.id for piece in pieces[:2]] == ["x#0", "x#1"]


def test_refusals_pass_through_in_order(encoder: Encoder) -> None:
    items = [demo("a", " b"), Refusal("f:2", "bad"), demo("c", " d")]
    kinds = [type(item) for item in encoder.encode_all(items)]
    assert kinds == [Encoded, Refusal, Encoded]


def test_a_tokenizer_without_eos_or_offsets_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS"):
        Encoder(tokenizer, 10)

    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="fast tokenizer"):
        Encoder(Slow(), 10)


def test_the_same_ids_whatever_the_kind(encoder: Encoder) -> None:
    """A response has the same tokens as demonstration, label, score, or side of a pair."""
    ids = {
        kind: encoded(encoder, Record(kind, "say", (" yes",), scores, id="x")).paths[0].ids.tolist()
        for kind, scores in [("demonstration", ()), ("label", (1.0,)), ("score", (0.3,))]
    }
    pair = encoded(encoder, Record("pair", "say", (" yes", " no"), id="x"))
    ids["pair"] = pair.paths[0].ids.tolist()
    assert len({tuple(value) for value in ids.values()}) == 1
    assert np.isnan(pair.scores).all()


def test_half_a_character_in_what_a_template_is_given_refuses_the_row(tokenizer: Any) -> None:
    chat = copy.deepcopy(tokenizer)
    chat.chat_template = "{{ tools[0]['name'] }}" + tokenizer.chat_template
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": turns, "tools": [{"name": name}]} for name in ("\ud800", "good")]
    found = list(Encoder(chat, 64).encode_all(read(rows)))
    assert [type(one).__name__ for one in found] == ["Refusal", "Encoded"]
    assert "valid Unicode" in found[0].reason


def counting(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Renderings from now on: whether each was to end with a generation prompt."""
    rendered: list[bool] = []
    apply = tokenizer.apply_chat_template

    def counted(*given: Any, **more: Any) -> Any:
        rendered.append(more["add_generation_prompt"])
        return apply(*given, **more)

    monkeypatch.setattr(tokenizer, "apply_chat_template", counted)
    return rendered


def test_a_prompt_is_rendered_once_however_many_answers_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its prompt, and the conversation with each of three answers; the same as one record for each."""
    tokenizer = make_tokenizer()
    encoder = Encoder(tokenizer, 200)
    prompt = ({"role": "user", "content": "what is it?"},)
    answers = [({"role": "assistant", "content": text},) for text in ("a house", "no", "yes")]
    alone = [
        encoded(encoder, Record("score", prompt, (answer,), (0.5,), source="s", id="x"))
        for answer in answers
    ]
    rendered = counting(tokenizer, monkeypatch)
    together = encoded(encoder, Record("group", prompt, tuple(answers), (1.0, 0.0, 0.5), id="x"))
    assert sorted(rendered) == [False, False, False, True]
    for one, path in zip(alone, together.paths, strict=True):
        assert one.paths[0].ids.tolist() == path.ids.tolist()
        assert one.paths[0].spans == path.spans


def test_answers_that_are_equal_and_not_alike_are_rendered_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1, 1.0 and true are equal in Python, and other calls of a tool: one taken for another would be
    found out, and asked for again in another spelling."""
    tokenizer = make_tokenizer(
        chat="{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{{ m.tool_calls | tojson if m.tool_calls else '' }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    texts = []
    for value in (1, 1.0, True):
        call = {"function": {"name": "f", "arguments": {"x": value}}}
        texts.append(({"role": "assistant", "content": "", "tool_calls": [call]},))
    prompt = ({"role": "user", "content": "go"},)
    record = Record("group", prompt, tuple(texts), (1.0, 0.0, 0.5), source="s", id="x")
    encoder = Encoder(tokenizer, 200)
    encoder.encode(record)  # the template is looked at once
    rendered = counting(tokenizer, monkeypatch)
    paths = encoded(encoder, record).paths
    said = [tokenizer.decode(path.ids[slice(*path.spans[0])]) for path in paths]
    assert ['"x": 1}' in said[0], '"x": 1.0}' in said[1], '"x": true}' in said[2]] == [True] * 3
    assert len(rendered) == 4


def test_a_pair_that_a_template_renders_alike_is_a_tie(encoder: Encoder) -> None:
    """What a message says beside its text (a name, say) may be in no token."""
    said = [({"role": "assistant", "content": "yes", **more},) for more in ({}, {"name": "b"})]
    asked = ({"role": "user", "content": "what?"},)
    out = encoder.encode(Record("pair", asked, tuple(said), source="s", id="x"))
    assert isinstance(out, Refusal)
    assert out.tie
    assert out.reason == "`chosen` and `rejected` are the same tokens"
    both = (said[0], ({"role": "assistant", "content": "no"},))
    encoded(encoder, Record("pair", asked, both, source="s", id="x"))


def test_special_tokens_are_noted_in_texts_and_worked_answers(encoder: Encoder) -> None:
    text = Record("text", "", ("so </s> be it",), source="s", id="x")
    notes = [one.notes for one in encoder.encode_all([text]) if isinstance(one, Encoded)]
    assert notes == [("a prompt or text holds the special token '</s>' as text",)]
    worked = Record("check", "how many", (), solution=("so </s> be it.",), facts={"answer": "1"})
    noted = encoded(encoder, worked).notes
    assert "a response holds the special token '</s>' as text" in noted


def test_a_worked_answer_is_one_turn(encoder: Encoder) -> None:
    turns = [("assistant", "hello"), ("user", "and?"), ("assistant", "there")]
    answer = tuple({"role": role, "content": text} for role, text in turns)
    asked = ({"role": "user", "content": "what?"},)
    out = encoder.encode(Record("check", asked, (answer,), facts={"answer": "1"}, id="x"))
    assert isinstance(out, Refusal)
    assert "a worked answer is one turn of the assistant" in out.reason
