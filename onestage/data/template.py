"""Records to text, with the characters of each response marked.

Chat: rendered by the tokenizer's own template, each assistant turn behind the prompt that the model will
answer (`turns.py`). Plain strings: prompt, response, end token, in TRL's way. What a row says and the
template leaves out is noted by name. Nothing is tokenised here.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

from onestage.data.bounded import EndlessTemplateError, bounded, refuse_endless, require_short
from onestage.data.dialect import Apply, Dialect, TemplateError, dialect_of
from onestage.data.kinds import FEEDBACK
from onestage.data.messages import Message, Turns
from onestage.data.record import Record
from onestage.data.spoken import REASONING, holds, in_parts
from onestage.data.turns import Span, ends_marked, spoken

NOTHING: Mapping[str, Any] = MappingProxyType({})

A_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks something up.",
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string", "description": "what"}},
            "required": ["what"],
        },
    },
}
NO_TEMPLATE = (
    "the record is made of messages but the tokenizer has no chat template; "
    "set model.chat_template to a Jinja file, or give prompt and completion as strings"
)

NO_END = "the chat template writes no end marker behind a reply"
NO_PROMPT = (
    "the chat template has no generation prompt and renders every reply behind {header!r}: a model that "
    "is asked with it has to say that itself, and does not learn it; give a template with a prompt"
)
THINKS = (
    "the chat template ends a reply on {token}, with which it ends what is thought before, too: "
    "generation that stops there may have no reply yet; give a template whose last turn ends otherwise"
)
NO_TOKEN = "the end marker of a reply is no token of the tokenizer, so generation cannot stop at it"

LINKS = frozenset(("role", "content", "weight", "tool_calls", "tool_call_id", "id", *REASONING))
"""Keys of a message that are rendered or checked, or only tie messages together."""

DIALECTS: WeakKeyDictionary[Any, tuple[Any, Dialect]] = WeakKeyDictionary()
"""What templates write around a reply, found once for each tokenizer and template."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text to be tokenised, and the characters [start, end) of what matters in it."""

    text: str
    spans: tuple[Span, ...]
    """Of each response; of each sentence of a worked answer."""
    special: bool
    """Whether the tokenizer is to add its own special tokens (plain strings), or the template
    already holds them (chat)."""
    responses: tuple[int, ...] = ()
    """Which response of its record each span is of."""
    weights: tuple[float, ...] = ()
    """Of the record's responses, where turns have weights of their own; on its first text."""
    notes: tuple[str, ...] = ()
    """What a row says and the text does not, or what it says that is no text."""


def render(record: Record, tokenizer: Any) -> list[Rendered]:
    """The texts of a record: of each completion in its context, one or (where a template renders history
    otherwise than the present) several. Of a problem: its prompt, and the worked answer alone if it has
    one.

    Raises `TemplateError` where a response's place in what the template made of it cannot be proved.
    """
    layout = FEEDBACK[record.kind].layout
    if layout == "problem":
        prompt = render_prompt(record.prompt, tokenizer, record.template)
        worked = record.completions or record.solution
        return [prompt, _worked(record, tokenizer)] if worked else [prompt]
    if layout == "windows":
        text = _ended(str(record.completions[0]), tokenizer)
        notes = _special_inside(tokenizer, [text.removesuffix(tokenizer.eos_token or "")])
        return [Rendered(text, ((0, len(text)),), True, (0,), (), notes)]
    return _responses(record, record.completions, tokenizer)


def render_prompt(prompt: Turns, tokenizer: Any, template: Mapping[str, Any] = NOTHING) -> Rendered:
    """What a model is to continue: a text as it is, messages through the chat template with `template`
    as its extra arguments. Raises `TemplateError`."""
    if isinstance(prompt, str):
        return Rendered(prompt, (), True, notes=_special_inside(tokenizer, [prompt]))
    text = _applied(tokenizer, template)(prompt, True)
    return Rendered(text, (), False, notes=_unread(prompt, text, template, tokenizer))


def render_whole(text: Turns, tokenizer: Any, template: Mapping[str, Any] = NOTHING) -> Rendered:
    """A text or a conversation as it stands, to be read and not continued. Raises `TemplateError`."""
    if isinstance(text, str):
        return Rendered(text, (), True)
    return Rendered(_applied(tokenizer, template)(text, False), (), False)


