"""The command line: `onestage train | check | score | sample | demo`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(
    help="Fine-tune a language model in one stage on any mixture of feedback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=False, soft_wrap=False)
complaints = Console(stderr=True)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable."),
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """One clear line for what the user can mend; a traceback only with ONESTAGE_DEBUG=1."""
    try:
        yield
    except (ValueError, OSError, ImportError, RuntimeError, NotImplementedError) as error:
        if os.environ.get("ONESTAGE_DEBUG"):
            raise
        message = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.errno == 28:
            message = f"the disk is full ({message}); what was saved before is whole"
        complaints.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _quiet_libraries() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    set_: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    no_self_check: Annotated[
        bool, typer.Option("--no-self-check", help="Skip the step-0 laws.")
    ] = False,
) -> None:
    """Train what a recipe says, in one stage."""
    with plain_errors():
        from onestage.recipe import load_recipe
        from onestage.run import run_recipe

        _quiet_libraries()
        content = load_recipe(recipe, set_ or [])
        folder = out or Path("runs") / recipe.stem
        saved = run_recipe(
            content,
            folder,
            resume=resume,
            self_check=not no_self_check,
            say=_say,
            watcher=make_watcher(),
        )
        _say(f"run folder {folder}, model {saved}")


@app.command()
def check(
    what: Annotated[
        Path, typer.Argument(metavar="RECIPE_OR_DATA", help="A recipe or a data file.")
    ],
    set_: Set = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="For a data file: count and mark tokens with this one.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="For a data file: the kind of its rows.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="For a data file: rename a column; repeatable."),
    ] = None,
    score_range: Annotated[
        tuple[float, float], typer.Option(help="For a data file: range of its scores.")
    ] = (0.0, 1.0),
    max_length: Annotated[int, typer.Option(help="For a data file: longest path.")] = 2048,
) -> None:
    """Show what will be trained on and what is wrong with it, before any weights are loaded."""
    with plain_errors():
        from onestage.checking import check_data, check_recipe

        _quiet_libraries()
        if what.suffix in (".yaml", ".yml"):
            good = check_recipe(what, set_ or [], console, _say)
        else:
            source = _source(str(what), kind, column, score_range)
            good = check_data(source, tokenizer, max_length, console)
    if not good:
        raise typer.Exit(1)


@app.command()
def score(
    model: Annotated[str, typer.Option(help="A model folder, adapter folder, or hub id.")],
    data: Annotated[str, typer.Option(help="Records: a file, folder, glob, or hub data set.")],
    out: Annotated[Path, typer.Option(help="JSON Lines to write, a line a response.")],
    kind: Annotated[str | None, typer.Option(help="The kind of the rows.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Rename a column; repeatable.")
    ] = None,
    score_range: Annotated[tuple[float, float], typer.Option(help="Range of given scores.")] = (
        0,
        1,
    ),
    tokenizer: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    max_length: Annotated[int, typer.Option(help="Longest path in tokens.")] = 2048,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Log-probabilities of given responses: `id`, `response`, `logp`, `tokens`, a line each."""
    with plain_errors():
        from onestage.policy.policy import Policy
        from onestage.scoring import score_file

        _quiet_libraries()
        loaded = _load(model, tokenizer, dtype)
        source = _source(data, kind, column, score_range)
        lines, refused = score_file(Policy(loaded.model), loaded.tokenizer, source, out, max_length)
        for row in refused[:10]:
            complaints.print(f"left out {escape(row.where)}: {escape(row.reason)}", highlight=False)
        _say(f"{out}: {lines:,} responses, {len(refused):,} rows left out")


