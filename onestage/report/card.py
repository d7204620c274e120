"""A model card of what a run left: what it was made of, what it is worth, what it forgot.

All of it is read from the run folder, so that a card says what was done and not what was meant. What is
not known (a licence, whether anything was forgotten) is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onestage.report.cells import Compared
from onestage.report.keeping import KEPT, verdict_of
from onestage.report.numbers import number
from onestage.report.plain import read_plain
from onestage.report.reading import Reader, mapping
from onestage.report.trained import Part, is_run, read_run
from onestage.runfolder import stages_in
from onestage.runfolder.secrets import hidden

MARK = "<!-- written by onestage push; a card without this line is left as it is -->"
UNKNOWN = "not known"
PATHS = ("path", "eval_path", "name", "reference", "tokenizer", "chat_template", "cache_dir")
"""Keys of a recipe that may hold places of the machine that made the model."""


@dataclass(frozen=True)
class About:
    """What a run folder does not say."""

    name: str
    """Of the model."""
    base: str | None = None
    """Hub id, or the name of the folder, of the model it was made from."""
    adapter: bool = False
    licence: str | None = None
    base_licence: str | None = None
    data_licences: Mapping[str, str] = field(default_factory=dict)
    """By stream."""


def run_of(model: Path) -> Path | None:
    """The run folder that a model folder lies in: of stages the whole. None for a model alone."""
    parent = model.resolve().parent
    if (parent.parent / "stages.json").is_file():
        return parent.parent
    return parent if is_run(parent) else None


def model_of(place: Path) -> Path:
    """The model folder of a run, or the folder itself where it is one. Raises `ValueError`."""
    for folder in (place, place / "model", *(s / "model" for s in reversed(stages_in(place)))):
        if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            return folder
    raise ValueError(
        f"{place} is no model folder and no run that left one: there is neither config.json nor "
        "adapter_config.json in it, nor in its model/"
    )


def streams_of(run: Path | None) -> list[str]:
    """Names of what a run was trained on."""
    return [name for name, _, _, _ in _streams(_parts(run))]


def card(run: Path | None, about: About) -> str:
    """The text of README.md."""
    found = read_plain([run]) if run is not None else None
    parts = _parts(run)
    sections = {
        "": _summary(parts, about),
        "What it is worth": _worth(found),
        "What it was trained on": _data(parts, about),
        "How it was made": _made(parts),
        "How to use it": _use(about),
        "Licences": _licences(parts, about),
    }
    body = [f"## {name}\n\n{text}" if name else text for name, text in sections.items() if text]
    return "\n".join([_front(parts, about), MARK, f"\n# {about.name}\n", "\n\n".join(body), ""])


def _parts(run: Path | None) -> Sequence[Part]:
    return [] if run is None else read_run(run, run.name, Reader()).parts


def _front(parts: Sequence[Part], about: About) -> str:
    told: dict[str, Any] = {
        "library_name": "peft" if about.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [
            "onestage",
            *sorted({_name(part.recipe.get("objective")) for part in parts} - {""}),
        ],
    }
    if about.base:
        told["base_model"] = about.base
        told["base_model_relation"] = "adapter" if about.adapter else "finetune"
    if about.licence:
        told["license"] = about.licence
    hub = [path for _, path, _, _ in _streams(parts) if _on_hub(path)]
    if hub:
        told["datasets"] = sorted(set(hub))
    return f"---\n{yaml.safe_dump(told, sort_keys=False)}---"


def _summary(parts: Sequence[Part], about: About) -> str:
    kind = "An adapter of" if about.adapter else "Made from"
    how = f" with onestage {_version(parts)}".rstrip()
    made = f"{kind} {about.base or 'a base that is ' + UNKNOWN}, trained{how}."
    objectives = [_name(part.recipe.get("objective")) or "several objectives" for part in parts]
    said = str(parts[0].recipe.get("description") or "").strip() if parts else ""
    chain = f" Trained by: {', then '.join(objectives)}." if objectives else ""
    return f"{made}{chain}" + (f"\n\n{said}" if said else "")


def _worth(found: Compared | None) -> str:
    if found is None:
        return "Not known: the folder lies in no run folder of onestage."
    verdict = verdict_of(found)
    told = [f"- {line}" for line in verdict.lines] if verdict else []
    forgot = any(metric.group == KEPT for metric in found.metrics.values())
    if not forgot:
        told.append(
            "- What it forgot was not measured (no `probe.retention`): a model that learns one thing "
            "usually gets worse at some other."
        )
    return "\n".join([*told, "", *_table(found)])


def _table(found: Compared) -> list[str]:
    rows = [one for one in found.settings() if one.method != found.base]
    lines = ["| measure | before | after |\n|---|---|---|"]
    for name, metric in found.metrics.items():
        base = found.base_of(rows[0]) if rows else None
        before = found.mean(base, name) if base else None
        after = found.mean(rows[0], name) if rows else None
        if after is not None:
            was = number(before.mean) if before else number(None)
            lines.append(f"| {name} ({metric.says or 'measured'}) | {was} | {number(after.mean)} |")
    return lines if len(lines) > 1 else ["No number was taken of it on held-out rows."]


def _data(parts: Sequence[Part], about: About) -> str:
    rows = []
    for name, path, table, _ in _streams(parts):
        cells = [name, public_place(path), _counts(table), f"{table.get('tokens', 0):,}"]
        cells += [_lost(table), about.data_licences.get(name, UNKNOWN)]
        rows.append(f"| {' | '.join(cells)} |")
    head = "| stream | from | records | tokens | left out | licence |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows]) if rows else ""


def _streams(parts: Sequence[Part]) -> Iterator[tuple[str, str, dict[str, Any], Part]]:
    """Name, place and row of the data table of each stream, the first time it is trained on."""
    seen = set()
    for part in parts:
        for stream in part.recipe.get("data") or []:
            told = mapping(stream)
            name, path = str(told.get("name")), str(told.get("path"))
            if name not in seen:
                seen.add(name)
                table = mapping(mapping(part.data.get("train")).get(name))
                yield name, path, table, part


def _counts(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in mapping(table.get("records")).items())


def _lost(table: Mapping[str, Any]) -> str:
    names = ("refused", "ties", "unlabelled", "cut")
    return ", ".join(f"{table[name]:,} {name}" for name in names if table.get(name)) or "nothing"


def _made(parts: Sequence[Part]) -> str:
    blocks = []
    for part in parts:
        about = part.manifest
        versions = mapping(about.get("versions"))
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        seed = f"seed {about.get('seed', UNKNOWN)}, {part.steps} steps"
        title = f"### {part.name}\n\n" if len(parts) > 1 else ""
        recipe = yaml.safe_dump(_without_places(part.recipe), sort_keys=False)
        blocks.append(f"{title}{seed}; {told}.\n\n```yaml\n{hidden(recipe)}```")
    return "\n\n".join(blocks)


def _use(about: About) -> str:
    loader = "AutoPeftModelForCausalLM" if about.adapter else "AutoModelForCausalLM"
    library = "peft" if about.adapter else "transformers"
    return (
        f"```python\nfrom {library} import {loader}\n\nmodel = {loader}.from_pretrained"
        f'("{about.name}")\n```\n\nServed: `onestage serve {about.name}` prints the command for it.'
    )


def _licences(parts: Sequence[Part], about: About) -> str:
    lines = [
        f"- this model: {about.licence or UNKNOWN}",
        f"- its base, {about.base or UNKNOWN}: {about.base_licence or UNKNOWN}",
        *(
            f"- data {name}: {about.data_licences.get(name, UNKNOWN)}"
            for name, _, _, _ in _streams(parts)
        ),
    ]
    return "\n".join(lines)


def _without_places(told: Any, key: str = "") -> Any:
    """A recipe without the folders of the machine it ran on: of a place the last name."""
    if isinstance(told, Mapping):
        return {name: _without_places(value, str(name)) for name, value in told.items()}
    if isinstance(told, list):
        return [_without_places(value, key) for value in told]
    if not isinstance(told, str):
        return told
    # Under whatever key: options of suites, rewards and plug-ins name files, too.
    is_place = key in PATHS or (told.startswith(("/", "~/")) and len(told.split()) == 1)
    return public_place(told) if is_place else told


def public_place(path: str) -> str:
    """A place without the folders of this machine."""
    return Path(path).name if path.startswith(("/", "~", "..")) else path


def _on_hub(path: str) -> bool:
    """Whether a stream's place can be a data set of the hub: two names, no file's ending."""
    return path.count("/") == 1 and not Path(path).suffix and not Path(path).exists()


def _version(parts: Sequence[Part]) -> str:
    return str(mapping(parts[0].manifest.get("versions")).get("onestage", "")) if parts else ""


def _name(choice: Any) -> str:
    return choice if isinstance(choice, str) else str(mapping(choice).get("name") or "")
