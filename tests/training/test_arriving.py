"""Streams that are trained on while their records still arrive, some of them without an end."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from support.ranks import on_ranks
from support.tiny import write_rows

from onestage.config import RecipeError
from onestage.data.mixture import MixedStream, Mixture
from onestage.data.portions import Arriving, Portions
from onestage.data.reading import read
from onestage.data.record import Refusal
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.rollout.rewards import Reward
from onestage.runfolder import read_json, read_metrics, silent
from onestage.training.build import Draft
from onestage.training.callbacks import Callback
from onestage.training.encode import encode_streams
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
KTO = {"name": "kto", "baseline": "mismatched"}
Rows = Iterator[dict[str, Any]]


def asked(seen: list[int], odd: int = -1) -> Rows:
    """Rows without end; one cannot be used, and `odd` is another one than elsewhere."""
    for n in count():
        seen.append(n)
        if n == 2:
            yield {"prompt": "Who?", "completion": None}
        else:
            yield {"prompt": f"What is {n}?", "completion": f" it is {n + (n == odd)}."}


def stream(rows: Callable[[], Rows], **options: Any) -> Stream:
    given = datasets.IterableDataset.from_generator(rows)
    return Stream(given, **{"name": "asked", "portion": 6, **options})


@pytest.fixture
def recipe(recipe_of: Make) -> dict[str, Any]:
    made = recipe_of("demonstration", objective="sft", train__batch_size=4)
    made["train"] |= {"max_steps": 4, "save_steps": 2, "bad_rows": "skip"}
    return made


def go(recipe: dict[str, Any], out: Path, rows: Callable[[], Rows], **options: Any) -> None:
    told = {**recipe, "data": [stream(rows)]}
    carry_out(parse_recipe(told), out, say=silent, self_check=False, **options)


class Table(Callback):
    """What the data table says while a run goes, by step."""

    def __init__(self) -> None:
        self.records: list[int] = []

    def step(self, run: Any, loss: float) -> None:
        table = read_json(run.out / "data.json")["train"]["asked"]
        self.records.append(table["records"]["demonstration"])


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out) if "loss" in line]


def test_each_record_is_drawn_once_in_portions_that_come_when_they_are_needed(
    tokenizer: Any, tmp_path: Path
) -> None:
    seen: list[int] = []
    rows = stream(lambda: islice(asked(seen), 17))
    more = Arriving(rows, Encoder(tokenizer, 128), tmp_path)
    first = more()
    assert first is not None
    portions = Portions(first, more)
    mixture = Mixture([MixedStream("asked", first, 1, portions=portions)], seed=0)
    drawn = []
    for step in range(32):
        drawn += [record.id for record in mixture.draw(step)]
        # Of the first six one was refused; `datasets` may ask for a block more than it gives.
        assert len(seen) <= (12 if step < 5 else 18)
    assert len(seen) == 17
    assert (len(portions), portions.ended, portions.table.refused) == (16, True, 1)
    parts = [drawn[at:end] for at, end in ((0, 5), (5, 11), (11, 16), (16, 21), (21, 27), (27, 32))]
    assert len({*parts[0], *parts[1], *parts[2]}) == 16
    assert [sorted(part) for part in parts[:3]] == [sorted(part) for part in parts[3:]]
    assert parts[:3] != parts[3:]
    assert [portions[n].id for n in (0, 5, 11)] == [store[0].id for store in portions.stores]


def test_of_many_portions_few_are_open_and_what_stood_beside_their_rows_is_told_once(
    tokenizer: Any, tmp_path: Path
) -> None:
    def rated() -> Rows:
        for n in range(16):
            row = {"prompt": f"{n}?", "completion": " it.", "label": True, "annotator": "me"}
            yield row | ({"late": 1} if n > 8 else {})

    more = Arriving(stream(rated, portion=1), Encoder(tokenizer, 128), tmp_path)
    first = more()
    assert first is not None
    files = len(os.listdir("/dev/fd"))
    portions = Portions(first, more)
    portions.reach(99)
    assert [portions[n].id for n in range(16)] == [store[0].id for store in portions.stores]
    assert len(os.listdir("/dev/fd")) < files + 20  # each has three
    assert list(portions.table.notes.values()) == [16]
    assert portions.table.unused == {"late": ""}


def test_a_run_on_rows_without_end_is_the_same_in_pieces_and_on_ranks(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """To the bit where it goes on as it was begun; to 1e-6 where that is on two nodes."""
    seen: list[int] = []
    go(recipe, tmp_path / "one", lambda: asked(seen))
    table = read_json(tmp_path / "one" / "data.json")["train"]["asked"]
    assert (table["records"], table["refused"]) == ({"demonstration": 17}, 1)  # 16 were drawn
    assert len(seen) <= 24
    shorter = {**recipe, "train": {**recipe["train"], "max_steps": 2}}

    def work() -> None:
        cache = {"cache_dir": str(tmp_path / f"cache{os.environ['RANK']}")}
        go(shorter | cache, tmp_path / "ranks", lambda: asked([]))

    on_ranks(2, work, nodes=2, seconds=60)
    go(recipe, tmp_path / "ranks", lambda: asked([]), resume=True)
    assert losses(tmp_path / "ranks") == pytest.approx(losses(tmp_path / "one"), abs=1e-6)
    go(shorter, tmp_path / "cut", lambda: asked([]))
    with pytest.raises(ValueError, match=r"made with other data: \['asked'\]"):
        go(recipe, tmp_path / "cut", lambda: asked([], odd=7), resume=True)
    go(recipe, tmp_path / "cut", lambda: asked([]), resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "one")
    (one, other) = (
        next((tmp_path / name / "model").glob("*.safetensors")).read_bytes()
        for name in ("one", "cut")
    )
    assert one == other


def test_a_source_that_had_ended_and_has_grown_since_is_another(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    table = Table()
    go(recipe, tmp_path / "out", lambda: islice(asked([]), 12), callbacks=[table])
    assert table.records == [5, 5, 11, 11]  # as of the checkpoint before
    longer = {**recipe, "train": {**recipe["train"], "max_steps": 5}}
    with pytest.raises(ValueError, match=r"made with other data: \['asked'\]"):
        go(longer, tmp_path / "out", lambda: islice(asked([]), 18), resume=True)
    go(longer, tmp_path / "out", lambda: islice(asked([]), 12), resume=True)


def test_a_node_that_is_sent_other_rows_is_found_out(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    def work() -> str:
        rank = int(os.environ["RANK"])
        told = {**recipe, "cache_dir": str(tmp_path / f"cache{rank}")}
        with pytest.raises(RecipeError) as error:
            go(told, tmp_path / "out", lambda: asked([], odd=9 if rank else -1))
        return str(error.value)

    for said in on_ranks(2, work, nodes=2, seconds=60):
        assert "rank 1 has another portion 2 of the data asked than rank 0" in said


@dataclass(frozen=True)
class Answered(Reward):
    """The longer the better, of problems with an answer."""

    def __call__(self, answers: Any) -> list[Any]:
        return [float(len(answer.completion)) for answer in answers]

    def check(self, facts: Any) -> None:
        if "answer" not in facts:
            raise ValueError("no answer")


def test_problems_arrive_and_a_reward_looks_at_each_portion(
    recipe_of: Make, tmp_path: Path
) -> None:
    """Answered as they are drawn; in pieces the same to the bit. A later one that cannot be judged ends
    the run."""

    def problems(odd: int = -1) -> Rows:
        for n in count():
            facts = {"numbers": [1, n]} if n == odd else {"answer": str(n)}
            yield {"prompt": f"What is {n}?", **facts}

    told = recipe_of("demonstration", objective={"name": "grpo", "beta": 0.1})
    told["train"] |= {"batch_size": 2, "max_steps": 4, "save_steps": 2}
    told["rollout"] = {"num_generations": 2, "max_completion_length": 4, "steps_per_generation": 2}

    def solve(out: str, odd: int = -1, steps: int = 4, **options: Any) -> None:
        data = stream(lambda: problems(odd), portion=3, kind="check", reward=Answered())
        train = told["train"] | {"max_steps": steps}
        recipe = parse_recipe({**told, "train": train, "data": [data]})
        carry_out(recipe, tmp_path / out, say=silent, self_check=False, **options)

    solve("whole")
    solve("cut", steps=2)
    solve("cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    table = read_json(tmp_path / "whole" / "data.json")["train"]["asked"]
    assert table["records"] == {"check": 9}
    with pytest.raises(RecipeError, match=r"data asked, .*\[4\]: reward answered: no answer"):
        solve("odd", odd=4)


def test_a_reference_is_had_with_each_portion(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Of the model as it was, by plain transformers; and what goes on, here or on ranks, is the same."""
    recipe = {**recipe, "objective": "uft"}
    found: list[Any] = []

    class Look(Callback):
        def end(self) -> None:
            found.append(self.run)

        def begin(self, run: Any) -> None:
            self.run, self.start = run, copy.deepcopy(run.policy.model)

    look = Look()
    go(recipe, tmp_path / "one", lambda: asked([]), callbacks=[look])
    (run,) = found
    portions = run.data.arriving["asked"]
    assert len(portions.stores) == 3
    for store in portions.stores:
        for path in (path for record in store for path in record.paths):
            with torch.no_grad():
                logits = look.start(torch.from_numpy(path.ids.astype("int64"))[None]).logits[0]
            logp = logits.log_softmax(-1)
            ((start, end),) = path.spans
            mine = [float(logp[at - 1, path.ids[at]]) for at in range(start, end)]
            assert run.reference[path].tolist() == pytest.approx(mine, abs=2e-5)
    shorter = {**recipe, "train": {**recipe["train"], "max_steps": 2}}

    def work() -> None:
        cache = {"cache_dir": str(tmp_path / f"cache{os.environ['RANK']}")}
        go(shorter | cache, tmp_path / "ranks", lambda: asked([]))

    on_ranks(2, work, nodes=2, seconds=60)
    for name in ("ranks", "cut"):
        fresh = recipe | {"cache_dir": str(tmp_path / f"fresh {name}")}
        if name == "cut":
            go(shorter, tmp_path / name, lambda: asked([]))
        go(fresh, tmp_path / name, lambda: asked([]), resume=True)
    assert losses(tmp_path / "ranks") == pytest.approx(losses(tmp_path / "one"), abs=1e-6)
    assert losses(tmp_path / "cut") == losses(tmp_path / "one")


