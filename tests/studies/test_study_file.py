"""Study files: what is refused before anything is trained, and which cells there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_studies import content

from onestage.studies.cells import choices, recipe_of, reported, trials
from onestage.studies.described import described
from onestage.studies.file import StudyError, load_study, parse_study
from onestage.studies.variables import filled, used

SFT = {"try": {"rate": [1.0]}}
HERE = (Path("base"), Path("data"))


def study(**changes: Any) -> dict[str, Any]:
    return content(*HERE, **changes)


def methods(**more: Any) -> dict[str, Any]:
    return {**study()["methods"], **more}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": [0, 0]}, "seeds: 0 stands there twice"),
        ({"sedes": [1]}, r"sedes: unknown key.*seeds"),
        ({"base": "SFT"}, "also the name of a method"),
        ({"budget": {"updates": 3, "tokens": 9}}, "exactly one"),
        (
            {"methods": methods(A={**SFT, "stages": [{"name": "sft"}], "judge_after": ["sftt"]})},
            "methods.A.judge_after: no stage 'sftt'; did you mean 'sft'",
        ),
        ({"axes": {"seed": [1]}}, "filled in by the study"),
        ({"methods": methods(A={"try": {"rat": [1.0]}})}, r"\{rate\} stands for nothing.*rat"),
        ({"methods": methods(A={"try": {"rate": [1.0], "x": [1]}})}, r"nothing .* uses \{x\}"),
        ({"methods": methods(A={"try": {"rate": [1.0, 2.0]}})}, "several values; add tune"),
        (
            {"methods": methods(A={"try": {"rate": [1.0]}, "train": {"max_steps": 9}})},
            r"methods.A.train.max_steps: the study's budget",
        ),
        (
            {
                "methods": methods(A={"try": {"rate": [1.0, 2.0]}, "objective": "sft"}),
                "tune": {"seeds": [1]},
            },
            r"tune.seeds: \[1\] are also reported",
        ),
        (
            {
                "methods": methods(
                    A={"try": {"rate": [1.0, 2.0]}}, B={"try": {"rate": [1.0, 2.0, 3.0]}}
                ),
                "tune": {"seeds": [9]},
            },
            "as many for each",
        ),
        (
            {
                "methods": methods(A={"try": {"rate": [1.0, 2.0]}}),
                "tune": {"seeds": [9], "trials": 3},
            },
            r"2 trials, fewer than tune.trials \(3\)",
        ),
        (
            {"claims": [{"claim": "c", "metric": "m", "more": "SFT"}]},
            "either more and than, or trend",
        ),
        ({"claims": [{"claim": "c", "metric": "m", "more": "A", "than": ["B"], "direction": "same"}]},
         "needs a margin"),
    ],
)  # fmt: skip
def test_what_would_be_unfair_or_mistyped_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(StudyError, match=told):
        parse_study(study(**changes))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """YAML itself would silently take the second of two methods of one name."""
    file = tmp_path / "study.yaml"
    file.write_text("name: x\nmethods:\n  SFT: {}\n  DPO: {}\n  SFT: {}\n")
    with pytest.raises(StudyError, match="line 5: 'SFT' stands there twice"):
        load_study(file)


def test_what_is_shared_by_an_anchor_may_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: x\nworld: {name: folder}\nseeds: [0]\nrecipe: {}\nmethods:\n"
        "  A: &a {objective: sft, note: one}\n  B:\n    <<: *a\n    note: two\n"
    )
    found = load_study(file).methods
    assert (found["B"].sections, found["B"].note) == ({"objective": "sft"}, "two")
    assert found["A"].note == "one"


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study file"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("methods: [")
    with pytest.raises(StudyError, match="is not YAML"):
        load_study(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(StudyError, match="a study is a mapping"):
        load_study(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("model: {name: m}\ndata: []\ntrain: {}\n")
    with pytest.raises(StudyError, match="is a recipe: onestage train FILE") as refused:
        load_study(tmp_path / "c.yaml")
    assert "\n" not in str(refused.value)


def test_cells_with_one_folder_name_are_refused() -> None:
    """`SFT + DPO` and `SFT - DPO` would share a folder."""
    one = {"try": {"rate": [0.1]}}
    made = parse_study(study(methods={"SFT + DPO": one, "SFT - DPO": one}))
    with pytest.raises(StudyError, match="two cells have the name SFT_DPO-seed=0"):
        reported(made, {name: {"rate": 0.1} for name in made.methods})


def test_a_method_has_cells_only_over_the_axes_it_uses() -> None:
    made = parse_study(
        study(
            axes={"beta": [0.1, 0.3], "horizon": [4, 8]},
            methods={
                "SFT": {"objective": "sft", "try": {"rate": [0.1]}},
                "DPO": {"objective": {"name": "dpo", "beta": "{beta}"}, "try": {"rate": [0.1]}},
            },
        )
    )
    cells = reported(made, {"SFT": {"rate": 0.1}, "DPO": {"rate": 0.1}})
    assert [cell.name for cell in cells if cell.seed == 0] == [
        "base-seed=0",
        "SFT-seed=0",
        "DPO-beta=0.1-seed=0",
        "DPO-beta=0.3-seed=0",
    ]
    recipe = cells[3].recipe
    assert recipe is not None
    assert recipe["objective"] == {"name": "dpo", "beta": 0.3}
    assert recipe["model"] == {"name": "{base}"}
    assert recipe["train"]["learning_rate"] == 0.1


def test_axes_of_the_world_are_the_bases_too() -> None:
    changed = study(axes={"size": [1, 2]}, seeds=[0])
    changed["world"]["limit"] = "{size}"
    made = parse_study(changed)
    names = [cell.name for cell in reported(made, {"SFT": {"rate": 0.1}})]
    assert names == [
        "base-size=1-seed=0",
        "base-size=2-seed=0",
        "SFT-size=1-seed=0",
        "SFT-size=2-seed=0",
    ]


def test_as_many_trials_for_each_method() -> None:
    many = {"rate": [0.1, 0.2, 0.3]}
    made = parse_study(
        study(
            methods={
                "SFT": {"objective": "sft", "try": many},
                "DPO": {
                    "objective": {"name": "dpo", "beta": "{beta}"},
                    "try": {**many, "beta": [1, 2, 3]},
                },
            },
            tune={"seeds": [7, 8], "trials": 3},
        )
    )
    cells = trials(made)
    counts = {name: sum(cell.method == name for cell in cells) for name in made.methods}
    assert counts == {"SFT": 6, "DPO": 6}
    assert {cell.split for cell in cells} == {"validation"}
    drawn = choices(made, "DPO")
    assert len({tuple(choice.items()) for choice in drawn}) == 3
    assert drawn == choices(made, "DPO")
    assert choices(made, "SFT") == [{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}]


def test_sections_are_laid_over_the_common_recipe() -> None:
    over = {
        "streams": ["pairs"],
        "data": {"pairs": {"weight": 2}},
        "train": {"batch_size": 8},
        "objective": {"name": "dpo"},
        "try": {"rate": [0.1]},
    }
    made = parse_study(study(methods={"A": over}))
    recipe = recipe_of(made, "A")
    assert recipe["data"] == [
        {"name": "pairs", "path": "{data}/pair.train.jsonl", "weight": 2},
    ]
    assert recipe["train"]["batch_size"] == 8
    assert recipe["train"]["max_length"] == 64
    with pytest.raises(StudyError, match="no stream 'pear' among"):
        recipe_of(parse_study(study(methods={"A": {**over, "streams": ["pear"]}})), "A")


def test_a_changed_recipe_changes_the_digest() -> None:
    one, other = (
        reported(parse_study(study(budget={"updates": n})), {"SFT": {"rate": 0.1}})[1]
        for n in (4, 5)
    )
    assert one.name == other.name
    assert one.digest != other.digest


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.floats(0, 1), min_size=3))
def test_variables_keep_their_type_alone_and_their_text_in_company(values: dict[str, Any]) -> None:
    text = {"x": ["{a}", "{ b }/{c}.txt"], "{a}": 1, "y": 3}
    found = filled(text, values)
    assert found["x"] == [values["a"], f"{values['b']}/{values['c']}.txt"]
    assert found["y"] == 3
    assert used(text) == {"a", "b", "c"}
    assert not used(found)


def test_the_rest_of_one() -> None:
    assert filled({"w": "{1 - part}", "v": "{part}"}, {"part": 0.9}) == {"w": 0.1, "v": 0.9}
    assert filled("{open}", {}) == "{open}"
    with pytest.raises(ValueError, match="no number"):
        filled("{1 - part}", {"part": "half"})


def test_numbers_that_yaml_takes_for_text(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: x\nworld: {name: folder}\nseeds: [0]\nrecipe: {train: {learning_rate: '{rate}'}}\n"
        "methods:\n  A: {try: {rate: [1e-4]}}\n"
    )
    assert load_study(file).methods["A"].try_ == {"rate": [1e-4]}
    assert load_study(file, ["seeds=[3, 4]"]).seeds == [3, 4]


def test_what_a_study_tells_of_its_command_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-" + "a1" * 12
    words = ["study", "my table.yaml", "--set", f"world.judge={key}", "--on", "ray://u:secret@host"]
    monkeypatch.setattr("sys.argv", ["/home/me/bin/onestage", *words])
    told = described(parse_study(content(*HERE)), {}, [], {})["command"]
    assert told == ("onestage study 'my table.yaml' --set 'world.judge=***' --on 'ray://***@host'")
