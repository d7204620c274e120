"""Flags that would change nothing are refused, before anything is read or loaded."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.rollout.engines import Decoding
from onestage.rollout.evaluation import make_suites

IDLE = {
    "check r.yaml --max-length 9": "--max-length: changes nothing for r.yaml, a recipe",
    "check rows.jsonl --max-length 9": "--max-length: is in tokens; say whose with --tokenizer",
    "check r.yaml --gpus-per-node 4": "--gpus-per-node: say of which GPUs",
    "sample --model m --out o.jsonl": "--out: is for a file of prompts",
    "sample --model m --only-ended": "--only-ended: is for a file of prompts",
    "sample --model m --prompts p.txt --system Hi": "--system: is for chat",
    "sample --model m --temperature 0 --top-p 0.5": "--top-p: changes nothing at --temperature 0",
    "sample --model m --temperature 0 --seed 3": "--seed: changes nothing at --temperature 0",
    "serve m --check http://x --port 9": "--check URL says where the server is",
    "merge a b --out c --kind pair": "are of the records: give --data",
}


@pytest.mark.parametrize("line", IDLE)
def test_a_flag_that_would_change_nothing(line: str) -> None:
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 1
    assert IDLE[line] in done.output


def test_a_judge_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="judge: nothing of ifeval is judged; leave it out"):
        make_suites(["ifeval"], judge={"model": "m"})


@pytest.mark.parametrize(
    "how", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"max_completion_length": 0}]
)
def test_answers_cannot_be_drawn_so(how: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(how))):
        Decoding(**how)  # type: ignore[arg-type]