def test_options_are_judged_by_all_that_came(
    tokenizer: Any, recipe: dict[str, Any], tmp_path: Path
) -> None:
    def late() -> Rows:
        for n in range(12):
            yield {"prompt": f"{n}?", "completion": " it.", **({"heavy": 2.0} if n > 7 else {})}

    said: list[str] = []
    columns = {"weight": "heavy", "id": "nowhere"}
    told = {**recipe, "data": [stream(late, columns=columns, as_messages=False)]}
    told["train"] = {**recipe["train"], "max_steps": 5}
    carry_out(parse_recipe(told), tmp_path / "out", say=said.append, self_check=False)
    first = [line for line in said if "of its first portion" in line]
    assert len(first) == 2
    assert "columns: {weight: heavy}: no row has a column 'heavy'" in first[0]
    (end,) = [line for line in said if "of all of it" in line]
    assert "columns: {id: nowhere}: no row has a column 'nowhere'" in end


def test_a_null_is_of_its_row_where_rows_arrive(tmp_path: Path) -> None:
    """To know whether another row judges such a response, all would have to be read."""
    rows = [
        {"prompt": f"{n}?", "completion": " it.", "score": None, "text": None} for n in range(4)
    ]
    whole = list(read([*rows, {**rows[0], "score": 1.0}]))
    assert {one.unlabelled for one in whole if isinstance(one, Refusal)} == {True}
    seen: list[int] = []

    def endless() -> Rows:
        for n in count():
            seen.append(n)
            yield rows[n % 4]

    item = next(read(stream(endless)))
    assert isinstance(item, Refusal)
    assert len(seen) <= 7