def dialect(tokenizer: Any) -> Dialect:
    """What the tokenizer's chat template writes around a reply."""
    known = DIALECTS.get(tokenizer)
    if known is None or known[0] != tokenizer.chat_template:
        refuse_endless(_template_text(tokenizer))
        found = dialect_of(tokenizer, _as_given(tokenizer, NOTHING))
        if not (found.prompt or found.header or found.tail):  # some render nothing without a tool
            found = dialect_of(tokenizer, _as_given(tokenizer, {"tools": [A_TOOL]}))
        known = (tokenizer.chat_template, found)
        DIALECTS[tokenizer] = known
    return known[1]


def _responses(record: Record, completions: Sequence[Turns], tokenizer: Any) -> list[Rendered]:
    if all(isinstance(turns, str) for turns in completions):
        return [
            _plain(str(record.prompt), str(completion), number, tokenizer)
            for number, completion in enumerate(completions)
        ]
    apply = _once(_applied(tokenizer, record.template))
    return [
        text
        for number, completion in enumerate(completions)
        for text in _chat(record, completion, number, tokenizer, apply)
    ]


def _worked(record: Record, tokenizer: Any) -> Rendered:
    """A problem's worked answer with its end token: the completion, if it has one, else the solution.
    Its spans are the solution's sentences. Raises `TemplateError` where it does not begin with them."""
    solution = "".join(record.solution)
    answer: Turns = solution
    if record.completions:
        answer = record.completions[0]
        if sum(not isinstance(turn, str) and turn["role"] == "assistant" for turn in answer) > 1:
            raise TemplateError(
                "a worked answer is one turn of the assistant, and this has several"
            )
    elif not isinstance(record.prompt, str):
        answer = ({"role": "assistant", "content": solution},)
    rendered = _responses(record, [answer], tokenizer)[-1]
    text = rendered.text[slice(*rendered.spans[-1])]
    if not text.startswith(solution):
        raise TemplateError(f"the worked answer {text[:60]!r} does not begin with the solution")
    edges = [0, *accumulate(len(sentence) for sentence in record.solution)]
    return Rendered(text, tuple(pairwise(edges)), False, notes=rendered.notes)


def _ended(text: str, tokenizer: Any) -> str:
    end = tokenizer.eos_token or ""
    return text if end and text.endswith(end) else text + end


def _plain(prompt: str, completion: str, number: int, tokenizer: Any) -> Rendered:
    text = prompt + _ended(completion, tokenizer)
    said = completion.removesuffix(tokenizer.eos_token or "")
    notes = _special_inside(tokenizer, [prompt], [said])
    return Rendered(text, ((len(prompt), len(text)),), True, (number,), (), notes)


def _chat(
    record: Record, completion: Turns, number: int, tokenizer: Any, apply: Apply
) -> list[Rendered]:
    before: Sequence[Message] = () if isinstance(record.prompt, str) else record.prompt
    turns = [*before, *(turn for turn in completion if not isinstance(turn, str))]
    texts = spoken(turns, len(before), apply, dialect(tokenizer))
    counted = [turn for text in texts for turn in text.turns]
    if not counted:
        raise TemplateError("every assistant turn has weight 0 or train: false: nothing is scored")
    each = FEEDBACK[record.kind].layout == "turns"
    made = [
        Rendered(
            text.text,
            text.spans,
            False,
            tuple(counted.index(turn) if each else number for turn in text.turns),
        )
        for text in texts
    ]
    # What follows the last turn that counts is in no text, and matters to none.
    heard = turns[: counted[-1] + 1]
    notes = _unread(heard, made[-1].text, record.template, tokenizer)
    notes += tuple(dict.fromkeys(note for text in texts for note in text.elsewhere))
    known = dialect(tokenizer)
    if not all(ends_marked(text.text, span, known) for text in texts for span in text.spans):
        notes = (*notes, NO_END)
    elif not known.ends:
        notes = (*notes, NO_TOKEN)
    elif known.thinks:
        notes = (*notes, THINKS.format(token=known.thinks))
    made[0] = replace(made[0], weights=_weights(turns, counted, each), notes=notes)
    return made


def _weights(turns: Sequence[Message], counted: Sequence[int], each: bool) -> tuple[float, ...]:
    weights = tuple(float(turns[turn].get("weight", 1)) for turn in counted)
    if set(weights) == {1.0}:
        return ()
    if not each:
        raise TemplateError(
            f"a message has weight {next(w for w in weights if w != 1):g}, but all turns here are one "
            "response: a message may have weight 0 or 1, the response has the `weight` of its row"
        )
    return weights


