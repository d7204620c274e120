"""The commands of README and docs are run as they stand there, with tiny models and small files.

What cannot be run here says why (`NOT_HERE`); that its flags are there, `test_names.py` sees.
"""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
from pathlib import Path

import openpyxl
import pytest
from support.markdown import PAGES, blocks, commands
from support.tiny import ROOT, write_recipe, write_rows
from typer.testing import CliRunner

import onestage as one
from onestage.cli import app

NOT_HERE = {
    r"onestage study .*\.yaml": "takes hours, or a cluster: tests/studies",
    r"onestage lab (base|rows)": "pretrains a base for a minute: tests/cli/test_lab_cli.py",
    r"--suite (ifeval|open_llm_v1|arc_easy|mt_bench)": "reads the hub, or asks a judge: tests/rollout",
    r"onestage serve .*(--run|--check)": "needs vLLM, or a server of it: tests/models/test_release.py",
    r"onestage export .*--gguf": "needs llama.cpp's converter: tests/models/test_release.py",
    r"onestage push ": "names a base on the hub: tests/cli/test_push.py",
    r"--method ama": "needs a model of three layers: tests/models/test_merging.py",
    r"--num-proc 16": "starts sixteen processes: tests/cli/test_encode.py",
    r"--count 10000": "as on rewards.md, where they are fewer",
    r"onestage claims docs/studies": "reads all of them: tests/studies/test_verdicts.py",
    r"onestage eval .*\.\.\.": "is shortened",
    r"train recipes/llama3": "needs GPUs and the hub: tests/whole/test_recipes_folder.py",
}
RUNS = ("first", "chain", "uft", "sft", "dpo", "chat", "wishes")
WORDS = "sea wind moon poem Paris red hello morning".split()
PAIRS = [{"prompt": f"{w}?", "chosen": f" It is {w}.", "rejected": " No, no."} for w in WORDS]
CHAT = [{"prompt": f"{w}?", "completion": f" The {w}."} for w in WORDS]
RATED = [
    {"prompt": f"{w}?", "completion": f" {w}.", "stars": stars, "rating": stars, "worker": rater}
    for w in WORDS[:4]
    for rater, stars in (("ann", 4), ("bob", len(w) % 5 + 1))
]
ROWS = {
    "pairs.jsonl": PAIRS,
    "data/chat.jsonl": CHAT,
    "data/pairs.jsonl": PAIRS,
    "good.jsonl": CHAT,
    "our-mails.jsonl": [{"text": f"The {w} is red, the moon is old."} for w in WORDS],
    "mine.jsonl": CHAT,
    "gsm8k.train.jsonl": [{"question": "1 + 1?", "answer": "1 + 1 is 2.\n#### 2"}],
}


