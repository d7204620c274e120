"""`onestage sample`: what a trained model answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from onestage.cli._flags import Dtype, ModelName, Tokenizer
from onestage.cli._inputs import load_model
from onestage.cli._outputs import Force, free, placed
from onestage.cli._terminal import (
    app,
    complaints,
    console,
    loading,
    quiet_libraries,
    say,
    then,
    word,
)

if TYPE_CHECKING:
    from onestage.data.prompts import Prompt
    from onestage.data.wishes import Wish


@app.command()
def sample(
    model: ModelName,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts: rows of any kind, or text, a line each, rendered as training renders them. "
            "[default: chat]"
        ),
    ] = None,
    as_messages: Annotated[
        bool,
        typer.Option(
            "--as-messages",
            help="Plain prompts as a user's message, as a stream with `as_messages: true`.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="JSON Lines to write instead of printing.")
    ] = None,
    tokenizer: Tokenizer = None,
    wish: Annotated[
        list[str] | None,
        typer.Option(help="A rating to ask for, NAME=VALUE, of a model trained with `wishes`."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message for chat.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    only_ended: Annotated[
        bool,
        typer.Option(
            "--only-ended",
            help="Leave out completions that were cut at --max-new-tokens, and count them.",
        ),
    ] = False,
    dtype: Dtype = "auto",
    force: Force = False,
) -> None:
    """Chat with a model in the terminal, or complete prompts from a file."""
    with loading():
        from onestage.data.prompts import prompts_of
        from onestage.data.wishes import read_wish
        from onestage.models.endings import unread
        from onestage.rollout.candidates import Candidate
        from onestage.rollout.engines import Decoding

    told = {"out": out, "only_ended": only_ended, "as_messages": as_messages, "system": system}
    _refuse_unused(prompts is None, told, {"top_p": top_p != 1, "seed": seed != 0}, temperature)
    wishes = dict(map(read_wish, wish or ()))
    free(out, force)
    how = Decoding(max_new_tokens, temperature, top_p)
    given = [] if prompts is None else prompts_of(str(prompts), as_messages)
    quiet_libraries()
    policy = load_model(model, tokenizer, dtype)
    if passed_over := unread(policy.model):
        told_of = ", ".join(passed_over)
        complaints.print(f"not used of generation_config.json: {told_of}", highlight=False)
    if prompts is not None:
        by = Candidate(model, tokenizer, None, dtype).key if out else ""  # type: ignore[arg-type]
        _complete(policy, given, out, how, seed, wishes, only_ended, by)
    else:
        _chat(policy, system, how, seed, wishes)


def _refuse_unused(
    chat: bool, given: Mapping[str, Any], drawn: Mapping[str, bool], temperature: float
) -> None:
    """ValueError for flags that would change nothing."""
    if given["system"] and not chat:
        raise ValueError(
            "--system: is for chat; in a file of --prompts a system message stands in the rows"
        )
    for name in ("out", "only_ended", "as_messages"):
        if given[name] and chat:
            raise ValueError(f"--{name.replace('_', '-')}: is for a file of prompts (--prompts)")
    for name, said in drawn.items():
        if said and temperature == 0:
            raise ValueError(
                f"--{name.replace('_', '-')}: changes nothing at --temperature 0, which is greedy"
            )


def _complete(
    policy: Any,
    given: Sequence[Prompt],
    out: Path | None,
    how: Any,
    seed: int,
    wishes: Mapping[str, Wish],
    only_ended: bool,
    by: str,
) -> None:
    """by: what the model is, by its content; asked the same, it goes on behind what it has answered."""
    from onestage.data.prompts import noted
    from onestage.data.wishes import wished
    from onestage.rollout.complete import drawn
    from onestage.rollout.suites import Kept
    from onestage.runfolder import digest_of, write_text

    for number, prompt in enumerate(given, 1):  # before anything is sampled
        _require_written(prompt, number, out)
    asked = [replace(prompt, turns=wished(prompt.turns, wishes)) for prompt in given]
    for note, count in noted(policy.tokenizer, asked).items():
        complaints.print(
            escape(f"{count:,} of {len(asked):,} prompts: {note}"), highlight=False, soft_wrap=True
        )
    kept = Kept()
    if out is not None:
        whole = [by, [[one.turns, one.template] for one in asked], asdict(how), seed]
        kept = Kept(out.with_name(f".{out.name}.{digest_of(whole)}.part"))
    if len(kept):
        say(f"{len(kept):,} of {len(asked):,} completions are there, of a command that was stopped")
    completions = drawn(policy, asked, how, seed=seed, kept=kept)
    rows: list[dict[str, Any]] = [
        {**prompt.row(), "completion": one.text}
        for prompt, one in zip(given, completions, strict=True)
        if one.ended or not only_ended
    ]
    cut = sum(not one.ended for one in completions)
    if not rows:
        kept.drop()
        raise ValueError(
            f"all {cut:,} completions were cut at {how.max_completion_length} tokens, and --only-ended "
            "leaves those out; give a larger --max-new-tokens"
        )
    what = "were left out" if only_ended else "are among them (--only-ended leaves those out)"
    told = f"; {cut:,} cut at {how.max_completion_length} tokens {what}" if cut else ""
    if out is not None:
        write_text(placed(out), "".join(json.dumps(row) + "\n" for row in rows))
        kept.drop()
        say(f"{out}: {len(rows):,} completions{told}")
        then(f"onestage check {word(out)}")
        return
    for row in rows:
        console.print(f"[bold]{escape(str(row['prompt']))}[/]\n{escape(row['completion'])}\n")
    if told:  # beside what may be kept
        complaints.print(f"{len(rows):,} completions{told}", highlight=False, soft_wrap=True)


def _require_written(prompt: Prompt, number: int, out: Path | None) -> None:
    """Raise `ValueError` for a prompt whose row JSON Lines could not hold: a date out of a table."""
    try:
        json.dumps(prompt.row() if out is not None else None)
    except TypeError as error:
        raise ValueError(f"prompt {number}: cannot stand in {out} ({error})") from error


def _chat(policy: Any, system: str | None, how: Any, seed: int, wishes: Mapping[str, Wish]) -> None:
    from onestage.data.wishes import wished
    from onestage.rollout.complete import complete

    templated = policy.tokenizer.chat_template is not None
    if system and not templated:
        raise ValueError("--system: the tokenizer has no chat template that could take it")
    turns: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    say("Ctrl-D ends" + ("" if templated else "; the tokenizer has no chat template: plain text"))
    while True:
        try:
            said = input("> ")
        except (EOFError, KeyboardInterrupt):
            return
        turns.append({"role": "user", "content": said})
        asked = [wished(tuple(turns) if templated else said, wishes)]
        (answer,) = complete(policy, asked, how, seed=seed)
        turns.append({"role": "assistant", "content": answer})
        say(answer)
