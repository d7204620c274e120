"""How much of a run's time its evaluations may take: arithmetic by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny import write_rows

from onestage.data.packing import pack_records
from onestage.training.benchmarks import Benchmarks
from onestage.training.build import build
from onestage.training.pace import Pace
from onestage.training.questions import Evaluate
from onestage.training.recipe import parse_recipe
from onestage.training.rehearsal import longest_answer, seconds_of_a_step


def test_what_may_be_spent_is_a_share_of_all() -> None:
    """95 s of training and 5 s of evaluations are 100 s, of which 5 are 5 %."""
    pace = Pace(0.05, 190, trained=1.0, done=2)
    assert pace.whole == 95
    assert pace.allowed == pytest.approx(5)
    pace.add(2)
    assert (pace.room, pace.last) == (pytest.approx(3), 2)
    assert pace.used == pytest.approx(2 / 3)


def test_before_a_step_is_measured_it_is_guessed() -> None:
    pace = Pace(0.5, 10, guess=2.0)
    assert pace.allowed == pytest.approx(20)
    pace.trained, pace.done = 1.0, 1
    assert pace.allowed == pytest.approx(10)


@pytest.mark.parametrize(
    ("step", "every", "spent", "then"),
    [
        (0, None, 2, 25),  # 10 s allowed, 8 left, 4 more of 2 s: at 25, 50, 75, 100
        (50, None, 6, 75),
        (50, None, 9, 100),  # no room for two: the end has it
        (0, 10, 2, 30),  # every 10 would be 10 of them: 4 is every 25, which is every 30
        (0, 40, 2, 40),
        (80, 40, 2, 100),
        (90, None, 0.1, 93),  # 9.9 s left: 4 more
        (98, None, 0.1, 100),
    ],
)
def test_when_to_evaluate_next(step: int, every: int | None, spent: float, then: int) -> None:
    pace = Pace(0.5, 100, trained=1.0, done=10, spent=spent, last=2.0)
    assert pace.next(step, every) == then


def test_cheap_evaluations_are_not_made_at_every_step() -> None:
    pace = Pace(0.05, 1000, trained=1000.0, done=100, last=1e-3)
    assert pace.next(0, None) == 20
    assert pace.next(0, 5) == 5


def test_its_state_goes_into_a_checkpoint() -> None:
    pace = Pace(0.05, 10, 1.0, 2.0, 3.0, 4, 5.0)
    other = Pace(0.1, 20)
    other.restore(pace.state())
    assert (other.share, other.steps) == (0.1, 20)
    assert (other.guess, other.spent, other.trained, other.done, other.last) == (1, 2, 3, 4, 5)


def test_an_answer_is_as_long_as_the_time_allows() -> None:
    """Half a second to read the prompt and 10 ms a token: in 5 s, 450 tokens."""
    asked: list[int] = []

    def ask(most: int) -> tuple[float, bool]:
        asked.append(most)
        return 0.5 + 0.01 * most, True

    assert longest_answer(ask, 5.0) == pytest.approx(450, abs=1)
    assert asked == [4, 36]
    # In 2 s, 4 x 2.0 / 0.54 are tried; a token is taken for a quarter of 0.64 s / 14 at least.
    assert longest_answer(ask, 2.0) == pytest.approx(133, abs=1)
    assert asked[2:] == [4, 14]
    assert longest_answer(ask, 0.1) == 4  # no time for any: as few as were tried
    # The first few took longer than there is time for: no more are tried.
    assert asked[4:] == [4]
    # The first one took longer, since it was the first: 9 s / 36 / 4 a token.
    assert longest_answer(lambda most: (10.0 if most == 4 else 9.0, True), 90.0) == 1332
    # A clock that saw no time go by: 36 tokens in a millionth of a second, and four times as many then.
    assert longest_answer(lambda most: (0.0, True), 1.0) == pytest.approx(4 * 36e6)


def test_an_answer_that_ends_by_itself_is_not_shortened() -> None:
    assert longest_answer(lambda most: (1.0, False), 0.1) is None
    assert longest_answer(lambda most: (1.0, most < 10), 9.0) is None


def test_what_comes_next_may_cost_less_than_the_first() -> None:
    pace = Pace(0.5, 100)
    pace.add(3.0, 2.0)
    assert (pace.spent, pace.last) == (3.0, 2.0)


def test_the_first_guess_reads_no_longer_row_than_a_step(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups that train in pieces would not fit in one: an answer of each is read, and its part told."""
    length = {"train__max_length": 20, "train__tokens_per_row": 20}
    recipe = recipe_of("group", train__batch_size=4, train__max_steps=100, **length)
    answers = [f" {word} and the sea" for word in ("red", "wind", "moon", "poem", "hello", "Paris")]
    row = {"completions": answers, "scores": [0.5] * len(answers)}
    write_rows(Path(recipe["data"][0]["path"]), [{"prompt": f"say {n}", **row} for n in range(3)])
    run = build(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    rows, look, times = [], run.devices.look, iter((0.0, 3.0))
    monkeypatch.setattr(
        run.devices, "look", lambda row, reads: rows.append(row) or look(row, reads)
    )
    found = seconds_of_a_step(run, lambda most: False, lambda: next(times))
    records = run.first_records()[:2]  # of 400
    whole = sum(len(pack_records([one]).rows[0]) for one in records)
    assert max(map(len, rows)) <= 20 < whole / 2
    assert found == pytest.approx(3.0 * whole / sum(map(len, rows)) / 2 * 4)


def test_where_problems_are_answered_a_few_tokens_tell_what_an_answer_takes(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """36 tokens took 3 s and there would be more: 72 take 6, and a step has 6 problems."""
    recipe = recipe_of("text", objective="grpo")
    path = write_rows(tmp_path / "sums.jsonl", [{"prompt": "1 + 1 =", "answer": "2"}] * 4)
    recipe["data"] = [{"name": "sums", "path": str(path), "kind": "check", "reward": "match"}]
    recipe["rollout"] = {"num_generations": 2, "max_completion_length": 72}
    run = build(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    asked: list[int] = []

    def answer(most: int) -> bool:
        asked.append(most)
        return len(asked) == 1

    assert seconds_of_a_step(run, answer, iter((0.0, 3.0)).__next__) == pytest.approx(36)
    assert seconds_of_a_step(run, answer, iter((0.0, 3.0)).__next__) == pytest.approx(18)
    assert asked == [36, 36]
    # Where nothing but prompts is asked, one of them is answered for that.
    looking = Benchmarks(run, Evaluate(prompts=["say red", "say blue"]))
    looking.begin()
    assert looking.pace.guess > 1e-3
