"""Tasks of `lm-eval` by name or file, and their data: here, or named in one line before anything long.

A data set `owner/name` of the hub is taken from `FOLDER/owner/name` where a folder of data was given
and has it (`hf download --repo-type dataset owner/name --local-dir FOLDER/owner/name` puts it there),
else from the hub's cache, else from the hub.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from onestage.data.reach import require_within_reach

MISSING = "needs the package lm-eval: pip install 'onestage[eval]'"
SHOWN = 12
"""Data sets that are named of those that are missing."""
NAMED = re.compile(r"^[\"']?(?:task|group|tag)[\"']?:(.*(?:\n[ -].*)*)", re.M)
"""In a file of the library: its name, or the names of its tasks, and its tags."""
NO_TASKS = {".py", ".pyc", ".md", ".txt", ".json", ".jsonl", ".csv", ".sh"}
"""Ends of other files that lie there."""
WORD = re.compile(r"[^\s\"',\[\]]+")
Spec = Mapping[str, Any]
"""`task`: its name, and what of its configuration is another."""


def missing() -> str | None:
    """Why there is no library, or None."""
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError as error:
        return f"{MISSING} ({error})"
    return None


def require() -> None:
    """Raise `ValueError` where the library is not installed."""
    if why := missing():
        raise ValueError(why)


def load(name: str, data: Path | None, shots: int | None) -> list[tuple[str, Any]]:
    """The tasks that a name (of a task, group or tag) or a YAML file stands for, with their own names.

    Raises `ValueError` for an unknown name, with the nearest, and for data that cannot be had.
    """
    import datasets

    group = _group_file(name)
    wanted: Any = str(group) if group else {"group": "asked", "task": _local(name, data)}
    try:
        found = _library_of(name).load(wanted)["tasks"]
    except (OSError, ImportError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"the lm-eval task {name} cannot be loaded: {said}") from error
    for own, task in found.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise ValueError(f"the lm-eval task {own} runs code that a model wrote: not here")
        drawn, how = task.get_config("repeats") or 1, task.get_config("generation_kwargs") or {}
        if drawn > 1 and how.get("do_sample"):
            raise ValueError(
                f"the lm-eval task {own} judges {drawn} drawn answers of each question, and here one is "
                "asked for: take another task"
            )
        given = task.get_config("num_fewshot")
        if shots is not None and given != 0:  # where a task says 0, the library leaves it so
            task.set_config(key="num_fewshot", value=shots)
        elif given is None:
            task.set_config(key="num_fewshot", value=0)
    return list(found.items())


def told_of(name: str) -> list[Mapping[str, Any]]:
    """What the library's group of a name says of its numbers (`aggregate_metric_list`); [] of a task, a
    tag, or a group that says nothing."""
    file = _file(name)
    entry = None if file is not None else _library().task_index.get(name)
    content = _content(file) if file is not None else (entry.cfg or {}) if entry is not None else {}
    told = content.get("aggregate_metric_list") or []
    return [told] if isinstance(told, Mapping) else [*told]


def require_data(what: str, names: Sequence[str], data: Path | None) -> None:
    """Raise `ValueError` with every data set of some tasks that is not here and cannot be fetched."""
    lost: dict[str, None] = {}
    for name in names:
        for spec in () if _group_file(name) else _local(name, data):
            place = _place(name, spec)
            if isinstance(place, str) and "/" in place and not Path(place).exists():
                try:
                    require_within_reach("dataset_path", place, "dataset")
                except ValueError:
                    lost[place] = None
    if lost:
        shown = ", ".join([*lost][:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
        raise ValueError(
            f"the suite {what} needs data that is not on this disk, and the hub cannot be asked: "
            f"{shown}; fetch each data set elsewhere (hf download --repo-type dataset NAME --local-dir "
            "FOLDER/NAME), bring FOLDER here, and give --data FOLDER"
        )


@cache
def _library() -> Any:
    """With all of its own tasks, thousands of files: that takes seconds."""
    _quiet()
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _library_of(name: str) -> Any:
    """That knows a name; of a file of one task, that task and nothing else."""
    file = _file(name)
    if file is None or _group_file(name):
        return _library()
    _quiet()
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import TaskIndex

    found = TaskManager(include_defaults=False)
    TaskIndex.process_cfg(_content(file), file, found.task_index)
    return found


def _group_file(name: str) -> Path | None:
    """A file of a group: what it says of all its tasks is left to the library."""
    file = _file(name)
    return file if file is not None and "group" in _content(file) else None


def _content(file: Path) -> dict[str, Any]:
    """What a task file says, with what it includes. Raises `ValueError` where it is no such file."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        content: dict[str, Any] = load_yaml(file, resolve_func=False)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"the task file {file}: {' '.join(str(error).split())[:300]}") from error
    if "task" not in content and "group" not in content:
        raise ValueError(
            f"the task file {file} names no task (task: NAME); lm-eval reads none of it"
        )
    return content


