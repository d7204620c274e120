"""Inputs that are none: rows, study files, folders in place of others.

Rows of every kind get values, nestings, encodings and files that do not belong there; `onestage check`
must count what it drops (`train.bad_rows: skip`) or refuse in `error:` lines. Folders are given where
others are wanted; studies have values that do not belong there.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from support.small_studies import content, ground

from bench.faults.damage import in_time
from bench.faults.recipes import NO_VALUES
from bench.faults.runs import WORDS, Said, chances, sorts

KINDS: dict[str, dict[str, Any]] = {
    "demonstration": {"prompt": "Q?", "completion": " A."},
    "turns": {
        "messages": [
            {"role": "user", "content": "Q?"},
            {"role": "assistant", "content": "A."},
        ]
    },
    "score": {"prompt": "Q?", "completion": " A.", "score": 0.5},
    "label": {"prompt": "Q?", "completion": " A.", "label": True},
    "pair": {"prompt": "Q?", "chosen": " A.", "rejected": " B."},
    "group": {"prompt": "Q?", "completions": [" A.", " B."], "scores": [1.0, 0.0]},
    "check": {"prompt": "Q?", "answer": "A"},
    "text": {"text": "A text."},
}
DEEP: Any = "end"
for _ in range(600):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(None, "", " ", 0, -1, True, [], {}, [[]], [None], {"a": None}, "\0", "\ud800", "\ufeff"),
    *(float("nan"), float("inf"), -float("inf"), 1e308, 10**40, 2**63, -(2**63), 1e-320),
    *(["a"], [{}], [{"role": "user"}], [{"role": 3, "content": "x"}], {"role": "user"}, DEEP),
    *([{"role": "assistant", "content": None}], [{"role": "user", "content": [1]}], "x" * 100_000),
    *(["a", 1], [1.0], [float("nan")], ["\ud800"], "\u2028", "<s></s>", [True, False], "{}"),
]
EXTRAS = ("weight", "id", "source", "kind", "tools", "chat_template_kwargs", "solution", "score")
Write = Callable[[Path, list[dict[str, Any]]], Path]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return text.encode("utf-8", "surrogatepass")


def _named(name: str, content: Callable[[list[dict[str, Any]]], bytes]) -> Write:
    def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
        (folder / name).write_bytes(content(rows))
        return folder / name

    return write


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


def _parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(_table(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def _twice(folder: Path, rows: list[dict[str, Any]]) -> Path:
    table = _table(rows)
    pq.write_table(
        table.append_column(table.column_names[0], table.column(0)), folder / "rows.parquet"
    )
    return folder / "rows.parquet"


def _binary(name: str) -> Write:
    return _named(name, lambda rows: np.random.default_rng(0).bytes(5000))


def _empty_folder(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "rows").mkdir()
    return folder / "rows"


def _loop(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "rows.jsonl").symlink_to("rows.jsonl")
    return folder / "rows.jsonl"


def _raw_surrogate(rows: list[dict[str, Any]]) -> bytes:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.replace("A", "\ud800", 1).encode("utf-8", "surrogatepass")


def _csv(rows: list[dict[str, Any]]) -> bytes:
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    return "\n".join(lines).encode("utf-8", "replace")


FILES: dict[str, Write] = {
    "jsonl": _named("rows.jsonl", _lines),
    "json list": _named("rows.json", lambda rows: json.dumps(rows).encode()),
    "json object": _named("rows.json", lambda rows: json.dumps({"data": rows}).encode()),
    "jsonl named json": _named("rows.json", _lines),
    "json named jsonl": _named("rows.jsonl", lambda rows: json.dumps(rows, indent=1).encode()),
    "jsonl named parquet": _named("rows.parquet", _lines),
    "csv": _named("rows.csv", _csv),
    "csv named jsonl": _named("rows.jsonl", _csv),
    "utf-16": _named("rows.jsonl", lambda rows: _lines(rows).decode().encode("utf-16")),
    "latin-1": _named(
        "rows.jsonl",
        lambda rows: json.dumps({**rows[0], "x": "\xe9"}, ensure_ascii=False).encode("latin-1"),
    ),
    "a byte order mark": _named("rows.jsonl", lambda rows: b"\xef\xbb\xbf" + _lines(rows)),
    "a surrogate": _named("rows.jsonl", _raw_surrogate),
    "zeros": _named("rows.jsonl", lambda rows: _lines(rows) + bytes(100)),
    "cut": _named("rows.jsonl", lambda rows: _lines(rows)[:-20]),
    "no lines": _named("rows.jsonl", lambda rows: b""),
    "empty lines": _named("rows.jsonl", lambda rows: b"\n\n\r\n" + _lines(rows)),
    "scalars": _named("rows.jsonl", lambda rows: b'1\n"a"\nnull\n[]\nNaN\n'),
    "a key twice": _named(
        "rows.jsonl", lambda rows: _lines(rows).replace(b"{", b'{"prompt": "other", ', 1)
    ),
    "a deep line": _named("rows.jsonl", lambda rows: b'{"prompt": ' + b"[" * 100_000 + b"\n"),
    "gzip": _named("rows.jsonl.gz", lambda rows: gzip.compress(_lines(rows))),
    "gzip cut": _named("rows.jsonl.gz", lambda rows: gzip.compress(_lines(rows))[:-9]),
    "no gzip": _named("rows.jsonl.gz", _lines),
    "parquet": _parquet,
    "parquet cut": lambda f, rows: _cut(_parquet(f, rows)),
    "a column twice": _twice,
    "parquet empty": _named("rows.parquet", lambda rows: b""),
    "binary jsonl": _binary("rows.jsonl"),
    "binary parquet": _binary("rows.parquet"),
    "binary": _binary("rows"),
    "an empty folder": _empty_folder,
    "a link to itself": _loop,
    "none": lambda folder, rows: folder / "none.jsonl",
}


def _cut(file: Path) -> Path:
    os.truncate(file, file.stat().st_size // 2)
    return file


Case = tuple[str, list[str]]


class Ground:
    """Where inputs are made, and the recipe that names them."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        self.recipes = sorts(root)
        base, data = ground(root / "ground", root / "model")
        self.study = content(base, data, seeds=[0])
        lora = Said(["train", self.file("lora", self.recipes["lora"]), "--out", str(root / "run")])
        if lora.code:
            raise RuntimeError(lora.text)

    def file(self, name: str, content: Any) -> str:
        text = yaml.safe_dump(content, allow_unicode=False)
        (self.root / f"{name}.yaml").write_text(text)
        return str(self.root / f"{name}.yaml")

    def checked(self, kind: str, data: Path, chance: random.Random) -> list[str]:
        recipe = copy.deepcopy(self.recipes["lora"])
        stream: dict[str, Any] = {"name": "rows", "path": str(data)}
        if kind == "check":
            stream |= {"kind": "check", "reward": "match"}
            recipe |= {"objective": "reinforce", "rollout": {"num_generations": 2}}
        recipe["data"] = [stream]
        recipe["train"]["bad_rows"] = chance.choice(["skip", "error"])
        command = chance.choice(["check", "check", "train"])
        words = [command, self.file("rows", recipe)]
        return words + (["--out", str(self.folder() / "out")] if command == "train" else [])

    def folder(self) -> Path:
        self.count += 1
        folder = self.root / f"case-{self.count}"
        folder.mkdir()
        return folder


