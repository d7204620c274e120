"""Measures the tables of docs/trust.md anew: `make trust`, or `python -m bench.trust NAME ...`."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "trust.md"
TABLE = re.compile(r"(<!-- trust:(\w+) -->\n).*?(<!-- /trust -->)", re.S)


def main(names: list[str]) -> None:
    """Put what each `bench/trust/NAME.py` measures between its marks on the page."""
    page = PAGE.read_text()
    for _, name, _ in TABLE.findall(page):
        if names and name not in names:
            continue
        print(f"measuring {name}", flush=True)
        measured = importlib.import_module(f"bench.trust.{name}").table()
        page = TABLE.sub(
            lambda found, name=name, text=measured: (
                f"{found[1]}\n{text}\n\n{found[3]}" if found[2] == name else found[0]
            ),
            page,
        )
        PAGE.write_text(page)


if __name__ == "__main__":
    main(sys.argv[1:])