def _applied(tokenizer: Any, extra: Mapping[str, Any]) -> Apply:
    """The tokenizer's chat template with the record's extra arguments, as it reads messages."""
    known = dialect(tokenizer)
    apply = known.closed(_as_given(tokenizer, extra))
    if known.content == "text":
        return apply
    return lambda turns, prompt: apply(in_parts(turns), prompt)


def _once(apply: Apply) -> Apply:
    """The same, for the texts of one record: its answers have one prompt, most of what is rendered."""
    known: list[tuple[list[Message], bool, str]] = []

    def applied(turns: Sequence[Message], prompt: bool) -> str:
        for before, prompted, text in known:
            # The very messages: 1 and true are equal, and rendered otherwise.
            same = len(before) == len(turns) and all(map(operator.is_, before, turns))
            if same and prompted == prompt:
                return text
        text = apply(turns, prompt)
        known.append((list(turns), prompt, text))
        return text

    return applied


def _as_given(tokenizer: Any, extra: Mapping[str, Any]) -> Apply:
    def apply(turns: Sequence[Message], prompt: bool) -> str:
        if not tokenizer.chat_template:
            raise TemplateError(NO_TEMPLATE)
        # How much a turn counts is our business; a template would be shown a key it does not know.
        plain = [{key: held for key, held in turn.items() if key != "weight"} for turn in turns]
        try:
            with bounded():
                text: str = tokenizer.apply_chat_template(
                    plain, tokenize=False, add_generation_prompt=prompt, **extra
                )
            return require_short(text)
        except EndlessTemplateError:
            raise  # of every row
        except Exception as error:  # Jinja's own errors and whatever a template raises
            roles = [turn["role"] for turn in turns]
            raise TemplateError(f"the chat template refuses roles {roles}: {error}") from error

    return apply


def _unread(
    turns: Sequence[Message], text: str, template: Mapping[str, Any], tokenizer: Any
) -> tuple[str, ...]:
    """What the row says and the template does not render, by name. Raises `TemplateError` where that is
    what a user or a tool said: without it the reply answers something else."""
    notes: dict[str, None] = {}
    for turn in turns:
        role, content = turn["role"], turn.get("content")
        if role != "assistant" and content and not holds(text, content):
            if role not in ("system", "developer"):
                raise TemplateError(
                    f"the chat template drops or rewrites what the {role} says, {content[:60]!r}"
                )
            notes[f"the chat template does not render the {role} message"] = None
        for key in turn.keys() - LINKS:
            if turn[key] and not holds(text, str(turn[key])):
                notes[f"the chat template does not render `{key}` of a message"] = None
    for name in template:
        if name != "tools" and name not in _template_text(tokenizer):
            notes[f"the chat template has no use for chat_template_kwargs.{name}"] = None
    if any(not holds(text, name) for name in _tool_names(template)):
        notes["the chat template does not render `tools`"] = None
    if header := dialect(tokenizer).header:
        notes[NO_PROMPT.format(header=header)] = None
    for day in map(datetime.now().strftime, dialect(tokenizer).days):
        if day in text and not any(day in str(turn.get("content")) for turn in turns):
            notes[
                f"the chat template writes the day's date, {day}: on another day it is another"
            ] = None
    said = [str(t.get("content") or "") for t in turns]
    replies = [said.pop(n) for n in reversed(range(len(turns))) if turns[n]["role"] == "assistant"]
    return (*notes, *_special_inside(tokenizer, said, replies))


def _template_text(tokenizer: Any) -> str:
    template = tokenizer.chat_template or ""
    return template if isinstance(template, str) else "\n".join(template.values())


def _tool_names(template: Mapping[str, Any]) -> list[str]:
    found = []
    for tool in template.get("tools") or ():
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        name = inner.get("name") if isinstance(inner, Mapping) else None
        found += [name] if isinstance(name, str) else []
    return found


def _special_inside(
    tokenizer: Any, said: Sequence[str], replies: Sequence[str] = ()
) -> tuple[str, ...]:
    """Notes on special tokens that a row holds as text: the tokenizer takes them for tokens."""
    pattern = dialect(tokenizer).special
    notes = []
    for place, texts in (("a prompt or text", said), ("a response", replies)):
        found = next(filter(None, map(pattern.search, texts)), None)
        if found:
            notes.append(f"{place} holds the special token {found.group()!r} as text")
    return tuple(notes)
