"""What pages of documentation hold: blocks of code, links and headings."""

from __future__ import annotations

import re
from pathlib import Path

from support.tiny import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / name / "README.md" for name in ("bench", "recipes")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Fenced blocks of a language, each with the number of its fence's line."""
    found, inside = [], None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if inside is None and line == f"```{language}":
            inside = (number, [])
        elif inside is not None and line == "```":
            found.append((inside[0], "\n".join(inside[1]) + "\n"))
            inside = None
        elif inside is not None:
            inside[1].append(line)
    return found


def without_code(page: Path) -> str:
    """The text between fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Names that links may have behind `#`, as GitHub makes them of headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (whole := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(whole)
    return found


def commands(page: Path) -> list[str]:
    """What is typed in a terminal, in its order there: without comments, lines that go on joined."""
    found, held, language = [], "", None
    for line in page.read_text().splitlines():
        fence = re.match(r" *```(\w*)$", line)
        if fence:
            language = None if language is not None else fence[1]
            continue
        typed = language in ("", "bash", "console") or (language is None and line[:4] == "    ")
        if typed and (held or re.match(r"\s*(onestage|torchrun) ", line)):
            held = f"{held} {line.strip()}".strip()
            if not held.endswith("\\"):
                found.append(re.split(r"\s+# ", held)[0].strip())
            held = held.removesuffix("\\") if held.endswith("\\") else ""
    return found
