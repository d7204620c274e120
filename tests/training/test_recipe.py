"""Recipes: names, overrides, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.drafts import data_of, terms_of
from support.tiny import make_tokenizer, write_recipe, write_rows

from onestage.config import RecipeError
from onestage.training.pipeline import carry_out
from onestage.training.plan import make_plan
from onestage.training.recipe import load_recipe, parse_recipe

Make = Callable[..., dict[str, Any]]


def go(recipe: dict[str, Any], tmp_path: Path) -> None:
    carry_out(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modl": {}}, r"modl: unknown key; did you mean 'model'"),
        (
            {"train": {"learning_rat": 1}},
            r"train.learning_rat: unknown key; did you mean 'learning_rate'",
        ),
        (
            {"model": {"name": "x", "lora": {"rank": 1}}},
            "model.lora.rank: unknown key; adapters are",
        ),
        ({"seed": 1}, "seed: unknown key; it is train.seed"),
        ({"weight": 2}, r"weight: unknown key; a stream's share .* schedule: {name: mix, weights"),
        ({"train": {"gradient_accumulation_steps": 4}}, "train.batch_size is of the whole step"),
        ({"data": [{"name": "a", "path": "p", "wight": 1}]}, "data.0.wight: unknown key.*'weight'"),
        ({"data": []}, "data: .*at least 1"),
        ({"data": [{"name": "a", "path": "p"}] * 2}, "more than once"),
        ({"train": {"batch_size": 0}}, "train.batch_size: .*got 0"),
        ({"train": {"learning_rate": -1}}, "train.learning_rate"),
        ({"train": {"max_length": 100, "tokens_per_row": 50}}, "must hold the longest path"),
        ({"train": {"max_steps": 5, "num_train_epochs": 1}}, "not both"),
        ({"train": {"overflow": "cut"}}, "train.overflow"),
        ({"train": {"eval_steps": 5}}, "needs a stream with eval_path"),
        ({"model": {}}, "exactly one of model.name and model.config"),
        ({"model": {"name": "a", "config": {}}}, "exactly one"),
        ({"model": {"config": {"model_type": "llama"}}}, "needs model.tokenizer"),
        ({"model": {"name": "a", "load_in_4bit": True}}, "add model.lora"),
    ],
)
def test_bad_recipes_are_refused(change: dict[str, Any], message: str) -> None:
    recipe = {"model": {"name": "m"}, "data": [{"name": "a", "path": "p"}], **change}
    with pytest.raises(RecipeError, match=message):
        parse_recipe(recipe)


def test_a_study_where_a_recipe_is_wanted_gets_one_line(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "s.yaml", {"name": "s", "recipe": {}, "methods": {"A": {}}})
    with pytest.raises(RecipeError, match="onestage study FILE") as refused:
        load_recipe(file)
    assert "\n" not in str(refused.value)


def test_overrides(tmp_path: Path) -> None:
    file = write_recipe(
        tmp_path / "r.yaml",
        {"model": {"name": "m"}, "data": [{"name": "a", "path": "p"}], "objective": "dpo"},
    )
    recipe = load_recipe(
        file,
        [
            "train.learning_rate=1e-4",
            "objective.beta=0.3",
            "data.a.limit=7",
            "model.lora.r=4",
            "data.0.path=q",
        ],
    )
    assert recipe.train.learning_rate == 1e-4
    assert recipe.objective == {"name": "dpo", "beta": 0.3}
    assert (recipe.data[0].limit, recipe.data[0].path) == (7, "q")
    assert recipe.model.lora is not None
    assert recipe.model.lora.r == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate", "expected section.key=value"),
        ("train.lerning_rate=1", "did you mean 'learning_rate'"),
        ("data.b.limit=1", r"no stream 'b'; there are \['a'\]"),
        ("model.name.x=1", "is a value, not a section"),
    ],
)
def test_bad_overrides_are_refused(override: str, message: str, tmp_path: Path) -> None:
    file = write_recipe(
        tmp_path / "r.yaml", {"model": {"name": "m"}, "data": [{"name": "a", "path": "p"}]}
    )
    with pytest.raises(RecipeError, match=message):
        load_recipe(file, [override])


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe at"):
        load_recipe(tmp_path / "none.yaml")
    for text, message in (("a: [", "not YAML"), ("- 1", "a recipe is a mapping")):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("kinds", "objective", "message"),
    [
        (("pair",), "dpoo", "did you mean 'dpo'"),
        (("pair",), {"name": "dpo", "bta": 1}, "did you mean 'beta'"),
        (("demonstration",), "dpo", "dpo cannot use demonstration records .*it can use pair"),
        (("score",), "sft", "set min_score"),
        (("pair", "label"), {"pair": "dpo"}, "none is given for label records of stream labels"),
        (("pair",), {"pairss": "dpo"}, "no kind or stream; did you mean 'pairs'"),
        (("pair",), {"pair": 3}, "expected a name"),
        (("score",), {"name": "uft", "offset": "group", "target_clip": 0.1}, "cannot use score"),
    ],
)
def test_objectives_that_do_not_fit_are_refused(
    kinds: tuple[str, ...], objective: Any, message: str, recipe_of: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        go(recipe_of(*kinds, objective=objective), tmp_path)
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": "adamw_torc"}, "did you mean 'adamw_torch'"),
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type 'cosin'"),
        ({"report_to": "tensorbord"}, "did you mean 'tensorboard'"),
        ({"max_length": 8, "tokens_per_row": 64}, r"longer than train.max_length.*\n.*jsonl:1: "),
    ],
)
def test_training_options_that_cannot_be_honoured(
    change: dict[str, Any], message: str, recipe_of: Make, tmp_path: Path
) -> None:
    recipe = recipe_of("demonstration")
    recipe["train"] |= change
    with pytest.raises(RecipeError, match=message):
        go(recipe, tmp_path)


def test_bad_rows_stop_the_run_or_are_counted(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("pair", objective="dpo")
    file = Path(recipe["data"][0]["path"])
    tie = {"prompt": "p", "chosen": " same", "rejected": " same"}
    write_rows(file, [{"prompt": "p", "chosen": " a"}, tie])
    with file.open("a") as opened:
        opened.write("{not json\n")
        opened.write('{"prompt": "p", "chosen": " a", "rejected": " b"}\n')
    with pytest.raises(RecipeError, match=r"2 rows cannot be used.*\n.*pair.jsonl:1") as caught:
        go(recipe, tmp_path)
    assert "rejected" in str(caught.value)
    recipe["train"]["bad_rows"] = "skip"
    go(recipe, tmp_path)
    import json

    table = json.loads((tmp_path / "out" / "data.json").read_text())["train"]["pairs"]
    assert (table["records"], table["refused"], table["ties"]) == ({"pair": 1}, 2, 1)


def test_a_tokenizer_larger_than_the_model_is_refused(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration")
    recipe["model"]["config"] = {**recipe["model"]["config"], "vocab_size": 300}
    with pytest.raises(ValueError, match=r"ids up to 3.., but the model has 300 embeddings"):
        go(recipe, tmp_path)


def test_messages_without_a_template_are_refused(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration")
    make_tokenizer(chat=None).save_pretrained(tmp_path / "plain")
    recipe["model"]["tokenizer"] = str(tmp_path / "plain")
    with pytest.raises(RecipeError, match="no chat template"):
        go(recipe, tmp_path)
    from support.tiny import CHAT

    (tmp_path / "chat.jinja").write_text(CHAT)
    recipe["model"]["chat_template"] = str(tmp_path / "chat.jinja")
    go(recipe, tmp_path)


def test_adapters_that_cannot_be_honoured(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration")
    recipe["model"]["lora"] = {"r": 2, "target_modules": ["lm_head"]}
    with pytest.raises(ValueError, match="output head"):
        go(recipe, tmp_path)


def quiet(line: str) -> None:
    return None


def test_steps_from_epochs_weights_and_counts(recipe_of: Make) -> None:
    recipe = recipe_of("demonstration", "pair")  # 10 and 8 records
    del recipe["train"]["max_steps"]
    recipe["train"]["num_train_epochs"] = 2
    parsed = parse_recipe(recipe)
    data = data_of(parsed)
    plan = make_plan(parsed, data)
    mixture, steps = plan.feeds.together, plan.steps
    assert steps == 6
    drawn = [r.id for step in range(steps) for r in mixture.draw(step)]
    assert len(drawn) == 36
    assert all(drawn.count(one) == 2 for one in set(drawn))
    recipe["data"][0]["per_step"] = 1
    mixture = make_plan(parse_recipe(recipe), data).feeds.together
    assert mixture.take(0) == {"demonstrations": 1, "pairs": 5}


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(0.3, 1, 3), (1.1, 1, 11), (0.25, 1, 2)])
def test_part_of_an_epoch_has_no_step_without_records(
    epochs: float, batch: int, steps: int, recipe_of: Make
) -> None:
    recipe = recipe_of("demonstration")  # 10 records; 10 x 1.1 is 11.000000000000002
    recipe["train"] |= {"max_steps": None, "num_train_epochs": epochs, "batch_size": batch}
    parsed = parse_recipe(recipe)
    plan = make_plan(parsed, data := data_of(parsed))
    assert plan.steps == steps
    assert all(plan.feeds.together.draw(step) for step in range(steps))
    recipe["train"]["num_train_epochs"] = 0.01
    with pytest.raises(RecipeError, match="less than one of the 10 records"):
        make_plan(parse_recipe(recipe), data)


def test_one_objective_is_one_term_and_maps_are_read_stream_first(recipe_of: Make) -> None:
    recipe = recipe_of("demonstration", "pair", "label")
    data = data_of(parse_recipe(recipe))
    assert list(terms_of(parse_recipe(recipe), data).objectives) == ["uft"]
    recipe["objective"] = {
        "pairs": {"name": "dpo", "beta": 0.5},
        "pair": "ipo",
        "demonstration": "sft",
        "label": "uft",
    }
    terms = terms_of(parse_recipe(recipe), data)
    assert terms.term_of["pairs", "pair"] == "dpo"
    assert terms.objectives["dpo"].beta == 0.5
    assert set(terms.objectives) == {"dpo", "sft", "uft"}


def test_the_names_of_default_terms_are_keys(recipe_of: Make) -> None:
    """Two forms of one objective are two terms, which can be weighed by the names they have."""
    recipe = recipe_of("pair", "demonstration", "label")
    recipe["objective"] = {
        "pair": "uft",
        "label": {"name": "uft", "beta": 0.5},
        "demonstration": "sft",
    }
    data = data_of(parse_recipe(recipe))
    default = terms_of(parse_recipe(recipe), data)
    names = list(default.objectives)
    assert names == ["uft", "sft", "uft-labels-label"]
    again = terms_of(parse_recipe(recipe), data, names)
    assert (again.term_of, again.objectives) == (default.term_of, default.objectives)


def test_ratings_and_ranges_reach_the_scores(recipe_of: Make, tmp_path: Path) -> None:
    """HelpSteer2's weights: (3, 4, 4) is (0.65 * 3 + 0.8 * 4 + 0.45 * 4) / 7.6 = 0.9145."""
    recipe = recipe_of("score")
    row = {"prompt": "p", "response": " a", "helpfulness": 3, "correctness": 4, "coherence": 4}
    write_rows(Path(recipe["data"][0]["path"]), [row])
    recipe["data"][0] |= {
        "columns": {"completion": "response"},
        "ratings": {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45},
        "score_range": [0, 4],
    }
    data = data_of(parse_recipe(recipe))
    assert data.train["scores"][0].scores == (pytest.approx(6.95 / 7.6),)


def test_plain_strings_can_go_through_the_chat_template(recipe_of: Make) -> None:
    recipe = recipe_of("pair", "text")
    recipe["data"][0]["as_messages"] = recipe["data"][1]["as_messages"] = True
    tokenizer = make_tokenizer()
    data = data_of(parse_recipe(recipe))
    chosen = tokenizer.decode(data.train["pairs"][0].paths[0].ids)
    assert chosen.startswith("<s><|user|>\nQuestion: sea? Answer:</s>\n<|assistant|>\n The answer")
    assert tokenizer.decode(data.train["texts"][0].paths[0].ids).startswith("<s>Roses")


def test_a_fresh_model_from_a_config_file(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["model"]["config"] = str(model_folder / "config.json")
    go(recipe, tmp_path)
    assert (tmp_path / "out" / "model" / "config.json").is_file()


def test_a_section_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("model: {name: a}\ntrain: {max_steps: 2}\ndata: []\ntrain: {batch_size: 4}\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml, line 4: 'train' stands there twice"):
        load_recipe(file)