@app.command()
def sample(
    model: Annotated[str, typer.Option(help="A model folder, adapter folder, or hub id.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts: JSON Lines with `prompt`, or text, a line each. [default: chat]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON Lines to write instead of printing.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    system: Annotated[str | None, typer.Option(help="System message for chat.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Chat with a model in the terminal, or complete prompts from a file."""
    with plain_errors():
        from onestage.policy.sampling import Sampling

        _quiet_libraries()
        loaded = _load(model, tokenizer, dtype)
        how = Sampling(max_new_tokens, temperature, top_p, seed)
        if prompts is not None:
            _complete(loaded, prompts, out, how)
        else:
            _chat(loaded, system, how)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the base model and the run are kept.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the generated world.")] = 0,
) -> None:
    """Build a small base model, train it in one stage on all kinds of feedback, and compare."""
    with plain_errors():
        from onestage.demo import run_demo

        _quiet_libraries()
        run_demo(out, seed, console, _say, make_watcher)


def _say(line: str) -> None:
    console.print(escape(line), highlight=False, soft_wrap=True)


def _load(model: str, tokenizer: str | None, dtype: str) -> Any:
    import torch

    from onestage.policy.loading import ModelSource, load

    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype {dtype!r}: allowed are auto, float32, bfloat16, float16")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = ModelSource(name=model, tokenizer=tokenizer, dtype=dtype)  # type: ignore[arg-type]
    loaded = load(source, device)
    loaded.model.eval()
    return loaded


def _source(
    path: str, kind: str | None, column: list[str] | None, score_range: tuple[float, float]
) -> Any:
    from onestage.records.columns import Columns
    from onestage.records.reading import Source

    rename = {}
    for item in column or []:
        ours, equals, theirs = item.partition("=")
        if not equals:
            raise ValueError(f"--column {item!r}: expected OURS=THEIRS")
        rename[ours] = theirs
    name = Path(path).name.split(".")[0] or "data"
    columns = Columns(source=name, kind=kind, rename=rename, score_range=score_range)  # type: ignore[arg-type]
    return Source(path=path, columns=columns)


def _complete(loaded: Any, prompts: Path, out: Path | None, how: Any) -> None:
    from onestage.logbook import write_text
    from onestage.policy.sampling import sample as draw

    given: list[Any] = []
    for number, line in enumerate(prompts.read_text().splitlines(), 1):
        if line.strip():
            given.append(_prompt(line, prompts, number))
    if not given:
        raise ValueError(f"{prompts} holds no prompt")
    completions = draw(loaded.model, loaded.tokenizer, given, how)
    rows = [{"prompt": p, "completion": c} for p, c in zip(given, completions, strict=True)]
    if out is not None:
        write_text(out, "".join(json.dumps(row) + "\n" for row in rows))
        _say(f"{out}: {len(rows):,} completions")
        return
    for row in rows:
        console.print(f"[bold]{escape(str(row['prompt']))}[/]\n{escape(row['completion'])}\n")


def _prompt(line: str, file: Path, number: int) -> Any:
    if file.suffix != ".jsonl":
        return line
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file.name}:{number}: not JSON ({error})") from error
    if not isinstance(row, dict) or "prompt" not in row:
        found = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{file.name}:{number}: expected an object with `prompt`, found {found}")
    return row["prompt"]


def _chat(loaded: Any, system: str | None, how: Any) -> None:
    from onestage.policy.sampling import sample as draw

    templated = loaded.tokenizer.chat_template is not None
    turns: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    _say("Ctrl-D ends" + ("" if templated else "; the tokenizer has no chat template: plain text"))
    while True:
        try:
            said = input("> ")
        except (EOFError, KeyboardInterrupt):
            return
        turns.append({"role": "user", "content": said})
        (answer,) = draw(loaded.model, loaded.tokenizer, [turns if templated else said], how)
        turns.append({"role": "assistant", "content": answer})
        _say(answer)


def make_watcher() -> Any:
    """A progress bar on a terminal, a line for each line of metrics elsewhere."""
    from onestage.run import Watcher

    class Bar(Watcher):
        """Progress with loss, tokens a second and the time left."""

        def __init__(self) -> None:
            self.progress = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} tokens/s  left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.since, self.tokens = 0.0, 0

        def begin(self, run: Any) -> None:
            self.since, self.tokens = time.perf_counter(), run.tokens
            self.task = self.progress.add_task(
                "train", total=run.steps, completed=run.step, loss=0.0, rate=0.0
            )
            self.progress.start()

        def step(self, run: Any, loss: float) -> None:
            rate = (run.tokens - self.tokens) / (time.perf_counter() - self.since)
            self.progress.update(self.task, completed=run.step, loss=loss, rate=rate)

        def end(self) -> None:
            self.progress.stop()

    class Lines(Watcher):
        """Plain lines, for logs."""

        def __init__(self) -> None:
            self.steps, self.since, self.first = 0, 0.0, 0

        def begin(self, run: Any) -> None:
            self.steps, self.since, self.first = run.steps, time.perf_counter(), run.step

        def line(self, metrics: dict[str, Any]) -> None:
            step = metrics["step"]
            if "eval/loss" in metrics:
                _say(f"step {step}/{self.steps}  eval loss {metrics['eval/loss']:.4f}")
                return
            spent = time.perf_counter() - self.since
            left = spent / max(1, step - self.first) * (self.steps - step)
            _say(
                f"step {step}/{self.steps}  loss {metrics['loss']:.4f}  "
                f"{metrics['tokens_per_second']:,.0f} tokens/s  {left:.0f} s left"
            )

    make: Callable[[], Watcher] = Bar if sys.stderr.isatty() else Lines
    return make()


if __name__ == "__main__":
    app()