@pytest.fixture(scope="module")
def trained(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, of which the pages' runs are copies: adapters of one base."""
    place = tmp_path_factory.mktemp("trained")
    held_out = str(write_rows(place / "held_out.jsonl", CHAT))
    pairs = str(write_rows(place / "pairs.jsonl", PAIRS))
    run = one.train(
        model={"name": str(model_folder), "lora": {"r": 16, "alpha": 32}},
        data={
            "chat": {"path": held_out, "eval_path": held_out},
            "pairs": {"path": pairs, "eval_path": pairs},
        },
        objective={"demonstration": "sft", "pair": "dpo"},
        optimum={"given": {"sft": 0.0, "dpo": 0.0}},
        train={"max_steps": 2, "batch_size": 4, "eval_steps": 2},
        out=place / "run",
        cache_dir=str(place / "cache"),
        say=lambda _: None,
    )
    return run.out


@pytest.fixture
def place(
    model_folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the models, files and runs that the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "cache"))
    for name in ("Qwen/Qwen3-0.6B", "mistralai/Mistral-7B-v0.1", "BASE"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(model_folder)
    for run in RUNS:
        shutil.copytree(trained, Path("runs") / run)
    shutil.copytree(ROOT / "docs" / "studies", "docs/studies")
    shutil.copytree(ROOT / "docs" / "studies" / "uft_tables_1_3", "runs/uft_tables_1_3")
    Path("studies").symlink_to(ROOT / "studies")
    Path("data").mkdir()
    for name, rows in ROWS.items():
        write_rows(Path(name), rows)
    return tmp_path


def tables() -> None:
    """The tables that the pages name."""
    import pyarrow as pa
    from pyarrow import parquet

    head = list(RATED[0])
    lines = [",".join(map(str, row.values())) for row in RATED]
    Path("ratings.csv").write_text("\n".join([",".join(head), *lines]) + "\n")
    scored = [f"{w}?, {w}.,{n / 7:.2f}" for n, w in enumerate(WORDS)]
    Path("mine.csv").write_text("\n".join(["prompt,completion,score", *scored]) + "\n")
    Path("notes.txt").write_text("one\ntwo\n")
    shared = [
        {"conversations": [{"from": "human", "value": w}, {"from": "gpt", "value": f"{w}!"}]}
        for w in WORDS
    ]
    Path("export.json").write_text(json.dumps(shared))
    book = openpyxl.Workbook()
    for cells in (
        ["prompt", "completion", "ann", "bob", "cy"],
        ["a", "b", 4, 5, 3],
        ["c", "d", 1, 2, 1],
    ):
        book.active.append(cells)
    book.save("wide.xlsx")
    problem = {"problem": ["1 + 1?"], "solution": ["It is \\boxed{2}."]}
    parquet.write_table(pa.table(problem), "math.parquet")
    axolotl = {"base_model": "BASE", "datasets": [{"path": "data/chat.jsonl"}], "num_epochs": 1}
    write_recipe(Path("llama3-lora.yaml"), {**axolotl, "adapter": "lora"})
    trl = {"model_name_or_path": "BASE", "dataset_name": "data/pairs.jsonl", "beta": 0.1}
    write_recipe(Path("dpo.yaml"), trl)


def shown() -> dict[Path, list[str]]:
    """What is run of each page: each command once, on the first page that it stands on."""
    found: dict[Path, list[str]] = {}
    seen: set[str] = set()
    for page in PAGES:
        typed = [one for one in commands(page) if not any(re.search(p, one) for p in NOT_HERE)]
        fresh = [one for one in typed if one not in seen or one.split()[1] == "train"]
        if fresh and page.stem != "quickstart":  # which has its own test
            found[page] = fresh
            seen |= set(fresh)
    return found


SHOWN = shown()


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page: Path, place: Path) -> None:
    tables()
    if page.stem == "rewards":
        write_rows(Path("mine.jsonl"), [{"nums": [1, 2, 3], "target": 6}])
    for _, block in blocks(page, "yaml"):  # a recipe whose first line names its file
        named = re.match(r"# (\w+\.yaml)", block)
        if named:
            Path(named[1]).write_text(block)
    for line in SHOWN[page]:
        if line.startswith("onestage import"):
            Path("recipe.yaml").unlink(missing_ok=True)
        if "recipe.yaml" in line and not Path("recipe.yaml").exists():
            recipe = {"model": "BASE", "data": {"chat": "data/chat.jsonl"}, "objective": "sft"}
            write_recipe(Path("recipe.yaml"), {**recipe, "train": {"max_steps": 1}})
        words = [w for word in shlex.split(line)[1:] for w in (sorted(glob.glob(word)) or [word])]
        if "--out" in words and words[0] == "train":
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        done = CliRunner().invoke(app, words, input="hello\n")
        assert done.exit_code == 0, f"{line}\n{done.output}"


def test_what_is_not_run_here_stands_on_the_pages() -> None:
    typed = [line for page in PAGES for line in commands(page)]
    assert len(typed) > 60
    for pattern in NOT_HERE:
        assert any(re.search(pattern, line) for line in typed), pattern
