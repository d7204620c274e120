"""Links between the pages, README and CONTRIBUTING lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.markdown import PAGES, anchors, without_code
from support.tiny import ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(without_code(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        where, _, anchor = link.partition("#")
        target = (page.parent / where).resolve() if where else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_linked_from_somewhere() -> None:
    """A page that no other names is found by nobody."""
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(without_code(page))
        if "://" not in link
    }
    lonely = [page for page in PAGES if page not in linked and page != ROOT / "README.md"]
    assert not lonely
