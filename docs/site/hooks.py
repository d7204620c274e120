"""Hooks of mkdocs: pages and files beside `docs/` are shown too, and links to them lead there.

A notebook is shown as a page of its cells, with what they printed when they were last run. Tables of
plug-ins are made anew (`tables.py` writes them into the pages themselves).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from onestage.cli._told import filled

ROOT = Path(__file__).parents[2]
SHOWN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bench/README.md": "bench.md",
    "recipes/README.md": "recipes.md",
    **{
        f"bench/results/{page.name}": f"bench-{page.name}"
        for page in (ROOT / "bench" / "results").glob("*.md")
    },
}
"""Pages, by where they lie: where the site has them."""
INSTEAD = {"studies": "studies.md", "docs/studies": "studies.md", "docs": "index.md"}
"""Folders, which a site cannot show."""
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: Any) -> Files:
    for where, shown in SHOWN.items():
        files.append(File.generated(config, shown, abs_src_path=str(ROOT / where)))
    folders = ("recipes/*.yaml", "recipes/*.py", "studies/*.yaml", "bench/results/*.json")
    plain = [path for pattern in folders for path in ROOT.glob(pattern)]
    for path in [*plain, ROOT / "onestage" / "training" / "gpus.yaml", ROOT / "LICENSE"]:
        where = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, f"files/{where}", abs_src_path=str(path)))
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        shown = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, shown, content=page_of(path)))
    return files


def page_of(notebook: Path) -> str:
    """The cells of a notebook as a page; its link to the file itself stays below the title."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            text = output.get("text") or output.get("data", {}).get("text/plain") or ()
            parts.append(f"```text\n{''.join(text).rstrip()}\n```")
    here = f'<a href="{notebook.name}" download>This page as a notebook</a>'
    title, _, rest = parts[0].partition("\n")
    return "\n\n".join([title, here, rest, *parts[1:]]) + "\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    markdown = filled(markdown)
    lies = {shown: where for where, shown in SHOWN.items()}
    here = ROOT / lies.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def moved(match: re.Match[str]) -> str:
        before, link, anchor, after = match.groups()
        if "://" in link or link.startswith("mailto:"):
            return match.group()
        target = Path(os.path.normpath(here.parent / link))
        shown = os.path.relpath(_shown(target), Path(page.file.src_uri).parent)
        return f"{before}{Path(shown).as_posix()}{anchor or ''}{after}"

    # Links in code are text.
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def _shown(target: Path) -> str:
    """Where the site has what lies at a path."""
    where = target.relative_to(ROOT).as_posix()
    if where in SHOWN or where in INSTEAD:
        return SHOWN.get(where) or INSTEAD[where]
    if where.endswith(".ipynb"):
        where = where.removesuffix(".ipynb") + ".md"
    return where.removeprefix("docs/") if where.startswith("docs/") else f"files/{where}"


def on_post_build(config: Any) -> None:
    """From disk the theme asks for the index as a script."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
