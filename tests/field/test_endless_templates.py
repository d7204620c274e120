"""Chat templates are programs: one that does not end, or is none, ends the command in one line."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny import CHAT, make_tokenizer, write_recipe
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.data import bounded
from onestage.data.template import render_prompt
from onestage.models.source import template_of

TURNS = ({"role": "user", "content": "a"},)
ROW = {"messages": [*TURNS, {"role": "assistant", "content": "b"}]}
LOOPS = {
    "a range of a thousand million": "{% for i in range(10**9) %}x{% endfor %}",
    "the same in full": "{% for i in range(1000000000) %}{% endfor %}",
    "a power of a power": "{{ 9**9**9 }}",
    "loops in loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "loops that write": (
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"
    ),
    "a text that doubles": (
        "{% set s = namespace(t='x') %}{% for i in range(40) %}{% set s.t = s.t ~ s.t %}"
        "{% if s.t | length > 30000000 %}{{ s.t ~ s.t ~ s.t }}{% endif %}{% endfor %}"
    ),
    "a text that doubles forty times": (
        "{% set s = namespace(t='x') %}{% for i in range(40) %}{% set s.t = s.t ~ s.t %}{% endfor %}"
    ),
    "a text ten thousand million times": "{{ 'x' * 99999 * 99999 }}",
    "a list as long": "{% set a = [0] * 99999 * 99999 %}",
    "padded": "{{ '%9999999999d' % 1 }}",
    "padded by number": "{{ '{:>{}}'.format(1, 99999 * 99999) }}",
}
BROKEN = {
    "macros that call themselves": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "an open loop": "{% for m in messages %}",
    "no such filter": "{{ messages | frobnicate }}",
    "a division by zero": "{{ 1 / 0 }}",
    "an attribute of the sandbox": "{{ ''.__class__.__mro__ }}",
    "its own error": "{{ raise_exception('no thank you') }}",
    "numbers as text": "{{ messages[0] + 1 }}",
}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.3)


def refused(command: str, tmp_path: Path, recipe: dict[str, Any], template: str) -> str:
    recipe["model"]["chat_template"] = template
    recipe["data"] = [{"name": "rows", "path": str(tmp_path / "rows.jsonl")}]
    (tmp_path / "rows.jsonl").write_text(f"{ROW}\n".replace("'", '"') * 3)
    file = write_recipe(tmp_path / "r.yaml", recipe)
    words = [command, str(file), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert "fault of" not in done.output
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    return done.output


@pytest.mark.parametrize("name", LOOPS)
def test_a_template_that_does_not_end(
    name: str, tmp_path: Path, recipe_of: Callable[..., dict[str, Any]]
) -> None:
    said = refused("train", tmp_path, recipe_of("demonstration", objective="sft"), LOOPS[name])
    *_, line = said.rstrip().split("\n")
    assert line.startswith("error: the chat template ")
    assert line.endswith("set model.chat_template to another one")


@pytest.mark.parametrize("name", BROKEN)
def test_a_template_that_fails(
    name: str, tmp_path: Path, recipe_of: Callable[..., dict[str, Any]]
) -> None:
    said = refused("train", tmp_path, recipe_of("demonstration", objective="sft"), BROKEN[name])
    assert "chat template" in said


def test_every_rendering_is_bounded_and_the_next_is_not_hurt() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for i in range(99999 if messages[0].content == 'long' else 1) %}"
        "{% for j in range(99999) %}{% endfor %}{% endfor %}" + CHAT
    )
    assert "<|user|>\na" in render_prompt(TURNS, tokenizer).text
    with pytest.raises(bounded.EndlessTemplateError, match=r"not done after 0\.3 s"):
        render_prompt(({"role": "user", "content": "long"},), tokenizer)
    assert "<|user|>\na" in render_prompt(TURNS, tokenizer).text


def test_a_template_is_a_text_or_a_file(tmp_path: Path) -> None:
    """A text of any length is a text; a mistyped file is not taken for a template."""
    (tmp_path / "chat.jinja").write_text(CHAT)
    assert template_of(str(tmp_path / "chat.jinja")) == CHAT
    for length in (10, 255, 256, 5000):
        assert template_of(CHAT + "x" * length) == CHAT + "x" * length
    given = [str(tmp_path / "chat.jinia"), str(tmp_path), "x" * 300, "chatml", "a\0b", ""]
    for one in given:
        with pytest.raises(ValueError, match=r"is no Jinja text .* and no file that can be read"):
            template_of(one)
