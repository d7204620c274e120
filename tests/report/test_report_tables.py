"""Tables for papers and spreadsheets, and the command of each line, against numbers computed here."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from support.report_folders import make_axes_study, make_run, make_study, value
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.report.page import read_folders
from onestage.report.repeating import line_commands
from onestage.report.studies import read_study
from onestage.report.tables import csv_of, escaped, latex_of
from onestage.stats import critical


def test_latex_has_a_row_a_setting_and_escapes(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", runs=False, seeds=(0, 1, 2, 3))
    about = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**about, "name": "a_b & 10 %"}))
    text = latex_of(read_study(study))
    assert r"\caption{a\_b \& 10 \%: mean over 4 seeds" in text
    lines = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [line.split(" & ")[0] for line in lines] == [
        *("base", r"SFT-\textgreater{}DPO", "UFT", "MAXRIGHT")
    ]
    assert {line.count(" & ") for line in lines} == {3}
    assert all(line.endswith(r" \\") for line in lines)
    chain, uft = lines[1].split(" & "), lines[2].split(" & ")
    assert uft[1].startswith(r"\textbf{0.815}")  # the mean of .77, .80, .83, .86
    half = critical(3) * (0.03 * (5 / 3) ** 0.5) / 2  # sd of -1, 0, 1, 2 times the step
    assert rf"{{\scriptsize $\pm$ {half:.3f}}}" in uft[1]
    assert "dagger" in chain[3]  # knowledge fell by .3 on each of four seeds
    assert "dagger" not in chain[1]
    assert text.count("{") == text.count("}")


def test_csv_gives_bounds_and_seeds(tmp_path: Path) -> None:
    study = read_study(make_axes_study(tmp_path / "s", "learning_rate"))
    lines = list(csv.DictReader(csv_of(study).splitlines()))
    assert len(lines) == 7
    assert lines[0]["method"] == "base"
    assert lines[0]["learning_rate"] == ""
    last = lines[-1]
    assert (last["method"], last["learning_rate"], last["truth_n"]) == ("UFT", "0.01", "2")
    mean = sum(value("UFT", "truth", seed) for seed in (0, 1)) / 2 + 0.02
    assert float(last["truth"]) == pytest.approx(mean)
    half = critical(1) * 0.03 / 2  # two values .03 apart: sd .03 / sqrt 2, over sqrt 2
    assert float(last["truth_low"]) == pytest.approx(mean - half, rel=1e-4)
    assert float(last["truth_high"]) == pytest.approx(mean + half, rel=1e-4)


def test_a_single_run_has_no_bounds(tmp_path: Path) -> None:
    (found,) = read_folders([make_run(tmp_path / "run")])
    assert "single runs, without intervals." in latex_of(found)
    line = list(csv.DictReader(csv_of(found).splitlines()))[1]
    assert (line["sft loss"], line["sft loss_low"], line["sft loss_n"]) == ("1", "", "1")


@pytest.mark.parametrize(
    ("text", "latex"),
    [("a\\b", r"a\textbackslash{}b"), ("{x}", r"\{x\}"), ("SFT->DPO ~^", None), ("50 %_#$&", None)],
)
def test_what_latex_would_read_is_escaped(text: str, latex: str | None) -> None:
    found = escaped(text)
    assert latex is None or found == latex
    bare = re.sub(
        r"\\(textbackslash|textgreater|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]", "", found
    )
    assert not set(bare) & set("\\{}$&#^_~%<>")


def test_the_command_writes_both(tmp_path: Path) -> None:
    run, study = CliRunner().invoke, make_study(tmp_path / "s", runs=False)
    files = [tmp_path / "new" / "t.tex", tmp_path / "t.csv"]
    done = run(app, ["report", str(study), "--latex", str(files[0]), "--csv", str(files[1])])
    assert done.exit_code == 0, done.output
    assert all(file.stat().st_size > 100 for file in files)
    wrong = run(app, ["report", str(study), "--latex", str(tmp_path / "t.txt")])
    assert wrong.exit_code == 1
    assert "allowed are files .tex" in " ".join(wrong.output.split())


def test_every_line_has_a_command(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", runs=False)
    about = json.loads((study / "study.json").read_text())
    command = "onestage study my/table-1.yaml --jobs 2 --set 'world={name: lab}'"
    (study / "study.json").write_text(json.dumps({**about, "command": command}))
    found = line_commands(read_study(study))
    begun = "onestage study my/table-1.yaml --set 'world={name: lab}' --cell"
    assert found["base"] == f"{begun} '{{method: base, seeds: [0, 1, 2]}}'"
    assert found["UFT"] == (
        f"{begun} '{{method: UFT, seeds: [0, 1, 2], train.learning_rate: 0.0005}}'"
    )
    command = "onestage study --set recipe=r.yaml --set=world.name=lab --out x s.yaml"
    (study / "study.json").write_text(json.dumps({**about, "command": command}))
    begun = "onestage study s.yaml --set recipe=r.yaml --set world.name=lab --cell"
    assert line_commands(read_study(study))["base"].startswith(begun)
    (study / "study.json").write_text(json.dumps({**about, "command": "make studies"}))
    assert line_commands(read_study(study)) == {}