def _quiet() -> None:
    import logging

    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def known(name: str) -> bool:
    """Whether the library has a task, group or tag of the name, or it is a YAML file of one."""
    return _file(name) is not None or name in _names()


@cache
def _names() -> frozenset[str]:
    """All that the library's files name as tasks, groups or tags, and perhaps a little more: without
    reading them as YAML, which takes ten times as long."""
    import lm_eval.tasks

    found: set[str] = set()
    for file in Path(lm_eval.tasks.__file__).parent.rglob("*"):
        # What they include need not end in .yaml.
        if file.suffix in NO_TASKS or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for lines in NAMED.findall(text):
            found.update(WORD.findall(lines))
    return frozenset(found)


def near(name: str) -> str:
    """`; did you mean ...?` where names are near."""
    close = difflib.get_close_matches(name, _names(), 3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _file(name: str) -> Path | None:
    path = Path(name).expanduser()
    if not name.endswith((".yaml", ".yml")):
        return None
    if not path.is_file():
        raise ValueError(f"there is no task file {name}; give a YAML file as lm-eval reads it")
    return path


def _leaves(name: str) -> Iterator[dict[str, Any]]:
    """The single tasks of a name, or the one of a file."""
    file = _file(name)
    if file is not None:
        yield {"task": _content(file)["task"]}
        return
    index = _library().task_index
    if name not in index:
        raise ValueError(
            f"lm-eval has no task, group or tag {name!r}{near(name)} (`lm-eval ls tasks` lists all)"
        )
    entry = index[name]
    if entry.kind.name == "TAG":
        yield from ({"task": one} for one in sorted(entry.tags))
    elif entry.kind.name == "GROUP":
        for one in (entry.cfg or {}).get("task", ()):
            spec = {"task": one} if isinstance(one, str) else dict(one)
            inner = str(spec.get("group", spec.get("task")))
            if inner in index and index[inner].kind.name in ("GROUP", "TAG"):
                # What a group says of one within it holds for all of its tasks.
                more = {key: told for key, told in spec.items() if key not in ("task", "group")}
                yield from ({**leaf, **more} for leaf in _leaves(inner))
            else:
                yield spec
    else:
        yield {"task": name}


def _place(name: str, spec: Spec) -> Any:
    """The data set of one task of a name."""
    entry = _library_of(name).task_index.get(str(spec.get("task")))
    return spec.get("dataset_path") or ((entry.cfg or {}).get("dataset_path") if entry else None)


def _local(name: str, data: Path | None) -> list[dict[str, Any]]:
    """The single tasks of a name, with the data sets that lie in a folder of the user's."""
    found = []
    for spec in _leaves(name):
        place = _place(name, spec)
        own = data / place if data is not None and isinstance(place, str) else None
        more = {"dataset_path": str(own)} if own is not None and own.is_dir() else {}
        found.append({**spec, **more})
    return found
