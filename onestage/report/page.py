"""One HTML file that opens offline: chapters of sections, with styles and what draws figures inside."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from onestage.report.axes import axes_section
from onestage.report.bounds import bounds_section
from onestage.report.cells import Compared
from onestage.report.claims import claims_section
from onestage.report.curves import curves_section
from onestage.report.equal import equal_section
from onestage.report.figures import Look, looks_of
from onestage.report.front import Comparison, FrontError, compare, result_of
from onestage.report.gains import gains_section
from onestage.report.keeping import verdict_section
from onestage.report.markup import Html, el, join
from onestage.report.opening import opening
from onestage.report.plain import read_plain
from onestage.report.published import published_section
from onestage.report.reading import Trouble
from onestage.report.repeating import data_section, recipe_section, repeat_section
from onestage.report.results import result_section
from onestage.report.samples import samples_section
from onestage.report.steps import steps_section
from onestage.report.studies import is_study, read_study
from onestage.report.trade import front_section
from onestage.report.trained import is_run
from onestage.runfolder import require_ours, write_text

WRITTEN = "Written by onestage report."
"""At the foot of every page."""
OURS = rf"(?s)\A<!doctype html>\n<html.*<footer>{re.escape(WRITTEN)}"
"""By which a page of ours is known: somebody else's may quote one."""


class ReportError(ValueError):
    """Folders that no report can be made of."""


@dataclass(frozen=True)
class Written:
    """A report that was made."""

    file: Path
    chapters: list[Compared]

    @property
    def troubles(self) -> list[Trouble]:
        return [trouble for chapter in self.chapters for trouble in chapter.troubles]


def report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    title: str | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Written:
    """Write one HTML file of runs and studies, which opens offline: tables, figures, samples.

    out: the file; default `report.html` in the folder where there is one, else here; asked: thresholds
    of the verdict (`wanted`, `allowed`, `by`), the others as the recipe has them. Raises
    `ValueError` for a file of another sort, and as `write_report`.
    """
    places = [Path(folder) for folder in folders]
    file = Path(out) if out else (places[0] if len(places) == 1 else Path()) / "report.html"
    if file.suffix not in (".html", ".htm"):
        raise ValueError(f"--out {file}: allowed are files .html and .htm")
    if file.is_dir():
        raise ValueError(f"--out {file}: is a folder")
    require_ours(file, OURS)
    return write_report(places, file, title, asked)


def write_report(
    folders: Sequence[Path],
    out: Path,
    title: str | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Written:
    """Read run and study folders and write the page, whole or not at all.

    A study is a chapter; all plain runs together are one. Raises `ReportError` for a folder that is
    neither; whatever is missing or damaged inside one is shown on the page.
    """
    chapters = read_folders(folders)
    text = page(chapters, title or " and ".join(chapter.name for chapter in chapters), asked)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    out.chmod(0o666 & ~mask)  # a page to be shown, not a private draft
    return Written(out, chapters)


def read_folders(folders: Sequence[Path]) -> list[Compared]:
    studies, runs = [], []
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            raise ReportError(f"{folder}: no such folder")
        if is_study(folder):
            studies.append(read_study(folder))
        elif is_run(folder):
            runs.append(folder)
        else:
            raise ReportError(
                f"{folder} is neither a study (study.json or cells/) nor a run (metrics.jsonl, "
                "stages.json, recipe.yaml or manifest.json)"
            )
    if not studies and not runs:
        raise ReportError("a report needs at least one run or study folder")
    return studies + ([read_plain(runs)] if runs else [])


def page(chapters: Sequence[Compared], title: str, asked: Mapping[str, Any] | None = None) -> str:
    """The whole document."""
    parts: list[Html] = []
    links: list[Html] = []
    for number, chapter in enumerate(chapters, 1):
        sections = chapter_sections(chapter, asked)
        mark = f"c{number}-" if len(chapters) > 1 else ""
        body = [
            el("section", el("h2", name), content, id=mark + _mark(name))
            for name, content in sections.items()
        ]
        here = [el("a", name, href=f"#{mark}{_mark(name)}") for name in sections]
        if len(chapters) > 1:
            links.append(el("a", el("strong", chapter.name), href=f"#c{number}"))
            body.insert(0, el("h1", chapter.name, id=f"c{number}", class_="chapter"))
        links += here
        parts.append(el("article", *body))
    head = join(
        [
            el("meta", charset="utf-8"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("title", title),
            el("style", _own("page.css")),
        ]
    )
    whole = join(
        [
            el("header", el("h1", title), el("nav", *links)),
            el("main", *parts),
            el("footer", f"{WRITTEN} This file needs no network."),
            el("script", _own("draw.js")),
            el("script", _own("page.js")),
        ]
    )
    document = el("html", el("head", head), el("body", whole), lang="en")
    return f"<!doctype html>\n{document}\n"


def chapter_sections(found: Compared, asked: Mapping[str, Any] | None = None) -> dict[str, Html]:
    """The sections of a chapter that have something to show, in the order a reader needs them."""
    looks: Mapping[str, Look] = looks_of(found.methods, found.base)
    sections = {
        "What this is": opening(found),
        "Verdict": verdict_section(found, asked),
        "Results": result_section(found, looks),
        "Over the axes": axes_section(found, looks),
        "Over the steps": steps_section(found, looks),
        "Gained and forgotten": gains_section(found, looks),
        "Bounds": bounds_section(found, looks),
        "Beside the papers": published_section(found),
        "The front": front_section(found, looks, _gaps(found)),
        "At equal gain": equal_section(found, looks),
        "Claims": claims_section(found),
        "Samples": samples_section(found, looks),
        "Training": curves_section(found, looks),
        "Data": data_section(found),
        "Recipes": recipe_section(found, looks),
        "How to repeat it": repeat_section(found),
    }
    return {name: content for name, content in sections.items() if content}


def _gaps(found: Compared) -> Comparison | FrontError | None:
    """Of plain runs with the same terms, as `onestage front` compares them; or why it cannot."""
    folders = [cell.trained.folder for cell in found.cells if cell.trained is not None]
    if found.is_study or len(folders) < 2:
        return None
    try:
        return compare([result_of(folder) for folder in folders], {})
    except FrontError as error:
        return error


def _mark(name: str) -> str:
    return name.lower().replace(" ", "-")


def _own(name: str) -> Html:
    return Html(resources.files("onestage.report").joinpath(name).read_text())
