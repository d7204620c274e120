"""The recipes that are shipped: they parse, their objectives exist, and their pieces work."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tiny import REAL_DATA, make_tokenizer, write_rows

from onestage.data.encoded import Encoded
from onestage.data.reading import read
from onestage.data.record import Record
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.rollout import suites
from onestage.runfolder import read_metrics
from onestage.training.choices import objectives_of, schedule_of
from onestage.training.pipeline import carry_out
from onestage.training.plan import stages_of
from onestage.training.recipe import load_recipe, parse_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
sys.path.insert(0, str(ROOT / "recipes"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_parses_and_its_objectives_exist(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.description
    for stage in stages_of(recipe, Path("out")):
        run = stage.recipe
        assert objectives_of(run.objective, run.data, run.rollout.max_completion_length)
        assert schedule_of(run.schedule)


def test_a_large_model_says_how_it_is_evaluated_and_what_to_expect() -> None:
    """Every recipe of 7B and more that trains what writes; suites are ours or tasks of lm-eval."""
    found = 0
    for file in RECIPES:
        recipe = load_recipe(file)
        if not re.search(r"\b(7B|8B|70B)\b", recipe.model.name or "", re.IGNORECASE):
            continue
        if recipe.model.task == "reward":
            continue
        told, found = recipe.description, found + 1
        asked = re.findall(r"--suite (\w+)", told.partition("`onestage evaluate runs/")[2])
        assert asked, file.name
        assert {*asked} <= {*suites.names(), "minerva_math500", "aime24", "aime25"}, file.name
        assert re.search(r"expect|no number|base beside", told), file.name
    assert found >= 15


def test_the_template_of_the_xright_authors() -> None:
    """User and Assistant lines, and the response scored from its first token to its end token."""
    tokenizer = make_tokenizer(chat=(ROOT / "recipes/templates/user_assistant.jinja").read_text())
    rows = [{"prompt": "say sea", "completion": "the sea"}]
    record = record_of(rows[0], Stream("s"), "f:1", ()).as_messages()
    (encoded,) = Encoder(tokenizer, 128).encode_all([record])
    (path,) = encoded.paths
    ids = path.ids.tolist()
    assert tokenizer.decode(ids) == "<s>User: say sea\nAssistant: the sea</s>"
    ((start, end),) = path.spans
    # The template ends with a blank, which this tokenizer would join to the response's first token
    # (xright.md T20). The model is asked with the blank as a token of its own, and is trained so.
    assert tokenizer.decode(ids[start:end]) == "the sea</s>"
    assert (
        ids[:start]
        == tokenizer("<s>User: say sea\nAssistant: ", add_special_tokens=False)["input_ids"]
    )


HELPSTEER = [
    {"prompt": "p", "response": " good", "helpfulness": 4, "correctness": 4, "coherence": 4},
    {"prompt": "p", "response": " bad", "helpfulness": 0, "correctness": 0, "coherence": 0},
    {"prompt": "q", "response": " one", "helpfulness": 2, "correctness": 2, "coherence": 2},
    {"prompt": "q", "response": " two", "helpfulness": 2, "correctness": 2, "coherence": 2},
]


def test_helpsteer2_through_the_published_recipe(tmp_path: Path) -> None:
    """The stream of the UNA recipe, on a file of HelpSteer2's shape, with the recipe's template."""
    stream = load_recipe(ROOT / "recipes" / "mistral_7b_una_score.yaml").data[0]
    file = write_rows(tmp_path / "helpsteer.jsonl", HELPSTEER)
    local = stream.model_copy(update={"path": str(file), "eval_split": None})
    records = [r for r in read(local) if isinstance(r, Record)]
    assert [r.scores for r in records] == [(1.0,), (0.0,), (0.5,), (0.5,)]
    template = (ROOT / "recipes" / "templates" / "mistral.jinja").read_text()
    tokenizer = make_tokenizer(chat=template)
    encoded = Encoder(tokenizer, 100).encode(records[0])
    assert isinstance(encoded, Encoded)
    (path,) = encoded.paths
    ((start, end),) = path.spans
    assert tokenizer.decode(path.ids) == "<s>[INST] p [/INST]  good</s>"
    assert tokenizer.decode(path.ids[start:end]) == "  good</s>"


def test_helpsteer2_as_pairs_and_labels(tmp_path: Path) -> None:
    from prepare_helpsteer2 import labels_of, pairs_of, scored_source

    file = write_rows(tmp_path / "helpsteer.jsonl", HELPSTEER)
    records = [r for r in read(scored_source(str(file))) if isinstance(r, Record)]
    pairs, ties = pairs_of(records)
    assert ties == 1
    (pair,) = pairs
    assert (pair["chosen"], pair["rejected"], pair["chosen_score"]) == (" good", " bad", 1.0)
    assert [row["label"] for row in labels_of(pairs)] == [True, False]


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the small real data is not here")
@pytest.mark.parametrize(
    "objective", ["uft", {"demonstration": "sft", "pair": "dpo", "group": "uft"}]
)
def test_real_data_in_one_run(objective: Any, tmp_path: Path) -> None:
    """Demonstrations, pairs and scored groups of real text: laws hold and the loss falls."""
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    names = ("gpteacher_roleplay", "hh_harmless_pairs", "alpaca_eval_scored")
    data = [{"name": n, "path": str(REAL_DATA / f"{n}.train.jsonl.gz"), "limit": 12} for n in names]
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    shape |= {"vocab_size": 400, "num_hidden_layers": 1, "max_position_embeddings": 8192}
    recipe = {
        "model": {
            "config": {"model_type": "llama", **shape, "bos_token_id": 0, "eos_token_id": 1},
            "tokenizer": str(tmp_path / "tokenizer"),
        },
        "data": data,
        "objective": objective,
        "train": {
            "max_steps": 12,
            "batch_size": 6,
            "learning_rate": 3e-3,
            "max_length": 512,
            "overflow": "truncate_prompt",
            "logging_steps": 1,
        },
        "cache_dir": str(tmp_path / "cache"),
    }
    said: list[str] = []
    carry_out(parse_recipe(recipe), tmp_path / "out", say=said.append)
    assert sum("holds" in line for line in said) == 5
    lines = read_metrics(tmp_path / "out")
    losses = [line["gpteacher_roleplay/loss"] for line in lines]
    assert sum(losses[-3:]) < sum(losses[:3])