def rows(there: Ground, chance: random.Random) -> Case:
    """One or more values of some rows of a kind are others; the file is of any sort."""
    kind = chance.choice(list(KINDS))
    many = [copy.deepcopy(KINDS[kind]) for _ in WORDS]
    told: list[str] = []
    for row in chance.sample(many, chance.choice([1, 1, len(many)])):
        key = chance.choice([*row, *EXTRAS])
        value = chance.choice(VALUES)
        told.append(f"{key} = {str(value)[:30]!r}")
        if chance.random() < 0.15:
            row.pop(key, None)
        else:
            row[key] = value
    sort = "jsonl" if chance.random() < 0.7 else "parquet"
    try:
        file = FILES[sort](there.folder(), many)
    except (pa.ArrowException, UnicodeError, OverflowError, ValueError, TypeError):
        sort, file = "jsonl", FILES["jsonl"](there.folder(), many)
    return f"{kind} {told} in {sort}", there.checked(kind, file, chance)


def files(there: Ground, chance: random.Random) -> Case:
    """A file that is not what it says."""
    kind, sort = chance.choice(list(KINDS)), chance.choice(list(FILES))
    many = [copy.deepcopy(KINDS[kind]) for _ in WORDS]
    return f"{kind} in {sort}", there.checked(kind, FILES[sort](there.folder(), many), chance)


