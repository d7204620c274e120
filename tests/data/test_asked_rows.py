"""Prompts of rows are those that training renders, by transformers' own rendering of the messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny import make_tokenizer
from typer.testing import CliRunner

from onestage.cli import app
from onestage.data.encoded import Encoded, ProblemFacts
from onestage.data.prompts import Prompt, noted, prompts_of
from onestage.data.reading import read
from onestage.data.record import Record
from onestage.data.tokenize import encode, prompt_ids, taught_ids
from onestage.rollout.rewards import Answer
from onestage.rollout.rewards._judge_prompt import request

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
TEMPLATE = (
    "{{ bos_token }}{% if calm %}[calm]{% endif %}{% if tools %}[{{ tools | tojson }}]{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SYSTEM = {"role": "system", "content": "Be brief."}
ASKS = {"role": "user", "content": "2 + 2 ="}
SAYS = {"role": "assistant", "content": " 4"}
WRONG = {"role": "assistant", "content": " 5"}

ROWS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "a problem": ({"prompt": [ASKS], "answer": "4"}, [ASKS]),
    "a demonstration": ({"prompt": [SYSTEM, ASKS], "completion": [SAYS]}, [SYSTEM, ASKS]),
    "a text answered by messages": ({"prompt": ASKS["content"], "completion": [SAYS]}, [ASKS]),
    "a conversation": ({"messages": [ASKS, SAYS, ASKS, SAYS]}, [ASKS, SAYS, ASKS]),
    "beside its first words": ({"prompt": ASKS["content"], "messages": [ASKS, SAYS]}, [ASKS]),
    "a conversation to go on": ({"messages": [SYSTEM, ASKS]}, [SYSTEM, ASKS]),
    "whole conversations": ({"chosen": [ASKS, SAYS], "rejected": [ASKS, WRONG]}, [ASKS]),
    "a pair": ({"prompt": [ASKS], "chosen": " 4", "rejected": " 5"}, [ASKS]),
    "a score out of range": ({"prompt": [ASKS], "completion": " 4", "score": 9}, [ASKS]),
    "ShareGPT": (
        {
            "system": SYSTEM["content"],
            "conversations": [
                {"from": "human", "value": ASKS["content"]},
                {"from": "gpt", "value": SAYS["content"]},
            ],
        },
        [SYSTEM, ASKS],
    ),
    "Alpaca": (
        {"system": "Be brief.", "instruction": "2 + 2", "input": "=", "output": " 4"},
        [SYSTEM, {"role": "user", "content": "2 + 2\n\n="}],
    ),
}


def chatty() -> Any:
    return make_tokenizer(chat=TEMPLATE)


def file_of(folder: Path, *rows: dict[str, Any]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


@pytest.mark.parametrize("beside", [{}, {"tools": TOOLS}, {"calm": True}])
@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_asked_as_transformers_renders_it(
    name: str, beside: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer, (row, messages) = chatty(), ROWS[name]
    given = {"tools": TOOLS} if "tools" in beside else {"chat_template_kwargs": beside}
    (prompt,) = prompts_of(file_of(tmp_path, {**row, **given}))
    expected = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, **beside
    )
    assert prompt_ids(tokenizer, prompt.turns, prompt.template).tolist() == expected
    (trained,) = encode(read([{**row, **given}]), tokenizer)
    if isinstance(trained, Encoded):
        path = trained.paths[0]
        opening = path.spans[-1][0] if path.spans else len(path.ids)
        assert path.ids[:opening].tolist() == expected
    again = Prompt.given(prompt.row())
    assert (again.turns, again.template) == (prompt.turns, prompt.template)


def test_plain_prompts_are_messages_where_that_is_asked_for(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"prompt": "2 + 2 =", "answer": "4", "tools": TOOLS})
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: found `tools` beside plain text"):
        prompts_of(path)
    (prompt,) = prompts_of(path, as_messages=True)
    assert (prompt.turns, prompt.template) == ((ASKS,), {"tools": TOOLS})


def test_what_no_prompt_is_made_of_is_counted(tmp_path: Path) -> None:
    rows = [{"prompt": [ASKS], "answer": "4", "history": [["a", "b"]]}] * 2
    other = {"prompt": [ASKS], "answer": "4", "chat_template_kwargs": {"loud": True}}
    assert noted(chatty(), prompts_of(file_of(tmp_path, *rows, other))) == {
        "`history` is no part of the prompt: say it in a message of the prompt": 2,
        "the chat template has no use for chat_template_kwargs.loud": 1,
    }
    path = file_of(tmp_path, {"prompt": [ASKS], "images": ["cat.png"]})
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: .*images"):
        prompts_of(path)


def test_tools_stay_with_a_problem_to_its_rewards_and_its_teacher() -> None:
    tokenizer = chatty()
    row = {"prompt": [ASKS], "answer": "4", "solution": "4", "tools": TOOLS}
    (problem,) = encode(read([row]), tokenizer)
    assert isinstance(problem, Encoded)
    about = ProblemFacts.load(problem.about)
    assert about.template == {"tools": TOOLS}
    answer = Answer(about.prompt, "4", turns=about.turns, template=about.template)
    assert request(answer) == f"tools: {json.dumps(TOOLS)}\n\nuser: 2 + 2 ="
    told = [{**ASKS, "content": "2 + 2 =\n\n4"}]
    expected = tokenizer.apply_chat_template(
        told, tools=TOOLS, add_generation_prompt=True, return_dict=False
    )
    assert taught_ids(tokenizer, about, problem.paths[1]).tolist() == expected


def test_samples_are_rows_of_the_same_prompts(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for file in model_folder.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model/chat_template.jinja").write_text(TEMPLATE)
    row = {"prompt": [ASKS], "answer": "4", "tools": TOOLS, "chat_template_kwargs": {"loud": 1}}
    out = tmp_path / "own.jsonl"
    command = ["sample", "--model", str(tmp_path / "model"), "--prompts", file_of(tmp_path, row)]
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--max-new-tokens", "3"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "1 of 1 prompts: the chat template has no use for chat_template_kwargs.loud" in said
    (record,) = read(out)
    assert isinstance(record, Record)
    assert (record.prompt, record.template) == ((ASKS,), {"tools": TOOLS, "loud": 1})
    chat = CliRunner().invoke(app, [*command, "--system", "Be brief."])
    assert chat.exit_code == 1
    assert "--system: is for chat; in a file of --prompts" in " ".join(chat.output.split())
