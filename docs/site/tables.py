"""`make tables`: the tables that plug-ins make of themselves, written into the pages anew.

What a page on GitHub shows is what was last written; the site has them as they are when it is built.
"""

from __future__ import annotations

from pathlib import Path

from onestage.cli._told import filled

PAGES = sorted((Path(__file__).parents[1]).glob("*.md"))

if __name__ == "__main__":
    for page in PAGES:
        was = page.read_text(encoding="utf-8")
        now = filled(was)
        if now != was:
            page.write_text(now, encoding="utf-8")
            print(f"{page.name}: written anew")