def studies(there: Ground, chance: random.Random) -> Case:
    """A study file with a value that does not belong there."""
    study = copy.deepcopy(there.study)
    holders = list(_holders(study))
    at = chance.choice(holders)
    key = chance.choice(list(at)) if isinstance(at, dict) else chance.randrange(len(at))
    value = chance.choice(NO_VALUES)
    told = f"study: {key} = {str(value)[:30]!r}"
    at[key] = value
    # Nothing is to be trained where the value happens to be allowed.
    words = ["study", there.file("study", study), "--out", str(there.folder() / "out")]
    return told, [*words, "--jobs", "1", "--set", "budget.updates=1"]


def _holders(study: Any) -> Iterator[Any]:
    if isinstance(study, dict | list) and study:
        yield study
        for one in study.values() if isinstance(study, dict) else study:
            yield from _holders(one)


def folders(there: Ground, chance: random.Random) -> Case:
    """A folder where another sort of folder, or a file, is wanted."""
    root = there.root
    stores = sorted((root / "cache" / "tokens").iterdir())
    names = ("run", "model", "run/model", "cache", "", "run/checkpoints", "demos.jsonl", "none")
    there_is = [root / name for name in (*names, "lora.yaml", "run/recipe.yaml")]
    elsewhere = [Path("/dev/null"), Path("a" * 300), there.folder(), stores[0]]
    given = chance.choice([*there_is, *elsewhere])
    recipe = copy.deepcopy(there.recipes["lora"])
    how = chance.choice(["model", "tokenizer", "data", "reference", "cache", "reward", "out"])
    out = str(there.folder() / "out")
    if how == "out":
        return f"out {given}", ["train", str(root / "lora.yaml"), "--out", str(given)]
    if how == "model":
        recipe["model"]["name"] = str(given)
    elif how == "tokenizer":
        recipe["model"]["tokenizer"] = str(given)
    elif how == "data":
        recipe["data"][0]["path"] = str(given)
    elif how == "cache":
        recipe["cache_dir"] = str(given)
    elif how == "reference":
        recipe["reference"] = str(given)
    else:
        told = f"{given}"
        command = chance.choice(["report", "front", "score", "sample", "merge", "check", "study"])
        words = {
            "report": [str(given), "--out", out],
            "front": [str(given)],
            "score": ["--model", str(given), "--data", str(given), "--out", out],
            "sample": ["--model", str(given), "--prompts", str(given)],
            "merge": [str(given), str(root / "model"), "--out", out],
            "check": [str(given)],
            "study": [str(given), "--out", out, "--jobs", "1"],
        }
        return f"{command} {told}", [command, *words[command]]
    return f"{how} {given}", ["train", there.file("folder", recipe), "--out", out]


def uncounted(text: str) -> str:
    """Why what was said of a file of so many rows does not account for each of them; `""`: it does."""
    line = re.search(r"^data rows: (.*?); [\d,]+ tokens(.*)$", text, re.M)
    if not line:
        return "no line about the data"
    left = [
        (int(n.replace(",", "")), what)
        for n, what in re.findall(r"(\d[\d,]*) (.+?)(?:;|$)", line[2])
    ]
    kept = sum(int(number.replace(",", "")) for number in re.findall(r"(\d[\d,]*) \w", line[1]))
    known = kept + sum(number for number, what in left if "cut" not in what)
    return "" if known == len(WORDS) else f"{known} of {len(WORDS)} rows are accounted for"


SORTS = {"rows": rows, "files": files, "studies": studies, "folders": folders}


def faults(most: int, seed: int, root: Path) -> tuple[str, list[str]]:
    """Inputs that are none: how many were refused or allowed, and what should not be said of them."""
    there, chance = Ground(root), chances(seed, "inputs")
    found: Counter[str] = Counter()
    wrong = []
    for number in range(most):
        sort = list(SORTS)[number % len(SORTS)]
        told, words = SORTS[sort](there, chance)
        try:
            with in_time():
                said = Said(words)
        except TimeoutError as error:
            wrong.append(f"{sort}: {told}: {error}")
        else:
            how = "usage" if said.usage else "allowed" if said.code == 0 else "refused in a line"
            found[f"{sort} {how}"] += 1
            lost = uncounted(said.text) if sort == "rows" and said.code == 0 else ""
            if lost or not said.plain:
                wrong.append(f"{sort}: {told}: {' '.join(words)[:200]}: {lost} {said.text[-600:]}")
                print(f"FAULT {wrong[-1]}", flush=True)
    return f"{most} inputs: {dict(sorted(found.items()))}", wrong