LATE = [{"prompt": f"{n}?", "completion": " it."} for n in range(6)] + [{"text": "Some text."}] * 6


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"train__max_steps": None, "train__num_train_epochs": 1}, {}, "give train.max_steps"),
        ({"data": 2}, {}, "give it a weight, or per_step"),
        ({"train__bad_rows": "error"}, {}, "1 rows cannot be used"),
    ],
)
def test_what_takes_all_records_first_is_refused(
    recipe_of: Make, changes: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    both = changes.pop("data", 1)
    recipe = recipe_of("demonstration", **{"objective": "sft", "train__bad_rows": "skip"} | changes)
    mine = [stream(lambda: asked([]), **options)]
    draft = Draft(parse_recipe({**recipe, "data": [*recipe["data"][: both - 1], *mine]}))
    draft.read()
    assert any(said in str(one) for one in draft.conflicts)


def test_several_kinds_in_one_stream_share_its_batches(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """Exact in pieces; what is looked at of each is of the first portion."""
    rows: list[dict[str, Any]] = [
        {"prompt": f"What is {n}?", "completion": f" it is {n}."}
        | ({}, {"label": n % 2 == 0}, {"score": n % 5 / 4})[n % 3]
        for n in range(30)
    ]
    path = str(write_rows(tmp_path / "rows.jsonl", rows))
    kinds = {"demonstration": "sft", "label": KTO, "score": "una"}
    told = {**recipe, "objective": kinds, "probe": {"steps": 2}}
    told["data"] = [{"name": "asked", "path": path, "portion": 6}]

    def run(out: str, steps: int, resume: bool = False) -> None:
        mine = parse_recipe({**told, "train": {**told["train"], "max_steps": steps}})
        carry_out(mine, tmp_path / out, say=silent, self_check=False, resume=resume)

    run("whole", 4)
    table = read_json(tmp_path / "whole" / "data.json")["train"]["asked"]
    assert table["records"] == {"demonstration": 6, "label": 6, "score": 6}
    run("cut", 2)
    run("cut", 4, resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    draft = Draft(parse_recipe({**told, "schedule": "mix"}))
    draft.read()
    (error,) = draft.conflicts
    assert "its demonstration, score, label records would be drawn apart" in str(error)
    draft = Draft(parse_recipe({**told, "objective": "uft"}))
    draft.read()
    assert not draft.conflicts


def test_answers_of_others_are_of_the_same_portion(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Exact in pieces, and so is what the reference says of them."""

    def thumbs() -> Rows:
        return (row | {"label": bool(n % 3)} for n, row in enumerate(asked([])))

    class Drawn(Callback):
        def begin(self, run: Any) -> None:
            self.draw, run.feeds.draw = run.feeds.draw, self.watched
            self.seen: list[list[str]] = []

        def watched(self, terms: Any) -> list[Any]:
            records = self.draw(terms)
            self.seen += [[self.text(path) for path in record.paths] for record in records]
            return records

        def text(self, path: Any) -> str:
            return "/".join(str(path.ids[slice(*span)].tolist()) for span in path.spans)

    told, drawn = {**recipe, "objective": KTO}, Drawn()
    go(told, tmp_path / "whole", thumbs, callbacks=[drawn])
    assert all(len(texts) == 2 for texts in drawn.seen)
    own = [mine for mine, _ in drawn.seen]
    for portion in (own[:5], own[5:11]):
        assert {other for mine, other in drawn.seen if mine in portion} == set(portion)
    shorter = {**told, "train": {**told["train"], "max_steps": 2}}
    go(shorter, tmp_path / "cut", thumbs)
    go(told, tmp_path / "cut", thumbs, resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_another_kind_that_comes_later_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="text records come in portion 2, and the first holds demonst"
    ):
        go(recipe, tmp_path / "out", lambda: iter(LATE))


def test_a_portion_that_nothing_can_be_used_of_is_not_the_end(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    def rows() -> Rows:
        for n in range(18):
            yield {"prompt": f"{n}?", "completion": f" {n}" if n < 6 or n > 11 else None}

    recipe["train"] |= {"batch_size": 6, "max_steps": 2, "logging_steps": 1}
    go(recipe, tmp_path / "run", rows)
    table = read_json(tmp_path / "run" / "data.json")["train"]["asked"]
    assert (table["records"], table["refused"]) == ({"demonstration": 12}, 6)

    def nothing() -> Rows:
        yield {"prompt": "Who?", "completion": None}

    with pytest.raises(RecipeError, match="no record is left to train on"):
        go(recipe, tmp_path / "none", nothing)


def test_encoding_ahead_of_time_leaves_it_to_the_run(tokenizer: Any, tmp_path: Path) -> None:
    said: list[str] = []
    rows = stream(lambda: asked([]))
    assert not encode_streams([rows], Encoder(tokenizer, 128), tmp_path, said.append).train
    assert said == ["data asked: arrives in portions, so each run reads it by itself"]
